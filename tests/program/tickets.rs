//! A stream under TLS between two who know each other by a ticket alone.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use zferry_chaos::{Crowd, Ending, Fault, Proxy, Rule, Who};

use crate::support::host::{Running, Server, send, wait_for, wait_for_words, zferry};

const SMALL: [&str; 2] = ["--cache", "8MiB"];

/// A receiver that has given out a ticket.
struct Receiver {
    server: Server,
    folder: TempDir,
}

impl Receiver {
    fn start(flags: &[&str]) -> Receiver {
        let folder = tempfile::tempdir().unwrap();
        let ticket = folder.path().join("ticket");
        let words = ["receive", "--listen", "127.0.0.1:0", "--ticket-out"];
        let mut command = zferry(&words);
        let server = Server::start(command.arg(&ticket).args(SMALL).args(flags));
        wait_for("the ticket", || fs::read_to_string(&ticket).ok().filter(|line| !line.is_empty()));
        Receiver { server, folder }
    }

    fn ticket(&self) -> PathBuf {
        self.folder.path().join("ticket")
    }

    /// The same ticket with another word in it, as another file.
    fn forged(&self, from: &str, to: &str) -> PathBuf {
        let line = fs::read_to_string(self.ticket()).unwrap();
        assert!(line.contains(from), "{line}");
        let forged = self.folder.path().join("forged");
        fs::write(&forged, line.replace(from, to)).unwrap();
        fs::set_permissions(&forged, PermissionsExt::from_mode(0o600)).unwrap();
        forged
    }

    fn send(&self, input: Vec<u8>, flags: &[&str]) -> Running {
        send_with(&self.ticket(), input, flags)
    }

    #[track_caller]
    fn got(self) -> Vec<u8> {
        self.server.running.ended().succeeded().stdout
    }
}

fn send_with(ticket: &PathBuf, input: Vec<u8>, flags: &[&str]) -> Running {
    let mut command = zferry(&["send", "--ticket"]);
    command.arg(ticket).args(SMALL).args(flags).stdin(Stdio::piped());
    let mut sender = Running::start(&mut command);
    sender.feed(input);
    sender
}

