//! The words of a job that are flags of `zferry replicate`: understood as if they were typed.

use std::ops::Range;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Args, Command, FromArgMatches};
use toml_edit::{Item, Value};

use super::defaults::{NEEDS, is_said};
use super::{Entry, Keys, NO_KEYS, Reader};
use crate::cli::replicate;

impl Reader<'_> {
    /// Tells of flags that say more of one that is not given; `None` if there are such.
    pub fn demand_needed(&mut self, all: &Keys<'_>) -> Option<()> {
        let before = self.mistakes.len();
        for (key, needed) in NEEDS {
            let Some(entry) = all.get(key).filter(|_| !is_said(all, needed)) else { continue };
            let right = match needed {
                "recursive" => "`recursive = true`",
                _ => "a `spool`",
            };
            self.wrong(&entry.key, &format!("`{key}` needs {right} in this job"));
        }
        (self.mistakes.len() == before).then_some(())
    }

    /// As if it was typed.
    pub fn copy(
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
                // What it is about may stand in lines of its own.
                let lines = told.lines().map(str::trim).take_while(|line| !line.is_empty());
                let told = lines.collect::<Vec<_>>().join(" ");
                self.wrong(&span, told.trim_start_matches("error: "));
                None
            }
        }
    }

    /// The words of one flag.
    fn flag(&mut self, command: &Command, key: &str, entry: &Entry<'_>) -> Vec<String> {
        let known = command.get_arguments().find(|flag| flag.get_long() == Some(key));
        let Some(known) = known.filter(|_| !NO_KEYS.contains(&key)) else {
            let what = match named(command, key) {
                Some(name) if NO_KEYS.contains(&name) => {
                    format!("--{name} makes no sense in a job that runs by itself")
                }
                Some(name) => format!("--{key} is called `{name}` here"),
                None => {
                    format!("`{key}` is neither a word of a job nor a flag of zferry replicate")
                }
            };
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

/// The name of a flag that may have others.
fn named<'a>(command: &'a Command, key: &str) -> Option<&'a str> {
    let is_it = |flag: &&Arg| {
        flag.get_long() == Some(key)
            || flag.get_all_aliases().is_some_and(|others| others.contains(&key))
    };
    command.get_arguments().find(is_it)?.get_long()
}

/// The value that clap does not like.
fn blamed(error: &clap::Error, flags: &[(&&str, &Entry<'_>)]) -> Option<Range<usize>> {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return None };
    // `--compress <METHOD>`
    let key = flag.trim_start_matches("--").split([' ', '=']).next()?;
    flags.iter().find(|(known, _)| **known == key).map(|(_, entry)| entry.span())
}
