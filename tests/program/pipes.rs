//! `zferry send` and `zferry receive` carry bytes: all of them, in order, soon, in little memory.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crate::support::host::{Running, Server, send, send_open, wait_for, wait_for_words, zferry};

const BLOCK: usize = 64 << 10;

/// Small enough to start fast, and far less than the longer streams here.
const SMALL: [&str; 2] = ["--cache", "8MiB"];

/// As /proc shows it on x86-64 and arm64.
const O_NONBLOCK: u32 = 0o4000;

const BACKENDS: [&str; 2] = ["uring", "threads"];

/// Bytes that no compression makes shorter.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn text(length: usize) -> Vec<u8> {
    let lines =
        (0..).flat_map(|line| format!("line {line} of a log that says little\n").into_bytes());
    lines.take(length).collect()
}

/// Carries `input` from the stdin of a `send` to the stdout of a `receive`.
#[track_caller]
fn carried(input: &[u8], receive: &[&str], send_flags: &[&str]) -> Vec<u8> {
    let receiver = Server::receive(receive);
    let sender = send(receiver.address, send_flags, input.to_vec());
    sender.ended().succeeded();
    receiver.running.ended().succeeded().stdout
}

#[track_caller]
fn assert_same(got: &[u8], expected: &[u8], told: &str) {
    let differs = got.iter().zip(expected).position(|(a, b)| a != b);
    assert!(
        got == expected,
        "{told}: {} of {} bytes came, the first that differs is {differs:?}",
        got.len(),
        expected.len()
    );
}

#[test]
fn streams_of_every_length_arrive_over_every_pair_of_backends() {
    let scenes = BACKENDS.iter().flat_map(|receive| BACKENDS.map(|send| (*receive, send)));
    thread::scope(|scope| {
        for (receive, send) in scenes {
            scope.spawn(move || {
                for length in [0, 1, 312, BLOCK, BLOCK + 1, 3 * BLOCK + 312] {
                    let input = noise(length);
                    let sending = ["--cache", "8MiB", "--block-size", "64KiB", "--io", send];
                    let got = carried(&input, &["--cache", "8MiB", "--io", receive], &sending);
                    assert_same(&got, &input, &format!("{length} bytes, {send} to {receive}"));
                }
            });
        }
    });
}

#[test]
fn every_content_arrives_with_every_compression_block_and_number_of_connections() {
    const MIB: usize = 1 << 20;
    let (noise, text, zeros) = (noise(3 * MIB + 7), text(3 * MIB), vec![0; 3 * MIB + 1]);
    for (input, compress, connections, block) in [
        (&noise, "none", "1", "1MiB"),
        (&noise, "zstd:1", "3", "64KiB"),
        (&noise, "none", "3", "4KiB"),
        (&text, "zstd:1", "1", "1MiB"),
        (&text, "zstd", "3", "4KiB"),
        (&text, "none", "3", "64KiB"),
        (&text, "auto", "3", "64KiB"),
        (&zeros, "zstd:1", "3", "1MiB"),
        (&zeros, "zstd:19", "1", "64KiB"),
        (&zeros, "none", "1", "4KiB"),
    ] {
        let sending = [
            "--compress",
            compress,
            "--connections",
            connections,
            "--block-size",
            block,
            "--cache",
            "16MiB",
        ];
        let got = carried(input, &["--cache", "16MiB"], &sending);
        assert_same(&got, input, &format!("{sending:?}"));
    }
    let little = &text[..MIB / 4];
    let slowly = ["--compress", "zstd:19", "--connections", "3", "--cache", "16MiB"];
    assert_same(&carried(little, &["--cache", "16MiB"], &slowly), little, "zstd:19");
}

