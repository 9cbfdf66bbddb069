//! The first 32 bytes of every connection, from the client to the server.
//!
//! They say which versions the client speaks and what the connection is for; the server answers on
//! the control connection, with messages. They come before authentication by version, so they must
//! never change, and nothing in them may make the server work or wait.

use std::ops::Range;

use super::secret::{JOIN_SECRET_BYTES, Proof};
use super::stranger;
use super::version::Versions;

/// The length of every preamble, in every version to come.
pub const PREAMBLE_BYTES: usize = 32;

/// What opens a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preamble {
    /// The versions that the client speaks.
    pub versions: Versions,
    /// What the connection is for.
    pub role: Role,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Messages: the first connection of a session.
    Control {
        /// Of a ticket's secret, for a receiver that lets nobody in without; zeros for others,
        /// which do not look.
        proof: Proof,
    },
    /// Messages: takes the place of a control connection that was lost.
    Return {
        /// Of the session's secret, from the server's `Welcome`.
        proof: Proof,
    },
    /// Frames: joins a session that the control connection opened.
    Data {
        /// Which of the session's data connections, from 0.
        lane: u16,
        /// Of the session's secret, from the server's `Welcome`.
        proof: Proof,
    },
}

/// Why 32 bytes do not open a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PreambleError {
    /// Something else connected to this port, or this is not zferry's port.
    #[error("no zferry at the other end: {}", stranger::describe(got))]
    Stranger {
        /// The first bytes.
        got: [u8; 8],
    },
    /// A range without a version in it.
    #[error("the client speaks protocol versions {} to {}, which is none", got.min, got.max)]
    Versions {
        /// What it said.
        got: Versions,
    },
    /// A purpose that this build does not know.
    #[error(
        "role {got} is unknown (1 is control, 2 is data, 3 is return); the client speaks {versions}"
    )]
    Role {
        /// What it said.
        got: u8,
        /// Perhaps it is a newer one.
        versions: Versions,
    },
}

const MAGIC: Range<usize> = 0..8;
const VERSION_MIN: Range<usize> = 8..10;
const VERSION_MAX: Range<usize> = 10..12;
const ROLE: Range<usize> = 12..13;
const RESERVED: Range<usize> = 13..14;
const LANE: Range<usize> = 14..16;
const PROOF: Range<usize> = 16..32;

const _: () = {
    assert!(MAGIC.start == 0);
    assert!(MAGIC.end == VERSION_MIN.start);
    assert!(VERSION_MIN.end == VERSION_MAX.start);
    assert!(VERSION_MAX.end == ROLE.start);
    assert!(ROLE.end == RESERVED.start);
    assert!(RESERVED.end == LANE.start);
    assert!(LANE.end == PROOF.start);
    assert!(PROOF.end == PREAMBLE_BYTES);
    assert!(PROOF.end - PROOF.start == JOIN_SECRET_BYTES);
};

/// As in PNG: a byte that is not ASCII, so that no text protocol sends it, and a line end, so that
/// whatever translates line ends on the way is found out at once.
const MAGIC_VALUE: [u8; 8] = *b"\x89zferry\n";

const CONTROL: u8 = 1;
const DATA: u8 = 2;
const RETURN: u8 = 3;

impl Preamble {
    /// The bytes for the wire.
    pub fn encode(&self) -> [u8; PREAMBLE_BYTES] {
        let mut bytes = [0; PREAMBLE_BYTES];
        bytes[MAGIC].copy_from_slice(&MAGIC_VALUE);
        bytes[VERSION_MIN].copy_from_slice(&self.versions.min.to_le_bytes());
        bytes[VERSION_MAX].copy_from_slice(&self.versions.max.to_le_bytes());
        match self.role {
            Role::Control { proof } => {
                bytes[ROLE.start] = CONTROL;
                bytes[PROOF].copy_from_slice(proof.bytes());
            }
            Role::Return { proof } => {
                bytes[ROLE.start] = RETURN;
                bytes[PROOF].copy_from_slice(proof.bytes());
            }
            Role::Data { lane, proof } => {
                bytes[ROLE.start] = DATA;
                bytes[LANE].copy_from_slice(&lane.to_le_bytes());
                bytes[PROOF].copy_from_slice(proof.bytes());
            }
        }
        bytes
    }

