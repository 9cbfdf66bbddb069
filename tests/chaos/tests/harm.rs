//! The proxy between a client and an echo: each fault does what it says, and nothing else.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use zferry_chaos::{Ending, Proxy, Who};

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

/// Says back what it hears; its peer's address instead where `tells_peer`.
fn echo(tells_peer: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                if tells_peer {
                    let peer = stream.peer_addr().unwrap().ip().to_string();
                    stream.write_all(peer.as_bytes()).unwrap();
                    stream.shutdown(Shutdown::Write).unwrap();
                    // To close a socket with something unread would take our own words back.
                    let _ = io::copy(&mut stream, &mut io::sink());
                    return;
                }
                let mut back = stream.try_clone().unwrap();
                // The end, of whatever kind, is told to the other side by the drop.
                let _ = io::copy(&mut stream, &mut back);
            });
        }
    });
    address
}

fn proxy(plan: &str) -> Proxy {
    Proxy::start(echo(false), &plan.parse().unwrap()).unwrap()
}

fn dial(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends `bytes`, and reads what comes back until the end.
fn exchange(proxy: &Proxy, bytes: &[u8]) -> (Vec<u8>, io::Result<()>) {
    let mut stream = dial(proxy);
    let mut back = stream.try_clone().unwrap();
    let bytes = bytes.to_vec();
    let writing = thread::spawn(move || {
        // A connection that is cut takes no more.
        let _ = back.write_all(&bytes);
        let _ = back.shutdown(Shutdown::Write);
    });
    let mut got = Vec::new();
    let ended = stream.read_to_end(&mut got).map(|_| ());
    writing.join().unwrap();
    (got, ended)
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|place| u8::try_from(place * 7 % 251).unwrap()).collect()
}

fn preamble(role: u8, lane: u8) -> Vec<u8> {
    let mut bytes = b"\x89zferry\n".to_vec();
    bytes.resize(32, 0);
    (bytes[12], bytes[14]) = (role, lane);
    bytes
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < LIMIT, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn without_a_plan_everything_passes_and_is_counted() {
    let proxy = proxy("");
    let sent = bytes(1_000_000);
    let (got, ended) = exchange(&proxy, &sent);
    ended.unwrap();
    assert!(got == sent);
    let passed = proxy.counters().strangers;
    assert_eq!((passed.connections, passed.up_bytes, passed.down_bytes), (1, 1_000_000, 1_000_000));
    assert!(proxy.counters().faults.is_empty());
}

#[test]
fn a_cut_by_fin_comes_after_exactly_its_byte_in_either_direction() {
    for way in ["up", "down"] {
        for at in [0, 1, 100, 65_536, 65_537] {
            let proxy = proxy(&format!("any {way} {at} cut fin"));
            let sent = bytes(100_000);
            let (got, ended) = exchange(&proxy, &sent);
            // What it had no more use for may have been thrown back.
            assert!(ended.is_ok() || got.len() < sent.len());
            let passed = proxy.counters().strangers;
            let counted = if way == "up" { passed.up_bytes } else { passed.down_bytes };
            assert_eq!(counted, at, "{way}");
            assert!(got == sent[..got.len()] && got.len() as u64 <= at, "{way} {at}");
            if way == "down" {
                assert_eq!(got.len() as u64, at);
            }
        }
    }
}

#[test]
fn a_cut_by_rst_is_an_error_at_the_client() {
    let proxy = proxy("any down 10 cut rst");
    let (got, ended) = exchange(&proxy, &bytes(50));
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(got.len() <= 10);
    assert_eq!(proxy.counters().done("cut"), 1);
}

#[test]
fn connections_are_known_by_their_preambles_and_only_those_of_the_rule_are_harmed() {
    let proxy = proxy("lane:1 up 40 cut rst\ncontrol#2 up 33 cut rst");
    let whole = |role, lane| {
        let (got, ended) = exchange(&proxy, &[preamble(role, lane), bytes(50)].concat());
        ended.is_ok() && got.len() == 82
    };
    assert_eq!(
        [whole(1, 0), whole(2, 0), whole(2, 1), whole(3, 0), whole(1, 0), whole(2, 1)],
        [true, true, false, false, true, false]
    );
    let counters = proxy.counters();
    assert_eq!((counters.control.connections, counters.lanes.connections), (3, 3));
    assert_eq!((counters.connections(), counters.done("cut")), (6, 3));
}

#[test]
fn a_cut_within_the_preamble_lets_only_its_beginning_pass() {
    for at in [0, 5, 12, 31] {
        let proxy = proxy(&format!("control up {at} cut fin"));
        let (got, _) = exchange(&proxy, &preamble(1, 0));
        assert!(got.len() <= at);
        assert_eq!(proxy.counters().control.up_bytes, at as u64);
    }
}

#[test]
fn one_bit_of_one_byte_is_turned_over() {
    let proxy = proxy("any up 17 flip 3");
    let sent = bytes(5000);
    let (got, ended) = exchange(&proxy, &sent);
    ended.unwrap();
    let mut expected = sent;
    expected[17] ^= 8;
    assert!(got == expected);
}

#[test]
fn bytes_that_are_repeated_come_twice_in_a_row() {
    let proxy = proxy("any up 100 repeat 40");
    let sent = bytes(300);
    let (got, ended) = exchange(&proxy, &sent);
    ended.unwrap();
    assert!(got == [&sent[..100], &sent[60..]].concat());
    assert_eq!(proxy.counters().strangers.up_bytes, 340);
}

#[test]
fn a_hole_lets_nothing_pass_for_its_time_and_then_everything() {
    let proxy = proxy("any#1 up 10 hole 300ms\nany#2 down 10 hole-both 300ms");
    for _ in 0..2 {
        let started = Instant::now();
        let (got, ended) = exchange(&proxy, &bytes(500_000));
        ended.unwrap();
        assert!(got == bytes(500_000));
        assert!(started.elapsed() >= Duration::from_millis(300));
    }
}

#[test]
fn a_silent_way_does_not_tell_of_an_end() {
    let proxy = proxy("any up 3 hole 400ms");
    let mut stream = dial(&proxy);
    stream.write_all(b"abc").unwrap();
    let mut got = [0; 3];
    stream.read_exact(&mut got).unwrap();
    let started = Instant::now();
    stream.shutdown(Shutdown::Write).unwrap();
    // The echo ends when it hears of the end.
    assert_eq!(stream.read(&mut got).unwrap(), 0);
    assert!(started.elapsed() >= Duration::from_millis(350));
}

#[test]
fn a_silence_of_all_holds_connections_that_come_meanwhile() {
    let proxy = proxy("any#1 up 1 hole-all 300ms");
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| exchange(&proxy, &bytes(10)).1.unwrap());
            thread::sleep(Duration::from_millis(20));
        }
    });
    assert!(started.elapsed() >= Duration::from_millis(300));
    proxy.silence(Duration::from_millis(200));
    thread::sleep(Duration::from_millis(20));
    let started = Instant::now();
    exchange(&proxy, &bytes(10)).1.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(150));
}

