//! Breakpoint files: blocks are written, damaged and forged, and the file is read back.

use arbitrary::{Result, Unstructured};
use zferry::breakpoint::identity::FileId;
use zferry::breakpoint::record::SegmentNumber;
use zferry::breakpoint::segment::{
    ENTRY_HEADER, ENTRY_HEADER_BYTES, End, Entry, PAGE_BYTES, Position, entry_pages, identify, scan,
};
use zferry::protocol::frame::{Codec, HEADER_BYTES, Header};
use zferry::units::{Bytes, Sequence, StreamOffset, TransferId};

use crate::{Target, assert_fit_to_be_shown};

/// The file itself, and of each scan what it has found.
pub const TARGET: Target = Target { run, allocated_bytes_max: 4 << 20 };

const FILE: FileId = FileId([7; 16]);
const SEGMENT: SegmentNumber = SegmentNumber(3);
const PAYLOAD_BYTES_MAX: u16 = 9000;
const STEPS_MAX: usize = 24;

/// How many pages there are, and then what happens to them, step by step.
fn run(input: &[u8]) {
    let Some((&pages, steps)) = input.split_first() else { return };
    let mut file = File::new(usize::from(pages % 16));
    // Where the input ends, the story does.
    let _ = play(&mut file, &mut Unstructured::new(steps));
    file.check();
}

fn play(file: &mut File, input: &mut Unstructured<'_>) -> Result<()> {
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        match input.arbitrary::<u8>()? % 8 {
            0..=3 => file.append(input.arbitrary()?, input.arbitrary()?),
            4 => {
                let (at, bits) = (input.arbitrary::<u32>()?, input.arbitrary()?);
                file.flip(at as usize, bits);
            }
            5 => {
                let (at, length) = (input.arbitrary::<u32>()?, input.arbitrary::<u16>()?);
                file.clear(at as usize, length.into());
            }
            6 => file.end_after(usize::from(input.arbitrary::<u16>()?)),
            _ => file.forge(input)?,
        }
    }
    Ok(())
}

/// A segment and all that was written to it.
struct File {
    image: Vec<u8>,
    written: Vec<Entry>,
    page: usize,
    offset: u64,
    /// Whether nothing has harmed it.
    is_whole: bool,
    /// Whether nobody has made up entries for it.
    is_ours: bool,
}

impl File {
    fn new(pages: usize) -> File {
        let image = [0].repeat(pages * PAGE_BYTES);
        File { image, written: Vec::new(), page: 0, offset: 0, is_whole: true, is_ours: true }
    }

    /// Writes the block that follows, raw where `saved` is 0; nothing where there is no room.
    fn append(&mut self, payload_bytes: u16, saved: u8) {
        let payload_bytes = u32::from(payload_bytes % PAYLOAD_BYTES_MAX) + 1;
        let pages = entry_pages(payload_bytes) as usize;
        let Some(room) = self.image.get_mut(self.page * PAGE_BYTES..) else { return };
        let Some(place) = room.get_mut(..pages * PAGE_BYTES) else { return };
        let payload = &mut place[PAGE_BYTES..][..payload_bytes as usize];
        payload.fill(saved);
        let plain_bytes = payload_bytes + u32::from(saved);
        let frame = Header {
            transfer: TransferId(1),
            epoch: 1,
            sequence: Sequence(self.written.len() as u64),
            offset: StreamOffset(self.offset),
            codec: if saved == 0 { Codec::Raw } else { Codec::Zstd },
            plain_bytes,
            payload_bytes,
            crc32: 5,
        };
        let payload_crc32 = crc32fast::hash(payload);
        let page = u32::try_from(self.page).expect("there are few");
        let entry = Entry { at: Position { segment: SEGMENT, page }, frame, payload_crc32 };
        place[ENTRY_HEADER].copy_from_slice(&entry.encode(FILE));
        self.written.push(entry);
        self.page += pages;
        self.offset += u64::from(plain_bytes);
    }

