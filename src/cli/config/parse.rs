//! `zferry.toml`: the jobs of a scheduler.
//!
//! A job says what is copied where, and when; everything else it says is a flag of `zferry
//! replicate`, by the same name, so that there is one set of words and one place where they are
//! understood. All mistakes are told at once, each with its line and column. `docs/zferry.toml` is
//! an example.

mod defaults;
mod flags;
mod hooks;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use cronexpr::{FallbackTimezoneOption, ParseOptions, parse_crontab_with};
use toml_edit::{Document, Item, Table};

use super::super::hooks::Hooks;
use super::super::{duration, replicate};
use crate::schedule::{JobName, Rhythm, Trigger, Written};
use crate::trust::list::Mistake;
use crate::units::Bytes;

/// What a scheduler does.
#[derive(Debug)]
pub(in crate::cli) struct Config {
    /// Where it keeps what it knows of its jobs.
    pub state: Option<PathBuf>,
    /// How many run at once.
    pub parallel: NonZeroUsize,
    pub jobs: Vec<Job>,
}

/// One copy that is made again and again.
#[derive(Debug)]
pub(in crate::cli) struct Job {
    pub name: JobName,
    pub trigger: Trigger,
    pub copy: replicate::Arguments,
    pub hooks: Arc<Hooks>,
}

/// What a job says itself; all others are flags.
const OWN_KEYS: [&str; 13] = [
    "name",
    "source",
    "target",
    "every",
    "cron",
    "written",
    "check",
    "jitter",
    "on-success",
    "on-failure",
    "pre-snapshot",
    "post-snapshot",
    "hook-timeout",
];

/// Flags that make no sense without a person who types them.
const NO_KEYS: [&str; 4] = ["dry-run", "help", "json", "snapshot"];

/// How many jobs run at once: one whose first copy takes days must not keep all others waiting.
const PARALLEL: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);

/// How often it is looked how much was written.
const CHECK: Duration = Duration::from_secs(60);

/// A name stands in files, messages and metrics.
const NAME_BYTES_MAX: usize = 100;

impl Config {
    /// What a text says, or all that is wrong with it.
    pub fn parse(text: &str) -> Result<Config, Vec<Mistake>> {
        let document = Document::parse(text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            vec![Mistake::at(text, &span, error.message())]
        })?;
        let mut reader = Reader { text, mistakes: Vec::new() };
        let config = reader.config(document.as_table());
        reader.mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
        // One in `[defaults]` is found in each job.
        reader.mistakes.dedup();
        if reader.mistakes.is_empty() { Ok(config) } else { Err(reader.mistakes) }
    }
}

/// Reads on after a mistake, for the sake of the others.
struct Reader<'a> {
    text: &'a str,
    mistakes: Vec<Mistake>,
}

/// Keys with their values, those of the job before those of `[defaults]`.
type Keys<'a> = BTreeMap<&'a str, Entry<'a>>;

/// A value, and where it stands.
#[derive(Clone)]
struct Entry<'a> {
    key: Range<usize>,
    value: &'a Item,
}

impl Entry<'_> {
    fn span(&self) -> Range<usize> {
        self.value.span().unwrap_or_else(|| self.key.clone())
    }
}

