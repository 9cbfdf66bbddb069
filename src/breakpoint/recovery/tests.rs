//! Every cut, every loss, every mix-up of slots: the newest record that is left is found, and
//! never one that was not written.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::breakpoint::record::tests::{full_record, sequence};
use crate::breakpoint::record::{COPIES, Checksum, Mark};
use crate::units::StreamOffset;

const FILE: FileId = FileId([0xa1; 16]);

/// A record that says something else than its neighbours do.
fn record(ring: RingSlots, number: u64, parent: Option<Checksum>) -> Record {
    let mut record = full_record();
    (record.ring, record.sequence, record.parent) = (ring, sequence(number), parent);
    record.progress.acknowledged = Mark { to: StreamOffset(number), crc32: 77 };
    record.wall_clock_ms += number;
    record
}

/// All records of a history in which nothing went wrong, the first one first.
fn history(ring: RingSlots, highest: u64) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    for number in 1..=highest {
        let parent = records.last().map(Record::checksum);
        records.push(record(ring, number, parent));
    }
    records
}

/// The ring after these records were written to it.
fn image_of(ring: RingSlots, records: &[Record]) -> Vec<u8> {
    let mut image = [0].repeat(ring.get() as usize * SLOT_BYTES);
    for record in records {
        slot_mut(&mut image, record.slot()).copy_from_slice(&record.encode_slot());
    }
    image
}

fn slot_mut(image: &mut [u8], slot: SlotIndex) -> &mut [u8] {
    &mut image[slot.0 as usize * SLOT_BYTES..][..SLOT_BYTES]
}

fn ring(slots: u32) -> RingSlots {
    RingSlots::new(slots).unwrap()
}

fn found(image: &[u8], ring: RingSlots) -> Recovered {
    recover(image, ring, FILE)
}

fn number(recovered: &Recovered) -> Option<u64> {
    recovered.newest.map(|record| record.sequence.get())
}

#[test]
fn an_orderly_end_leaves_the_last_record_and_no_damage() {
    for highest in [1, 2, 7, 8, 9, 16, 17, 1000] {
        let records = history(ring(8), highest);
        let recovered = found(&image_of(ring(8), &records), ring(8));
        let next_sequence = sequence(highest + 2);
        let newest = records.last().copied();
        assert_eq!(recovered, Recovered { newest, next_sequence, damage: Vec::new() });
    }
}

#[test]
fn a_new_file_has_no_record_and_no_damage() {
    let blank = [0].repeat(64 * SLOT_BYTES);
    let recovered = found(&blank, RingSlots::STANDARD);
    let next_sequence = RecordSequence::FIRST;
    assert_eq!(recovered, Recovered { newest: None, next_sequence, damage: Vec::new() });
}

/// The write of record `highest + 1` to its slot is cut after every byte, for each slot of the
/// ring. Where a further byte changes nothing, nothing is looked at again.
fn tear_the_next_write(ring: RingSlots, highest: u64) {
    let records = history(ring, highest + 1);
    let [written @ .., new] = &records[..] else { unreachable!() };
    let (new, old) = (*new, written[written.len() - 1]);
    let before = image_of(ring, written);
    let mut slots = survey(&before, ring, FILE);
    let index = new.slot().0 as usize;
    let (slot_of_new, replaced) = (new.encode_slot(), &before[index * SLOT_BYTES..][..SLOT_BYTES]);
    let mut bytes: [u8; SLOT_BYTES] = replaced.try_into().unwrap();
    for cut in 0..=SLOT_BYTES {
        if cut > 0 {
            let changes = bytes[cut - 1] != slot_of_new[cut - 1];
            bytes[cut - 1] = slot_of_new[cut - 1];
            if !changes && cut < SLOT_BYTES {
                continue;
            }
        }
        slots[index] = Slot::read(&bytes, Place { file: FILE, ring, slot: new.slot() });
        let first_copy_arrived = bytes[..RECORD_BYTES] == slot_of_new[..RECORD_BYTES];
        let expected = if first_copy_arrived { new } else { old };
        let recovered = judge(&slots, Some(expected.sequence));
        assert_eq!(recovered.newest, Some(expected), "{ring:?}, {highest}, cut after byte {cut}");
        let ordinary = recovered.damage.iter().all(Damage::is_ordinary);
        assert!(ordinary, "{highest}, cut after byte {cut}: {:?}", recovered.damage);
    }
}

#[test]
fn a_write_that_is_cut_after_any_byte_leaves_the_new_record_or_the_old_one() {
    for highest in 64..128 {
        tear_the_next_write(RingSlots::STANDARD, highest);
    }
    // Into slots that were blank.
    for highest in 1..8 {
        tear_the_next_write(ring(8), highest);
    }
}

