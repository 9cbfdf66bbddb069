//! Breakpoint records and breakpoint files on the disk: what `breakpoint` decides, done.
//!
//! Everything here is durable when it returns, and nothing is written to a file any more once a
//! write to it has failed: what such a file holds is unknown. That is said, and whatever the file
//! was for goes on without it.

pub mod fault;
pub mod folder;
pub mod keeping;
pub mod names;
pub mod record_file;
