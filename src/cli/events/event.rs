//! What a program sees, as a type: one JSON object for each thing that happens.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::client::{Held, Layer, Moment, Planned, Summary, Would};
use crate::dataset::{DatasetName, SnapName};
use crate::engine::sender::Level;
use crate::engine::settings::Route;
use crate::error::{Failure, Side};
use crate::protocol::stall::Culprit;
use crate::protocol::text::printable;
use crate::retention::Report;
use crate::units::Bytes;

/// What happens. The `dataset` is the source's; there is none where a stream is of no dataset.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(in crate::cli) enum Event<'a> {
    /// What is going to be done for a tree.
    Planned(Planned),
    Begin {
        dataset: Option<Cow<'a, DatasetName>>,
        what: Cow<'a, str>,
        estimated: Option<Bytes>,
    },
    Moment {
        dataset: Option<Cow<'a, DatasetName>>,
        #[serde(flatten)]
        far: Far,
    },
    /// A stream goes on after a cut, or has arrived in spite of one.
    Survived {
        dataset: Option<Cow<'a, DatasetName>>,
        /// `reconnect`, `spool` or `token`: the first layer of the three that could do it.
        by: Layer,
    },
    /// An attempt at the copy has failed, and another follows.
    Retry {
        dataset: Option<Cow<'a, DatasetName>>,
        #[serde(flatten)]
        failure: Cow<'a, Failure>,
    },
    End {
        dataset: Option<Cow<'a, DatasetName>>,
    },
    /// With `--dry-run`: a dataset would be copied, by the commands that follow.
    WouldCopy {
        dataset: Cow<'a, DatasetName>,
        target: Cow<'a, DatasetName>,
        streams: usize,
        bytes: Option<Bytes>,
    },
    /// With `--dry-run`: snapshots would go.
    WouldPrune {
        side: Side,
        #[serde(flatten)]
        report: Cow<'a, Report>,
    },
    /// With `--dry-run`: a command would be run.
    WouldRun {
        side: Side,
        command: Cow<'a, str>,
    },
    /// The target holds this snapshot of one dataset of a tree.
    Copied {
        dataset: Cow<'a, DatasetName>,
        snapshot: Cow<'a, SnapName>,
        #[serde(flatten)]
        took: Took,
        /// Why snapshots stay that were to go, on either side.
        #[serde(default)]
        unpruned: Vec<Failure>,
    },
    /// It does not, and why.
    NotCopied {
        dataset: Cow<'a, DatasetName>,
        #[serde(flatten)]
        failure: Cow<'a, Failure>,
    },
    Done {
        /// What the target holds now.
        holds: Option<Cow<'a, str>>,
        /// The snapshot alone; `None` where it is of no dataset, or of several with others each.
        snapshot: Option<Cow<'a, SnapName>>,
        #[serde(flatten)]
        took: Took,
    },
    Failed(Cow<'a, Failure>),
    /// Only between two hosts: it is understood what is to be sent.
    Ready,
    /// Only between two hosts: whoever has asked for the copy is asked for a connection by ssh.
    Call {
        address: SocketAddr,
    },
}

/// How far a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct Far {
    /// Came out of the source.
    read: Bytes,
    /// Went out on the wire.
    wire: Bytes,
    /// Were taken at the target.
    pub fed: Bytes,
    /// Went by way of breakpoint files.
    spooled: Bytes,
    connections: u16,
    /// How far blocks are packed: 0 is raw, the others are levels of zstd. With `--compress auto`;
    /// told whenever it has changed.
    level: Option<u8>,
    /// How blocks go through this side: `block` or `splice`.
    lane: Route,
    stands_still: Option<Culprit>,
}

/// What a copy took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct Took {
    streams: u32,
    bytes: Bytes,
    wire: Bytes,
    spooled: Bytes,
    /// Had been sent before.
    kept: Bytes,
    /// Snapshots that went again, on both sides.
    pruned: u64,
    millis: u64,
}

/// What another host may say about one thing.
pub(super) const TEXT_BYTES_MAX: usize = 4096;

/// On so many a pruning may fail.
const SIDES: usize = 2;

