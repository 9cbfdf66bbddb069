//! A stream that a client before this one has left whole: takes its session over, sends the rest.
//!
//! Its `zfs send` is over, and the receive at the other end has been waiting ever since. Nothing is
//! read again: what the server has not taken comes out of the breakpoint files. What must never
//! happen here: that those are removed because the server could not be reached.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::unbounded_channel;

use super::carrying::{Carrying, SourceEnd};
use super::records::Bookkeeping;
use super::{Carried, Session, lanes_of, stripes_of};
use crate::breakpoint::record::Mark;
use crate::client::conversation::Conversation;
use crate::client::lanes::Lanes;
use crate::client::limit::Limiter;
use crate::client::reconnect::try_once;
use crate::client::send::stopped;
use crate::client::watch::{Layer, Stop, Watch};
use crate::client::{Dial, Options};
use crate::engine::progress::Progress;
use crate::engine::sender::{Resumed, Sender as Engine};
use crate::engine::settings::Settings;
use crate::error::{Class, Failure, Side};
use crate::link::{Answer, Line, Link, LinkError};
use crate::protocol::message::Open;
use crate::protocol::negotiate::Agreed;
use crate::protocol::sender::{Output, Sender, WholeStream};
use crate::protocol::standing::Standing;
use crate::spool::keeping::{Keeping, Stream};
use crate::spool::left::Left;

/// What came of it.
pub(in crate::client) enum TakenUp {
    /// The target holds the stream.
    Carried(Carried),
    /// Nothing can be gone on with: what was left here is removed.
    Refused(Failure),
}

/// A server that goes on with the session.
struct Standpoint {
    line: Line,
    over: Link,
    agreed: Agreed,
    standing: Standing,
    /// The place in the stream that the server has taken everything before.
    taken: Mark,
    end: Mark,
    machine: Sender,
    /// What the machine orders.
    news: Vec<Output>,
}

/// Why a stream is not gone on with.
enum Stuck {
    /// It never will be.
    Refused(Failure),
    /// Not now.
    Failed(Failure),
}

impl From<Failure> for Stuck {
    fn from(failure: Failure) -> Stuck {
        Stuck::Failed(failure)
    }
}

impl Session {
    /// Carries the rest of a whole stream, and ends the session that it belongs to. What was left
    /// stays where the server cannot be reached.
    pub(in crate::client) async fn take_up(
        dial: Dial,
        options: &Options,
        left: Left,
        watch: &mut dyn Watch,
        stop: &mut Stop,
    ) -> Result<TakenUp, Failure> {
        let asked = tokio::select! {
            asked = ask(&dial, &left) => asked,
            () = stop.pulled() => return Err(stopped()),
        };
        let standpoint = match asked {
            Ok(standpoint) => standpoint,
            Err(Stuck::Refused(failure)) => {
                let _panicked = tokio::task::spawn_blocking(move || left.discard()).await;
                return Ok(TakenUp::Refused(failure));
            }
            Err(Stuck::Failed(failure)) => return Err(failure),
        };
        let what = format!("{} (going on at {})", left.names.transfer, standpoint.at());
        tracing::info!("{what}");
        let (mut session, mut carrying, news) =
            Session::resume(dial, options, left, standpoint).await?;
        watch.begin(&what, None);
        watch.survived(Layer::Spool);
        let followed = session.follow(news, None, &|_| None, &mut carrying, watch, stop).await;
        match session.finish(followed, carrying, watch).await {
            Ok(carried) => {
                session.close().await;
                Ok(TakenUp::Carried(carried))
            }
            Err(failure) => {
                session.part(&failure).await;
                Err(failure)
            }
        }
    }

