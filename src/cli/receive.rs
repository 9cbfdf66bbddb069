//! `zferry receive`: takes one stream for a pipe or a command.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use sys::control::Runtime;

use super::engine::Flags;
use super::serve::listen;
use super::spool::{KeepFlags, state_beside};
use super::{duration, machine, security, signals, state, usage};
use crate::engine::settings::Settings;
use crate::error::{Failure, Side};
use crate::server::{Destination, Incoming, Lasts, Options, Pipe, Stopping, serve};

/// The most data connections that a sender gets.
const CONNECTIONS_MAX: u16 = 64;

/// Take one stream from `zferry send` and write it to stdout, or to a command given after `--`
///
/// Example: zferry receive --listen 0.0.0.0:7002 --ticket-out ticket -- zfs receive -s -u backup/a
/// and, with that file brought to the other host: zferry send HOST:7002 --ticket ticket
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The address and port to listen on; port 0 takes any free one, and stderr says which
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// Make a ticket and write it to this file, which nobody else can read: whoever has it may send
    /// the stream, once, encrypted, and knows that it is we who receive it. Bring it to the sender
    /// by a way that you trust, such as ssh
    #[arg(long, value_name = "FILE", conflicts_with = "plain")]
    ticket_out: Option<PathBuf>,
    /// Talk without encryption: anybody who reaches the port can send, and read along
    #[arg(long)]
    plain: bool,
    /// How long the transfer waits for a sender whose connection was lost
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration::parse)]
    grace: Duration,
    #[command(flatten)]
    engine: Flags,
    #[command(flatten)]
    keep: KeepFlags,
    /// A command that reads the stream on its stdin
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    security::require_one(Side::Target, arguments.plain, arguments.ticket_out.as_ref())?;
    let pipe = if arguments.command.is_empty() {
        if std::io::stdout().is_terminal() {
            return Err(usage(Side::Target, "a stream would be written to this terminal")
                .with_remedy("redirect stdout, or give a command after `--`"));
        }
        Pipe::Stdout
    } else {
        Pipe::Command(arguments.command)
    };
    let spool = arguments.keep.place()?;
    let engine = Settings { spool, ..arguments.engine.settings(Side::Target)? };
    let engine = if arguments.plain { engine } else { security::encrypted(Side::Target, engine)? };
    let state = state_beside(None, engine.spool.as_ref());
    let records = state::records(Side::Target, state, engine.backend)?;
    let runtime = Runtime::new(engine.backend)
        .map_err(|error| machine(Side::Target, "start the receiver", &error))?;
    runtime.block_on(async {
        let stop = signals::listen(Stopping::Now)
            .map_err(|error| machine(Side::Target, "listen for signals", &error))?;
        let listener = listen(arguments.listen).await?;
        let options = Options {
            engine,
            connections_max: CONNECTIONS_MAX,
            lasts: Lasts::OneTransfer,
            grace: arguments.grace,
            records,
            onlooker: None,
        };
        let ticket = arguments.ticket_out.as_deref();
        let door = security::door(arguments.plain, ticket, &listener)?;
        serve(Incoming::Network { listener, door }, Destination::Pipe(pipe), options, stop).await
    })
}
