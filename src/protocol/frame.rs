//! The header in front of every block on a data connection: 48 bytes, little-endian.
//!
//! Written by the sender when a block is ready to go, read by the receiver before it takes the
//! payload. A length from the wire must never be used before [`Header::decode`] has checked it:
//! what decodes is consistent in itself and within the block size that was agreed.

use std::ops::{Range, RangeInclusive};

use serde::{Deserialize, Serialize};

use crate::units::{Bytes, Sequence, StreamOffset, TransferId};

/// The length of every header.
pub const HEADER_BYTES: usize = 48;

/// What stands in front of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The transfer that the block belongs to; from 1.
    pub transfer: TransferId,
    /// The run of `zfs send` that the block came out of: an offset means nothing outside it.
    pub epoch: u32,
    /// The block's number within the session: tells a replayed frame from a new one.
    pub sequence: Sequence,
    /// Where the block's first byte stands in the uncompressed stream.
    pub offset: StreamOffset,
    /// How the payload is packed.
    pub codec: Codec,
    /// The block's length in the stream: from 1 to the block size that was agreed.
    pub plain_bytes: u32,
    /// The length of what follows the header: `plain_bytes` where raw, less where compressed.
    pub payload_bytes: u32,
    /// CRC32 of the block's uncompressed bytes: it is checked last, in front of `zfs receive`. 0
    /// where bare.
    pub crc32: u32,
}

/// How a payload is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Codec {
    /// As it came out of `zfs send`.
    Raw,
    /// One zstd frame.
    Zstd,
    /// As it came out of `zfs send`, and proved by nobody but `zfs receive`: its CRC32 is 0. So no
    /// end has to look at the bytes.
    Bare,
}

/// Why 48 bytes are not a header that we could act on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The connection carries something else, or we lost our place in it.
    #[error("a frame begins with {expected:#010x}, this one with {got:#010x}")]
    Magic {
        /// Our magic.
        expected: u32,
        /// What stood there.
        got: u32,
    },
    /// The header was damaged on its way.
    #[error("the frame header's CRC32 is {expected:#010x}, but its bytes give {got:#010x}")]
    HeaderCrc {
        /// What the header says.
        expected: u32,
        /// What its bytes give.
        got: u32,
    },
    /// A byte that this version leaves zero.
    #[error("the frame header's reserved bytes are {got:?}; this version knows only zeros")]
    Reserved {
        /// What stood there.
        got: [u8; 3],
    },
    /// A codec that nobody knows, or agreed to.
    #[error("codec {got} is unknown or was not agreed; 0 is raw, 1 is zstd, 2 is bare")]
    Codec {
        /// What stood there.
        got: u8,
    },
    /// Transfer 0: they are counted from 1.
    #[error("the frame belongs to transfer 0; transfers are counted from 1")]
    NoTransfer,
    /// An empty block, or one larger than was agreed.
    #[error("a block of {got} bytes; agreed were 1 to {expected_max}")]
    PlainBytes {
        /// The agreed block size in bytes.
        expected_max: u64,
        /// What the header says.
        got: u32,
    },
    /// A payload whose length does not go with the block's.
    #[error(
        "a {codec:?} payload of {got} bytes; a block of {plain_bytes} bytes has {} to {}",
        expected.start(), expected.end()
    )]
    PayloadBytes {
        /// How it is packed.
        codec: Codec,
        /// The block's length.
        plain_bytes: u32,
        /// What would have been right.
        expected: RangeInclusive<u32>,
        /// What the header says.
        got: u32,
    },
    /// A CRC32 where there is none.
    #[error("a bare block with the CRC32 {got:#010x}; bare ones have none")]
    BareCrc {
        /// What the header says.
        got: u32,
    },
    /// A block that ends where no stream can reach.
    #[error("a block of {plain_bytes} bytes at offset {offset} ends beyond 2^64")]
    PastEnd {
        /// Where it begins.
        offset: StreamOffset,
        /// How long it is.
        plain_bytes: u32,
    },
}

// The order: what recognizes, what routes, what orders, what measures, what proves. Every field
// lies at a multiple of its size.
const MAGIC: Range<usize> = 0..4;
const CODEC: Range<usize> = 4..5;
const RESERVED: Range<usize> = 5..8;
const TRANSFER: Range<usize> = 8..12;
const EPOCH: Range<usize> = 12..16;
const SEQUENCE: Range<usize> = 16..24;
const OFFSET: Range<usize> = 24..32;
const PLAIN_BYTES: Range<usize> = 32..36;
const PAYLOAD_BYTES: Range<usize> = 36..40;
const CRC32: Range<usize> = 40..44;
const HEADER_CRC32: Range<usize> = 44..48;

