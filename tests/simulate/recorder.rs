//! The records and breakpoint files of one end, kept by the real keeper on a disk that may fail.
//!
//! Every order of the keeper is held against what is durable at that moment, read back by the real
//! recovery: as if the power went just then.

use std::collections::VecDeque;

use zferry::breakpoint::identity::{BootId, RecordSequence, SessionId};
use zferry::breakpoint::keeper::{Input, Keeper, Kept, Output, Release, Rules, Settings};
use zferry::breakpoint::record::{Job, Mark, Progress, Role, SLOT_BYTES, SegmentNumber};
use zferry::breakpoint::segment::{ENTRY_HEADER, Entry, PAGE_BYTES, Position, SegmentPages};
use zferry::protocol::frame::Header;
use zferry::units::{Bytes, StreamOffset};

use super::aftermath::{file_of, inspect, newest, previous, ring};
use super::breakage::Breakage;
use super::disk::File;
use super::environment::{End, Environment};
use super::met::Met;
use super::remains::Remains;

/// How many bytes pass before a record is due.
const INTERVAL: Bytes = Bytes(300);

#[derive(Debug)]
pub struct Recorder {
    end: End,
    keeper: Keeper,
    spooled: bool,
    pages: SegmentPages,
    next: Position,
    /// Blocks that are being written, in the order of the stream.
    writing: VecDeque<Writing>,
    record: Option<(u64, RecordSequence)>,
    begun: bool,
    /// Files of the epoch before, until this one has begun.
    superseded: Vec<u32>,
    retired: bool,
    acknowledged: Mark,
}

#[derive(Clone, Copy, Debug)]
struct Writing {
    id: u64,
    from: StreamOffset,
    mark: Mark,
    segment: SegmentNumber,
    done: bool,
}

impl Recorder {
    /// Begins an epoch; `None` where an error has retired the file.
    pub fn open(end: End, job: Job, env: &mut Environment) -> Option<Recorder> {
        let retired = env.truth.retired[end as usize];
        if retired && !env.is_broken(Breakage::WriteAfterError) {
            return None;
        }
        if !env.disk(end).settle() {
            // A write of the session before.
            env.truth.retired[end as usize] = true;
            return None;
        }
        let superseded = env.disk(end).segments();
        Some(Recorder::start(end, job, Kept::default(), superseded, env))
    }

    /// Goes on with the epoch of a process that died.
    pub fn resume(end: End, remains: &Remains, env: &mut Environment) -> Option<Recorder> {
        if !env.disk(end).settle() {
            env.truth.retired[end as usize] = true;
            return None;
        }
        let Progress { acknowledged, next_frame, end: total, .. } = remains.record.progress;
        let (written, spans) = (remains.written(), remains.spans.clone());
        let next_frame = if end == End::Client { next_frame } else { remains.next() };
        let fed = StreamOffset(0);
        let kept = Kept { written, spans, fed, acknowledged, next_frame, end: total };
        let recorder = Recorder::start(end, remains.record.job, kept, Vec::new(), env);
        // What was written and never claimed is not to be taken for what is written now.
        let claimed: Vec<u32> = remains.spans.iter().map(|span| span.segment.0).collect();
        if !claimed.is_empty() {
            env.disk(end).cut_off(&claimed, remains.behind);
        }
        Some(recorder)
    }

    fn start(
        end: End,
        job: Job,
        kept: Kept,
        superseded: Vec<u32>,
        env: &mut Environment,
    ) -> Recorder {
        let next = inspect(end, env);
        if env.disk(end).read(File::Records).is_empty() {
            env.disk(end).create(File::Records, ring().get() as usize * SLOT_BYTES);
        }
        let first = env.disk(end).segments().iter().max().map_or(0, |last| last + 1);
        let pages = SegmentPages::new(4).expect("room for an entry");
        let rules = match env.broken {
            Some(Breakage::Keeper(rule) | Breakage::KeeperOfAll(rule)) => Rules::broken(rule),
            _ => Rules::KEPT,
        };
        let release = match end {
            End::Client => Release::PeerAcknowledged,
            End::Server if env.settings.always[end as usize] => Release::Never,
            End::Server => Release::Fed,
        };
        let settings = Settings {
            file: file_of(end),
            ring: ring(),
            boot: BootId([1; 16]),
            job,
            interval: INTERVAL,
            segment_bytes: pages.bytes(),
            release,
            rules,
        };
        let acknowledged = kept.written;
        let mut recorder = Recorder {
            end,
            keeper: Keeper::new(settings, next, kept),
            spooled: env.settings.spooled[end as usize],
            pages,
            next: Position { segment: SegmentNumber(first), page: 0 },
            writing: VecDeque::new(),
            record: None,
            begun: false,
            superseded,
            retired: false,
            acknowledged,
        };
        recorder.tick(env);
        recorder
    }

    /// Whether an error has ended the use of its files.
    pub fn is_retired(&self) -> bool {
        self.retired
    }

    /// Whether bytes of the epoch may flow.
    pub fn has_begun(&self, env: &Environment) -> bool {
        self.begun || self.retired || env.is_broken(Breakage::EpochAfterFirstByte)
    }

    /// What may be called durable.
    pub fn acknowledged(&self) -> StreamOffset {
        self.acknowledged.to
    }

