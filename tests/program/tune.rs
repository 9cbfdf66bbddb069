//! `zferry tune`: alone and as a pair, on this machine, in as little time as it takes.
//!
//! Whether a figure is right cannot be tested; that each is there, that the command line it leads
//! to is understood, and that nothing is left behind, can.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use zferry_chaos::{Plan, Proxy};

use crate::support::host::{Running, Server, send, wait_for_words, zferry};

/// As short as it may be, with a cache that is soon filled.
const QUICK: [&str; 4] = ["--seconds", "0.1", "--cache", "16MiB"];

/// Room for packed blocks on four connections.
const ROOMY: [&str; 2] = ["--cache", "32MiB"];

fn tune(words: &[&str]) -> Running {
    Running::start(&mut zferry(&[&["tune"], &QUICK[..], words].concat()))
}

/// What a measurement says as JSON.
fn measured(words: &[&str]) -> Value {
    let ended = tune(&[words, &["--json"]].concat()).ended().succeeded();
    let text = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn answering(flags: &[&str]) -> Server {
    let words = ["tune", "--listen", "127.0.0.1:0", "--plain", "--cache", "16MiB"];
    Server::start(&mut zferry(&[&words[..], flags].concat()))
}

fn names(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[track_caller]
fn all_are_rates(figures: &Value, at_least: usize) {
    let figures = figures.as_array().unwrap();
    assert!(figures.len() >= at_least, "{figures:?}");
    for figure in figures {
        assert!(figure["bytes_per_second"].as_u64().unwrap() > 0, "{figure}");
    }
}

/// The words of the command line, but for the program's name.
fn words_of(command: &Value) -> Vec<String> {
    let command = command.as_str().unwrap();
    command.split(' ').skip(1).map(str::to_owned).collect()
}

#[test]
fn this_machine_alone_gets_figures_of_every_part_and_advice() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let report = measured(&["--spool", folder.path().to_str().unwrap()]);
    assert_eq!(report["machine"], std::env::consts::ARCH);
    assert!(report["kernel"].is_string() && report["cores"].as_u64().unwrap() > 0);
    assert_eq!(report["cache"], 16 << 20);
    let parts = report["parts"].as_array().unwrap();
    let parts: Vec<&str> = parts.iter().map(|part| part["name"].as_str().unwrap()).collect();
    assert_eq!(parts, ["read", "send", "receive", "splice", "spool"]);
    all_are_rates(&report["parts"], 5);
    all_are_rates(&report["levels"], 5);
    all_are_rates(&report["by_workers"], 1);
    all_are_rates(&report["transfers"], 2);
    let levels = report["levels"].as_array().unwrap();
    // Half of our sample is noise: it shrinks to more than half, and by something.
    assert!(levels.iter().all(|level| (1.1..2.0).contains(&level["ratio"].as_f64().unwrap())));
    assert_eq!(report["far"], Value::Null);
    assert!(report["advice"]["bottleneck"].is_string());
    assert!(!report["advice"]["says"].as_str().unwrap().is_empty());
    assert_eq!(words_of(&report["send"])[..2], ["send", "HOST:PORT"]);
    assert_eq!(names(folder.path()), [""; 0], "left behind");
}

#[test]
fn a_pair_is_measured_and_what_it_is_advised_carries_a_stream() {
    let far = answering(&[]);
    let address = far.address.to_string();
    let report = measured(&[&address, "--plain"]);
    assert_eq!(report["far"]["host"], address.as_str());
    assert!(report["far"]["round_trip_micros"].as_u64().unwrap() < 1_000_000);
    all_are_rates(&report["transfers"], 1);
    let transfer = &report["transfers"][0];
    assert_eq!((&transfer["connections"], &transfer["zstd"]), (&1.into(), &Value::Null));
    assert!(transfer["wire_bytes_per_second"].as_u64().unwrap() > 0);
    assert_eq!(report["transfers"][1]["connections"], 4);
    assert!(far.stopped().stderr.lines().count() == 1, "it said where it listens, and no more");

    // What is advised is not only understood: it is sent with.
    let receiver = Server::receive(&[]);
    let advised = words_of(&report["send"]);
    assert_eq!(advised[..3], ["send", address.as_str(), "--plain"]);
    let flags: Vec<&str> = advised[3..].iter().map(String::as_str).collect();
    send(receiver.address, &flags, b"a stream".to_vec()).ended().succeeded();
    assert_eq!(receiver.running.ended().succeeded().stdout, b"a stream");
}

/// Also that a transfer which would take too long is cut, and measured all the same.
#[test]
fn a_slow_line_is_packed_for() {
    let folder = tempfile::tempdir().unwrap();
    let zeros = folder.path().join("zeros");
    // They shrink so far that no other load of the machine hides it.
    std::fs::write(&zeros, vec![0; 8 << 20]).unwrap();
    let words = ["tune", "--listen", "127.0.0.1:0", "--plain"];
    let far = Server::start(&mut zferry(&[&words[..], &ROOMY].concat()));
    // For each connection 4 MB/s.
    let plan: Plan = "lanes up 0 rate 4000000".parse().unwrap();
    let line = Proxy::start(far.address, &plan).unwrap();
    let (address, zeros) = (line.address().to_string(), zeros.to_str().unwrap());
    let words = ["tune", &address, "--plain", "--json", "--sample", zeros, "--seconds", "0.5"];
    let tune = Running::start(&mut zferry(&[&words[..], &ROOMY].concat()));
    let report: Value = serde_json::from_slice(&tune.ended().succeeded().stdout).unwrap();
    let alone = report["transfers"][0]["bytes_per_second"].as_u64().unwrap();
    // However busy the machine is otherwise.
    assert!((50_000..12_000_000).contains(&alone), "{report:#}");
    let advised = words_of(&report["send"]).join(" ");
    assert!(advised.contains("--compress zstd:"), "{report:#}");
}

#[test]
fn once_is_one_measurement_and_the_end() {
    let far = answering(&["--once"]);
    measured(&[&far.address.to_string(), "--plain"]);
    far.running.ended().succeeded();
}

#[test]
fn a_person_reads_a_table_the_bottleneck_and_a_command() {
    let ended = tune(&[]).ended().succeeded();
    let text = String::from_utf8(ended.stdout).unwrap();
    for words in ["GiB/s", "\nread ", "\nsplice ", "compress zstd:9 ", "\nbottleneck: "] {
        assert!(text.contains(words), "{words:?} is not in: {text}");
    }
    assert!(text.contains("\nuse it:  zferry send HOST:PORT --plain"), "{text}");
    assert_eq!(ended.stderr, "", "nothing is shown but on a terminal");
}

#[test]
fn a_sample_of_ones_own_decides_what_packing_is_worth() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sample");
    std::fs::write(&file, vec![7; 3 << 20]).unwrap();
    let report = measured(&["--sample", file.to_str().unwrap()]);
    assert_eq!(report["sample"], "own");
    assert!(report["levels"][0]["ratio"].as_f64().unwrap() > 100.0, "{}", report["levels"]);

    let mut tune = Running::start(
        zferry(&[&["tune", "--json", "--sample", "-"], &QUICK[..]].concat()).stdin(Stdio::piped()),
    );
    tune.feed(vec![7; 1 << 20]);
    let report: Value = serde_json::from_slice(&tune.ended().succeeded().stdout).unwrap();
    assert!(report["levels"][0]["ratio"].as_f64().unwrap() > 100.0, "{}", report["levels"]);
}

