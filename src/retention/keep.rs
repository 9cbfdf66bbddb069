//! How many snapshots stay: `last=10,hourly=24,daily=7,weekly=4,monthly=12,yearly=2`.
//!
//! A period is an hour, day, week, month or year in UTC, whatever the time zone of the host: both
//! sides of a copy must count alike, and no day may have 23 or 25 hours. Weeks begin on Monday.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// How many stay by each rule; at least one rule keeps something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Keep {
    /// By [`Rule::ALL`].
    counts: [u16; Rule::ALL.len()],
}

/// One way to keep some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The newest ones, however close they are to each other.
    Last,
    /// The first of each hour.
    Hourly,
    /// The first of each day.
    Daily,
    /// The first of each week.
    Weekly,
    /// The first of each month.
    Monthly,
    /// The first of each year.
    Yearly,
}

/// The most that one rule may keep.
const COUNT_MAX: u16 = 9999;

/// Why a text is no list of rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKeep {
    /// There is nothing, or nothing between two commas.
    #[error("a rule is missing; rules are a list such as {EXAMPLE}")]
    Missing,
    /// It is not `word=number`.
    #[error("'{}' is no rule; rules are a list such as {EXAMPLE}", shown(.0))]
    NoRule(String),
    /// The word means nothing.
    #[error("'{}' is nothing to keep; expected last, hourly, daily, weekly, monthly or yearly",
        shown(.0))]
    UnknownRule(String),
    /// The number is none, or too large.
    #[error("{rule}={} does not say how many; expected a number from 0 to {COUNT_MAX}",
        shown(.count))]
    BadCount {
        /// Of which rule.
        rule: Rule,
        /// What stands there.
        count: String,
    },
    /// The word stands there twice.
    #[error("{0} stands there twice")]
    Twice(Rule),
    /// All are 0.
    #[error("these rules keep nothing at all; at least one must be more than 0")]
    Nothing,
}

const EXAMPLE: &str = "last=10,hourly=24,daily=7,weekly=4,monthly=12,yearly=2";

/// So much of a wrong text is shown.
const SHOWN_CHARS_MAX: usize = 40;

fn shown(text: &str) -> String {
    text.escape_debug().take(SHOWN_CHARS_MAX).collect()
}

impl Keep {
    /// How many stay by one rule.
    pub fn count(&self, rule: Rule) -> u16 {
        self.counts[rule as usize]
    }
}

impl Rule {
    /// All that there are, by how long they keep.
    pub const ALL: [Rule; 6] =
        [Rule::Last, Rule::Hourly, Rule::Daily, Rule::Weekly, Rule::Monthly, Rule::Yearly];

    /// What it is called.
    pub fn word(self) -> &'static str {
        match self {
            Rule::Last => "last",
            Rule::Hourly => "hourly",
            Rule::Daily => "daily",
            Rule::Weekly => "weekly",
            Rule::Monthly => "monthly",
            Rule::Yearly => "yearly",
        }
    }

    /// The number of the period that a time lies in: one more than that of the period before it.
    /// `None`: this rule does not go by time.
    pub(super) fn period(self, time: Timestamp) -> Option<i64> {
        const HOUR_SECONDS: i64 = 60 * 60;
        const DAY_SECONDS: i64 = 24 * HOUR_SECONDS;
        let seconds = time.as_nanosecond().div_euclid(1_000_000_000);
        let seconds = i64::try_from(seconds).ok()?;
        let day = seconds.div_euclid(DAY_SECONDS);
        let date = || TimeZone::UTC.to_datetime(time).date();
        match self {
            Rule::Last => None,
            Rule::Hourly => Some(seconds.div_euclid(HOUR_SECONDS)),
            Rule::Daily => Some(day),
            // Day 0, 1970-01-01, was a Thursday: the Monday before it was day -3.
            Rule::Weekly => Some((day + 3).div_euclid(7)),
            Rule::Monthly => Some(i64::from(date().year()) * 12 + i64::from(date().month())),
            Rule::Yearly => Some(i64::from(date().year())),
        }
    }
}

impl FromStr for Keep {
    type Err = BadKeep;

