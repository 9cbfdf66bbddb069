//! A session through a relay that harms it: the stream arrives all the same, each byte once.
//!
//! The relay is `tests/chaos`; a plan names each byte at which it strikes, and a failure prints
//! the plan. Long runs of the same kind are `ci/soak`. Whatever takes 20 seconds here, for so long
//! a peer may be silent, is in `silence`, all of it at once.

#[path = "../support/host.rs"]
mod host;
#[path = "../support/stand_in.rs"]
mod stand_in;

mod away;
mod cuts;
mod damage;
mod ends;
mod journey;
mod killed;
mod silence;
