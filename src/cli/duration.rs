//! A time as it is typed: `30s`, `10m`, `1h 30m`, or a bare number of seconds.

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

const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

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
