//! Everything that can go wrong around a transfer: each ends soon, in one failure that names its
//! side and what to do, and never in a success or a loss.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::sys::signal::Signal;
use zferry::error::{Class, Side};
use zferry::protocol::frame::{Codec, HEADER_BYTES};
use zferry::protocol::message::{Message, Stream};
use zferry::protocol::secret::JoinSecret;
use zferry::units::{Sequence, StreamOffset};

#[path = "support/host.rs"]
mod host;
#[path = "support/peer.rs"]
mod peer;
#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/stand_in.rs"]
mod stand_in;

use host::{
    Ended, Running, Server, replicate, running_zfs, send, send_open, wait_for, wait_for_words,
    zferry, zferry_on,
};
use peer::{BLOCK_BYTES, Peer, dial, frame, full_stream, header, hear_out, stranger};
use stand_in::{Failing, StandIn};

/// Within this, whoever lost the other end has noticed. Nothing here waits for signs of life.
const SOON: Duration = Duration::from_secs(15);

fn content(seed: u64) -> Vec<u8> {
    (0..300_000u64).flat_map(|place| (place * 0x9E37_79B9 + seed).to_le_bytes()).collect()
}

/// A source with tank/a@s, and a target.
fn hosts() -> (StandIn, StandIn) {
    let (source, target) = (StandIn::new(), StandIn::new());
    source.dataset("tank/a", "filesystem");
    source.snapshot("tank/a", "s", &content(1));
    (source, target)
}

/// Replicates tank/a as it is to `to`.
fn copy(source: &StandIn, to: &str) -> Running {
    replicate(source, "tank/a", to, &["--no-snapshot", "--cache", "8MiB", "--block-size", "64KiB"])
}

/// A server and a client in the middle of a transfer that takes seconds.
fn under_way() -> (StandIn, StandIn, Server, Running) {
    let (source, target) = hosts();
    let server = Server::serve(&target, &["--cache", "8MiB"]);
    source.slow_send(128 << 10, Duration::from_millis(200));
    let client = copy(&source, &server.url("a"));
    wait_until_some_came(&target);
    (source, target, server, client)
}

fn wait_until_some_came(target: &StandIn) {
    wait_for("the first bytes", || {
        target.partly_received("backup/a").filter(|part| !part.is_empty())
    });
}

/// Demands that the target kept a part of what was on its way and took it for nothing more.
#[track_caller]
fn assert_partly_received(target: &StandIn) {
    wait_for("zfs receive to end", || running_zfs(target).is_empty().then_some(()));
    let part = target.partly_received("backup/a").expect("nothing was kept");
    assert!(content(1).starts_with(&part), "something else was kept than what was sent");
    assert!(!part.is_empty());
    assert_eq!(target.snapshots("backup/a"), [""; 0]);
}

/// The bytes of `zfs send` of a snapshot.
fn stream_of(host: &StandIn, snapshot: &str) -> Vec<u8> {
    let output = Command::new(host.program()).args(["send", "--", snapshot]).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

// ------------------------------------------------------------------------- before anything flows

#[test]
fn a_port_that_is_taken_is_told_with_the_way_to_find_out_by_whom() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let host = StandIn::new();
    let serve = ["serve", "--listen", &address, "--plain", "--root", "backup"];
    let receive = ["receive", "--listen", &address, "--plain"];
    for words in [serve.as_slice(), &receive] {
        let told = format!("zferry: target: listen on {address}: Address already in use");
        let find_out = format!("ss -ltnp | grep :{}", taken.local_addr().unwrap().port());
        Running::start(&mut zferry_on(&host, words)).ended().failed_with(2, &[&told, &find_out]);
    }
}

#[test]
fn a_server_that_is_not_there_is_told_at_once() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let told = [
        &format!("zferry: network: no connection to {nobody} ({nobody}: Connection refused"),
        "zferry serve",
    ];
    send(nobody, &[], Vec::new()).ended().failed_with(2, &told);
    let (source, _) = hosts();
    let url = format!("zferry://{nobody}/a");
    replicate(&source, "tank/a", &url, &[]).ended().failed_with(2, &told);
    assert_eq!(source.snapshots("tank/a"), ["s"], "a snapshot was taken for nobody");
}