/// A disk may write the sectors of a page in any order: all 2^8 sets of them.
#[test]
fn a_write_of_which_any_sectors_arrived_leaves_the_new_record_or_the_old_one() {
    let records = history(ring(8), 30);
    let before = image_of(ring(8), &records[..29]);
    let new = records[29];
    for arrived in 0..=255_u8 {
        let mut image = before.clone();
        let slot = slot_mut(&mut image, new.slot());
        for sector in (0..COPIES).filter(|sector| arrived >> sector & 1 == 1) {
            slot[sector * RECORD_BYTES..][..RECORD_BYTES].copy_from_slice(&new.encode());
        }
        let recovered = found(&image, ring(8));
        let expected = if arrived == 0 { 29 } else { 30 };
        assert_eq!(number(&recovered), Some(expected), "{arrived:#b}");
        assert!(recovered.damage.iter().all(Damage::is_ordinary), "{:?}", recovered.damage);
    }
}

/// What may stand in a slot whose last write is lost.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// Bytes of no meaning.
    Garbage,
    /// Zeros.
    Blank,
    /// What was there one turn of the ring before.
    Older,
}

const LOSSES: [Loss; 3] = [Loss::Garbage, Loss::Blank, Loss::Older];

/// Slots of a ring, and the same slots after each kind of loss.
struct Losses {
    ring: RingSlots,
    intact: Vec<Slot>,
    lost: [Vec<Slot>; 3],
}

impl Losses {
    /// A ring in which every slot was written at least twice.
    fn of(slots: u32, highest: u64) -> Losses {
        let ring = ring(slots);
        let records = history(ring, highest);
        let turn_before = &records[..records.len() - slots as usize];
        let garbage: Vec<u8> = [0xa5; SLOT_BYTES].repeat(slots as usize);
        let survey = |image: &[u8]| survey(image, ring, FILE);
        Losses {
            ring,
            intact: survey(&image_of(ring, &records)),
            lost: [
                survey(&garbage),
                survey(&[0].repeat(garbage.len())),
                survey(&image_of(ring, turn_before)),
            ],
        }
    }

    /// What is found when the slots in `lost` are lost, and the highest that is left.
    fn lose(&self, is_hit: impl Fn(usize) -> bool, loss: Loss) -> (Recovered, Option<Record>) {
        let other = &self.lost[loss as usize];
        let pick = |index| if is_hit(index) { &other[index] } else { &self.intact[index] };
        let slots: Vec<Slot> = (0..self.ring.get() as usize).map(pick).cloned().collect();
        let expected = highest(&slots).copied();
        (judge(&slots, expected.map(|record| record.sequence)), expected)
    }
}

#[test]
fn whichever_slots_are_lost_the_newest_of_the_others_is_found() {
    for highest in [22, 27] {
        let losses = Losses::of(11, highest);
        for subset in 0_u32..1 << 11 {
            for loss in LOSSES {
                let (recovered, expected) = losses.lose(|slot| subset >> slot & 1 == 1, loss);
                assert_eq!(recovered.newest, expected, "{loss:?} of {subset:#b}");
                let told = !recovered.damage.is_empty();
                // Only zeros and older states can pass for a history that ended sooner.
                let must_be_told = subset != 0 && matches!(loss, Loss::Garbage);
                assert!(told || !must_be_told, "{loss:?} of {subset:#b} went untold");
                assert!(subset != 0 || !told);
            }
        }
    }
}

#[test]
fn any_one_or_two_lost_slots_of_64_are_survived_and_told() {
    let losses = Losses::of(64, 150);
    for (first, second) in (0..64).flat_map(|first| (first..64).map(move |second| (first, second)))
    {
        for loss in LOSSES {
            let (recovered, expected) = losses.lose(|slot| slot == first || slot == second, loss);
            assert_eq!(recovered.newest, expected, "{loss:?} of {first} and {second}");
            // Lost without a successor that knew them, they were never there.
            let newest = [150 % 64, 149 % 64];
            let silent = first == second && newest[0] == first
                || newest.contains(&first) && newest.contains(&second);
            if !silent {
                assert!(!recovered.damage.is_empty(), "{loss:?} of {first} and {second}");
            }
        }
    }
}

#[test]
fn a_lost_write_is_named_by_the_record_that_followed_it() {
    let (recovered, _) = Losses::of(8, 30).lose(|slot| slot == 28 % 8, Loss::Older);
    let lost = Damage::Lost { slot: SlotIndex(4), expected: sequence(28) };
    assert_eq!((number(&recovered), recovered.damage), (Some(30), Vec::from([lost])));
}

