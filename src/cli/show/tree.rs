//! What a person sees of a copy: on a terminal a bar for each dataset on its way, and one for the
//! tree if it is one; a line a minute elsewhere; and a line for each dataset that fails, wherever.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{LINE_EVERY, Show, say};
use crate::client::{Held, Moment, Planned, TreeWatch, Watch, Without, Would};
use crate::dataset::{DatasetName, SnapName, typed};
use crate::error::{Failure, Side};
use crate::plan::tree::Lack;
use crate::retention::Report;
use crate::units::Bytes;

/// Shows how far a tree is, on stderr.
pub(in crate::cli) struct ShowTree {
    root: DatasetName,
    /// `None` where there is no terminal.
    bars: Option<Bars>,
    quiet: bool,
    so_far: RefCell<SoFar>,
}

struct Bars {
    all: MultiProgress,
    /// Once it is a tree.
    tree: RefCell<Option<ProgressBar>>,
}

#[derive(Debug)]
struct SoFar {
    planned: Planned,
    ended: usize,
    failed: usize,
    bytes: Bytes,
    began: Instant,
    last: Instant,
}

impl ShowTree {
    pub fn new(root: &DatasetName, quiet: bool) -> ShowTree {
        let bars = (!quiet && std::io::stderr().is_terminal()).then(Bars::new);
        ShowTree::with(root, bars, quiet)
    }

    /// Where several copies are shown at once.
    pub fn lines(root: &DatasetName, quiet: bool) -> ShowTree {
        ShowTree::with(root, None, quiet)
    }

    fn with(root: &DatasetName, bars: Option<Bars>, quiet: bool) -> ShowTree {
        let now = Instant::now();
        let so_far = SoFar {
            planned: Planned::default(),
            ended: 0,
            failed: 0,
            bytes: Bytes(0),
            began: now,
            last: now,
        };
        ShowTree { root: root.clone(), bars, quiet, so_far: RefCell::new(so_far) }
    }

    /// Above the bars, where there are some.
    fn say(&self, line: &str) {
        match &self.bars {
            Some(bars) => bars.all.suspend(|| say(&mut std::io::stderr(), line)),
            None => say(&mut std::io::stderr(), line),
        }
    }
}

impl Bars {
    fn new() -> Bars {
        Bars { all: MultiProgress::new(), tree: RefCell::new(None) }
    }

    fn begin(&self, root: &DatasetName, planned: &Planned) {
        let template = "{msg} {wide_bar} {pos}/{len} datasets {prefix}eta {eta}";
        let style =
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(planned.datasets as u64).with_style(style);
        let bar = self.all.add(bar.with_message(root.to_string()));
        bar.enable_steady_tick(Duration::from_secs(1));
        *self.tree.borrow_mut() = Some(bar);
    }

    fn ended(&self, so_far: &SoFar) {
        let Some(bar) = &*self.tree.borrow() else { return };
        bar.set_position(so_far.ended as u64);
        if so_far.failed > 0 {
            bar.set_prefix(format!("({} failed) ", so_far.failed));
        }
    }
}

impl SoFar {
    fn is_tree(&self) -> bool {
        self.planned != Planned::default()
    }

    fn line(&self, root: &DatasetName) -> String {
        let SoFar { planned, ended, failed, bytes, began, .. } = self;
        let failed = match failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        let rate = bytes.per_second(began.elapsed());
        format!("{root}: {ended} of {} datasets{failed}, {bytes}, {rate}/s", planned.datasets)
    }

    /// The line that is due, if one is.
    fn due(&mut self, root: &DatasetName) -> Option<String> {
        if self.last.elapsed() < LINE_EVERY {
            return None;
        }
        self.last = Instant::now();
        Some(self.line(root))
    }
}

impl TreeWatch for ShowTree {
    fn planned(&self, planned: &Planned) {
        self.so_far.borrow_mut().planned = planned.clone();
        if !self.quiet {
            for without in &planned.without_snapshot {
                self.say(&format!("zferry: {}", not_copied(without)));
            }
        }
        if let Some(bars) = &self.bars {
            bars.begin(&self.root, planned);
        }
    }