#[test]
fn what_shrinks_is_sent_shrunk_and_what_does_not_is_sent_as_it_is() {
    for (input, least, most) in [(text(2 << 20), 4.0, 1e9), (noise(2 << 20), 0.99, 1.01)] {
        let receiver = Server::receive(&SMALL);
        let sender = send(receiver.address, &["--compress", "zstd:3"], input.clone());
        let said = sender.ended().succeeded().stderr;
        let ratio: f64 = said.trim().rsplit_once("ratio ").unwrap().1.parse().unwrap();
        assert!((least..most).contains(&ratio), "ratio {ratio}: {said}");
        assert_same(&receiver.running.ended().succeeded().stdout, &input, "compressed");
    }
}

#[test]
fn a_slow_reader_and_a_small_cache_slow_the_source_and_lose_nothing() {
    let input = noise(16 << 20);
    let tight = ["--cache", "4MiB"];
    for backend in BACKENDS {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let words = ["receive", "--listen", "127.0.0.1:0", "--plain", "--io", backend];
        let mut command = zferry(&words);
        let receiver = Server::start(command.args(tight).stdout(writer));
        // Our copy of the writing end must not keep the pipe open.
        drop(command);
        let block = ["--block-size", "64KiB", "--connections", "3", "--io", backend];
        let sender = send(receiver.address, &[tight.as_slice(), &block].concat(), input.clone());
        let mut got = Vec::new();
        let mut chunk = vec![0; 512 << 10];
        loop {
            let count = reader.read(&mut chunk).unwrap();
            if count == 0 {
                break;
            }
            got.extend_from_slice(&chunk[..count]);
            thread::sleep(Duration::from_millis(2));
        }
        sender.ended().succeeded();
        receiver.running.ended().succeeded();
        assert_same(&got, &input, backend);
    }
}

#[test]
fn a_source_that_dribbles_is_heard_long_before_its_end() {
    for backend in BACKENDS {
        let receiver = Server::receive(&[SMALL.as_slice(), &["--io", backend]].concat());
        let mut sender = send_open(receiver.address, &["--flush-after", "20", "--io", backend]);
        let mut stdin = sender.stdin();
        let mut written = Vec::new();
        for drop in [b"first".as_slice(), b" second", b" third"] {
            stdin.write_all(drop).unwrap();
            written.extend_from_slice(drop);
            // The source is open all the while: what is seen was flushed.
            wait_for("what was written to arrive", || {
                (receiver.running.stdout() == written).then_some(())
            });
        }
        drop(stdin);
        sender.ended().succeeded();
        assert_eq!(receiver.running.ended().succeeded().stdout, written);
    }
}

#[test]
fn many_tiny_writes_arrive_in_order() {
    for backend in BACKENDS {
        let receiver = Server::receive(&SMALL);
        let flags = [SMALL.as_slice(), &["--io", backend, "--connections", "3"]].concat();
        let mut sender = send_open(receiver.address, &flags);
        let mut stdin = sender.stdin();
        let written: Vec<u8> =
            (0..20_000_u32).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        for line in written.split_inclusive(|&byte| byte == b'\n') {
            stdin.write_all(line).unwrap();
        }
        drop(stdin);
        sender.ended().succeeded();
        assert_same(&receiver.running.ended().succeeded().stdout, &written, backend);
    }
}

#[test]
fn commands_behind_two_dashes_make_and_take_the_stream() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let input = noise(5 << 20);
    fs::write(&from, &input).unwrap();
    let script = format!("cat > '{}'", to.display());
    let from = from.display().to_string();
    for (take, make) in [
        (vec!["sh", "-c", script.as_str()], vec!["cat", from.as_str()]),
        (vec!["cat"], vec!["sh", "-c", "cat \"$0\"; echo made >&2", from.as_str()]),
    ] {
        let receiver = Server::receive(&[&SMALL, ["--"].as_slice(), &take].concat());
        let flags = [SMALL.as_slice(), &["--"], &make].concat();
        let sender = send_open(receiver.address, &flags).ended().succeeded();
        let taken = receiver.running.ended().succeeded();
        if take[0] == "cat" {
            assert_same(&taken.stdout, &input, "cat to cat");
            assert!(sender.stderr.contains("made\n"), "the command's words: {}", sender.stderr);
        } else {
            assert!(taken.stdout.is_empty());
            assert_same(&fs::read(&to).unwrap(), &input, "cat to a file");
        }
    }
}

