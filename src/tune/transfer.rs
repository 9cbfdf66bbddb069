//! A transfer by the whole program, as `zferry send` makes it, to a server that throws it away.
//!
//! Over the network to a `zferry tune --listen`, or over loopback to one in this process. The
//! server takes it for any other transfer: there is nothing in the protocol for measuring.

use std::num::NonZeroU16;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sys::pipe::Pipe;
use tokio::sync::watch;

use super::failed;
use super::measured::{Choice, Outcome};
use super::rig::{Rig, write_sample};
use crate::client::send::{From, send};
use crate::client::{Connections, Dial, Moment, Options, Stop, Summary, Watch};
use crate::engine::settings::{Compression, Settings, ZeroCopy};
use crate::error::Failure;
use crate::process::PIPE_BYTES;
use crate::server::Stopping;
use crate::units::Bytes;

/// The first part of the time is not counted: connections open their windows in it.
const WARM_UP: u32 = 3;

/// How much longer a transfer may take than its time, and that once more: what is in the cache
/// when the source ends has to get through. One that takes longer is cut, and was measured by then.
const DRAIN: Duration = Duration::from_secs(2);

/// How long the far side may stand still before it is said. Longer than a figure takes.
const STALL: Duration = Duration::from_secs(60);

/// How far the transfer was at the moments that count.
#[derive(Debug)]
struct Pace {
    counts_from: Instant,
    /// The first and the last moment that count.
    first: Option<(Instant, Moment)>,
    last: Option<(Instant, Moment)>,
    /// When the stream was offered, and when the far side had all of it.
    begun: Option<Instant>,
    ended: Option<Instant>,
    /// Less time than this tells nothing.
    least: Duration,
}

/// Makes one transfer and says how fast it was.
pub(super) async fn carry(
    rig: &Arc<Rig>,
    dial: Dial,
    choice: &Choice,
    stop: &mut Stop,
) -> Result<Outcome, Failure> {
    let pipe = Pipe::new(PIPE_BYTES.as_usize()).map_err(|error| failed("make a pipe", &error))?;
    let from = From::Descriptor { name: "a sample".to_owned(), fd: Arc::new(pipe.reader) };
    let (pull, pulled) = watch::channel(Stopping::No);
    let mut pace = Pace::after(rig.time / WARM_UP);
    let (rig, writer) = (Arc::clone(rig), pipe.writer);
    let (limit, options) = options(&rig.settings, choice);
    let patience = 2 * rig.time + DRAIN;
    let source = tokio::task::spawn_blocking(move || {
        write_sample(writer, &rig.sample, &rig.begin());
    });
    let mut cut = Stop::new(pulled);
    let carried = {
        let mut sending = pin!(send(from, dial, &options, &mut pace, &mut cut));
        tokio::select! {
            carried = &mut sending => carried,
            () = given_up(stop, patience) => {
                pull.send_replace(Stopping::Now);
                sending.await
            }
        }
    };
    drop(limit);
    // Its reader is gone.
    let _ended = source.await;
    match carried {
        Ok(summary) => Ok(pace.whole(&summary)),
        Err(failure) => match pace.cut(choice.zstd.is_some()) {
            Some(outcome) if pull.borrow().eq(&Stopping::Now) && !stop.is_pulled() => Ok(outcome),
            _ => Err(failure),
        },
    }
}

/// Waits until the transfer is not wanted any more.
async fn given_up(stop: &mut Stop, patience: Duration) {
    tokio::select! {
        () = stop.pulled() => {}
        () = tokio::time::sleep(patience) => {}
    }
}

/// As `zferry send` would make them; the first half keeps the limit alive.
fn options(
    settings: &Settings,
    choice: &Choice,
) -> (watch::Sender<Option<crate::units::Rate>>, Options) {
    let (limit, told) = watch::channel(None);
    let engine = Settings {
        block_bytes: choice.block_bytes,
        compression: choice.zstd.map_or(Compression::None, |level| Compression::Zstd { level }),
        zero_copy: ZeroCopy::Auto,
        ..settings.clone()
    };
    let options = Options {
        engine,
        connections: Connections::Fixed(choice.connections),
        congestion: choice.congestion.clone(),
        limit: told,
        sharers: NonZeroU16::MIN,
        // A connection that is lost would be measured as a slow one.
        retry_for: Duration::ZERO,
        stall_timeout: STALL,
        records: None,
    };
    (limit, options)
}

