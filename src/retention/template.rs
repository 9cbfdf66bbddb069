//! How snapshots of ours are called: `zferry_%Y-%m-%dT%H:%M:%SZ`.
//!
//! A name is made from a time and gives it back, to the second and in UTC. That is how we know
//! which snapshots are ours, and when they were made: on both sides, without asking a pool. What
//! must never happen here: a name that was written otherwise and is taken for one of ours.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::dataset::{NameError, SnapName};

/// How snapshots are called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template(String);

/// The one that counts where nothing else is said.
const DEFAULT: &str = "zferry_%Y-%m-%dT%H:%M:%SZ";

/// Room for a name and all parts of a time.
const BYTES_MAX: usize = 128;

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    /// It is too long.
    #[error("a template has at most {BYTES_MAX} bytes, as in {DEFAULT}")]
    TooLong,
    /// A `%` that stands for nothing.
    #[error("'{}' cannot be filled in: {why}; an example is {DEFAULT}", .text.escape_debug())]
    NoFormat {
        /// What was said.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// What it makes is no name.
    #[error("'{}' makes no names of snapshots: {why}", .text.escape_debug())]
    NoName {
        /// What was said.
        text: String,
        /// What is wrong with the name.
        why: NameError,
    },
    /// It leaves something out.
    #[error(
        "'{}' makes names that do not tell their time to the second (such as '{name}'), so that \
         two snapshots could get the same name and nobody would know how old one is: say year, \
         month, day, hour, minute and second, as in {DEFAULT}",
        .text.escape_debug()
    )]
    NoTime {
        /// What was said.
        text: String,
        /// What comes of it.
        name: SnapName,
    },
}

/// Times that differ in every part that a name must have: a template that gives back all of them
/// leaves none out. Mornings and afternoons, two centuries, one- and two-digit numbers.
const PROBES: [&str; 9] = [
    "2026-11-29T08:16:12Z",
    "2026-11-29T08:16:13Z",
    "2026-11-29T08:17:12Z",
    "2026-11-29T09:16:12Z",
    "2026-11-29T20:16:12Z",
    "2026-11-09T08:16:12Z",
    "2026-02-28T00:00:00Z",
    "2027-11-29T08:16:12Z",
    "2126-09-25T23:59:59Z",
];

impl Template {
    /// The name of a snapshot that is made at this time.
    pub fn name_at(&self, time: Timestamp) -> Result<SnapName, BadTemplate> {
        let no_format = |error: jiff::Error| {
            let why = error.to_string();
            BadTemplate::NoFormat { text: self.0.clone(), why }
        };
        let name = strtime::format(&self.0, time).map_err(no_format)?;
        name.parse().map_err(|why| BadTemplate::NoName { text: self.0.clone(), why })
    }

    /// When a snapshot of this name was made, by its name; `None` where that is none of ours.
    pub fn time_of(&self, name: &SnapName) -> Option<Timestamp> {
        let parts = BrokenDownTime::parse(&self.0, name.as_str()).ok()?;
        let time = match parts.to_timestamp() {
            Ok(time) => time,
            Err(_no_offset) => TimeZone::UTC.to_timestamp(parts.to_datetime().ok()?).ok()?,
        };
        // A parser takes what a person may write: other case, a digit less, a sign.
        (self.name_at(time).as_ref() == Ok(name)).then_some(time)
    }

    /// As it is typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Template {
    fn default() -> Template {
        Template(DEFAULT.to_owned())
    }
}

impl FromStr for Template {
    type Err = BadTemplate;

    fn from_str(text: &str) -> Result<Template, BadTemplate> {
        if text.len() > BYTES_MAX {
            return Err(BadTemplate::TooLong);
        }
        let template = Template(text.to_owned());
        for probe in PROBES.iter().filter_map(|probe| probe.parse().ok()) {
            let name = template.name_at(probe)?;
            if template.time_of(&name) != Some(probe) {
                return Err(BadTemplate::NoTime { text: text.to_owned(), name });
            }
        }
        Ok(template)
    }
}

impl TryFrom<String> for Template {
    type Error = BadTemplate;

    fn try_from(text: String) -> Result<Template, BadTemplate> {
        text.parse()
    }
}

impl From<Template> for String {
    fn from(template: Template) -> String {
        template.0
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Template {
        text.parse().unwrap()
    }

    fn time_of(text: &str, name: &str) -> Option<String> {
        template(text).time_of(&name.parse().unwrap()).map(|time| time.to_string())
    }

    #[test]
    fn a_name_gives_its_time_back() {
        assert_eq!(DEFAULT.parse(), Ok(Template::default()));
        for (text, name) in [
            (DEFAULT, "zferry_2026-08-01T12:00:00Z"),
            ("%Y%m%d-%H%M%S", "20260801-120000"),
            ("auto.%F_%T_daily", "auto.2026-08-01_12:00:00_daily"),
            ("at %s", "at 1785585600"),
            ("%b %d %Y %I.%M.%S %p", "Aug 01 2026 12.00.00 PM"),
            ("%Y-%j-%H-%M-%S", "2026-213-12-00-00"),
        ] {
            let time: Timestamp = "2026-08-01T12:00:00Z".parse().unwrap();
            assert_eq!(template(text).name_at(time).unwrap().as_str(), name);
            assert_eq!(time_of(text, name).as_deref(), Some("2026-08-01T12:00:00Z"));
        }
    }

    #[test]
    fn what_was_written_otherwise_is_not_ours() {
        for name in [
            "zferry_2026-08-01T12:00:00",
            "zferry_2026-08-01T12:00:00Z2",
            "Zferry_2026-08-01T12:00:00Z",
            "zferry_2026-8-01T12:00:00Z",
            "zferry_2026-08-01T12:00:60Z",
            "zferry_2026-02-30T12:00:00Z",
            "zferry_ 2026-08-01T12:00:00Z",
            "autosnap_2026-08-01_12:00:00_daily",
            "monday",
        ] {
            assert_eq!(time_of(DEFAULT, name), None, "{name}");
        }
        assert_eq!(time_of("%b %d %Y %T", "aug 01 2026 12:00:00"), None);
    }

    #[test]
    fn a_template_that_leaves_a_part_out_is_refused_and_told_what_is_missing() {
        for (text, words) in [
            ("monday", "do not tell their time to the second (such as 'monday')"),
            ("%Y-%m-%d", "(such as '2026-11-29')"),
            ("%Y-%m-%d_%H:%M", "say year, month, day, hour, minute and second"),
            ("%m-%dT%H:%M:%S", "as in zferry_%Y-%m-%dT%H:%M:%SZ"),
            ("%y-%m-%dT%H:%M:%S", "to the second"),
            ("%Y-%m-%dT%I:%M:%S", "to the second"),
            ("%Y-%dT%H:%M:%S", "to the second"),
            ("x%", "cannot be filled in"),
            ("%Y-%m-%dT%H:%M:%S%z", "'+'"),
            ("a/%Y-%m-%dT%H:%M:%S", "makes no names of snapshots"),
            ("$%Y-%m-%dT%H:%M:%S", "makes no names of snapshots"),
            ("", "makes no names of snapshots"),
            (&"x".repeat(129), "at most 128 bytes"),
        ] {
            let said = text.parse::<Template>().unwrap_err().to_string();
            assert!(said.contains(words), "{text:?}: {said}");
        }
        assert!(serde_json::from_str::<Template>("\"%Y\"").is_err());
    }

    #[test]
    fn every_time_that_a_clock_can_show_has_a_name() {
        for time in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            assert!(Template::default().name_at(time).is_ok(), "{time}");
        }
    }
}
