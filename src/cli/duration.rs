//! A time as it is typed: `30s`, `10m`, `1h 30m`, `7d`, or a bare number of seconds.

use std::fmt::Write;
use std::time::Duration;

use jiff::SignedDuration;

/// Understands a time; at most as long as a year, so that sums of times cannot overflow.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let duration = match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => with_units(text),
    };
    let duration =
        duration.ok_or_else(|| "use a time such as 30s, 10m, 1h30m, 1d or 2w".to_owned())?;
    if duration > YEAR {
        return Err("use a year at most".to_owned());
    }
    Ok(duration)
}

/// Weeks and days are ours, of 24 hours each whatever a clock on a wall does meanwhile.
fn with_units(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (weeks, rest) = leading(text, &["weeks", "week", "w"]);
    let (days, rest) = leading(rest, &["days", "day", "d"]);
    let whole = weeks.unwrap_or(0).checked_mul(7)?.checked_add(days.unwrap_or(0))?;
    let whole = Duration::from_secs(whole.checked_mul(24 * 3600)?);
    if rest.is_empty() && (weeks.is_some() || days.is_some()) {
        return Some(whole);
    }
    let rest = Duration::try_from(rest.parse::<SignedDuration>().ok()?).ok()?;
    whole.checked_add(rest)
}

/// A number that stands in front with one of these units, and what is behind it.
fn leading<'a>(text: &'a str, units: &[&str]) -> (Option<u64>, &'a str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, behind) = text.split_at(digits);
    let behind = behind.trim_start();
    // What goes on with a letter is another word.
    let mut rest = units.iter().filter_map(|unit| behind.strip_prefix(unit));
    let rest = rest.find(|rest| !rest.starts_with(|c: char| c.is_ascii_alphabetic()));
    match (number.parse(), rest) {
        (Ok(number), Some(rest)) => (Some(number), rest.trim_start_matches([' ', ','])),
        _ => (None, text),
    }
}

/// As [`parse`] understands it; what is below a millisecond is left out.
pub(super) fn typed(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// Whole seconds for people, by the two largest units: `45s`, `2h5m`, `3d`.
pub(super) fn spoken(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(24 * 3600, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let first = UNITS.iter().position(|&(unit, _)| seconds >= unit).unwrap_or(UNITS.len() - 1);
    let mut rest = seconds;
    let mut text = String::new();
    for (unit, name) in UNITS.iter().skip(first).take(2) {
        let count = rest / unit;
        rest %= unit;
        if count > 0 || text.is_empty() {
            let _infallible = write!(text, "{count}{name}");
        }
    }
    text
}

const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_by_their_two_largest_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m1s"),
            (3600, "1h"),
            (3601, "1h"),
            (7500, "2h5m"),
            (3 * 24 * 3600 + 4 * 3600 + 59, "3d4h"),
        ] {
            assert_eq!(spoken(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn times_are_seconds_or_have_units() {
        for (text, seconds) in
            [("0", 0), ("90", 90), ("30s", 30), ("10m", 600), ("1h", 3600), ("1h30m", 5400)]
        {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for (text, hours) in [
            ("1d", 24),
            ("2w", 14 * 24),
            ("1d1h", 25),
            ("1w 2d 3h", 9 * 24 + 3),
            ("1w3h", 7 * 24 + 3),
            ("3 days", 72),
            ("1 week, 1 day", 8 * 24),
            ("366d", 366 * 24),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(hours * 3600)), "{text}");
        }
        // What we print ourselves.
        for seconds in [0, 59, 7500, 90_000, 273_600] {
            assert_eq!(parse(&spoken(seconds)), Ok(Duration::from_secs(seconds)));
        }
        for millis in [0, 1, 999, 3_600_000, 366 * 24 * 3_600_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse(&typed(duration)), Ok(duration));
        }
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        for text in [
            "",
            "-5s",
            "5 parsecs",
            "m",
            "1e9",
            "400000000",
            "9999h9",
            "d",
            "1d1",
            "1d2w",
            "367d",
            "1d-1h",
            "99999999999999999w",
            "1decade",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
