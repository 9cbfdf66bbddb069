//! `zferry monitor`: whether each job's last success is young enough, for Nagios and its kin.
//!
//! Reads what schedulers leave in their state folder, so that it works while none runs: then
//! nothing succeeds any more, which is just what it has to tell. What must never happen here: that
//! what is not known counts as well.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::duration;
use super::schedule::histories::{self, Left};
use super::schedule::usual_state;
use crate::protocol::text::one_line;
use crate::trust::owner;

/// Check the age of each job's last success, as Nagios, Icinga and others do
///
/// Prints one line with performance data. Exit codes: 0 all are young, 1 one is as old as --warn or
/// older, 2 one is as old as --crit or older, 3 not known. A job that never succeeded is as old as
/// it was first seen.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Where the scheduler keeps what it knows [default: /var/lib/zferry, or schedule in it]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Check this job, which may be given more than once [default: all]
    #[arg(long = "job", value_name = "NAME")]
    jobs: Vec<String>,
    /// A success as old as this is a warning, such as 2h or 1d
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    warn: Duration,
    /// A success as old as this is critical
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    crit: Duration,
}

/// What becomes of the exit code. The worst is last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Ok,
    Warning,
    Unknown,
    Critical,
}

/// What is known of one job.
#[derive(Debug)]
struct Age<'a> {
    job: &'a str,
    /// Since its last success.
    success: Option<Duration>,
    /// Since it was first seen, where there was none.
    seen: Option<Duration>,
    /// How far ahead of the clock its last success is dated, if that is more than clocks differ by
    /// that are kept in step: then nobody knows how old it is.
    ahead: Option<Duration>,
}

/// A clock that is kept in step is set back by less.
const AHEAD_MAX: Duration = Duration::from_secs(5 * 60);

/// From which age on what is said.
#[derive(Clone, Copy, Debug)]
struct Limits {
    warn: Duration,
    crit: Duration,
}

/// What there is to say, and the exit code.
pub(super) fn run(arguments: &Arguments) -> u8 {
    let limits = Limits { warn: arguments.warn, crit: arguments.crit };
    let (verdict, line) = if limits.warn > limits.crit {
        (Verdict::Unknown, "--warn is later than --crit: then nothing is ever a warning".to_owned())
    } else {
        let state = arguments.state.clone().unwrap_or_else(usual_state);
        match histories::left(&state) {
            Ok(left) => judge(&ages(&left, Timestamp::now()), &arguments.jobs, limits),
            Err(error) => (Verdict::Unknown, unread(&state, &error)),
        }
    };
    // A reader that is gone does not change what is true.
    let _ = writeln!(std::io::stdout(), "ZFERRY {verdict}: {}", one_line(&line, LINE_BYTES_MAX));
    verdict.exit_code()
}

/// What Nagios reads of a line.
const LINE_BYTES_MAX: usize = 8 << 10;

fn unread(state: &Path, error: &io::Error) -> String {
    let what = format!("what a scheduler keeps in {}: {error}", state.display());
    if error.kind() == io::ErrorKind::PermissionDenied {
        let user = owner::nearest(state).name;
        return format!("{what}; run this as the scheduler's user: sudo -u {user} zferry monitor");
    }
    format!("{what}; name the scheduler's folder: --state DIR")
}

fn ages(left: &[Left], now: Timestamp) -> Vec<Age<'_>> {
    // A clock that was set back by a little makes nothing younger than now.
    let since = |then: Timestamp| Duration::try_from(now.duration_since(then)).unwrap_or_default();
    let until = |then: Timestamp| Duration::try_from(then.duration_since(now)).unwrap_or_default();
    let age = |left: &'_ Left| {
        let history = left.history.as_ref().ok();
        let succeeded = history.and_then(|history| history.succeeded);
        let ahead = succeeded.map(until).filter(|&ahead| ahead > AHEAD_MAX);
        let success = succeeded.filter(|_| ahead.is_none()).map(since);
        let first = left.card.first_seen.or_else(|| history.and_then(|history| history.began));
        // Of a history that cannot be read nobody knows whether there was a success.
        let seen = history.filter(|_| ahead.is_none()).and(first).map(since);
        (success, seen, ahead)
    };
    let of = left.iter().map(|left| (left, age(left)));
    of.map(|(left, (success, seen, ahead))| Age { job: &left.name, success, seen, ahead }).collect()
}

