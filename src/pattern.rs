//! Names that a person leaves out or takes along, as patterns.
//!
//! Globs, because that is what people type for names elsewhere: `*` and `?` stay within one part of
//! a name, `**` goes over the slashes.

use std::fmt;
use std::str::FromStr;

use globset::{GlobBuilder, GlobMatcher};

use crate::dataset::SnapName;

/// A pattern for names of datasets or snapshots.
#[derive(Clone, Debug)]
pub struct Pattern(GlobMatcher);

/// A pattern that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("{0}; use * and ? within one part of a name, ** over several, {{a,b}} for alternatives")]
pub struct BadPattern(#[from] globset::Error);

/// Which snapshots are copied, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Only those that one of these fits, where there are any.
    pub include: Vec<Pattern>,
    /// And of them none that one of these fits.
    pub exclude: Vec<Pattern>,
}

impl Pattern {
    /// Whether it fits a whole name.
    pub fn fits(&self, name: &str) -> bool {
        self.0.is_match(name)
    }

    /// As it was typed.
    pub fn as_str(&self) -> &str {
        self.0.glob().glob()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Pattern, BadPattern> {
        let glob = GlobBuilder::new(text).literal_separator(true).build()?;
        Ok(Pattern(glob.compile_matcher()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Chosen {
    /// Whether a snapshot of this name is copied.
    pub fn takes(&self, name: &SnapName) -> bool {
        let fits = |patterns: &[Pattern]| patterns.iter().any(|it| it.fits(name.as_str()));
        (self.include.is_empty() || fits(&self.include)) && !fits(&self.exclude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_within_one_part_of_a_name() {
        let fits = |pattern: &str, name| pattern.parse::<Pattern>().unwrap().fits(name);
        assert!(fits("tmp*", "tmp") && fits("tmp*", "tmp-1") && fits("*/cache", "a/cache"));
        assert!(!fits("tmp*", "tmp/a") && !fits("*/cache", "a/b/cache") && !fits("tmp", "a/tmp"));
        assert!(fits("**/cache", "a/b/cache") && fits("**/cache", "cache"));
        assert!(fits("{a,b}", "b") && !fits("{a,b}", "c"));
        assert!("a{b".parse::<Pattern>().unwrap_err().to_string().contains("alternatives"));
    }

    #[test]
    fn what_is_left_out_is_left_out_of_what_is_taken_along() {
        let patterns = |all: &[&str]| all.iter().map(|it| it.parse().unwrap()).collect();
        let name = |text: &str| text.parse::<SnapName>().unwrap();
        let all = Chosen::default();
        assert!(all.takes(&name("x")));
        let some =
            Chosen { include: patterns(&["daily_*", "weekly_*"]), exclude: patterns(&["*_tmp"]) };
        assert!(some.takes(&name("daily_1")) && some.takes(&name("weekly_1")));
        assert!(!some.takes(&name("hourly_1")) && !some.takes(&name("daily_tmp")));
    }
}
