//! The ring of breakpoint records: written, cut short by crashes, damaged, forged, and read back.

use arbitrary::{Result, Unstructured};
use zferry::breakpoint::identity::{
    BootId, FileId, RecordSequence, RingSlots, SessionId,
};
use zferry::breakpoint::record::{
    Cargo, Checksum, Job, Mark, Progress, RECORD_BYTES, Record, Role, SLOT_BYTES,
};
use zferry::breakpoint::recovery::{Damage, Recovered, identify, recover};
use zferry::units::{Sequence, StreamOffset, TransferId};

use crate::{Target, assert_fit_to_be_shown, record};

/// Of each recovery what the slots hold; and what is wrong with each, in words.
pub const TARGET: Target = Target { run, allocated_bytes_max: 4 << 20 };

const FILE: FileId = FileId([7; 16]);

/// Behind a record's sequence.
const SEQUENCE_END: usize = 48;

const STEPS_MAX: usize = 24;

/// The size of the ring, and then what happens to it, step by step.
fn run(input: &[u8]) {
    let Some((&slots, steps)) = input.split_first() else { return };
    let mut disk = Disk::new(3 + u32::from(slots % 4));
    // Where the input ends, the story does.
    let _ = play(&mut disk, &mut Unstructured::new(steps));
    disk.check();
}

fn play(disk: &mut Disk, input: &mut Unstructured<'_>) -> Result<()> {
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        match input.arbitrary::<u8>()? % 8 {
            0..=2 => disk.write(SLOT_BYTES, input.arbitrary()?),
            3 => {
                let arrived = usize::from(input.arbitrary::<u16>()?) % SLOT_BYTES;
                disk.write(arrived, input.arbitrary()?);
                disk.recover();
            }
            4 => disk.recover(),
            5 => {
                let at = usize::from(input.arbitrary::<u16>()?);
                disk.flip(at, input.arbitrary()?);
            }
            6 => disk.copy(input.arbitrary()?, input.arbitrary()?),
            _ => {
                let at = usize::from(input.arbitrary::<u8>()?);
                let length = usize::from(input.arbitrary::<u8>()?);
                disk.forge(at, input.bytes(length.min(input.len()))?);
            }
        }
    }
    Ok(())
}

/// A ring, and what was written to it.
#[expect(clippy::struct_excessive_bools, reason = "each is something that happened or did not")]
struct Disk {
    ring: RingSlots,
    image: Vec<u8>,
    /// All records that ever were.
    written: Vec<Record>,
    /// Those that the process knows: after a crash they end with the one that was found.
    known: Vec<Record>,
    next: RecordSequence,
    /// The highest number of which enough has arrived to be seen.
    seen: Option<RecordSequence>,
    /// Whether the next record names the one before it: not the first after a crash.
    goes_on: bool,
    /// Whether nothing but crashes has harmed it.
    is_honest: bool,
    /// Whether nobody has made up records for it.
    is_ours: bool,
    /// Whether no write was cut that followed one which was cut, too.
    is_calm: bool,
    last_was_whole: bool,
}

impl Disk {
    fn new(slots: u32) -> Disk {
        Disk {
            ring: RingSlots::new(slots).expect("there are two at least"),
            image: [0].repeat(slots as usize * SLOT_BYTES),
            written: Vec::new(),
            known: Vec::new(),
            next: RecordSequence::FIRST,
            seen: None,
            goes_on: false,
            is_honest: true,
            is_ours: true,
            is_calm: true,
            last_was_whole: true,
        }
    }