#[test]
fn a_name_without_an_address_is_told() {
    let words = ["send", "no.such.host.invalid:7000", "--plain"];
    Running::start(&mut zferry(&words))
        .ended()
        .failed_with(2, &["zferry: network: no address for no.such.host.invalid:7000"]);
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_given_up() {
    let started = Instant::now();
    let told = ["zferry: network: ", "said nothing within 1 s"];
    send(stranger(None), &["--connect-timeout", "1"], Vec::new()).ended().failed_with(2, &told);
    let (source, _) = hosts();
    let url = format!("zferry://{}/a", stranger(None));
    let flags = ["--connect-timeout", "1"];
    replicate(&source, "tank/a", &url, &flags).ended().failed_with(2, &told);
    assert!(started.elapsed() < SOON);
    assert_eq!(source.snapshots("tank/a"), ["s"], "a snapshot was taken for nobody");
}

#[test]
fn an_unknown_dataset_is_told_and_nothing_is_made_for_it() {
    let (source, target) = hosts();
    let server = Server::serve(&target, &[]);
    replicate(&source, "tank/b", &server.url("b"), &[]).ended().failed_with(
        2,
        &["zferry: source: ", "tank/b", "dataset does not exist", "check the name"],
    );
    replicate(&source, "nopool/b", &server.url("b"), &[])
        .ended()
        .failed_with(2, &["zferry: source: ", "nopool"]);
    assert!(!target.exists("backup/b"));
}

#[test]
fn a_target_without_a_common_snapshot_is_refused_with_both_guids() {
    let (source, target) = hosts();
    target.dataset("backup/a", "filesystem");
    let theirs = target.snapshot("backup/a", "mine", b"something else");
    let server = Server::serve(&target, &[]);
    let (ours, theirs) = (source.guid("tank/a@s").to_string(), theirs.to_string());
    copy(&source, &server.url("a"))
        .ended()
        .failed_with(2, &["zferry: target: ", "no snapshot in common", &ours, &theirs]);
    // Not even a new snapshot is taken for a target that would refuse it.
    replicate(&source, "tank/a", &server.url("a"), &[]).ended().failed_with(2, &[]);
    assert_eq!(source.snapshots("tank/a"), ["s"]);
    assert_eq!(target.snapshots("backup/a"), ["mine"]);
    assert_eq!(source.holds("tank/a@s"), [""; 0]);
}

#[test]
fn a_remedy_names_the_target_as_the_servers_host_knows_it() {
    let (source, target) = hosts();
    source.fail_send(&Failing { after_bytes: 1 << 20, status: "1", words: "warning: I/O" });
    let server = Server::serve(&target, &[]);
    copy(&source, &server.url("a")).ended().failed_with(2, &[]);
    assert_partly_received(&target);
    copy(&source, &server.url("a")).ended().failed_with(
        2,
        &["target: backup/a holds the state of an interrupted receive", "zfs receive -A backup/a"],
    );
}

#[test]
fn nobody_gets_out_of_the_root() {
    let (source, target) = hosts();
    let server = Server::serve(&target, &[]);
    let before = target.calls().len();
    for name in ["../tank/x", "..", "a/../../x", "", "/x", "a;reboot", "a$(id)", "a`id`", "a|b", "a@s"] {
        copy(&source, &server.url(name)).ended().failed_with(3, &["zferry: "]);
    }
    // A client that does not check is refused by the server.
    for name in ["../tank", "a/../../tank/x", "x;y", "-x"] {
        let mut peer = Peer::greet(server.address);
        peer.say_raw(&format!(r#"{{"type":"list","dataset":"{name}"}}"#));
        assert_eq!(peer.refusal().side, Side::Network, "{name}");
    }
    assert_eq!(target.calls().len(), before, "zfs was called: {:?}", &target.calls()[before..]);
    server.still_serves();
}

#[test]
fn without_zfs_the_package_is_named() {
    let empty = tempfile::tempdir().unwrap();
    for (side, words) in [
        ("target", ["serve", "--listen", "127.0.0.1:0", "--root", "backup", "--plain"]),
        ("source", ["replicate", "tank/a", "zferry://127.0.0.1:1/a", "--plain", "-v", "-v"]),
    ] {
        let told = format!("zferry: {side}: there is no zfs command in {}", empty.path().display());
        Running::start(zferry(&words).env("PATH", empty.path()))
            .ended()
            .failed_with(2, &[&told, "install zfsutils-linux"]);
    }
}

#[test]
fn encryption_is_not_silently_left_out() {
    for words in [
        ["send", "127.0.0.1:1", "", ""],
        ["receive", "--listen", "127.0.0.1:0", ""],
        ["replicate", "tank/a", "zferry://127.0.0.1:1/a", ""],
    ] {
        let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let ended = Running::start(&mut zferry(&words)).ended();
        ended.failed_with(3, &["no encryption", "--plain"]);
    }
}

#[test]
fn a_terminal_is_no_stream() {
    let terminal = openpty(None, None).unwrap();
    let slave = || Stdio::from(terminal.slave.as_fd().try_clone_to_owned().unwrap());
    let receive = ["receive", "--listen", "127.0.0.1:0", "--plain"];
    Running::start(zferry(&receive).stdout(slave()))
        .ended()
        .failed_with(3, &["target: a stream would be written to this terminal", "redirect stdout"]);
    Running::start(zferry(&["send", "127.0.0.1:1", "--plain"]).stdin(slave()))
        .ended()
        .failed_with(3, &["source: a stream would be read from this terminal", "redirect stdin"]);
}

#[test]
fn a_cache_too_small_for_the_connections_says_how_much_is_enough() {
    let flags = ["--cache", "4MiB", "--connections", "4"];
    let ended = send("127.0.0.1:1".parse().unwrap(), &flags, Vec::new()).ended();
    let told = ["source: a cache of 4.0 MiB holds 3 blocks of 1.0 MiB, but 4 connections need 8"];
    let enough = enough(&ended.failed_with(3, &told)).to_owned();
    let receiver = Server::receive(&["--cache", "4MiB"]);
    let sender = send(receiver.address, &["--connections", "4"], b"x".to_vec()).ended();
    let told = ["target: a cache of 4.0 MiB holds 3 blocks of 1.0 MiB, but 4 connections need 8"];
    sender.failed_with(3, &told);
    receiver.running.ended().failed_with(3, &told);
    // What was told to be enough is enough.
    let receiver = Server::receive(&["--cache", &enough]);
    let flags = ["--cache", &enough, "--connections", "4"];
    send(receiver.address, &flags, b"x".to_vec()).ended().succeeded();
    assert_eq!(receiver.running.ended().succeeded().stdout, b"x");
}

fn enough(ended: &Ended) -> &str {
    let (_, behind) = ended.stderr.split_once("use --cache ").unwrap();
    behind.split(' ').next().unwrap()
}

#[test]
fn flags_that_mean_nothing_are_refused_by_name() {
    for flags in [
        ["--block-size", "5000"],
        ["--block-size", "32MiB"],
        ["--connections", "0"],
        ["--connections", "65"],
        ["--compress", "lz4"],
        ["--pin", "4000"],
        ["--cache", "much"],
        ["--connect-timeout", "0"],
    ] {
        send("127.0.0.1:1".parse().unwrap(), &flags, Vec::new()).ended().failed_with(3, &[flags[0]]);
    }
}

// ---------------------------------------------------------------------------------- strangers

#[test]
fn a_port_of_something_else_is_recognized() {
    for (answer, name) in [
        (b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n".as_slice(), "speaks HTTP"),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", "speaks SSH"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "speaks TLS"),
        (b"220 mail.example ESMTP\r\n", "probably no zferry"),
    ] {
        let flags = ["--connect-timeout", "5"];
        send(stranger(Some(answer)), &flags, Vec::new())
            .ended()
            .failed_with(2, &["zferry: network: ", name, "check the address and port"]);
    }
}

#[test]
fn a_server_survives_whatever_connects_to_it() {
    let target = StandIn::new();
    let server = Server::serve(&target, &[]);
    let noise: Vec<u8> = (0..9000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let control = peer::control_preamble();
    let four_gib = [control.as_slice(), &[0xff; 4], b"{}"].concat();
    let not_json = [control.as_slice(), &5u32.to_le_bytes(), b"hello"].concat();
    let hello_late = [control.as_slice(), &peer::message(&Message::Ping)].concat();
    let role = {
        let mut preamble = control.clone();
        preamble[12] = 9;
        preamble
    };
    for (what, said) in [
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".as_slice()),
        ("TLS", &[b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), &[7; 500]].concat()),
        ("noise", &noise),
        ("a length of 4 GiB", &four_gib),
        ("no JSON", &not_json),
        ("a ping before the hello", &hello_late),
        ("an unknown role", &role),
        ("half a preamble and the end", &control[..20]),
        ("nothing", b""),
    ] {
        let stream = dial(server.address, b"");
        // It may hang up while we are still talking.
        let _ = (&stream).write_all(said);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let answer = String::from_utf8_lossy(&hear_out(stream)).into_owned();
        assert!(answer.is_empty() || answer.contains("refused"), "{what}: {answer}");
    }
    server.still_serves();
    assert_eq!(server.stopped().succeeded().stderr.matches("panicked").count(), 0);
}

#[test]
fn strangers_that_say_nothing_do_not_keep_real_clients_out() {
    let target = StandIn::new();
    let server = Server::serve(&target, &[]);
    let idle: Vec<_> = (0..50).map(|_| dial(server.address, b"\x89zfe")).collect();
    server.still_serves();
    // After a while they are sent away.
    for stream in idle {
        assert!(hear_out(stream).is_empty());
    }
    assert!(server.running.said().contains("did not say what it is in time"));
}

#[test]
fn a_data_connection_without_the_sessions_secret_is_dropped() {
    let (source, target) = hosts();
    let server = Server::serve(&target, &[]);
    let mut peer = Peer::greet(server.address);
    for secret in [JoinSecret::new([0; 16]), JoinSecret::new([0xff; 16])] {
        let thief = peer.lane(0, secret);
        assert!(hear_out(thief).is_empty());
    }
    wait_for_words(&server.running, "belongs to no session");
    // The session goes on with its own.
    let stream = stream_of(&source, "tank/a@s");
    let mut lane = peer.open(full_stream("a", "s", source.guid("tank/a@s")));
    for (number, block) in stream.chunks(BLOCK_BYTES).enumerate() {
        lane.write_all(&frame(header(number, block), block)).unwrap();
    }
    peer.end(&stream);
    assert!(matches!(peer.hear(), Some(Message::Result { .. })));
    assert!(target.content("backup/a@s") == content(1));
}

#[test]
fn a_session_without_its_data_connections_ends() {
    let target = StandIn::new();
    let server = Server::serve(&target, &[]);
    let mut peer = Peer::greet(server.address);
    peer.ask(full_stream("a", "s", 1), Codec::Raw);
    let failure = peer.refusal();
    assert_eq!((failure.side, failure.class), (Side::Network, Class::Interrupted));
    assert!(failure.what.contains("only 0 of 1 data connections arrived"), "{failure}");
    assert!(!target.exists("backup/a"));
    server.still_serves();
}

// -------------------------------------------------------------------------- bytes that are wrong

/// Sends two good blocks, then `bad`; returns what the server says and demands that nothing behind
/// the good ones reached `zfs receive`.
#[track_caller]
fn answer_to(bad: impl FnOnce(&[u8]) -> Vec<u8>) -> zferry::error::Failure {
    let (source, target) = hosts();
    let server = Server::serve(&target, &["--cache", "8MiB"]);
    let stream = stream_of(&source, "tank/a@s");
    let mut peer = Peer::greet(server.address);
    let mut lane = peer.open(full_stream("a", "s", source.guid("tank/a@s")));
    for (number, block) in stream.chunks(BLOCK_BYTES).enumerate().take(2) {
        lane.write_all(&frame(header(number, block), block)).unwrap();
    }
    wait_until_some_came(&target);
    let third = &stream[2 * BLOCK_BYTES..3 * BLOCK_BYTES];
    lane.write_all(&bad(third)).unwrap();
    let failure = peer.refusal();
    assert_partly_received(&target);
    let part = target.partly_received("backup/a").unwrap();
    let records_bytes = 2 * 312;
    assert!(part.len() <= 2 * BLOCK_BYTES - records_bytes, "bad bytes went in: {}", part.len());
    let told = failure.to_string();
    wait_for_words(&server.running, told.lines().next().unwrap());
    server.still_serves();
    failure
}

#[test]
fn a_block_that_was_changed_on_its_way_is_not_let_in() {
    let failure = answer_to(|block| {
        let mut bytes = frame(header(2, block), block);
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    });
    assert_eq!((failure.side, failure.class), (Side::Network, Class::Peer));
    assert!(failure.what.contains("the block at byte 131072 is corrupt"), "{failure}");
}

#[test]
fn a_header_that_was_changed_on_its_way_is_not_believed() {
    for byte in [0, 9, 20, 27, 34, 47] {
        let failure = answer_to(|block| {
            let mut bytes = frame(header(2, block), block);
            bytes[byte] ^= 0x40;
            bytes
        });
        assert_eq!((failure.side, failure.class), (Side::Network, Class::Peer), "byte {byte}");
        let told = if byte < 4 { "a frame begins with" } else { "frame header's CRC32" };
        assert!(failure.what.contains(told), "byte {byte}: {failure}");
    }
}

#[test]
fn a_block_in_the_wrong_place_is_not_let_in() {
    let failure = answer_to(|block| {
        let wrong = zferry::protocol::frame::Header {
            offset: StreamOffset(3 * BLOCK_BYTES as u64),
            ..header(2, block)
        };
        frame(wrong, block)
    });
    assert_eq!((failure.side, failure.class), (Side::Network, Class::Peer));
    assert!(failure.what.contains("due was byte 131072"), "{failure}");
}

#[test]
fn a_block_of_another_transfer_or_run_is_not_let_in() {
    let other = zferry::units::TransferId(2);
    let failure = answer_to(|block| {
        frame(zferry::protocol::frame::Header { transfer: other, ..header(2, block) }, block)
    });
    assert!(failure.what.contains("of transfer 2 arrived"), "{failure}");
    answer_to(|block| {
        frame(zferry::protocol::frame::Header { epoch: 2, ..header(2, block) }, block)
    });
}

#[test]
fn a_block_that_comes_twice_ends_the_transfer() {
    let failure = answer_to(|block| {
        let again = zferry::protocol::frame::Header {
            sequence: Sequence(1),
            offset: StreamOffset(BLOCK_BYTES as u64),
            ..header(2, block)
        };
        frame(again, block)
    });
    assert_eq!((failure.side, failure.class), (Side::Network, Class::Peer));
    assert!(failure.what.contains("block 1 arrived twice"), "{failure}");
}

#[test]
fn a_length_beyond_what_was_agreed_is_not_believed() {
    let oversize = u32::MAX.to_le_bytes();
    let failure = answer_to(|block| {
        let mut bytes: [u8; HEADER_BYTES] = header(2, block).encode();
        bytes[32..36].copy_from_slice(&oversize);
        bytes[36..40].copy_from_slice(&oversize);
        peer::sealed(bytes).to_vec()
    });
    assert_eq!((failure.side, failure.class), (Side::Network, Class::Peer));
    assert!(failure.what.contains("a block of 4294967295 bytes; agreed were 1 to 65536"));
}

#[test]
fn a_packed_block_where_none_was_agreed_is_not_let_in() {
    let failure = answer_to(|block| {
        let packed = zferry::protocol::frame::Header {
            codec: Codec::Zstd,
            payload_bytes: 1000,
            ..header(2, block)
        };
        frame(packed, &block[..1000])
    });
    assert!(failure.what.contains("codec"), "{failure}");
}

#[test]
fn garbage_on_a_data_connection_ends_the_transfer() {
    let failure = answer_to(|_| b"GET / HTTP/1.1\r\nHost: somewhere.example\r\n\r\n\r\n\r\n".repeat(3));
    assert_eq!((failure.side, failure.class), (Side::Network, Class::Peer));
}

#[test]
fn an_end_that_does_not_fit_the_bytes_is_no_end() {
    let folder = tempfile::tempdir().unwrap();
    for (total, crc32, told) in [
        (5, 0xdead_beef, "the stream ended at byte 5 with CRC32"),
        (4, crc32fast::hash(b"byte"), "4"),
    ] {
        let done = folder.path().join("done");
        let receiver = Server::receive(&["--", "sh", "-c", &until_the_end(&done)]);
        let mut peer = Peer::greet(receiver.address);
        let mut lane = peer.open(Stream::Pipe);
        lane.write_all(&frame(header(0, b"bytes"), b"bytes")).unwrap();
        peer.end_with(total, crc32);
        let failure = peer.refusal();
        assert!(failure.what.contains(told), "{failure}");
        receiver.running.ended().failed_with(2, &["network: "]);
        assert!(!done.exists(), "the command saw a clean end");
    }
}

/// A script that makes the file `done` only when its stdin has ended well.
fn until_the_end(done: &std::path::Path) -> String {
    format!("cat > '{0}.part' && mv '{0}.part' '{0}'", done.display())
}

#[test]
fn a_stream_whose_end_is_never_told_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    for leaves_politely in [true, false] {
        let done = folder.path().join("done");
        let receiver = Server::receive(&["--", "sh", "-c", &until_the_end(&done)]);
        let mut peer = Peer::greet(receiver.address);
        let mut lane = peer.open(Stream::Pipe);
        lane.write_all(&frame(header(0, b"all there is"), b"all there is")).unwrap();
        let part = folder.path().join("done.part");
        wait_for("the bytes", || fs::read(&part).is_ok_and(|part| part.len() == 12).then_some(()));
        if leaves_politely {
            peer.say(&Message::Bye);
        }
        drop(lane);
        peer.leave();
        receiver.running.ended().failed_with(2, &["zferry: "]);
        assert!(!done.exists(), "the command saw a clean end");
        fs::remove_file(part).unwrap();
    }
}

#[test]
fn nothing_runs_for_a_client_that_leaves_while_all_is_made_ready() {
    // The command is started when the data connection has come; the client is gone by then.
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..10 {
        let done = folder.path().join("done");
        let receiver = Server::receive(&["--", "sh", "-c", &until_the_end(&done)]);
        let mut peer = Peer::greet(receiver.address);
        let lane = peer.lane(0, peer.secret);
        peer.ask(Stream::Pipe, Codec::Raw);
        drop(lane);
        peer.leave();
        receiver.running.ended().failed_with(2, &["zferry: "]);
        assert!(!done.exists(), "the command saw a clean end");
    }
}

// -------------------------------------------------------------------------- ends that are lost

#[test]
fn a_client_that_is_killed_leaves_a_part_and_a_server_that_serves() {
    let (source, target, server, client) = under_way();
    let started = Instant::now();
    client.signal(Signal::SIGKILL);
    wait_for_words(&server.running, "session failed");
    assert!(started.elapsed() < SOON);
    let said = server.running.said();
    assert!(said.contains("network: the connection to 127.0.0.1:"), "{said}");
    assert_partly_received(&target);
    wait_for("zfs send to end", || running_zfs(&source).is_empty().then_some(()));
    server.still_serves();
}

#[test]
fn a_server_that_is_killed_is_noticed_and_leaves_a_part() {
    let (source, target, server, client) = under_way();
    let started = Instant::now();
    server.running.signal(Signal::SIGKILL);
    client.ended().failed_with(2, &["zferry: network: the connection to 127.0.0.1:", "was lost"]);
    assert!(started.elapsed() < SOON);
    assert_partly_received(&target);
    assert!(running_zfs(&source).is_empty(), "zfs send outlived its client");
    assert_eq!(source.holds("tank/a@s").len(), 1, "what was sent in part is not held any more");
}

#[test]
fn a_server_that_stands_still_is_given_up_after_20_seconds() {
    let (source, _target, server, client) = under_way();
    let started = Instant::now();
    server.running.signal(Signal::SIGSTOP);
    client.ended().failed_with(2, &["zferry: network: ", "nothing was heard for 20 seconds"]);
    assert!(started.elapsed() > Duration::from_secs(15));
    assert!(running_zfs(&source).is_empty());
}

#[test]
fn a_client_that_stands_still_is_given_up_and_another_is_let_in() {
    let (_source, target, server, client) = under_way();
    client.signal(Signal::SIGSTOP);
    wait_for_words(&server.running, "nothing was heard for 20 seconds");
    assert_partly_received(&target);
    server.still_serves();
}

#[test]
fn a_command_whose_stream_is_cut_never_sees_a_clean_end() {
    let folder = tempfile::tempdir().unwrap();
    let done = folder.path().join("done");
    for cut in [Signal::SIGKILL, Signal::SIGINT, Signal::SIGTERM] {
        let receiver = Server::receive(&["--", "sh", "-c", &until_the_end(&done)]);
        let mut sender = send_open(receiver.address, &[]);
        let mut stdin = sender.stdin();
        stdin.write_all(&content(1)).unwrap();
        let part = folder.path().join("done.part");
        wait_for("the bytes", || fs::read(&part).is_ok_and(|b| b == content(1)).then_some(()));
        sender.signal(cut);
        receiver.running.ended().failed_with(2, &["zferry: "]);
        assert!(!done.exists(), "the command saw a clean end after {cut}");
        if cut != Signal::SIGKILL {
            sender.ended().failed_with(2, &["source: stopped by a signal"]);
        }
        fs::remove_file(part).unwrap();
    }
}

#[test]
fn a_command_that_will_not_stop_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let done = folder.path().join("done");
    let script = format!("trap '' TERM; {}", until_the_end(&done));
    let receiver = Server::receive(&["--", "sh", "-c", &script]);
    let mut sender = send_open(receiver.address, &[]);
    sender.stdin().write_all(b"bytes").unwrap();
    let part = folder.path().join("done.part");
    wait_for("the command to start", || part.exists().then_some(()));
    sender.signal(Signal::SIGKILL);
    receiver.running.ended().failed_with(2, &["killed a process that did not end by itself"]);
    assert!(!done.exists(), "the command saw a clean end");
}

// ----------------------------------------------------------------------- processes at the ends

#[test]
fn a_zfs_send_that_fails_is_told_on_both_sides_in_its_words() {
    let (source, target) = hosts();
    let words = "warning: cannot send 'tank/a@s': Input/output error";
    source.fail_send(&Failing { after_bytes: 1 << 20, status: "1", words });
    let server = Server::serve(&target, &[]);
    let client = copy(&source, &server.url("a")).ended();
    let told = format!("zferry: source: zfs send of tank/a: {words}");
    let client = client.failed_with(2, &[&told, "zpool status -v tank"]);
    assert_eq!(client.stderr.matches("zferry: ").count(), 1, "{}", client.stderr);
    wait_for_words(&server.running, words);
    assert!(server.running.said().contains("source: zfs send of tank/a"));
    assert_partly_received(&target);
    assert_eq!(source.holds("tank/a@s").len(), 1);
}

#[test]
fn a_zfs_send_that_is_killed_is_told_and_its_stream_is_no_whole_one() {
    let (source, target) = hosts();
    source.fail_send(&Failing { after_bytes: 1 << 20, status: "KILL", words: "" });
    let server = Server::serve(&target, &[]);
    let told = ["zferry: source: zfs send of tank/a: killed by signal 9 (SIGKILL)"];
    copy(&source, &server.url("a")).ended().failed_with(2, &told);
    wait_for_words(&server.running, "killed by signal 9");
    assert_partly_received(&target);
}

#[test]
fn a_source_that_dies_without_blame_is_no_end_of_its_stream() {
    // SIGPIPE says that somebody else is to blame. The pieces are still on their way when it dies.
    let folder = tempfile::tempdir().unwrap();
    let done = folder.path().join("done");
    let slow = format!("(sleep 1; cat) | ({})", until_the_end(&done));
    let receiver = Server::receive(&["--cache", "4MiB", "--", "sh", "-c", &slow]);
    let make = ["--", "sh", "-c", "head -c 30000000 /dev/zero; kill -s PIPE $$"];
    let flags = ["--cache", "32MiB", "--block-size", "64KiB"];
    let sender = send_open(receiver.address, &[flags.as_slice(), &make].concat()).ended();
    sender.failed_with(2, &["zferry: source: sh failed: killed by signal 13 (SIGPIPE)"]);
    receiver.running.ended().failed_with(2, &["source: sh failed"]);
    assert!(!done.exists(), "the command saw a clean end");
}

#[test]
fn a_command_that_fails_at_the_source_fails_the_transfer() {
    let folder = tempfile::tempdir().unwrap();
    let done = folder.path().join("done");
    let receiver = Server::receive(&["--", "sh", "-c", &until_the_end(&done)]);
    let make = ["--", "sh", "-c", "echo half; echo the disk is on fire >&2; exit 7"];
    let sender = send_open(receiver.address, &make).ended();
    sender.failed_with(2, &["zferry: source: sh failed: the disk is on fire"]);
    receiver.running.ended().failed_with(2, &["zferry: source: sh failed: the disk is on fire"]);
    assert!(!done.exists(), "the command saw a clean end");
}

#[test]
fn a_command_that_does_not_exist_is_told_on_both_sides() {
    let receiver = Server::receive(&["--", "/no/such/command"]);
    let told = ["zferry: target: start /no/such/command: No such file or directory"];
    send(receiver.address, &[], b"x".to_vec()).ended().failed_with(2, &told);
    receiver.running.ended().failed_with(2, &told);
    let receiver = Server::receive(&[]);
    let told = ["zferry: source: start /no/such/command: No such file or directory"];
    send_open(receiver.address, &["--", "/no/such/command"]).ended().failed_with(2, &told);
    receiver.running.ended().failed_with(2, &told);
}

#[test]
fn a_zfs_receive_that_fails_is_told_on_both_sides_in_its_words() {
    let (source, target) = hosts();
    let words = "cannot receive new filesystem stream: out of space";
    target.fail_receive(&Failing { after_bytes: 1 << 20, status: "1", words });
    let server = Server::serve(&target, &[]);
    let told = format!("zferry: target: zfs receive into backup/a: {words}");
    let client = copy(&source, &server.url("a")).ended();
    let client = client.failed_with(2, &[&told, "make room in backup"]);
    assert_eq!(client.stderr.matches("zferry: ").count(), 1, "{}", client.stderr);
    wait_for_words(&server.running, words);
    assert!(running_zfs(&source).is_empty());
    assert_partly_received(&target);
}

#[test]
fn a_zfs_receive_that_is_killed_is_told() {
    let (source, target) = hosts();
    target.fail_receive(&Failing { after_bytes: 1 << 20, status: "KILL", words: "" });
    let server = Server::serve(&target, &[]);
    let told = ["zferry: target: zfs receive into backup/a: killed by signal 9 (SIGKILL)"];
    copy(&source, &server.url("a")).ended().failed_with(2, &told);
    wait_for_words(&server.running, "killed by signal 9");
    assert_partly_received(&target);
}

#[test]
fn a_zfs_receive_that_refuses_at_once_is_told_although_little_was_sent() {
    let (source, target) = hosts();
    source.dataset("tank/tiny", "filesystem");
    source.snapshot("tank/tiny", "s", b"tiny");
    let words = "cannot receive new filesystem stream: permission denied";
    target.fail_receive(&Failing { after_bytes: 0, status: "1", words });
    let server = Server::serve(&target, &[]);
    let told = format!("zferry: target: zfs receive into backup/a: {words}");
    let client = replicate(&source, "tank/tiny", &server.url("a"), &["--no-snapshot"]);
    client.ended().failed_with(2, &[&told, "zfs allow"]);
    assert!(!target.exists("backup/a"));
}

#[test]
fn of_a_stream_that_fails_at_both_ends_the_cause_is_told() {
    let (source, target) = hosts();
    let cause = "warning: cannot send 'tank/a@s': Input/output error";
    source.fail_send(&Failing { after_bytes: 1 << 20, status: "1", words: cause });
    target.slow_receive(256 << 10, Duration::from_millis(50));
    let server = Server::serve(&target, &[]);
    let client = copy(&source, &server.url("a")).ended().failed_with(2, &[cause]);
    assert!(!client.stderr.contains("incomplete stream"), "{}", client.stderr);
}

#[test]
fn a_stdout_that_nobody_reads_is_told_on_both_sides() {
    for backend in ["uring", "threads"] {
        let (reader, writer) = std::io::pipe().unwrap();
        let words = ["receive", "--listen", "127.0.0.1:0", "--plain", "--io", backend];
        let mut command = zferry(&words);
        let receiver = Server::start(command.stdout(writer));
        drop((command, reader));
        let told = ["zferry: target: whatever takes the stream stopped reading before its end"];
        send(receiver.address, &[], content(1)).ended().failed_with(2, &told);
        receiver.running.ended().failed_with(2, &told);
    }
}

#[test]
fn a_reader_that_stands_still_does_not_keep_a_receiver_from_stopping() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = zferry(&["receive", "--listen", "127.0.0.1:0", "--plain"]);
    let receiver = Server::start(command.stdout(writer));
    drop(command);
    let sender = send(receiver.address, &[], content(1));
    // The pipe is full, and our end of it is never read.
    wait_for("the pipe to fill", || {
        let mut fds = [nix::poll::PollFd::new(reader.as_fd(), nix::poll::PollFlags::POLLIN)];
        (nix::poll::poll(&mut fds, 0u8) == Ok(1)).then_some(())
    });
    thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    receiver.running.signal(Signal::SIGINT);
    receiver.running.ended().failed_with(2, &["zferry: target: the server is stopping"]);
    sender.ended().failed_with(2, &["target: the server is stopping"]);
    assert!(started.elapsed() < SOON, "it took {:?}", started.elapsed());
    drop(reader);
}

