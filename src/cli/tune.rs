//! `zferry tune`: how fast this machine, or this pair, can be, and the command line for it.
//!
//! Understands what is typed, has it measured ([`crate::tune`]) and prints what follows.

mod report;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use sys::control::{self, Runtime};
use tokio::sync::watch;

use self::report::Report;
use super::engine::Flags;
use super::serve::listen;
use super::target::{authority, resolve};
use super::{machine, signals, usage};
use crate::client::{Dial, Manner, Stop};
use crate::error::{Failure, Side};
use crate::server::{Nowhere, Stopping};
use crate::trust::servers::Authority;
use crate::tune::{Onlooker, Rig, Sample, answer, measure};

/// How long the far host may take to answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long after the last transfer a `--once` ends: those of one measurement follow each other at
/// once.
const ONCE_PATIENCE: Duration = Duration::from_secs(2);

/// How often it is looked whether that time has come.
const ONCE_EVERY: Duration = Duration::from_millis(50);

/// Measure what this machine, or this one and another, can do; tell what holds a stream up, and the
/// command line that makes the most of it
///
/// Takes about a minute and changes nothing. For a pair, run `zferry tune --listen ADDR:PORT
/// --plain` on the far host and `zferry tune HOST:PORT --plain` here. Best while nothing else runs.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Where `zferry tune --listen` answers [default: this machine alone is measured]
    #[arg(value_name = "HOST:PORT", conflicts_with_all = ["listen", "once"])]
    #[arg(value_parser = authority)]
    far: Option<Authority>,
    /// Answer those who measure against this machine, at this address, until a signal comes. What
    /// they send is thrown away
    #[arg(long, value_name = "ADDR:PORT")]
    #[arg(conflicts_with_all = ["sample", "spool", "seconds", "json"])]
    listen: Option<SocketAddr>,
    /// Answer one measurement, and end when nothing has come for 2 seconds after it
    #[arg(long, requires = "listen")]
    once: bool,
    /// Talk without encryption: anybody on the way can read the sample along
    #[arg(long)]
    plain: bool,
    /// How long to measure each part and each transfer, from 0.05 to 60 seconds. More is steadier
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    seconds: Duration,
    /// What to measure with: a file, or `-` for stdin, of which 256 MiB are taken at most.
    /// Compression is worth what your own bytes say: `zfs send ... | head -c 256M | zferry tune
    /// --sample -` [default: half text, half noise]
    #[arg(long, value_name = "FILE|-")]
    sample: Option<PathBuf>,
    /// Measure the disk of this folder too: what a spool there would take. Writes 2 GiB at most, a
    /// quarter of the free room at most, and leaves nothing behind
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: Flags,
}

pub(super) fn run(arguments: &Arguments, quiet: bool) -> Result<(), Failure> {
    match arguments.listen {
        Some(address) => answer_at(address, arguments),
        None => measure_here(arguments, quiet),
    }
}

fn measure_here(arguments: &Arguments, quiet: bool) -> Result<(), Failure> {
    let far = arguments.far.as_ref().map(|far| dial(far, arguments.plain)).transpose()?;
    let rig = rig(arguments)?;
    let report = Report::begin(&rig);
    let runtime = Runtime::new(rig.settings.backend)
        .map_err(|error| machine(Side::Source, "start the measurement", &error))?;
    let measured = runtime.block_on(async {
        let stop = signals::listen(Stopping::Now)
            .map_err(|error| machine(Side::Source, "listen for signals", &error))?;
        let mut shown = Shown::new(quiet || arguments.json);
        measure(rig, far, &mut Stop::new(stop), &mut shown).await
    })?;
    let report = report.end(measured);
    // A reader that has gone needs no report.
    let _ = report.print(arguments.json, &mut io::stdout().lock());
    Ok(())
}