fn content(bytes: usize) -> Vec<u8> {
    let words = (0..bytes.div_ceil(8) as u64).map(|word| word.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    words.flat_map(u64::to_le_bytes).take(bytes).collect()
}

/// Passes connections on, and remembers all that goes over them.
fn listening_in(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, heard) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<u8>>>::default());
    let ears = Arc::clone(&heard);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(to).unwrap();
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let ears = Arc::clone(&ears);
                thread::spawn(move || {
                    let mut bytes = vec![0; 64 << 10];
                    while let Ok(count @ 1..) = from.read(&mut bytes) {
                        ears.lock().unwrap().extend_from_slice(&bytes[..count]);
                        if to.write_all(&bytes[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        }
    });
    (address, heard)
}

#[test]
fn streams_of_every_length_arrive_over_every_backend_and_number_of_connections() {
    for (receive, sent, connections) in
        [("uring", "threads", "1"), ("threads", "uring", "3"), ("uring", "uring", "4")]
    {
        for length in [0, 1, 312, 64 << 10, (5 << 20) + 7] {
            let input = content(length);
            let receiver = Receiver::start(&["--io", receive]);
            let flags = ["--io", sent, "--connections", connections, "--block-size", "64KiB"];
            receiver.send(input.clone(), &flags).ended().succeeded();
            assert!(receiver.got() == input, "{length} bytes, {sent} to {receive}");
        }
    }
}

#[test]
fn packed_blocks_and_those_without_a_checksum_arrive_too() {
    let input = b"a line of text that is not the last\n".repeat(100_000);
    for flags in [["--compress", "zstd:1"], ["--compress", "auto"], ["--checksum", "none"]] {
        let receiver = Receiver::start(&[]);
        receiver.send(input.clone(), &flags).ended().succeeded();
        assert!(receiver.got() == input, "{flags:?}");
    }
}

#[test]
fn whoever_listens_on_the_way_reads_nothing() {
    let secret = b"nobody on the way may read this";
    let input = secret.repeat(50_000);
    let receiver = Receiver::start(&[]);
    let (between, heard) = listening_in(receiver.server.address);
    let ticket = receiver.ticket();
    let to = between.to_string();
    let flags = [to.as_str(), "--connections", "2"];
    send_with(&ticket, input.clone(), &flags).ended().succeeded();
    assert!(receiver.got() == input);
    let heard = heard.lock().unwrap();
    assert!(heard.len() > input.len());
    for words in [&secret[..10], b"software", b"\x89zferry"] {
        assert!(!heard.windows(words.len()).any(|some| some == words), "{words:?}");
    }
}

#[test]
fn a_ticket_is_good_for_one_sender() {
    let receiver = Receiver::start(&[]);
    let mut first = zferry(&["send", "--ticket"]);
    first.arg(receiver.ticket()).stdin(Stdio::piped());
    let mut first = Running::start(&mut first);
    let mut stdin = first.stdin();
    stdin.write_all(&content(3 << 20)).unwrap();
    wait_for("the stream", || (receiver.server.running.stdout().len() > 1 << 20).then_some(()));
    let second = receiver.send(content(100), &[]).ended();
    second.failed_with(2, &["the ticket was used already", "make a new one"]);
    drop(stdin);
    first.ended().succeeded();
    assert!(receiver.got() == content(3 << 20));
}

#[test]
fn a_receiver_with_another_key_gets_nothing() {
    let (receiver, other) = (Receiver::start(&[]), Receiver::start(&[]));
    let (here, there) = (receiver.server.address.to_string(), other.server.address.to_string());
    let sender = send_with(&receiver.forged(&here, &there), content(100), &[]).ended();
    sender.failed_with(
        2,
        &["shows the key SHA256:", "somebody may sit in between", "bring the newest"],
    );
    wait_for_words(&other.server.running, "refused a connection");
    assert!(other.server.running.stdout().is_empty());
}

#[test]
fn whoever_guesses_a_ticket_is_not_let_in() {
    let receiver = Receiver::start(&[]);
    let line = fs::read_to_string(receiver.ticket()).unwrap();
    let secret = line.split('"').nth_back(1).unwrap();
    let forged = receiver.forged(secret, &"0".repeat(32));
    send_with(&forged, content(100), &[]).ended().failed_with(2, &["is another's"]);
    // It was not used up by that.
    receiver.send(content(100), &[]).ended().succeeded();
    assert!(receiver.got() == content(100));
}

#[test]
fn a_ticket_that_others_can_read_is_not_used() {
    let receiver = Receiver::start(&[]);
    let mode = fs::metadata(receiver.ticket()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    fs::set_permissions(receiver.ticket(), PermissionsExt::from_mode(0o644)).unwrap();
    let refused = receiver.send(content(100), &[]).ended();
    refused.failed_with(3, &["can be read by others", "chmod 600"]);
}

#[test]
fn both_sides_must_agree_on_plain() {
    let receiver = Receiver::start(&[]);
    let sender = send(receiver.server.address, &["--connect-timeout", "2"], content(100)).ended();
    assert_ne!(sender.code(), 0);
    let plain = Server::receive(&SMALL);
    let here = receiver.server.address.to_string();
    let forged = receiver.forged(&here, &plain.address.to_string());
    let sender = send_with(&forged, content(100), &[]).ended();
    sender.failed_with(2, &["without --plain"]);
    wait_for_words(&plain.running, "speaks TLS");
    receiver.send(content(100), &[]).ended().succeeded();
    assert!(receiver.got() == content(100));
}

#[test]
fn without_a_ticket_or_plain_nothing_begins() {
    let receive = Running::start(&mut zferry(&["receive", "--listen", "127.0.0.1:0"])).ended();
    receive.failed_with(3, &["who may send is not said", "--ticket-out"]);
    let send = Running::start(&mut zferry(&["send", "127.0.0.1:1"])).ended();
    send.failed_with(3, &["how to know the receiver is not said", "--ticket FILE"]);
    let words = ["receive", "--listen", "127.0.0.1:0", "--ticket-out", "x", "--lane", "splice"];
    Running::start(&mut zferry(&words)).ended().failed_with(3, &["cannot be encrypted"]);
}

#[test]
fn connections_that_are_cut_again_and_again_cost_no_byte() {
    let receiver = Receiver::start(&[]);
    let ends = [Ending::Fin, Ending::Rst];
    // The first is the control connection; those that follow take its place, or a lane's.
    let rules = (2..40_u32).map(|number| {
        let at = 1200 + u64::from(number) * 7919 % 150_000;
        let ending = ends[number as usize % 2];
        Rule::new(Who::Any, at, Fault::Cut(ending)).only(number).to_string()
    });
    let plan = rules.collect::<Vec<_>>().join("\n").parse().unwrap();
    let proxy = Proxy::start(receiver.server.address, &plan).unwrap();
    let input = content(12 << 20);
    let to = proxy.address().to_string();
    let flags = [to.as_str(), "--connections", "3", "--block-size", "16KiB"];
    send_with(&receiver.ticket(), input.clone(), &flags).ended().succeeded();
    assert!(receiver.got() == input);
    assert!(proxy.counters().done("cut") > 20, "{:?}", proxy.counters());
}

/// What others say of the receiver's port: an openssl, and whoever speaks no TLS.
#[test]
fn strangers_are_turned_away_from_outside() {
    let receiver = Receiver::start(&[]);
    let address = receiver.server.address.to_string();
    for (version, alert) in [("-tls1_2", "alert protocol version"), ("-tls1_3", "alert")] {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-connect", &address, version]).stdin(Stdio::null());
        let ended = client.output().expect("openssl is installed");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success() && said.contains(alert), "{version}: {said}");
    }
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &[0x16, 3, 1, 0xff, 0xff, 1], &[0; 4096]] {
        let mut stream = TcpStream::connect(receiver.server.address).unwrap();
        stream.write_all(bytes).unwrap();
        let _ = stream.shutdown(Shutdown::Write);
        let mut said = Vec::new();
        let _reset_is_an_answer_too = stream.read_to_end(&mut said);
        // An alert at most: which version or name this is, nobody learns.
        assert!(said.len() <= 7, "{said:?}");
    }
    receiver.send(content(100), &[]).ended().succeeded();
    assert!(receiver.got() == content(100));
}

