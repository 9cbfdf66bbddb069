//! `zferry schedule`: copies within one host, each when it is due; and `zferry config check`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use zferry::retention::Template;

use crate::support::host::{Running, running_zfs, wait_for, wait_for_words, zferry_on};
use crate::support::scheduled::{Host, content, job, stopped};

#[test]
fn each_job_runs_when_it_is_due_and_its_runs_are_told() {
    let host = Host::new(&(job("a", "every = \"1s\"") + &job("b", "every = \"1h\"")));
    let scheduler = host.schedule();
    host.wait_for_copies("a", 3);
    let ended = stopped(scheduler);
    assert_eq!(host.copies("b"), 1);
    let told = String::from_utf8(ended.stdout).unwrap();
    assert!(told.contains("a: tank/a@zferry_") && told.contains("b: tank/b@zferry_"), "{told}");
    assert!(told.contains(" -> backup/b, 1 stream: "), "{told}");
    assert!(host.kept("b").contains("\"succeeded\":\"20"), "{}", host.kept("b"));
}

#[test]
fn enough_new_data_starts_a_copy_and_less_does_not() {
    let host = Host::new(&job("a", "written = \"1MiB\"\ncheck = \"1s\""));
    let scheduler = host.schedule();
    host.wait_for_copies("a", 1);
    host.zfs.was_written("tank/a", (1 << 20) - 1);
    let asked = || {
        let calls = host.zfs.calls().into_iter().flatten();
        calls.filter(|word| word.starts_with("written@zferry_")).count()
    };
    let before = asked();
    // It looks once a second. What it does about the first answer is done before the next look.
    wait_for("it to look again and again", || (asked() >= before + 3).then_some(()));
    assert_eq!(host.copies("a"), 1);
    host.zfs.was_written("tank/a", 1 << 20);
    host.wait_for_copies("a", 2);
    stopped(scheduler);
}

#[test]
fn of_a_tree_only_what_is_copied_counts_as_written() {
    let tree = "written = \"1KiB\"\ncheck = \"1s\"\nrecursive = true\nblock-size = \"64KiB\"\n\
                exclude-dataset = [\"scratch\"]";
    // Of the second one the root is left out, and its child is not.
    let host = Host::new(&(job("a", tree) + &job("b", tree)));
    for below in ["tank/a/scratch", "tank/a/scratch/deep", "tank/a/off", "tank/a/kept"] {
        host.zfs.dataset(below, "filesystem");
        host.zfs.write(below, &content(3));
    }
    host.zfs.set("tank/a/off", "zferry:replicate", "off");
    host.zfs.dataset("tank/b/kept", "filesystem");
    host.zfs.set("tank/b", "zferry:replicate", "off");
    host.zfs.set("tank/b/kept", "zferry:replicate", "on");
    host.zfs.dataset("backup/b", "filesystem");
    let scheduler = host.schedule();
    host.wait_for_copies("a/kept", 1);
    host.wait_for_copies("b/kept", 1);
    let asked = |root: &str| {
        let calls = host.zfs.calls().into_iter();
        let is_it = |call: &Vec<String>| {
            call.iter().any(|word| word.starts_with("written@")) && call.ends_with(&[root.into()])
        };
        calls.filter(is_it).count()
    };
    for root in ["tank/a", "tank/b"] {
        let before = asked(root);
        wait_for("it to look again", || (asked(root) >= before + 3).then_some(()));
    }
    assert_eq!((host.copies("a/kept"), host.copies("b/kept")), (1, 1));
    // What was made since is copied, and so is what was written.
    host.zfs.dataset("tank/a/new", "filesystem");
    host.zfs.write("tank/a/new", &content(4));
    host.wait_for_copies("a/new", 1);
    host.zfs.was_written("tank/b/kept", 1 << 10);
    host.wait_for_copies("b/kept", 2);
    stopped(scheduler);
    assert!(!host.zfs.exists("backup/a/scratch") && !host.zfs.exists("backup/a/off"));
}

#[test]
fn a_restart_remembers_what_ran_and_makes_up_for_what_died() {
    let host = Host::new(&job("a", "every = \"1h\""));
    let scheduler = host.schedule();
    host.wait_for_copies("a", 1);
    stopped(scheduler);
    let scheduler = host.schedule();
    thread::sleep(Duration::from_secs(1));
    stopped(scheduler);
    assert_eq!(host.copies("a"), 1, "it is not due for an hour");

    host.configure(&job("b", "every = \"1h\"\nblock-size = \"64KiB\""));
    host.zfs.slow_send(64 << 10, Duration::from_millis(300));
    let scheduler = host.schedule();
    wait_for("the run to begin", || host.kept("b").contains("\"unfinished\":true").then_some(()));
    wait_for("its snapshot", || (!host.zfs.snapshots("tank/b").is_empty()).then_some(()));
    wait_for("zfs send", || (!running_zfs(&host.zfs).is_empty()).then_some(()));
    scheduler.signal("KILL");
    drop(scheduler.ended());
    wait_for("what it had started to end", || running_zfs(&host.zfs).is_empty().then_some(()));
    assert_eq!(host.copies("b"), 0);
    let taken = host.zfs.snapshots("tank/b");
    let scheduler = host.schedule();
    host.wait_for_copies("b", 1);
    stopped(scheduler);
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert_eq!(host.zfs.snapshots("tank/b"), taken, "what goes on takes no other snapshot");
    assert!(host.kept("b").contains("\"owed_since\":null"), "{}", host.kept("b"));
}