impl Event<'_> {
    /// Understands a line of another host; `None` where it is something else, such as what a login
    /// says.
    pub fn read(line: &str) -> Option<Event<'static>> {
        let shown = |text: &str| printable(text, TEXT_BYTES_MAX);
        let one = |mut failure: Failure| {
            failure.what = shown(&failure.what);
            failure.remedy = failure.remedy.map(|remedy| shown(&remedy));
            failure
        };
        let told = |failure: Cow<'_, Failure>| Cow::Owned(one(failure.into_owned()));
        match serde_json::from_str(line).ok()? {
            Event::Begin { dataset, what, estimated } => {
                Some(Event::Begin { dataset, what: shown(&what).into(), estimated })
            }
            Event::WouldRun { side, command } => {
                Some(Event::WouldRun { side, command: shown(&command).into() })
            }
            Event::Retry { dataset, failure } => {
                Some(Event::Retry { dataset, failure: told(failure) })
            }
            Event::Copied { dataset, snapshot, took, unpruned } => {
                let unpruned = unpruned.into_iter().take(SIDES).map(one).collect();
                Some(Event::Copied { dataset, snapshot, took, unpruned })
            }
            Event::NotCopied { dataset, failure } => {
                Some(Event::NotCopied { dataset, failure: told(failure) })
            }
            Event::Done { holds, snapshot, took } => {
                let holds = holds.map(|holds| shown(&holds).into());
                Some(Event::Done { holds, snapshot, took })
            }
            Event::Failed(failure) => Some(Event::Failed(told(failure))),
            other => Some(other),
        }
    }

    /// What became of one dataset.
    pub fn of_dataset<'a>(
        dataset: &'a DatasetName,
        outcome: &'a Result<Held, Failure>,
    ) -> Event<'a> {
        let dataset = Cow::Borrowed(dataset);
        match outcome {
            Ok(Held { snapshot, summary, unpruned }) => {
                let (snapshot, took) = (Cow::Borrowed(snapshot), Took::from(summary));
                Event::Copied { dataset, snapshot, took, unpruned: unpruned.clone() }
            }
            Err(failure) => Event::NotCopied { dataset, failure: Cow::Borrowed(failure) },
        }
    }
}

impl<'a> From<&'a Would> for Event<'a> {
    fn from(would: &'a Would) -> Event<'a> {
        match would {
            Would::Copy { dataset, target, streams, bytes } => Event::WouldCopy {
                dataset: Cow::Borrowed(dataset),
                target: Cow::Borrowed(target),
                streams: *streams,
                bytes: *bytes,
            },
            Would::Prune { side, report } => {
                Event::WouldPrune { side: *side, report: Cow::Borrowed(report) }
            }
            Would::Run { side, command } => {
                Event::WouldRun { side: *side, command: Cow::Borrowed(command) }
            }
        }
    }
}

impl From<Moment> for Far {
    fn from(moment: Moment) -> Self {
        let Moment { read, wire, fed, spooled, connections, level, route: lane, stands_still } =
            moment;
        let level = level.map(u8::from);
        Far { read, wire, fed, spooled, connections, level, lane, stands_still }
    }
}

impl From<Far> for Moment {
    fn from(far: Far) -> Self {
        let Far { read, wire, fed, spooled, connections, level, lane: route, stands_still } = far;
        let level = level.map(Level::from);
        Moment { read, wire, fed, spooled, connections, level, route, stands_still }
    }
}

impl From<&Summary> for Took {
    fn from(summary: &Summary) -> Took {
        let &Summary { streams, bytes, wire, kept, spooled, pruned, taken } = summary;
        let millis = u64::try_from(taken.as_millis()).unwrap_or(u64::MAX);
        Took { streams, bytes, wire, spooled, kept, pruned, millis }
    }
}

