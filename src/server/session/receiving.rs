//! A transfer in a session, from the client's wish to the result.
//!
//! What a session does between `Open` and `Result`: start the engine and the process that takes
//! the stream, and find out, of several failures that follow from one, which one to tell. Data
//! connections come and go meanwhile.

use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use sys::control;
use tokio::runtime::Handle;

use super::{Asked, News, Session, stopping};
use crate::engine::receiver::{Agreed, Entrance, Event, Fed, Receiver as Engine};
use crate::error::{Class, Failure, Side};
use crate::link::PING_EVERY;
use crate::process::{Ended as ProcessEnded, Process, Stopper};
use crate::protocol::message::{Open, RelativeName, Start, Stream};
use crate::protocol::receiver::Input;
use crate::server::Stopping;
use crate::server::audit::Entry;
use crate::server::kept::Kept;
use crate::server::place::Place;
use crate::server::taker::{Prepared, Taker};
use crate::server::target::Target;
use crate::server::transfer::{ProcessState, Transfer};
use crate::server::wished::{Verified, Wished};
use crate::spool::keeping::Over;
use crate::units::{Bytes, Sequence};

/// When a process stops to read, how it ends is known a little later.
const REASON_LIMIT: Duration = Duration::from_secs(2);

/// For how long nobody looks again at a target that was read back, and at its root.
const WHOLE_FOR: Duration = Duration::from_secs(5);

impl Session {
    /// A dataset was found free when it was listed; a stream for a pipe is asked for without that,
    /// and may have to wait until one whose client is away has ended.
    pub(super) async fn open(&mut self, open: Open) {
        self.note(Entry::receive(&open.request.stream));
        let asked = match self.destination.target_of(&open.request.stream) {
            Ok(target) => Asked { open, target },
            Err(failure) => return self.give_up(failure).await,
        };
        if let Some(wished) = asked.target.wished() {
            self.note_dataset(&wished.dataset);
        }
        match asked.target.place() {
            place @ Place::Pipe(_) => {
                let (shared, inbox) = (Rc::clone(&self.shared), self.news_inbox.clone());
                control::spawn(async move {
                    let free = shared.roster.free(&place).await;
                    // Nobody listens any more when the session is over.
                    drop(inbox.send(News::Free(Box::new(asked), free)));
                });
            }
            Place::Dataset(_) => self.prepare(asked).await,
        }
    }

    pub(super) async fn prepare(&mut self, asked: Asked) {
        if let Err(failure) = self.ready_for(&asked) {
            return self.give_up(failure).await;
        }
        self.preparing = true;
        let begin_records = self.begin_records(&asked);
        let whole = self.whole.take().is_some_and(|(whole, seen)| {
            seen.elapsed() < WHOLE_FOR && name_in(&asked.open.request.stream) == Some(&whole)
        });
        self.ask(move || {
            let prepared = asked.target.prepare(&asked.open.request.stream, whole);
            let prepared = prepared.map(|prepared| Prepared { kept: begin_records(), ..prepared });
            News::Prepared(Box::new(asked), Box::new(prepared))
        });
    }

    /// Checks that the transfer belongs here, claims its dataset, and has an engine running.
    pub(super) fn ready_for(&mut self, Asked { open, target }: &Asked) -> Result<(), Failure> {
        if let Some(Wished { pool, leave: Some(leave), .. }) = target.wished()
            && let Some(key) = self.key
        {
            leave.check_transfers(self.shared.roster.transfers_of(key, &pool.root))?;
        }
        self.take_portion(target);
        let place = target.place();
        self.claim = Some(self.shared.roster.claim(&place, self.who(), &self.presence)?);
        let wanted = Agreed { codec: open.request.codec, block_bytes: open.request.block_bytes };
        match self.agreed {
            Some(agreed) if agreed == wanted => return Ok(()),
            Some(_) => {
                let what = "a transfer asked for other blocks than the first of its session";
                return Err(Failure::new(Side::Source, Class::Peer, what));
            }
            None => self.agreed = Some(wanted),
        }
        let options = &self.shared.options.engine;
        let engine =
            Engine::start(options, wanted, self.lanes.take(), &self.event_inbox, Sequence(0))?;
        self.engine = Some(engine);
        Ok(())
    }

    /// What comes from here on comes out of what is granted there.
    pub(super) fn take_portion(&mut self, target: &Target) {
        self.portion = None;
        if let Some(Wished { pool, leave: Some(leave), .. }) = target.wished()
            && let Some(key) = self.key
        {
            self.portion = Some(self.shared.portions.of(key, &pool.root, leave.limits()));
        }
        self.lanes.brake().set(self.portion.clone());
    }

