//! Segments that are whole, cut, damaged, mixed up and hostile.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::protocol::frame::Codec;
use crate::units::{Sequence, TransferId};

const FILE: FileId = FileId([7; 16]);
const SEGMENT: SegmentNumber = SegmentNumber(3);

fn frame(offset: u64, plain_bytes: u32, payload: &[u8]) -> Header {
    let payload_bytes = u32::try_from(payload.len()).unwrap();
    let codec = if payload_bytes == plain_bytes { Codec::Raw } else { Codec::Zstd };
    Header {
        transfer: TransferId(1),
        epoch: 2,
        sequence: Sequence(offset),
        offset: StreamOffset(offset),
        codec,
        plain_bytes,
        payload_bytes,
        crc32: 0,
    }
}

/// Puts an entry at a page of `bytes`, as a writer would.
fn put(bytes: &mut [u8], page: u32, frame: Header, payload: &[u8]) -> Entry {
    let at = Position { segment: SEGMENT, page };
    let entry = Entry { at, frame, payload_crc32: crc32fast::hash(payload) };
    let start = page as usize * PAGE_BYTES;
    bytes[start..][ENTRY_HEADER].copy_from_slice(&entry.encode(FILE));
    bytes[entry.payload()].copy_from_slice(payload);
    entry
}

/// A segment of raw blocks of these lengths, its slots dirty from earlier use.
fn segment_of(pages: u32, blocks: &[u32]) -> (Vec<u8>, Vec<Entry>) {
    let mut bytes = [0].repeat(pages as usize * PAGE_BYTES);
    let (mut page, mut offset, mut entries) = (0, 0, Vec::new());
    for &length in blocks {
        let whole = entry_pages(length) as usize * PAGE_BYTES;
        bytes[page as usize * PAGE_BYTES..][..whole].fill(0xdd);
        let payload: Vec<u8> = [0xe0, length.to_le_bytes()[0]].repeat(length as usize);
        let payload = &payload[..length as usize];
        entries.push(put(&mut bytes, page, frame(offset, length, payload), payload));
        page += entry_pages(length);
        offset += u64::from(length);
    }
    (bytes, entries)
}

fn scanned(bytes: &[u8]) -> Scan {
    scan(bytes, FILE, SEGMENT, Bytes::MIB)
}

#[test]
fn what_was_written_is_found_up_to_where_nothing_was() {
    let (bytes, entries) = segment_of(16, &[1, 4096, 4097, 8192]);
    assert_eq!(scanned(&bytes), Scan { entries, end: End::Blank { page: 10 } });
    let (bytes, entries) = segment_of(4, &[100, 200]);
    assert_eq!(scanned(&bytes), Scan { entries, end: End::Full });
    assert_eq!(scanned(&[]), Scan { entries: Vec::new(), end: End::Full });
}

#[test]
fn a_write_that_is_cut_after_any_byte_leaves_all_before_it() {
    let (whole, entries) = segment_of(8, &[5000, 3000]);
    let second = 3 * PAGE_BYTES;
    let end = second + PAGE_BYTES + 3000;
    let header = second + ENTRY_HEADER.start..=second + ENTRY_HEADER.end;
    let payload = (*header.end()..end).step_by(97).chain([end - 1, end]);
    for cut in [second].into_iter().chain(header.clone()).chain(payload) {
        let mut bytes = whole.clone();
        bytes[cut..].fill(0);
        let expected = if cut == end { &entries[..] } else { &entries[..1] };
        assert_eq!(scanned(&bytes).entries, expected, "cut after byte {cut}");
    }
}

#[test]
fn every_flipped_bit_of_an_entry_is_caught() {
    let (good, entries) = segment_of(4, &[600]);
    for range in [ENTRY_HEADER, entries[0].payload()] {
        for bit in range.start * 8..range.end * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let scan = scanned(&bytes);
            assert!(scan.entries.is_empty(), "bit {bit} went unseen");
            assert!(matches!(scan.end, End::Broken { page: 0, .. }));
        }
    }
}

#[test]
fn an_entry_behind_a_broken_one_is_counted_and_not_believed() {
    let (mut bytes, entries) = segment_of(10, &[4096, 4096, 4096]);
    bytes[entries[1].payload().start] ^= 1;
    let scan = scanned(&bytes);
    assert_eq!(scan.entries, entries[..1]);
    assert!(matches!(scan.end, End::Broken { page: 2, behind: 1, .. }), "{:?}", scan.end);
}