impl From<Took> for Summary {
    fn from(took: Took) -> Summary {
        let Took { streams, bytes, wire, spooled, kept, pruned, millis } = took;
        let taken = Duration::from_millis(millis);
        Summary { streams, bytes, wire, kept, spooled, pruned, taken }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::sender::Level;
    use crate::error::Class;

    fn as_json(event: &Event) -> serde_json::Value {
        serde_json::to_value(event).unwrap()
    }

    #[test]
    fn an_event_says_what_it_is_and_what_is_unknown() {
        let begin = Event::Begin { dataset: None, what: "tank/a@b".into(), estimated: None };
        let expected = json!({
            "event": "begin", "dataset": null, "what": "tank/a@b", "estimated": null,
        });
        assert_eq!(as_json(&begin), expected);
        let name = "tank/a".parse().unwrap();
        let end = Event::End { dataset: Some(Cow::Borrowed(&name)) };
        assert_eq!(as_json(&end), json!({"event": "end", "dataset": "tank/a"}));
    }

    #[test]
    fn a_stall_has_the_words_of_the_log() {
        for culprit in [Culprit::SourceRead, Culprit::Wire, Culprit::Receive] {
            let stands_still = Some(culprit);
            let moment = Moment {
                read: Bytes(4),
                wire: Bytes(3),
                fed: Bytes(2),
                spooled: Bytes(1),
                connections: 5,
                level: Some(Level::from(6)),
                route: Route::Splice,
                stands_still,
            };
            let moment = as_json(&Event::Moment { dataset: None, far: moment.into() });
            let expected = json!({
                "event": "moment", "dataset": null, "read": 4, "wire": 3, "fed": 2, "spooled": 1,
                "connections": 5, "level": 6, "lane": "splice", "stands_still": culprit.to_string(),
            });
            assert_eq!(moment, expected);
        }
    }

    /// docs/json.md is what programs are written by.
    #[test]
    fn every_event_and_each_of_its_fields_is_written_down() {
        let page = include_str!("../../../docs/json.md");
        let failure = Failure::new(Side::Target, Class::Wait, "full").with_remedy("make room");
        let name: DatasetName = "tank/a".parse().unwrap();
        let unpruned = vec![failure.clone()];
        let held = Held { snapshot: "b".parse().unwrap(), summary: Summary::default(), unpruned };
        let of = || Some(Cow::Borrowed(&name));
        let would =
            Would::Copy { dataset: name.clone(), target: name.clone(), streams: 1, bytes: None };
        let run = Would::Run { side: Side::Source, command: "zfs list".to_owned() };
        let report = Report { failure: Some(failure.clone()), ..Report::default() };
        let prune = Would::Prune { side: Side::Source, report };
        for event in [
            Event::Planned(Planned::default()),
            Event::Begin { dataset: of(), what: "x".into(), estimated: None },
            Event::Moment { dataset: of(), far: Moment::default().into() },
            Event::Survived { dataset: of(), by: Layer::Token },
            Event::Retry { dataset: of(), failure: Cow::Borrowed(&failure) },
            Event::End { dataset: of() },
            Event::of_dataset(&name, &Ok(held)),
            Event::of_dataset(&name, &Err(failure.clone())),
            Event::from(&would),
            Event::from(&run),
            Event::from(&prune),
            Event::Done { holds: None, snapshot: None, took: Took::from(&Summary::default()) },
            Event::Failed(Cow::Borrowed(&failure)),
        ] {
            let event = as_json(&event);
            let row = format!("| `{}` |", event["event"].as_str().unwrap());
            assert!(page.contains(&row), "{row} is missing");
            for field in event.as_object().unwrap().keys().filter(|field| *field != "event") {
                assert!(page.contains(&format!("`{field}`")), "{field} of {row} is missing");
            }
        }
    }

    #[test]
    fn a_failure_is_told_with_its_remedy() {
        let failure = Failure::new(Side::Target, Class::Wait, "full").with_remedy("make room");
        let expected = json!({
            "event": "failed", "side": "target", "class": "wait", "what": "full",
            "remedy": "make room",
        });
        let told = Event::Failed(Cow::Borrowed(&failure));
        assert_eq!(as_json(&told), expected);
    }

    #[test]
    fn what_is_told_can_be_read_and_shown_on_another_host() {
        let moment =
            Moment { read: Bytes(4), stands_still: Some(Culprit::Wire), ..Moment::default() };
        let failure = Failure::new(Side::Target, Class::Wait, "full").with_remedy("make room");
        let name = "tank/a".parse().unwrap();
        let unpruned = vec![failure.clone()];
        let held = Held { snapshot: "b".parse().unwrap(), summary: Summary::default(), unpruned };
        for event in [
            Event::Planned(Planned { datasets: 3, ..Planned::default() }),
            Event::Begin { dataset: None, what: "tank/a@b".into(), estimated: Some(Bytes(1)) },
            Event::Moment { dataset: Some(Cow::Borrowed(&name)), far: moment.into() },
            Event::Survived { dataset: None, by: Layer::Token },
            Event::Retry { dataset: None, failure: Cow::Borrowed(&failure) },
            Event::End { dataset: None },
            Event::of_dataset(&name, &Ok(held)),
            Event::of_dataset(&name, &Err(failure.clone())),
            Event::Done { holds: None, snapshot: None, took: Took::from(&Summary::default()) },
            Event::Ready,
            Event::Failed(Cow::Borrowed(&failure)),
            Event::Call { address: "127.0.0.1:7".parse().unwrap() },
        ] {
            let line = serde_json::to_string(&event).unwrap();
            let read = Event::read(&line).expect("it is ours");
            assert_eq!(as_json(&read), as_json(&event), "{line}");
        }
        let bad = Failure::new(Side::Source, Class::Zfs, "\u{1b}[2J".repeat(9999));
        let line = serde_json::to_string(&Event::Failed(Cow::Owned(bad))).unwrap();
        let Some(Event::Failed(read)) = Event::read(&line) else { panic!("{line}") };
        assert!(read.what.len() <= TEXT_BYTES_MAX && !read.what.contains('\u{1b}'));
        let unpruned = vec![Failure::new(Side::Target, Class::Zfs, "\u{1b}[2J".repeat(9999)); 9];
        let held = Held { snapshot: "b".parse().unwrap(), summary: Summary::default(), unpruned };
        let line = serde_json::to_string(&Event::of_dataset(&name, &Ok(held))).unwrap();
        let Some(Event::Copied { unpruned, .. }) = Event::read(&line) else { panic!("{line}") };
        assert_eq!(unpruned.len(), SIDES);
        assert!(
            unpruned
                .iter()
                .all(|it| it.what.len() <= TEXT_BYTES_MAX && !it.what.contains('\u{1b}'))
        );
        for noise in ["", "Welcome!", "{}", "{\"event\":\"dinner\"}", "7"] {
            assert!(Event::read(noise).is_none(), "{noise}");
        }
    }
}
