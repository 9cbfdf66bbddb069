//! The record that a stream begins with: a client's bytes, before anything takes them.

use zferry::stream::{Begin, PAYLOAD_BYTES_MAX};

use crate::{Target, assert_fit_to_be_shown};

/// Nothing is kept but a name.
pub const TARGET: Target = Target { run, allocated_bytes_max: 64 << 10 };

/// The input as it is, and behind the head of a record in either byte order.
fn run(input: &[u8]) {
    check(input);
    for magic in [MAGIC.to_le_bytes(), MAGIC.to_be_bytes()] {
        let mut record = vec![0; 8];
        record.extend_from_slice(&magic);
        record.extend_from_slice(input);
        check(&record);
    }
}

/// As `dmu_replay_record` has it.
const MAGIC: u64 = 0x2_F5BA_CBAC;

fn check(stream: &[u8]) {
    match Begin::read(stream) {
        Ok(Some(begin)) => {
            assert!(begin.payload.0 <= u64::from(PAYLOAD_BYTES_MAX), "{begin:?}");
            // What follows is of no interest.
            let longer = [stream, &[0xff; 64]].concat();
            assert_eq!(Begin::read(&longer).unwrap().as_ref(), Some(&begin));
        }
        Ok(None) => {}
        Err(error) => assert_fit_to_be_shown(&error.to_string(), 500),
    }
}
