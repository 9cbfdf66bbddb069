//! `zferry-crowd`: strangers at a server's door, for `ci/soak`. Prints what became of them.

use std::net::SocketAddr;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use zferry_chaos::Crowd;

/// Strangers that come to a server and say what makes no sense, until SIGTERM
#[derive(Debug, Parser)]
struct Orders {
    /// Where the server is, on loopback
    #[arg(long, value_name = "ADDR:PORT")]
    to: SocketAddr,
    /// How many come each minute
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    each_minute: u32,
    /// The same seed makes the same words
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

fn main() -> std::io::Result<()> {
    let Orders { to, each_minute, seed } = Orders::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let welcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let stop = async move {
            terminate.recv().await;
        };
        Ok::<_, std::io::Error>(Crowd { to, each_minute, all: u32::MAX, seed }.come(stop).await)
    })?;
    println!("{welcome}");
    Ok(())
}
