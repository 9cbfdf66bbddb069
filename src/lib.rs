//! zferry carries ZFS snapshots from one Linux host to another and never starts over.
//!
//! Modules stand on each other in this order, and name only what stands below them:
//! `units, error, backoff, small_file, dataset, pattern, listing, token, stream, retention, trust <
//! protocol < breakpoint < schedule < plan < spool < process < zfs < engine < tls < link < ...`
#![forbid(unsafe_code)]

pub mod units;

pub mod error;

pub mod backoff;

pub mod small_file;

pub mod dataset;

pub mod pattern;

pub mod listing;

pub mod token;

pub mod stream;

pub mod retention;

pub mod trust;

pub mod protocol;

pub mod breakpoint;

pub mod schedule;

pub mod plan;

pub mod spool;

pub mod process;

pub mod zfs;

pub mod engine;

pub mod tls;

pub mod link;

pub mod server;

pub mod client;

pub mod board;

pub mod tune;

pub mod cli;