#[test]
fn swapped_slots_are_both_told_and_none_is_believed() {
    let records = history(ring(8), 30);
    for (a, b) in (0..8).flat_map(|a| (0..a).map(move |b| (SlotIndex(a), SlotIndex(b)))) {
        let mut image = image_of(ring(8), &records);
        let (of_a, of_b) = (slot_mut(&mut image, a).to_vec(), slot_mut(&mut image, b).to_vec());
        slot_mut(&mut image, a).copy_from_slice(&of_b);
        slot_mut(&mut image, b).copy_from_slice(&of_a);
        let recovered = found(&image, ring(8));
        let left = records.iter().rev().find(|record| ![a, b].contains(&record.slot()));
        assert_eq!(recovered.newest.as_ref(), left, "{a} and {b}");
        let misplaced = recovered.damage.iter().filter(|damage| {
            let (Damage::Torn { flaw, .. } | Damage::Damaged { flaw, .. }) = damage else {
                return false;
            };
            matches!(flaw, Flaw::Misplaced { .. })
        });
        assert_eq!(misplaced.count(), 2, "{a} and {b}: {:?}", recovered.damage);
    }
}

#[test]
fn slots_of_another_file_are_not_believed_however_new() {
    let records = history(ring(8), 30);
    for index in 0..8 {
        let mut image = image_of(ring(8), &records);
        let foreign = Record { file: FileId([9; 16]), ..record(ring(8), 800 + index, None) };
        slot_mut(&mut image, foreign.slot()).copy_from_slice(&foreign.encode_slot());
        let recovered = found(&image, ring(8));
        let left = records.iter().rev().find(|record| record.slot() != foreign.slot());
        assert_eq!(recovered.newest.as_ref(), left, "{index}");
        assert_eq!(recovered.next_sequence, left.unwrap().sequence.after_crash(), "{index}");
    }
    let all = image_of(ring(8), &records);
    let recovered = recover(&all, ring(8), FileId([9; 16]));
    assert_eq!((recovered.newest, recovered.damage.len()), (None, 8));
    assert_eq!(recovered.next_sequence, RecordSequence::FIRST);
}

#[test]
fn a_file_put_back_to_an_older_state_is_believed_as_of_then() {
    let records = history(ring(8), 30);
    let recovered = found(&image_of(ring(8), &records[..20]), ring(8));
    assert_eq!((number(&recovered), recovered.damage), (Some(20), Vec::new()));
}

#[test]
fn of_two_histories_in_one_file_the_newer_record_is_not_believed() {
    let mut records = history(ring(8), 30);
    records[29].parent = Some(Checksum(0x0bad_0bad));
    let recovered = found(&image_of(ring(8), &records), ring(8));
    assert_eq!(number(&recovered), Some(29));
    let forked = Damage::Forked { slot: SlotIndex(6), sequence: sequence(30) };
    assert_eq!(recovered.damage, [forked]);
    assert_eq!(recovered.next_sequence, sequence(32), "30 was used");
}

#[test]
fn after_a_crash_the_left_out_slot_is_no_damage() {
    let mut records = history(ring(8), 20);
    // 21 was cut; 22 is the first record after the crash.
    records.push(record(ring(8), 22, None));
    let mut image = image_of(ring(8), &records);
    assert_eq!(found(&image, ring(8)).damage, []);
    let cut = record(ring(8), 21, Some(records[19].checksum())).encode_slot();
    slot_mut(&mut image, SlotIndex(5))[..300].copy_from_slice(&cut[..300]);
    for number in 22..=28 {
        let recovered = found(&image, ring(8));
        assert_eq!(recovered.newest.unwrap().sequence, sequence(number));
        assert!(recovered.damage.iter().all(Damage::is_ordinary), "{:?}", recovered.damage);
        assert_eq!(recovered.damage.len(), 1, "{number}");
        let parent = recovered.newest.map(|newest| newest.checksum());
        let next = record(ring(8), number + 1, parent);
        slot_mut(&mut image, next.slot()).copy_from_slice(&next.encode_slot());
    }
}

/// 21 was cut and seen, 22 is left out, 23 is the first record after the crash.
#[test]
fn a_write_that_was_seen_to_be_cut_is_no_damage_when_records_follow() {
    let records = history(ring(8), 20);
    let mut image = image_of(ring(8), &records);
    let cut = record(ring(8), 21, Some(records[19].checksum()));
    for arrived in [100, RECORD_BYTES, SLOT_BYTES - 1] {
        slot_mut(&mut image, cut.slot())[..arrived].copy_from_slice(&cut.encode_slot()[..arrived]);
        let first = record(ring(8), found(&image, ring(8)).next_sequence.get(), None);
        assert_eq!(first.sequence, sequence(23), "{arrived} bytes arrived");
        slot_mut(&mut image, first.slot()).copy_from_slice(&first.encode_slot());
        let damage = found(&image, ring(8)).damage;
        assert!(matches!(damage[..], [Damage::Torn { .. }]), "{arrived}: {damage:?}");
        image = image_of(ring(8), &records);
    }
}