#[test]
fn all_connections_are_cut_at_once_by_the_byte_of_one_or_by_order() {
    let proxy = proxy("any#3 up 1 cut-all rst");
    let mut others = [dial(&proxy), dial(&proxy)];
    for other in &mut others {
        other.write_all(b"x").unwrap();
        other.read_exact(&mut [0]).unwrap();
    }
    exchange(&proxy, b"yy").1.unwrap_err();
    for mut other in others {
        other.read(&mut [0]).unwrap_err();
    }
    let mut one = dial(&proxy);
    one.write_all(b"x").unwrap();
    one.read_exact(&mut [0]).unwrap();
    proxy.cut(Who::Lanes, Ending::Fin);
    one.write_all(b"x").unwrap();
    one.read_exact(&mut [0]).unwrap();
    proxy.cut(Who::Any, Ending::Fin);
    assert_eq!(one.read(&mut [0]).unwrap(), 0);
}

#[test]
fn new_connections_are_refused_for_a_time_and_taken_again() {
    let proxy = proxy("any#1 up 2 refuse 300ms");
    let started = Instant::now();
    exchange(&proxy, b"abc").1.unwrap();
    let refused = TcpStream::connect(proxy.address()).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    wait_until("the port to open", || TcpStream::connect(proxy.address()).is_ok());
    assert!(started.elapsed() >= Duration::from_millis(300));
    proxy.refuse(Duration::from_millis(100));
    wait_until("the port to close", || TcpStream::connect(proxy.address()).is_err());
    wait_until("the port to open", || TcpStream::connect(proxy.address()).is_ok());
}

#[test]
fn a_rate_a_latency_and_short_segments_slow_down_and_harm_nothing() {
    for (plan, least) in [
        ("any up 0 rate 100000", Duration::from_millis(150)),
        ("any up 0 latency 50ms", Duration::from_millis(50)),
        ("any both 0 segments 1", Duration::ZERO),
    ] {
        let proxy = proxy(plan);
        let started = Instant::now();
        let (got, ended) = exchange(&proxy, &bytes(20_000));
        ended.unwrap();
        assert!(got == bytes(20_000), "{plan}");
        assert!(started.elapsed() >= least, "{plan}: {:?}", started.elapsed());
    }
}

#[test]
fn connections_go_where_and_come_from_where_they_are_told() {
    let proxy = Proxy::start(echo(true), &"".parse().unwrap()).unwrap();
    let peer = || String::from_utf8(exchange(&proxy, b"x").0).unwrap();
    assert_eq!(peer(), "127.0.0.1");
    proxy.come_from("127.0.0.2".parse().unwrap());
    wait_until("the other address", || peer() == "127.0.0.2");
    proxy.forward_to(echo(false));
    wait_until("the other server", || peer() == "x");
}

#[test]
fn a_proxy_that_is_dropped_takes_its_connections_along() {
    let proxy = proxy("any up 0 hole");
    let mut stream = dial(&proxy);
    stream.write_all(b"x").unwrap();
    wait_until("the connection", || proxy.counters().connections() == 1);
    drop(proxy);
    assert!(!matches!(stream.read(&mut [0]), Ok(1..)));
}
