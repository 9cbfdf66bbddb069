//! A server that died goes on with what was durable: the session as its files tell it, and a new
//! receive that is fed from byte 0, unless ZFS has kept something itself.

use std::collections::BTreeSet;

use zferry::breakpoint::decision::{
    Decision, Knowledge, Peer, Reach, Situation, Source, Target, Token, decide,
};
use zferry::breakpoint::record::{Cargo, Record, State};
use zferry::protocol::frame::Codec;
use zferry::protocol::message::{Open, Request, Stream, Watermarks};
use zferry::protocol::receiver::Receiver;
use zferry::protocol::window::ReceiveWindow;
use zferry::units::{Sequence, StreamOffset};

use super::Event;
use super::receiving::{Block, Transfer};
use super::session::{ME, Session, Standing, interrupted};
use crate::breakage::Breakage;
use crate::environment::Environment;
use crate::line::Line;
use crate::met::Met;
use crate::recorder::Recorder;
use crate::remains::{Left, Remains};
use crate::terms::{self, BLOCK_BYTES_MAX};

impl Session {
    /// The session of a process that died in a transfer; its client is away.
    pub fn restore(life: u32, number: u32, env: &mut Environment) -> Option<Session> {
        let remains = Remains::find(ME, env).filter(|remains| goes_on(&remains.record))?;
        let skipped = u64::from(env.is_broken(Breakage::RestoreBeyondDurable));
        let first = Sequence(remains.next().0 + skipped);
        let mut window = ReceiveWindow::restored(env.settings.server_blocks, first);
        window.hold_back();
        let received = remains.written().to;
        let reached = Watermarks { received, spooled: received, fed: StreamOffset(0) };
        let (agreed, open) = (terms::agreed(env), open(&remains.record));
        let machine = Receiver::restored(agreed, open, reached, window.credit());
        let recorder = Recorder::resume(ME, &remains, env)?;
        let lanes = (0..env.settings.lanes).map(|_| None).collect();
        let grace = env.settings.grace;
        let session = Session {
            life,
            number,
            secret: remains.secret(),
            standing: Standing::Open,
            machine: Some(machine),
            line: Line::restored(ME),
            back_until: Some(env.now + grace),
            lanes,
            window,
            rejected: BTreeSet::new(),
            preparing: None,
            transfer: Some(Transfer::restored(remains, recorder)),
            failure: None,
            applied: false,
            looking_up: false,
            tree: false,
            listed: None,
        };
        env.after(grace, session.mine(Event::Late { session: number }));
        env.soon(500, session.mine(Event::Refeed { session: number }));
        Some(session)
    }

    /// Feeds a new receive from byte 0, once the old one is gone and has left nothing.
    pub(super) fn refeed(&mut self, env: &mut Environment) {
        let number = self.number;
        let waits = |transfer: &&mut Transfer| transfer.run == 0 && !transfer.stopped;
        let Some(transfer) = self.transfer.as_mut().filter(waits) else { return };
        if !env.target.is_at_rest() {
            return env.soon(500, self.mine(Event::Refeed { session: number }));
        }
        let situation = Situation {
            target: if env.target.holds.is_some() { Target::Holds } else { Target::Lacks },
            token: match env.target.token {
                Some(_) if !env.is_broken(Breakage::RefeedOverToken) => Token::Matching,
                _ => Token::Absent,
            },
            peer: Peer::Spooled,
            source: Source::Alive,
            reach: Reach::ToRead,
            record: Knowledge::Recorded,
            dead_token: env.settings.dead_token,
        };
        match decide(situation) {
            Decision::Refeed => {
                env.met(Met::Refed);
                transfer.run = env.receive().expect("nobody receives");
                let transfer = transfer.id;
                env.truth.feed_again(self.id(), transfer);
                self.begin_if_durable(env);
                self.feed(env);
            }
            Decision::Token | Decision::Done => {
                env.met(Met::RefeedOutranked);
                self.give_up(interrupted("ZFS has kept something itself"), env);
            }
            other => panic!("{other:?} after {situation:?}"),
        }
    }
}

/// Whether a record is of a transfer that was under way, and the stream is there from byte 0.
fn goes_on(record: &Record) -> bool {
    let under_way = matches!(record.progress.state, State::Streaming | State::Ended);
    under_way && record.progress.spool.is_none_or(|spool| spool.low == StreamOffset(0))
}

/// What the client asked for, as it was written down.
fn open(record: &Record) -> Open {
    let Cargo::Snapshot { to, resumed, .. } = record.job.cargo else { panic!("no snapshot") };
    let request = Request {
        stream: Stream::Dataset(terms::stream(to, resumed)),
        epoch: record.job.epoch,
        estimated_bytes: None,
        block_bytes: BLOCK_BYTES_MAX,
        codec: Codec::Raw,
        interrupted_at: None,
    };
    Open { transfer: record.job.transfer, request }
}

impl Transfer {
    fn restored(remains: Remains, recorder: Recorder) -> Transfer {
        let Cargo::Snapshot { to, .. } = remains.record.job.cargo else { panic!("no snapshot") };
        let mark = remains.written();
        let mut transfer = Transfer::new(remains.record.job.transfer, to, 0);
        let ends = remains.frames.iter().map(|left| (left.header.sequence, left.mark.to));
        transfer.frame_ends = ends.collect();
        let block = |left: Left| Block { header: left.header, payload: left.payload };
        transfer.refeed = remains.frames.into_iter().map(block).collect();
        transfer.recorder = Some(recorder);
        transfer.refed_to = mark.to;
        transfer.received = mark.to;
        transfer.crc = crc32fast::Hasher::new_with_initial_len(mark.crc32, mark.to.0);
        transfer.was_opened = true;
        transfer
    }
}
