//! The only crate of zferry with unsafe code, raw pointers and submission entries.
//!
//! What it promises to safe code:
//! - a slot of an [`arena::Arena`] is in one hand at a time, the kernel's included;
//! - memory that the kernel may touch is not freed, moved or written by us before it lets go;
//! - an operation's descriptor stays open until the operation ends;
//! - operations on one descriptor and direction happen one after the other.
//!
//! It knows nothing of `zfs`, frames or breakpoints.

pub mod arena;
pub mod backend;
pub mod bay;
pub mod cipher;
pub mod control;
pub mod cpu;
mod crew;
pub mod descriptors;
pub mod direct;
pub mod group;
mod ledger;
pub mod loan;
mod operation;
pub mod pidfd;
pub mod pipe;
mod poller;
pub mod port;
pub mod probe;
mod ring;
mod scribes;
pub mod socket;
pub mod splicer;
pub mod wake;
