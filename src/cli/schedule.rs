//! `zferry schedule`: the jobs of a configuration, each when it is due, for as long as it is let.

pub(super) mod histories;
mod metrics;
mod page;
mod plot;
mod run;
mod runner;
mod shared;
mod site;
pub(super) mod socket;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use sys::control::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use self::histories::Histories;
use self::runner::Runner;
use self::shared::Shared;
use self::socket::Socket;
use super::config::{Config, ConfigFile};
use super::{Loudness, http, machine, signals, state};
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
    /// Where `zferry status` hears of jobs and copies: a socket for this user alone [default:
    /// zferry.sock in the state folder]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Tell Prometheus and browsers what happens, by HTTP at this address: /metrics, a status page
    /// at / and /status.json. A port alone is of this host alone [default: nobody is told]
    #[arg(long, value_name = "ADDR:PORT", value_parser = http::address)]
    metrics: Option<SocketAddr>,
}

/// Where a scheduler keeps what it knows, if nobody says.
const STATE: &str = "/var/lib/zferry";

/// Where the unit of `docs/systemd` has it keep that.
const STATE_OF_UNIT: &str = "/var/lib/zferry/schedule";

/// Where to look for what a scheduler of this host knows, if nobody says.
pub(super) fn usual_state() -> PathBuf {
    of_scheduler([STATE, STATE_OF_UNIT].map(Path::new))
}

/// The one of these folders that a scheduler runs with, or else that one has used last; where none
/// has, the first.
fn of_scheduler(folders: [&Path; 2]) -> PathBuf {
    let runs = |folder: &&&Path| socket::is_heard(&socket::beside(folder));
    let used = || {
        let used =
            folders.iter().filter_map(|folder| Some((histories::used_last(folder)?, folder)));
        // Of two that are as old as each other the first.
        used.rev().max_by_key(|&(at, _)| at).map(|(_, folder)| folder)
    };
    folders.iter().find(runs).or_else(used).unwrap_or(&folders[0]).to_path_buf()
}

pub(super) fn run(arguments: Arguments, loudness: Loudness) -> Result<(), Failure> {
    let Config { state, parallel, jobs } = arguments.config.load()?;
    let folder = arguments.state.or(state).unwrap_or_else(|| STATE.into());
    // Of two schedulers each would run all jobs.
    let _lock = state::hold(Side::Source, &folder, "schedule.lock", "a scheduler")?;
    let histories = Histories::open(&folder)?;
    let shared = Shared::new();
    let socket = arguments.socket.unwrap_or_else(|| socket::beside(&folder));
    let _socket = Socket::listen(&socket, shared.clone())?;
    if let Some(address) = arguments.metrics {
        http::listen(Side::Source, address, shared.clone())?;
    }
    let zfs = Zfs::find().map_err(|error| error.on(Side::Source))?;
    let backend = sys::backend::Backend::Threads;
    let runtime = Runtime::new(backend)
        .map_err(|error| machine(Side::Source, "start the scheduler", &error))?;
    runtime.block_on(async {
        let listened = signals::listen(Stopping::Drained)
            .and_then(|stop| signal(SignalKind::hangup()).map(|hangup| (stop, hangup)));
        let (stop, hangup) =
            listened.map_err(|error| machine(Side::Source, "listen for signals", &error))?;
        let mut runner = Runner::new(arguments.config, histories, zfs, loudness, shared);
        runner.configure(jobs, parallel);
        runner.run(stop, hangup).await;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::small_file;

    #[test]
    fn it_is_looked_where_a_scheduler_runs_or_was_last() {
        let root = tempfile::tempdir().unwrap();
        let [usual, of_unit] = [root.path().join("zferry"), root.path().join("zferry/schedule")];
        let found = || of_scheduler([usual.as_path(), of_unit.as_path()]);
        assert_eq!(found(), usual);
        Histories::open(&of_unit).unwrap();
        assert_eq!(found(), of_unit);
        Histories::open(&usual).unwrap();
        let used = |state: &Path, second: u64| {
            let at = UNIX_EPOCH + Duration::from_secs(second);
            File::open(state.join("jobs")).unwrap().set_modified(at).unwrap();
        };
        used(&of_unit, 7);
        used(&usual, 7);
        assert_eq!(found(), usual);
        used(&of_unit, 8);
        assert_eq!(found(), of_unit);
        used(&usual, 9);
        assert_eq!(found(), usual);
        let socket = Socket::listen(&socket::beside(&of_unit), Shared::new()).unwrap();
        assert_eq!(found(), of_unit, "a scheduler runs there");
        drop(socket);
        assert_eq!(found(), usual);
    }

    /// Root may look everywhere.
    #[test]
    fn a_folder_that_may_not_be_looked_into_is_where_a_scheduler_was() {
        let root = tempfile::tempdir().unwrap();
        let [usual, of_unit] = [root.path().join("zferry"), root.path().join("zferry/schedule")];
        Histories::open(&usual).unwrap();
        Histories::open(&of_unit).unwrap();
        let mode = |mode| fs::set_permissions(&of_unit, Permissions::from_mode(mode)).unwrap();
        mode(0);
        let is_root = small_file::user().unwrap() == 0;
        let found = of_scheduler([usual.as_path(), of_unit.as_path()]);
        mode(0o700);
        assert!(is_root || found == of_unit, "{}", found.display());
    }
}
