//! How far a stream is safe, and how that survives a crash.
//!
//! Pure: bytes in, judgements out; the files themselves are written elsewhere. A [`record`] states
//! how far a transfer is safe and goes into the next slot of a small ring; after a crash
//! [`recovery`] finds the newest one that can be believed, whatever happened to the others. Blocks
//! that must outlive the process stand in a [`segment`]. The [`keeper`] says when a record is
//! written and what may be acknowledged and deleted because of it; the [`decision`] says where a
//! transfer that was cut goes on.
//!
//! What must never happen: a record that says more than is true. Any older record is then safe to
//! believe, and costs only bytes that are sent again.

pub mod decision;
pub mod identity;
pub mod keeper;
mod layout;
pub mod prefix;
pub mod record;
pub mod recovery;
pub mod segment;
pub mod slot;
mod spans;