/// Judges the jobs that are asked for, or all.
fn judge(ages: &[Age<'_>], jobs: &[String], limits: Limits) -> (Verdict, String) {
    let is_asked = |age: &&Age<'_>| jobs.is_empty() || jobs.iter().any(|job| job == age.job);
    let asked: Vec<&Age<'_>> = ages.iter().filter(is_asked).collect();
    let missing = jobs.iter().find(|job| !asked.iter().any(|age| age.job == job.as_str()));
    if let Some(job) = missing {
        return (Verdict::Unknown, format!("there is no job {job}"));
    }
    let worst = asked.iter().map(|age| age.verdict(limits)).max();
    let Some(worst) = worst else { return (Verdict::Unknown, "there are no jobs".to_owned()) };
    let told: Vec<String> = if worst == Verdict::Ok {
        let oldest = asked.iter().max_by_key(|age| age.success.or(age.seen));
        let jobs = match asked.len() {
            1 => "1 job".to_owned(),
            count => format!("{count} jobs"),
        };
        [jobs].into_iter().chain(oldest.map(|age| age.told())).collect()
    } else {
        // The worst first.
        let mut bad = asked.clone();
        bad.retain(|age| age.verdict(limits) > Verdict::Ok);
        bad.sort_by_key(|age| std::cmp::Reverse((age.verdict(limits), age.success.or(age.seen))));
        bad.into_iter().map(Age::told).collect()
    };
    let figures: Vec<String> = asked.iter().map(|age| age.figure(limits)).collect();
    (worst, format!("{} | {}", told.join(", "), figures.join(" ")))
}

impl Age<'_> {
    fn verdict(&self, limits: Limits) -> Verdict {
        match self.success.or(self.seen) {
            None => Verdict::Unknown,
            Some(age) if age >= limits.crit => Verdict::Critical,
            Some(age) if age >= limits.warn => Verdict::Warning,
            Some(_) => Verdict::Ok,
        }
    }

    fn told(&self) -> String {
        let spoken = |age: Duration| duration::spoken(age.as_secs());
        if let Some(ahead) = self.ahead {
            let job = self.job;
            let ahead = spoken(ahead);
            return format!(
                "{job}: last success is dated {ahead} ahead of this clock, so its age is not known \
                 before the next one"
            );
        }
        match (self.success, self.seen) {
            (Some(age), _) => format!("{}: last success {} ago", self.job, spoken(age)),
            (None, Some(age)) => format!("{}: no success since {}", self.job, spoken(age)),
            (None, None) => format!("{}: its history cannot be read", self.job),
        }
    }

    /// `'label'=value[UOM];[warn];[crit];[min]`; `U` is what nobody knows.
    fn figure(&self, Limits { warn, crit }: Limits) -> String {
        let age = self.success.map_or("U".to_owned(), |age| format!("{}s", age.as_secs()));
        format!("'{}'={age};{};{};0", self.job, warn.as_secs(), crit.as_secs())
    }
}

