//! The program as it is: the real `zferry`, with a stand-in for `zfs` on each host; what it is made
//! of where that meets `zfs`; and that the pages say of it what is so.
//!
//! One crate, for each is one more link of the whole library, and because most of a test's time is
//! waiting: here all of them wait beside one another. So a test must look at nothing that is not
//! its own: no folder, port, variable or process that another could have.

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod bad_input;
mod clones;
mod completions;
mod compress;
mod docs;
mod events;
mod exit_codes;
mod fetch;
mod figures;
mod grants;
mod help;
mod hooks;
mod inspect;
mod keys;
mod lanes;
mod metrics;
mod monitor;
mod outlive;
mod pipes;
mod prune;
mod prune_both;
mod reconnect;
mod records;
mod replicate;
mod resume;
mod schedule;
mod ssh;
mod status;
mod tickets;
mod tree;
mod trees;
mod trusted;
mod tune;
mod zfs;
