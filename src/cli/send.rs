//! `zferry send`: carries one stream out of a pipe or a command.

use std::io::IsTerminal;
use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::Args;
use sys::control::Runtime;

use super::engine::{Flags, SendFlags};
use super::events::{self, Telling};
use super::show;
use super::spool::state_beside;
use super::target::{Reach, authority};
use super::{machine, security, signals, state, usage};
use crate::client::send::{From, send, send_rest};
use crate::client::{Options, Stop};
use crate::error::{Failure, Side};
use crate::server::Stopping;
use crate::trust::servers::Authority;

/// Send stdin, or the output of a command given after `--`, to a `zferry receive`
///
/// Example: zferry send --ticket FILE -- zfs send -w tank/a@monday
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Where `zferry receive` listens [default: where the ticket says]
    #[arg(value_name = "HOST:PORT", required_unless_present = "ticket", value_parser = authority)]
    to: Option<Authority>,
    /// The file that `zferry receive --ticket-out` wrote: the stream is encrypted, and the receiver
    /// known
    #[arg(long, value_name = "FILE", conflicts_with = "plain")]
    ticket: Option<PathBuf>,
    /// Talk without encryption: anybody on the way can read along
    #[arg(long)]
    plain: bool,
    /// Keep breakpoint records in this folder while a stream is on its way: how far it came, for
    /// `zferry status --state` and for the next run after a crash. Several copies may share it
    /// [default: none are kept]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Send the rest of a stream that an earlier run of this command with `--spool-when always` has
    /// left whole in its breakpoint files; nothing is read from stdin, and no command is run
    #[arg(long, requires = "spool")]
    rest: bool,
    #[command(flatten)]
    telling: Telling,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    engine: Flags,
    #[command(flatten)]
    sending: SendFlags,
    /// A command that writes the stream to its stdout
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) fn run(arguments: Arguments, quiet: bool) -> Result<(), Failure> {
    let telling = arguments.telling;
    copy(arguments, quiet).inspect_err(|failure| telling.failed(failure))
}

fn copy(arguments: Arguments, quiet: bool) -> Result<(), Failure> {
    security::require_one(Side::Source, arguments.plain, arguments.ticket.as_ref())?;
    let from = if arguments.command.is_empty() {
        if std::io::stdin().is_terminal() && !arguments.rest {
            return Err(usage(Side::Source, "a stream would be read from this terminal")
                .with_remedy("redirect stdin, or give a command after `--`"));
        }
        From::Stdin
    } else {
        From::Command(arguments.command)
    };
    let sending = &arguments.sending;
    let engine = sending.apply(arguments.engine.settings(Side::Source)?)?;
    let engine = if arguments.plain { engine } else { security::encrypted(Side::Source, engine)? };
    let state = state_beside(arguments.state.as_deref(), engine.spool.as_ref());
    let records = state::records(Side::Source, state, engine.backend)?;
    let (to, ticket) = (arguments.to.as_ref(), arguments.ticket.as_deref());
    let dial = security::dial(to, ticket, arguments.reach.limit())?;
    let runtime = Runtime::new(engine.backend)
        .map_err(|error| machine(Side::Source, "start the sender", &error))?;
    let limit = sending.limit()?;
    let options = Options {
        connections: sending.connections(&engine),
        engine,
        congestion: sending.congestion(),
        limit: limit.told(),
        sharers: NonZeroU16::MIN,
        retry_for: arguments.reach.retry_for(),
        stall_timeout: arguments.reach.stall_timeout(),
        records,
    };
    runtime.block_on(async {
        let stop = signals::listen(Stopping::Now)
            .and_then(|stop| limit.listen().map(|()| stop))
            .map_err(|error| machine(Side::Source, "listen for signals", &error))?;
        let mut watch = arguments.telling.onlooker(quiet);
        let mut stop = Stop::new(stop);
        let copied = if arguments.rest {
            send_rest(from, dial, &options, watch.as_mut(), &mut stop).await
        } else {
            send(from, dial, &options, watch.as_mut(), &mut stop).await
        };
        drop(watch);
        let summary = copied?;
        if arguments.telling.as_json() {
            events::done(None, &summary);
        } else if !quiet {
            show::say(&mut std::io::stderr(), &show::summary("sent", &summary));
        }
        Ok(())
    })
}