    fn from_str(text: &str) -> Result<Keep, BadKeep> {
        let mut counts = [None; Rule::ALL.len()];
        for part in text.split(',').map(str::trim) {
            if part.is_empty() {
                return Err(BadKeep::Missing);
            }
            let no_rule = || BadKeep::NoRule(part.to_owned());
            let (word, count) = part.split_once('=').ok_or_else(no_rule)?;
            let unknown = || BadKeep::UnknownRule(word.to_owned());
            let rule =
                Rule::ALL.into_iter().find(|rule| rule.word() == word).ok_or_else(unknown)?;
            let digits = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
            let number = count.parse().ok().filter(|&number| digits && number <= COUNT_MAX);
            let number =
                number.ok_or_else(|| BadKeep::BadCount { rule, count: count.to_owned() })?;
            if counts[rule as usize].replace(number).is_some() {
                return Err(BadKeep::Twice(rule));
            }
        }
        let counts = counts.map(Option::unwrap_or_default);
        if counts.iter().all(|&count| count == 0) {
            Err(BadKeep::Nothing)
        } else {
            Ok(Keep { counts })
        }
    }
}

impl TryFrom<String> for Keep {
    type Error = BadKeep;

    fn try_from(text: String) -> Result<Keep, BadKeep> {
        text.parse()
    }
}

impl From<Keep> for String {
    fn from(keep: Keep) -> String {
        keep.to_string()
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl fmt::Display for Keep {
    /// As it is typed, without the rules that keep nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for rule in Rule::ALL.into_iter().filter(|&rule| self.count(rule) > 0) {
            write!(f, "{separator}{rule}={}", self.count(rule))?;
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_shown_as_they_are_typed() {
        for (text, shown) in [
            (EXAMPLE, EXAMPLE),
            ("daily=7", "daily=7"),
            ("yearly=9999, last=1", "last=1,yearly=9999"),
            ("daily=007,weekly=0", "daily=7"),
        ] {
            let keep: Keep = text.parse().unwrap();
            assert_eq!(keep.to_string(), shown);
            assert_eq!(shown.parse(), Ok(keep));
            let wire = serde_json::to_string(&keep).unwrap();
            assert_eq!(wire, format!("\"{shown}\""));
            assert_eq!(serde_json::from_str::<Keep>(&wire).unwrap(), keep);
        }
    }

    #[test]
    fn what_is_no_rule_is_told_with_what_would_be_one() {
        for (text, words) in [
            ("", "a rule is missing"),
            ("daily=7,", "a rule is missing"),
            ("7", "'7' is no rule; rules are a list such as last=10,hourly=24"),
            ("monthy=7", "'monthy' is nothing to keep; expected last, hourly,"),
            ("daily=", "daily= does not say how many"),
            ("daily=-1", "daily=-1 does not say how many"),
            ("daily=+1", "daily=+1 does not say how many"),
            ("daily=10000", "expected a number from 0 to 9999"),
            ("daily=65537", "expected a number from 0 to 9999"),
            ("daily=1,daily=2", "daily stands there twice"),
            ("daily=0", "keep nothing at all"),
            ("a\u{1b}=1", "'a\\u{1b}' is nothing to keep"),
        ] {
            let said = text.parse::<Keep>().unwrap_err().to_string();
            assert!(said.contains(words), "{text:?}: {said}");
        }
        assert!("x".repeat(1000).parse::<Keep>().unwrap_err().to_string().len() < 200);
    }

    #[test]
    fn periods_begin_in_utc_and_weeks_on_monday() {
        let period = |rule: Rule, time: &str| rule.period(time.parse().unwrap()).unwrap();
        for (rule, last, first) in [
            (Rule::Hourly, "2026-08-01T11:59:59.9Z", "2026-08-01T12:00:00Z"),
            (Rule::Daily, "2026-07-31T23:59:59Z", "2026-08-01T00:00:00Z"),
            (Rule::Daily, "2026-08-01T01:00:00+02:00", "2026-08-01T02:00:00+02:00"),
            // A Sunday and a Monday.
            (Rule::Weekly, "2026-08-02T23:59:59Z", "2026-08-03T00:00:00Z"),
            (Rule::Weekly, "1969-12-28T23:59:59Z", "1969-12-29T00:00:00Z"),
            (Rule::Monthly, "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"),
            (Rule::Yearly, "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"),
            (Rule::Yearly, "-000001-12-31T23:59:59Z", "0000-01-01T00:00:00Z"),
        ] {
            assert_eq!(period(rule, last) + 1, period(rule, first), "{rule} {first}");
        }
        for time in [Timestamp::MIN, Timestamp::MAX] {
            assert!(Rule::ALL.into_iter().skip(1).all(|rule| rule.period(time).is_some()));
        }
    }
}