#[test]
fn a_reader_that_splices_on_gets_bytes_that_do_not_change_under_it() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("to");
    let input = noise(24 << 20);
    let ourselves = std::env::current_exe().unwrap().display().to_string();
    let words = ["receive", "--listen", "127.0.0.1:0", "--plain", "--cache", "4MiB"];
    let reader =
        ["--", &ourselves, "--exact", "pipes::splices_its_stdin_on_where_a_test_asks_for_it"];
    let mut command = zferry(&words);
    let receiver = Server::start(command.args(reader).env(SPLICE_TO, &to));
    send(receiver.address, &["--block-size", "64KiB"], input.clone()).ended().succeeded();
    receiver.running.ended().succeeded();
    assert_same(&fs::read(&to).unwrap(), &input, "a reader that splices");
}

/// Where the program below shall write.
const SPLICE_TO: &str = "ZFERRY_TEST_SPLICE_TO";

/// The program that the test above runs: like pv, it hands the pages of its stdin on to a pipe of
/// its own, where they wait to be copied.
#[test]
fn splices_its_stdin_on_where_a_test_asks_for_it() {
    let Some(to) = std::env::var_os(SPLICE_TO) else { return };
    let (mut waiting, writer) = std::io::pipe().unwrap();
    let mut writer = fs::File::from(OwnedFd::from(writer));
    let mut stdin = fs::File::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    // Between two pipes this is splice(2).
    let splicing = thread::spawn(move || std::io::copy(&mut stdin, &mut writer).unwrap());
    let (mut file, mut chunk) = (fs::File::create(to).unwrap(), [0; 16 << 10]);
    loop {
        thread::sleep(Duration::from_millis(1));
        match waiting.read(&mut chunk).unwrap() {
            0 => break,
            count => file.write_all(&chunk[..count]).unwrap(),
        }
    }
    splicing.join().unwrap();
}

#[test]
fn both_ends_keep_to_the_cache_whatever_the_length_of_the_stream() {
    const MIB: u64 = 1 << 20;
    const STREAM: u64 = 300 * MIB;
    const PROMISED: u64 = (16 + 32) * MIB;
    for (backend, compress) in [("uring", "none"), ("threads", "zstd:1")] {
        let flags = ["--cache", "16MiB", "--io", backend];
        let count = ["--", "sh", "-c", "wc -c"];
        let receiver = Server::receive(&[flags.as_slice(), &count].concat());
        let length = STREAM.to_string();
        let zeros = ["--", "head", "-c", &length, "/dev/zero"];
        let sending = ["--block-size", "256KiB", "--compress", compress];
        let sender = send_open(receiver.address, &[flags.as_slice(), &sending, &zeros].concat());
        // In parallel, so that both are watched.
        let watched = thread::spawn(move || sender.ended().succeeded());
        let taken = receiver.running.ended().succeeded();
        let sent = watched.join().unwrap();
        assert_eq!(String::from_utf8_lossy(&taken.stdout).trim(), length);
        for (side, ended) in [("send", &sent), ("receive", &taken)] {
            let peak = ended.peak_rss_bytes;
            println!("{side}, {backend}, {compress}: {} KiB", peak >> 10);
            assert!(peak > 8 * MIB, "{side}: {peak} bytes cannot be true");
            assert!(peak <= PROMISED, "{side} with {backend} took {peak} bytes");
        }
    }
}

