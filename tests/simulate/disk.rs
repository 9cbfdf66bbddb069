//! Files past the page cache: a write is durable when it has ended, and not before.
//!
//! When the power goes, of each write that was under way some sectors are there and some are not.
//! A disk may also say that it has written and not have done so, or have done it elsewhere, or
//! fail: each when it was told to.

use std::collections::BTreeMap;

use super::environment::{End, Environment, Event};
use super::random::Random;

const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;

#[derive(Debug, Default)]
pub struct Disk {
    files: BTreeMap<File, Vec<u8>>,
    under_way: BTreeMap<u64, Write>,
    next: u64,
    /// What becomes of the next write.
    pub fate: Fate,
    /// It has said "done" and was not: what it holds may be less than anybody knows.
    pub lied: bool,
}

/// The files of one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum File {
    Records,
    Segment(u32),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    #[default]
    Done,
    Lost,
    Misdirected,
    Failed,
}

#[derive(Debug)]
struct Write {
    file: File,
    at: usize,
    bytes: Vec<u8>,
    fate: Fate,
}

impl Disk {
    /// A file's durable bytes.
    pub fn read(&self, file: File) -> &[u8] {
        self.files.get(&file).map_or(&[], Vec::as_slice)
    }

    pub fn create(&mut self, file: File, length: usize) {
        self.files.insert(file, [0].repeat(length));
    }

    pub fn delete(&mut self, file: File) {
        self.files.remove(&file);
    }

    /// Removes all segments but these, and of the last one what stands behind a place.
    pub fn cut_off(&mut self, claimed: &[u32], behind: usize) {
        self.files.retain(|file, _| match file {
            File::Segment(number) => claimed.contains(number),
            File::Records => true,
        });
        let last = claimed.last().map(|&number| File::Segment(number));
        if let Some(bytes) = last.and_then(|last| self.files.get_mut(&last)) {
            bytes.truncate(behind);
        }
    }

    pub fn segments(&self) -> Vec<u32> {
        let numbers = self.files.keys().filter_map(|file| match file {
            File::Segment(number) => Some(*number),
            File::Records => None,
        });
        numbers.collect()
    }

    fn begin(&mut self, file: File, at: usize, bytes: Vec<u8>) -> u64 {
        assert!(at.is_multiple_of(PAGE_BYTES) && bytes.len().is_multiple_of(PAGE_BYTES));
        let fate = std::mem::take(&mut self.fate);
        self.lied |= matches!(fate, Fate::Lost | Fate::Misdirected);
        self.next += 1;
        self.under_way.insert(self.next, Write { file, at, bytes, fate });
        self.next
    }

    /// A write has ended; `None` where it was lost with the power.
    pub fn end(&mut self, id: u64) -> Option<bool> {
        let write = self.under_way.remove(&id)?;
        match write.fate {
            Fate::Done => self.put(&write, |_| true),
            Fate::Lost | Fate::Failed => {}
            Fate::Misdirected => {
                let length = self.read(write.file).len().max(PAGE_BYTES);
                let at = (write.at + PAGE_BYTES) % length;
                self.put(&Write { at, ..write }, |_| true);
                return Some(true);
            }
        }
        Some(write.fate != Fate::Failed)
    }

    /// The sectors of a write that are chosen.
    fn put(&mut self, write: &Write, mut chosen: impl FnMut(usize) -> bool) {
        let Some(file) = self.files.get_mut(&write.file) else { return };
        for (number, sector) in write.bytes.chunks(SECTOR_BYTES).enumerate() {
            let at = write.at + number * SECTOR_BYTES;
            if let Some(place) = file.get_mut(at..at + sector.len())
                && chosen(number)
            {
                place.copy_from_slice(sector);
            }
        }
    }

    /// Ends all writes that are under way, as the kernel does for a process that is gone. `false`
    /// where one has failed.
    pub fn settle(&mut self) -> bool {
        let under_way: Vec<u64> = self.under_way.keys().copied().collect();
        under_way.into_iter().filter(|&id| self.end(id) == Some(false)).count() == 0
    }

    /// The power is gone.
    pub fn crash(&mut self, random: &mut Random) {
        for (_, write) in std::mem::take(&mut self.under_way) {
            let sectors = write.bytes.len() / SECTOR_BYTES;
            match random.below(4) {
                0 => {}
                1 => self.put(&write, |_| true),
                2 => {
                    let cut = random.index(sectors + 1);
                    self.put(&write, |number| number < cut);
                }
                _ => self.put(&write, |_| random.chance(50)),
            }
        }
    }
}

impl Environment {
    /// Begins a write; its end comes as an event.
    pub fn write_file(&mut self, of: End, file: File, at: usize, bytes: Vec<u8>) -> u64 {
        let id = self.disk(of).begin(file, at, bytes);
        self.soon(20, Event::Written { of, id });
        id
    }
}
