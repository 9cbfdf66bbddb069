//! When a record is written, and what may be said and deleted because of it.
//!
//! News of the engine goes in, orders come out. Four rules, in their order on the data's way: the
//! data is durable before the record that claims it; the record is durable before anybody is told;
//! two records say that a segment is not needed before it is deleted; and after the first error of
//! a write nothing is written or said any more. An epoch's first record is durable before its
//! first byte flows. What is acknowledged from memory alone, without breakpoint files, does not
//! come by here.

mod rules;
#[cfg(test)]
mod tests;

pub use self::rules::{Rule, Rules};
use super::identity::{BootId, FileId, RecordSequence, RingSlots};
use super::record::{Checksum, Job, Mark, Progress, Record, Role, SegmentNumber, State};
pub use super::spans::Span;
use super::spans::Spans;
use crate::error::Class;
use crate::units::{Bytes, Sequence, StreamOffset};

/// What a keeper is told once.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The file that it writes.
    pub file: FileId,
    /// The file's ring.
    pub ring: RingSlots,
    /// The boot that this process runs in.
    pub boot: BootId,
    /// What is carried.
    pub job: Job,
    /// How many bytes may pass before a record is due: what a crash costs at most, in bytes sent
    /// again. A tick writes one sooner.
    pub interval: Bytes,
    /// The length of each segment.
    pub segment_bytes: Bytes,
    /// What makes a byte of the spool superfluous.
    pub release: Release,
    /// The rules that are kept: all of them, but for tests.
    pub rules: Rules,
}

/// What makes a spooled byte superfluous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Nothing, before the whole transfer is applied: the spool is the only copy, or is to be fed
    /// again from byte 0.
    Never,
    /// That our pipe took it.
    Fed,
    /// That the peer acknowledged it.
    PeerAcknowledged,
}

/// How far a stream is at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// The place.
    pub mark: Mark,
    /// The number of the frame behind it.
    pub next_frame: Sequence,
}

/// How far a stream had come that goes on from its breakpoint files; all zero for a new one.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// The end of what is durable in breakpoint files, each frame of it checked again.
    pub written: Mark,
    /// The segments that hold it.
    pub spans: Vec<Span>,
    /// What was taken by the pipe of this epoch.
    pub fed: StreamOffset,
    /// What the peer acknowledged.
    pub acknowledged: Mark,
    /// The number of the next frame.
    pub next_frame: Sequence,
    /// The stream's end, if it is known.
    pub end: Option<Mark>,
}

/// What goes in. Places only grow, and were checked if a peer named them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A while has passed, or the keeper is to begin: what is not yet recorded is recorded now.
    Tick {
        /// The time of day, for people.
        wall_clock_ms: u64,
    },
    /// The stream before this place is in memory.
    Received {
        /// The place.
        mark: Mark,
        /// The number of the frame behind it.
        next_frame: Sequence,
    },
    /// A part of the stream is durable in a segment.
    Written {
        /// Where the part begins: at the end of the last one; at a client also behind a gap, in a
        /// new segment.
        from: StreamOffset,
        /// Where it ends.
        mark: Mark,
        /// The segment.
        segment: SegmentNumber,
    },
    /// The stream before this place was taken by the pipe, or by the sockets.
    Fed {
        /// The place.
        to: StreamOffset,
    },
    /// The peer has acknowledged the stream before this place.
    PeerAcknowledged(Mark),
    /// The record that was to be written is durable.
    Recorded {
        /// Which one.
        sequence: RecordSequence,
    },
    /// The stream's end is known; at a server it may be ahead of what has arrived.
    Ended(Mark),
    /// The target holds the snapshot: all of the stream.
    Applied,
    /// Nothing goes on from here.
    Abandoned(Class),
    /// A write of a record or of a segment has failed.
    Failed,
}

/// What comes out, to be done in order.
// An order lives as long as one call; a box would be an allocation for each record.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write this record to its slot; answer with [`Input::Recorded`] or [`Input::Failed`].
    WriteRecord(Record),
    /// The epoch is durable: its first byte may flow.
    Begun,
    /// Tell the peer that the stream before this place is durable.
    Acknowledge(Mark),
    /// Segments before this one may be deleted.
    Trim {
        /// The first that must stay.
        before: SegmentNumber,
    },
    /// A durable record says so.
    Stated(State),
    /// Breakpoint files are of no use any more: close them, mark them bad, say so.
    Retired,
}

/// Keeps the records of one epoch of one transfer.
#[derive(Debug)]
pub struct Keeper {
    settings: Settings,
    now: Now,
    spans: Spans,
    next: RecordSequence,
    /// The record before `next`, if it was ours.
    parent: Option<Checksum>,
    in_flight: Option<Record>,
    /// What the two newest durable records say, the newest first.
    durable: [Option<Progress>; 2],
    /// Something is to be recorded although few bytes have passed.
    pressed: bool,
    retired: bool,
    wall_clock_ms: u64,
}

