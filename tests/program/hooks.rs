//! Commands of a job: around its snapshot, and when a run has ended.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::executable;
use crate::support::host::{wait_for, wait_for_words};
use crate::support::scheduled::{Host, job, stopped};

/// A program in a folder of its own that does so.
struct Program {
    folder: tempfile::TempDir,
}

impl Program {
    /// Notes its environment in `noted`, a line for each call, and then does more.
    fn noting(more: &str) -> Program {
        let folder = tempfile::tempdir().unwrap();
        let noted = folder.path().join("noted");
        let script = format!(
            "#!/bin/sh\nenv -0 | sort -z | tr '\\0\\n' '\\t ' >> {0}.new\necho \"words: $*\" >> \
             {0}.new\ncat {0}.new >> {0}\nrm {0}.new\n{more}\n",
            noted.display()
        );
        let program = Program { folder };
        executable::script(&script, &program.path());
        program
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("hook")
    }

    /// A line of a configuration.
    fn is(&self, key: &str) -> String {
        format!("{key} = \"{}\"\n", self.path().display())
    }

    /// What it has noted of each call.
    fn noted(&self) -> Vec<String> {
        let noted = fs::read_to_string(self.folder.path().join("noted")).unwrap_or_default();
        noted.lines().map(str::to_owned).collect()
    }

    fn wait_for_calls(&self, count: usize) -> Vec<String> {
        wait_for("a call", || Some(self.noted()).filter(|noted| noted.len() >= count))
    }
}

/// The value of a variable in a noted line.
#[track_caller]
fn variable<'a>(noted: &'a str, name: &str) -> &'a str {
    let found = noted.split('\t').find_map(|one| one.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("{name} is not in {noted}"))
}

const HOURLY: &str = "every = \"1h\"\n";

#[test]
fn a_run_that_went_well_and_one_that_failed_are_told_in_a_clean_environment() {
    let (well, badly) = (Program::noting(""), Program::noting(""));
    let list = format!("on-success = [\"{}\", \"a word\", \"$HOME\"]\n", well.path().display());
    let words = [HOURLY, &list, &badly.is("on-failure")].concat();
    let host = Host::new(&(job("a", &words) + &job("c", &words)));
    let scheduler = host.schedule();
    let success = well.wait_for_calls(1).remove(0);
    let failure = badly.wait_for_calls(1).remove(0);
    stopped(scheduler);
    assert_eq!((well.noted().len(), badly.noted().len()), (1, 1));
    assert!(success.ends_with("words: a word $HOME"), "no shell: {success}");
    for (name, value) in [
        ("ZFERRY_EVENT", "success"),
        ("ZFERRY_JOB", "a"),
        ("ZFERRY_SOURCE", "tank/a"),
        ("ZFERRY_TARGET", "backup/a"),
        ("ZFERRY_STREAMS", "1"),
    ] {
        assert_eq!(variable(&success, name), value);
    }
    let snapshot = variable(&success, "ZFERRY_SNAPSHOT");
    assert!(host.zfs.exists(snapshot) && snapshot.starts_with("tank/a@zferry_"), "{snapshot}");
    assert!(variable(&success, "ZFERRY_BYTES").parse::<u64>().unwrap() > 400_000);
    assert_eq!(variable(&failure, "ZFERRY_EVENT"), "failure");
    let error = variable(&failure, "ZFERRY_ERROR");
    assert!(error.contains("tank/c") && error.contains("dataset does not exist"), "{error}");
    for told in [&success, &failure] {
        let names = told.split('\t').filter_map(|one| Some(one.split_once('=')?.0));
        // The shell of the script sets PWD and the like by itself.
        let foreign = |name: &&str| {
            !name.starts_with("ZFERRY_")
                && !matches!(*name, "PATH" | "PWD" | "SHLVL" | "_" | "OLDPWD")
        };
        assert_eq!(names.filter(foreign).collect::<Vec<_>>(), [""; 0], "{told}");
    }
}

