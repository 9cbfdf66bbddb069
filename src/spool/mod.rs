//! Breakpoint records and breakpoint files on the disk: what `breakpoint` decides, done.
//!
//! Everything here is durable when it returns, and nothing is written to a file any more once a
//! write to it has failed: what such a file holds is unknown.

pub mod record_file;
