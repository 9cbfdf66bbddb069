//! What two ends do together: the lesser of what each of them can.
//!
//! Both ends call the same function. The server agrees to a `Hello` with it, and the client checks
//! with it that the `Welcome` stays within the `Hello`. It must never give more than an end can.

use std::collections::BTreeSet;

use super::frame::Codec;
use super::message::{Limits, Request};
use super::version::Version;
use crate::units::Bytes;

/// Smaller blocks cost more in headers and wake-ups than they carry: one page.
pub const BLOCK_BYTES_MIN: Bytes = Bytes(4 << 10);

/// Larger blocks gain nothing and make every slot, and so the cache, larger.
pub const BLOCK_BYTES_MAX: Bytes = Bytes(16 << 20);

/// What holds for one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The version of the wire.
    pub version: Version,
    /// What both ends can do.
    pub limits: Limits,
}

/// Ends that cannot work together, or a request that goes beyond what was agreed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAgreement {
    /// A block size outside of what makes sense or was agreed.
    #[error("blocks of {got}; possible are {min} to {max}")]
    BlockBytes {
        /// The least.
        min: Bytes,
        /// The most.
        max: Bytes,
        /// What one end wants.
        got: Bytes,
    },
    /// Nowhere for blocks to travel.
    #[error("no data connection: one end allows 0")]
    NoConnection,
    /// A codec that one end does not have; raw is the one that every end must.
    #[error("codec {wanted:?} is needed; both ends have {common:?}")]
    Codec {
        /// What is needed.
        wanted: Codec,
        /// What both have.
        common: BTreeSet<Codec>,
    },
}

/// What an end with `ours` and an end with `theirs` do together.
pub fn negotiate(version: Version, ours: &Limits, theirs: &Limits) -> Result<Agreed, NoAgreement> {
    let limits = Limits {
        block_bytes_max: ours.block_bytes_max.min(theirs.block_bytes_max).min(BLOCK_BYTES_MAX),
        connections: ours.connections.min(theirs.connections),
        codecs: ours.codecs.intersection(&theirs.codecs).copied().collect(),
    };
    check_block_bytes(limits.block_bytes_max, BLOCK_BYTES_MAX)?;
    check_codec(Codec::Raw, &limits.codecs)?;
    if limits.connections == 0 {
        return Err(NoAgreement::NoConnection);
    }
    Ok(Agreed { version, limits })
}

impl Agreed {
    /// Whether a request stays within what was agreed: asked where we write and where we read.
    pub fn permits(&self, request: &Request) -> Result<(), NoAgreement> {
        check_block_bytes(request.block_bytes, self.limits.block_bytes_max)?;
        check_codec(request.codec, &self.limits.codecs)
    }
}

fn check_block_bytes(got: Bytes, max: Bytes) -> Result<(), NoAgreement> {
    let min = BLOCK_BYTES_MIN;
    let possible = (min..=max).contains(&got);
    if possible { Ok(()) } else { Err(NoAgreement::BlockBytes { min, max, got }) }
}

fn check_codec(wanted: Codec, common: &BTreeSet<Codec>) -> Result<(), NoAgreement> {
    let had = common.contains(&wanted);
    if had { Ok(()) } else { Err(NoAgreement::Codec { wanted, common: common.clone() }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(block_bytes_max: u64, connections: u16, codecs: &[Codec]) -> Limits {
        let codecs = codecs.iter().copied().collect();
        Limits { block_bytes_max: Bytes(block_bytes_max), connections, codecs }
    }

    const BOTH: &[Codec] = &[Codec::Raw, Codec::Zstd];

    #[test]
    fn the_lesser_of_each_is_agreed_whoever_asks() {
        let ours = limits(1 << 20, 8, BOTH);
        let theirs = limits(4 << 20, 2, &[Codec::Raw]);
        let agreed = negotiate(Version::V1, &ours, &theirs).unwrap();
        assert_eq!(agreed.limits, limits(1 << 20, 2, &[Codec::Raw]));
        assert_eq!(negotiate(Version::V1, &theirs, &ours).unwrap(), agreed);
    }

    #[test]
    fn no_two_ends_agree_on_more_than_makes_sense() {
        let greedy = limits(u64::MAX, u16::MAX, BOTH);
        let agreed = negotiate(Version::V1, &greedy, &greedy).unwrap();
        assert_eq!(agreed.limits, limits(16 << 20, u16::MAX, BOTH));
    }

    #[test]
    fn ends_that_cannot_work_together_say_why() {
        let ours = limits(1 << 20, 8, BOTH);
        let refusal = |theirs| negotiate(Version::V1, &ours, &theirs).unwrap_err().to_string();
        assert_eq!(
            refusal(limits(4095, 8, BOTH)),
            "blocks of 4.0 KiB; possible are 4.0 KiB to 16.0 MiB"
        );
        assert_eq!(refusal(limits(1 << 20, 0, BOTH)), "no data connection: one end allows 0");
        assert_eq!(
            refusal(limits(1 << 20, 8, &[Codec::Zstd])),
            "codec Raw is needed; both ends have {Zstd}"
        );
    }

    #[test]
    fn a_codec_from_the_future_is_offered_in_vain() {
        let text =
            r#"{"block_bytes_max":4096,"connections":1,"codecs":["lz9","zstd","raw","raw"]}"#;
        assert_eq!(serde_json::from_str::<Limits>(text).unwrap(), limits(4096, 1, BOTH));
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_it_can(
            a in (any::<u64>(), any::<u16>(), any::<bool>()),
            b in (any::<u64>(), any::<u16>(), any::<bool>()),
        ) {
            let codecs = |zstd| if zstd { BOTH } else { &BOTH[..1] };
            let [a, b] = [a, b].map(|(bytes, n, zstd)| limits(bytes >> (n % 64), n, codecs(zstd)));
            if let Ok(agreed) = negotiate(Version::V1, &a, &b) {
                for one in [&a, &b] {
                    prop_assert!(agreed.limits.block_bytes_max <= one.block_bytes_max);
                    prop_assert!(agreed.limits.connections <= one.connections);
                    prop_assert!(agreed.limits.codecs.is_subset(&one.codecs));
                }
                // What was agreed can be agreed to: so the client checks the server.
                let again = negotiate(Version::V1, &a, &agreed.limits);
                prop_assert_eq!(again, Ok(agreed));
            }
        }
    }
}
