//! Every reader of bytes that a stranger may have chosen, and what must hold of it whatever they
//! are.
//!
//! A target is one file here and one line in [`targets!`]. Its `run` makes of any input what the
//! reader takes, mostly with the right checksums put in place, for no fuzzer guesses those, and
//! panics where a promise is broken: what decodes encodes to the same bytes, recovery finds nothing
//! that was not written, what is told to a person is short and obeyed by no terminal. `ci/fuzz`
//! runs the targets under libFuzzer, as does
//! `cargo fuzz run NAME --fuzz-dir tests/fuzz --features libfuzzer -s none`; the inputs that were
//! worth keeping are in `corpus/`, and [`corpora`] plays them on any toolchain. What must never
//! happen here: a target that cannot fail.

use std::alloc::System;

use cap::Cap;

#[cfg(test)]
mod corpora;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// One reader under fire.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Plays one input; panics where a promise is broken.
    pub run: fn(&[u8]),
    /// What one input may have allocated all in all, by the reader and by what plays it.
    pub allocated_bytes_max: usize,
}

impl Target {
    /// Plays one input.
    ///
    /// # Panics
    ///
    /// When a promise is broken, or too much memory was asked for.
    pub fn check(&self, input: &[u8]) {
        let before = ALLOCATOR.total_allocated();
        (self.run)(input);
        let allocated = ALLOCATOR.total_allocated() - before;
        let most = self.allocated_bytes_max;
        assert!(allocated <= most, "an input allocated {allocated} bytes; allowed are {most}");
    }
}

/// Declares the module of each target, and lists them all.
macro_rules! targets {
    ($($name:ident,)*) => {
        $(pub mod $name;)*

        /// All targets, by the names of their programs and of their folders in `corpus/`.
        pub const TARGETS: &[(&str, Target)] = &[$((stringify!($name), $name::TARGET)),*];
    };
}

targets! {
    frame,
    preamble,
    message,
    tree,
    record,
    ring,
    segment,
    token,
    nvlist,
    zfs_output,
    zfs_failure,
    begin,
    ticket,
    clients,
}

/// Panics unless `words`, which a person may be shown, are short and on one line, and no terminal
/// obeys them.
///
/// # Panics
///
/// When they are not.
pub(crate) fn assert_fit_to_be_shown(words: &str, bytes_max: usize) {
    assert!(words.len() <= bytes_max, "{} bytes of words", words.len());
    assert!(!words.contains(char::is_control), "{words:?}");
}
