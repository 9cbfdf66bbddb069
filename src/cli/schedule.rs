//! `zferry schedule`: the jobs of a configuration, each when it is due, for as long as it is let.

mod histories;
mod run;
mod runner;

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::Args;
use sys::control::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use self::histories::Histories;
use self::runner::Runner;
use super::config::{Config, ConfigFile};
use super::{Loudness, machine, signals};
use crate::error::{Class, Failure, Side};
use crate::server::Stopping;
use crate::zfs::Zfs;

/// Run the copies of a configuration, each when it is due
///
/// SIGHUP reads the configuration again; SIGTERM lets the copies that run end and begins no other,
/// a second one ends them where they are.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    /// Keep here when which job ran last [default: what the configuration says, or
    /// /var/lib/zferry]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// Where a scheduler keeps what it knows, if nobody says.
const STATE: &str = "/var/lib/zferry";

pub(super) fn run(arguments: Arguments, loudness: Loudness) -> Result<(), Failure> {
    let Config { state, parallel, jobs } = arguments.config.load()?;
    let state = arguments.state.or(state).unwrap_or_else(|| STATE.into());
    let (_lock, histories) = (hold(&state)?, Histories::open(&state)?);
    let zfs = Zfs::find().map_err(|error| error.on(Side::Source))?;
    let backend = sys::backend::Backend::Threads;
    let runtime = Runtime::new(backend)
        .map_err(|error| machine(Side::Source, "start the scheduler", &error))?;
    runtime.block_on(async {
        let listened = signals::listen(Stopping::Drained)
            .and_then(|stop| signal(SignalKind::hangup()).map(|hangup| (stop, hangup)));
        let (stop, hangup) =
            listened.map_err(|error| machine(Side::Source, "listen for signals", &error))?;
        let mut runner = Runner::new(arguments.config, histories, zfs, loudness);
        runner.configure(jobs, parallel);
        runner.run(stop, hangup).await;
        Ok(())
    })
}

/// Holds the state for as long as the file lives: of two schedulers each would run all jobs.
fn hold(state: &Path) -> Result<File, Failure> {
    let shown = state.display();
    let failed = |error| {
        machine(Side::Source, &format!("use the state folder {shown}"), &error)
            .with_remedy("name one that this user may write: --state DIR")
    };
    DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(failed)?;
    let file = File::options().create(true).append(true).open(state.join("schedule.lock"));
    let file = file.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let what = format!("a scheduler with the state folder {shown} is running already");
            Err(Failure::new(Side::Source, Class::Busy, what)
                .with_remedy("stop that one, or give this one another --state"))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