#[test]
fn a_regular_file_can_be_stdin_and_stdout() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let input = noise(2 << 20);
    fs::write(&from, &input).unwrap();
    for backend in BACKENDS {
        let words = ["receive", "--listen", "127.0.0.1:0", "--plain", "--io", backend];
        let receiver = Server::start(zferry(&words).stdout(fs::File::create(&to).unwrap()));
        let address = receiver.address.to_string();
        let words = ["send", &address, "--plain", "--io", backend];
        let stdin = Stdio::from(fs::File::open(&from).unwrap());
        Running::start(zferry(&words).stdin(stdin)).ended().succeeded();
        receiver.running.ended().succeeded();
        assert_same(&fs::read(&to).unwrap(), &input, backend);
    }
}

#[test]
fn an_end_that_pauses_for_longer_than_a_dead_one_is_waited_for() {
    // Both give signs of life. 20 seconds without one are death.
    let pause = "sleep 24";
    let input = noise(24 << 20);
    thread::scope(|scope| {
        for backend in BACKENDS {
            let input = &input;
            // Every buffer between the ends is full all the while.
            scope.spawn(move || {
                let flags = ["--cache", "4MiB", "--io", backend];
                let reader = ["--", "sh", "-c", &format!("{pause}; cat")];
                let receiver = Server::receive(&[flags.as_slice(), &reader].concat());
                send(receiver.address, &flags, input.clone()).ended().succeeded();
                assert_same(&receiver.running.ended().succeeded().stdout, input, backend);
            });
            scope.spawn(move || {
                let flags = ["--cache", "4MiB", "--io", backend];
                let receiver = Server::receive(&flags);
                let source = ["--", "sh", "-c", &format!("echo a; {pause}; echo b")];
                let sender = send_open(receiver.address, &[flags.as_slice(), &source].concat());
                sender.ended().succeeded();
                assert_eq!(receiver.running.ended().succeeded().stdout, b"a\nb\n");
            });
        }
    });
}

#[test]
fn stdout_is_left_as_it_was_found() {
    // Whoever shares our stdout must not find it in another mode: a shell's next command would
    // take EAGAIN for a failure.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let words = ["receive", "--listen", "127.0.0.1:0", "--plain"];
    let shared = writer.try_clone().unwrap();
    let mut command = zferry(&words);
    let receiver = Server::start(command.args(SMALL).stdout(shared));
    drop(command);
    let sender = send(receiver.address, &SMALL, noise(4 << 20));
    thread::spawn(move || drop(std::io::copy(&mut reader, &mut std::io::sink())));
    sender.ended().succeeded();
    receiver.running.ended().succeeded();
    let about = format!("/proc/self/fdinfo/{}", writer.as_raw_fd());
    let about = fs::read_to_string(about).unwrap();
    let flags = about.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
    assert_eq!(flags & O_NONBLOCK, 0, "{flags:o}");
}

#[test]
fn whoever_stands_still_is_named_and_left_alone() {
    let flags = ["--stall-timeout", "1", "--flush-after", "20"];
    let receiver =
        Server::receive(&[&SMALL, ["--", "sh", "-c", "sleep 3; cat"].as_slice()].concat());
    let sender = send(receiver.address, &flags, vec![7; 2 << 20]).ended().succeeded();
    assert!(sender.stderr.contains("stands still culprit=receive"), "{}", sender.stderr);
    assert_eq!(receiver.running.ended().succeeded().stdout, vec![7; 2 << 20]);

    let receiver = Server::receive(&SMALL);
    let slow = ["--", "sh", "-c", "echo begin; sleep 3; echo end"];
    let sender = send_open(receiver.address, &[&flags, slow.as_slice()].concat());
    let sender = sender.ended().succeeded();
    assert!(sender.stderr.contains("stands still culprit=source read"), "{}", sender.stderr);
    assert_eq!(receiver.running.ended().succeeded().stdout, b"begin\nend\n");
}

/// A reader that takes nothing before the file `begin` is there.
fn waiting_for(begin: &std::path::Path) -> [String; 3] {
    let wait = format!("while [ ! -e '{}' ]; do sleep 0.05; done; cat", begin.display());
    ["sh".to_owned(), "-c".to_owned(), wait]
}

