//! What a server receives into: datasets below a root, or the one stream of a pipe.
//!
//! Drives `zfs` by way of `pool`, and so it blocks: sessions call it on other threads. A client
//! names a dataset relative to its root and can name nothing outside of it.

use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;

use tokio::sync::watch;

use super::granted::Granted;
use super::nowhere::Nowhere;
use super::place::Place;
use super::pool::Pool;
use super::taker::Prepared;
use super::wished::{Verified, Wished};
use crate::engine::receiver::{Feed, Sink};
use crate::error::{Class, Failure, Side};
use crate::listing::TargetState;
use crate::process::{Ended, Process, Stderr};
use crate::protocol::message::{RelativeName, Stream};
use crate::trust::Fingerprint;
use crate::trust::clients::Clients;
use crate::trust::grants::Wish;
use crate::units::Rate;
use crate::zfs::failure;

/// Where streams go.
#[derive(Clone, Debug)]
pub enum Destination {
    /// Datasets below a root, for everybody who is let in.
    Pool(Pool),
    /// Datasets below what each client is granted.
    Granted(Granted),
    /// A command or our own stdout.
    Pipe(Pipe),
}

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

/// Where one stream goes, as it was judged when its client asked.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// Into a dataset.
    Dataset(Box<Wished>),
    /// Through a pipe.
    Pipe(Pipe),
}

impl Destination {
    /// As whoever has shown this key may use it.
    pub(super) fn to(&self, client: Option<Fingerprint>) -> Destination {
        match self {
            Destination::Granted(granted) => Destination::Granted(granted.to(client)),
            Destination::Pool(_) | Destination::Pipe(_) => self.clone(),
        }
    }

    /// A client as people know it, for messages and the log.
    pub(super) fn name_of(&self, address: String) -> String {
        match self {
            Destination::Granted(granted) => match granted.client() {
                Ok(client) => format!("{} ({address})", client.name()),
                Err(_unknown) => address,
            },
            Destination::Pool(_) | Destination::Pipe(_) => address,
        }
    }

    /// The least that a client may bring in a second, of all that it is granted; `None` for no
    /// limit.
    pub(super) fn slowest(&self) -> Option<Rate> {
        match self {
            Destination::Granted(granted) => {
                let client = granted.client().ok()?;
                client.grants().iter().filter_map(|grant| grant.limits.bandwidth).min()
            }
            Destination::Pool(_) | Destination::Pipe(_) => None,
        }
    }

    /// The list of clients, now and whenever it is read again, where there is one.
    pub(super) fn list(&self) -> Option<watch::Receiver<Arc<Clients>>> {
        match self {
            Destination::Granted(granted) => Some(granted.list()),
            Destination::Pool(_) | Destination::Pipe(_) => None,
        }
    }

    /// Where a stream goes. Refuses what does not belong here, or is not granted.
    pub(super) fn target_of(&self, stream: &Stream) -> Result<Target, Failure> {
        match (self, stream) {
            (Destination::Pool(pool), Stream::Dataset(stream)) => {
                wished_in(pool, &stream.target).map(Target::of)
            }
            (Destination::Granted(granted), Stream::Dataset(stream)) => {
                granted.wished_by(stream).map(Target::of)
            }
            (Destination::Pipe(pipe), Stream::Pipe) => Ok(Target::Pipe(pipe.clone())),
            (Destination::Pool(_) | Destination::Granted(_), Stream::Pipe) => Err(refused(
                "this is `zferry serve`, which receives datasets; a bare stream was sent",
                "send to a `zferry receive`, or use `zferry replicate`",
            )),
            (Destination::Pipe(_), Stream::Dataset(_)) => Err(refused(
                "this is `zferry receive`, which takes a bare stream; a dataset was sent",
                "replicate to a `zferry serve`, or use `zferry send`",
            )),
        }
    }

    /// A dataset that a client wishes something about.
    pub(super) fn wished(&self, name: &RelativeName, wish: Wish) -> Result<Wished, Failure> {
        match self {
            Destination::Pool(pool) => wished_in(pool, name),
            Destination::Granted(granted) => granted.wished(name, wish),
            Destination::Pipe(_) => Err(refused(
                "this is `zferry receive`, which has no datasets",
                "replicate to a `zferry serve`, or use `zferry send`",
            )),
        }
    }
}

/// For everybody, who may do all below the root.
fn wished_in(pool: &Pool, name: &RelativeName) -> Result<Wished, Failure> {
    let dataset = pool.dataset(name)?;
    Ok(Wished { pool: pool.clone(), dataset, leave: None })
}

impl Target {
    fn of(wished: Wished) -> Target {
        Target::Dataset(Box::new(wished))
    }

    /// The dataset, where it is one.
    pub fn wished(&self) -> Option<&Wished> {
        match self {
            Target::Dataset(wished) => Some(wished),
            Target::Pipe(_) => None,
        }
    }

    /// What it has for itself while a stream comes.
    pub fn place(&self) -> Place {
        match self {
            Target::Dataset(wished) => Place::Dataset(wished.dataset.clone()),
            Target::Pipe(pipe) => Place::Pipe(pipe.name()),
        }
    }

    /// What it holds.
    pub fn look_up(&self) -> Result<TargetState, Failure> {
        match self {
            Target::Dataset(wished) => wished.look_up(),
            Target::Pipe(_) => Ok(TargetState::Absent),
        }
    }

    /// Makes ready whatever takes the stream; `whole` as for [`Wished::prepare`].
    pub fn prepare(&self, stream: &Stream, whole: bool) -> Result<Prepared, Failure> {
        match (self, stream) {
            (Target::Dataset(wished), Stream::Dataset(stream)) => wished.prepare(stream, whole),
            (Target::Pipe(pipe), _) => pipe.prepare(),
            (Target::Dataset(_), Stream::Pipe) => Err(refused("no such stream is taken here", "")),
        }
    }

    /// Whether the stream is where it should be, now that its process has ended: for a dataset by
    /// what the target holds, whatever the process says of itself.
    pub fn verify(&self, stream: &Stream, ended: Option<&Ended>) -> Result<Verified, Failure> {
        match (self, stream) {
            (Target::Dataset(wished), Stream::Dataset(stream)) => wished.verify(stream, ended),
            _ => match ended.and_then(|ended| self.complaint(ended)) {
                Some(failure) => Err(failure),
                None => Ok(Verified { guid: None, is_rooted: true }),
            },
        }
    }

    /// The failure of a process that ended badly; `None` if it says that all went well.
    pub fn complaint(&self, ended: &Ended) -> Option<Failure> {
        match self {
            Target::Dataset(wished) => wished.complaint(ended),
            Target::Pipe(Pipe::Command(words)) if !ended.success() => {
                Some(failure::of_command(Side::Target, words, ended))
            }
            Target::Pipe(_) => None,
        }
    }
}

impl Pipe {
    fn name(&self) -> String {
        match self {
            Pipe::Stdout => "stdout".to_owned(),
            Pipe::Command(words) => words.join(" "),
            Pipe::Nowhere(_) => "nowhere".to_owned(),
        }
    }

    fn prepare(&self) -> Result<Prepared, Failure> {
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

fn refused(what: &str, remedy: &str) -> Failure {
    Failure::new(Side::Target, Class::Refused, what).with_remedy(remedy)
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
