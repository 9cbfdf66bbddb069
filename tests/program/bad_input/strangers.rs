//! Whatever else can sit at the other end of a connection, on both sides.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use zferry::protocol::message::Message;
use zferry::protocol::preamble::Role;
use zferry::protocol::secret::{JoinSecret, Proof};

use super::{content, hosts, stream_of};
use crate::support::host::{Server, send, wait_for_words};
use crate::support::peer::{
    self, BLOCK_BYTES, Peer, dial, dial_from, frame, full_stream, header, hear_out, stranger,
};
use crate::support::stand_in::StandIn;

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
    let noise = content(0x9E37_79B9_7F4A_7C15)[..9000].to_vec();
    let control = peer::control_preamble();
    let four_gib = [control.as_slice(), &[0xff; 4], b"{}"].concat();
    let not_json = [control.as_slice(), &5u32.to_le_bytes(), b"hello"].concat();
    let hello_late = [control.as_slice(), &peer::message(&Message::Ping { heard: 0 })].concat();
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

/// From five addresses; loopback has as many as there are. Each other claims to come back to a
/// session, and says nothing more.
#[test]
fn strangers_that_say_nothing_do_not_keep_real_clients_out() {
    let target = StandIn::new();
    let server = Server::serve(&target, &[]);
    let returns = peer::preamble(Role::Return { proof: Proof::NONE });
    let words = [b"\x89zfe".as_slice(), &returns];
    let strangers = |number: u16| {
        let source = [127, 0, 0, 2 + (number % 5).to_le_bytes()[0]];
        dial_from(source, server.address, words[usize::from(number % 2)])
    };
    // Where the machine is very busy a copy alone may take as long, and is tried again.
    let served_beside_them = (0..8).find_map(|_| {
        let idle: Vec<_> = (0..300).map(strangers).collect();
        let began = Instant::now();
        server.still_serves();
        (began.elapsed() < Duration::from_secs(4)).then_some(idle)
    });
    let idle = served_beside_them.expect("nobody is let in until they are sent away");
    // All were accepted before that client was: the last four of each are heard out.
    let heard_out = idle.iter().filter(|stream| is_open(stream)).count();
    assert!((1..=20).contains(&heard_out), "{heard_out} stand at the door at once");
    for stream in idle {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        assert!(hear_out(stream).is_empty());
    }
    wait_for_words(&server.running, "did not say what it is in time");
    wait_for_words(&server.running, "turned away: too many connections");
}

/// Whether the other end neither closes a connection nor says anything for a moment.
fn is_open(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    loop {
        match stream.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            heard => return heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock),
        }
    }
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
