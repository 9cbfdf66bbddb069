//! What a person sees: a bar on a terminal, a line a minute elsewhere, one line at the end.

pub(super) mod tree;

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::client::{Moment, Summary, Watch};
use crate::engine::settings::Route;
use crate::error::Failure;
use crate::units::Bytes;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Shows how far a copy is, on stderr.
pub(super) enum Show {
    /// A terminal, which perhaps has other bars.
    Bar(Option<MultiProgress>, Option<ProgressBar>),
    /// A log.
    Lines(Lines),
    /// Nobody looks.
    Nothing,
}

/// A stream as lines.
pub(super) struct Lines {
    what: String,
    estimated: Option<Bytes>,
    started: Instant,
    last: Instant,
}

impl Show {
    pub fn new(quiet: bool) -> Show {
        if quiet {
            return Show::Nothing;
        }
        if std::io::stderr().is_terminal() { Show::Bar(None, None) } else { Show::lines(quiet) }
    }

    /// On a terminal with other bars.
    fn among(others: MultiProgress) -> Show {
        Show::Bar(Some(others), None)
    }

    /// Where several copies are shown at once.
    pub fn lines(quiet: bool) -> Show {
        if quiet {
            return Show::Nothing;
        }
        let now = Instant::now();
        Show::Lines(Lines { what: String::new(), estimated: None, started: now, last: now })
    }
}

impl Watch for Show {
    fn begin(&mut self, what: &str, estimated: Option<Bytes>) {
        match self {
            Show::Bar(others, bar) => {
                let new = new_bar(what, estimated);
                *bar = Some(match others {
                    Some(others) => others.add(new),
                    None => new,
                });
            }
            Show::Lines(lines) => {
                let now = Instant::now();
                *lines = Lines { what: what.to_owned(), estimated, started: now, last: now };
            }
            Show::Nothing => {}
        }
    }

    fn moment(&mut self, moment: Moment) {
        match self {
            Show::Bar(_, Some(bar)) => {
                // An estimate can be below the truth: the bar grows with it.
                if bar.length().is_some_and(|length| length < moment.read.0) {
                    bar.set_length(moment.read.0);
                }
                bar.set_position(moment.read.0);
                bar.set_prefix(remarks(moment));
            }
            Show::Lines(lines) => lines.moment(moment),
            Show::Bar(_, None) | Show::Nothing => {}
        }
    }

    fn end(&mut self) {
        if let Show::Bar(_, bar) = self
            && let Some(bar) = bar.take()
        {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        self.end();
    }
}

impl Lines {
    fn moment(&mut self, moment: Moment) {
        if self.last.elapsed() < LINE_EVERY {
            return;
        }
        self.last = Instant::now();
        let rate = moment.read.per_second(self.started.elapsed());
        let of = self.estimated.map(|bytes| format!(" of about {bytes}")).unwrap_or_default();
        let remarks = remarks(moment);
        let line = format!("{remarks}{}: {}{of}, {rate}/s", self.what, moment.read);
        say(&mut std::io::stderr(), &line);
    }
}

fn new_bar(what: &str, estimated: Option<Bytes>) -> ProgressBar {
    let (bar, template) = match estimated {
        Some(Bytes(bytes)) => (
            ProgressBar::new(bytes),
            "{prefix}{msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} eta {eta}",
        ),
        None => {
            (ProgressBar::no_length(), "{prefix}{msg} {spinner} {bytes} {binary_bytes_per_sec}")
        }
    };
    // The template is ours and a test renders it; the default is a bar too.
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style).with_message(what.to_owned())
}