fn is_empty(folder: &std::path::Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn with_a_spool_the_source_ends_although_nobody_reads_and_the_files_are_gone_in_the_end() {
    let input = noise(40 << 20);
    for (backend, compress) in [("uring", "none"), ("threads", "zstd:1")] {
        let (folder, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (from, begin) = (folder.path().join("from"), folder.path().join("begin"));
        fs::write(&from, &input).unwrap();
        let reader = waiting_for(&begin);
        let flags = ["--cache", "4MiB", "--io", backend, "--"];
        let reader: Vec<&str> =
            flags.into_iter().chain(reader.iter().map(String::as_str)).collect();
        let receiver = Server::receive(&reader);
        let script = format!("cat '{}'; echo all of it was read >&2", from.display());
        let sender = send_open(
            receiver.address,
            &[
                "--cache",
                "8MiB",
                "--block-size",
                "256KiB",
                "--io",
                backend,
                "--compress",
                compress,
                "--spool",
                spool.path().to_str().unwrap(),
                "--",
                "sh",
                "-c",
                &script,
            ],
        );
        wait_for_words(&sender, "all of it was read");
        assert!(!is_empty(spool.path()) && receiver.running.stdout().is_empty());
        fs::write(&begin, b"").unwrap();
        let sender = sender.ended().succeeded();
        assert!(sender.stderr.contains(", spooled 3"), "{}", sender.stderr);
        assert!(sender.peak_rss_bytes <= (8 + 32) << 20, "it took {} bytes", sender.peak_rss_bytes);
        assert_same(&receiver.running.ended().succeeded().stdout, &input, backend);
        assert!(is_empty(spool.path()), "files are left");
    }
}

#[test]
fn what_a_killed_sender_leaves_in_its_spool_is_removed_by_the_next() {
    let (folder, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let reader = waiting_for(&folder.path().join("never"));
    let reader: Vec<&str> =
        SMALL.into_iter().chain(["--"]).chain(reader.iter().map(String::as_str)).collect();
    let place = ["--cache", "8MiB", "--spool", spool.path().to_str().unwrap()];
    let receiver = Server::receive(&reader);
    let killed = send(receiver.address, &place, noise(40 << 20));
    wait_for("a breakpoint file", || {
        let mut folders = fs::read_dir(spool.path()).unwrap().filter_map(Result::ok);
        folders.any(|one| !is_empty(&one.path())).then_some(())
    });
    // Another one that lives meanwhile does not touch it.
    let other = Server::receive(&SMALL);
    let sent = send(other.address, &place, noise(1000)).ended().succeeded();
    assert!(!sent.stderr.contains("removed") && !is_empty(spool.path()), "{}", sent.stderr);
    killed.signal("KILL");
    killed.ended();
    assert!(!is_empty(spool.path()));
    let other = Server::receive(&SMALL);
    let sent = send(other.address, &place, noise(1000)).ended().succeeded();
    let told = "of breakpoint files that a process which was killed left in";
    assert!(sent.stderr.contains(told), "{}", sent.stderr);
    assert!(is_empty(spool.path()), "files are left");
}

#[test]
fn a_spool_that_cannot_be_used_is_a_mistake_of_the_caller() {
    for (flags, told) in [
        (["--spool-when", "full"].as_slice(), "add --spool DIR"),
        (&["--spool", "/nowhere/at/all"], "no breakpoint files can be made in /nowhere/at/all"),
        (&["--spool", "/var/tmp", "--spool-max", "1MiB"], "less than breakpoint files need"),
        (&["--spool-max", "1GiB"], "--spool <DIR>"),
        (&["--spool", "/var/tmp", "--spool-when", "often"], "possible values: never, full, always"),
    ] {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        send_open(address, flags).ended().failed_with(3, &[told]);
    }
}