    /// What `bytes` open. Bytes that this version does not use are not looked at: a newer client
    /// may have filled them, and must still be told which versions this server speaks.
    pub fn decode(bytes: &[u8; PREAMBLE_BYTES]) -> Result<Preamble, PreambleError> {
        if bytes[MAGIC] != MAGIC_VALUE {
            return Err(PreambleError::Stranger { got: field(bytes, MAGIC) });
        }
        let number = |at| u16::from_le_bytes(field(bytes, at));
        let versions = Versions { min: number(VERSION_MIN), max: number(VERSION_MAX) };
        if versions.min > versions.max {
            return Err(PreambleError::Versions { got: versions });
        }
        let proof = Proof::new(field(bytes, PROOF));
        let role = match bytes[ROLE.start] {
            CONTROL => Role::Control { proof },
            DATA => Role::Data { lane: number(LANE), proof },
            RETURN => Role::Return { proof },
            got => return Err(PreambleError::Role { got, versions }),
        };
        Ok(Preamble { versions, role })
    }
}

fn field<const N: usize>(bytes: &[u8; PREAMBLE_BYTES], at: Range<usize>) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at]);
    field
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(first: &[u8]) -> String {
        let mut bytes = [0; PREAMBLE_BYTES];
        bytes[..first.len()].copy_from_slice(first);
        Preamble::decode(&bytes).unwrap_err().to_string()
    }

    #[test]
    fn a_stranger_is_named() {
        for (first, name) in [
            (b"GET / HTTP/1.1\r\n".as_slice(), "speaks HTTP (\"GET / HT\")"),
            (b"POST /", "speaks HTTP "),
            (b"HTTP/1.1 400", "speaks HTTP "),
            (b"\x16\x03\x01\x02\x00\x01", "speaks TLS (\"\\x16\\x03\\x01"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "speaks SSH (\"SSH-2.0-\")"),
            (b"\x00\x1b[2J", "probably no zferry (\"\\x00\\x1b[2J\\x00\\x00\\x00\")"),
        ] {
            let told = refusal(first);
            assert!(told.contains(name), "{told}");
        }
    }

    #[test]
    fn a_newer_client_is_still_understood_where_it_counts() {
        let versions = Versions { min: 2, max: 9 };
        let role = Role::Control { proof: Proof::new([0xff; 16]) };
        let mut bytes = Preamble { versions, role }.encode();
        bytes[RESERVED].fill(0xff);
        assert_eq!(Preamble::decode(&bytes), Ok(Preamble { versions, role }));
        bytes[ROLE.start] = 4;
        assert_eq!(Preamble::decode(&bytes), Err(PreambleError::Role { got: 4, versions }));
    }

    #[test]
    fn a_range_upside_down_is_refused() {
        let versions = Versions { min: 2, max: 1 };
        let bytes = Preamble { versions, role: Role::Control { proof: Proof::NONE } }.encode();
        assert_eq!(Preamble::decode(&bytes), Err(PreambleError::Versions { got: versions }));
    }

    #[test]
    fn the_proof_is_not_printed() {
        let role = Role::Data { lane: 3, proof: Proof::new([0xab; 16]) };
        let shown = format!("{:?}", Preamble { versions: Versions::OURS, role });
        assert!(shown.contains("redacted") && !shown.contains("171"), "{shown}");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_what_is_decoded(
            numbers in any::<(u16, u16)>(), data in prop::option::of((0..3_u16, any::<[u8; 16]>())),
        ) {
            let versions =
                Versions { min: numbers.0.min(numbers.1), max: numbers.0.max(numbers.1) };
            let role = match data {
                None => Role::Control { proof: Proof::NONE },
                Some((0, random)) => Role::Return { proof: Proof::new(random) },
                Some((lane, random)) => Role::Data { lane, proof: Proof::new(random) },
            };
            let preamble = Preamble { versions, role };
            prop_assert_eq!(Preamble::decode(&preamble.encode()), Ok(preamble));
        }

        #[test]
        fn random_bytes_behind_the_magic_never_panic(bytes in any::<[u8; PREAMBLE_BYTES]>()) {
            let mut bytes = bytes;
            bytes[MAGIC].copy_from_slice(&MAGIC_VALUE);
            bytes[ROLE.start] &= 3;
            if let Ok(preamble) = Preamble::decode(&bytes) {
                prop_assert_eq!(Preamble::decode(&preamble.encode()), Ok(preamble));
            }
        }
    }
}
