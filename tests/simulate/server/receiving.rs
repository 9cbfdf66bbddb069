//! A transfer at the server: frames off every lane, proved, in order, into `zfs receive`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use zferry::breakpoint::keeper::Input as News;
use zferry::breakpoint::record::{Cargo, Job, Mark};
use zferry::dataset::Guid;
use zferry::error::{Class, Failure, Side};
use zferry::protocol::frame::{HEADER_BYTES, Header};
use zferry::protocol::message::{Start, Stream, Watermarks};
use zferry::protocol::receiver::{Ended, Input};
use zferry::protocol::window::Arrival;
use zferry::units::{Bytes, Sequence, StreamOffset, TransferId};

use super::Event;
use super::session::{ME, Session, Standing};
use crate::aftermath::newest;
use crate::breakage::Breakage;
use crate::environment::{End, Environment};
use crate::met::Met;
use crate::recorder::{Recorder, role};
use crate::terms::BLOCK_BYTES_MAX;

/// A block that was proved.
#[derive(Clone, Debug)]
pub struct Block {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
}

/// A data connection, and what has come of its next frame.
#[derive(Debug)]
pub struct Intake {
    pub connection: u32,
    bytes: Vec<u8>,
}

#[derive(Debug)]
pub struct Transfer {
    pub(super) id: TransferId,
    to: Guid,
    /// The receive; 0 before there is one.
    pub(super) run: u32,
    pub recorder: Option<Recorder>,
    /// Blocks that came whole and are being looked at.
    proving: Vec<Block>,
    /// Blocks of breakpoint files, to be fed before all others.
    pub(super) refeed: VecDeque<Block>,
    /// The end of those.
    pub(super) refed_to: StreamOffset,
    /// The block that goes into the pipe, and how much of it has.
    feeding: Option<(Block, usize)>,
    /// The ends of the blocks that the pipe has and the receive has not taken.
    held: VecDeque<u64>,
    pub(super) received: StreamOffset,
    fed: StreamOffset,
    pub(super) crc: crc32fast::Hasher,
    /// Where each frame ends.
    pub(super) frame_ends: BTreeMap<Sequence, StreamOffset>,
    /// The client's word that the stream is complete.
    ended: Option<Ended>,
    total: Option<Mark>,
    begun: bool,
    /// The client was told that it may begin, by this process or the one before it.
    pub(super) was_opened: bool,
    /// Nothing more is fed.
    pub(super) stopped: bool,
}

impl Session {
    pub fn join(&mut self, lane: u16, connection: u32, env: &mut Environment) {
        let open = self.standing == Standing::Open;
        match self.lanes.get_mut(usize::from(lane)).filter(|_| open) {
            Some(place) => {
                let intake = Intake { connection, bytes: Vec::new() };
                if let Some(old) = place.replace(intake) {
                    env.met(Met::LaneReplaced);
                    env.close(ME, old.connection);
                }
            }
            None => env.close(ME, connection),
        }
    }

    /// Starts `zfs receive` and the epoch's records.
    pub fn prepare(&mut self, env: &mut Environment) {
        let Some(open) = self.preparing.take() else { return };
        let Stream::Dataset(stream) = &open.request.stream else { panic!("no dataset") };
        if self.listed != env.target.token {
            // A receive that nobody knew of ended just now; ZFS refuses the stream's begin.
            let failure = Failure::new(Side::Target, Class::Wait, "the dataset was modified");
            return self.give_up(failure, env);
        }
        let Some(run) = env.receive() else {
            let failure = Failure::new(Side::Target, Class::Wait, "dataset is busy");
            return self.give_up(failure, env);
        };
        let resumed = env.target.token.is_some();
        let cargo = Cargo::Snapshot { to: stream.to, from: None, raw: false, resumed };
        let (session, transfer, epoch) = (self.id(), open.transfer, open.request.epoch);
        let job = Job { role: role(End::Server), session, transfer, epoch, cargo };
        let recorder = Recorder::open(ME, job, env);
        let always = env.settings.always[ME as usize] && recorder.is_some();
        if always && !env.is_broken(Breakage::AcknowledgeBeforeDurable) {
            self.window.hold_back();
        }
        self.transfer = Some(Transfer { recorder, ..Transfer::new(open.transfer, stream.to, run) });
        self.begin_if_durable(env);
    }

