//! A session through a relay that harms it: the stream arrives all the same, each byte once.
//!
//! The relay is `tests/chaos`; a plan names each byte at which it strikes, and a failure prints
//! the plan. Long runs of the same kind are `ci/soak`.

mod away;
mod cuts;
mod damage;
mod ends;
mod journey;
mod killed;
mod silence;
mod striped;

/// What takes half a minute each, for so long a peer may be silent. As one test, all of it has one
/// place among those that run at a time.
#[test]
fn a_silence_is_waited_out_or_mended_and_nothing_is_lost() {
    silence::all_at_once();
}