#[test]
fn a_first_write_after_a_crash_that_was_cut_is_no_damage() {
    let mut image = image_of(ring(8), &history(ring(8), 20));
    let first = record(ring(8), found(&image, ring(8)).next_sequence.get(), None);
    slot_mut(&mut image, first.slot())[..100].copy_from_slice(&first.encode_slot()[..100]);
    assert!(matches!(found(&image, ring(8)).damage[..], [Damage::Torn { .. }]));
}

#[test]
fn a_first_write_that_was_cut_is_no_damage() {
    let mut image = image_of(ring(8), &[]);
    let cut = record(ring(8), 1, None).encode_slot();
    slot_mut(&mut image, SlotIndex(1))[..100].copy_from_slice(&cut[..100]);
    assert!(matches!(found(&image, ring(8)).damage[..], [Damage::Torn { .. }]));
    slot_mut(&mut image, SlotIndex(2))[..100].copy_from_slice(&cut[..100]);
    let damage = found(&image, ring(8)).damage;
    assert!(matches!(damage[..], [Damage::Torn { .. }, Damage::Damaged { .. }]), "{damage:?}");
}

#[test]
fn a_sequence_of_which_only_remains_are_left_is_not_used_again() {
    let records = history(ring(8), 20);
    let mut image = image_of(ring(8), &records);
    let cut = record(ring(8), 23, None).encode_slot();
    slot_mut(&mut image, SlotIndex(7))[..100].copy_from_slice(&cut[..100]);
    let recovered = found(&image, ring(8));
    assert_eq!((number(&recovered), recovered.next_sequence), (Some(20), sequence(25)));
    // Remains of what cannot have been written are noise.
    let cut = record(ring(8), 23 + 8000, None).encode_slot();
    slot_mut(&mut image, SlotIndex(7))[..100].copy_from_slice(&cut[..100]);
    assert_eq!(found(&image, ring(8)).next_sequence, sequence(22));
}

#[test]
fn remains_count_even_where_nothing_is_whole() {
    for (number, next) in [(23, 25), ((1 << 32) + 7, 1)] {
        let mut image = image_of(ring(8), &[]);
        let cut = record(ring(8), number, None).encode_slot();
        slot_mut(&mut image, SlotIndex(7))[..100].copy_from_slice(&cut[..100]);
        assert_eq!(found(&image, ring(8)).next_sequence, sequence(next), "{number}");
    }
}

#[test]
fn a_file_of_the_wrong_length_is_told_and_read_as_far_as_it_goes() {
    let image = image_of(ring(8), &history(ring(8), 30));
    let recovered = found(&image[..5 * SLOT_BYTES + 1000], ring(8));
    assert_eq!(number(&recovered), Some(28));
    assert!(matches!(recovered.damage.last(), Some(Damage::Length { .. })));
    let longer = [image.clone(), image].concat();
    let recovered = found(&longer, ring(8));
    assert_eq!((number(&recovered), recovered.damage.len()), (Some(30), 1));
    assert_eq!(found(&[], ring(8)).newest, None);
}

#[test]
fn a_file_is_known_by_most_of_its_records() {
    let mut image = image_of(ring(8), &history(ring(8), 30));
    let foreign = Record { file: FileId([9; 16]), ..record(ring(8), 3, None) };
    slot_mut(&mut image, SlotIndex(3)).copy_from_slice(&foreign.encode_slot());
    assert_eq!(identify(&image), Some(FILE));
    assert_eq!(identify(&[0; SLOT_BYTES]), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn random_bytes_hold_no_record(image in vec(any::<u8>(), 0..20_000)) {
        let recovered = found(&image, ring(4));
        prop_assert_eq!(recovered.newest, None);
        prop_assert_eq!(recovered.next_sequence, RecordSequence::FIRST);
    }

    /// Whatever is overwritten, what is found was written, and is the newest that is whole.
    #[test]
    fn no_damage_makes_a_record_that_was_not_written(
        highest in 1_u64..20,
        damage in vec((0_usize..8 * SLOT_BYTES, 1_usize..6000, any::<u8>()), 0..6),
    ) {
        let records = history(ring(8), highest);
        let intact = image_of(ring(8), &records);
        let mut image = intact.clone();
        for (at, length, byte) in damage {
            let end = (at + length).min(image.len());
            image[at..end].fill(byte);
        }
        let recovered = found(&image, ring(8));
        let is_whole = |record: &&Record| {
            let slot = record.slot().0 as usize * SLOT_BYTES..;
            let copies = &image[slot][..SLOT_BYTES].as_chunks::<RECORD_BYTES>().0;
            copies.contains(&record.encode())
        };
        prop_assert_eq!(recovered.newest.as_ref(), records.iter().rev().find(is_whole));
        let used = records.last().map_or(0, |record| record.sequence.get());
        prop_assert!(image != intact || recovered.next_sequence.get() > used);
    }
}