/// What the kernel counts of a process.
fn memory_and_descriptors(pid: u32) -> (u64, usize) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    (kib << 10, fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count())
}

/// As many as 10,000 a minute, of every kind.
#[test]
fn a_crowd_at_the_door_costs_little_memory_and_does_not_keep_the_ticket_out() {
    let receiver = Receiver::start(&["--io", "threads"]);
    let (to, pid) = (receiver.server.address, receiver.server.running.pid());
    let (memory, descriptors) = memory_and_descriptors(pid);
    let crowd = Crowd { to, each_minute: 10_000, all: 1000, seed: 1 };
    let crowd = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(crowd.come(std::future::pending()))
    });
    let (began, mut most) = (Instant::now(), (0, 0));
    while began.elapsed() < Duration::from_secs(4) {
        let (memory, descriptors) = memory_and_descriptors(pid);
        most = (most.0.max(memory), most.1.max(descriptors));
        thread::sleep(Duration::from_millis(50));
    }
    assert!(most.0 < memory + (8 << 20), "{memory} bytes became {}", most.0);
    // At most 64 stand at the door, and each has one.
    let more = most.1 - descriptors;
    assert!((8..=66).contains(&more), "{descriptors} descriptors became {}", most.1);
    let sent = content(1 << 20);
    receiver.send(sent.clone(), &[]).ended().succeeded();
    assert!(!crowd.is_finished(), "they come all the time");
    assert!(receiver.got() == sent);
    let welcome = crowd.join().unwrap();
    assert_eq!((welcome.came, welcome.left), (1000, 0), "{welcome}");
    assert!(welcome.answered > 10, "{welcome}");
}