    /// The session as it was, and what its machine orders first.
    async fn resume(
        dial: Dial,
        options: &Options,
        left: Left,
        standpoint: Standpoint,
    ) -> Result<(Session, Carrying, Vec<Output>), Failure> {
        let Standpoint { line, over, agreed, standing, taken, machine, mut news, .. } = standpoint;
        let (secret, retry_for) = (left.handover.secret, options.retry_for);
        let Open { transfer, request } = left.handover.open.clone();
        let id = left.record.job.session;
        let settings = Settings {
            block_bytes: request.block_bytes,
            spool: Some(left.spool()),
            ..options.engine.clone()
        };
        let mut carrying = Carrying::new(options.stall_timeout);
        let (found, progress) = (left.found.clone(), Arc::clone(&carrying.progress));
        let (records, stream) = go_on(options, left, Arc::clone(&progress)).await?;
        carrying.epoch = request.epoch;
        carrying.records = Some(records);
        carrying.source_end = Some(SourceEnd::Well);
        carrying.reached = standing.reached;

        let output = (machine, &mut news);
        let conversation =
            Conversation::restored(line, over, dial.clone(), secret, output, retry_for).await?;
        // Where the server stands the engine knows from its start.
        news.retain(|output| !matches!(output, Output::Stands(..)));
        let (counts, congestion) = (lanes_of(options, &agreed), options.congestion.clone());
        let (lanes, connections) = Lanes::open(dial, secret, counts, congestion, retry_for).await?;
        let (event_inbox, events) = unbounded_channel();
        let receipt = standing.receipt();
        let resumed = Resumed { transfer, stream, found, receipt, taken, progress };
        let engine = Engine::start(&settings, connections, &event_inbox, Some(resumed))?;
        let session = Session {
            limiter: Limiter::start(&engine, options.limit.clone(), options.sharers),
            engine,
            conversation,
            terms: (agreed, secret),
            lanes,
            stripes: stripes_of(options),
            began: Instant::now(),
            events,
            block_bytes: request.block_bytes,
            codec: request.codec,
            stall_timeout: options.stall_timeout,
            records: Bookkeeping::resumed(options.records.clone(), id, transfer, request.epoch),
        };
        Ok((session, carrying, news))
    }
}

impl Standpoint {
    fn at(&self) -> String {
        format!("{} of {}", self.taken.to.bytes_before(), self.end.to.bytes_before())
    }
}

/// Asks the server where it stands.
async fn ask(dial: &Dial, left: &Left) -> Result<Standpoint, Stuck> {
    let refused = |side, class, what: String| Stuck::Refused(Failure::new(side, class, what));
    let agreed = left.handover.agreed().ok_or_else(|| {
        let what = "a zferry of another version has left the stream".to_owned();
        refused(Side::Source, Class::Refused, what)
    })?;
    let mut line = Line::restored();
    let (server, over) = match try_once(dial, left.handover.secret, line.returning()).await? {
        (Answer::Returned(server), over) => (server, over),
        (Answer::Refused(failure), _) => return Err(Stuck::Refused(failure)),
    };
    let misbehaved = |error: LinkError| Stuck::Refused(error.failure(dial.name()));
    line.accept(&server).map_err(misbehaved)?;
    let nowhere = || {
        let what = format!("{} stands where nothing was sent to", dial.name());
        refused(Side::Target, Class::Peer, what)
    };
    let (standing, end) = server.standing.zip(left.record.progress.end).ok_or_else(nowhere)?;
    let taken = left.found.place_of(standing.credit.taken).ok_or_else(nowhere)?;
    let Open { transfer, request } = left.handover.open.clone();
    let (total, crc32) = (end.to, end.crc32);
    let whole = WholeStream { transfer, stream: request.stream, total, crc32 };
    let mut news = Vec::new();
    let machine = Sender::restored(agreed.clone(), whole, &standing, &mut news)
        .map_err(|misbehaved| Stuck::Refused(misbehaved.failure(Side::Target)))?;
    Ok(Standpoint { line, over, agreed, standing, taken, end, machine, news })
}

/// Goes on with the records. Files are not deleted one by one: the last of them is written already.
async fn go_on(
    options: &Options,
    left: Left,
    progress: Arc<Progress>,
) -> Result<(Keeping, Stream), Failure> {
    let (spool, transfer) = (left.spool(), left.handover.open.transfer);
    let (what, records) = (left.names.transfer.clone(), options.records.clone());
    let take_up = move || {
        let look = Box::new(move || progress.reached(transfer));
        let records = records.ok_or(std::io::ErrorKind::NotFound)?;
        records.go_on(left, look, &spool, Box::new(|_| ()))
    };
    let begun = tokio::task::spawn_blocking(take_up).await.map_err(std::io::Error::other);
    begun.and_then(|begun| begun).map_err(|error| {
        let what = format!("{what}: its records cannot be gone on with: {error}");
        Failure::new(Side::Source, Class::Machine, what)
    })
}
