//! `zferry schedule`: the jobs of a configuration, each when it is due, for as long as it is let.

mod histories;
mod run;
mod runner;

use std::path::PathBuf;

use clap::Args;
use sys::control::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use self::histories::Histories;
use self::runner::Runner;
use super::config::{Config, ConfigFile};
use super::{Loudness, machine, signals, state};
use crate::error::{Failure, Side};
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
    let folder = arguments.state.or(state).unwrap_or_else(|| STATE.into());
    // Of two schedulers each would run all jobs.
    let _lock = state::hold(Side::Source, &folder, "schedule.lock", "a scheduler")?;
    let histories = Histories::open(&folder)?;
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
