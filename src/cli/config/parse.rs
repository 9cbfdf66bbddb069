//! `zferry.toml`: the jobs of a scheduler.
//!
//! A job says what is copied where, and when; everything else it says is a flag of `zferry
//! replicate`, by the same name, so that there is one set of words and one place where they are
//! understood. All mistakes are told at once, each with its line and column. `docs/zferry.toml` is
//! an example.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{ArgAction, Args, Command, FromArgMatches};
use cronexpr::{FallbackTimezoneOption, ParseOptions, parse_crontab_with};
use toml_edit::{Document, Item, Table, Value};

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
}

/// What a job says itself; all others are flags.
const OWN_KEYS: [&str; 8] =
    ["name", "source", "target", "every", "cron", "written", "check", "jitter"];

/// Flags that make no sense without a person who types them.
const NO_KEYS: [&str; 3] = ["help", "json", "snapshot"];

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
        let mut config = Config { state: None, parallel: NonZeroUsize::MIN, jobs: Vec::new() };
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
        let mut all = defaults.clone();
        all.extend(keys(table));
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
        let copy = self.copy(source?, target?, &flags, &here);
        let (copy, trigger) = (copy?, trigger?);
        if let Err(failure) = copy.check() {
            let remedy = failure.remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default();
            self.wrong(&here, &format!("{}{remedy}", failure.what));
        }
        if let Some(written) = all.get("written").filter(|_| copy.local_source().is_none()) {
            self.wrong(&written.key, "how much is written is seen on the source's host alone");
        }
        let span = all.get("name").map_or(here, Entry::span);
        Some((Job { name: name?, trigger, copy }, span))
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

    /// As if it was typed.
    fn copy(
        &mut self,
        source: String,
        target: String,
        flags: &[(&&str, &Entry<'_>)],
        job: &Range<usize>,
    ) -> Option<replicate::Arguments> {
        let command = replicate::Arguments::augment_args(Command::new("job"));
        let mut words = Vec::new();
        let before = self.mistakes.len();
        for (key, entry) in flags {
            words.extend(self.flag(&command, key, entry));
        }
        if self.mistakes.len() > before {
            return None;
        }
        words.extend(["--".to_owned(), source, target]);
        let typed = command.no_binary_name(true).try_get_matches_from(words);
        match typed.and_then(|matches| replicate::Arguments::from_arg_matches(&matches)) {
            Ok(copy) => Some(copy),
            Err(error) => {
                let span = blamed(&error, flags).unwrap_or_else(|| job.clone());
                let told = error.render().to_string();
                let first = told.lines().next().unwrap_or_default();
                self.wrong(&span, first.trim_start_matches("error: "));
                None
            }
        }
    }

    /// The words of one flag.
    fn flag(&mut self, command: &Command, key: &str, entry: &Entry<'_>) -> Vec<String> {
        let known = command.get_arguments().find(|flag| flag.get_long() == Some(key));
        let Some(known) = known.filter(|_| !NO_KEYS.contains(&key)) else {
            let what = format!("`{key}` is neither a word of a job nor a flag of zferry replicate");
            self.wrong(&entry.key, &what);
            return Vec::new();
        };
        let is_switch = matches!(known.get_action(), ArgAction::SetTrue);
        match (entry.value, is_switch) {
            (Item::Value(Value::Boolean(yes)), true) => {
                yes.value().then(|| format!("--{key}")).into_iter().collect()
            }
            (_, true) => {
                self.wrong(&entry.span(), "this is true or false");
                Vec::new()
            }
            (Item::Value(Value::Array(values)), false) => {
                values.iter().filter_map(|value| self.value(key, value, entry)).collect()
            }
            (Item::Value(value), false) => self.value(key, value, entry).into_iter().collect(),
            _ => {
                self.wrong(&entry.key, "this is a value, and no table");
                Vec::new()
            }
        }
    }

    fn value(&mut self, key: &str, value: &Value, entry: &Entry<'_>) -> Option<String> {
        match value {
            Value::String(text) => Some(format!("--{key}={}", text.value())),
            Value::Integer(number) => Some(format!("--{key}={}", number.value())),
            _ => {
                self.wrong(&entry.span(), "this is a text in quotes, or a number");
                None
            }
        }
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

/// The value that clap does not like.
fn blamed(error: &clap::Error, flags: &[(&&str, &Entry<'_>)]) -> Option<Range<usize>> {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return None };
    // `--compress <METHOD>`
    let key = flag.trim_start_matches("--").split([' ', '=']).next()?;
    flags.iter().find(|(known, _)| **known == key).map(|(_, entry)| entry.span())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        Config::parse(text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_job_says_when_and_whatever_replicate_understands() {
        let config = Config::parse(
            r#"
state = "/var/lib/zferry"
parallel = 3

[defaults]
jitter = "1m"
compress = "auto"
no-snapshot = true

[[job]]
name = "home"
source = "tank/home"
target = "root@backup:pool/home"
every = "15m"
written = "1GiB"
compress = "zstd:3"
connections = 4
ssh-option = ["A=b", "C=d"]

[[job]]
name = "mail"
source = "tank/mail"
target = "backup/mail"
cron = "0 3 * * * UTC"
jitter = "0s"
"#,
        )
        .unwrap();
        assert_eq!((config.parallel.get(), config.jobs.len()), (3, 2));
        let [home, mail] = config.jobs.try_into().unwrap();
        assert_eq!((home.name.as_str(), mail.name.as_str()), ("home", "mail"));
        let written = Some(Written { least: Bytes::GIB, check: Duration::from_secs(60) });
        assert_eq!((home.trigger.written, home.trigger.jitter.as_secs()), (written, 60));
        assert!(
            matches!(home.trigger.rhythm, Some(Rhythm::Every(pause)) if pause.as_secs() == 900)
        );
        assert!(matches!(mail.trigger.rhythm, Some(Rhythm::Cron(_))));
        assert_eq!((mail.trigger.written, mail.trigger.jitter.as_secs()), (None, 0));
        let typed = format!("{:?}", home.copy);
        for part in ["Zstd", "A=b", "C=d", "tank/home", "root@backup:pool/home"] {
            assert!(typed.contains(part), "{part} in {typed}");
        }
    }

    #[test]
    fn all_mistakes_are_told_each_with_its_place_and_what_is_right() {
        let told = mistakes(
            r#"parallel = 0
sate = "x"

[[job]]
name = "a b"
source = "tank/a"
target = "backup/a"
every = "15 parsecs"

[[job]]
name = "b"
source = "tank/b"
target = 5
compress = "zstd:99"
compres = "auto"
plain = "yes"

[[job]]
name = "c"
source = "tank/c"
target = "backup/c"
compress = "zstd:99"
every = "1m"

[[job]]
name = "c"
source = "tank/c"
target = "backup/c"
every = "1m"
cron = "* * * * *"

[[job]]
name = "d"
source = "tank/c"
target = "backup/c"
"#,
        );
        let expected = [
            "1:12: this is a number of jobs, at least 1",
            "2:1: `sate` is not known here; state, parallel, [defaults] and [[job]] are",
            "5:8: a name has letters, digits, dots, - and _, 100 at most",
            "8:9: use a time such as 30s, 10m or 1h30m",
            "10:1: nothing starts this job: every = \"15m\", a cron expression, or written = \
             \"1GiB\"",
            "13:10: this is a text in quotes",
        ];
        assert_eq!(told[..6], expected, "{told:#?}");
        assert!(told[6].starts_with("22:12: invalid value 'zstd:99' for '--compress"), "{told:#?}");
        assert!(told[7].starts_with("30:1: a job has one rhythm"), "{told:#?}");
        assert!(told[8].starts_with("32:1: nothing starts this job"), "{told:#?}");
    }

    #[test]
    fn the_example_has_no_mistake() {
        let example = include_str!("../../../docs/zferry.toml");
        assert_eq!(Config::parse(example).unwrap().jobs.len(), 3);
    }

    #[test]
    fn a_flag_that_there_is_not_is_told_at_its_key() {
        let job = "[[job]]\nname = \"b\"\nsource = \"tank/b\"\ntarget = \"t/b\"\nevery = \"1m\"\n";
        let told = mistakes(&format!("{job}compres = \"auto\"\nplain = \"yes\"\njson = true\n"));
        let expected = [
            "6:1: `compres` is neither a word of a job nor a flag of zferry replicate",
            "7:9: this is true or false",
            "8:1: `json` is neither a word of a job nor a flag of zferry replicate",
        ];
        assert_eq!(told, expected);
        let told = mistakes(&format!("{job}\n{job}"));
        assert_eq!(told, ["8:8: job b stands in line 2 already"]);
        let far = job.replace("tank/b", "host:tank/b") + "plain = true\nwritten = \"1GiB\"\n";
        let told = mistakes(&far);
        assert!(told[0].starts_with("1:1: with ssh there is a ticket"), "{told:#?}");
        assert!(told[1].starts_with("7:1: how much is written is seen"), "{told:#?}");
        assert_eq!(mistakes("job = 5"), ["1:1: each job is a table: [[job]]"]);
        assert!(mistakes("[[job]")[0].starts_with("1:"));
    }
}
