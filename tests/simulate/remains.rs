//! What a process that died has left of its transfer: its newest record, and what that says is in
//! its breakpoint files. A process that takes over has no more than that, and the session's secret.

use zferry::breakpoint::keeper::Span;
use zferry::breakpoint::record::{Mark, Record, SegmentNumber};
use zferry::breakpoint::segment::{PAGE_BYTES, scan};
use zferry::protocol::frame::Header;
use zferry::protocol::secret::JoinSecret;
use zferry::units::{Bytes, Sequence, StreamOffset};

use super::aftermath::{file_of, newest};
use super::disk::File;
use super::environment::{End, Environment};

/// No block in these files is larger.
const BLOCK_BYTES_MAX: Bytes = Bytes(1 << 20);

#[derive(Clone, Debug)]
pub struct Remains {
    pub record: Record,
    /// What the record claims, in order; each was checked again.
    pub frames: Vec<Left>,
    pub spans: Vec<Span>,
    /// The place in the last of their files behind what counts.
    pub behind: usize,
}

/// A frame that was found.
#[derive(Clone, Debug)]
pub struct Left {
    pub header: Header,
    pub payload: Vec<u8>,
    /// Behind it.
    pub mark: Mark,
}

impl Remains {
    /// `None` where there is nothing, or not what the record says.
    pub fn find(end: End, env: &Environment) -> Option<Remains> {
        if env.truth.retired[end as usize] {
            return None;
        }
        let record = newest(end, env)?;
        let mut remains = Remains { record, frames: Vec::new(), spans: Vec::new(), behind: 0 };
        let Some(spool) = record.progress.spool else { return Some(remains) };
        let mut at = spool.low;
        for number in spool.first_segment.0..=spool.last_segment.0 {
            let low = at;
            remains.behind = 0;
            remains.scan(end, number, &mut at, spool.high, env)?;
            let segment = SegmentNumber(number);
            remains.spans.push(Span { segment, low, high: at });
        }
        remains.mark();
        (at == spool.high).then_some(remains)
    }

    fn scan(
        &mut self,
        end: End,
        number: u32,
        at: &mut StreamOffset,
        high: StreamOffset,
        env: &Environment,
    ) -> Option<()> {
        let bytes = env.disks[end as usize].read(File::Segment(number));
        let found = scan(bytes, file_of(end), SegmentNumber(number), BLOCK_BYTES_MAX);
        for entry in found.entries.iter().filter(|entry| entry.frame.offset < high) {
            let payload = bytes.get(entry.payload())?.to_vec();
            if entry.frame.offset < *at {
                // Behind what was claimed when its process died; the next one wrote it again.
                continue;
            }
            let (header, same) = (entry.frame, entry.frame.epoch == self.record.job.epoch);
            if !same || header.offset != *at || entry.check_payload(&payload).is_err() {
                return None;
            }
            *at = at.after(Bytes::from(payload.len()))?;
            self.behind = entry.payload().end.next_multiple_of(PAGE_BYTES);
            self.frames.push(Left { header, payload, mark: Mark::default() });
        }
        Some(())
    }

    /// Proves each place behind what was acknowledged; those before it are of no use to a client,
    /// and a server begins at byte 0.
    fn mark(&mut self) {
        let known = match self.record.progress.spool {
            Some(spool) if spool.low == StreamOffset(0) => Mark::default(),
            _ => self.record.progress.acknowledged,
        };
        let mut crc = crc32fast::Hasher::new_with_initial_len(known.crc32, known.to.0);
        for Left { header, payload, mark } in &mut self.frames {
            let to = header.offset.after(Bytes::from(payload.len())).expect("a stream");
            if header.offset >= known.to {
                crc.update(payload);
                *mark = Mark { to, crc32: crc.clone().finalize() };
            }
        }
    }

    /// The end of what is there.
    pub fn written(&self) -> Mark {
        self.frames.last().map_or(Mark::default(), |last| last.mark)
    }

    /// The number of the first frame that is not there, in a session of one transfer.
    pub fn next(&self) -> Sequence {
        self.frames.last().map_or(Sequence(0), |last| last.header.sequence.next())
    }

    /// What stands on the disk beside the records.
    pub fn secret(&self) -> JoinSecret {
        JoinSecret::new((!u128::from_be_bytes(self.record.job.session.0)).to_be_bytes())
    }
}
