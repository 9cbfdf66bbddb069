//! A stream on its way: read from `zfs send`, kept in the window, dealt to whichever lane is free.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use zferry::breakpoint::identity::SessionId;
use zferry::breakpoint::keeper::Input as News;
use zferry::breakpoint::record::{Cargo, Job, Mark, Record};
use zferry::dataset::Guid;
use zferry::error::{Class, Failure, Side};
use zferry::protocol::frame::{Codec, Header};
use zferry::protocol::message::Watermarks;
use zferry::protocol::sender::Input;
use zferry::protocol::stall::{News as Stall, Watchdog, Way};
use zferry::units::{Bytes, Sequence, StreamOffset, TransferId};

use super::Event;
use super::session::{Lane, Session};
use crate::breakage::Breakage;
use crate::environment::{End, Environment};
use crate::met::Met;
use crate::network::Purpose;
use crate::recorder::{Recorder, role, session_id};
use crate::source::Run;
use crate::terms::BLOCK_BYTES_MAX;

/// How often a record is due at least.
const TICK_MILLIS: u64 = 500;

/// `--stall-timeout`.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// When a data connection is lost for good: how long the server may take to say why.
const REASON_LIMIT: Duration = Duration::from_secs(2);

/// A frame's bytes for the wire, as often as it takes.
pub type Frame = Rc<[u8]>;

#[derive(Debug)]
pub struct Carrying {
    run: Run,
    session: SessionId,
    transfer: TransferId,
    epoch: u32,
    next: Sequence,
    crc: crc32fast::Hasher,
    reading: bool,
    end: Ending,
    recorder: Option<Recorder>,
    /// The ends of the blocks that the peer has not acknowledged.
    marks: VecDeque<(Sequence, Mark)>,
    reached: Watermarks,
    /// The end of what was given to a connection.
    sent: StreamOffset,
    watchdog: Watchdog,
}

/// How far the stream's end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Ahead,
    /// `zfs send` has exited with 0.
    Read,
    Said,
}

impl Carrying {
    /// A stream of which all was read, and its end said, by a process before this one.
    pub fn whole(
        record: Record,
        recorder: Option<Recorder>,
        marks: VecDeque<(Sequence, Mark)>,
        env: &Environment,
    ) -> Carrying {
        let Record { job, progress, .. } = record;
        let end = progress.end.expect("it is whole");
        Carrying {
            run: Run::over(Bytes(end.to.0).as_usize()),
            session: job.session,
            transfer: job.transfer,
            epoch: job.epoch,
            next: progress.next_frame,
            crc: crc32fast::Hasher::new_with_initial_len(end.crc32, end.to.0),
            reading: false,
            end: Ending::Said,
            recorder,
            marks,
            reached: Watermarks::default(),
            sent: StreamOffset(0),
            watchdog: Watchdog::new(STALL_TIMEOUT, env.now),
        }
    }

    fn mark(&self) -> Mark {
        let to = StreamOffset(self.run.read as u64);
        Mark { to, crc32: self.crc.clone().finalize() }
    }

    pub fn read_to(&self) -> StreamOffset {
        StreamOffset(self.run.read as u64)
    }

    pub fn written(&mut self, id: u64, well: bool, env: &mut Environment) {
        if let Some(recorder) = &mut self.recorder {
            recorder.written(id, well, env);
        }
    }

    /// The server has come so far, and has taken all frames before `taken`. Whether that is news.
    pub fn reached(&mut self, marks: Watermarks, taken: Sequence, env: &mut Environment) -> bool {
        let moved = marks.fed > self.reached.fed;
        self.reached = marks;
        let mut newest = None;
        while let Some(&(_, mark)) = self.marks.front().filter(|&&(number, _)| number < taken) {
            self.marks.pop_front();
            newest = Some(mark);
        }
        if let (Some(mark), Some(recorder)) = (newest, &mut self.recorder) {
            recorder.tell(News::PeerAcknowledged(mark), env);
        }
        moved
    }

    pub fn applied(&mut self, env: &mut Environment) {
        if let Some(recorder) = &mut self.recorder {
            recorder.tell(News::Applied, env);
        }
    }

    fn may_read(&self, env: &Environment) -> bool {
        let begun = self.recorder.as_ref().is_none_or(|recorder| recorder.has_begun(env));
        begun && !self.reading && self.end == Ending::Ahead
    }
}

