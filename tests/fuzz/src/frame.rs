//! The header in front of every block, as it comes off the wire.

use zferry::protocol::frame::{HEADER_BYTES, Header};
use zferry::units::Bytes;

use crate::{Target, assert_fit_to_be_shown};

/// The header's last field.
const CRC32_AT: usize = HEADER_BYTES - 4;

/// Nothing, but for what an error says.
pub const TARGET: Target = Target { run, allocated_bytes_max: 32 << 10 };

/// A header, and a byte that says which block size was agreed.
fn run(input: &[u8]) {
    let Some((&bytes, rest)) = input.split_first_chunk() else { return };
    let block_bytes_max = Bytes(1 << (rest.first().unwrap_or(&20) % 33));
    check(&bytes, block_bytes_max);
    let mut sealed = bytes;
    let crc32 = crc32fast::hash(&sealed[..CRC32_AT]);
    sealed[CRC32_AT..].copy_from_slice(&crc32.to_le_bytes());
    check(&sealed, block_bytes_max);
}

fn check(bytes: &[u8; HEADER_BYTES], block_bytes_max: Bytes) {
    let header = match Header::decode(bytes, block_bytes_max) {
        Ok(header) => header,
        Err(error) => return assert_fit_to_be_shown(&error.to_string(), 300),
    };
    assert_eq!(header.encode(), *bytes, "{header:?}");
    assert!(header.length() <= block_bytes_max && header.length() > Bytes(0), "{header:?}");
    assert!(header.payload_bytes <= header.plain_bytes, "{header:?}");
    assert!(header.offset.after(header.length()).is_some(), "{header:?}");
}
