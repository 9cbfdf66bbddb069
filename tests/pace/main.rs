//! How fast something is, measured: what would be another figure beside other tests.
//!
//! A crate of its own, for `cargo test` runs one after the other.

// The program's tests use all of it.
#[allow(dead_code, reason = "only a part of it is used here")]
#[path = "../support/mod.rs"]
mod support;

mod level;
mod limit;
mod long_path;
mod meter;
mod portions;
