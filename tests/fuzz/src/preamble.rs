//! The first 32 bytes of a connection, from anybody who finds the port.

use zferry::protocol::preamble::Preamble;

use crate::{Target, assert_fit_to_be_shown};

/// Nothing, but for what an error says.
pub const TARGET: Target = Target { run, allocated_bytes_max: 32 << 10 };

fn run(input: &[u8]) {
    let Some(bytes) = input.first_chunk() else { return };
    let preamble = match Preamble::decode(bytes) {
        Ok(preamble) => preamble,
        Err(error) => return assert_fit_to_be_shown(&error.to_string(), 300),
    };
    assert!(preamble.versions.min <= preamble.versions.max);
    // Not of the same bytes: what this version does not use, it does not look at.
    let again = Preamble::decode(&preamble.encode());
    assert_eq!(again, Ok(preamble));
}