    /// Lets the stream flow once its epoch is durable.
    pub(super) fn begin_if_durable(&mut self, env: &mut Environment) {
        let may_begin = |t: &&mut Transfer| t.run > 0 && !t.begun && !t.stopped;
        let Some(transfer) = self.transfer.as_mut().filter(may_begin) else { return };
        if transfer.recorder.as_ref().is_none_or(|recorder| recorder.has_begun(env)) {
            transfer.begun = true;
            if !std::mem::replace(&mut transfer.was_opened, true) {
                let credit = self.tell_receipt(env).credit;
                self.tell(Input::Prepared(Start::FromStart, credit), env);
            }
            self.tick_again(env);
        }
    }

    pub fn written(&mut self, id: u64, well: bool, env: &mut Environment) {
        let recorder = self.transfer.as_mut().and_then(|transfer| transfer.recorder.as_mut());
        if let Some(recorder) = recorder {
            recorder.written(id, well, env);
            self.begin_if_durable(env);
        }
    }

    /// Bytes of a data connection.
    pub(super) fn take_in(&mut self, connection: u32, bytes: &[u8], env: &mut Environment) {
        let is_it =
            |lane: &Option<Intake>| lane.as_ref().is_some_and(|i| i.connection == connection);
        let Some(lane) = self.lanes.iter().position(is_it) else { return };
        if let Some(intake) = &mut self.lanes[lane] {
            intake.bytes.extend(bytes);
        }
        while self.next_frame(lane, connection, env) {}
    }

    /// Takes one frame that has come whole. `false`: there is none.
    fn next_frame(&mut self, lane: usize, connection: u32, env: &mut Environment) -> bool {
        let Some(intake) = self.lanes[lane].as_mut() else { return false };
        let Some(head) = intake.bytes.first_chunk::<HEADER_BYTES>() else { return false };
        let header = match Header::decode(head, BLOCK_BYTES_MAX) {
            Ok(header) => header,
            Err(error) => {
                assert!(env.network.flipped, "a header that nobody flipped: {error}");
                self.blame(connection, &BTreeSet::new(), env);
                return false;
            }
        };
        if let Err(beyond) = self.window.admit(header.sequence) {
            assert!(self.was_restored(), "an honest sender goes too far: {beyond}");
            self.blame(connection, &BTreeSet::new(), env);
            return false;
        }
        let whole = HEADER_BYTES + header.payload_bytes as usize;
        if intake.bytes.len() < whole {
            return false;
        }
        let frame: Vec<u8> = intake.bytes.drain(..whole).collect();
        let block = Block { header, payload: frame[HEADER_BYTES..].to_vec() };
        self.arrived(lane, connection, block, env);
        true
    }

    fn arrived(&mut self, lane: usize, connection: u32, block: Block, env: &mut Environment) {
        let sequence = block.header.sequence;
        let lane = u32::try_from(lane).expect("few lanes");
        let arrival = self.window.arrive(sequence, lane);
        let Some(transfer) = self.transfer.as_mut().filter(|transfer| !transfer.stopped) else {
            return;
        };
        if arrival == Arrival::Again {
            env.met(Met::CameAgain);
            if env.is_broken(Breakage::TakeTwice) {
                transfer.feeding.get_or_insert((block, 0));
            }
            return;
        }
        let right = crc32fast::hash(&block.payload) == block.header.crc32;
        transfer.proving.push(block);
        let session = self.number;
        let wait = if env.random.chance(10) { 3000 } else { 20 };
        env.soon(wait, self.mine(Event::Proved { session, sequence, connection, right }));
    }

    /// A block was looked at: it is what was sent, or its connection must go.
    pub(super) fn proved(
        &mut self,
        sequence: Sequence,
        connection: u32,
        right: bool,
        env: &mut Environment,
    ) {
        let Some(transfer) = self.transfer.as_mut().filter(|transfer| !transfer.stopped) else {
            return;
        };
        let is_it = |block: &Block| block.header.sequence == sequence;
        let Some(at) = transfer.proving.iter().position(is_it) else { return };
        let block = transfer.proving.remove(at);
        if right {
            self.window.put(sequence, block);
            return self.feed(env);
        }
        assert!(env.network.flipped, "a block that nobody flipped is wrong");
        let copies = self.window.reject(sequence);
        self.rejected.insert(sequence);
        env.met(Met::Rejected);
        if !copies.is_empty() {
            env.met(Met::CopyRejected);
        }
        self.blame(connection, &copies, env);
    }