fn answer_at(address: SocketAddr, arguments: &Arguments) -> Result<(), Failure> {
    require_plain(Side::Target, arguments.plain)?;
    let engine = arguments.engine.settings(Side::Target)?;
    let runtime = Runtime::new(engine.backend)
        .map_err(|error| machine(Side::Target, "start the server", &error))?;
    runtime.block_on(async {
        let stop = signals::listen(Stopping::Now)
            .map_err(|error| machine(Side::Target, "listen for signals", &error))?;
        let listener = listen(address).await?;
        let nowhere = Nowhere::default();
        let stop = if arguments.once { once(nowhere.clone(), stop) } else { stop };
        answer(engine, listener, nowhere, stop).await
    })
}

/// Stops also when somebody has measured and nothing more has come for a while.
fn once(nowhere: Nowhere, mut stop: watch::Receiver<Stopping>) -> watch::Receiver<Stopping> {
    let (tell, stopping) = watch::channel(Stopping::No);
    control::spawn(async move {
        let over = async {
            let mut quiet_since = None;
            let mut last = (0, 0);
            loop {
                tokio::time::sleep(ONCE_EVERY).await;
                let counts = nowhere.counts();
                if counts != last || counts.0 != counts.1 || counts.0 == 0 {
                    quiet_since = None;
                    last = counts;
                    continue;
                }
                if quiet_since.get_or_insert_with(Instant::now).elapsed() >= ONCE_PATIENCE {
                    return;
                }
            }
        };
        tokio::select! {
            () = over => {}
            // The other end lives as long as the process.
            _ = stop.wait_for(|&stop| stop > Stopping::No) => {}
        }
        tell.send_replace(Stopping::Now);
        std::future::pending::<()>().await;
    });
    stopping
}

/// What is measured is the network, and the sample is nobody's secret.
fn require_plain(here: Side, plain: bool) -> Result<(), Failure> {
    if plain {
        return Ok(());
    }
    Err(usage(here, "two hosts are measured in clear, and nobody proves who they are")
        .with_remedy("add --plain on both sides, if that will do for the sample"))
}

fn dial(far: &Authority, plain: bool) -> Result<Dial, Failure> {
    require_plain(Side::Source, plain)?;
    let (name, addresses) = (far.to_string(), resolve(far)?);
    Ok(Dial::Network { name, addresses, limit: CONNECT_LIMIT, manner: Manner::Plain })
}

fn rig(arguments: &Arguments) -> Result<Rig, Failure> {
    let here = Side::Source;
    let settings = arguments.engine.settings(here)?;
    let cores = sys::cpu::allowed()
        .map_err(|error| machine(here, "ask which cores we may use", &error))?
        .len();
    let sample = match &arguments.sample {
        None => Sample::made(),
        Some(name) => sample(name).map_err(|error| {
            usage(here, format!("--sample {}: {error}", name.display()))
                .with_remedy("name a file with a part of a stream, or - and pipe one in")
        })?,
    };
    Ok(Rig {
        settings,
        cores,
        sample,
        time: arguments.seconds,
        spool: arguments.spool.clone(),
        given_up: Arc::default(),
    })
}

fn sample(name: &PathBuf) -> io::Result<Sample> {
    if name.as_os_str() != "-" {
        return Sample::of(File::open(name)?);
    }
    if io::stdin().is_terminal() {
        return Err(io::Error::other("stdin is this terminal"));
    }
    Sample::of(io::stdin().lock())
}

/// A number of seconds, also a part of one.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=60.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("use a number of seconds from 0.05 to 60".to_owned()),
    }
}

/// What is being measured, on a terminal; nobody reads it elsewhere.
struct Shown(Option<ProgressBar>);

impl Shown {
    fn new(silent: bool) -> Shown {
        let is_seen = !silent && io::stderr().is_terminal();
        Shown(is_seen.then(|| {
            let bar = ProgressBar::new_spinner();
            // The template is ours and a test renders it.
            let style = ProgressStyle::with_template("{spinner} measuring {msg} ({elapsed})");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        }))
    }
}

impl Onlooker for Shown {
    fn begin(&mut self, what: &str) {
        tracing::info!(what, "measuring");
        if let Some(bar) = &self.0 {
            bar.set_message(what.to_owned());
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
        let _ = io::stderr().flush();
    }
}
