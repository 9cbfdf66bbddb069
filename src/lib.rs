//! zferry carries ZFS snapshots from one Linux host to another and never starts over.
#![forbid(unsafe_code)]

pub mod dataset;
pub mod error;
pub mod listing;
pub mod plan;
pub mod process;
pub mod units;
pub mod zfs;