#[test]
fn what_waits_to_be_tried_again_is_tried_at_once_by_the_next_scheduler() {
    let host = Host::new(&job("c", "every = \"24h\""));
    let scheduler = host.schedule();
    host.wait_for_status("c", |job| job["failures_in_a_row"] == 1);
    stopped(scheduler);
    assert!(host.kept("c").contains("\"again\":true"), "{}", host.kept("c"));
    host.zfs.dataset("tank/c", "filesystem");
    let scheduler = host.schedule();
    host.wait_for_copies("c", 1);
    stopped(scheduler);
    assert!(host.kept("c").contains("\"again\":false"), "{}", host.kept("c"));
}

#[test]
fn a_job_that_is_taken_away_while_it_runs_is_no_unfinished_one_when_it_comes_back() {
    let slow = "every = \"24h\"\nblock-size = \"64KiB\"";
    let host = Host::new(&(job("a", slow) + &job("b", "every = \"24h\"")));
    host.zfs.slow_send(64 << 10, Duration::from_millis(300));
    let scheduler = host.schedule();
    wait_for("its run", || {
        let is_running = host.kept("a").contains("\"unfinished\":true");
        (is_running && !running_zfs(&host.zfs).is_empty()).then_some(())
    });
    host.configure(&job("b", "every = \"24h\""));
    scheduler.signal("HUP");
    wait_for_words(&scheduler, "read the configuration again");
    host.wait_for_copies("a", 1);
    stopped(scheduler);
    let kept = host.kept("a");
    assert!(kept.contains("\"unfinished\":false") && kept.contains("\"succeeded\":\"20"), "{kept}");
}

#[test]
fn jobs_of_one_source_that_begin_in_one_second_take_a_snapshot_each() {
    let b = job("b", "every = \"24h\"").replace("tank/b", "tank/a");
    let host = Host::new(&format!("parallel = 2\n{}{b}", job("a", "every = \"24h\"")));
    let scheduler = host.schedule();
    let kept = wait_for("both runs to end", || {
        let kept = ["a", "b"].map(|name| host.kept(name));
        kept.iter().all(|kept| kept.contains("\"unfinished\":false")).then_some(kept)
    });
    stopped(scheduler);
    assert!(kept.iter().all(|kept| kept.contains("\"failures\":0")), "{kept:?}");
    assert_eq!(host.zfs.snapshots("tank/a").len(), 2);
}

#[test]
fn a_name_that_is_taken_already_is_followed_by_the_next() {
    let host = Host::new("");
    let template = Template::default();
    let now = Timestamp::now();
    let names: Vec<_> = (0..5).map(|ahead| now + Duration::from_secs(ahead)).collect();
    for name in names.iter().map(|&time| template.name_at(time).unwrap()) {
        host.zfs.snapshot("tank/a", name.as_str(), b"by somebody else");
    }
    let words = ["replicate", "tank/a", "backup/a", "--cache", "8MiB"];
    Running::start(&mut zferry_on(&host.zfs, &words)).ended().succeeded();
    assert_eq!(host.copies("a"), 6, "theirs, and its own");
}

#[test]
fn a_hangup_reads_the_configuration_again_and_a_wrong_one_changes_nothing() {
    let host = Host::new(&job("a", "every = \"1h\""));
    let scheduler = host.schedule();
    host.wait_for_copies("a", 1);
    host.configure("[[job]]\nname = 5\n");
    scheduler.signal("HUP");
    wait_for_words(&scheduler, "the former configuration stays");
    host.configure(&(job("a", "every = \"1s\"") + &job("b", "every = \"1h\"")));
    scheduler.signal("HUP");
    host.wait_for_copies("b", 1);
    host.wait_for_copies("a", 2);
    stopped(scheduler);
}

#[test]
fn a_stop_lets_the_copies_end_that_run_and_a_second_one_does_not() {
    let slow = "every = \"1s\"\nblock-size = \"64KiB\"";
    let host = Host::new(&(format!("parallel = 2\n{}", job("a", slow)) + &job("b", slow)));
    host.zfs.slow_send(64 << 10, Duration::from_millis(300));
    let scheduler = host.schedule();
    wait_for("both runs", || {
        let begun = ["a", "b"].map(|name| host.kept(name).contains("\"unfinished\":true"));
        (begun == [true; 2] && running_zfs(&host.zfs).len() >= 2).then_some(())
    });
    stopped(scheduler);
    assert_eq!(["a", "b"].map(|name| host.copies(name)), [1, 1], "whole, and no other begun");

    for name in ["a", "b"] {
        host.zfs.write(&format!("tank/{name}"), &content(7));
    }
    let scheduler = host.schedule();
    wait_for("zfs send", || (!running_zfs(&host.zfs).is_empty()).then_some(()));
    scheduler.signal("TERM");
    thread::sleep(Duration::from_millis(300));
    scheduler.signal("TERM");
    scheduler.ended().succeeded();
    assert!(running_zfs(&host.zfs).is_empty());
    assert!(host.copies("a") + host.copies("b") < 4, "they were ended where they were");
}

