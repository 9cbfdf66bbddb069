//! One breakpoint record, as it stands on a disk.

use zferry::breakpoint::record::{RECORD_BYTES, Record};

use crate::{Target, assert_fit_to_be_shown};

/// The record's last field.
const CRC32_AT: usize = RECORD_BYTES - 4;

/// Nothing, but for what an error says.
pub const TARGET: Target = Target { run, allocated_bytes_max: 32 << 10 };

/// The front of a record; the rest of it is zeros, as in a true one.
fn run(input: &[u8]) {
    let mut bytes = [0; RECORD_BYTES];
    let length = input.len().min(RECORD_BYTES);
    bytes[..length].copy_from_slice(&input[..length]);
    check(&bytes);
    check(&sealed(bytes));
}

/// The same bytes with the right checksum.
pub(crate) fn sealed(mut bytes: [u8; RECORD_BYTES]) -> [u8; RECORD_BYTES] {
    let crc32 = crc32fast::hash(&bytes[..CRC32_AT]);
    bytes[CRC32_AT..].copy_from_slice(&crc32.to_le_bytes());
    bytes
}

fn check(bytes: &[u8; RECORD_BYTES]) {
    let record = match Record::decode(bytes) {
        Ok(record) => record,
        Err(error) => return assert_fit_to_be_shown(&error.to_string(), 300),
    };
    assert_eq!(record.encode(), *bytes, "{record:?}");
    assert!(record.slot().0 < record.ring.get(), "{record:?}");
    let progress = record.progress;
    for watermark in [progress.spooled, progress.fed, progress.acknowledged.to] {
        assert!(watermark <= progress.received, "{progress:?}");
    }
    assert!(progress.end.is_none_or(|end| progress.received <= end.to), "{progress:?}");
}
