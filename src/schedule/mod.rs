//! When which job runs: by rhythm, by how much was written, or again after a failure.
//!
//! Pure: the caller has the clocks, counts the bytes and runs the copies. What must never happen
//! here: two runs of one job at once, a run that is forgotten because a clock jumped or a process
//! was not there, and a host that is asked without a pause because something fails.

mod history;
mod machine;
mod trigger;

pub use self::history::History;
pub use self::machine::{Ended, JobName, Now, Order, Scheduler, Standing};
pub use self::trigger::{Rhythm, Trigger, Written};

#[cfg(test)]
mod tests;