// ------------------------------------------------------------------------------------- io_uring

#[test]
fn where_io_uring_is_forbidden_threads_do_it_and_say_so_once() {
    let receive = ["receive", "--listen", "127.0.0.1:0", "--plain"];
    let receiver = Server::of(sandbox::start_without_io_uring(&receive));
    let address = receiver.address.to_string();
    let mut sender = sandbox::start_without_io_uring(&["send", &address, "--plain"]);
    sender.feed(content(1));
    let sent = sender.ended().succeeded();
    let received = receiver.running.ended().succeeded();
    assert!(received.stdout == content(1));
    for ended in [&sent, &received] {
        let told = ended.stderr.matches("io_uring cannot be used").count();
        assert_eq!(told, 1, "{}", ended.stderr);
        assert!(ended.stderr.contains("plain system calls"), "{}", ended.stderr);
    }
}

#[test]
fn where_io_uring_is_forbidden_it_cannot_be_forced() {
    for (side, words) in [
        ("target", ["receive", "--listen", "127.0.0.1:0", "--plain", "--io", "uring"]),
        ("source", ["send", "127.0.0.1:1", "--plain", "--io", "uring", "--quiet"]),
    ] {
        let told = format!("zferry: {side}: io_uring cannot be used");
        sandbox::start_without_io_uring(&words)
            .ended()
            .failed_with(2, &[&told, "seccomp", "--io threads"]);
    }
}