fn broken(bytes: &[u8]) -> EntryError {
    match scanned(bytes).end {
        End::Broken { error, .. } => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_entry_of_another_file_or_place_is_not_believed() {
    let (bytes, _) = segment_of(4, &[100]);
    let other = scan(&bytes, FileId([8; 16]), SEGMENT, Bytes::MIB).end;
    let error = EntryError::Foreign { file: FILE };
    assert_eq!(other, End::Broken { page: 0, error, behind: 0 });
    let older = scan(&bytes, FILE, SegmentNumber(4), Bytes::MIB).end;
    let error = EntryError::Misplaced { at: Position { segment: SEGMENT, page: 0 } };
    assert_eq!(older, End::Broken { page: 0, error, behind: 0 });
    let moved = [&[0xff; 2 * PAGE_BYTES][..], &bytes[..2 * PAGE_BYTES]].concat();
    let moved = [&bytes[..2 * PAGE_BYTES], &moved[2 * PAGE_BYTES..]].concat();
    assert!(matches!(broken(&moved), EntryError::Misplaced { .. }));
}

#[test]
fn an_entry_that_does_not_continue_the_one_before_it_is_not_believed() {
    let (mut bytes, _) = segment_of(8, &[100]);
    put(&mut bytes, 2, frame(101, 50, &[1; 50]), &[1; 50]);
    let (expected, got) = (StreamOffset(100), StreamOffset(101));
    assert_eq!(broken(&bytes), EntryError::Order { expected, got });
    put(&mut bytes, 2, Header { epoch: 3, ..frame(100, 50, &[1; 50]) }, &[1; 50]);
    assert_eq!(broken(&bytes), EntryError::Stream);
}

#[test]
fn a_length_that_lies_is_refused_before_it_is_used() {
    let (mut bytes, entries) = segment_of(2, &[100]);
    let raw = |bytes| Header { payload_bytes: bytes, ..frame(0, bytes, &[]) };
    let raw = |bytes| Entry { frame: Header { codec: Codec::Raw, ..raw(bytes) }, ..entries[0] };
    let lying = raw(1 << 20);
    bytes[ENTRY_HEADER].copy_from_slice(&lying.encode(FILE));
    assert_eq!(broken(&bytes), EntryError::PastEnd { pages: 257, left: 2 });
    let lying = raw((1 << 20) + 1);
    bytes[ENTRY_HEADER].copy_from_slice(&lying.encode(FILE));
    assert!(matches!(broken(&bytes), EntryError::Frame(FrameError::PlainBytes { .. })));
}

/// The end of one write of a header behind the front of another: both were right.
#[test]
fn the_stamp_of_one_write_before_the_frame_of_another_is_not_believed() {
    let (mut bytes, _) = segment_of(4, &[100]);
    let (other, _) = segment_of(4, &[100]);
    put(&mut bytes, 0, Header { epoch: 9, ..frame(0, 100, &[1; 100]) }, &[1; 100]);
    let stamp = ENTRY_HEADER.start..ENTRY_HEADER.end - HEADER_BYTES;
    bytes[stamp.clone()].copy_from_slice(&other[stamp]);
    assert!(matches!(broken(&bytes), EntryError::Checksum { .. }));
}

#[test]
fn a_segment_tells_whose_it_is() {
    let (mut bytes, _) = segment_of(8, &[100, 100]);
    assert_eq!(identify(&bytes), Some((FILE, SEGMENT)));
    bytes[..PAGE_BYTES].fill(0xff);
    assert_eq!(identify(&bytes), Some((FILE, SEGMENT)), "by the second entry");
    assert!(looks_like_segment(&bytes));
    assert!(!looks_like_segment(&[0xff; PAGE_BYTES]));
    assert_eq!((identify(&[]), identify(&[0; PAGE_BYTES])), (None, None));
}

#[test]
fn an_entry_goes_to_the_next_segment_where_it_does_not_fit() {
    let size = SegmentPages::new(4).unwrap();
    let position = |segment, page| Position { segment: SegmentNumber(segment), page };
    let place = |at: Position, bytes| at.place(bytes, size);
    assert_eq!(place(position(0, 0), 1), Some((position(0, 0), position(0, 2))));
    assert_eq!(place(position(0, 2), 4096), Some((position(0, 2), position(0, 4))));
    assert_eq!(place(position(0, 2), 4097), Some((position(1, 0), position(1, 3))));
    assert_eq!(place(position(0, 4), 1), Some((position(1, 0), position(1, 2))));
    assert_eq!(place(position(0, 0), 4 * 4096), None, "larger than a segment");
    assert_eq!(place(position(u32::MAX, 4), 1), None, "no more segments");
    assert_eq!(place(position(0, u32::MAX), u32::MAX), None);
    assert_eq!(position(9, 3).file_offset(), Bytes(12288));
    assert_eq!(SegmentPages::STANDARD.bytes(), Bytes(64 << 20));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_are_no_entries(bytes in vec(any::<u8>(), 0..20_000)) {
        prop_assert_eq!(scanned(&bytes).entries, Vec::new());
    }

    /// Whatever is overwritten, what is found is a front part of what was written.
    #[test]
    fn no_damage_makes_an_entry_that_was_not_written(
        blocks in vec(1_u32..9000, 1..6),
        at in 0_usize..1 << 16,
        damage in vec(any::<u8>(), 1..300),
    ) {
        let (mut bytes, entries) = segment_of(20, &blocks);
        let at = at % (bytes.len() - 300);
        bytes[at..][..damage.len()].copy_from_slice(&damage);
        let found = scanned(&bytes).entries;
        prop_assert_eq!(&found[..], &entries[..found.len()]);
    }
}
