//! A line that is long: what it costs is time for each byte, and throughput only by its window.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use zferry_chaos::Proxy;

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

const DELAY: Duration = Duration::from_millis(100);

/// Says how many bytes of each connection came, when it has ended.
fn counting() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let (mut came, mut piece) = (0_u64, vec![0; 256 << 10]);
                while let Ok(count @ 1..) = stream.read(&mut piece) {
                    came += count as u64;
                }
                // A connection that was cut hears nothing.
                let _ = stream.write_all(&came.to_le_bytes());
            });
        }
    });
    address
}

fn proxy(plan: &str) -> Proxy {
    Proxy::start(counting(), &plan.parse().unwrap()).unwrap()
}

/// How long so many bytes over one connection take, and the word that they have come.
fn time(proxy: &Proxy, bytes: usize) -> Duration {
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let started = Instant::now();
    stream.write_all(&vec![7; bytes]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut came = [0; 8];
    stream.read_exact(&mut came).unwrap();
    assert_eq!(u64::from_le_bytes(came), bytes as u64);
    started.elapsed()
}

#[test]
fn each_way_delays_what_it_carries_and_its_end() {
    for (plan, least) in [
        ("any up 0 delay 100ms", DELAY),
        ("any down 0 delay 100ms", DELAY),
        ("any both 0 delay 100ms", 2 * DELAY),
    ] {
        assert!(time(&proxy(plan), 10) >= least, "{plan}");
    }
}

#[test]
fn a_long_line_without_a_window_is_as_wide_as_a_short_one() {
    const BYTES: usize = 16 << 20;
    let short = time(&proxy(""), BYTES);
    let long = time(&proxy("any up 0 delay 100ms"), BYTES);
    // By pieces that wait one behind the other it would be 25 s.
    assert!(long >= DELAY && long < 3 * short + 2 * DELAY, "{long:?}, {short:?}");
}

#[test]
fn a_window_lets_so_many_bytes_pass_in_each_delay_and_no_more_together_than_each() {
    // Ten windows, the last of which waits only for itself.
    let least = 10 * DELAY;
    let proxy = proxy("any up 0 delay 100ms\nany up 0 window 100000");
    let alone = time(&proxy, 1_000_000);
    assert!(alone >= least && alone < 3 * least, "{alone:?}");
    let together: Vec<_> = thread::scope(|scope| {
        let each = [(); 4].map(|()| scope.spawn(|| time(&proxy, 1_000_000)));
        each.into_iter().map(|time| time.join().unwrap()).collect()
    });
    // One after the other they would take four times as long.
    assert!(together.iter().all(|&time| time >= least && time < 3 * least), "{together:?}");
}

#[test]
fn a_line_that_is_shared_is_no_wider_for_many_than_for_one() {
    let proxy = proxy("any up 0 rate-all 1000000");
    let alone = time(&proxy, 500_000);
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| time(&proxy, 250_000));
        }
    });
    for time in [alone, started.elapsed()] {
        assert!(
            time >= Duration::from_millis(450) && time < Duration::from_millis(1500),
            "{time:?}"
        );
    }
}

#[test]
fn what_a_plan_names_on_a_long_line_is_the_same_bytes_as_on_a_short_one() {
    let proxy = proxy("any up 0 delay 20ms\nany up 70000 cut fin\nany up 5 window 30000");
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    // It may be cut while we write.
    let _ = stream.write_all(&vec![7; 200_000]);
    let _ = stream.read(&mut [0; 8]);
    assert_eq!(proxy.counters().strangers.up_bytes, 70_000);
    assert_eq!((proxy.counters().done("delay"), proxy.counters().done("cut")), (1, 1));
}