#[test]
fn a_run_that_could_not_prune_what_it_has_copied_is_told_as_one_that_failed() {
    let program = Program::noting("");
    let words = [HOURLY, "keep = \"last=1\"\n", &program.is("on-failure")].concat();
    let host = Host::new(&job("a", &words));
    host.zfs.snapshot("tank/a", "zferry_2020-01-01T00:00:00Z", b"x");
    host.zfs.may_not_be_destroyed("tank/a");
    let scheduler = host.schedule();
    let noted = program.wait_for_calls(1).remove(0);
    let error = variable(&noted, "ZFERRY_ERROR");
    assert!(
        error.contains("is copied, but pruning failed: ") && error.contains("permission denied")
    );
    let told = host.wait_for_status("a", |job| job["failures_in_a_row"] == 1);
    assert_eq!(told["last_success"], Value::Null, "{told}");
    // By its rhythm, and not in a minute.
    let [began, next] = ["began", "next_run"]
        .map(|moment| told[moment].as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
    assert!(next.duration_since(began).as_secs() >= 3600, "{told}");
    assert!(told["last_failure"]["what"].as_str().unwrap().contains("pruning failed"), "{told}");
    assert_eq!(told["totals"]["failed_runs"], 1, "{told}");
    let arrived = told["datasets"][0]["snapshot"].as_str().unwrap();
    assert!(host.zfs.exists(&format!("backup/a@{arrived}")), "{told}");
    stopped(scheduler);
}

#[test]
fn what_is_prepared_for_a_snapshot_is_put_back_once_it_is_taken() {
    let program = Program::noting("");
    let words = [HOURLY, &program.is("pre-snapshot"), &program.is("post-snapshot")].concat();
    let host = Host::new(&job("a", &words));
    let scheduler = host.schedule();
    host.wait_for_copies("a", 1);
    stopped(scheduler);
    let noted = program.noted();
    let events: Vec<_> = noted.iter().map(|noted| variable(noted, "ZFERRY_EVENT")).collect();
    assert_eq!(events, ["pre-snapshot", "post-snapshot"]);
    let snapshot = variable(&noted[0], "ZFERRY_SNAPSHOT");
    assert!(host.zfs.exists(snapshot) && snapshot == variable(&noted[1], "ZFERRY_SNAPSHOT"));
    assert!(noted.iter().all(|noted| !noted.contains("ZFERRY_ERROR")));
}

#[test]
fn no_snapshot_is_taken_that_was_not_prepared_and_what_was_begun_is_put_back() {
    let (before, after) = (Program::noting("echo not now >&2; exit 3"), Program::noting(""));
    let failed = Program::noting("");
    let around = [before.is("pre-snapshot"), after.is("post-snapshot")].concat();
    let host = Host::new(&job("a", &[HOURLY, &around, &failed.is("on-failure")].concat()));
    let scheduler = host.schedule();
    let failure = failed.wait_for_calls(1).remove(0);
    assert_eq!((host.zfs.snapshots("tank/a").len(), before.noted().len()), (0, 1));
    let error = variable(&failure, "ZFERRY_ERROR");
    for words in ["the command for pre-snapshot of job a, ", "exit status 3; it said: not now"] {
        assert!(error.contains(words), "{words}: {error}");
    }
    let after = after.wait_for_calls(1).remove(0);
    assert!(variable(&after, "ZFERRY_ERROR").contains("not now"), "{after}");
    let kept = host.wait_for_status("a", |job| job["failures_in_a_row"] == 1);
    assert_eq!(kept["state"], "waiting-to-retry");
    stopped(scheduler);
}

#[test]
fn one_that_takes_too_long_is_killed_with_what_it_has_started_and_changes_nothing() {
    let program = Program::noting("sleep 1000 & echo $! > $0.pid; wait");
    let words = [HOURLY, &program.is("on-success"), "hook-timeout = \"1s\"\n"].concat();
    let host = Host::new(&job("a", &words));
    let scheduler = host.schedule();
    wait_for_words(&scheduler, "was killed after 1 s");
    let pid = fs::read_to_string(program.path().with_extension("pid")).unwrap();
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
    let job = host.wait_for_status("a", |job| job["state"] == "idle");
    assert!(job["last_success"].is_object() && job["failures_in_a_row"] == 0, "{job}");
    stopped(scheduler);
}

#[test]
fn whoever_stops_the_scheduler_at_once_is_not_told_that_the_copy_failed() {
    let program = Program::noting("");
    let words = [HOURLY, &program.is("on-failure"), "block-size = \"64KiB\"\n"].concat();
    let host = Host::new(&job("a", &words));
    host.zfs.slow_send(16 << 10, std::time::Duration::from_millis(500));
    let scheduler = host.schedule();
    host.wait_for_status("a", |job| job["transfers"][0]["read"].as_u64() > Some(0));
    scheduler.signal("TERM");
    host.wait_for_status("a", |job| job["state"] == "running");
    wait_for("the draining", || (host.status()["scheduler"]["draining"] == true).then_some(()));
    scheduler.signal("TERM");
    scheduler.ended().succeeded();
    assert!(program.noted().is_empty(), "{:?}", program.noted());
}

#[test]
fn what_is_no_command_or_would_never_run_is_a_mistake() {
    let host = Host::new("");
    let far = job("b", HOURLY).replace("tank/b", "host:tank/b");
    let config = [
        job("a", &[HOURLY, "on-success = \"logger done\"\non-failure = []\n"].concat()),
        far + "pre-snapshot = \"/bin/true\"\n",
        job("d", &[HOURLY, "no-snapshot = true\npost-snapshot = [\"true\"]\n"].concat()),
        job("e", &[HOURLY, "hook-timeout = \"0s\"\non-failure = [\"true\", 5]\n"].concat()),
    ];
    host.configure(&config.concat());
    let ended = host.check();
    let whole = "this is the whole path of a program, or a list";
    let places = ["7:14", "8:14", ":25:14"].map(|place| format!("{place}: {whole}"));
    let never = "this job takes no snapshot on this host";
    let more = [format!(": {never}"), "1s is the shortest time for a command".to_owned()];
    let words: Vec<&str> = places.iter().take(2).chain(&more).map(String::as_str).collect();
    let ended = ended.failed_with(3, &words);
    assert_eq!(ended.stderr.matches(never).count(), 2, "{}", ended.stderr);
    assert_eq!(ended.stderr.matches(whole).count(), 3, "{}", ended.stderr);
}
