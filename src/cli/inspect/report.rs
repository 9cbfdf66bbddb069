//! What the bytes of a file come to: which kind it is, what counts in it, whether it is sound.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use crate::breakpoint::identity::{FileId, RingSlots};
use crate::breakpoint::record::SegmentNumber;
use crate::breakpoint::recovery::{self, Damage, Recovered, recover, survey};
use crate::breakpoint::segment::{self, End, Scan};
use crate::breakpoint::slot::Slot;
use crate::spool::names::Names;
use crate::units::{Bytes, StreamOffset};

/// What a file is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it was written, but for a write that a crash cut short.
    Sound,
    /// Something was lost, and a transfer can still go on from it.
    Damaged,
    /// Nothing is left to go on from.
    Unusable,
}

/// What a file holds.
#[derive(Debug)]
pub(super) enum Report {
    Records(Box<Records>),
    Segment(Segment),
}

/// A record file.
#[derive(Debug)]
pub(super) struct Records {
    /// `None` where not even one record is whole.
    pub file: Option<FileId>,
    pub slots: Vec<Slot>,
    pub recovered: Recovered,
}

/// A breakpoint file.
#[derive(Debug)]
pub(super) struct Segment {
    /// `None` where not even the first entry's header is whole.
    pub named: Option<(FileId, SegmentNumber)>,
    pub scan: Scan,
}

/// What a record file is about, if that stands beside it.
pub(super) fn names_beside(path: &Path) -> Option<Names> {
    Names::read(&Names::beside(path)).ok()
}

impl Verdict {
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Sound => 0,
            Verdict::Damaged => 1,
            Verdict::Unusable => 2,
        }
    }
}

impl Report {
    /// `None` for a file of neither kind.
    pub fn of(bytes: &[u8]) -> Option<Report> {
        if segment::looks_like_segment(bytes) {
            return Some(Report::Segment(Segment::of(bytes)));
        }
        let is_new = Bytes::from(bytes.len()) == Records::BYTES && bytes.iter().all(|&b| b == 0);
        let is_ours = is_new || recovery::looks_like_records(bytes);
        is_ours.then(|| Report::Records(Box::new(Records::of(bytes))))
    }

    pub fn verdict(&self) -> Verdict {
        match self {
            Report::Records(records) => records.verdict(),
            Report::Segment(segment) => segment.verdict(),
        }
    }

    /// The same for programs; with `all`, every slot or entry too.
    pub fn json(&self, path: &Path, all: bool) -> Value {
        let mut object = match self {
            Report::Records(records) => records.json(all),
            Report::Segment(segment) => segment.json(all),
        };
        object["path"] = json!(path.to_string_lossy());
        object["verdict"] = json!(self.verdict());
        if let Some(names) = names_beside(path) {
            object["names"] = json!(names);
        }
        object
    }
}

impl Records {
    /// The length of a record file.
    const BYTES: Bytes = Bytes(256 << 10);

    fn of(bytes: &[u8]) -> Records {
        let file = recovery::identify(bytes);
        let (ring, named) = (RingSlots::STANDARD, file.unwrap_or_default());
        let recovered = recover(bytes, ring, named);
        Records { file, slots: survey(bytes, ring, named), recovered }
    }

    fn verdict(&self) -> Verdict {
        let Recovered { newest, damage, .. } = &self.recovered;
        match newest {
            _ if damage.iter().all(Damage::is_ordinary) => Verdict::Sound,
            Some(_) => Verdict::Damaged,
            None => Verdict::Unusable,
        }
    }

    fn json(&self, all: bool) -> Value {
        let Recovered { newest, next_sequence, damage } = &self.recovered;
        let told = |damage: &Damage| {
            let mut told = json!(damage);
            told["text"] = json!(damage.to_string());
            told["ordinary"] = json!(damage.is_ordinary());
            told
        };
        let mut object = json!({
            "kind": "records",
            "file": self.file,
            "newest": newest,
            "next_sequence": next_sequence,
            "damage": damage.iter().map(told).collect::<Vec<_>>(),
        });
        if all {
            object["slots"] = json!(self.slots);
        }
        object
    }
}

impl Segment {
    fn of(bytes: &[u8]) -> Segment {
        let named = segment::identify(bytes);
        let (file, number) = named.unwrap_or_default();
        // What block size was agreed is not known here; the file's length is limit enough.
        let scan = segment::scan(bytes, file, number, Bytes(u32::MAX.into()));
        Segment { named, scan }
    }

    /// From where to where of the stream its entries go.
    pub fn stream(&self) -> Option<(StreamOffset, StreamOffset)> {
        let (first, last) = (self.scan.entries.first()?, self.scan.entries.last()?);
        let plain_bytes = Bytes(last.frame.plain_bytes.into());
        Some((first.frame.offset, last.frame.offset.after(plain_bytes)?))
    }

    fn verdict(&self) -> Verdict {
        match self.scan.end {
            End::Full | End::Blank { .. } => Verdict::Sound,
            End::Broken { .. } if self.scan.entries.is_empty() => Verdict::Unusable,
            End::Broken { .. } => Verdict::Damaged,
        }
    }

    fn json(&self, all: bool) -> Value {
        let Scan { entries, end } = &self.scan;
        let damage = matches!(end, End::Broken { .. }).then(|| end.to_string());
        let mut object = json!({
            "kind": "segment",
            "file": self.named.map(|(file, _)| file),
            "segment": self.named.map(|(_, segment)| segment),
            "blocks": entries.len(),
            "low": self.stream().map(|(low, _)| low),
            "high": self.stream().map(|(_, high)| high),
            "end": end.to_string(),
            "damage": damage,
        });
        if all {
            let entry = |entry: &segment::Entry| {
                json!({
                    "page": entry.at.page,
                    "transfer": entry.frame.transfer,
                    "epoch": entry.frame.epoch,
                    "sequence": entry.frame.sequence,
                    "offset": entry.frame.offset,
                    "codec": entry.frame.codec,
                    "plain_bytes": entry.frame.plain_bytes,
                    "payload_bytes": entry.frame.payload_bytes,
                })
            };
            object["entries"] = entries.iter().map(entry).collect();
        }
        object
    }
}
