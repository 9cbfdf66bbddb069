//! Measures what the parts of a stream's way can do here, and whole transfers; says what follows.
//!
//! Stands beside the data's way: each figure is taken with the calls of the engine, or with the
//! engine itself, for a time that is known beforehand. What must never happen here: a file, a
//! process or a thread that is left behind, or a figure that waits for ever.

pub mod advice;
mod disk;
pub mod measured;
mod packing;
mod parts;
mod rig;
mod sample;
mod transfer;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sys::control::{self, Listener};
use tokio::sync::watch;

use self::advice::{Offer, beaten, next};
use self::measured::{Choice, Far, Measured, Outcome, Part, PartName, Transfer, Workers};
pub use self::rig::Rig;
pub use self::sample::{SAMPLE_BYTES_MAX, Sample};
use crate::client::{Dial, Manner, Stop};
use crate::engine::settings::Settings;
use crate::error::{Class, Failure, Side};
use crate::server::{Destination, Door, Incoming, Lasts, Nowhere, Options, Pipe, Stopping, serve};
use crate::units::Bytes;

/// The most data connections that whoever measures gets.
const CONNECTIONS_MAX: u16 = 64;

/// How long a transfer that is measured waits for a client that went away.
const GRACE: Duration = Duration::from_secs(5);

/// How often the round trip is measured; the shortest counts.
const ROUND_TRIPS: usize = 5;

/// Sizes of blocks that are compared over loopback.
const BLOCK_SIZES: [Bytes; 2] = [Bytes(256 << 10), Bytes(4 << 20)];

/// Congestion controls that are worth a comparison.
const CONGESTION: [&str; 2] = ["bbr", "cubic"];

/// The kernel's least, usual and largest window of a connection that sends.
const TCP_WMEM: &str = "/proc/sys/net/ipv4/tcp_wmem";

/// Somebody who is told what is being measured.
pub trait Onlooker {
    /// Something is being measured from now on.
    fn begin(&mut self, what: &str);
}

/// Measures this machine and, where `far` names one, the way to a `zferry tune --listen`.
pub async fn measure(
    rig: Rig,
    far: Option<Dial>,
    stop: &mut Stop,
    onlooker: &mut dyn Onlooker,
) -> Result<Measured, Failure> {
    let rig = Arc::new(rig);
    let watching = give_up_with(&rig, stop.clone());
    let measured = Box::pin(measure_all(&rig, far, stop, onlooker)).await;
    watching.abort();
    measured
}

/// Serves whoever measures against us, until `stop` says so.
pub async fn answer(
    engine: Settings,
    incoming: Listener,
    nowhere: Nowhere,
    stop: watch::Receiver<Stopping>,
) -> Result<(), Failure> {
    let options = Options {
        engine,
        connections_max: CONNECTIONS_MAX,
        lasts: Lasts::Forever,
        grace: GRACE,
        records: None,
        onlooker: None,
    };
    let destination = Destination::Pipe(Pipe::Nowhere(nowhere));
    let incoming = Incoming::Network { listener: incoming, door: Door::Plain };
    serve(incoming, destination, options, stop).await
}

/// Has every measurement end when the user wants no more.
fn give_up_with(rig: &Rig, mut stop: Stop) -> tokio::task::JoinHandle<()> {
    let given_up = Arc::clone(&rig.given_up);
    control::spawn(async move {
        stop.pulled().await;
        given_up.store(true, Ordering::Relaxed);
    })
}

