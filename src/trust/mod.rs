//! Who may speak with whom: keys, what they are known by, and what each may do.
//!
//! An identity is an Ed25519 key, made on first use and known by the [`Fingerprint`] of its public
//! half. There are no certificates: nothing expires, and nobody else vouches. A server has a list
//! of [`clients`] and what is [granted](grants) to each, a client a list of [`servers`]; both lie
//! in one [`folder`] with the key. What must never happen here: that the private half is printed,
//! or lies where others can read it, or that a list counts which others can write.

mod book;
pub mod clients;
pub mod edit;
mod fingerprint;
pub mod folder;
pub mod grants;
mod key;
pub mod list;
pub mod owner;
pub mod servers;

pub use self::book::Book;
pub use self::fingerprint::{Fingerprint, NotAFingerprint};
pub use self::folder::Folder;
pub use self::key::{KeyError, OwnKey};