    pub fn tick(&mut self, env: &mut Environment) {
        let wall_clock_ms = u64::try_from(env.now.as_millis()).expect("a short run");
        self.tell(Input::Tick { wall_clock_ms }, env);
    }

    /// A block of the stream is here, all before it as well.
    pub fn block(&mut self, header: Header, payload: &[u8], mark: Mark, env: &mut Environment) {
        if self.retired {
            return;
        }
        assert!(self.begun, "a byte of an epoch that is not durable");
        self.tell(Input::Received { mark, next_frame: header.sequence.next() }, env);
        if self.spooled && !self.retired {
            self.spool(header, payload, mark, env);
        }
    }

    fn spool(&mut self, header: Header, payload: &[u8], mark: Mark, env: &mut Environment) {
        let (at, behind) =
            self.next.place(header.payload_bytes, self.pages).expect("blocks fit in segments");
        if at.page == 0 {
            let length = self.pages.get() as usize * PAGE_BYTES;
            env.disk(self.end).create(File::Segment(at.segment.0), length);
        }
        self.next = behind;
        let entry = Entry { at, frame: header, payload_crc32: crc32fast::hash(payload) };
        let mut bytes = [0xdd].repeat(entry.pages() as usize * PAGE_BYTES);
        bytes[ENTRY_HEADER].copy_from_slice(&entry.encode(file_of(self.end)));
        bytes[PAGE_BYTES..][..payload.len()].copy_from_slice(payload);
        let file_offset = at.file_offset().as_usize();
        let file = File::Segment(at.segment.0);
        let id = env.write_file(self.end, file, file_offset, bytes);
        let (from, segment) = (header.offset, at.segment);
        self.writing.push_back(Writing { id, from, mark, segment, done: false });
    }

    pub fn tell(&mut self, input: Input, env: &mut Environment) {
        if self.retired {
            return;
        }
        let mut orders = Vec::new();
        self.keeper.handle(input, &mut orders);
        for order in orders {
            self.obey(order, env);
        }
    }

    /// A write has ended, of this recorder or of another one.
    pub fn written(&mut self, id: u64, well: bool, env: &mut Environment) {
        if let Some((_, sequence)) = self.record.filter(|&(record, _)| record == id) {
            self.record = None;
            let input = if well { Input::Recorded { sequence } } else { Input::Failed };
            self.tell(input, env);
        } else if let Some(writing) = self.writing.iter_mut().find(|writing| writing.id == id) {
            writing.done = true;
            if !well {
                self.tell(Input::Failed, env);
            }
        }
        while let Some(&Writing { from, mark, segment, .. }) =
            self.writing.front().filter(|front| front.done)
        {
            self.writing.pop_front();
            self.tell(Input::Written { from, mark, segment }, env);
        }
    }

    fn obey(&mut self, order: Output, env: &mut Environment) {
        match order {
            Output::WriteRecord(record) => {
                let end = self.end as usize;
                let given = env.truth.sequences[end].replace(record.sequence);
                assert!(Some(record.sequence) > given, "a sequence is used again");
                assert!(!env.truth.retired[end], "a retired file is written");
                let at = record.slot().0 as usize * SLOT_BYTES;
                let bytes = record.encode_slot().to_vec();
                let id = env.write_file(self.end, File::Records, at, bytes);
                self.record = Some((id, record.sequence));
            }
            Output::Begun => {
                self.begun = true;
                for segment in std::mem::take(&mut self.superseded) {
                    env.disk(self.end).delete(File::Segment(segment));
                }
            }
            Output::Acknowledge(mark) => {
                if !env.disk(self.end).lied {
                    let said = newest(self.end, env).map(|record| record.progress.acknowledged.to);
                    assert!(said >= Some(mark.to), "acknowledged before it was recorded");
                }
                self.acknowledged = mark;
            }
            Output::Trim { before } => self.trim(before, env),
            Output::Stated(_) => {}
            Output::Retired => {
                env.say(|| format!("{:?} retires its record file", self.end));
                self.retired = true;
                env.met(Met::Retired);
                self.writing.clear();
                // What they hold is not to be believed by a process after this one.
                for segment in env.disk(self.end).segments() {
                    env.disk(self.end).delete(File::Segment(segment));
                }
                env.truth.retired[self.end as usize] = true;
            }
        }
    }

    fn trim(&mut self, before: SegmentNumber, env: &mut Environment) {
        if !env.disk(self.end).lied {
            for record in [newest(self.end, env), previous(self.end, env)] {
                let claims = record.and_then(|record| record.progress.spool);
                let first = claims.map(|spool| spool.first_segment);
                assert!(first >= Some(before), "a segment is deleted that a record claims");
            }
        }
        for segment in env.disk(self.end).segments() {
            if segment < before.0 {
                env.met(Met::Trimmed);
                env.disk(self.end).delete(File::Segment(segment));
            }
        }
    }
}

/// The role of an end.
pub fn role(end: End) -> Role {
    match end {
        End::Client => Role::Client,
        End::Server => Role::Server,
    }
}

/// A session as records name it: another number than its secret.
pub fn session_id(secret: zferry::protocol::secret::JoinSecret) -> SessionId {
    let number = u128::from_str_radix(&String::from(secret), 16).expect("hexadecimal");
    SessionId((!number).to_be_bytes())
}