/// The truth as the engine told it.
#[derive(Clone, Copy, Debug)]
struct Now {
    state: State,
    received: Mark,
    written: Mark,
    fed: StreamOffset,
    acknowledged: Mark,
    next_frame: Sequence,
    end: Option<Mark>,
    last_error: Option<Class>,
}

impl Keeper {
    /// A keeper for a new epoch that goes on from `kept`; its first record, due at the first tick,
    /// has the sequence `next`: that of [`recover`](super::recovery::recover).
    ///
    /// # Panics
    ///
    /// When the spans are out of order, or do not end with what was written.
    pub fn new(settings: Settings, next: RecordSequence, kept: Kept) -> Keeper {
        let Kept { written, spans, fed, acknowledged, next_frame, end } = kept;
        let spooled = spans.last().map_or(StreamOffset(0), |span| span.high);
        assert_eq!(spooled, written.to, "the segments end elsewhere");
        let furthest = if acknowledged.to > written.to { acknowledged } else { written };
        let state = if end.is_some() { State::Ended } else { State::Streaming };
        let (received, fed) = (furthest, fed.min(furthest.to));
        let last_error = None;
        let now = Now { state, received, written, fed, acknowledged, next_frame, end, last_error };
        Keeper {
            settings,
            now,
            spans: Spans::new(spans),
            next,
            parent: None,
            in_flight: None,
            durable: [None; 2],
            pressed: false,
            retired: false,
            wall_clock_ms: 0,
        }
    }

    /// Takes one piece of news; what is to be done is appended to `orders`.
    ///
    /// # Panics
    ///
    /// When the news contradict what was said before: the engine has lost its place.
    pub fn handle(&mut self, input: Input, orders: &mut Vec<Output>) {
        if self.retired {
            return;
        }
        self.absorb(input, orders);
        if !self.retired && self.in_flight.is_none() && self.is_due() {
            self.write(orders);
        }
    }

    fn absorb(&mut self, input: Input, orders: &mut Vec<Output>) {
        if matches!(input, Input::Received { .. } | Input::Written { .. } | Input::Fed { .. }) {
            assert!(self.durable[0].is_some(), "{input:?} before the epoch is durable");
        }
        match input {
            Input::Tick { wall_clock_ms } => {
                self.wall_clock_ms = wall_clock_ms;
                self.pressed |= self.has_news();
            }
            Input::Received { mark, next_frame } => {
                self.now.received.grow(mark);
                self.now.assert_within_end();
                self.now.next_frame = self.now.next_frame.max(next_frame);
            }
            Input::Written { from, mark, segment } => self.written(from, mark, segment, orders),
            Input::Fed { to } => {
                assert!(to <= self.now.received.to, "fed more than was received");
                self.now.fed = self.now.fed.max(to);
            }
            Input::PeerAcknowledged(mark) => {
                assert!(mark.to <= self.now.received.to, "acknowledged more than was read");
                self.now.acknowledged.grow(mark);
            }
            Input::Recorded { sequence } => self.recorded(sequence, orders),
            Input::Ended(mark) => {
                assert!(self.now.end.is_none_or(|end| end == mark), "the end moves to {mark:?}");
                self.now.end = Some(mark);
                self.now.assert_within_end();
                self.turn(State::Ended);
            }
            Input::Applied => {
                assert_eq!(self.now.end, Some(self.now.received), "applied before its end");
                self.turn(State::Applied);
            }
            Input::Abandoned(class) => {
                self.now.last_error = Some(class);
                self.turn(State::Abandoned);
            }
            Input::Failed => {
                self.retired = true;
                orders.push(Output::Retired);
            }
        }
    }

    fn turn(&mut self, state: State) {
        self.now.state = state;
        self.pressed = true;
    }

    fn written(
        &mut self,
        from: StreamOffset,
        mark: Mark,
        segment: SegmentNumber,
        orders: &mut Vec<Output>,
    ) {
        assert!(from >= self.now.written.to, "the spool goes back to {from}");
        // It acknowledges all before the mark.
        let may_leave_out = self.settings.job.role == Role::Client;
        assert!(
            may_leave_out || from == self.now.written.to,
            "a server leaves out bytes at {from}"
        );
        assert!(mark.to <= self.now.received.to, "spooled more than was received");
        self.spans.append(Span { segment, low: from, high: mark.to });
        self.now.written.grow(mark);
        if !self.keeps(Rule::RecordBeforeAcknowledgement) {
            orders.push(Output::Acknowledge(mark));
        }
    }

