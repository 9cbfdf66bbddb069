//! `--spool-when always`: a stream outlives the process, and the host, at either end.
//!
//! Processes are killed in the middle and started again. Whatever was in breakpoint files by then
//! is neither read nor sent a second time.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use zferry::breakpoint::record::{Progress, Role, State};
use zferry::spool::fault;
use zferry::spool::transfers;
use zferry_chaos::{Plan, Proxy};

use crate::support::host::{
    Running, Server, free_address, running_zfs, wait_for, wait_for_words, zferry, zferry_on,
};
use crate::support::stand_in::StandIn;

const FLAGS: &[&str] = &["--cache", "4MiB", "--block-size", "64KiB"];

/// Bytes of which no two stretches are alike.
fn content(length: usize) -> Vec<u8> {
    let words = (0..length as u64 / 8).map(|place| place.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    words.flat_map(u64::to_le_bytes).collect()
}

fn on_disk() -> TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// How far the only stream in a folder is recorded.
fn progress(state: &Path, role: Role) -> Option<Progress> {
    let entries = transfers::list(state).ok()?;
    let records = entries.iter().filter_map(|entry| entry.newest);
    records.filter(|record| record.job.role == role).map(|record| record.progress).next()
}

/// Waits until a client has all of its stream in files, and its record says so.
#[track_caller]
fn wait_until_whole(state: &Path) {
    wait_for("the whole stream in files", || {
        let Progress { state, spooled, end, .. } = progress(state, Role::Client)?;
        (state == State::Ended && end.map(|end| end.to) == Some(spooled)).then_some(())
    });
}

fn killed(running: Running) {
    running.signal("KILL");
    drop(running.ended());
}

/// Nothing of a stream is left in a folder.
#[track_caller]
fn assert_empty(spool: &Path) {
    let left = || -> Vec<_> {
        let all = walk(spool).into_iter().map(|path| path.display().to_string());
        all.filter(|path| !path.ends_with("/transfers")).collect()
    };
    // The last of it goes with the process.
    wait_for("nothing to be left", || left().is_empty().then_some(()));
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        all.extend(walk(&entry.path()));
        all.push(entry.path());
    }
    all
}

/// A pipe whose receiving side keeps what it got.
struct Pipe {
    folder: TempDir,
    spool: TempDir,
}

impl Pipe {
    fn new() -> Pipe {
        Pipe { folder: on_disk(), spool: on_disk() }
    }

    fn out(&self) -> Vec<u8> {
        fs::read(self.folder.path().join("out")).unwrap()
    }

    /// `zferry receive` into a file, which each run begins anew.
    fn receiver(&self, listen: SocketAddr) -> Command {
        let (listen, out) = (listen.to_string(), self.folder.path().join("out"));
        let command = format!("cat > {}", text(&out));
        let spool = text(self.spool.path());
        let words =
            ["receive", "--listen", &listen, "--plain", "--spool", spool, "--cache", "4MiB"];
        zferry(&[&words[..], &["--", "sh", "-c", &command]].concat())
    }

    fn receive(&self, listen: SocketAddr) -> Server {
        Server::start(&mut self.receiver(listen))
    }

    fn durable(&self) -> u64 {
        progress(self.spool.path(), Role::Server).map_or(0, |progress| progress.spooled.0)
    }
}

fn sender(to: SocketAddr, flags: &[&str]) -> Running {
    let to = to.to_string();
    let words = [&["send", &to, "--plain"], FLAGS, flags].concat();
    Running::start(zferry(&words).stdin(Stdio::piped()))
}

#[test]
fn a_receiving_side_that_dies_begins_anew_from_its_files_and_no_byte_crosses_twice() {
    let (pipe, input) = (Pipe::new(), content(24 << 20));
    let receiver = pipe.receive(free_address());
    let address = receiver.address;
    let proxy = Proxy::start(address, &Plan::default()).unwrap();
    let mut sending = sender(proxy.address(), &[]);
    let mut stdin = sending.stdin();
    let mut receiving = receiver;
    for (part, bytes) in input.chunks(8 << 20).enumerate() {
        stdin.write_all(bytes).unwrap();
        if part < 2 {
            let goal = (part as u64 + 1) * (8 << 20) - (1 << 20);
            wait_for("a part to be durable", || (pipe.durable() >= goal).then_some(()));
            killed(receiving.running);
            receiving = pipe.receive(address);
        }
    }
    drop(stdin);
    sending.ended().succeeded();
    let ended = receiving.running.ended().succeeded();
    assert!(ended.stderr.contains("going on with a transfer of which"), "{}", ended.stderr);
    assert!(pipe.out() == input, "{} bytes of {}", pipe.out().len(), input.len());
    assert_empty(pipe.spool.path());
    let sent = proxy.counters().lanes.up_bytes;
    let least = input.len() as u64;
    // At most what was in the cache came again, each time.
    assert!(sent >= least && sent < least + 2 * (4 << 20), "{sent} of {least}");
}

