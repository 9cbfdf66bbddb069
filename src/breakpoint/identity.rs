//! What tells one breakpoint file, session, boot, slot and record from another.
//!
//! A record that is whole may still be the wrong one: of another file, from a restored backup, in
//! a slot that the disk chose by mistake. These types are how it says so. None of them is a secret.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Serialize, Serializer};

/// Sixteen random bytes with a meaning of their own; as text 32 hexadecimal digits.
macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", u128::from_be_bytes(self.0))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

identity! {
    /// A record file and the breakpoint files beside it; drawn when they are made.
    FileId
}

identity! {
    /// A session, as the side that writes the file names it. Whoever knows it can join nothing: the
    /// join secret is another number, and does not belong on a disk.
    SessionId
}

identity! {
    /// One boot of the host, as `/proc/sys/kernel/random/boot_id` has it.
    BootId
}

/// The number of a record within its file: from 1, growing, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RecordSequence(u64);

/// The place of a slot in its ring, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct SlotIndex(pub u32);

/// How many slots a ring has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct RingSlots(NonZeroU32);

impl FileId {
    /// The file with this name: 32 hexadecimal digits, as [`FileId`] is shown.
    pub fn parse(text: &str) -> Option<FileId> {
        let digits =
            text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number = digits.then(|| u128::from_str_radix(text, 16).ok())??;
        Some(FileId(number.to_be_bytes()))
    }
}

impl BootId {
    /// The boot with this name, as the kernel writes it: 32 hexadecimal digits with dashes.
    pub fn parse(text: &str) -> Option<BootId> {
        FileId::parse(&text.trim().replace('-', "")).map(|FileId(bytes)| BootId(bytes))
    }
}

impl RecordSequence {
    /// The first record of a file.
    pub const FIRST: RecordSequence = RecordSequence(1);

    /// Larger numbers are not believed: no file lives through 2^62 records, and below that no sum
    /// of ours overflows.
    const MAX: u64 = 1 << 62;

    /// The sequence with this number, if a record could have it.
    pub fn new(number: u64) -> Option<RecordSequence> {
        (1..=Self::MAX).contains(&number).then_some(RecordSequence(number))
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The one behind it.
    #[must_use]
    pub fn next(self) -> RecordSequence {
        RecordSequence(self.0 + 1)
    }

    /// The one before it; `None` for the first.
    pub fn previous(self) -> Option<RecordSequence> {
        RecordSequence::new(self.0 - 1)
    }

    /// Where to go on after a crash, this being the highest sequence seen: the one behind it may
    /// have been given to a write of which nothing is left.
    #[must_use]
    pub fn after_crash(self) -> RecordSequence {
        RecordSequence(self.0 + 2)
    }

    /// The slot that a record of this sequence goes to.
    pub fn slot(self, ring: RingSlots) -> SlotIndex {
        let index = self.0 % u64::from(ring.get());
        SlotIndex(u32::try_from(index).unwrap_or_else(|_| unreachable!("less than a u32")))
    }
}

impl RingSlots {
    /// The ring of every record file. Not two slots in turn: neighbours share pages of flash, and
    /// a power cut was seen to damage those too (Zheng et al., FAST 2013). 63 older records cost
    /// 256 KiB and are the file's own history.
    pub const STANDARD: RingSlots = RingSlots(NonZeroU32::new(64).unwrap());

    /// A ring of `slots` slots: two at least, so that a write never touches the newest record.
    pub fn new(slots: u32) -> Option<RingSlots> {
        NonZeroU32::new(slots).filter(|slots| slots.get() >= 2).map(RingSlots)
    }

    /// The number of slots.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for RecordSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for SlotIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_goes_around_the_ring() {
        let slots: Vec<u32> =
            (1..=65).map(|n| RecordSequence(n).slot(RingSlots::STANDARD).0).collect();
        assert_eq!((slots[0], slots[62], slots[63], slots[64]), (1, 63, 0, 1));
    }

    #[test]
    fn no_sequence_is_zero_or_near_the_end_of_its_bits() {
        assert_eq!(RecordSequence::new(0), None);
        assert_eq!(RecordSequence::new(u64::MAX), None);
        assert_eq!(RecordSequence::FIRST.previous(), None);
        let last = RecordSequence::new(RecordSequence::MAX).unwrap();
        assert_eq!(last.after_crash().get(), RecordSequence::MAX + 2);
    }

    #[test]
    fn a_ring_has_two_slots_at_least() {
        assert_eq!((RingSlots::new(0), RingSlots::new(1)), (None, None));
        assert_eq!(RingSlots::new(2).unwrap().get(), 2);
    }

    #[test]
    fn what_is_shown_can_be_read_and_nothing_else() {
        let file = FileId(*b"0123456789abcdef");
        assert_eq!(FileId::parse(&file.to_string()), Some(file));
        for text in ["", "a", "../../../../etc/passwd", &"A".repeat(32), &"+".repeat(32)] {
            assert_eq!(FileId::parse(text), None, "{text}");
        }
        let boot = BootId::parse("01234567-89ab-cdef-0123-456789abcdef\n").unwrap();
        assert_eq!(boot.to_string(), "0123456789abcdef".repeat(2));
    }

    #[test]
    fn identities_are_shown_as_32_digits() {
        assert_eq!(FileId([1; 16]).to_string(), "01".repeat(16));
        assert_eq!(serde_json::to_string(&BootId([0; 16])).unwrap(), format!("\"{:032}\"", 0));
    }
}