impl Session {
    /// Starts `zfs send`, from an object on.
    pub(super) fn begin(&mut self, transfer: TransferId, first: u32, env: &mut Environment) {
        let Some(run) = env.source.send(first, &mut env.random) else {
            let what = "the snapshot is gone";
            return self.give_up(Failure::new(Side::Source, Class::Refused, what), env);
        };
        let secret = self.secret.expect("a stream within a session");
        let session = session_id(secret);
        env.truth.begin(session, transfer, &run.stream);
        let to = Guid(env.source.guid);
        let cargo = Cargo::Snapshot { to, from: None, raw: false, resumed: first > 0 };
        let epoch = self.number;
        let job = Job { role: role(End::Client), session, transfer, epoch, cargo };
        self.carrying = Some(Carrying {
            run,
            session,
            transfer,
            epoch,
            next: self.window.next(),
            crc: crc32fast::Hasher::new(),
            reading: false,
            end: Ending::Ahead,
            recorder: Recorder::open(End::Client, job, env),
            marks: VecDeque::new(),
            reached: Watermarks::default(),
            sent: StreamOffset(0),
            watchdog: Watchdog::new(STALL_TIMEOUT, env.now),
        });
        env.soon(TICK_MILLIS, self.mine(Event::Tick { session: self.number }));
    }

    /// Does all that can be done now.
    pub(super) fn go_on(&mut self, env: &mut Environment) {
        if self.outcome.is_some() {
            return;
        }
        self.load(env);
        let kept = self.window.kept();
        let session = self.number;
        let due = self.mine(Event::Read { session });
        if let Some(carrying) = &mut self.carrying
            && carrying.may_read(env)
            && kept < env.settings.client_slots
        {
            carrying.reading = true;
            let wait = if env.random.chance(3) { 5000 } else { 20 };
            env.soon(wait, due);
        }
        self.deal(env);
        self.end_if_over(env);
    }

    /// Bytes of `zfs send` have come.
    pub(super) fn read(&mut self, env: &mut Environment) {
        let most = env.random.between(1, env.settings.block_bytes);
        let Some(carrying) = &mut self.carrying else { return };
        carrying.reading = false;
        let offset = carrying.read_to();
        let bytes = match carrying.run.read(most) {
            Ok(Some(bytes)) => bytes.to_vec(),
            Ok(None) => {
                carrying.end = Ending::Read;
                let mark = carrying.mark();
                if let Some(recorder) = &mut carrying.recorder {
                    recorder.tell(News::Ended(mark), env);
                }
                return;
            }
            Err(()) => {
                let what = "zfs send: I/O error";
                return self.give_up(Failure::new(Side::Source, Class::Interrupted, what), env);
            }
        };
        env.truth.read(carrying.session, carrying.transfer, carrying.run.read);
        carrying.crc.update(&bytes);
        let length = u32::try_from(bytes.len()).expect("a block");
        let sequence = carrying.next;
        carrying.next = sequence.next();
        let header = Header {
            transfer: carrying.transfer,
            epoch: carrying.epoch,
            sequence,
            offset,
            codec: Codec::Raw,
            plain_bytes: length,
            payload_bytes: length,
            crc32: crc32fast::hash(&bytes),
        };
        let mark = carrying.mark();
        carrying.marks.push_back((sequence, mark));
        if let Some(recorder) = &mut carrying.recorder {
            recorder.block(header, &bytes, mark, env);
        }
        let frame = [&header.encode()[..], &bytes].concat();
        let taken = self.window.put(sequence, Bytes::from(frame.len()), frame.into());
        assert!(taken.is_none(), "no process was before this one");
    }

    fn deal(&mut self, env: &mut Environment) {
        for lane in 0..self.lanes.len() {
            let Some(Lane { connection, busy: false }) = self.lanes[lane] else { continue };
            let number = u32::try_from(lane).expect("few lanes");
            let Some(deal) = self.window.deal(number) else { return };
            let (again, frame) = (deal.again, Rc::clone(deal.item));
            let head = frame.first_chunk().expect("a header");
            let header = Header::decode(head, BLOCK_BYTES_MAX).expect("ours");
            let is_wanted = header.sequence >= self.credit.taken;
            assert!(is_wanted, "what was acknowledged is sent again");
            if let Some(carrying) = &mut self.carrying {
                let end = header.offset.after(header.length()).expect("a stream's end");
                carrying.sent = carrying.sent.max(end);
            }
            if !(again && env.is_broken(Breakage::ForgetBeforeTaken)) {
                env.write(End::Client, connection, frame.to_vec());
            }
            self.lanes[lane] = Some(Lane { connection, busy: true });
            env.soon(20, self.mine(Event::Free { connection }));
        }
    }

