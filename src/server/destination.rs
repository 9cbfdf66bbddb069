//! What a server receives into: datasets below a root, or the one stream of a pipe.
//!
//! The only place of the server that drives `zfs`, and all of it blocks: sessions call it on other
//! threads. A client names a dataset relative to the root and can name nothing outside of it.

use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use super::gate::Gate;
use super::granted::Granted;
use super::nowhere::Nowhere;
use super::place::Place;
use super::transfer::Kept;
use crate::dataset::{DatasetName, Guid, typed};
use crate::engine::receiver::{Feed, Sink};
use crate::error::{Class, Failure, Side};
use crate::listing::TargetState;
use crate::process::{Ended, Process, Stderr};
use crate::protocol::message::{DatasetStream, RelativeName, Stream};
use crate::token::Token;
use crate::trust::Fingerprint;
use crate::trust::grants::Wish;
use crate::zfs::{Zfs, ZfsError, failure};

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

/// Datasets below `root`.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The command.
    pub zfs: Zfs,
    /// No client gets out of it.
    pub root: DatasetName,
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

/// All that one transfer needs on this side.
#[derive(Debug)]
pub(super) struct Prepared {
    pub taker: Taker,
    /// What is kept of it.
    pub kept: Option<Kept>,
}

/// What takes a stream.
#[derive(Debug)]
pub(super) enum Taker {
    /// Takes whatever comes. Dropped as it is, it ends the process before it closes the sink, which
    /// would look like the end of an empty stream.
    Ready {
        /// What reads the sink, where that is a process of ours.
        process: Option<Process>,
        sink: Sink,
    },
    /// Looks at what comes, and is started by that.
    Gated(Gate),
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

impl Pool {
    fn dataset(&self, name: &RelativeName) -> Result<DatasetName, Failure> {
        self.root.join(name.as_str()).map_err(|error| {
            Failure::new(Side::Target, Class::Refused, format!("{error}"))
                .with_remedy(format!("name a dataset below the server's root, {}", self.root))
        })
    }

    fn prepare(
        &self,
        dataset: DatasetName,
        stream: &DatasetStream,
        whole: bool,
    ) -> Result<Prepared, Failure> {
        let on_target = |error: ZfsError| error.on(Side::Target);
        // One of many small steps takes hardly longer than to ask. If somebody else has left
        // partial state there in this moment, `zfs receive` refuses.
        if stream.resumed || !whole {
            let token = self.zfs.resume_token(&dataset).map_err(on_target)?;
            check_partial_state(&dataset, token.as_deref(), stream)?;
        }
        if stream.first {
            self.zfs.create_parents(&dataset, &self.root).map_err(on_target)?;
        }
        let taker = Taker::Gated(Gate::new(self.zfs.clone(), dataset, stream));
        Ok(Prepared { taker, kept: None })
    }

