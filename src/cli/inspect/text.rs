//! A report for people: a name, a value, aligned; damage at the end, where it is seen.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

use super::report::{Records, Report, Segment, Verdict, names_beside};
use crate::breakpoint::record::{Cargo, Mark, Record, Role, SpoolExtent};
use crate::breakpoint::recovery::Damage;
use crate::breakpoint::segment::End;
use crate::breakpoint::slot::Slot;
use crate::units::{Bytes, StreamOffset};

pub(super) fn write(
    path: &Path,
    report: &Report,
    all: bool,
    to: &mut impl Write,
) -> io::Result<()> {
    let kind = match report {
        Report::Records(_) => "record file",
        Report::Segment(_) => "breakpoint file",
    };
    line(to, kind, path.display())?;
    let verdict = match report.verdict() {
        Verdict::Sound => "sound",
        Verdict::Damaged => "damaged, but of use",
        Verdict::Unusable => "of no use",
    };
    line(to, "verdict", verdict)?;
    if let Some(names) = names_beside(path) {
        line(to, "copy", names.job)?;
        line(to, "carries", names.transfer)?;
    }
    match report {
        Report::Records(records) => write_records(records, all, to),
        Report::Segment(segment) => write_segment(segment, all, to),
    }
}

fn write_records(records: &Records, all: bool, to: &mut impl Write) -> io::Result<()> {
    if let Some(file) = records.file {
        line(to, "file", file)?;
    }
    let held = records.slots.iter().filter(|slot| slot.record().is_some()).count();
    line(to, "slots", format_args!("{held} of {} hold a record", records.slots.len()))?;
    match &records.recovered.newest {
        Some(newest) => write_record(newest, to)?,
        None => line(to, "newest", "none: there is nothing to go on from")?,
    }
    line(to, "next", format_args!("record {}", records.recovered.next_sequence))?;
    if all {
        write_slots(&records.slots, to)?;
    }
    for damage in &records.recovered.damage {
        let name = if damage.is_ordinary() { "note" } else { "damage" };
        line(to, name, damage)?;
    }
    if records.recovered.damage.iter().any(|damage| !Damage::is_ordinary(damage)) {
        let from = match records.recovered.newest {
            Some(_) => "record",
            None => "target's resume token",
        };
        line(to, "to do", format_args!("check the disk; the transfer goes on from the {from}"))?;
    }
    Ok(())
}

fn write_record(record: &Record, to: &mut impl Write) -> io::Result<()> {
    let Record { job, progress, .. } = record;
    let (sequence, slot) = (record.sequence, record.slot());
    let written = time(record.wall_clock_ms);
    line(to, "newest", format_args!("record {sequence} in slot {slot}, written {written}"))?;
    let role = match job.role {
        Role::Client => "client",
        Role::Server => "server",
    };
    line(to, "kept by", format_args!("the {role}, in boot {}", record.boot))?;
    line(to, "session", job.session)?;
    line(to, "transfer", format_args!("{}, epoch {}", job.transfer, job.epoch))?;
    line(to, "cargo", cargo(job.cargo))?;
    line(to, "state", name(&progress.state))?;
    line(to, "received", place(progress.received))?;
    line(to, "spooled", place(progress.spooled))?;
    line(to, "fed", place(progress.fed))?;
    line(to, "acknowledged", mark(progress.acknowledged))?;
    line(to, "end", progress.end.map_or("not known yet".to_owned(), mark))?;
    line(to, "next frame", progress.next_frame)?;
    line(to, "spool", progress.spool.map_or("none".to_owned(), spool))?;
    if let Some(class) = progress.last_error {
        line(to, "last error", name(&class))?;
    }
    Ok(())
}

fn write_slots(slots: &[Slot], to: &mut impl Write) -> io::Result<()> {
    for (index, slot) in slots.iter().enumerate() {
        let told = match slot {
            Slot::Blank => continue,
            Slot::Whole { record } => told(record),
            Slot::Partly { record, copies, flaw } => {
                format!("{}; {copies} of 8 copies are whole ({flaw})", told(record))
            }
            Slot::Nothing { flaw } => flaw.to_string(),
        };
        line(to, &format!("slot {index}"), told)?;
    }
    Ok(())
}

fn told(record: &Record) -> String {
    let progress = &record.progress;
    format!(
        "record {}, epoch {}, {}: received {}, spooled {}, fed {}, acknowledged {}",
        record.sequence,
        record.job.epoch,
        name(&progress.state),
        progress.received,
        progress.spooled,
        progress.fed,
        progress.acknowledged.to,
    )
}

fn write_segment(segment: &Segment, all: bool, to: &mut impl Write) -> io::Result<()> {
    if let Some((file, number)) = segment.named {
        line(to, "file", file)?;
        line(to, "segment", number.0)?;
    }
    let entries = &segment.scan.entries;
    line(to, "blocks", entries.len())?;
    if let Some((low, high)) = segment.stream() {
        line(to, "stream", format_args!("{} to {}", place(low), place(high)))?;
    }
    if let Some(first) = entries.first() {
        let (transfer, epoch) = (first.frame.transfer, first.frame.epoch);
        line(to, "transfer", format_args!("{transfer}, epoch {epoch}"))?;
    }
    for entry in entries.iter().filter(|_| all) {
        let frame = entry.frame;
        let told = format!(
            "offset {}, {} bytes, {} stored, {}",
            frame.offset,
            frame.plain_bytes,
            frame.payload_bytes,
            name(&frame.codec),
        );
        line(to, &format!("page {}", entry.at.page), told)?;
    }
    let end = &segment.scan.end;
    match end {
        End::Full | End::Blank { .. } => line(to, "rest", end),
        End::Broken { behind, .. } => {
            line(to, "damage", end)?;
            if *behind > 0 {
                line(to, "damage", format_args!("{behind} blocks behind it are of no use"))?;
            }
            Ok(())
        }
    }
}

fn line(to: &mut impl Write, name: &str, value: impl Display) -> io::Result<()> {
    writeln!(to, "{name:<16}{value}")
}

/// The word that JSON has for it, too.
fn name(word: &impl serde::Serialize) -> String {
    let json = serde_json::to_value(word).ok();
    json.and_then(|json| json.as_str().map(str::to_owned)).unwrap_or_default()
}

fn time(wall_clock_ms: u64) -> String {
    let timestamp =
        i64::try_from(wall_clock_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    timestamp.map_or("at no time that there is".to_owned(), |time| time.to_string())
}

fn cargo(cargo: Cargo) -> String {
    let Cargo::Snapshot { to, from, raw, resumed } = cargo else {
        return "a stream between two pipes".to_owned();
    };
    let mut text = match from {
        Some(from) => format!("snapshot with guid {to}, since the one with guid {from}"),
        None => format!("snapshot with guid {to}, in full"),
    };
    for (is_so, word) in [(raw, ", raw"), (resumed, ", begun with a resume token")] {
        text += if is_so { word } else { "" };
    }
    text
}

fn place(place: StreamOffset) -> String {
    format!("{place} ({})", Bytes(place.0))
}

fn mark(mark: Mark) -> String {
    format!("{}, CRC32 {:#010x}", place(mark.to), mark.crc32)
}

fn spool(extent: SpoolExtent) -> String {
    let SpoolExtent { first_segment, last_segment, segment_bytes, low, high } = extent;
    let (low, high) = (place(low), place(high));
    format!(
        "{low} to {high}, in segments {} to {} of {segment_bytes}",
        first_segment.0, last_segment.0
    )
}