#[test]
fn a_receiving_side_may_die_anywhere_in_its_writing_and_loses_nothing_that_it_acknowledged() {
    for point in [
        "names-written",
        "segment-due:1",
        "segment-due:4",
        "segment-durable:2",
        "record-due:3",
        "record-written:3",
        "record-written:7",
    ] {
        let (pipe, input) = (Pipe::new(), content(12 << 20));
        let dying = Server::start(pipe.receiver(free_address()).env(fault::VARIABLE, point));
        let address = dying.address;
        let mut sending = sender(address, &[]);
        let mut stdin = sending.stdin();
        let bytes = input.clone();
        let feeding = std::thread::spawn(move || {
            for part in bytes.chunks(64 << 10) {
                stdin.write_all(part).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        });
        let died = dying.running.ended();
        assert_eq!(died.status.code(), None, "{point}: {}", died.stderr);
        let receiving = pipe.receive(address);
        // One that dies before anything was opened has acknowledged nothing: its client is told.
        if point == "names-written" {
            sending.ended().failed_with(2, &["was started anew"]);
            // Its stdin was closed with it.
            drop(feeding.join());
            continue;
        }
        sending.ended().succeeded();
        receiving.running.ended().succeeded();
        feeding.join().unwrap();
        assert!(pipe.out() == input, "{point}: {} bytes", pipe.out().len());
        assert_empty(pipe.spool.path());
    }
}

/// A sender of `input` whose receiver is stopped when the first of it has come.
fn stopped_in_the_middle(receiver: &Server, input: &[u8], flags: &[&str]) -> Running {
    let mut sending = sender(receiver.address, flags);
    let mut stdin = sending.stdin();
    let (first, rest) = input.split_at(128 << 10);
    stdin.write_all(first).unwrap();
    wait_for("the stream to flow", || {
        (progress(Path::new(flags[1]), Role::Client)?.acknowledged.to.0 > 0).then_some(())
    });
    receiver.running.signal("STOP");
    let rest = rest.to_vec();
    std::thread::spawn(move || drop(stdin.write_all(&rest)));
    sending
}

#[test]
fn both_sides_may_die_once_the_stream_is_whole_at_the_sender() {
    let (pipe, input, spool) = (Pipe::new(), content(16 << 20), on_disk());
    let receiver = pipe.receive(free_address());
    let address = receiver.address;
    let always = ["--spool", text(spool.path()), "--spool-when", "always"];
    let sending = stopped_in_the_middle(&receiver, &input, &always);
    wait_until_whole(spool.path());
    killed(sending);
    receiver.running.signal("CONT");
    wait_for("something to be durable", || (pipe.durable() > 0).then_some(()));
    killed(receiver.running);
    let receiver = pipe.receive(address);
    let rest = sender(address, &[&always[..], &["--rest"]].concat());
    rest.ended().succeeded();
    receiver.running.ended().succeeded();
    assert!(pipe.out() == input, "{} bytes of {}", pipe.out().len(), input.len());
    assert_empty(pipe.spool.path());
    assert_empty(spool.path());
}

#[test]
fn the_rest_of_a_stream_is_sent_only_where_there_is_one() {
    let spool = on_disk();
    let flags = ["--spool", text(spool.path()), "--spool-when", "always", "--rest"];
    let nothing = sender("127.0.0.1:9".parse().unwrap(), &flags);
    nothing.ended().failed_with(2, &["no earlier run", "without --rest"]);
    let pipe = Pipe::new();
    let receiver = pipe.receive(free_address());
    let address = receiver.address;
    let sending = stopped_in_the_middle(&receiver, &content(6 << 20), &flags[..4]);
    wait_until_whole(spool.path());
    killed(sending);
    killed(receiver.running);
    sender(address, &flags).ended().failed_with(2, &["no connection"]);
    assert!(!walk(spool.path()).is_empty(), "it may still be wanted");
    // One that has never heard of it.
    let other =
        Server::start(&mut zferry(&["receive", "--listen", &address.to_string(), "--plain"]));
    sender(address, &flags).ended().failed_with(2, &["cannot be gone on with", "without --rest"]);
    assert_empty(spool.path());
    drop(other);
}

/// Two hosts, and tank/a@s1 of 16 MB on the first.
struct Hosts {
    source: StandIn,
    target: StandIn,
    ours: TempDir,
    theirs: TempDir,
}

impl Hosts {
    fn new() -> Hosts {
        let (source, target) = (StandIn::new(), StandIn::new());
        source.dataset("tank/a", "filesystem");
        source.snapshot("tank/a", "s1", &content(16_000_000));
        Hosts { source, target, ours: on_disk(), theirs: on_disk() }
    }

    fn serve(&self, listen: SocketAddr, flags: &[&str]) -> Server {
        let listen = &listen.to_string();
        let words = ["serve", "--listen", listen, "--plain", "--root", "backup"];
        let words = [&words[..], &["--cache", "2MiB"], flags].concat();
        Server::start(&mut zferry_on(&self.target, &words))
    }

    fn replicate(&self, server: &Server) -> Running {
        Running::start(&mut self.replication(server))
    }

    fn replication(&self, server: &Server) -> Command {
        let url = server.url("a");
        let words = ["replicate", "tank/a", &url, "--plain", "--no-snapshot"];
        let spool = ["--spool", text(self.ours.path()), "--spool-when", "always"];
        zferry_on(&self.source, &[&words[..], FLAGS, &spool].concat())
    }

    /// How often `zfs send` was started to send something.
    fn sends(&self) -> usize {
        let is_send = |call: &Vec<String>| call[0] == "send" && !call.contains(&"-n".to_owned());
        self.source.calls().into_iter().filter(is_send).count()
    }

    #[track_caller]
    fn are_alike_and_nothing_is_left(&self) {
        assert!(self.target.content("backup/a@s1") == self.source.content("tank/a@s1"));
        assert_eq!(self.target.partly_received("backup/a"), None);
        assert_eq!(self.source.holds("tank/a@s1"), [""; 0]);
        assert_empty(self.ours.path());
        assert_empty(self.theirs.path());
    }
}

#[test]
fn a_client_that_dies_is_followed_by_one_that_reads_nothing_again() {
    let hosts = Hosts::new();
    let server = hosts.serve(free_address(), &[]);
    hosts.target.pause_before("receive", std::time::Duration::from_secs(2));
    let first = hosts.replicate(&server);
    wait_until_whole(hosts.ours.path());
    assert_eq!(hosts.target.partly_received("backup/a"), None);
    killed(first);
    hosts.replicate(&server).ended().succeeded();
    assert_eq!(hosts.sends(), 1, "the snapshot was read again");
    hosts.are_alike_and_nothing_is_left();
}

#[test]
fn a_client_that_dies_before_its_stream_is_whole_goes_on_from_the_token() {
    let hosts = Hosts::new();
    let server = hosts.serve(free_address(), &[]);
    hosts.source.slow_send(256 << 10, std::time::Duration::from_millis(30));
    let first = hosts.replicate(&server);
    wait_for("a part in files", || {
        (progress(hosts.ours.path(), Role::Client)?.spooled.0 > 1 << 20).then_some(())
    });
    killed(first);
    hosts.source.slow_send(64 << 20, std::time::Duration::ZERO);
    hosts.replicate(&server).ended().succeeded();
    assert_eq!(hosts.sends(), 2);
    hosts.are_alike_and_nothing_is_left();
}

#[test]
fn streams_follow_each_other_in_one_session_and_leave_nothing() {
    let hosts = Hosts::new();
    for (snapshot, length) in [("s2", 5_000_000), ("s3", 100), ("s4", 7_000_000)] {
        hosts.source.snapshot("tank/a", snapshot, &content(length));
    }
    let server = hosts.serve(free_address(), &["--spool", text(hosts.theirs.path())]);
    hosts.replicate(&server).ended().succeeded();
    assert_eq!(hosts.sends(), 4);
    for snapshot in ["s2", "s3", "s4"] {
        let (theirs, ours) = (format!("backup/a@{snapshot}"), format!("tank/a@{snapshot}"));
        assert!(hosts.target.content(&theirs) == hosts.source.content(&ours), "{snapshot}");
    }
    hosts.are_alike_and_nothing_is_left();
}

#[test]
fn what_zfs_has_kept_of_a_stream_counts_for_more_than_files() {
    let hosts = Hosts::new();
    let keep = ["--spool", text(hosts.theirs.path())];
    let server = hosts.serve(free_address(), &keep);
    let address = server.address;
    hosts.target.slow_receive(256 << 10, std::time::Duration::from_millis(30));
    let client = hosts.replicate(&server);
    wait_for("a part to be received", || {
        (hosts.target.partly_received("backup/a")?.len() > 1 << 20).then_some(())
    });
    killed(server.running);
    wait_for("its receive to end", || running_zfs(&hosts.target).is_empty().then_some(()));
    hosts.target.slow_receive(64 << 20, std::time::Duration::ZERO);
    let server = hosts.serve(address, &keep);
    client.ended().succeeded();
    assert_eq!(hosts.sends(), 2, "the rest was not sent by ZFS's token");
    let said = server.running.said();
    assert!(!said.contains("going on with") && !said.contains("not gone on with"), "{said}");
    hosts.are_alike_and_nothing_is_left();
}

#[test]
fn a_client_may_die_anywhere_in_its_writing() {
    let points = fault::POINTS.into_iter().chain(fault::STREAM_POINTS).map(str::to_owned);
    for point in points.chain(["segment-due:2".to_owned(), "record-written:2".to_owned()]) {
        let hosts = Hosts::new();
        let server = hosts.serve(free_address(), &[]);
        let mut dying = hosts.replication(&server);
        let died = Running::start(dying.env(fault::VARIABLE, &point)).ended();
        assert_eq!(died.status.code(), None, "{point}: {}", died.stderr);
        hosts.replicate(&server).ended().succeeded();
        hosts.are_alike_and_nothing_is_left();
    }
}

#[test]
fn a_server_that_is_gone_leaves_the_client_to_plan_anew() {
    let hosts = Hosts::new();
    let server = hosts.serve(free_address(), &[]);
    let address = server.address;
    hosts.target.pause_before("receive", std::time::Duration::from_secs(2));
    let first = hosts.replicate(&server);
    wait_until_whole(hosts.ours.path());
    killed(first);
    killed(server.running);
    wait_for("its receive to end", || running_zfs(&hosts.target).is_empty().then_some(()));
    let server = hosts.serve(address, &[]);
    let second = hosts.replicate(&server).ended().succeeded();
    assert!(second.stderr.contains("is of no more use"), "{}", second.stderr);
    hosts.are_alike_and_nothing_is_left();
}

#[test]
fn a_server_that_dies_before_zfs_kept_anything_begins_the_receive_anew() {
    let hosts = Hosts::new();
    let keep = ["--spool", text(hosts.theirs.path())];
    let server = hosts.serve(free_address(), &keep);
    let address = server.address;
    hosts.target.pause_before("receive", std::time::Duration::from_secs(1));
    let client = hosts.replicate(&server);
    wait_for("something to be durable", || {
        (progress(hosts.theirs.path(), Role::Server)?.spooled.0 > 1 << 19).then_some(())
    });
    killed(server.running);
    // As with the power of the host: nothing of the receive goes on either.
    kill_all(&hosts.target);
    assert_eq!(hosts.target.partly_received("backup/a"), None);
    let server = hosts.serve(address, &keep);
    wait_for_words(&server.running, "going on with a transfer");
    client.ended().succeeded();
    assert_eq!(hosts.sends(), 1, "the snapshot was read again");
    hosts.are_alike_and_nothing_is_left();
}

/// Kills every `zfs` of a host.
fn kill_all(host: &StandIn) {
    let program = host.program();
    for process in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let words = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        if words.split('\0').any(|word| Path::new(word) == program) {
            let pid = process.file_name();
            drop(Command::new("kill").arg("-KILL").arg(pid).status());
        }
    }
    wait_for("them to be gone", || running_zfs(host).is_empty().then_some(()));
}
