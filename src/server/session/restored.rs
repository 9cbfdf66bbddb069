//! Sessions that a server before this one has left: they go on where they were durable.
//!
//! All of a stream that was acknowledged stands in breakpoint files. A new process is fed from its
//! first byte, and the client sends the rest as soon as it returns. What ZFS itself kept of a
//! stream counts for more: then the client goes on from there.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use sys::control;

use super::{Asked, Line, Session, Shared};
use crate::breakpoint::decision::{
    self, DeadTokenPolicy, Decision, Knowledge, Peer, Reach, Situation, Source, Token, decide,
};
use crate::breakpoint::record::Role;
use crate::engine::progress::Progress;
use crate::engine::receiver::{self, Receiver as Engine};
use crate::engine::settings::Spool;
use crate::error::{Class, Failure, Side};
use crate::listing::TargetState;
use crate::protocol::message::{Request, Stream, Watermarks};
use crate::protocol::negotiate::Agreed;
use crate::protocol::receiver::Receiver;
use crate::server::audit::Entry;
use crate::server::kept::Kept;
use crate::server::taker::Prepared;
use crate::server::target::Target;
use crate::spool::handover::Handover;
use crate::spool::keeping::Follow;
use crate::spool::left::Left;
use crate::spool::transfers::Transfers;
use crate::units::Sequence;

/// Where a server before this one has left its transfers, and where they are gone on with.
#[derive(Clone)]
struct Spools {
    records: Transfers,
    spool: Spool,
}

/// Takes up all that a server before this one has left. A client that returns must find them: no
/// connection is to be taken before this has returned.
pub(in crate::server) async fn restore_all(shared: &Rc<Shared>) {
    let options = &shared.options;
    let Some((records, spool)) = options.records.clone().zip(options.keeps_in().cloned()) else {
        return;
    };
    let spools = Spools { records: records.clone(), spool };
    let all = blocking(move || Ok(records.all_left(Role::Server))).await;
    for left in all.unwrap_or_default() {
        let restored = match left {
            Ok(left) => restore(shared, &spools, left).await,
            Err(error) => {
                tracing::warn!("what a server before this one has left cannot be used: {error}");
                continue;
            }
        };
        match restored {
            Ok(Some(session)) => drop(control::spawn(shared.run(session))),
            Ok(None) => {}
            Err(failure) => tracing::warn!(%failure, "a transfer is not gone on with"),
        }
    }
}

/// One of them; `None` where nothing is to be gone on with.
async fn restore(
    shared: &Rc<Shared>,
    spools: &Spools,
    left: Left,
) -> Result<Option<Session>, Failure> {
    let stream = left.handover.open.request.stream.clone();
    let destination = shared.destination.to(left.handover.key);
    let Ok(target) = destination.target_of(&stream) else { return Ok(None) };
    let place = target.place();
    if left.names.job != place.to_string() {
        return Ok(None);
    }
    let to = target.clone();
    let decision = blocking(move || decide_on(&to, &stream)).await?;
    if decision != Decision::Refeed {
        tracing::info!(%place, ?decision, "what was kept of a transfer is not needed any more");
        let _panicked = tokio::task::spawn_blocking(move || left.discard()).await;
        return Ok(None);
    }
    Session::restored(shared, spools.clone(), left, target).await.map(Some)
}

/// What is to be done with a stream that is kept here, by what the target holds. How much of it
/// its client has is not known before it returns.
fn decide_on(target: &Target, stream: &Stream) -> Result<Decision, Failure> {
    let (mut holds, mut token) = (decision::Target::Lacks, Token::Absent);
    if let Stream::Dataset(stream) = stream
        && let TargetState::Present { snapshots, resume_token, .. } = target.look_up()?
    {
        if snapshots.iter().any(|snapshot| snapshot.guid == stream.to) {
            holds = decision::Target::Holds;
        } else if resume_token.is_some() {
            token = Token::Matching;
        }
    }
    Ok(decide(Situation {
        target: holds,
        token,
        peer: Peer::Spooled,
        source: Source::Alive,
        reach: Reach::ToRead,
        record: Knowledge::Recorded,
        dead_token: DeadTokenPolicy::Ask,
    }))
}

