//! What a server receives into: datasets below a root, or the one stream of a pipe.
//!
//! Drives `zfs` by way of `pool`, and so it blocks: sessions call it on other threads. A client
//! names a dataset relative to its root and can name nothing outside of it.

use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use super::granted::Granted;
use super::nowhere::Nowhere;
use super::place::Place;
use super::pool::{Pool, abort};
use super::taker::Prepared;
use crate::dataset::{DatasetName, Guid};
use crate::engine::receiver::{Feed, Sink};
use crate::error::{Class, Failure, Side};
use crate::listing::TargetState;
use crate::process::{Ended, Process, Stderr};
use crate::protocol::message::{RelativeName, Stream};
use crate::trust::Fingerprint;
use crate::trust::grants::Wish;
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

    /// Whether the client may have another transfer beside so many of its own.
    pub(super) fn check_transfers(&self, stream: &Stream, running: usize) -> Result<(), Failure> {
        match (self, stream) {
            (Destination::Granted(granted), Stream::Dataset(stream)) => {
                granted.check_transfers(stream, running)
            }
            _ => Ok(()),
        }
    }

    /// Where a stream goes. Refuses what does not belong here, or is not granted.
    pub(super) fn place_of(&self, stream: &Stream) -> Result<Place, Failure> {
        match (self, stream) {
            (Destination::Pool(pool), Stream::Dataset(stream)) => {
                pool.dataset(&stream.target).map(Place::Dataset)
            }
            (Destination::Granted(granted), Stream::Dataset(stream)) => {
                granted.place_of(stream).map(|place| Place::Dataset(place.dataset))
            }
            (Destination::Pipe(pipe), Stream::Pipe) => Ok(Place::Pipe(pipe.name())),
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

    /// The full name of a dataset that a client may name.
    pub(super) fn dataset_named(
        &self,
        name: &RelativeName,
        wish: Wish,
    ) -> Result<DatasetName, Failure> {
        match self {
            Destination::Pool(pool) => pool.dataset(name),
            Destination::Granted(granted) => granted.dataset(name, wish),
            Destination::Pipe(_) => Err(refused(
                "this is `zferry receive`, which has no datasets",
                "replicate to a `zferry serve`, or use `zferry send`",
            )),
        }
    }

    /// What a target holds.
    pub(super) fn look_up(&self, dataset: &DatasetName) -> Result<TargetState, Failure> {
        match self {
            Destination::Pool(Pool { zfs, .. }) | Destination::Granted(Granted { zfs, .. }) => {
                zfs.target_state(dataset).map_err(|error| error.on(Side::Target))
            }
            Destination::Pipe(_) => Ok(TargetState::Absent),
        }
    }

    /// Gives up what an interrupted receive has left in a dataset, if that still has `token`.
    pub(super) fn abort(&self, dataset: &DatasetName, token: &str) -> Result<(), Failure> {
        match self {
            Destination::Pool(Pool { zfs, .. }) | Destination::Granted(Granted { zfs, .. }) => {
                abort(zfs, dataset, token)
            }
            Destination::Pipe(_) => Ok(()),
        }
    }

    /// Makes ready whatever takes the stream. `whole` says that the stream before it, of the same
    /// session, was for the same dataset and has been read back.
    pub(super) fn prepare(&self, stream: &Stream, whole: bool) -> Result<Prepared, Failure> {
        match (self, stream) {
            (Destination::Pool(pool), Stream::Dataset(stream)) => {
                pool.prepare(pool.dataset(&stream.target)?, stream, whole)
            }
            (Destination::Granted(granted), Stream::Dataset(stream)) => {
                granted.admit(stream)?;
                let place = granted.place_of(stream)?;
                place.pool.prepare(place.dataset, stream, whole)
            }
            (Destination::Pipe(pipe), Stream::Pipe) => pipe.prepare(),
            _ => self.place_of(stream).and(Err(refused("no such stream is taken here", ""))),
        }
    }

    /// Whether the stream is where it should be, now that its process has ended: for a dataset by
    /// what the target holds, whatever the process says of itself.
    pub(super) fn verify(
        &self,
        stream: &Stream,
        ended: Option<&Ended>,
    ) -> Result<Option<Guid>, Failure> {
        match (self, stream) {
            (Destination::Pool(pool), Stream::Dataset(stream)) => {
                pool.verify(&pool.dataset(&stream.target)?, stream, ended).map(Some)
            }
            (Destination::Granted(granted), Stream::Dataset(stream)) => {
                let place = granted.place_of(stream)?;
                place.pool.verify(&place.dataset, stream, ended).map(Some)
            }
            _ => match ended.and_then(|ended| self.complaint(stream, ended)) {
                Some(failure) => Err(failure),
                None => Ok(None),
            },
        }
    }

    /// The failure of a process that ended badly; `None` if it says that all went well.
    pub(super) fn complaint(&self, stream: &Stream, ended: &Ended) -> Option<Failure> {
        match (self, stream) {
            (Destination::Pool(_) | Destination::Granted(_), Stream::Dataset(_)) => {
                let Place::Dataset(dataset) = self.place_of(stream).ok()? else { return None };
                failure::of_receive(&dataset, ended)
            }
            (Destination::Pipe(Pipe::Command(words)), _) if !ended.success() => {
                Some(failure::of_command(Side::Target, words, ended))
            }
            _ => None,
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
