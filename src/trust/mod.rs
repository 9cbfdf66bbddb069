//! Who may speak with whom: keys, what they are known by, and what each may do.
//!
//! An identity is an Ed25519 key, made on first use and known by the [`Fingerprint`] of its public
//! half. There are no certificates: nothing expires, and nobody else vouches. What must never
//! happen here: that the private half is printed, or lies where others can read it.

mod fingerprint;
mod key;

pub use self::fingerprint::{Fingerprint, NotAFingerprint};
pub use self::key::{KeyError, OwnKey};
