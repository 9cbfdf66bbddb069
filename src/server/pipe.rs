//! The one stream of a pipe, which is no dataset of ours.

use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use super::nowhere::Nowhere;
use super::taker::Prepared;
use crate::engine::receiver::{Feed, Sink};
use crate::error::{Class, Failure, Side};
use crate::process::{Ended, Process, Stderr};
use crate::zfs::failure;

/// A stream's other end that is no dataset of ours.
#[derive(Clone, Debug)]
pub enum Pipe {
    /// Our own stdout.
    Stdout,
    /// A command of the user's: program and arguments.
    Command(Vec<String>),
    /// Nobody: the stream is read and thrown away.
    Nowhere(Nowhere),
}

impl Pipe {
    /// What messages call it.
    pub(super) fn name(&self) -> String {
        match self {
            Pipe::Stdout => "stdout".to_owned(),
            Pipe::Command(words) => words.join(" "),
            Pipe::Nowhere(_) => "nowhere".to_owned(),
        }
    }

    /// The failure of a process that ended badly; `None` if it says that all went well.
    pub(super) fn complaint(&self, ended: &Ended) -> Option<Failure> {
        match self {
            Pipe::Command(words) if !ended.success() => {
                Some(failure::of_command(Side::Target, words, ended))
            }
            Pipe::Stdout | Pipe::Command(_) | Pipe::Nowhere(_) => None,
        }
    }

    /// Makes ready what takes the stream.
    pub(super) fn prepare(&self) -> Result<Prepared, Failure> {
        let machine = |what: String| Failure::new(Side::Target, Class::Machine, what);
        match self {
            Pipe::Stdout => {
                let fd: OwnedFd = std::io::stdout()
                    .as_fd()
                    .try_clone_to_owned()
                    .map_err(|error| machine(format!("use our own stdout: {error}")))?;
                Ok(Prepared::ready(None, Sink { fd, feed: Feed::Foreign }))
            }
            Pipe::Command(words) => {
                let (program, arguments) = words.split_first().ok_or_else(|| {
                    Failure::new(Side::Target, Class::Usage, "no command is given after `--`")
                })?;
                let mut command = Command::new(program);
                command.args(arguments);
                let (process, fd) = Process::reading(command, Stderr::Shown)
                    .map_err(|error| machine(format!("start {program}: {error}")))?;
                Ok(Prepared::ready(Some(process), Sink { fd, feed: feed_of(program) }))
            }
            Pipe::Nowhere(nowhere) => {
                let fd = nowhere
                    .open()
                    .map_err(|error| machine(format!("make a reader for the stream: {error}")))?;
                // Our reader copies what it reads.
                Ok(Prepared::ready(None, Sink { fd, feed: Feed::Splice }))
            }
        }
    }
}

/// How a command of the user's takes bytes. Only of `zfs` do we know that it copies what it reads;
/// pv, for one, splices on, and would see our slots change.
fn feed_of(program: &str) -> Feed {
    let name = program.rsplit('/').next().unwrap_or(program);
    if name == "zfs" { Feed::Splice } else { Feed::Write }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reader_that_is_known_to_copy_gets_pages() {
        for (program, feed) in [
            ("zfs", Feed::Splice),
            ("/usr/sbin/zfs", Feed::Splice),
            ("pv", Feed::Write),
            ("sudo", Feed::Write),
            ("/opt/notzfs", Feed::Write),
        ] {
            assert_eq!(feed_of(program), feed, "{program}");
        }
    }
}
