//! What a program sees: `--json`, one object a line on stdout.
//!
//! Each has an `event`: `begin` of a stream, `moment` once a second and whenever the level has
//! changed or it begins or ceases to stand still, `end` when this attempt at it is over; and at
//! last `done`, when the target has all of it, or `failed` with what stderr says too. Sizes are
//! bytes, times milliseconds. Fields may be added; none is renamed, and what is not known is
//! `null`. A copy that ssh has another host send is told in the same words by that host, read here,
//! and told again.

use std::borrow::Cow;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::show::Show;
use crate::client::{Moment, Summary, Watch};
use crate::engine::settings::Route;
use crate::error::Failure;
use crate::protocol::stall::Culprit;
use crate::protocol::text::printable;
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

/// Tells how far a copy is.
#[derive(Debug, Default)]
struct Events {
    begun: bool,
    told: Option<(Instant, Moment)>,
    /// The newest there is, if it was not told.
    untold: Option<Moment>,
}

/// What happens.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum Event<'a> {
    Begin {
        what: Cow<'a, str>,
        estimated: Option<Bytes>,
    },
    Moment {
        /// Came out of the source.
        read: Bytes,
        /// Went out on the wire.
        wire: Bytes,
        /// Were taken at the target.
        fed: Bytes,
        /// Went by way of breakpoint files.
        spooled: Bytes,
        connections: u16,
        /// How far blocks are packed: 0 is raw, the others are levels of zstd. With `--compress
        /// auto`; told whenever it has changed.
        level: Option<u8>,
        /// How blocks go through this side: `block` or `splice`.
        lane: Route,
        stands_still: Option<Culprit>,
    },
    End,
    Done {
        /// What the target holds now.
        holds: Option<Cow<'a, str>>,
        streams: u32,
        bytes: Bytes,
        wire: Bytes,
        spooled: Bytes,
        /// Had been sent before.
        kept: Bytes,
        millis: u64,
    },
    Failed(Cow<'a, Failure>),
    /// Only between two hosts: it is understood what is to be sent.
    Ready,
    /// Only between two hosts: whoever has asked for the copy is asked for a connection by ssh.
    Call {
        address: SocketAddr,
    },
}

/// What another host may say about one thing.
const TEXT_BYTES_MAX: usize = 4096;

impl Event<'_> {
    /// Understands a line of another host; `None` where it is something else, such as what a login
    /// says.
    pub fn read(line: &str) -> Option<Event<'static>> {
        let shown = |text: &str| printable(text, TEXT_BYTES_MAX);
        match serde_json::from_str(line).ok()? {
            Event::Begin { what, estimated } => {
                Some(Event::Begin { what: shown(&what).into(), estimated })
            }
            Event::Done { holds, streams, bytes, wire, spooled, kept, millis } => {
                let holds = holds.map(|holds| shown(&holds).into());
                Some(Event::Done { holds, streams, bytes, wire, spooled, kept, millis })
            }
            Event::Failed(failure) => {
                let mut failure = failure.into_owned();
                failure.what = shown(&failure.what);
                failure.remedy = failure.remedy.map(|remedy| shown(&remedy));
                Some(Event::Failed(Cow::Owned(failure)))
            }
            other => Some(other),
        }
    }
}

impl From<Moment> for Event<'_> {
    fn from(moment: Moment) -> Self {
        let Moment { read, wire, fed, spooled, connections, level, route: lane, stands_still } =
            moment;
        let level = level.map(u8::from);
        Event::Moment { read, wire, fed, spooled, connections, level, lane, stands_still }
    }
}

impl Telling {
    /// Whether it is a program.
    pub fn as_json(self) -> bool {
        self.json
    }

    /// Who looks on: a program, a person, or nobody.
    pub fn onlooker(self, quiet: bool) -> Box<dyn Watch> {
        if self.json { Box::new(Events::default()) } else { Box::new(Show::new(quiet)) }
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
pub(super) fn for_another_host() -> Box<dyn Watch> {
    Box::new(Events::default())
}

impl Watch for Events {
    fn begin(&mut self, what: &str, estimated: Option<Bytes>) {
        *self = Events { begun: true, ..Events::default() };
        tell(&Event::Begin { what: what.into(), estimated });
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
            tell(&Event::End);
        }
    }
}

impl Events {
    fn tell_untold(&mut self) {
        if let Some(moment) = self.untold.take() {
            self.told = Some((Instant::now(), moment));
            tell(&Event::from(moment));
        }
    }
}

/// The copy is done: the target holds a snapshot, or whatever came through a pipe.
pub(super) fn done(holds: Option<&str>, summary: &Summary) {
    let &Summary { streams, bytes, wire, kept, spooled, taken } = summary;
    let millis = u64::try_from(taken.as_millis()).unwrap_or(u64::MAX);
    let holds = holds.map(Cow::Borrowed);
    tell(&Event::Done { holds, streams, bytes, wire, spooled, kept, millis });
}

/// A reader that is gone is no reason to fail.
pub(super) fn tell(event: &Event) {
    let line = serde_json::to_string(event).unwrap_or_default();
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}");
    let _ = stdout.flush();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::sender::Level;
    use crate::error::{Class, Side};

    fn as_json(event: &Event) -> serde_json::Value {
        serde_json::to_value(event).unwrap()
    }

    #[test]
    fn an_event_says_what_it_is_and_what_is_unknown() {
        let begin = Event::Begin { what: "tank/a@b".into(), estimated: None };
        let expected = json!({"event": "begin", "what": "tank/a@b", "estimated": null});
        assert_eq!(as_json(&begin), expected);
        assert_eq!(as_json(&Event::End), json!({"event": "end"}));
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
            let moment = as_json(&Event::from(moment));
            let expected = json!({
                "event": "moment", "read": 4, "wire": 3, "fed": 2, "spooled": 1,
                "connections": 5, "level": 6, "lane": "splice", "stands_still": culprit.to_string(),
            });
            assert_eq!(moment, expected);
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
        for event in [
            Event::Begin { what: "tank/a@b".into(), estimated: Some(Bytes(1)) },
            Event::from(moment),
            Event::End,
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
        for noise in ["", "Welcome!", "{}", "{\"event\":\"dinner\"}", "7"] {
            assert!(Event::read(noise).is_none(), "{noise}");
        }
    }
}
