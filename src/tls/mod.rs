//! TLS 1.3 with pinned keys, on every connection that leaves the host.
//!
//! Both sides show a raw public key (RFC 7250) and prove that they have its other half; whether it
//! is trusted is asked of [`Trusted`] before a byte of ours is said. No certificates, no
//! resumption, no early data, no older version to fall back to. What must never happen here: a
//! connection over which something is said while it is not known to whom.

mod agreement;
mod session;
mod verify;

pub use self::agreement::{Agreement, Anybody, Trusted};
pub use self::session::{Exported, Session, Stage};
pub use self::verify::{is_of_trust, untrusted};

#[cfg(test)]
mod tests;
