//! Breakpoint records and breakpoint files on the disk: what `breakpoint` decides, done.
//!
//! Records are durable when their writing returns; breakpoint files that only keep the source going
//! need not be, and are gone with their process. Nothing is written to a file any more once a write
//! to it has failed: what such a file holds is unknown. That is said, and whatever the file was for
//! goes on without it.

pub mod fault;
pub mod folder;
pub mod handover;
pub mod keeping;
pub mod left;
pub mod names;
mod notes;
pub mod record_file;
pub mod segments;
pub mod share;
pub mod trail;
pub mod transfers;