    fn recorded(&mut self, sequence: RecordSequence, orders: &mut Vec<Output>) {
        let record = self.in_flight.take();
        let record = record.filter(|record| record.sequence == sequence);
        let record = record.unwrap_or_else(|| panic!("record {sequence} was not being written"));
        let before = self.durable[0].replace(record.progress);
        self.durable[1] = before;
        self.parent = Some(record.checksum());
        let acknowledged = |progress: Progress| progress.acknowledged.to;
        match before {
            None => orders.push(Output::Begun),
            Some(before) if before.state != record.progress.state => {
                orders.push(Output::Stated(record.progress.state));
            }
            Some(_) => {}
        }
        let told = before.map_or(StreamOffset(0), acknowledged);
        if self.settings.job.role == Role::Server && acknowledged(record.progress) > told {
            orders.push(Output::Acknowledge(record.progress.acknowledged));
        }
        self.trim(orders);
    }

    /// Deletes what the two newest durable records do not claim, and nobody wants.
    fn trim(&mut self, orders: &mut Vec<Output>) {
        let say_so = if self.keeps(Rule::RecordTwiceBeforeTrim) { 2 } else { 1 };
        let first = |progress: &Progress| progress.spool.map(|spool| spool.first_segment);
        let claims = self.durable[..say_so].iter().map(|said| said.as_ref().and_then(first));
        // A missing record counts as one that claims everything.
        let Some(claimed) = claims.min().flatten() else { return };
        if let Some(before) = self.spans.trim(self.released(), claimed) {
            orders.push(Output::Trim { before });
        }
    }

    fn is_due(&self) -> bool {
        let Some(said) = self.durable[0] else {
            // The first record, at the first tick.
            return self.pressed;
        };
        let Now { fed, acknowledged, written, .. } = self.now;
        let passed = |now: StreamOffset, then: StreamOffset| now.0.saturating_sub(then.0);
        let bytes = passed(written.to, said.spooled)
            .max(passed(fed, said.fed))
            .max(passed(acknowledged.to, said.acknowledged.to));
        self.pressed || bytes >= self.settings.interval.0.max(1)
    }

    /// Whether a record would say something that no durable one does, or would make a segment
    /// superfluous by saying it again.
    fn has_news(&self) -> bool {
        let [Some(said), before] = self.durable else { return true };
        let first = said.spool.map(|spool| spool.first_segment);
        let repeat = before.is_none_or(|before| before.spool.map(|s| s.first_segment) != first);
        said != self.progress() || (repeat && self.spans.first() != first)
    }

    fn write(&mut self, orders: &mut Vec<Output>) {
        let Settings { file, ring, boot, job, .. } = self.settings;
        let (sequence, progress) = (self.next, self.progress());
        let (parent, wall_clock_ms) = (self.parent, self.wall_clock_ms);
        let record = Record { file, ring, sequence, parent, job, progress, boot, wall_clock_ms };
        self.assert_true(&record);
        self.next = sequence.next();
        self.pressed = false;
        self.in_flight = Some(record);
        orders.push(Output::WriteRecord(record));
    }

    /// What a record would say now.
    fn progress(&self) -> Progress {
        let Now { state, received, fed, acknowledged, next_frame, end, last_error, .. } = self.now;
        let claimed = self.claimed();
        let mut spool = self.spans.extent(self.released(), self.settings.segment_bytes);
        if let Some(spool) = &mut spool {
            spool.high = claimed.to;
        }
        let acknowledged = match self.settings.job.role {
            Role::Server => claimed,
            Role::Client => acknowledged,
        };
        Progress {
            state,
            received: received.to,
            spooled: spool.map_or(StreamOffset(0), |spool| spool.high),
            fed,
            acknowledged,
            next_frame,
            end,
            spool,
            last_error,
        }
    }

    /// What a record says is durable: what is.
    fn claimed(&self) -> Mark {
        if self.keeps(Rule::DataBeforeRecord) { self.now.written } else { self.now.received }
    }

    /// What nobody will ask for again.
    fn released(&self) -> StreamOffset {
        match self.settings.release {
            Release::Never => StreamOffset(0),
            Release::Fed => self.now.fed,
            Release::PeerAcknowledged => self.now.acknowledged.to,
        }
    }

    fn keeps(&self, rule: Rule) -> bool {
        self.settings.rules.keeps(rule)
    }

    /// Once more, where it leaves us: a record says no more than is true.
    fn assert_true(&self, record: &Record) {
        let progress = &record.progress;
        let true_or_broken = progress.spooled <= self.now.written.to
            && (self.settings.job.role == Role::Client
                || progress.acknowledged.to <= self.now.written.to);
        assert!(true_or_broken || !self.keeps(Rule::DataBeforeRecord), "{progress:?}");
    }
}

impl Now {
    fn assert_within_end(&self) {
        let Now { received, end, .. } = *self;
        let within = end.is_none_or(|end| received.to < end.to || received == end);
        assert!(within, "{received:?} is not on the way to the end at {end:?}");
    }
}

impl Mark {
    /// Moves on to a place that is further, or stays.
    ///
    /// # Panics
    ///
    /// When the same place has another CRC32: then it is another stream.
    fn grow(&mut self, to: Mark) {
        assert!(self.to != to.to || self.crc32 == to.crc32, "two streams: {self:?}, {to:?}");
        if to.to > self.to {
            *self = to;
        }
    }
}