#[test]
fn mistakes_are_told_before_anything_is_measured() {
    let started = Instant::now();
    for (words, code, said) in [
        (&["somewhere:1"][..], 3, "--plain"),
        (&["nonsense", "--plain"], 3, "HOST:PORT"),
        (&["--listen", "127.0.0.1:0"], 3, "--plain"),
        (&["--listen", "127.0.0.1:0", "--plain", "--json"], 3, "--json"),
        (&["--once"], 3, "--listen"),
        (&["--seconds", "0"], 3, "0.05"),
        (&["--sample", "/no/such/file"], 3, "/no/such/file"),
        (&["--sample", "/dev/null"], 3, "empty"),
        (&["127.0.0.1:1", "--plain"], 2, "zferry tune --listen"),
    ] {
        let ended = Running::start(&mut zferry(&[&["tune"], words].concat())).ended();
        ended.failed_with(code, &[said]);
    }
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    tune(&["--spool", "/no/such/folder"]).ended().failed_with(2, &["/no/such/folder"]);
}

#[test]
fn a_signal_ends_a_measurement_wherever_it_is_and_nothing_is_left() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let spool = folder.path().to_str().unwrap();
    for (seconds, at) in [("30", "read"), ("1", "the disk of the spool"), ("0.5", "a transfer")] {
        let words = ["tune", "--seconds", seconds, "--cache", "16MiB", "--spool", spool, "-v"];
        let running = Running::start(&mut zferry(&words));
        wait_for_words(&running, at);
        running.signal("INT");
        let started = Instant::now();
        running.ended().failed_with(2, &["stopped by a signal"]);
        assert!(started.elapsed() < Duration::from_secs(10), "{at}: {:?}", started.elapsed());
        assert_eq!(names(folder.path()), [""; 0], "left behind");
    }
}

#[test]
fn a_measurement_that_is_killed_leaves_no_file() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let spool = folder.path().to_str().unwrap();
    let words = ["tune", "--seconds", "2", "--cache", "16MiB", "--spool", spool, "-v"];
    let running = Running::start(&mut zferry(&words));
    wait_for_words(&running, "the disk of the spool");
    std::thread::sleep(Duration::from_millis(500));
    running.signal("KILL");
    assert!(!running.ended().status.success());
    assert_eq!(names(folder.path()), [""; 0], "left behind");
}

#[test]
fn an_answering_host_that_dies_ends_the_measurement() {
    let far = answering(&[]);
    let address = far.address.to_string();
    let words = ["tune", address.as_str(), "--plain", "--seconds", "1", "--cache", "16MiB", "-v"];
    let running = Running::start(&mut zferry(&words));
    wait_for_words(&running, "a transfer");
    far.running.signal("KILL");
    running.ended().failed_with(2, &["127.0.0.1"]);
}