const _: () = {
    assert!(MAGIC.start == 0);
    assert!(MAGIC.end == CODEC.start);
    assert!(CODEC.end == RESERVED.start);
    assert!(RESERVED.end == TRANSFER.start);
    assert!(TRANSFER.end == EPOCH.start);
    assert!(EPOCH.end == SEQUENCE.start);
    assert!(SEQUENCE.end == OFFSET.start);
    assert!(OFFSET.end == PLAIN_BYTES.start);
    assert!(PLAIN_BYTES.end == PAYLOAD_BYTES.start);
    assert!(PAYLOAD_BYTES.end == CRC32.start);
    assert!(CRC32.end == HEADER_CRC32.start);
    assert!(HEADER_CRC32.end == HEADER_BYTES);
    assert!(SEQUENCE.start.is_multiple_of(8) && OFFSET.start.is_multiple_of(8));
};

/// `zfF` behind a byte that is not ASCII, so that no text looks like a frame.
const MAGIC_VALUE: u32 = u32::from_le_bytes(*b"\xf0zfF");

impl Header {
    /// How much of the stream the block is.
    pub fn length(&self) -> Bytes {
        Bytes(self.plain_bytes.into())
    }

    /// The bytes for the wire.
    ///
    /// # Panics
    ///
    /// When the fields contradict each other: that is our own mistake, and it must not travel.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        assert_eq!(self.check(Bytes(u64::MAX)), Ok(()), "a header of our own is wrong: {self:?}");
        let mut bytes = [0; HEADER_BYTES];
        bytes[MAGIC].copy_from_slice(&MAGIC_VALUE.to_le_bytes());
        bytes[CODEC].copy_from_slice(&[self.codec.number()]);
        bytes[TRANSFER].copy_from_slice(&self.transfer.0.to_le_bytes());
        bytes[EPOCH].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[SEQUENCE].copy_from_slice(&self.sequence.0.to_le_bytes());
        bytes[OFFSET].copy_from_slice(&self.offset.0.to_le_bytes());
        bytes[PLAIN_BYTES].copy_from_slice(&self.plain_bytes.to_le_bytes());
        bytes[PAYLOAD_BYTES].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[CRC32].copy_from_slice(&self.crc32.to_le_bytes());
        let header_crc32 = crc32fast::hash(&bytes[..HEADER_CRC32.start]);
        bytes[HEADER_CRC32].copy_from_slice(&header_crc32.to_le_bytes());
        bytes
    }

    /// The header in `bytes`, every field checked; no block is larger than `block_bytes_max`.
    pub fn decode(
        bytes: &[u8; HEADER_BYTES],
        block_bytes_max: Bytes,
    ) -> Result<Header, FrameError> {
        check_envelope(bytes)?;
        let header = Header {
            codec: Codec::numbered(bytes[CODEC.start])?,
            transfer: TransferId(u32_at(bytes, TRANSFER)),
            epoch: u32_at(bytes, EPOCH),
            sequence: Sequence(u64_at(bytes, SEQUENCE)),
            offset: StreamOffset(u64_at(bytes, OFFSET)),
            plain_bytes: u32_at(bytes, PLAIN_BYTES),
            payload_bytes: u32_at(bytes, PAYLOAD_BYTES),
            crc32: u32_at(bytes, CRC32),
        };
        header.check(block_bytes_max)?;
        Ok(header)
    }

    /// Whether the fields go together: asked where we write and where we read.
    fn check(&self, block_bytes_max: Bytes) -> Result<(), FrameError> {
        let Header { codec, offset, plain_bytes, payload_bytes, .. } = *self;
        if self.transfer == TransferId(0) {
            return Err(FrameError::NoTransfer);
        }
        if plain_bytes == 0 || u64::from(plain_bytes) > block_bytes_max.0 {
            let expected_max = block_bytes_max.0;
            return Err(FrameError::PlainBytes { expected_max, got: plain_bytes });
        }
        let expected = codec.payload_bytes(plain_bytes);
        if !expected.contains(&payload_bytes) {
            let got = payload_bytes;
            return Err(FrameError::PayloadBytes { codec, plain_bytes, expected, got });
        }
        if codec == Codec::Bare && self.crc32 != 0 {
            return Err(FrameError::BareCrc { got: self.crc32 });
        }
        match offset.after(Bytes(u64::from(plain_bytes))) {
            Some(_) => Ok(()),
            None => Err(FrameError::PastEnd { offset, plain_bytes }),
        }
    }
}