impl Reader<'_> {
    fn wrong(&mut self, span: &Range<usize>, what: &str) {
        self.mistakes.push(Mistake::at(self.text, span, what));
    }

    fn config(&mut self, table: &Table) -> Config {
        let mut config = Config { state: None, parallel: PARALLEL, jobs: Vec::new() };
        let (mut defaults, mut jobs) = (Keys::new(), Vec::new());
        for (key, entry) in keys(table) {
            match (key, entry.value) {
                ("state", _) => config.state = self.text_of(&entry).map(PathBuf::from),
                ("parallel", _) => {
                    config.parallel = self.parallel(&entry).unwrap_or(config.parallel);
                }
                ("defaults", Item::Table(table)) => defaults = keys(table),
                ("job", Item::ArrayOfTables(tables)) => jobs.extend(tables.iter()),
                ("defaults", _) => self.wrong(&entry.key, "this is a table: [defaults]"),
                ("job", _) => self.wrong(&entry.key, "each job is a table: [[job]]"),
                _ => {
                    let what = format!(
                        "`{key}` is not known here; state, parallel, [defaults] and [[job]] are"
                    );
                    self.wrong(&entry.key, &what);
                }
            }
        }
        for key in ["name", "source", "target"] {
            if let Some(entry) = defaults.remove(key) {
                self.wrong(&entry.key, &format!("each job has a {key} of its own"));
            }
        }
        let mut lines = BTreeMap::new();
        for table in jobs {
            let Some((job, span)) = self.job(table, &defaults) else { continue };
            let line = Mistake::at(self.text, &span, "").line;
            if let Some(other) = lines.insert(job.name.clone(), line) {
                let what = format!("job {} stands in line {other} already", job.name);
                self.wrong(&span, &what);
            }
            config.jobs.push(job);
        }
        config
    }

    fn parallel(&mut self, entry: &Entry<'_>) -> Option<NonZeroUsize> {
        let number = entry.value.as_integer().and_then(|number| usize::try_from(number).ok());
        let parallel = number.and_then(NonZeroUsize::new);
        if parallel.is_none() {
            self.wrong(&entry.span(), "this is a number of jobs, at least 1");
        }
        parallel
    }

    fn job(&mut self, table: &Table, defaults: &Keys<'_>) -> Option<(Job, Range<usize>)> {
        let all = defaults::joined(&keys(table), defaults);
        let here = table.span().unwrap_or(0..0);
        let name = self.name(all.get("name"), &here);
        let [source, target] = ["source", "target"].map(|key| {
            let Some(entry) = all.get(key) else {
                self.wrong(&here, &format!("this job has no {key}"));
                return None;
            };
            self.text_of(entry)
        });
        let trigger = self.trigger(&all, &here);
        let flags: Vec<_> = all.iter().filter(|(key, _)| !OWN_KEYS.contains(key)).collect();
        let (source, target) = (source?, target?);
        let copy = self.demand_needed(&all).and_then(|()| self.copy(source, target, &flags, &here));
        let hooks = self.hooks(&all);
        let (mut copy, trigger) = (copy?, trigger?);
        if let Err(failure) = copy.check() {
            let remedy = failure.remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default();
            self.wrong(&here, &format!("{}{remedy}", failure.what));
        }
        if let Some(written) = all.get("written").filter(|_| copy.local_source().is_none()) {
            self.wrong(&written.key, "how much is written is seen on the source's host alone");
        }
        self.demand_snapshot(&all, &copy);
        let span = all.get("name").map_or(here, Entry::span);
        let (name, errand) = (name?, copy.errand());
        let hooks = Arc::new(hooks.of(name.clone(), errand));
        copy.run_around_the_snapshot(&hooks);
        Some((Job { name, trigger, copy, hooks }, span))
    }

    fn name(&mut self, entry: Option<&Entry<'_>>, job: &Range<usize>) -> Option<JobName> {
        let Some(entry) = entry else {
            self.wrong(job, "this job has no name");
            return None;
        };
        let name = self.text_of(entry)?;
        let is_fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_fine) {
            self.wrong(&entry.span(), "a name has letters, digits, dots, - and _, 100 at most");
            return None;
        }
        Some(JobName::new(&name))
    }

    fn trigger(&mut self, all: &Keys<'_>, job: &Range<usize>) -> Option<Trigger> {
        let every = self.understood(all.get("every"), duration::parse);
        let cron = self.understood(all.get("cron"), |text| {
            let mut options = ParseOptions::default();
            options.fallback_timezone_option = FallbackTimezoneOption::System;
            parse_crontab_with(text, options)
        });
        let least = self.understood(all.get("written"), Bytes::from_str);
        let check = self.understood(all.get("check"), duration::parse);
        let jitter = self.understood(all.get("jitter"), duration::parse);
        let rhythm = match (every, cron) {
            (Some(_), Some(_)) => {
                self.wrong(&all.get("cron")?.key, "a job has one rhythm: every or cron");
                None
            }
            (Some(pause), None) if pause < SHORTEST => {
                self.wrong(&all.get("every")?.span(), "1s is the shortest rhythm");
                None
            }
            (Some(pause), None) => Some(Rhythm::Every(pause)),
            (None, cron) => cron.map(|moments| Rhythm::Cron(Box::new(moments))),
        };
        if !["every", "cron", "written"].iter().any(|key| all.contains_key(key)) {
            let what = "nothing starts this job: every = \"15m\", a cron expression, or written \
                        = \"1GiB\"";
            self.wrong(job, what);
        }
        let written = least.map(|least| Written { least, check: check.unwrap_or(CHECK) });
        Some(Trigger { rhythm, written, jitter: jitter.unwrap_or_default() })
    }

    /// `None` where there is nothing, or a mistake.
    fn understood<T, E: Display>(
        &mut self,
        entry: Option<&Entry<'_>>,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let entry = entry?;
        let understood = parse(&self.text_of(entry)?);
        understood.map_err(|error| self.wrong(&entry.span(), &error.to_string())).ok()
    }

    fn text_of(&mut self, entry: &Entry<'_>) -> Option<String> {
        let text = entry.value.as_str().map(str::to_owned);
        if text.is_none() {
            self.wrong(&entry.span(), "this is a text in quotes");
        }
        text
    }
}

/// As often as a scheduler may be asked to run a job.
const SHORTEST: Duration = Duration::from_secs(1);

fn keys(table: &Table) -> Keys<'_> {
    let with_key = |(name, value)| {
        let key = table.key(name).and_then(toml_edit::Key::span);
        (name, Entry { key: key.unwrap_or(0..0), value })
    };
    table.iter().map(with_key).collect()
}

#[cfg(test)]
mod tests;
