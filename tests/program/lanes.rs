//! The lanes of the command line: a stream that nobody proves stays in the kernel on either side,
//! and is no other stream for it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::executable;
use crate::support::host::{Running, Server, replicate, send, send_open, zferry};
use crate::support::stand_in::StandIn;

const BARE: [&str; 4] = ["--checksum", "none", "--cache", "8MiB"];
const SMALL: [&str; 2] = ["--cache", "8MiB"];

/// Bytes of which no two stretches are alike.
fn content(bytes: usize) -> Vec<u8> {
    let words = (0..bytes.div_ceil(8) as u64).map(|word| word.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    words.flat_map(u64::to_le_bytes).take(bytes).collect()
}

#[test]
fn a_stream_arrives_by_every_pair_of_lanes() {
    for (receive, sent) in [("auto", "splice"), ("block", "splice"), ("splice", "block")] {
        for length in [0, 1, 312, 256 << 10, (3 << 20) + 7] {
            let input = content(length);
            let receiver = Server::receive(&[&SMALL[..], &["--lane", receive]].concat());
            let flags = [&BARE[..], &["--lane", sent, "--connections", "2"]].concat();
            send(receiver.address, &flags, input.clone()).ended().succeeded();
            let got = receiver.running.ended().succeeded().stdout;
            assert!(got == input, "{sent} to {receive}: {} of {length} bytes", got.len());
        }
    }
}

/// As `zfs send` writes: a header, and then what it is about.
#[test]
fn records_with_small_headers_arrive_as_they_were_written() {
    let receiver = Server::receive(&SMALL);
    let mut sender = send_open(receiver.address, &BARE);
    let mut stdin = sender.stdin();
    let mut written = Vec::new();
    for record in 0..400_usize {
        for piece in [content(312), content(4096 * (record % 9))] {
            std::io::Write::write_all(&mut stdin, &piece).unwrap();
            written.extend(piece);
        }
    }
    drop(stdin);
    sender.ended().succeeded();
    assert!(receiver.running.ended().succeeded().stdout == written);
}

#[test]
fn a_reader_that_splices_on_and_a_command_that_copies_get_the_same() {
    for command in [["cat", "-"].as_slice(), &["sh", "-c", "dd bs=100k status=none"]] {
        let receiver = Server::receive(&[&SMALL[..], &["--"], command].concat());
        let input = content(2 << 20);
        send(receiver.address, &BARE, input.clone()).ended().succeeded();
        assert!(receiver.running.ended().succeeded().stdout == input, "{command:?}");
    }
}

/// Whose pipes are few and small: nothing may be left without one.
#[test]
fn a_user_without_privileges_gets_a_smaller_window_and_the_same_stream() {
    const NOBODY: u32 = 65534;
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("zferry");
    executable::copy(Path::new(zferry(&[]).get_program()), &program);
    let as_nobody = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.args(words).current_dir("/").stdout(Stdio::piped()).stderr(Stdio::piped());
        // Only root can and has to become somebody else.
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    let only = ["--plain", "--lane", "splice"];
    let receive = [&["receive", "--listen", "127.0.0.1:0"][..], &only].concat();
    let receiver = Server::start(&mut as_nobody(&receive));
    let (address, input) = (receiver.address.to_string(), content(24 << 20));
    let words = [&["send", &address, "--checksum", "none", "--retry-for", "0"][..], &only].concat();
    let mut sender = Running::start(as_nobody(&words).stdin(Stdio::piped()));
    sender.feed(input.clone());
    sender.ended().succeeded();
    assert!(receiver.running.ended().succeeded().stdout == input);
}

#[test]
fn the_lane_is_told_to_a_program() {
    for (flags, lane) in [(BARE.as_slice(), "splice"), (&SMALL, "block")] {
        let receiver = Server::receive(&SMALL);
        let flags = [flags, &["--json"]].concat();
        let sender = send(receiver.address, &flags, content(1 << 20)).ended().succeeded();
        receiver.running.ended().succeeded();
        let said = String::from_utf8(sender.stdout).unwrap();
        let events = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let moments: Vec<Value> = events.filter(|event| event["event"] == "moment").collect();
        assert!(!moments.is_empty() && moments.iter().all(|one| one["lane"] == lane), "{said}");
    }
}

#[test]
fn datasets_are_replicated_without_checksums_of_ours_over_the_network_and_within_a_host() {
    let (source, target) = (StandIn::new(), StandIn::new());
    source.dataset("tank/a", "filesystem");
    source.snapshot("tank/a", "s", &content(3 << 20));
    let server = Server::serve(&target, &SMALL);
    let flags = [&BARE[..], &["--no-snapshot"]].concat();
    replicate(&source, "tank/a", &server.url("a"), &flags).ended().succeeded();
    assert_eq!(target.guid("backup/a@s"), source.guid("tank/a@s"));
    source.dataset("backup", "filesystem");
    replicate(&source, "tank/a", "backup/a", &flags).ended().succeeded();
    assert_eq!(source.guid("backup/a@s"), source.guid("tank/a@s"));
}

#[test]
fn what_would_have_to_look_at_bytes_that_nobody_looks_at_is_refused_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().to_str().unwrap();
    for (flags, told, remedy) in [
        (["--lane", "splice", "--compress", "none"], "never looks at a byte", "--checksum none"),
        (["--checksum", "none", "--compress", "zstd"], "for packed ones", "--compress none"),
        (["--checksum", "none", "--spool", spool], "breakpoint files", "leave --spool"),
    ] {
        let words = [&["send", "127.0.0.1:1", "--plain"][..], &flags].concat();
        let command = &mut zferry(&words);
        let ended = Running::start(command.stdin(Stdio::piped())).ended();
        ended.failed_with(3, &[told, remedy]);
    }
    let receiver = Server::receive(&["--spool", spool]);
    let sender = send(receiver.address, &BARE, content(10)).ended();
    sender.failed_with(2, &["takes no blocks without a checksum", "--checksum crc32"]);
}