async fn measure_all(
    rig: &Arc<Rig>,
    far: Option<Dial>,
    stop: &mut Stop,
    onlooker: &mut dyn Onlooker,
) -> Result<Measured, Failure> {
    let mut measured =
        Measured { cores: rig.cores, cache: rig.settings.cache, ..Measured::default() };
    // First, for a host that does not answer should be known at once.
    if let Some(Dial::Network { name, addresses, limit, .. }) = &far {
        let (addresses, limit) = (addresses.clone(), *limit);
        onlooker.begin("the round trip");
        let shortest = blocking(rig, stop, move |_| round_trip(&addresses, limit)).await?;
        let round_trip = shortest.map_err(|error| unreachable(name, &error))?;
        let socket_bytes_max = socket_bytes_max();
        measured.far = Some(Far { host: name.clone(), round_trip, socket_bytes_max });
    }
    by_itself(rig, &mut measured, stop, onlooker).await?;
    match far {
        Some(dial) => {
            let offer = Offer { congestion: congestion_offered(), ..Offer::default() };
            transfers(rig, &dial, &offer, &mut measured, stop, onlooker).await?;
        }
        None => over_loopback(rig, &mut measured, stop, onlooker).await?,
    }
    Ok(measured)
}

/// A part of the way by itself.
type Measure = fn(&Rig) -> io::Result<Bytes>;

const PARTS: [(PartName, &str, Measure); 4] = [
    (PartName::Read, "read", parts::read),
    (PartName::Send, "send", parts::send),
    (PartName::Receive, "receive", parts::receive),
    (PartName::Splice, "splice", parts::splice),
];

/// Each part by itself.
async fn by_itself(
    rig: &Arc<Rig>,
    measured: &mut Measured,
    stop: &mut Stop,
    onlooker: &mut dyn Onlooker,
) -> Result<(), Failure> {
    for (name, words, measure) in PARTS {
        onlooker.begin(words);
        let rate = blocking(rig, stop, measure).await?;
        let bytes_per_second = rate.map_err(|error| failed(&format!("measure {words}"), &error))?;
        measured.parts.push(Part { name, bytes_per_second });
    }
    if let Some(folder) = rig.spool.clone() {
        onlooker.begin("the disk of the spool");
        let shown = folder.display().to_string();
        let rate = blocking(rig, stop, move |rig| disk::spool(rig, &folder)).await?;
        let bytes_per_second = rate.map_err(|error| {
            failed(&format!("write to {shown}"), &error)
                .with_remedy("make --spool name a folder with room that this user may write to")
        })?;
        measured.parts.push(Part { name: PartName::Spool, bytes_per_second });
    }
    for level in packing::LEVELS {
        onlooker.begin(&format!("zstd:{level}"));
        let packed = blocking(rig, stop, move |rig| packing::level(rig, level)).await?;
        measured.levels.push(packed.map_err(|error| failed("measure zstd", &error))?);
    }
    let counts = packing::counts(rig);
    let none_yet = |&workers: &usize| Workers { workers, bytes_per_second: Bytes(0) };
    measured.workers = counts.iter().map(none_yet).collect();
    // Twice, for noise: the faster counts.
    for (known, &workers) in counts.iter().enumerate().chain(counts.iter().enumerate()) {
        onlooker.begin(&format!("{workers} workers"));
        let packed = blocking(rig, stop, move |rig| packing::workers(rig, workers)).await?;
        let packed = packed.map_err(|error| failed("measure zstd", &error))?;
        let rate = &mut measured.workers[known].bytes_per_second;
        *rate = packed.max(*rate);
    }
    Ok(())
}

/// Whole transfers to a server in this process.
async fn over_loopback(
    rig: &Arc<Rig>,
    measured: &mut Measured,
    stop: &mut Stop,
    onlooker: &mut dyn Onlooker,
) -> Result<(), Failure> {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener =
        Listener::bind(any_port).map_err(|error| failed("listen on 127.0.0.1", &error))?;
    let dial = Dial::Network {
        name: "this machine".to_owned(),
        addresses: vec![listener.local_addr()],
        limit: GRACE,
        manner: Manner::Plain,
    };
    let (end, ends) = watch::channel(Stopping::No);
    let server = control::spawn({
        let engine = rig.settings.clone();
        answer(engine, listener, Nowhere::default(), ends)
    });
    let block_bytes = BLOCK_SIZES.to_vec();
    let offer = Offer { one_connection: true, congestion: Vec::new(), block_bytes };
    let carried = transfers(rig, &dial, &offer, measured, stop, onlooker).await;
    end.send_replace(Stopping::Now);
    let _ended = server.await;
    carried
}

