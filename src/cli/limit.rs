//! `--bwlimit`: how fast a stream may leave this host, from the start and after each SIGHUP.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sys::control;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::usage;
use crate::client;
use crate::error::{Failure, Side};
use crate::units::Rate;

/// What is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bwlimit {
    /// A rate that stays.
    Fixed(Rate),
    /// A file that says it, and may be changed.
    InFile(PathBuf),
}

/// What there is to know of it while a command runs.
#[derive(Debug)]
pub(super) struct Limit {
    now: watch::Sender<Option<Rate>>,
    file: Option<PathBuf>,
}

impl FromStr for Bwlimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Bwlimit, String> {
        match text.strip_prefix('@') {
            Some("") => Err("the name of a file is missing behind the @".to_owned()),
            Some(file) => Ok(Bwlimit::InFile(file.into())),
            None => text.parse().map(Bwlimit::Fixed).map_err(|error| format!("{error}")),
        }
    }
}

impl Bwlimit {
    /// As a word for another host.
    pub fn for_far(&self) -> Result<String, Failure> {
        match self {
            Bwlimit::Fixed(rate) => Ok(format!("--bwlimit={}", rate.per_second().0)),
            Bwlimit::InFile(_) => {
                let what = "--bwlimit @FILE is a file of this host, and another host sends";
                Err(usage(Side::Source, what).with_remedy("give a rate: --bwlimit 50MiB"))
            }
        }
    }
}

impl Limit {
    /// Of the flag; `None` is no limit.
    pub fn begin(flag: Option<&Bwlimit>) -> Result<Limit, Failure> {
        let (rate, file) = match flag {
            None => (None, None),
            Some(&Bwlimit::Fixed(rate)) => (Some(rate), None),
            Some(Bwlimit::InFile(file)) => {
                let rate =
                    read(file).map_err(|why| usage(Side::Source, format!("--bwlimit: {why}")))?;
                (rate, Some(file.clone()))
            }
        };
        Ok(Limit { now: watch::Sender::new(rate), file })
    }

    /// What it is at any time.
    pub fn told(&self) -> client::Limit {
        self.now.subscribe()
    }

    /// Reads the file again at each SIGHUP, if there is one: without it the signal does what it
    /// always does. To be called in a control runtime.
    pub fn listen(self) -> io::Result<()> {
        let Limit { now, file: Some(file) } = self else { return Ok(()) };
        let mut hangup = signal(SignalKind::hangup())?;
        control::spawn(async move {
            while hangup.recv().await.is_some() {
                match read(&file) {
                    Ok(limit) => {
                        let limit_text = limit.map_or("none".to_owned(), |rate| rate.to_string());
                        tracing::info!(limit = limit_text, "the limit has changed");
                        now.send_replace(limit);
                    }
                    Err(why) => tracing::warn!("the limit stays as it is: {why}"),
                }
            }
        });
        Ok(())
    }
}

/// A rate, or `none`, alone in a file.
fn read(file: &Path) -> Result<Option<Rate>, String> {
    let name = file.display();
    let text = fs::read_to_string(file).map_err(|error| format!("read {name}: {error}"))?;
    match text.trim() {
        "none" => Ok(None),
        text => text.parse().map(Some).map_err(|error| {
            format!("{name} holds '{}', neither a rate nor `none`: {error}", text.escape_debug())
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_rate_or_a_file_with_one() {
        assert_eq!("1MiB".parse(), Ok(Bwlimit::Fixed("1MiB".parse().unwrap())));
        assert_eq!("@/a b".parse(), Ok(Bwlimit::InFile("/a b".into())));
        for text in ["", "@", "0", "fast", "none"] {
            assert!(text.parse::<Bwlimit>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_holds_a_rate_or_none_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("limit");
        let read_out = |text: &str| {
            fs::write(&file, text).unwrap();
            read(&file)
        };
        assert_eq!(read_out("3MiB/s\n"), Ok(Some("3MiB".parse().unwrap())));
        assert_eq!(read_out(" none \n"), Ok(None));
        // An editor that is about to write it anew must not lift the limit.
        assert!(read_out("").is_err());
        assert!(read_out("1MiB\n2MiB\n").unwrap_err().contains("'1MiB\\n2MiB'"));
        assert!(read(&folder.path().join("missing")).is_err());
    }
}
