//! The words of a job that are commands of the operator's own.

use std::time::Duration;

use toml_edit::{Item, Value};

use super::{Entry, Keys, Reader};
use crate::cli::hooks::{Argv, Commands};
use crate::cli::{duration, replicate};

/// How long a command may take that says nothing of it.
const LIMIT: Duration = Duration::from_secs(60);

impl Reader<'_> {
    pub fn hooks(&mut self, all: &Keys<'_>) -> Commands {
        let limit = self.understood(all.get("hook-timeout"), |text| match duration::parse(text) {
            Ok(limit) if limit < Duration::from_secs(1) => {
                Err("1s is the shortest time for a command".to_owned())
            }
            parsed => parsed,
        });
        Commands {
            on_success: self.argv(all.get("on-success")),
            on_failure: self.argv(all.get("on-failure")),
            pre_snapshot: self.argv(all.get("pre-snapshot")),
            post_snapshot: self.argv(all.get("post-snapshot")),
            limit: limit.unwrap_or(LIMIT),
        }
    }

    /// Commands around a snapshot that is not taken here would never run.
    pub fn demand_snapshot(&mut self, all: &Keys<'_>, copy: &replicate::Arguments) {
        if copy.takes_snapshot_here() {
            return;
        }
        for entry in ["pre-snapshot", "post-snapshot"].iter().filter_map(|key| all.get(key)) {
            let what = "this job takes no snapshot on this host, so the command would never run";
            self.wrong(&entry.key, what);
        }
    }

    fn argv(&mut self, entry: Option<&Entry<'_>>) -> Option<Argv> {
        let entry = entry?;
        let words: Option<Vec<String>> = match entry.value {
            Item::Value(Value::String(path)) => Some(vec![path.value().clone()]),
            Item::Value(Value::Array(words)) => {
                words.iter().map(|word| word.as_str().map(str::to_owned)).collect()
            }
            _ => None,
        };
        let is_list = matches!(entry.value, Item::Value(Value::Array(_)));
        let argv = words.and_then(|words| Argv::new(words, is_list));
        if argv.is_none() {
            let what = "this is the whole path of a program, or a list of a program and its words: \
                        [\"/usr/bin/logger\", \"done\"]; no shell reads it";
            self.wrong(&entry.span(), what);
        }
        argv
    }
}