    fn verify(
        &self,
        dataset: &DatasetName,
        stream: &DatasetStream,
        ended: Option<&Ended>,
    ) -> Result<Guid, Failure> {
        let found =
            self.zfs.guid_of(dataset, &stream.snapshot).map_err(|error| error.on(Side::Target))?;
        if found == Some(stream.to) {
            for warning in ended.map(failure::warnings).unwrap_or_default() {
                tracing::warn!(%dataset, warning, "zfs receive complained");
            }
            return Ok(stream.to);
        }
        Err(ended.and_then(|ended| failure::of_receive(dataset, ended)).unwrap_or_else(|| {
            let name = dataset.at(&stream.snapshot);
            let what = match found {
                Some(guid) => {
                    format!("{name} has guid {guid} after the receive, not {}", stream.to)
                }
                None => format!("{name} does not exist after a receive that said it went well"),
            };
            Failure::new(Side::Target, Class::Zfs, what)
        }))
    }
}

/// Nothing but the partial state that the client was told of is ever thrown away: whatever else is
/// there by now belongs to somebody else. The caller has the dataset's claim.
fn abort(zfs: &Zfs, dataset: &DatasetName, token: &str) -> Result<(), Failure> {
    let on_target = |error: ZfsError| error.on(Side::Target);
    if zfs.resume_token(dataset).map_err(on_target)?.as_deref() != Some(token) {
        let what = format!(
            "what an interrupted receive left in {dataset} has changed since it was listed, and \
             was not given up"
        );
        return Err(Failure::new(Side::Target, Class::Interrupted, what));
    }
    zfs.abort_receive(dataset).map_err(on_target)?;
    tracing::warn!(%dataset, "gave up a part of a snapshot, as its client asked");
    Ok(())
}

impl Prepared {
    fn ready(process: Option<Process>, sink: Sink) -> Prepared {
        Prepared { taker: Taker::Ready { process, sink }, kept: None }
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

/// A stream goes on where it was interrupted, or begins where none was. `zfs receive` would say so
/// too, in words that fit every case.
fn check_partial_state(
    dataset: &DatasetName,
    present: Option<&str>,
    wanted: &DatasetStream,
) -> Result<(), Failure> {
    // The client lists and plans anew.
    let changed = |what| Err(Failure::new(Side::Target, Class::Interrupted, what));
    match (present, wanted.resumed) {
        (Some(token), true) if !is_of(token, wanted) => changed(format!(
            "{dataset} has a part of another snapshot by now than of @{}, which was to be finished",
            wanted.snapshot
        )),
        (Some(_), true) | (None, false) => Ok(()),
        (None, true) => changed(format!(
            "{dataset} has no partly received snapshot any more that could be finished"
        )),
        (Some(_), false) => Err(refused(
            &format!(
                "{dataset} contains partially-complete state of an interrupted receive, and a new \
                 stream was sent"
            ),
            &format!(
                "finish it with its resume token, or give it up: zfs receive -A {}",
                typed(dataset.as_str())
            ),
        )),
    }
}

/// Whether a token is of the stream that was announced as its rest. One that cannot be read is left
/// to ZFS, which made it: it resumes nothing but what it has a part of.
fn is_of(token: &str, wanted: &DatasetStream) -> bool {
    let of = |token: Token| (token.to, token.from, token.flags.raw);
    token.parse().map_or(true, |token| of(token) == (wanted.to, wanted.from, wanted.raw))
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
    use crate::dataset::Kind;
    use crate::token::example::Example;

    fn stream(resumed: bool) -> DatasetStream {
        DatasetStream {
            target: "a b".parse().unwrap(),
            dataset: Kind::Filesystem,
            snapshot: "s".parse().unwrap(),
            to: Guid(7),
            from: Some(Guid(3)),
            raw: false,
            first: false,
            resumed,
        }
    }

    #[test]
    fn a_rest_of_another_stream_is_not_taken() {
        let dataset: DatasetName = "backup/a".parse().unwrap();
        for other in [
            Example::of(Some(3), 8, "tank/a@s"),
            Example::of(Some(4), 7, "tank/a@s"),
            Example::of(None, 7, "tank/a@s"),
            Example::of(Some(3), 7, "tank/a@s").with("rawok"),
        ] {
            let refused = check_partial_state(&dataset, Some(&other.token()), &stream(true));
            assert_eq!(refused.unwrap_err().class, Class::Interrupted, "{other:?}");
        }
    }

    #[test]
    fn a_rest_needs_partial_state_and_a_whole_stream_none() {
        let dataset: DatasetName = "backup/a b".parse().unwrap();
        let check = |present: Option<&str>, resumed| {
            check_partial_state(&dataset, present, &stream(resumed))
        };
        let token = Example::of(Some(3), 7, "tank/a@s").token();
        assert_eq!((check(Some(&token), true), check(None, false)), (Ok(()), Ok(())));
        assert_eq!(check(Some("1-unreadable"), true), Ok(()));
        let gone = check(None, true).unwrap_err();
        assert_eq!(gone.class, Class::Interrupted, "{gone}");
        let in_the_way = check(Some(&token), false).unwrap_err();
        assert_eq!(in_the_way.class, Class::Refused, "{in_the_way}");
        assert!(in_the_way.remedy.unwrap().contains("zfs receive -A 'backup/a b'"));
    }

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