    fn flip(&mut self, at: usize, bits: u8) {
        if let Some(at) = at.checked_rem(self.image.len()) {
            self.image[at] ^= bits;
            self.is_whole &= bits == 0;
        }
    }

    fn clear(&mut self, at: usize, length: usize) {
        if let Some(at) = at.checked_rem(self.image.len()) {
            let end = self.image.len().min(at + length);
            self.image[at..end].fill(0);
            self.is_whole = false;
        }
    }

    fn end_after(&mut self, length: usize) {
        self.image.truncate(length);
        self.is_whole = false;
    }

    /// A header with the right checksums over whatever it says, and perhaps over its payload.
    fn forge(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let pages = self.image.len() / PAGE_BYTES;
        let page = usize::from(input.arbitrary::<u8>()?);
        let Some(page) = page.checked_rem(pages) else { return Ok(()) };
        let (at, length) = (input.arbitrary::<u8>()?, input.arbitrary::<u8>()?);
        let at = usize::from(at) % ENTRY_HEADER_BYTES;
        let length = usize::from(length).min(ENTRY_HEADER_BYTES - at).min(input.len());
        let (header, payload) =
            self.image[page * PAGE_BYTES..].split_at_mut(PAGE_BYTES);
        let header = header.last_chunk_mut().expect("a page is longer");
        header[at..][..length].copy_from_slice(input.bytes(length)?);
        seal(header, payload);
        (self.is_whole, self.is_ours) = (false, false);
        Ok(())
    }

    /// Whatever happened, entries that continue each other are found, whole and from the front.
    fn check(&self) {
        let found = scan(&self.image, FILE, SEGMENT, Bytes::MIB);
        let mut end = None;
        for entry in &found.entries {
            let payload = self.image.get(entry.payload()).expect("it lies within the file");
            assert_eq!(entry.check_payload(payload), Ok(()));
            let header = &self.image[entry.at.file_offset().as_usize()..][ENTRY_HEADER];
            assert_eq!(header, entry.encode(FILE));
            let begins = entry.frame.offset;
            assert!(end.is_none_or(|end| end == Some(begins)), "{:?}", found.entries);
            end = Some(begins.after(entry.frame.length()));
        }
        if let End::Broken { error, behind, .. } = &found.end {
            assert_fit_to_be_shown(&error.to_string(), 300);
            assert!(*behind < self.image.len() / PAGE_BYTES);
        }
        if self.is_ours {
            let front = self.written.get(..found.entries.len());
            assert_eq!(front, Some(&found.entries[..]));
            assert!(identify(&self.image).is_none_or(|named| named == (FILE, SEGMENT)));
        }
        assert!(!self.is_whole || found.entries == self.written, "{found:?}");
    }
}

/// Puts all checksums of an entry in place, as far as its payload lies within the file.
fn seal(header: &mut [u8; ENTRY_HEADER_BYTES], behind: &[u8]) {
    const FRAME: usize = ENTRY_HEADER_BYTES - HEADER_BYTES;
    const PAYLOAD_BYTES: usize = FRAME + 36;
    const PAYLOAD_CRC32: usize = 32;
    const CHECKSUM: usize = 44;
    const FRAME_CRC32: usize = ENTRY_HEADER_BYTES - 4;
    let length = u32::from_le_bytes(*header[PAYLOAD_BYTES..].first_chunk().expect("four bytes"));
    if let Some(payload) = behind.get(..length as usize) {
        let crc32 = crc32fast::hash(payload);
        header[PAYLOAD_CRC32..][..4].copy_from_slice(&crc32.to_le_bytes());
    }
    let frame_crc32 = crc32fast::hash(&header[FRAME..FRAME_CRC32]);
    header[FRAME_CRC32..].copy_from_slice(&frame_crc32.to_le_bytes());
    let stamp = [&header[..CHECKSUM], &header[FRAME_CRC32..]].concat();
    header[CHECKSUM..][..4].copy_from_slice(&crc32fast::hash(&stamp).to_le_bytes());
}
