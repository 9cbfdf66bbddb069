//! Sessions that a server before this one has left: they go on where they were durable.
//!
//! All of a stream that was acknowledged stands in breakpoint files. A new process is fed from its
//! first byte, and the client sends the rest as soon as it returns. What ZFS itself kept of a
//! stream counts for more: then the client goes on from there.

use std::rc::Rc;
use std::time::Instant;

use sys::control;

use super::{Line, Session, Shared};
use crate::breakpoint::decision::{
    DeadTokenPolicy, Decision, Knowledge, Peer, Reach, Situation, Source, Target, Token, decide,
};
use crate::breakpoint::record::Role;
use crate::engine::receiver::{self, Agreed, Receiver as Engine};
use crate::error::{Class, Failure, Side};
use crate::listing::TargetState;
use crate::protocol::message::{Stream, Watermarks};
use crate::protocol::receiver::Receiver;
use crate::server::destination::Destination;
use crate::server::place::Place;
use crate::server::transfer::Kept;
use crate::spool::left::Left;

/// Takes up all that a server before this one has left. A client that returns must find them: no
/// connection is to be taken before this has returned.
pub(in crate::server) async fn restore_all(shared: &Rc<Shared>) {
    let Some(records) = shared.options.records.clone() else { return };
    if shared.options.keeps_in().is_none() {
        return;
    }
    let all = blocking(move || Ok(records.all_left(Role::Server))).await;
    for left in all.unwrap_or_default() {
        let restored = match left {
            Ok(left) => restore(shared, left).await,
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
async fn restore(shared: &Rc<Shared>, left: Left) -> Result<Option<Session>, Failure> {
    let stream = left.handover.open.request.stream.clone();
    let Ok(place) = shared.destination.place_of(&stream) else { return Ok(None) };
    if left.names.job != place.to_string() {
        return Ok(None);
    }
    let (destination, to) = (shared.destination.clone(), place.clone());
    let decision = blocking(move || decide_on(&destination, &to, &stream)).await?;
    if decision != Decision::Refeed {
        tracing::info!(%place, ?decision, "what was kept of a transfer is not needed any more");
        let _ = tokio::task::spawn_blocking(move || left.discard()).await;
        return Ok(None);
    }
    Session::restored(shared, left, &place).await.map(Some)
}

/// What is to be done with a stream that is kept here, by what the target holds. How much of it
/// its client has is not known before it returns.
fn decide_on(
    destination: &Destination,
    place: &Place,
    stream: &Stream,
) -> Result<Decision, Failure> {
    let (mut target, mut token) = (Target::Lacks, Token::Absent);
    if let (Place::Dataset(dataset), Stream::Dataset(stream)) = (place, stream)
        && let TargetState::Present { snapshots, resume_token, .. } =
            destination.look_up(dataset)?
    {
        if snapshots.iter().any(|snapshot| snapshot.guid == stream.to) {
            target = Target::Holds;
        } else if resume_token.is_some() {
            token = Token::Matching;
        }
    }
    Ok(decide(Situation {
        target,
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
    async fn restored(shared: &Rc<Shared>, left: Left, place: &Place) -> Result<Session, Failure> {
        let handover = left.handover.clone();
        let (open, secret) = (handover.open.clone(), handover.secret);
        let terms = handover.agreed().ok_or_else(|| {
            let what = format!("a server of another version has left a transfer to {place}");
            Failure::new(Side::Target, Class::Refused, what)
        })?;
        let (request, count) = (open.request.clone(), terms.limits.connections);
        let wanted = Agreed { codec: request.codec, block_bytes: request.block_bytes };
        let first = left.next_frame();
        let (kept, id) = (left.found.end.to, left.record.job.session);
        let reached = Watermarks { received: kept, spooled: kept, ..Watermarks::default() };

        // Its machine is one that knows the credit, which is the engine's to say.
        let machine = |credit| Receiver::restored(terms.clone(), open.clone(), reached, credit);
        let idle = machine(crate::protocol::window::Credit::default());
        let peer = handover.peer.clone();
        let mut session = Session::new(Rc::clone(shared), Line::restored(), idle, peer, secret, id);
        session.lanes.expect(count, secret, &shared.roster);
        let options = &shared.options.engine;
        let places = session.lanes.take();
        let engine = Engine::start(options, wanted, places, &session.event_inbox, first)?;
        session.machine = Some(machine(engine.receipt().credit));
        session.claim = Some(shared.roster.claim(place, &session.peer, &session.presence)?);

        let prepared = {
            let (shared, follow) = (shared.options.clone(), engine.follow());
            let (destination, stream) = (session.shared.destination.clone(), request.stream);
            let (progress, transfer) = (engine.progress().clone(), open.transfer);
            let Some((records, spool)) = shared.records.clone().zip(shared.keeps_in().cloned())
            else {
                let what = "there is no spool to go on from";
                return Err(Failure::new(Side::Target, Class::Internal, what));
            };
            blocking(move || {
                let mut prepared = destination.prepare(&stream)?;
                let found = Some(left.found.clone());
                let look = Box::new(move || progress.reached(transfer));
                let gone_on = records.go_on(left, look, &spool, follow).map_err(|error| {
                    Failure::new(Side::Target, Class::Machine, format!("go on from files: {error}"))
                });
                let (records, stream) = gone_on?;
                let stream = Some(receiver::Keeping { stream, found });
                prepared.kept = Some(Kept { records, stream });
                Ok(prepared)
            })
            .await?
        };
        session.terms = Some(terms);
        (session.agreed, session.engine) = (Some(wanted), Some(engine));
        session.take_sink(open, prepared);
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
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panicked| {
        let what = format!("take up what was left: {panicked}");
        Err(Failure::new(Side::Target, Class::Internal, what))
    })
}