impl Pace {
    fn after(warm_up: Duration) -> Pace {
        let counts_from = Instant::now() + warm_up;
        Pace { counts_from, first: None, last: None, begun: None, ended: None, least: warm_up }
    }

    /// The rate of a transfer that has ended: what came after the warm-up, if that was long enough
    /// to tell, by the time it took.
    fn whole(&self, summary: &Summary) -> Outcome {
        let counted = self.first.zip(self.ended).and_then(|((at, moment), ended)| {
            let taken = ended.checked_duration_since(at).filter(|&taken| taken >= self.least)?;
            Some((Bytes(summary.bytes.0.checked_sub(moment.fed.0)?), taken))
        });
        let all = self.begun.zip(self.ended).map(|(begun, ended)| ended - begun);
        let (bytes, taken) = counted.unwrap_or((summary.bytes, all.unwrap_or(summary.taken)));
        let rate = bytes.per_second(taken);
        Outcome::Carried {
            bytes_per_second: rate,
            wire_bytes_per_second: part_of(rate, summary.wire, summary.bytes),
        }
    }

    /// The rate of one that was cut. What went out is ahead of what came through by all that is on
    /// its way, and at no two moments by as much: of raw blocks it is known without counting.
    fn cut(&self, is_packed: bool) -> Option<Outcome> {
        let ((begun, first), (ended, last)) = self.first.zip(self.last)?;
        let taken = ended.checked_duration_since(begun).filter(|&taken| taken >= self.least)?;
        let since = |first: Bytes, last: Bytes| Bytes(last.0.saturating_sub(first.0));
        let bytes_per_second = since(first.fed, last.fed).per_second(taken);
        let wire = since(first.wire, last.wire).per_second(taken);
        let wire_bytes_per_second = if is_packed { wire } else { bytes_per_second };
        Some(Outcome::Carried { bytes_per_second, wire_bytes_per_second })
    }
}

/// `rate` times `part` by `whole`.
fn part_of(rate: Bytes, part: Bytes, whole: Bytes) -> Bytes {
    let product = u128::from(rate.0) * u128::from(part.0) / u128::from(whole.0.max(1));
    Bytes(u64::try_from(product).unwrap_or(u64::MAX))
}

impl Watch for Pace {
    fn begin(&mut self, _what: &str, _estimated: Option<Bytes>) {
        self.begun = Some(Instant::now());
    }

    fn moment(&mut self, moment: Moment) {
        let now = Instant::now();
        if now >= self.counts_from {
            self.first.get_or_insert((now, moment));
            self.last = Some((now, moment));
        }
    }

    fn end(&mut self) {
        self.ended = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A pace of ten seconds whose first moment came `after` so long, with so many bytes through.
    fn pace(after: Duration, fed: u64) -> Pace {
        let begun = Instant::now();
        let ended = begun + 10 * SECOND;
        let moment = |fed| Moment { fed: Bytes(fed), wire: Bytes(fed / 2), ..Moment::default() };
        Pace {
            counts_from: begun,
            first: Some((begun + after, moment(fed))),
            last: Some((ended, moment(fed + 600))),
            begun: Some(begun),
            ended: Some(ended),
            least: SECOND,
        }
    }

    fn carried(stream: u64, wire: u64) -> Outcome {
        let (bytes_per_second, wire_bytes_per_second) = (Bytes(stream), Bytes(wire));
        Outcome::Carried { bytes_per_second, wire_bytes_per_second }
    }

    #[test]
    fn what_came_while_connections_were_getting_going_is_not_counted() {
        let (bytes, wire) = (Bytes(1000), Bytes(500));
        let summary = Summary { bytes, wire, ..Summary::default() };
        assert_eq!(pace(8 * SECOND, 400).whole(&summary), carried(300, 150));
        // Two moments that are close to each other tell nothing.
        assert_eq!(pace(SECOND / 10 * 99, 400).whole(&summary), carried(100, 50));
    }

    #[test]
    fn a_transfer_that_was_cut_is_measured_by_the_moments_it_had() {
        assert_eq!(pace(8 * SECOND, 400).cut(true), Some(carried(300, 150)));
        assert_eq!(pace(8 * SECOND, 400).cut(false), Some(carried(300, 300)));
        assert_eq!(pace(SECOND / 10 * 99, 400).cut(true), None);
    }
}