/// What stands in front of a line about a stream: that it does not move, that it goes by way of
/// files, how far it is packed where that is found on the way, and its lane where that is a
/// special one.
fn remarks(moment: Moment) -> String {
    let still = moment.stands_still.map(|culprit| format!("[{culprit} stands still] "));
    let spooled = (moment.spooled.0 > 0).then(|| format!("[spooled {}] ", moment.spooled));
    let level = moment.level.map(|level| match level.zstd() {
        Some(level) => format!("[zstd:{level}] "),
        None => "[raw] ".to_owned(),
    });
    let route = (moment.route != Route::default()).then(|| format!("[{}] ", moment.route));
    [still, spooled, level, route].into_iter().flatten().collect()
}

/// The line at the end of a copy.
pub(super) fn summary(what: &str, summary: &Summary) -> String {
    let seconds = summary.taken.as_secs_f64();
    let line = format!(
        "{what}: {} in {seconds:.2} s, {}/s, ratio {:.2}",
        summary.bytes,
        summary.bytes.per_second(summary.taken),
        ratio(summary)
    );
    let spooled = match summary.spooled {
        Bytes(0) => String::new(),
        spooled => format!(", spooled {spooled}"),
    };
    let kept = match summary.kept {
        Bytes(0) => String::new(),
        kept => format!(", {kept} had been sent before"),
    };
    let pruned = match summary.pruned {
        0 => String::new(),
        1 => ", 1 snapshot pruned".to_owned(),
        count => format!(", {count} snapshots pruned"),
    };
    line + &spooled + &kept + &pruned
}

/// Stream bytes per byte on the wire.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn ratio(summary: &Summary) -> f64 {
    if summary.wire.0 == 0 { 1.0 } else { summary.bytes.0 as f64 / summary.wire.0 as f64 }
}

/// Tells a failure on stderr.
pub(super) fn failure(failure: &Failure) {
    say(&mut std::io::stderr(), &format!("zferry: {failure}"));
}

/// Writes a line; a reader that is gone is no reason to fail.
pub(super) fn say(to: &mut impl Write, line: &str) {
    let _ = writeln!(to, "{line}");
    let _ = to.flush();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sender::Level;

    #[test]
    fn the_last_line_has_bytes_seconds_rate_and_ratio() {
        let copy = Summary {
            streams: 1,
            bytes: Bytes(10 << 20),
            wire: Bytes(5 << 20),
            kept: Bytes(0),
            spooled: Bytes(0),
            pruned: 0,
            taken: Duration::from_secs(2),
        };
        assert_eq!(summary("a@b", &copy), "a@b: 10.0 MiB in 2.00 s, 5.0 MiB/s, ratio 2.00");
        let resumed = Summary { kept: Bytes(3 << 20), ..copy };
        let line = summary("a@b", &resumed);
        assert!(line.ends_with("ratio 2.00, 3.0 MiB had been sent before"), "{line}");
        let spooled = Summary { spooled: Bytes(6 << 20), ..resumed };
        let line = summary("a@b", &spooled);
        assert!(line.ends_with("ratio 2.00, spooled 6.0 MiB, 3.0 MiB had been sent before"));
        assert_eq!(summary("x", &Summary::default()), "x: 0 B in 0.00 s, 0 B/s, ratio 1.00");
    }

    #[test]
    fn a_stream_that_goes_by_way_of_files_says_so() {
        let moment = Moment { spooled: Bytes(3 << 20), ..Moment::default() };
        assert_eq!(remarks(moment), "[spooled 3.0 MiB] ");
        assert_eq!(remarks(Moment::default()), "");
        let moment = Moment { route: Route::Splice, ..Moment::default() };
        assert_eq!(remarks(moment), "[splice] ");
        for (level, remark) in [(0, "[raw] "), (3, "[zstd:3] ")] {
            let moment = Moment { level: Some(Level::from(level)), ..Moment::default() };
            assert_eq!(remarks(moment), remark);
        }
    }

    #[test]
    fn the_bars_have_templates_that_can_be_drawn() {
        for estimated in [None, Some(Bytes(5))] {
            let bar = new_bar("x", estimated);
            bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
            bar.set_position(3);
            bar.finish();
        }
    }
}
