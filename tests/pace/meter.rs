//! A relay that counts what passes it towards the server, and how evenly that comes.
//!
//! It stands where the wire is: what it counts are the bytes that TCP carries, headers of frames
//! and blocks that are sent again included. It reads at once whatever comes and keeps nothing, so
//! that it does not change the pace that it measures.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The relay. Its threads end with the connections, and the last of them with the process.
pub struct Meter {
    pub address: SocketAddr,
    passed: Arc<AtomicU64>,
}

/// The rates in bytes per second of a while: of all of it, and of each of its windows.
#[derive(Debug)]
pub struct Rates {
    pub whole: f64,
    pub windows: Vec<f64>,
}

impl Meter {
    /// Stands before `server`.
    pub fn before(server: SocketAddr) -> Meter {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let passed = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&passed);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(server).unwrap());
                let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let counter = Arc::clone(&counter);
                thread::spawn(move || pass(client, server, &counter));
                thread::spawn(move || pass(back.0, back.1, &AtomicU64::new(0)));
            }
        });
        Meter { address, passed }
    }

    /// How much has passed so far.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Measures so many windows from now on. Each is as long as it really took, for whoever
    /// measures has to wait for a processor too.
    pub fn watch(&self, count: u32, window: Duration) -> Rates {
        let begun = Instant::now();
        let mut seen = vec![(begun, self.passed())];
        for number in 1..=count {
            thread::sleep((window * number).saturating_sub(begun.elapsed()));
            seen.push((Instant::now(), self.passed()));
        }
        let rate = |from: (Instant, u64), to: (Instant, u64)| {
            #[allow(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
            let bytes = (to.1 - from.1) as f64;
            bytes / (to.0 - from.0).as_secs_f64()
        };
        let windows = seen.windows(2).map(|pair| rate(pair[0], pair[1])).collect();
        Rates { whole: rate(seen[0], seen[seen.len() - 1]), windows }
    }
}

impl Rates {
    /// Whether the whole is within `exact` of `rate`, in parts.
    pub fn whole_is_near(&self, rate: f64, exact: f64) -> bool {
        is_near(self.whole, rate, exact)
    }

    /// How many of the windows are within `smooth` of `rate`, in parts.
    pub fn windows_near(&self, rate: f64, smooth: f64) -> usize {
        self.windows.iter().filter(|&&window| is_near(window, rate, smooth)).count()
    }
}

fn is_near(found: f64, rate: f64, part: f64) -> bool {
    (found / rate - 1.0).abs() <= part
}

fn pass(mut from: TcpStream, mut to: TcpStream, counter: &AtomicU64) {
    let mut chunk = vec![0; 1 << 20];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
        if to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    // One that is gone already cannot be told.
    let _ = to.shutdown(Shutdown::Write);
}