#[test]
fn what_fails_is_told_and_tried_again_later() {
    let config = job("a", "every = \"1h\"") + &job("c", "every = \"1h\"");
    let host = Host::new(&config);
    let scheduler = host.schedule();
    wait_for_words(&scheduler, "tank/c");
    host.wait_for_copies("a", 1);
    stopped(scheduler);
    let kept = host.kept("c");
    assert!(kept.contains("\"failures\":1") && kept.contains("dataset does not exist"), "{kept}");
}

#[test]
fn of_two_schedulers_with_one_state_the_second_is_told() {
    let host = Host::new(&job("a", "every = \"1h\""));
    let scheduler = host.schedule();
    host.wait_for_copies("a", 1);
    host.schedule().ended().failed_with(4, &["is running already", "another --state"]);
    stopped(scheduler);
}

#[test]
fn a_configuration_is_checked_without_being_run() {
    let host = Host::new(&job("a", "every = \"1h\""));
    let fine = host.check().succeeded();
    assert!(String::from_utf8(fine.stdout).unwrap().ends_with("zferry.toml: 1 job, no mistake\n"));
    host.configure(
        &(job("a", "every = \"soon\"") + &job("b", "compress = \"rar\"\ncron = \"* *\"")),
    );
    let wrong = ["has 3 mistakes", "zferry.toml:6:9: use a time", ":12:12: invalid value 'rar'"];
    host.check().failed_with(3, &wrong);
    host.schedule().ended().failed_with(3, &wrong);
    fs::set_permissions(host.config(), fs::Permissions::from_mode(0o666)).unwrap();
    host.check().failed_with(2, &["can be changed by others", "chmod go-w"]);
    fs::remove_file(host.config()).unwrap();
    host.check().failed_with(3, &["there is no", "--config FILE"]);
    assert!(host.zfs.calls().is_empty());
}

#[test]
fn the_doctor_looks_at_what_the_jobs_need_and_says_what_it_cannot_see() {
    let served = job("b", "every = \"1h\"\nkeep-target = \"last=1\"\n")
        .replace("backup/b", "zferry://backup.example/b");
    let host = Host::new(&(job("a", "every = \"1h\"\nkeep = \"last=1\"") + &served));
    host.zfs.dataset("backup", "filesystem");
    let findings = || -> Vec<serde_json::Value> {
        let mut command = zferry_on(&host.zfs, &["doctor", "--json", "--jobs"]);
        // Whether this machine has ZFS is no matter here.
        let told = Running::start(command.arg(host.config())).ended().stdout;
        let report: serde_json::Value = serde_json::from_slice(&told).unwrap();
        let all = report["findings"].as_array().unwrap().iter();
        let is_ours = |found: &&serde_json::Value| {
            ["source", "target", "jobs"].contains(&found["topic"].as_str().unwrap())
        };
        all.filter(is_ours).cloned().collect()
    };
    let [a, b, target, elsewhere] = &findings()[..] else { panic!("{:?}", findings()) };
    let has = |found: &serde_json::Value, words: &str| {
        let fact = found["fact"].as_str().unwrap();
        assert!(fact.contains(words), "{words} is not in {fact}");
    };
    has(a, " on tank/a");
    has(b, " on tank/b");
    // Its target is made by the first copy.
    assert!(target["fact"].as_str().unwrap().ends_with(" on backup"), "{target}");
    has(elsewhere, "zferry://backup.example/b of job b is on another host");
    let there = "zferry doctor --target ROOT --prune; its clients.toml must grant prune as well";
    assert!(elsewhere["meaning"].as_str().unwrap().ends_with(there), "{elsewhere}");
    fs::remove_file(host.config()).unwrap();
    let [found] = &findings()[..] else { panic!("{:?}", findings()) };
    has(found, "there is no ");
    // The same of a server's clients.
    let folder = host.folder.path().join("keys");
    let config = ["--config", folder.to_str().unwrap()];
    let key = format!("SHA256:{}", "A".repeat(43));
    let root = ["--root", "backup", "--allow", "receive-full,prune", "--keep", "last=1"];
    let trust = [&["keys", "trust", "client", "laptop", &key][..], &root, &config].concat();
    let clients = [&["doctor", "--json", "--clients"][..], &config].concat();
    let asked = || {
        let told = Running::start(&mut zferry_on(&host.zfs, &clients)).ended().stdout;
        String::from_utf8(told).unwrap()
    };
    assert!(asked().contains("clients.toml") && asked().contains("what the clients need"));
    Running::start(&mut zferry_on(&host.zfs, &trust)).ended().succeeded();
    assert!(asked().contains(" on backup\""), "{}", asked());
    let words = ["doctor", "--prune"];
    let ended = Running::start(&mut zferry_on(&host.zfs, &words)).ended();
    ended.failed_with(3, &["--prune is about datasets that are named"]);
}
