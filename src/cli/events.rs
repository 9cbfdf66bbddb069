//! What a program sees: `--json`, one object a line on stdout.
//!
//! Each has an `event`: `begin` of a stream, `moment` once a second and whenever the level has
//! changed or it begins or ceases to stand still, `survived` when it goes on after a cut, `end`
//! when this attempt at it is over, `retry` when the copy has failed and is tried again; for a tree
//! `planned` before all others, and `copied` or `not-copied` for each dataset; and at last `done`,
//! when the target has all of it, or `failed` with what stderr says too. Sizes are
//! bytes, times milliseconds. Fields may be added; none is renamed, and what is not known is
//! `null`. A copy that ssh has another host send is told in the same words by that host, read here,
//! and told again.

mod event;

use std::borrow::Cow;
use std::io::Write;
use std::time::{Duration, Instant};

use clap::Args;

pub(super) use self::event::Event;
use self::event::Took;
use super::show::Show;
use super::show::tree::ShowTree;
use crate::client::{Held, Layer, Moment, Planned, Summary, TreeWatch, Watch, Would};
use crate::dataset::{DatasetName, SnapName};
use crate::error::Failure;
use crate::units::Bytes;

/// How often it is told how far a stream is.
const MOMENT_EVERY: Duration = Duration::from_secs(1);

/// Whom a command tells what it does.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Telling {
    /// Tell a program what happens, on stdout as JSON, one object a line: how far it is, what
    /// stands still, how it ended. No progress is shown then
    #[arg(long)]
    json: bool,
}

/// Tells how far each dataset is.
struct Events;

/// Tells how far one is.
#[derive(Debug, Default)]
struct EventsOf {
    /// `None` for a stream of no dataset.
    dataset: Option<DatasetName>,
    begun: bool,
    told: Option<(Instant, Moment)>,
    /// The newest there is, if it was not told.
    untold: Option<Moment>,
}

impl Telling {
    /// Whether it is a program.
    pub fn as_json(self) -> bool {
        self.json
    }

    /// Who looks on at a stream of no dataset: a program, a person, or nobody.
    pub fn onlooker(self, quiet: bool) -> Box<dyn Watch> {
        if self.json { Box::new(EventsOf::default()) } else { Box::new(Show::new(quiet)) }
    }

    /// Who looks on at a dataset, or at a tree whose root it is.
    pub fn onlooker_of(self, root: &DatasetName, quiet: bool) -> Box<dyn TreeWatch> {
        if self.json { Box::new(Events) } else { Box::new(ShowTree::new(root, quiet)) }
    }

    /// The copy has failed; a person hears of it from whoever ends the process.
    pub fn failed(self, failure: &Failure) {
        if self.json {
            self::failed(failure);
        }
    }
}

/// The copy has failed.
pub(super) fn failed(failure: &Failure) {
    tell(&Event::Failed(Cow::Borrowed(failure)));
}

/// Who looks on at a copy that this host makes for another: a program, whatever is asked for.
pub(super) fn for_another_host() -> Box<dyn TreeWatch> {
    Box::new(Events)
}

impl TreeWatch for Events {
    fn planned(&self, planned: &Planned) {
        tell(&Event::Planned(planned.clone()));
    }

    fn dataset(&self, dataset: &DatasetName) -> Box<dyn Watch + '_> {
        Box::new(EventsOf { dataset: Some(dataset.clone()), ..EventsOf::default() })
    }

    fn ended(&self, dataset: &DatasetName, outcome: &Result<Held, Failure>) {
        tell(&Event::of_dataset(dataset, outcome));
    }

    fn would(&self, would: &Would) {
        tell(&Event::from(would));
    }
}

impl Watch for EventsOf {
    fn begin(&mut self, what: &str, estimated: Option<Bytes>) {
        (self.begun, self.told, self.untold) = (true, None, None);
        tell(&Event::Begin { dataset: self.name(), what: what.into(), estimated });
    }

    fn moment(&mut self, moment: Moment) {
        self.untold = Some(moment);
        let is_due = self.told.is_none_or(|(at, told)| {
            at.elapsed() >= MOMENT_EVERY
                || told.stands_still != moment.stands_still
                || told.level != moment.level
        });
        if is_due {
            self.tell_untold();
        }
    }

    fn end(&mut self) {
        self.tell_untold();
        // An attempt may be over before there was a stream.
        if std::mem::take(&mut self.begun) {
            tell(&Event::End { dataset: self.name() });
        }
    }

    fn survived(&mut self, by: Layer) {
        tell(&Event::Survived { dataset: self.name(), by });
    }

    fn tried_again(&mut self, after: &Failure) {
        tell(&Event::Retry { dataset: self.name(), failure: Cow::Borrowed(after) });
    }
}

impl EventsOf {
    fn name(&self) -> Option<Cow<'_, DatasetName>> {
        self.dataset.as_ref().map(Cow::Borrowed)
    }

    fn tell_untold(&mut self) {
        if let Some(moment) = self.untold.take() {
            self.told = Some((Instant::now(), moment));
            tell(&Event::Moment { dataset: self.name(), far: moment.into() });
        }
    }
}

/// The copy is done: the target holds what was wanted, or whatever came through a pipe.
pub(super) fn done(holds: Option<(&str, Option<&SnapName>)>, summary: &Summary) {
    let snapshot = holds.and_then(|(_, snapshot)| snapshot).map(Cow::Borrowed);
    let holds = holds.map(|(holds, _)| Cow::Borrowed(holds));
    tell(&Event::Done { holds, snapshot, took: Took::from(summary) });
}

/// A reader that is gone is no reason to fail.
pub(super) fn tell(event: &Event) {
    let line = serde_json::to_string(event).unwrap_or_default();
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}");
    let _ = stdout.flush();
}