    fn end_if_over(&mut self, env: &mut Environment) {
        let Some(carrying) = &mut self.carrying else { return };
        if carrying.end != Ending::Read || self.window.next() < carrying.next {
            return;
        }
        carrying.end = Ending::Said;
        if env.is_broken(Breakage::ReleaseBeforeApplied) {
            env.source.held = false;
        }
        let Mark { to: total, crc32 } = carrying.mark();
        self.wish(Input::StreamEnded { total, crc32 }, env);
    }

    pub(super) fn lane_of(&self, connection: u32) -> Option<usize> {
        let is_it = |lane: &Option<Lane>| lane.is_some_and(|lane| lane.connection == connection);
        self.lanes.iter().position(is_it)
    }

    pub(super) fn free(&mut self, connection: u32, _: &mut Environment) {
        if let Some(lane) = self.lane_of(connection) {
            self.lanes[lane] = Some(Lane { connection, busy: false });
        }
    }

    /// What a lane had goes to the others; it is made again, once the server can be reached.
    pub(super) fn lose_lane(&mut self, lane: usize, env: &mut Environment) {
        let number = u16::try_from(lane).expect("few lanes");
        self.leave(number, env);
        if env.settings.retry_for.is_zero() {
            let due = self.mine(Event::NoReason { session: self.number });
            return env.after(REASON_LIMIT, due);
        }
        self.missing.insert(number);
        if self.is_up() {
            self.reopen_missing(env);
        }
    }

    fn leave(&mut self, lane: u16, env: &mut Environment) {
        if let Some(lost) = self.lanes[usize::from(lane)].take() {
            env.close(End::Client, lost.connection);
        }
        self.window.lost(lane.into());
    }

    /// Gives all lanes up, although nobody has said that they are lost.
    pub(super) fn renew_lanes(&mut self, env: &mut Environment) {
        for lane in 0..u16::try_from(self.lanes.len()).expect("few lanes") {
            self.leave(lane, env);
            self.missing.insert(lane);
        }
    }

    pub(super) fn reopen_missing(&mut self, env: &mut Environment) {
        let session = self.number;
        for lane in std::mem::take(&mut self.missing) {
            env.soon(2000, self.mine(Event::DialLane { session, lane }));
        }
    }

    pub(super) fn dial_lane(&mut self, lane: u16, env: &mut Environment) {
        let Some(secret) = self.secret else { return };
        self.leave(lane, env);
        let connection = env.dial(Purpose::Lane(secret, lane));
        self.lanes[usize::from(lane)] = Some(Lane { connection, busy: false });
    }

    pub(super) fn tick(&mut self, env: &mut Environment) {
        self.look_for_stalls(env);
        if let Some(recorder) = self.carrying.as_mut().and_then(|c| c.recorder.as_mut()) {
            recorder.tick(env);
        }
        env.soon(TICK_MILLIS, self.mine(Event::Tick { session: self.number }));
    }

    /// A wire that stands still is connected anew.
    fn look_for_stalls(&mut self, env: &mut Environment) {
        let connected = self.is_up();
        let Some(carrying) = &mut self.carrying else { return };
        let way = Way {
            read: carrying.read_to(),
            ended: carrying.end != Ending::Ahead,
            sent: carrying.sent,
            waits_for_room: self.window.waits_for_room(),
            connected,
            received: carrying.reached.received,
            fed: carrying.reached.fed,
            block_takes: Duration::ZERO,
        };
        let news = carrying.watchdog.look(env.now, way);
        if let Some(Stall::StandsStill { renew: true, .. }) = news {
            // What a lost lane had is sent again at once, not when somebody wonders.
            let mut lanes = self.lanes.iter();
            let is_bad = lanes.any(|lane| lane.is_none_or(|l| env.is_doubtful(l.connection)));
            assert!(is_bad, "a wire that works stands still: {way:?}");
            env.met(Met::WireRenewed);
            self.renew_lanes(env);
            self.reopen_missing(env);
        }
    }

    /// What must hold after every step.
    pub fn check(&self, env: &Environment) {
        let kept = self.window.kept();
        assert!(kept <= env.settings.client_slots, "{kept} frames kept");
        let Some(carrying) = &self.carrying else { return };
        assert!(carrying.reached.received <= carrying.read_to(), "received what was not read");
    }
}