    /// Wrong bytes came over a connection: it goes, and those of the copies.
    fn blame(&mut self, connection: u32, copies: &BTreeSet<u32>, env: &mut Environment) {
        for (lane, place) in (0..).zip(&mut self.lanes) {
            let is_it = place.as_ref().is_some_and(|i| i.connection == connection);
            if (is_it || copies.contains(&lane))
                && let Some(intake) = place.take()
            {
                env.close(ME, intake.connection);
            }
        }
    }

    pub(super) fn lane_ended(&mut self, connection: u32, env: &mut Environment) {
        self.blame(connection, &BTreeSet::new(), env);
    }

    /// Puts into the pipe what is due and fits.
    pub fn feed(&mut self, env: &mut Environment) {
        let id = self.id();
        let Some(transfer) = self.transfer.as_mut().filter(|t| t.begun && !t.stopped) else {
            return;
        };
        loop {
            if transfer.feeding.is_none() {
                transfer.feeding = transfer.refeed.pop_front().map(|block| (block, 0));
            }
            if transfer.feeding.is_none()
                && let Some(block) = self.window.take()
            {
                transfer.take(&block, env);
                transfer.feeding = Some((block, 0));
            }
            let Some((block, done)) = &mut transfer.feeding else { break };
            let rest = &block.payload[*done..];
            let count = env.feed(transfer.run, rest);
            env.truth.fed(id, transfer.id, transfer.fed.0, &rest[..count]);
            *done += count;
            let whole = *done == block.payload.len();
            transfer.fed = transfer.fed.after(Bytes::from(count)).expect("a stream");
            if !whole {
                break;
            }
            transfer.held.push_back(transfer.fed.0);
            transfer.feeding = None;
        }
        if let Some(recorder) = &mut transfer.recorder
            && transfer.fed > StreamOffset(0)
        {
            recorder.tell(News::Fed { to: transfer.fed }, env);
        }
        let taken = env.target.taken(transfer.run);
        while transfer.held.front().is_some_and(|&end| end <= taken) {
            transfer.held.pop_front();
        }
        self.window.hold(transfer.occupies());
        if self.window.untold() * 4 >= self.window.blocks() {
            self.acknowledge(env);
        }
        self.close_pipe_if_whole(env);
    }

    /// Ends the input of the receive: the stream is whole.
    fn close_pipe_if_whole(&mut self, env: &mut Environment) {
        let Some(transfer) = &mut self.transfer else { return };
        let crc32 = transfer.crc.clone().finalize();
        if let Some(total) = transfer.total
            && total.to == transfer.fed
            && !transfer.stopped
        {
            assert_eq!(total.crc32, crc32, "the stream's CRC32");
            env.end_input(transfer.run);
        }
    }

    pub(super) fn finish(&mut self, ended: Ended, env: &mut Environment) {
        let Some(transfer) = &mut self.transfer else { return };
        transfer.total = Some(Mark { to: ended.total(), crc32: ended.crc32() });
        transfer.ended = Some(ended);
        self.close_pipe_if_whole(env);
    }

    /// Tells the client how far the transfer is.
    pub(super) fn acknowledge(&mut self, env: &mut Environment) {
        let id = self.id();
        let Some(transfer) = self.transfer.as_mut().filter(|t| t.begun && !t.stopped) else {
            return;
        };
        let spooled = transfer.recorder.as_ref().map_or(StreamOffset(0), Recorder::acknowledged);
        let (received, fed) = (transfer.received, transfer.fed);
        let durable = transfer.frame_ends.iter().rev().find(|&(_, &end)| end <= spooled);
        if let Some((sequence, _)) = durable {
            self.window.durable(sequence.next());
        }
        if transfer.recorder.as_ref().is_none_or(Recorder::is_retired) {
            self.window.let_go();
        }
        if spooled > StreamOffset(0) {
            env.met(Met::SpoolAcknowledged);
            env.truth.told = Some((id, transfer.id, spooled));
        }
        let reached = Watermarks { received, spooled, fed };
        let receipt = self.tell_receipt(env);
        self.tell(Input::Progress(reached, receipt), env);
    }