/// Transfers, as long as there is one to try that may be faster.
async fn transfers(
    rig: &Arc<Rig>,
    dial: &Dial,
    offer: &Offer,
    measured: &mut Measured,
    stop: &mut Stop,
    onlooker: &mut dyn Onlooker,
) -> Result<(), Failure> {
    while let Some(choice) = next(measured, offer) {
        onlooker.begin(&words(&choice));
        let outcome = match transfer::carry(rig, dial.clone(), &choice, stop).await {
            Ok(outcome) => outcome,
            // The first has no flag that could be to blame.
            Err(failure) if measured.transfers.is_empty() || stop.is_pulled() => {
                return Err(failure);
            }
            Err(failure) => Outcome::Refused { refused: failure.what },
        };
        // Whatever else runs here may have been in the way of the one before: it gets another
        // chance, right beside the one that seems to be faster.
        if let Some(before) = beaten(&measured.transfers, &outcome) {
            onlooker.begin(&format!("{} again", words(&before)));
            let again = transfer::carry(rig, dial.clone(), &before, stop).await?;
            let known = measured.transfers.iter_mut().find(|known| known.choice == before);
            if let Some(known) = known.filter(|known| known.rate() < again.rate()) {
                known.outcome = again;
            }
        }
        measured.transfers.push(Transfer { choice, outcome });
    }
    Ok(())
}

fn words(choice: &Choice) -> String {
    match choice.flags() {
        flags if flags.is_empty() => "a transfer".to_owned(),
        flags => format!("a transfer with {}", flags.join(" ")),
    }
}

/// Measures on a thread that may wait, and says so if nobody wants the figure any more.
async fn blocking<T: Send + 'static>(
    rig: &Arc<Rig>,
    stop: &Stop,
    measure: impl FnOnce(&Rig) -> T + Send + 'static,
) -> Result<T, Failure> {
    let rig = Arc::clone(rig);
    let measuring = tokio::task::spawn_blocking(move || measure(&rig));
    let figure = measuring.await.map_err(|panicked| {
        Failure::new(Side::Source, Class::Internal, format!("a measurement failed: {panicked}"))
    })?;
    if stop.is_pulled() {
        let what = "stopped by a signal before everything was measured";
        return Err(Failure::new(Side::Source, Class::Interrupted, what));
    }
    Ok(figure)
}

/// How long a connection takes to be there: a packet there and one back.
fn round_trip(addresses: &[SocketAddr], limit: Duration) -> io::Result<Duration> {
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        let connect = || {
            let started = Instant::now();
            TcpStream::connect_timeout(address, limit).map(|_| started.elapsed())
        };
        match (0..ROUND_TRIPS).map(|_| connect()).collect::<io::Result<Vec<Duration>>>() {
            Ok(times) => return Ok(times.into_iter().min().unwrap_or_default()),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn unreachable(host: &str, error: &io::Error) -> Failure {
    let what = format!("no connection to {host}: {error}");
    Failure::new(Side::Network, Class::Interrupted, what).with_remedy(
        "start `zferry tune --listen ADDR:PORT --plain` there, and see that no firewall is in \
         between",
    )
}

/// The most that the kernel gives a connection to send from.
fn socket_bytes_max() -> Option<Bytes> {
    let limits = fs::read_to_string(TCP_WMEM).ok()?;
    limits.split_whitespace().nth(2)?.parse().ok().map(Bytes)
}

/// Those that this kernel has and does not use unless it is asked.
fn congestion_offered() -> Vec<String> {
    let usual = sys::probe::Facts::read().congestion.default.unwrap_or_default();
    let available = sys::socket::available_congestion_controls().unwrap_or_default();
    let offered = CONGESTION.iter().filter(|&&name| available.iter().any(|other| other == name));
    offered.filter(|&&name| name != usual).map(|&name| name.to_owned()).collect()
}

fn failed(what: &str, error: &io::Error) -> Failure {
    Failure::new(Side::Source, Class::Machine, format!("{what}: {error}"))
}