// -------------------------------------------------------------------------------------- signals

#[test]
fn ctrl_c_stops_a_copy_and_keeps_what_came() {
    let (source, target, server, client) = under_way();
    client.signal(Signal::SIGINT);
    let ended = client.ended();
    ended.failed_with(2, &["zferry: source: stopped by a signal before the stream was complete"]);
    assert!(running_zfs(&source).is_empty(), "zfs send outlived its client");
    wait_for_words(&server.running, "stopped by a signal");
    assert_partly_received(&target);
    assert_eq!(source.holds("tank/a@s").len(), 1);
    server.still_serves();
}

#[test]
fn ctrl_c_stops_a_copy_within_one_host() {
    let (host, _) = hosts();
    host.slow_send(128 << 10, Duration::from_millis(200));
    let client = copy(&host, "backup/a");
    wait_until_some_came(&host);
    client.signal(Signal::SIGINT);
    client.ended().failed_with(2, &["zferry: source: stopped by a signal"]);
    assert!(running_zfs(&host).is_empty(), "zfs outlived its client");
    assert_partly_received(&host);
}

#[test]
fn a_receiver_that_waits_is_stopped_by_one_signal() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let receiver = Server::receive(&[]);
        receiver.running.signal(signal);
        receiver.running.ended().failed_with(2, &["target: stopped before a stream came"]);
    }
}