    pub(super) fn begin(&mut self, asked: Asked, prepared: Prepared) {
        let Some(engine) = &self.engine else { return };
        let credit = engine.receipt().credit;
        self.take_sink(asked, prepared);
        self.tell(Input::Prepared(Start::FromStart, credit));
    }

    /// Lets the stream flow to whatever takes it.
    pub(super) fn take_sink(&mut self, Asked { open, target }: Asked, prepared: Prepared) {
        let Some(engine) = &self.engine else { return };
        let Prepared { taker, kept, announced } = prepared;
        let kept = kept.map(|Kept { records, stream, room }| (records, (stream, room)));
        let (records, stream_and_room) = kept.unzip();
        let (stream, room) = stream_and_room.unzip();
        if let Some(records) = &records {
            records.opened();
        }
        let stopper = Arc::new(OnceLock::new());
        let started = self.watcher(&stopper);
        let (entrance, process) = match taker {
            Taker::Ready { process: None, sink } => (Entrance::Open(sink), ProcessState::None),
            Taker::Ready { process: Some(process), sink } => {
                started(process);
                (Entrance::Open(sink), ProcessState::Due)
            }
            Taker::Gated(gate) => {
                let guard = gate.watched(self.peer.clone(), Box::new(started));
                (Entrance::Guarded(guard), ProcessState::Due)
            }
        };
        self.transfer = Some(Transfer {
            id: open.transfer,
            stream: open.request.stream,
            target,
            started: Instant::now(),
            base: engine.progress().fed(),
            stopper,
            process,
            ended: None,
            fed: false,
            records,
            room: room.flatten(),
            _claim: self.claim.take(),
            _announced: announced,
        });
        engine.begin(open.transfer, open.request.epoch, entrance, stream.flatten());
    }

    /// What is done with the process that takes the stream, on the thread that starts it.
    fn watcher(&self, stopper: &Arc<OnceLock<Stopper>>) -> impl FnOnce(Process) + Send + use<> {
        let (inbox, stopper) = (self.news_inbox.clone(), Arc::clone(stopper));
        let runtime = Handle::current();
        move |process| {
            // Of each transfer there is one.
            let _ = stopper.set(process.stopper());
            // Nobody listens any more when the session is over.
            let wait = move || drop(inbox.send(News::ProcessEnded(process.wait())));
            runtime.spawn_blocking(wait);
        }
    }

    pub(super) async fn engine_says(&mut self, event: Event) {
        match event {
            Event::Fed(Fed { transfer, total }) => {
                tracing::debug!(%transfer, %total, "fed");
                if let Some(transfer) = &mut self.transfer {
                    transfer.fed = true;
                }
            }
            // The client connects again, if it has anything left to send.
            Event::ConnectionEnded(lane) => tracing::debug!(lane, "a data connection was closed"),
            Event::LaneLost { lane, fault } => {
                tracing::info!(peer = self.peer, lane, %fault, "lost a data connection");
                // What the client knows to have arrived it does not send again.
                self.acknowledge();
            }
            Event::Credit => self.acknowledge(),
            Event::Failed(fault) if fault.is_broken_pipe() => self.reader_gone().await,
            Event::Failed(fault) => {
                let failure = fault.failure(Side::Target);
                if failure.class == Class::Interrupted {
                    self.wait_for_reason(failure);
                } else {
                    self.give_up(failure).await;
                }
            }
        }
    }

    /// Remembers a failure that most likely follows from another one, about which the client may
    /// be telling us at this moment.
    pub(super) fn wait_for_reason(&mut self, failure: Failure) {
        if self.fault.is_none() {
            self.fault = Some((failure, Instant::now() + REASON_LIMIT));
        }
    }

    /// The process stopped reading before the stream ended: it knows why.
    pub(super) async fn reader_gone(&mut self) {
        if let Some(transfer) = &self.transfer
            && transfer.is_running()
        {
            let what = "the process that takes the stream does not read it any more";
            self.wait_for_reason(Failure::new(Side::Target, Class::Interrupted, what));
            return;
        }
        let failure = self.early_end();
        self.give_up(failure).await;
    }

    pub(super) async fn process_ended(&mut self, ended: ProcessEnded) {
        let Some(transfer) = &mut self.transfer else { return };
        let success = ended.success();
        transfer.process = ProcessState::Ended(ended);
        // One that succeeded may be faster than the news that it has taken everything.
        if !transfer.fed && (!success || self.fault.is_some()) {
            let failure = self.early_end();
            self.give_up(failure).await;
        }
    }