impl Verdict {
    fn exit_code(self) -> u8 {
        match self {
            Verdict::Ok => 0,
            Verdict::Warning => 1,
            Verdict::Critical => 2,
            Verdict::Unknown => 3,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Ok => "OK",
            Verdict::Warning => "WARNING",
            Verdict::Critical => "CRITICAL",
            Verdict::Unknown => "UNKNOWN",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Card;
    use crate::schedule::History;

    const LIMITS: Limits =
        Limits { warn: Duration::from_secs(7200), crit: Duration::from_secs(21_600) };

    fn age(job: &str, success: Option<u64>, seen: Option<u64>) -> Age<'_> {
        let seconds = |age: Option<u64>| age.map(Duration::from_secs);
        Age { job, success: seconds(success), seen: seconds(seen), ahead: None }
    }

    fn judged(ages: &[Age<'_>], jobs: &[&str]) -> (Verdict, String) {
        let jobs: Vec<String> = jobs.iter().map(|&job| job.to_owned()).collect();
        judge(ages, &jobs, LIMITS)
    }

    #[test]
    fn the_worst_job_decides_and_is_named_first() {
        let (fine, old) = (age("a", Some(7199), None), age("b", Some(7200), None));
        let (dead, older) = (age("c", Some(90_000), None), age("d", Some(21_600), None));
        let expected = "1 job, a: last success 1h59m ago | 'a'=7199s;7200;21600;0".to_owned();
        assert_eq!(judged(&[fine], &[]), (Verdict::Ok, expected));
        let all = [age("a", Some(0), None), old, dead, older];
        let (verdict, line) = judged(&all, &[]);
        assert_eq!(verdict, Verdict::Critical);
        let words = "c: last success 1d1h ago, d: last success 6h ago, b: last success 2h ago | ";
        assert!(line.starts_with(words), "{line}");
        assert_eq!(judged(&all, &["a", "b"]).0, Verdict::Warning);
        assert_eq!(judged(&all, &["a"]).0, Verdict::Ok);
    }

    #[test]
    fn a_job_that_never_succeeded_is_as_old_as_it_was_first_seen() {
        for (seen, verdict) in
            [(10, Verdict::Ok), (7200, Verdict::Warning), (21_600, Verdict::Critical)]
        {
            let (judged, line) = judged(&[age("a", None, Some(seen))], &[]);
            assert_eq!(judged, verdict, "{line}");
            assert!(line.contains("a: no success since ") && line.contains("'a'=U;"), "{line}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_well() {
        assert_eq!(judged(&[], &[]).0, Verdict::Unknown);
        assert_eq!(judged(&[age("a", Some(0), None)], &["b"]).0, Verdict::Unknown);
        let unread = || age("b", None, None);
        assert_eq!(judged(&[age("a", Some(0), None), unread()], &[]).0, Verdict::Unknown);
        assert_eq!(judged(&[age("a", Some(99_999), None), unread()], &[]).0, Verdict::Critical);
        let codes = [Verdict::Ok, Verdict::Warning, Verdict::Critical, Verdict::Unknown]
            .map(Verdict::exit_code);
        assert_eq!(codes, [0, 1, 2, 3]);
    }

    #[test]
    fn a_success_that_is_dated_ahead_of_the_clock_has_no_age() {
        let now: Timestamp = "2026-03-01T10:00:00Z".parse().unwrap();
        let left = |ahead: i64| {
            let succeeded = Some(now + jiff::SignedDuration::from_secs(ahead));
            let history = History { began: succeeded, succeeded, ..History::default() };
            Left { name: "a".to_owned(), card: Card::default(), history: Ok(history) }
        };
        for (ahead, verdict) in [
            (-60, Verdict::Ok),
            (300, Verdict::Ok),
            (301, Verdict::Unknown),
            (-8000, Verdict::Warning),
        ] {
            let left = [left(ahead)];
            let (judged, line) = judge(&ages(&left, now), &[], LIMITS);
            assert_eq!(judged, verdict, "{ahead}: {line}");
        }
        let (_, line) = judge(&ages(&[left(90_000)], now), &[], LIMITS);
        assert!(line.starts_with("a: last success is dated 1d1h ahead of this clock"), "{line}");
        assert!(line.ends_with("| 'a'=U;7200;21600;0"), "{line}");
    }
}
