//! `zferry send`: carries the bytes of a pipe or of a command to a `zferry receive`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use super::figures::Summary;
use super::left;
use super::session::{Cargo, Carried, Session, TakenUp};
use super::source::Opened;
use super::watch::{Stop, Watch};
use super::{Dial, Options};
use crate::error::{Class, Failure, Side};
use crate::process::{Ended, Process, Stderr};
use crate::protocol::message::Stream;
use crate::zfs::failure::{self, SendFailure};

/// Where the bytes come from.
#[derive(Clone, Debug)]
pub enum From {
    /// Our own stdin.
    Stdin,
    /// A descriptor of the caller's, and what to call it.
    Descriptor {
        /// For whoever looks on.
        name: String,
        /// Its bytes.
        fd: Arc<OwnedFd>,
    },
    /// The stdout of a command of the user's: program and arguments.
    Command(Vec<String>),
}

/// Carries one stream and returns when the far side has taken it whole.
pub async fn send(
    from: From,
    dial: Dial,
    options: &Options,
    watch: &mut dyn Watch,
    stop: &mut Stop,
) -> Result<Summary, Failure> {
    let started = Instant::now();
    let job = from.job(&dial);
    let mut session = tokio::select! {
        session = Session::open(dial, options) => session?,
        () = stop.pulled() => return Err(stopped()),
    };
    let cargo = Cargo {
        job,
        what: from.name(),
        stream: Stream::Pipe,
        estimated: None,
        open: Box::new(|| from.open()),
        judge: Box::new(|ended| from.judge(ended)),
    };
    match session.carry(cargo, watch, stop).await {
        Ok(carried) => {
            session.close().await;
            Ok(summary(&carried, started))
        }
        Err(failure) => {
            session.part(&failure).await;
            Err(failure)
        }
    }
}

/// Sends the rest of a stream that an earlier run from the same place to the same server has left
/// in its breakpoint files. Reads nothing from there.
pub async fn send_rest(
    from: From,
    dial: Dial,
    options: &Options,
    watch: &mut dyn Watch,
    stop: &mut Stop,
) -> Result<Summary, Failure> {
    let started = Instant::now();
    let job = from.job(&dial);
    let Some(left) = left::find(options, job.clone()).await else {
        let what = format!("no earlier run has left a whole stream of `{job}` in breakpoint files");
        return Err(Failure::new(Side::Source, Class::Refused, what)
            .with_remedy("send the stream anew, without --rest"));
    };
    match Box::pin(Session::take_up(dial, options, left, watch, stop)).await? {
        TakenUp::Carried(carried) => Ok(summary(&carried, started)),
        TakenUp::Refused(failure) => {
            let what = format!("the stream cannot be gone on with: {}", failure.what);
            Err(Failure { what, ..failure }.with_remedy("send the stream anew, without --rest"))
        }
    }
}

fn summary(carried: &Carried, started: Instant) -> Summary {
    let mut summary = Summary::default();
    summary.add(carried.moment, carried.applied.bytes);
    summary.taken = started.elapsed();
    summary
}

/// The end of a copy that had not begun yet.
pub(super) fn stopped() -> Failure {
    Failure::new(Side::Source, Class::Interrupted, "stopped by a signal before anything was sent")
}

impl From {
    /// What is sent where, as its records call it.
    fn job(&self, dial: &Dial) -> String {
        format!("{} -> {}", self.name(), dial.name())
    }

    fn name(&self) -> String {
        match self {
            From::Stdin => "stdin".to_owned(),
            From::Descriptor { name, .. } => name.clone(),
            From::Command(words) => words.join(" "),
        }
    }

    fn open(&self) -> Result<Opened, Failure> {
        let machine = |what: String| Failure::new(Side::Source, Class::Machine, what);
        match self {
            From::Stdin => {
                let fd = io::stdin().as_fd().try_clone_to_owned();
                let fd = fd.map_err(|error| machine(format!("use our own stdin: {error}")))?;
                Ok(Opened { fd, process: None })
            }
            From::Descriptor { name, fd } => {
                let fd = fd.try_clone();
                let fd = fd.map_err(|error| machine(format!("use {name}: {error}")))?;
                Ok(Opened { fd, process: None })
            }
            From::Command(words) => {
                let (program, arguments) = words.split_first().ok_or_else(|| {
                    Failure::new(Side::Source, Class::Usage, "no command is given after `--`")
                })?;
                let mut command = Command::new(program);
                command.args(arguments);
                let (process, fd) = Process::writing(command, Stderr::Shown)
                    .map_err(|error| machine(format!("start {program}: {error}")))?;
                Ok(Opened { fd, process: Some(process) })
            }
        }
    }

    fn judge(&self, ended: &Ended) -> Option<SendFailure> {
        const SIGPIPE: i32 = 13;
        let From::Command(words) = self else { return None };
        (!ended.success()).then(|| SendFailure {
            failure: failure::of_command(Side::Source, words, ended),
            secondary: ended.signal() == Some(SIGPIPE),
        })
    }
}
