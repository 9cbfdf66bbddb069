//! What a `zfs send` stream says of itself before any of its data: its BEGIN record.
//!
//! `zfs receive` does what the stream says, not what its sender announced: the stream names the
//! snapshot, the kind of the dataset, and in a package a whole tree with its properties. So whoever
//! receives for others reads this record first ([`Begin`]) and compares it with what was announced
//! ([`judge`]). Every byte is a stranger's. What must never happen here: a panic, a length that is
//! used before it was checked, and a stream that is let in because something in it is unknown.

mod begin;
mod judge;
#[cfg(test)]
mod tests;

pub use self::begin::{Begin, BeginError, Content, Features, Form, PAYLOAD_BYTES_MAX};
pub use self::judge::{Admitted, Announced, Refusal, judge};