    /// Writes the next record, of which so many bytes arrive; the stream has come further.
    fn write(&mut self, arrived: usize, further: u16) {
        let before = self.known.last();
        let received = before.map_or(0, |before| before.progress.received.0.min(1 << 60));
        let parent = before.filter(|_| self.goes_on).map(Record::checksum);
        let record = record_of(self.ring, self.next, parent, received + u64::from(further));
        self.written.push(record);
        self.known.push(record);
        let place = self.next.slot(self.ring).0 as usize * SLOT_BYTES;
        self.image[place..][..arrived].copy_from_slice(&record.encode_slot()[..arrived]);
        let is_whole = arrived >= RECORD_BYTES;
        self.is_calm &= is_whole || self.last_was_whole;
        self.last_was_whole = is_whole;
        if arrived >= SEQUENCE_END {
            self.seen = self.seen.max(Some(self.next));
        }
        (self.next, self.goes_on) = (self.next.next(), true);
    }

    /// What a new process does that finds the ring.
    fn recover(&mut self) {
        let recovered = self.check();
        (self.next, self.goes_on) = (recovered.next_sequence, false);
        self.known = recovered.newest.into_iter().collect();
    }

    fn flip(&mut self, at: usize, bits: u8) {
        let at = at % self.image.len();
        self.image[at] ^= bits;
        self.is_honest &= bits == 0;
    }

    fn copy(&mut self, from: u8, to: u8) {
        let place = |slot: u8| (u32::from(slot) % self.ring.get()) as usize * SLOT_BYTES;
        let (from, to) = (place(from), place(to));
        self.image.copy_within(from..from + SLOT_BYTES, to);
        self.is_honest &= from == to;
    }

    /// One copy of a record, with the right checksum over whatever it says.
    fn forge(&mut self, at: usize, front: &[u8]) {
        let copies = self.image.as_chunks_mut::<RECORD_BYTES>().0;
        let at = at % copies.len();
        let mut bytes = copies[at];
        bytes[..front.len()].copy_from_slice(front);
        copies[at] = record::sealed(bytes);
        (self.is_honest, self.is_ours) = (false, false);
    }

    /// Whatever happened, a record is found that was written, and no number is given twice.
    fn check(&self) -> Recovered {
        let recovered = recover(&self.image, self.ring, FILE);
        for damage in &recovered.damage {
            assert_fit_to_be_shown(&damage.to_string(), 300);
        }
        if let Some(newest) = recovered.newest {
            assert!(newest.sequence < recovered.next_sequence, "{recovered:?}");
            assert_eq!((newest.file, newest.ring), (FILE, self.ring), "{recovered:?}");
            assert!(!self.is_ours || self.written.contains(&newest), "{recovered:?}");
        }
        assert!(!self.is_ours || identify(&self.image).is_none_or(|file| file == FILE));
        if self.is_honest {
            self.check_honest(&recovered);
        }
        recovered
    }

    /// Where crashes alone have harmed it, it is the last record or the one before that. Not where
    /// a small ring has come round to it by writes in vain alone.
    fn check_honest(&self, recovered: &Recovered) {
        if !self.is_calm {
            return;
        }
        let known = &self.known;
        let is_late = match &recovered.newest {
            Some(newest) => known.iter().rev().take(2).any(|record| record == newest),
            None => known.len() < 2,
        };
        assert!(is_late, "{recovered:?} of {known:?}");
        assert!(self.seen < Some(recovered.next_sequence), "{recovered:?} after {:?}", self.seen);
        assert!(recovered.damage.iter().all(Damage::is_ordinary), "{recovered:?}");
    }
}

fn record_of(
    ring: RingSlots,
    sequence: RecordSequence,
    parent: Option<Checksum>,
    received: u64,
) -> Record {
    let job = Job {
        role: Role::Server,
        session: SessionId([2; 16]),
        transfer: TransferId(1),
        epoch: 1,
        cargo: Cargo::Pipe,
    };
    let received = StreamOffset(received);
    let acknowledged = Mark { to: received, crc32: u32::from(received.0 > 0) };
    let next_frame = Sequence(received.0);
    let progress =
        Progress { received, fed: received, acknowledged, next_frame, ..Progress::BEGUN };
    let (boot, wall_clock_ms) = (BootId([3; 16]), sequence.get());
    Record { file: FILE, ring, sequence, parent, job, progress, boot, wall_clock_ms }
}