#[test]
fn a_server_that_stops_finishes_what_runs_and_takes_nothing_new() {
    let (source, target, server, client) = under_way();
    server.running.signal(Signal::SIGTERM);
    let (other, _) = hosts();
    wait_for("the port to close", || {
        let refused = std::net::TcpStream::connect(server.address).is_err();
        refused.then_some(())
    });
    copy(&other, &server.url("b")).ended().failed_with(2, &["no connection to"]);
    client.ended().succeeded();
    server.running.ended().succeeded();
    assert!(target.content("backup/a@s") == content(1));
    assert_eq!(source.holds("tank/a@s"), [""; 0]);
}

#[test]
fn a_client_with_more_to_send_is_told_that_the_server_stops() {
    let (source, target, server, client) = under_way();
    drop(client);
    drop(server);
    let server = Server::serve(&target, &[]);
    source.snapshot("tank/a", "t", &content(2));
    let client = copy(&source, &server.url("two"));
    wait_for("the first bytes", || target.partly_received("backup/two"));
    server.running.signal(Signal::SIGTERM);
    client.ended().failed_with(2, &["zferry: target: the server is stopping"]);
    server.running.ended().succeeded();
    assert_eq!(target.snapshots("backup/two"), ["s"], "the first stream was not finished");
}

#[test]
fn a_second_signal_stops_a_server_at_once() {
    let (_source, target, server, client) = under_way();
    // Its pipe is full of what it takes for ever to read.
    server.running.signal(Signal::SIGTERM);
    wait_for("the port to close", || {
        std::net::TcpStream::connect(server.address).is_err().then_some(())
    });
    let started = Instant::now();
    server.running.signal(Signal::SIGTERM);
    client.ended().failed_with(2, &["zferry: target: the server is stopping"]);
    server.running.ended();
    assert!(started.elapsed() < SOON, "it took {:?}", started.elapsed());
    assert_partly_received(&target);
}

#[test]
fn a_second_signal_does_not_wait_for_a_zfs_receive_that_stands_still() {
    let (source, target) = hosts();
    target.slow_receive(64 << 10, Duration::from_secs(5));
    let server = Server::serve(&target, &["--cache", "8MiB"]);
    let client = copy(&source, &server.url("a"));
    wait_until_some_came(&target);
    server.running.signal(Signal::SIGTERM);
    server.running.signal(Signal::SIGTERM);
    let started = Instant::now();
    client.ended().failed_with(2, &["zferry: "]);
    server.running.ended();
    assert!(started.elapsed() < SOON, "it took {:?}", started.elapsed());
}