impl Session {
    /// A session whose client is away, in the middle of its transfer.
    async fn restored(
        shared: &Rc<Shared>,
        spools: Spools,
        left: Left,
        target: Target,
    ) -> Result<Session, Failure> {
        let place = target.place();
        let Handover { open, secret, peer, key, .. } = left.handover.clone();
        let terms = left.handover.agreed().ok_or_else(|| {
            let what = format!("a server of another version has left a transfer to {place}");
            Failure::new(Side::Target, Class::Refused, what)
        })?;
        let (kept, id) = (left.found.end.to, left.record.job.session);
        let mut session =
            Session::new(Rc::clone(shared), Line::restored(), (peer, key), secret, id);
        session.claim = Some(shared.roster.claim(&place, session.who(), &session.presence)?);

        session.take_portion(&target);
        let spools = Spools { spool: session.portion_of(&spools.spool), ..spools };
        let engine = session.restored_engine(&terms, &open.request, left.next_frame())?;
        session.note(Entry::receive(&open.request.stream));
        if let Some(wished) = target.wished() {
            session.note_dataset(&wished.dataset);
        }
        let asked = Asked { open: open.clone(), target };
        let (progress, follow) = (engine.progress().clone(), engine.follow());
        let refeed = move || {
            let prepared = refeed(&asked, &spools, left, progress, follow)?;
            Ok((asked, prepared))
        };
        let (asked, prepared) = blocking(refeed).await?;

        let reached = Watermarks { received: kept, spooled: kept, ..Watermarks::default() };
        let credit = engine.receipt().credit;
        session.machine = Some(Receiver::restored(terms.clone(), open, reached, credit));
        (session.terms, session.engine) = (Some(terms), Some(engine));
        session.take_sink(asked, prepared);
        session.presence.away.set(true);
        session.back_until = Some(Instant::now() + shared.options.grace);
        let (peer, seconds) = (&session.peer, shared.options.grace.as_secs());
        tracing::warn!(
            %place, peer, seconds,
            "going on with a transfer of which {} are here; waiting for its client",
            kept.bytes_before()
        );
        Ok(session)
    }

    /// An engine that waits for the connections of the client that is away.
    fn restored_engine(
        &mut self,
        terms: &Agreed,
        request: &Request,
        first: Sequence,
    ) -> Result<Engine, Failure> {
        let wanted = receiver::Agreed { codec: request.codec, block_bytes: request.block_bytes };
        self.lanes.expect(terms.limits.connections, self.secret, self.key, &self.shared.roster);
        let (options, places) = (&self.shared.options.engine, self.lanes.take());
        self.agreed = Some(wanted);
        Engine::start(options, wanted, places, &self.event_inbox, first)
    }
}

/// A sink like that of the server before this one, and what it is fed from first.
fn refeed(
    Asked { open, target }: &Asked,
    spools: &Spools,
    left: Left,
    progress: Arc<Progress>,
    follow: Follow,
) -> Result<Prepared, Failure> {
    let mut prepared = target.prepare(&open.request.stream, false)?;
    let (found, transfer) = (Some(left.found.clone()), open.transfer);
    let look = Box::new(move || progress.reached(transfer));
    let gone_on = spools.records.go_on(left, look, &spools.spool, follow);
    let (records, stream) = gone_on.map_err(|error| {
        Failure::new(Side::Target, Class::Machine, format!("go on from files: {error}"))
    })?;
    let stream = Some(receiver::KeptStream { stream, found });
    prepared.kept = Some(Kept { records, stream, room: spools.spool.account.clone() });
    Ok(prepared)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panicked| {
        let what = format!("take up what was left: {panicked}");
        Err(Failure::new(Side::Target, Class::Internal, what))
    })
}
