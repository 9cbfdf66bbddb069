//! `zferry-chaos`: the relay for people and for `ci/soak`.
//!
//! Prints `listening on ADDRESS`, as `zferry serve` does, and its plan to stderr; at SIGTERM or
//! SIGINT it ends and prints its counters to stdout.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use zferry_chaos::{Ending, Plan, Proxy, Storm, Who};

/// A relay that harms what passes through it, by plan
#[derive(Debug, Parser)]
#[command(after_help = "\
A plan has a line for each rule, WHO[#NUMBER] WAY BYTE FAULT [HOW]:
  lane:2#3 up 4096 cut rst     when 4096 bytes of the third connection of lane 2 have gone up
  control down 300 hole 20s    from byte 300 of each control connection on, nothing comes down
WHO: any, control, lanes, lane:N     WAY: up (to the server), down, both
FAULT: cut|cut-all fin|rst, hole|hole-both|hole-all [TIME], refuse TIME, rate|rate-all BYTES,
       delay TIME, window BYTES, latency TIME, segments BYTES, flip BIT, repeat BYTES
A long line, on which each connection has no more than 512 KiB in flight:
  any both 0 delay 50ms
  any both 0 window 524288")]
struct Orders {
    /// Where to listen; port 0 takes any free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where the server is
    #[arg(long, value_name = "ADDR:PORT")]
    to: SocketAddr,
    /// Connect to the server from this address of the machine's
    #[arg(long, value_name = "ADDR")]
    from: Option<IpAddr>,
    /// A file with the plan
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    plan: Option<PathBuf>,
    /// Make a plan by chance: the same seed makes the same plan
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many data connections a plan by chance harms
    #[arg(long, value_name = "N", default_value_t = 200)]
    lanes: u32,
    /// How many control connections a plan by chance harms
    #[arg(long, value_name = "N", default_value_t = 20)]
    controls: u32,
    /// Before a data connection has carried so many bytes it is harmed
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    lane_bytes: u64,
    /// Before a control connection has brought down so many bytes it is harmed
    #[arg(long, value_name = "BYTES", default_value_t = 400)]
    control_bytes: u64,
    /// Cut all connections whenever so many milliseconds have passed
    #[arg(long, value_name = "MS")]
    cut_every: Option<u64>,
    /// How these cuts end connections
    #[arg(long, value_name = "fin|rst", default_value = "rst")]
    cut_how: Ending,
    /// For so many milliseconds after each of these cuts, refuse new connections
    #[arg(long, value_name = "MS", default_value_t = 0)]
    away: u64,
    /// Do not print the plan
    #[arg(long)]
    quiet: bool,
}

fn main() -> ExitCode {
    match run(&Orders::parse()) {
        Ok(counters) => {
            println!("{counters}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("zferry-chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(orders: &Orders) -> Result<zferry_chaos::Counters, Box<dyn std::error::Error>> {
    let plan = orders.plan()?;
    let proxy = Proxy::listen(orders.listen, orders.to, &plan)?;
    if let Some(from) = orders.from {
        proxy.come_from(from);
    }
    if !orders.quiet {
        eprint!("{plan}");
    }
    eprintln!("listening on {}", proxy.address());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cuts = runtime.block_on(cut_until_told(orders, &proxy))?;
    let mut counters = proxy.counters();
    if cuts > 0 {
        *counters.faults.entry("cut-all").or_default() += cuts;
    }
    Ok(counters)
}

/// How often it has cut everything.
async fn cut_until_told(orders: &Orders, proxy: &Proxy) -> std::io::Result<u64> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut cuts = 0;
    loop {
        let wait = Duration::from_millis(orders.cut_every.unwrap_or_default());
        tokio::select! {
            _ = terminate.recv() => return Ok(cuts),
            _ = interrupt.recv() => return Ok(cuts),
            () = tokio::time::sleep(wait), if orders.cut_every.is_some() => {
                proxy.cut(Who::Any, orders.cut_how);
                if orders.away > 0 {
                    proxy.refuse(Duration::from_millis(orders.away));
                }
                cuts += 1;
            }
        }
    }
}

impl Orders {
    fn plan(&self) -> Result<Plan, Box<dyn std::error::Error>> {
        if let Some(path) = &self.plan {
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("read {}: {error}", path.display()))?;
            return Ok(text.parse()?);
        }
        let Orders { lanes, controls, lane_bytes, control_bytes, .. } = *self;
        let storm = Storm { lanes, controls, lane_bytes, control_bytes, pauses: true };
        Ok(self.seed.map_or_else(Plan::none, |seed| storm.plan(seed)))
    }
}