    /// What to say of a process that ended before the stream did.
    pub(super) fn early_end(&self) -> Failure {
        let complaint = self.transfer.as_ref().and_then(|transfer| {
            let ended = transfer.process_ended()?;
            transfer.target.complaint(ended)
        });
        complaint.unwrap_or_else(|| {
            let what = "whatever takes the stream stopped reading before its end";
            Failure::new(Side::Target, Class::Interrupted, what)
        })
    }

    pub(super) fn acknowledge(&mut self) {
        let (Some(engine), Some(transfer)) = (&self.engine, &self.transfer) else { return };
        let progress = engine.progress();
        let reached = transfer.watermarks(progress.received(), progress.fed(), engine.durable());
        let receipt = engine.receipt();
        self.tell(Input::Progress(reached, receipt));
    }

    pub(super) fn finish_if_over(&mut self) {
        let Some(transfer) = self.transfer.as_mut().filter(|transfer| transfer.is_over()) else {
            return;
        };
        // Asked once: `fed` is what made it over.
        transfer.fed = false;
        let (target, stream) = (transfer.target.clone(), transfer.stream.clone());
        let ended = transfer.process_ended().cloned();
        let records = transfer.records.take();
        self.ask(move || {
            let verified = target.verify(&stream, ended.as_ref());
            if let Some(records) = records {
                let failed = verified.as_ref().err().map(|failure| Over::Failed(failure.class));
                records.over(failed.unwrap_or(Over::Applied));
            }
            News::Verified(verified)
        });
    }

    pub(super) fn applied(&mut self, Verified { guid, is_rooted }: Verified) {
        self.acknowledge();
        let Some(transfer) = self.transfer.take() else { return };
        let Some(ended) = transfer.ended else { return };
        let (bytes, taken) = (ended.total().bytes_before(), transfer.started.elapsed());
        tracing::debug!(
            peer = self.peer, transfer = %transfer.id, %bytes, seconds = taken.as_secs_f32(),
            "received"
        );
        self.note_taken(bytes);
        self.write_entry(None);
        let millis = u64::try_from(taken.as_millis()).unwrap_or(u64::MAX);
        self.tell(Input::Applied { ended, guid, millis });
        self.applied = true;
        let name = name_in(&transfer.stream).filter(|_| is_rooted);
        self.whole = name.map(|name| (name.clone(), Instant::now()));
        if self.stopping > Stopping::No {
            // A client that has nothing more to send does not mind.
            self.tell(Input::Failed(stopping()));
        }
    }

    /// Ends the engine and the process that takes the stream.
    pub(super) async fn stop_transfer(&mut self) {
        self.stop_preparing().await;
        self.claim = None;
        let Some(mut transfer) = self.transfer.take() else { return };
        if let Some(engine) = &self.engine {
            self.note_taken(Bytes(engine.progress().fed().0 - transfer.base.0));
        }
        let records = transfer.records.take();
        let _until_they_are_over = transfer.room.take();
        let (news, line, stop) = (&mut self.news, &mut self.line, self.shared.stop.clone());
        let process_ended = async {
            loop {
                tokio::select! {
                    told = news.recv() => match told {
                        Some(News::ProcessEnded(_)) | None => break,
                        Some(_) => {}
                    },
                    // It may take long, and the client shall not take us for dead.
                    () = tokio::time::sleep(PING_EVERY) => drop(line.ping().await),
                }
            }
        };
        transfer.cut(self.engine.take(), process_ended, stop).await;
        self.close_records(records).await;
    }

    /// Ends a process that was being started: it got nothing yet, and shall not see that as the
    /// whole stream. A pruning is waited for, so that nobody receives meanwhile.
    async fn stop_preparing(&mut self) {
        while self.preparing {
            match self.news.recv().await {
                Some(News::Prepared(_, prepared)) => {
                    self.preparing = false;
                    // Its drop kills and waits.
                    let _ = tokio::task::spawn_blocking(move || drop(prepared)).await;
                }
                Some(News::Pruned(report)) => {
                    self.preparing = false;
                    // Its client may be gone: what was destroyed is written down all the same.
                    self.note_pruned(&report);
                }
                Some(_) => {}
                None => return,
            }
        }
    }
}

/// The dataset that a stream is for.
fn name_in(stream: &Stream) -> Option<&RelativeName> {
    match stream {
        Stream::Dataset(stream) => Some(&stream.target),
        Stream::Pipe => None,
    }
}
