//! One run of one job.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use super::super::Loudness;
use super::super::config::Job;
use super::super::copied::Copied;
use super::super::replicate;
use super::super::signals::Halt;
use super::shared::{Posting, Shared};
use crate::error::{Class, Failure, Side};
use crate::schedule::Ended;
use crate::server::Stopping;

/// Starts a run on a thread of its own; `tell` is called when it has ended. One that goes on with
/// what is owed since then takes no other snapshot.
pub(super) fn start(
    job: &Arc<Job>,
    owed_since: Option<Timestamp>,
    stop: watch::Receiver<Stopping>,
    (loudness, shared): (Loudness, &Shared),
    tell: impl FnOnce(Result<Copied, Failure>) + Send + 'static,
) -> std::io::Result<()> {
    let (job, shared) = (Arc::clone(job), shared.clone());
    let run = move || {
        let _span = tracing::error_span!("job", name = %job.name).entered();
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let halt = Halt::ByOthers(stop.clone());
            let watch = Posting::new(&job.name, &job.copy.root()?, &shared, loudness.quiet);
            let outcome = replicate::copy(&job.copy, owed_since, loudness, halt, &watch);
            // One that was ended by whoever stops us is nothing to alarm anybody with.
            if *stop.borrow() != Stopping::Now {
                job.hooks.ended(&outcome);
            }
            outcome
        }));
        tell(ended.unwrap_or_else(|_panic| {
            let what = "the run has died by a mistake in zferry itself";
            Err(Failure::new(Side::Source, Class::Internal, what))
        }));
    };
    std::thread::Builder::new().name("zferry-job".to_owned()).spawn(run).map(drop)
}

/// What the scheduler makes of it.
pub(super) fn ended(outcome: &Result<Copied, Failure>) -> Ended {
    match outcome {
        Ok(Copied { snapshot, missing: None, .. }) => Ended::Well(snapshot.clone()),
        Ok(Copied { snapshot, missing: Some(failure), .. }) => {
            Ended::Partly(snapshot.clone(), failure.to_string())
        }
        Err(failure) => match failure.class {
            // Of what another host sends, which says no more of it.
            Class::Partly => Ended::Partly(None, failure.to_string()),
            Class::Interrupted | Class::Wait | Class::Busy | Class::Machine => {
                Ended::Interrupted(failure.to_string())
            }
            _ => Ended::Failed(failure.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_which_a_part_is_missing_is_no_success_and_goes_on_by_its_rhythm() {
        let missing = Failure::new(Side::Source, Class::Partly, "x");
        let copied = Copied {
            holds: "tank".to_owned(),
            snapshot: Some("s".parse().unwrap()),
            summary: crate::client::Summary::default(),
            missing: Some(missing),
        };
        assert!(matches!(ended(&Ok(copied)), Ended::Partly(Some(_), _)));
        let of_another_host = Failure::new(Side::Source, Class::Partly, "x");
        assert!(matches!(ended(&Err(of_another_host)), Ended::Partly(None, _)));
    }

    #[test]
    fn what_may_pass_by_itself_is_tried_soon_and_what_a_person_mends_is_not() {
        let of = |class| ended(&Err(Failure::new(Side::Target, class, "x")));
        for class in [Class::Interrupted, Class::Wait, Class::Busy, Class::Machine] {
            assert!(matches!(of(class), Ended::Interrupted(_)), "{class:?}");
        }
        for class in [Class::Usage, Class::Refused, Class::Peer, Class::Zfs, Class::Internal] {
            assert!(matches!(of(class), Ended::Failed(_)), "{class:?}");
        }
    }
}
