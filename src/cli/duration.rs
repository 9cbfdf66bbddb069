//! A time as it is typed: `30s`, `10m`, `1h 30m`, or a bare number of seconds.

use std::fmt::Write;
use std::time::Duration;

use jiff::SignedDuration;

/// Understands a time; at most as long as a year, so that sums of times cannot overflow.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let duration = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => text
            .parse::<SignedDuration>()
            .ok()
            .and_then(|duration| Duration::try_from(duration).ok())
            .ok_or_else(|| "use a time such as 30s, 10m or 1h30m".to_owned())?,
    };
    if duration > YEAR {
        return Err("use a year at most".to_owned());
    }
    Ok(duration)
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
        for millis in [0, 1, 999, 3_600_000, 366 * 24 * 3_600_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse(&typed(duration)), Ok(duration));
        }
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        for text in ["", "-5s", "5 parsecs", "m", "1e9", "400000000", "9999h9"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