impl Codec {
    /// Its number on the wire.
    pub fn number(self) -> u8 {
        match self {
            Codec::Raw => 0,
            Codec::Zstd => 1,
            Codec::Bare => 2,
        }
    }

    /// Whether blocks packed like this may come where `self` was agreed: what does not shrink goes
    /// raw.
    pub fn allows(self, got: Codec) -> bool {
        got == self || (self, got) == (Codec::Zstd, Codec::Raw)
    }

    /// How long a payload of this codec may be for a block of `plain_bytes`. Compressed blocks
    /// that did not shrink go raw, so a compressed payload is always the shorter one.
    fn payload_bytes(self, plain_bytes: u32) -> RangeInclusive<u32> {
        match self {
            Codec::Raw | Codec::Bare => plain_bytes..=plain_bytes,
            Codec::Zstd => 1..=plain_bytes.saturating_sub(1),
        }
    }

    fn numbered(got: u8) -> Result<Codec, FrameError> {
        match got {
            0 => Ok(Codec::Raw),
            1 => Ok(Codec::Zstd),
            2 => Ok(Codec::Bare),
            _ => Err(FrameError::Codec { got }),
        }
    }
}

/// Magic before CRC, so that a stranger is called a stranger and not damage; CRC before every
/// field, so that damage is called damage and not an unknown codec.
fn check_envelope(bytes: &[u8; HEADER_BYTES]) -> Result<(), FrameError> {
    let magic = u32_at(bytes, MAGIC);
    if magic != MAGIC_VALUE {
        return Err(FrameError::Magic { expected: MAGIC_VALUE, got: magic });
    }
    let expected = u32_at(bytes, HEADER_CRC32);
    let got = crc32fast::hash(&bytes[..HEADER_CRC32.start]);
    if got != expected {
        return Err(FrameError::HeaderCrc { expected, got });
    }
    let mut reserved = [0; 3];
    reserved.copy_from_slice(&bytes[RESERVED]);
    if reserved == [0; 3] { Ok(()) } else { Err(FrameError::Reserved { got: reserved }) }
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: Range<usize>) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at]);
    u32::from_le_bytes(field)
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: Range<usize>) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at]);
    u64::from_le_bytes(field)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK_BYTES_MAX: Bytes = Bytes(1 << 20);

    fn header() -> Header {
        Header {
            transfer: TransferId(1),
            epoch: 2,
            sequence: Sequence(3),
            offset: StreamOffset(4 << 20),
            codec: Codec::Zstd,
            plain_bytes: 1 << 20,
            payload_bytes: 5000,
            crc32: 0xdead_beef,
        }
    }

    /// The bytes of `header()` with one field overwritten and the header's CRC made right again:
    /// what a peer could send, and not just a damaged wire.
    fn forged(at: Range<usize>, field: &[u8]) -> Result<Header, FrameError> {
        let mut bytes = header().encode();
        bytes[at].copy_from_slice(field);
        let header_crc32 = crc32fast::hash(&bytes[..HEADER_CRC32.start]);
        bytes[HEADER_CRC32].copy_from_slice(&header_crc32.to_le_bytes());
        Header::decode(&bytes, BLOCK_BYTES_MAX)
    }

    #[test]
    fn every_flipped_bit_is_caught() {
        let good = header().encode();
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bytes, BLOCK_BYTES_MAX).is_err(), "bit {bit} went unseen");
        }
    }

    #[test]
    fn a_stranger_is_called_a_stranger_and_damage_damage() {
        let text = *b"GET / HTTP/1.1\r\nHost: backup.example.org\r\nUser-A";
        let got = Header::decode(&text, BLOCK_BYTES_MAX);
        assert!(matches!(got, Err(FrameError::Magic { .. })), "{got:?}");
        let mut bytes = header().encode();
        bytes[CODEC.start] = 77;
        let got = Header::decode(&bytes, BLOCK_BYTES_MAX);
        assert!(matches!(got, Err(FrameError::HeaderCrc { .. })), "{got:?}");
    }

    #[test]
    fn every_field_of_a_forged_header_is_checked() {
        assert_eq!(forged(CODEC, &[3]), Err(FrameError::Codec { got: 3 }));
        assert_eq!(forged(RESERVED, &[0, 1, 0]), Err(FrameError::Reserved { got: [0, 1, 0] }));
        assert_eq!(forged(TRANSFER, &[0; 4]), Err(FrameError::NoTransfer));
        for got in [0, (1 << 20) + 1, u32::MAX] {
            let expected = Err(FrameError::PlainBytes { expected_max: 1 << 20, got });
            assert_eq!(forged(PLAIN_BYTES, &got.to_le_bytes()), expected);
        }
        let offset = StreamOffset(u64::MAX - (1 << 20) + 1);
        let expected = Err(FrameError::PastEnd { offset, plain_bytes: 1 << 20 });
        assert_eq!(forged(OFFSET, &offset.0.to_le_bytes()), expected);
    }

    #[test]
    fn a_payload_is_as_long_as_its_codec_allows() {
        for got in [0, 1 << 20, (1 << 20) + 1, u32::MAX] {
            let refused = forged(PAYLOAD_BYTES, &got.to_le_bytes());
            assert!(matches!(refused, Err(FrameError::PayloadBytes { .. })), "zstd {got}");
        }
        let mut raw = header();
        raw.codec = Codec::Raw;
        assert!(raw.check(BLOCK_BYTES_MAX).is_err(), "a raw payload shorter than its block");
        raw.payload_bytes = raw.plain_bytes;
        assert_eq!(raw.check(BLOCK_BYTES_MAX), Ok(()));
    }

    #[test]
    fn a_bare_block_has_no_crc32() {
        let bare = Header { codec: Codec::Bare, payload_bytes: 1 << 20, crc32: 0, ..header() };
        assert_eq!(Header::decode(&bare.encode(), BLOCK_BYTES_MAX), Ok(bare));
        let proved = Header { crc32: 7, ..bare };
        assert_eq!(proved.check(BLOCK_BYTES_MAX), Err(FrameError::BareCrc { got: 7 }));
    }

    #[test]
    fn one_byte_cannot_be_compressed() {
        let header = Header { plain_bytes: 1, payload_bytes: 1, ..header() };
        assert!(header.check(BLOCK_BYTES_MAX).is_err());
    }

    #[test]
    #[should_panic(expected = "a header of our own is wrong")]
    fn a_contradiction_of_our_own_does_not_travel() {
        let _ = Header { payload_bytes: 0, ..header() }.encode();
    }

    fn any_header() -> impl Strategy<Value = Header> {
        let sizes = (1..=1_u32 << 20).prop_flat_map(|plain| (Just(plain), 1..=plain));
        let numbers = (1..=u32::MAX, any::<u32>(), any::<u64>(), 0..u64::MAX - (1 << 20));
        let crc32 = prop_oneof![3 => any::<u32>(), 1 => Just(0)];
        (sizes, numbers, crc32).prop_map(
            |((plain_bytes, payload_bytes), (transfer, epoch, sequence, offset), crc32)| Header {
                transfer: TransferId(transfer),
                epoch,
                sequence: Sequence(sequence),
                offset: StreamOffset(offset),
                codec: match (payload_bytes == plain_bytes, crc32) {
                    (true, 0) => Codec::Bare,
                    (true, _) => Codec::Raw,
                    _ => Codec::Zstd,
                },
                plain_bytes,
                payload_bytes,
                crc32,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_what_is_decoded(header in any_header()) {
            prop_assert_eq!(Header::decode(&header.encode(), BLOCK_BYTES_MAX), Ok(header));
        }

        #[test]
        fn random_bytes_behind_a_right_envelope_are_refused_or_consistent(
            bytes in any::<[u8; HEADER_BYTES]>(),
        ) {
            let mut bytes = bytes;
            bytes[MAGIC].copy_from_slice(&MAGIC_VALUE.to_le_bytes());
            bytes[CODEC.start] &= 1;
            bytes[RESERVED].fill(0);
            // A quarter of the range, so that many lengths are allowed ones.
            bytes[PLAIN_BYTES.end - 1] = 0;
            bytes[PAYLOAD_BYTES.end - 1] = 0;
            bytes[PLAIN_BYTES.end - 2] &= 0x1f;
            bytes[PAYLOAD_BYTES.end - 2] &= 0x1f;
            let crc32 = crc32fast::hash(&bytes[..HEADER_CRC32.start]);
            bytes[HEADER_CRC32].copy_from_slice(&crc32.to_le_bytes());
            if let Ok(header) = Header::decode(&bytes, BLOCK_BYTES_MAX) {
                prop_assert!(header.plain_bytes <= 1 << 20);
                prop_assert!((1..=header.plain_bytes).contains(&header.payload_bytes));
                prop_assert_eq!(header.encode(), bytes);
            }
        }
    }
}
