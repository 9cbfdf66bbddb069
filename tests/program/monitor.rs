//! `zferry monitor`: exit codes and a line as Nagios wants them, with and without a scheduler.

use std::fs;

use jiff::{SignedDuration, Timestamp};

use crate::support::host::wait_for;
use crate::support::scheduled::{Host, job, stopped};

/// The exit code and the line.
fn monitor(host: &Host, flags: &[&str]) -> (i32, String) {
    let ended = host.look(&[&["monitor"], flags].concat());
    (ended.code(), String::from_utf8(ended.stdout).unwrap())
}

const LIMITS: [&str; 4] = ["--warn", "2h", "--crit", "6h"];

/// Makes all that is known of a job so much older.
fn age(host: &Host, name: &str, hours: i64) {
    for folder in ["jobs", "cards"] {
        let path = host.state().join(folder).join(format!("{name}.json"));
        let mut kept: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for field in ["began", "succeeded", "first_seen"] {
            if let Some(text) = kept[field].as_str() {
                let then: Timestamp = text.parse().unwrap();
                kept[field] = (then - SignedDuration::from_hours(hours)).to_string().into();
            }
        }
        fs::write(&path, kept.to_string()).unwrap();
    }
}

#[test]
fn the_age_of_each_success_decides_whether_or_not_a_scheduler_runs() {
    let host = Host::new(&(job("a", "every = \"1h\"") + &job("b", "every = \"1h\"")));
    let (code, line) = monitor(&host, &LIMITS);
    assert_eq!(code, 3, "{line}");
    assert!(line.starts_with("ZFERRY UNKNOWN: what a scheduler keeps in "), "{line}");
    assert!(line.ends_with("; name the scheduler's folder: --state DIR\n"), "{line}");
    let scheduler = host.schedule();
    for name in ["a", "b"] {
        host.wait_for_status(name, |job| job["last_success"].is_object());
    }
    let (code, line) = monitor(&host, &LIMITS);
    assert!(code == 0 && line.starts_with("ZFERRY OK: 2 jobs, "), "{line}");
    assert!(line.contains(" | 'a'=") && line.ends_with("s;7200;21600;0\n"), "{line}");
    stopped(scheduler);
    assert_eq!(monitor(&host, &LIMITS).0, 0, "a scheduler need not run");

    age(&host, "a", 3);
    let (code, line) = monitor(&host, &LIMITS);
    assert!(code == 1 && line.starts_with("ZFERRY WARNING: a: last success 3h ago | "), "{line}");
    age(&host, "b", 7);
    let (code, line) = monitor(&host, &LIMITS);
    let both = "ZFERRY CRITICAL: b: last success 7h ago, a: last success 3h ago | ";
    assert!(code == 2 && line.starts_with(both), "{line}");
    assert_eq!(line.lines().count(), 1);
    assert_eq!(monitor(&host, &[&LIMITS[..], &["--job", "a"]].concat()).0, 1);
    let (code, line) = monitor(&host, &[&LIMITS[..], &["--job", "c"]].concat());
    assert!(code == 3 && line.starts_with("ZFERRY UNKNOWN: there is no job c"), "{line}");

    // A clock that was ahead has stamped it: nobody knows how old that is.
    age(&host, "a", -48);
    let (code, line) = monitor(&host, &[&LIMITS[..], &["--job", "a"]].concat());
    assert!(code == 3 && line.contains("ZFERRY UNKNOWN: a: last success is dated "), "{line}");
    assert!(line.contains(" ahead of this clock") && line.contains("'a'=U;"), "{line}");
    age(&host, "a", 48);

    fs::write(host.state().join("jobs/a.json"), "{").unwrap();
    let (code, line) = monitor(&host, &[&LIMITS[..], &["--job", "a"]].concat());
    assert!(code == 3 && line.contains("its history cannot be read"), "{line}");
    // Of what cannot be understood nobody says that it is well.
    assert_eq!(monitor(&host, &["--warn", "6h", "--crit", "2h"]).0, 3);
    assert_eq!(monitor(&host, &["--warn", "soon", "--crit", "2h"]).0, 3);
    assert_eq!(monitor(&host, &[]).0, 3);
}

#[test]
fn a_job_that_never_succeeded_is_critical_some_time_after_it_was_first_seen() {
    let host = Host::new(&job("c", "every = \"1h\""));
    let scheduler = host.schedule();
    host.wait_for_status("c", |job| job["failures_in_a_row"] == 1);
    stopped(scheduler);
    let (code, line) = monitor(&host, &LIMITS);
    assert!(
        code == 0 && line.contains("c: no success since ") && line.contains("'c'=U;"),
        "{line}"
    );
    age(&host, "c", 7);
    let (code, line) = monitor(&host, &LIMITS);
    assert!(code == 2 && line.starts_with("ZFERRY CRITICAL: c: no success since 7h | "), "{line}");
}

#[test]
fn a_job_that_was_taken_away_is_not_missed() {
    let host = Host::new(&(job("a", "every = \"1h\"") + &job("b", "every = \"1h\"")));
    let scheduler = host.schedule();
    host.wait_for_copies("b", 1);
    host.configure(&job("a", "every = \"1h\""));
    scheduler.signal("HUP");
    wait_for("b to go", || host.status_of("b").is_null().then_some(()));
    stopped(scheduler);
    age(&host, "b", 100);
    let (code, line) = monitor(&host, &LIMITS);
    assert!(code == 0 && !line.contains("'b'"), "{line}");
}
