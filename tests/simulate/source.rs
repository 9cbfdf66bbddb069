//! A pool with one snapshot, and `zfs send`: a stream of objects, other bytes in every run.
//!
//! ```text
//! begin    magic u32, nonce u32, guid u64, first object u32, objects u32
//! object   number u32, padding u16, content u64, padding, CRC32 of the stream up to here
//! end      u32::MAX, CRC32
//! ```

use std::rc::Rc;

use super::random::Random;

pub const MAGIC: u32 = 0x05a0_0cac;
pub const BEGIN_BYTES: usize = 24;
pub const OBJECT_HEAD_BYTES: usize = 14;
pub const END: u32 = u32::MAX;

#[derive(Debug)]
pub struct Source {
    pub guid: u64,
    pub objects: u32,
    padding: u64,
    pub exists: bool,
    pub held: bool,
    /// The next run fails after this share of its stream, in percent.
    pub fails_at: Option<u64>,
}

/// A running `zfs send`, or one that has ended.
#[derive(Clone, Debug)]
pub struct Run {
    pub stream: Rc<[u8]>,
    pub read: usize,
    /// It dies there.
    fails_at: Option<usize>,
}

/// The content of an object of a snapshot.
pub fn content(guid: u64, object: u32) -> u64 {
    Random::new(guid ^ u64::from(object)).next()
}

impl Source {
    pub fn new(random: &mut Random) -> Source {
        Source {
            guid: random.next() | 1,
            objects: u32::try_from(random.between(0, 30)).expect("a few"),
            padding: random.pick(&[0, 100, 1000]),
            exists: true,
            held: false,
            fails_at: None,
        }
    }

    /// Starts `zfs send`, from an object on; `None` where the snapshot is gone.
    pub fn send(&mut self, first: u32, random: &mut Random) -> Option<Run> {
        assert!(self.held || !self.exists, "a stream begins whose snapshot is not held");
        if !self.exists {
            return None;
        }
        let mut stream = Vec::new();
        let nonce = u32::try_from(random.next() >> 32).expect("32 bits");
        for word in [MAGIC, nonce] {
            stream.extend(word.to_le_bytes());
        }
        stream.extend(self.guid.to_le_bytes());
        for word in [first, self.objects] {
            stream.extend(word.to_le_bytes());
        }
        for object in first..self.objects {
            let padding = u16::try_from(random.below(self.padding + 1)).expect("short");
            stream.extend(object.to_le_bytes());
            stream.extend(padding.to_le_bytes());
            stream.extend(content(self.guid, object).to_le_bytes());
            let fill = random.next().to_le_bytes();
            stream.extend((0..usize::from(padding)).map(|at| fill[at % 8]));
            stream.extend(crc32fast::hash(&stream).to_le_bytes());
        }
        stream.extend(END.to_le_bytes());
        stream.extend(crc32fast::hash(&stream).to_le_bytes());
        let length = stream.len() as u64;
        let fails_at = self.fails_at.take().map(|share| length * share / 100);
        let fails_at = fails_at.map(|at| usize::try_from(at).expect("in the stream"));
        Some(Run { stream: stream.into(), read: 0, fails_at })
    }
}

impl Run {
    /// One that has given all of so many bytes.
    pub fn over(length: usize) -> Run {
        Run { stream: [].into(), read: length, fails_at: None }
    }

    /// The next bytes, up to so many; `Ok(None)` at the end, `Err` where the process died.
    pub fn read(&mut self, most: u64) -> Result<Option<&[u8]>, ()> {
        if self.fails_at.is_some_and(|at| self.read >= at) {
            return Err(());
        }
        let end = self.stream.len().min(self.read + usize::try_from(most).expect("a block"));
        let bytes = &self.stream[self.read..end];
        self.read = end;
        Ok((!bytes.is_empty()).then_some(bytes))
    }
}