    fn dataset(&self, _dataset: &DatasetName) -> Box<dyn Watch + '_> {
        let show = match &self.bars {
            Some(bars) => Show::among(bars.all.clone()),
            None => Show::lines(self.quiet),
        };
        Box::new(Dataset { tree: self, show, read: Bytes(0) })
    }

    fn ended(&self, dataset: &DatasetName, outcome: &Result<Held, Failure>) {
        match outcome {
            Err(failure) => self.say(&format!("zferry: {dataset}: {failure}")),
            // Of one dataset alone the end says it.
            Ok(held) if self.so_far.borrow().is_tree() => {
                for failure in &held.unpruned {
                    self.say(&format!("zferry: {dataset}: copied, but pruning failed: {failure}"));
                }
            }
            Ok(_) => {}
        }
        let mut so_far = self.so_far.borrow_mut();
        so_far.ended += 1;
        so_far.failed += usize::from(outcome.is_err());
        if let Some(bars) = &self.bars {
            bars.ended(&so_far);
        }
    }

    /// On stdout: it is what was asked for.
    fn would(&self, would: &Would) {
        let line = match would {
            Would::Copy { dataset, target, streams: 0, .. } => {
                format!("{dataset} -> {target}: nothing to do")
            }
            Would::Copy { dataset, target, streams, bytes } => {
                let streams = if *streams == 1 {
                    "1 stream".to_owned()
                } else {
                    format!("{streams} streams")
                };
                let bytes = bytes.map(|bytes| format!(", about {bytes}")).unwrap_or_default();
                format!("{dataset} -> {target}: {streams}{bytes}")
            }
            Would::Prune { side, report } => would_go(*side, report),
            Would::Run { side, command } => format!("  {side}: {command}"),
        };
        say(&mut std::io::stdout(), &line);
    }
}

/// Which snapshots would go, or why nobody can say that.
fn would_go(side: Side, report: &Report) -> String {
    if let Some(failure) = &report.failure {
        return format!("  {side}: nothing would be pruned: {failure}");
    }
    let names: Vec<_> = report.destroyed.iter().map(SnapName::as_str).collect();
    match report.count {
        0 => format!("  {side}: no snapshot goes"),
        1 => format!("  {side}: 1 snapshot goes: {}", names.join(", ")),
        count => format!("  {side}: {count} snapshots go: {}", names.join(", ")),
    }
}

/// Which datasets are not copied that nobody has left out, and what to do about it.
fn not_copied(without: &Without) -> String {
    const MOST: usize = 5;
    let Without { why, count, datasets } = without;
    let have = if *count == 1 { "it has" } else { "they have" };
    let why = match why {
        Lack::HasNone => {
            format!("{have} no snapshot to send (zferry takes none with --no-snapshot)")
        }
        Lack::NoneChosen => {
            format!("{have} none that --include-snapshot and --exclude-snapshot let through")
        }
        Lack::NotNamed => format!("{have} no snapshot of the name that --snapshot says"),
        Lack::TooNew => {
            let were = if *count == 1 { "it was" } else { "they were" };
            format!("{were} made after the snapshot was taken; the next run copies what is new")
        }
    };
    let end = match (without.why, datasets.as_slice()) {
        (Lack::TooNew, _) => String::new(),
        (_, [one]) if *count == 1 => {
            let name = typed(one.as_str());
            format!(
                "; to leave it out with all below it: --exclude-dataset, or zfs set \
                 zferry:replicate=off {name}"
            )
        }
        _ => "; to leave one out with all below it: --exclude-dataset, or zfs set \
              zferry:replicate=off"
            .to_owned(),
    };
    if let (1, [one]) = (*count, datasets.as_slice()) {
        return format!("{one} is not copied: {why}{end}");
    }
    let names: Vec<&str> = datasets.iter().take(MOST).map(DatasetName::as_str).collect();
    let more = match count.saturating_sub(names.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{count} datasets are not copied: {}{more}: {why}{end}", names.join(", "))
}

impl Drop for ShowTree {
    fn drop(&mut self) {
        if let Some(bars) = &self.bars
            && let Some(bar) = bars.tree.borrow_mut().take()
        {
            bar.finish_and_clear();
        }
    }
}

/// One dataset on its way.
struct Dataset<'a> {
    tree: &'a ShowTree,
    show: Show,
    /// Of the stream that is on its way.
    read: Bytes,
}

impl Watch for Dataset<'_> {
    fn begin(&mut self, what: &str, estimated: Option<Bytes>) {
        self.read = Bytes(0);
        self.show.begin(what, estimated);
    }

    fn moment(&mut self, moment: Moment) {
        let more = moment.read.0.saturating_sub(self.read.0);
        self.read = moment.read;
        let mut so_far = self.tree.so_far.borrow_mut();
        so_far.bytes = Bytes(so_far.bytes.0 + more);
        let is_told = so_far.is_tree() && self.tree.bars.is_none() && !self.tree.quiet;
        let due = if is_told { so_far.due(&self.tree.root) } else { None };
        drop(so_far);
        if let Some(line) = due {
            self.tree.say(&line);
        }
        self.show.moment(moment);
    }

    fn end(&mut self) {
        self.show.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Class, Side};

    #[test]
    fn a_line_tells_how_many_are_through_and_how_many_of_them_failed() {
        let root = "tank".parse().unwrap();
        let show = ShowTree::lines(&root, true);
        show.planned(&Planned { datasets: 7, ..Planned::default() });
        let failure = Failure::new(Side::Target, Class::Refused, "x");
        show.ended(&"tank/a".parse().unwrap(), &Err(failure));
        let line = show.so_far.borrow().line(&root);
        assert!(line.starts_with("tank: 1 of 7 datasets, 1 failed, 0 B, "), "{line}");
        assert_eq!(show.so_far.borrow_mut().due(&root), None);
    }
}
