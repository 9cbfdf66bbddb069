//! What is done before and after a snapshot is taken, so that what it holds is consistent.
//!
//! The seam between whoever takes a snapshot and whoever knows what runs on this host.

use std::fmt::Debug;

use crate::error::Failure;

/// Somebody who prepares for a snapshot, and puts things back in order.
pub trait Around: Debug + Send + Sync {
    /// Called before the snapshot, with its full name; if that fails none is taken.
    fn before(&self, snapshot: &str) -> Result<(), Failure>;
    /// Called once `before` was, however that and the snapshot went.
    fn after(&self, snapshot: &str, failure: Option<&Failure>);
}

/// Takes a snapshot, with what belongs around it. May take long: not for a runtime's own thread.
pub fn take(
    around: Option<&dyn Around>,
    snapshot: &str,
    take: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Some(around) = around else { return take() };
    let taken = around.before(snapshot).and_then(|()| take());
    around.after(snapshot, taken.as_ref().err());
    taken
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::error::{Class, Side};

    #[derive(Debug)]
    struct Noting {
        noted: Mutex<Vec<String>>,
        fails: bool,
    }

    impl Noting {
        fn note(&self, what: String) {
            self.noted.lock().unwrap().push(what);
        }
    }

    impl Around for Noting {
        fn before(&self, snapshot: &str) -> Result<(), Failure> {
            self.note(format!("before {snapshot}"));
            if self.fails { Err(failure("busy")) } else { Ok(()) }
        }

        fn after(&self, snapshot: &str, failure: Option<&Failure>) {
            let why = failure.map_or("well", |failure| &failure.what);
            self.note(format!("after {snapshot}: {why}"));
        }
    }

    fn failure(what: &str) -> Failure {
        Failure::new(Side::Source, Class::Machine, what)
    }

    #[test]
    fn what_is_prepared_is_put_back_whatever_happens_and_nothing_is_taken_unprepared() {
        for (fails, taken, expected) in [
            (false, Ok(()), vec!["before a@s", "take", "after a@s: well"]),
            (false, Err(failure("no room")), vec!["before a@s", "take", "after a@s: no room"]),
            (true, Ok(()), vec!["before a@s", "after a@s: busy"]),
        ] {
            let around = Noting { noted: Mutex::default(), fails };
            let result = take(Some(&around), "a@s", || {
                around.note("take".to_owned());
                taken.clone()
            });
            assert_eq!(result.is_ok(), !fails && taken.is_ok());
            assert_eq!(*around.noted.lock().unwrap(), expected);
        }
    }
}
