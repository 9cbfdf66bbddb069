//! Breakpoint records of running transfers: there while one runs, never above the truth, gone when
//! it has arrived, and left for the next run when it was cut.
//!
//! Sources and targets are slow enough here to be caught in the middle.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use zferry::spool::fault;

use crate::support::host::{Running, Server, running_zfs, send_open, wait_for, zferry, zferry_on};
use crate::support::stand_in::StandIn;

const FLAGS: &[&str] = &["--cache", "16MiB", "--block-size", "64KiB", "--no-snapshot"];

/// The header of a stand-in's stream.
const HEADER_BYTES: u64 = 624;

/// Two hosts with a state folder each, and tank/a@s1 of 8 MB on the first.
struct Hosts {
    source: StandIn,
    target: StandIn,
    ours: TempDir,
    theirs: TempDir,
}

/// Bytes of which no two stretches are alike.
fn content(length: usize) -> Vec<u8> {
    let words = (0..length as u64 / 8).map(|place| place.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    words.flat_map(u64::to_le_bytes).collect()
}

fn path(folder: &TempDir) -> &str {
    folder.path().to_str().unwrap()
}

impl Hosts {
    fn new() -> Hosts {
        let (source, target) = (StandIn::new(), StandIn::new());
        source.dataset("tank/a", "filesystem");
        source.snapshot("tank/a", "s1", &content(8_000_000));
        // Where O_DIRECT is, if anywhere.
        let [ours, theirs] = [(), ()].map(|()| tempfile::tempdir_in("/var/tmp").unwrap());
        Hosts { source, target, ours, theirs }
    }

    fn serve(&self) -> Server {
        Server::serve(&self.target, &["--cache", "16MiB", "--state", path(&self.theirs)])
    }

    fn replicate(&self, server: &Server, flags: &[&str]) -> Running {
        Running::start(&mut self.replication(server, flags))
    }

    fn replication(&self, server: &Server, flags: &[&str]) -> Command {
        let url = server.url("a");
        let words = ["replicate", "tank/a", &url, "--plain", "--state", path(&self.ours)];
        zferry_on(&self.source, &[&words, FLAGS, flags].concat())
    }

    fn is_slow(&self) {
        self.source.slow_send(64 << 10, Duration::from_millis(20));
    }

    fn is_fast(&self) {
        self.source.slow_send(64 << 20, Duration::ZERO);
    }

    /// Whether `zfs send` was ever started to send something.
    fn sends(&self) -> bool {
        let is_send = |call: &Vec<String>| call[0] == "send" && !call.contains(&"-n".to_owned());
        self.source.calls().iter().any(is_send)
    }

    #[track_caller]
    fn are_alike_and_nothing_is_left(&self) {
        assert!(self.target.content("backup/a@s1") == self.source.content("tank/a@s1"));
        assert_eq!(self.target.partly_received("backup/a"), None);
        assert_eq!(self.source.holds("tank/a@s1"), [""; 0]);
        assert_eq!((files(&self.ours), files(&self.theirs)), (vec![], vec![]));
    }
}

/// All that is in the records' folder.
fn files(state: &TempDir) -> Vec<PathBuf> {
    let Ok(files) = fs::read_dir(state.path().join("transfers")) else { return Vec::new() };
    files.map(|file| file.unwrap().path()).collect()
}

/// What `zferry status` says of a state folder.
#[track_caller]
fn transfers(state: &Path) -> Vec<Value> {
    let words = ["status", "--state", state.to_str().unwrap(), "--json"];
    let ended = Running::start(&mut zferry(&words)).ended().succeeded();
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
    report["transfers"].as_array().unwrap().clone()
}

/// What `zferry inspect` says of the one record file that is in a folder, which must be sound.
#[track_caller]
fn inspected(state: &TempDir) -> Value {
    let files: Vec<PathBuf> = files(state)
        .into_iter()
        .filter(|file| file.extension().is_some_and(|end| end == "breakpoint"))
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let words = ["inspect", "--json", files[0].to_str().unwrap()];
    let ended = Running::start(&mut zferry(&words)).ended();
    // A write may be under way; what it cuts is no damage.
    let report: Value = serde_json::from_slice(&ended.succeeded().stdout).unwrap();
    assert_eq!(report["verdict"], "sound");
    report
}

/// Waits until the one transfer of a folder is recorded to be further than `bytes`.
#[track_caller]
fn wait_until_past(state: &TempDir, bytes: u64) -> u64 {
    wait_for("a record", || {
        let transfers = transfers(state.path());
        transfers.first()?["bytes"].as_u64().filter(|&reached| reached > bytes)
    })
}

/// The kernel may let go of the files of a process that was killed a little after its end: what
/// was handed to a ring is ended by a thread of its own.
#[track_caller]
fn wait_until_released(state: &TempDir) {
    wait_for("the end of all transfers", || {
        transfers(state.path()).iter().all(|told| told["running"] == false).then_some(())
    });
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn both_sides_keep_records_while_a_stream_is_on_its_way_and_none_after_it() {
    let hosts = Hosts::new();
    hosts.is_slow();
    let server = hosts.serve();
    let client = hosts.replicate(&server, &[]);
    let sent = wait_until_past(&hosts.ours, 0);
    wait_until_past(&hosts.theirs, 0);
    let (ours, theirs) = (inspected(&hosts.ours), inspected(&hosts.theirs));
    assert_eq!(ours["newest"]["job"]["role"], "client");
    assert_eq!(theirs["newest"]["job"]["role"], "server");
    let guid = hosts.source.guid("tank/a@s1");
    for report in [&ours, &theirs] {
        assert_eq!(report["newest"]["job"]["cargo"]["to"], guid);
        assert_eq!(report["newest"]["progress"]["state"], "streaming");
    }
    assert_eq!(ours["names"]["job"], format!("tank/a -> {}", server.url("a")));
    assert!(theirs["names"]["transfer"].as_str().unwrap().starts_with("backup/a@s1 from 127."));
    let told = Running::start(&mut zferry(&["status", "--state", path(&hosts.ours)]));
    let told = String::from_utf8(told.ended().succeeded().stdout).unwrap();
    assert!(told.starts_with("sending: tank/a@s1 (full), tank/a -> zferry://"), "{told}");
    wait_until_past(&hosts.ours, sent);
    client.ended().succeeded();
    hosts.are_alike_and_nothing_is_left();
}

#[test]
fn a_client_that_is_killed_leaves_a_record_that_is_true_and_no_older_than_a_second() {
    let data = content(3_000_000);
    let state = tempfile::tempdir_in("/var/tmp").unwrap();
    let receiver = Server::receive(&[]);
    let flags = ["--state", path(&state), "--block-size", "64KiB"];
    let mut sender = send_open(receiver.address, &flags);
    let mut stdin = sender.stdin();
    std::io::Write::write_all(&mut stdin, &data[..1_000_000]).unwrap();
    // All of it, without another byte having to come.
    assert_eq!(wait_until_past(&state, 999_999), 1_000_000);
    std::io::Write::write_all(&mut stdin, &data[1_000_000..]).unwrap();
    wait_for("more bytes", || (receiver.running.stdout().len() > 1_500_000).then_some(()));
    sender.signal("KILL");
    drop(sender);
    let acknowledged = &inspected(&state)["newest"]["progress"]["acknowledged"];
    let to = usize::try_from(number(&acknowledged["to"])).unwrap();
    assert!((1_000_000..=receiver.running.stdout().len()).contains(&to), "{to}");
    assert_eq!(number(&acknowledged["crc32"]), u64::from(crc32fast::hash(&data[..to])));
    wait_until_released(&state);
}

#[test]
fn a_server_that_is_killed_leaves_a_record_that_is_never_above_what_zfs_was_given() {
    let hosts = Hosts::new();
    // Long enough for the record to come up to the truth: then one byte more would be too much.
    hosts.source.slow_send(1_000_000, Duration::from_secs(10));
    let server = hosts.serve();
    let client = hosts.replicate(&server, &["--retry-for", "0"]);
    let last = wait_until_past(&hosts.theirs, 999_999);
    server.running.signal("KILL");
    drop(server);
    client.ended().failed_with(2, &[]);
    // Its pipe was read to the end before that was kept.
    let part = wait_for("what zfs has", || hosts.target.partly_received("backup/a"));
    wait_for("the end of zfs receive", || running_zfs(&hosts.target).is_empty().then_some(()));
    let part = part.len().max(hosts.target.partly_received("backup/a").unwrap().len());
    let recorded = number(&inspected(&hosts.theirs)["newest"]["progress"]["fed"]);
    assert!((last..=part as u64 + HEADER_BYTES).contains(&recorded), "{recorded} of {part}");
    wait_until_released(&hosts.theirs);
    assert_eq!(transfers(hosts.theirs.path())[0]["state"], "streaming");
    // What failed in the open says so.
    assert_eq!(transfers(hosts.ours.path())[0]["state"], "abandoned");
    hosts.is_fast();
    let server = hosts.serve();
    let again = hosts.replicate(&server, &["--retry-for", "60"]);
    again.ended().succeeded();
    assert_eq!(files(&hosts.theirs), Vec::<PathBuf>::new());
}

#[test]
fn the_next_run_says_where_the_last_one_was_interrupted_and_uses_no_epoch_twice() {
    let hosts = Hosts::new();
    hosts.is_slow();
    let server = hosts.serve();
    let client = hosts.replicate(&server, &[]);
    let cut_at = wait_until_past(&hosts.ours, 0);
    client.signal("KILL");
    drop(client);
    wait_until_released(&hosts.ours);
    assert_eq!(inspected(&hosts.ours)["newest"]["job"]["epoch"], 1);
    let again = hosts.replicate(&server, &["-v"]);
    wait_for("the record of the second run", || {
        let running = transfers(hosts.ours.path()).into_iter().find(|told| told["running"] == true);
        running.filter(|told| told["epoch"] == 2)
    });
    hosts.is_fast();
    let ended = again.ended().succeeded();
    let words = "the last copy was interrupted at";
    assert!(cut_at > 0 && ended.stderr.contains(words), "{}", ended.stderr);
    hosts.are_alike_and_nothing_is_left();
}

#[test]
fn a_state_folder_on_a_full_disk_costs_the_records_alone_and_is_said_once() {
    let hosts = Hosts::new();
    for snapshot in ["s2", "s3"] {
        hosts.source.snapshot("tank/a", snapshot, &content(100_000));
    }
    let disks = [&hosts.ours, &hosts.theirs].map(|state| SmallDisk::mount(state.path()));
    if disks.iter().any(Option::is_none) {
        eprintln!("NOT CHECKED: no right to mount a small disk");
        return;
    }
    let server = hosts.serve();
    let client = hosts.replicate(&server, &[]).ended().succeeded();
    let said = server.stopped();
    for said in [&client.stderr, &said.stderr] {
        let lines: Vec<&str> = said.lines().filter(|line| line.contains("records")).collect();
        assert_eq!(lines.len(), 1, "{said}");
        assert!(lines[0].contains("No space left") && lines[0].contains("go on without"), "{said}");
    }
    assert_eq!(hosts.target.snapshots("backup/a"), ["s1", "s2", "s3"]);
    hosts.are_alike_and_nothing_is_left();
}

/// A file system with room for 64 KiB.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<SmallDisk> {
        let words = ["-t", "tmpfs", "-o", "size=64k", "zferry-test"];
        let mount = Command::new("mount").args(words).arg(at).stderr(Stdio::null()).status();
        mount.is_ok_and(|ended| ended.success()).then(|| SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_write_that_fails_is_said_once_and_the_stream_goes_on() {
    let state = tempfile::tempdir_in("/var/tmp").unwrap();
    let receiver = Server::receive(&[]);
    let address = receiver.address.to_string();
    let words = ["send", &address, "--plain", "--state", path(&state), "--block-size", "64KiB"];
    let plain = zferry(&words);
    // The signal of a file that grows too long is ignored, as the limit's error is what we want.
    let mut ignoring = Command::new("sh");
    ignoring.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]).arg(plain.get_program());
    ignoring.args(plain.get_args()).stdin(Stdio::piped());
    let mut sender = Running::start(ignoring.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut stdin = sender.stdin();
    let data = content(800_000);
    for (round, part) in data.chunks(200_000).enumerate() {
        std::io::Write::write_all(&mut stdin, part).unwrap();
        if round == 0 {
            wait_until_past(&state, 0);
            let limit = ["--fsize=0:0", "--pid", &sender.pid().to_string()];
            assert!(Command::new("prlimit").args(limit).status().unwrap().success());
        } else {
            std::thread::sleep(Duration::from_millis(1500));
        }
    }
    drop(stdin);
    let said = sender.ended().succeeded().stderr;
    assert_eq!(said.matches("no breakpoint records can be kept").count(), 1, "{said}");
    assert!(said.contains("File too large"), "{said}");
    assert!(receiver.running.ended().succeeded().stdout == data);
    assert_eq!(files(&state), Vec::<PathBuf>::new());
}

#[test]
fn wherever_the_client_dies_in_its_records_the_next_run_goes_on_and_cleans_up() {
    for point in fatal_points() {
        let hosts = Hosts::new();
        let server = hosts.serve();
        let mut dying = hosts.replication(&server, &[]);
        let ended = Running::start(dying.env(fault::VARIABLE, &point)).ended();
        assert_eq!(ended.status.code(), None, "{point}: {}", ended.stderr);
        if BEFORE_THE_EPOCH.contains(&point.as_str()) {
            assert!(!hosts.sends(), "{point}: zfs send was started");
        }
        wait_until_released(&hosts.ours);
        let said = hosts.replicate(&server, &[]).ended().succeeded().stderr;
        hosts.are_alike_and_nothing_is_left();
        assert!(!said.contains("records"), "{point}: {said}");
    }
}

#[test]
fn wherever_the_server_dies_in_its_records_the_next_one_goes_on_and_cleans_up() {
    for point in fatal_points() {
        let hosts = Hosts::new();
        let (state, flags) = (path(&hosts.theirs), ["--listen", "127.0.0.1:0", "--plain"]);
        let words = [&["serve", "--root", "backup", "--state", state], &flags[..]].concat();
        let mut dying = zferry_on(&hosts.target, &words);
        let server = Server::start(dying.env(fault::VARIABLE, &point));
        hosts.replicate(&server, &["--retry-for", "0"]).ended().failed_with(2, &[]);
        let ended = server.running.ended();
        assert_eq!(ended.status.code(), None, "{point}: {}", ended.stderr);
        if BEFORE_THE_EPOCH.contains(&point.as_str()) {
            assert!(!hosts.sends(), "{point}: the client was let go");
        }
        wait_until_released(&hosts.theirs);
        let server = hosts.serve();
        hosts.replicate(&server, &["--retry-for", "60"]).ended().succeeded();
        assert!(hosts.target.content("backup/a@s1") == hosts.source.content("tank/a@s1"));
        assert_eq!(files(&hosts.theirs), Vec::<PathBuf>::new(), "{point}");
    }
}

/// Nothing may flow yet that the record would be of.
const BEFORE_THE_EPOCH: [&str; 3] = ["file-made", "names-written", "record-due"];

/// Every point, and the later records too.
fn fatal_points() -> impl Iterator<Item = String> {
    let later = ["record-due:2", "record-written:2", "record-due:3", "record-written:3"];
    fault::POINTS.into_iter().chain(later).map(str::to_owned)
}

#[test]
fn of_two_servers_with_one_state_the_second_is_told() {
    let (target, state) = (StandIn::new(), tempfile::tempdir().unwrap());
    let server = Server::serve(&target, &["--state", path(&state)]);
    let words = ["serve", "--listen", "127.0.0.1:0", "--plain", "--root", "backup", "--state"];
    let second = Running::start(zferry_on(&target, &words).arg(state.path())).ended();
    second.failed_with(4, &["a server with the state folder", "is running already"]);
    server.stopped().succeeded();
}