    /// Whoever keeps breakpoint files acknowledges no frame that a durable record does not cover.
    pub(super) fn assert_durable(&self, taken: Sequence, env: &Environment) {
        let Some(transfer) = self.transfer.as_ref() else { return };
        let kept = transfer.recorder.as_ref().is_some_and(|recorder| !recorder.is_retired());
        if !kept || !env.settings.always[ME as usize] || env.disks[ME as usize].lied {
            return;
        }
        let record = newest(ME, env).expect("an epoch is durable before it is acknowledged");
        let last = transfer.frame_ends.range(..taken).next_back();
        let (end, covered) = (last.map(|(_, &end)| end), record.progress.acknowledged.to);
        assert!(end <= Some(covered), "acknowledged {end:?} where {covered} is durable");
    }

    /// The receive has ended.
    pub fn receive_ended(&mut self, run: u32, success: bool, env: &mut Environment) {
        let Some(transfer) = self.transfer.as_ref().filter(|t| t.run == run) else { return };
        let whole = transfer.total.is_some_and(|total| total.to == transfer.fed);
        if transfer.stopped {
            self.transfer = None;
        } else if success || whole && env.is_broken(Breakage::SuccessUnread) {
            env.soon(50, self.mine(Event::ReadBack { session: self.number }));
        } else {
            self.transfer = None;
            let failure = Failure::new(Side::Target, Class::Wait, "zfs receive: out of space");
            self.give_up(failure, env);
        }
    }

    /// The target is read back: it has the snapshot.
    pub(super) fn read_back(&mut self, env: &mut Environment) {
        let unread = env.is_broken(Breakage::SuccessUnread);
        let Some(transfer) = self.transfer.as_mut().filter(|t| !t.stopped) else {
            self.transfer = None;
            return;
        };
        let Some(ended) = transfer.ended.take() else { return };
        if let (Some(recorder), Some(total)) = (&mut transfer.recorder, transfer.total) {
            recorder.tell(News::Ended(total), env);
            recorder.tell(News::Applied, env);
        }
        let guid = env.target.holds.map(Guid).or(unread.then_some(transfer.to));
        self.applied(Input::Applied { ended, guid, millis: 1 }, env);
    }

    /// Ends the transfer before its stream is whole; its receive keeps what it has.
    pub(super) fn stop(&mut self, env: &mut Environment) {
        self.preparing = None;
        if let Some(transfer) = &mut self.transfer {
            if let Some(recorder) = transfer.recorder.as_mut().filter(|_| !transfer.stopped) {
                recorder.tell(News::Abandoned(Class::Interrupted), env);
            }
            transfer.stopped = true;
            env.end_input(transfer.run);
            if env.target.taken(transfer.run) == u64::MAX {
                // It has ended by itself just now.
                self.transfer = None;
            }
        }
    }
}

impl Transfer {
    pub(super) fn new(id: TransferId, to: Guid, run: u32) -> Transfer {
        Transfer {
            id,
            to,
            run,
            recorder: None,
            proving: Vec::new(),
            refeed: VecDeque::new(),
            refed_to: StreamOffset(0),
            feeding: None,
            held: VecDeque::new(),
            received: StreamOffset(0),
            fed: StreamOffset(0),
            crc: crc32fast::Hasher::new(),
            frame_ends: BTreeMap::new(),
            ended: None,
            total: None,
            begun: false,
            was_opened: false,
            stopped: false,
        }
    }

    /// How many of the blocks that came over the network the pipe holds.
    fn occupies(&self) -> usize {
        let refed_to = self.refed_to;
        let feeding = self.feeding.iter().filter(|(block, _)| block.header.offset >= refed_to);
        self.held.iter().filter(|&&end| end > refed_to.0).count() + feeding.count()
    }

    /// A block has its turn.
    fn take(&mut self, block: &Block, env: &mut Environment) {
        let Block { header, payload } = block;
        assert_eq!((header.transfer, header.offset), (self.id, self.received), "out of place");
        self.crc.update(payload);
        self.received = self.received.after(Bytes::from(payload.len())).expect("a stream");
        let mark = Mark { to: self.received, crc32: self.crc.clone().finalize() };
        self.frame_ends.insert(header.sequence, self.received);
        if let Some(recorder) = &mut self.recorder {
            recorder.block(*header, payload, mark, env);
        }
    }
}
