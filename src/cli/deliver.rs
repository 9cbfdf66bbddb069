//! `zferry deliver`: sends one copy to the host that has started this through ssh.
//!
//! Not for people to type; what `attend` is to a copy that is pushed, this is to one that is
//! fetched. What to send, and the ticket to be let in with, come on stdin, which stays open for as
//! long as the copy is wanted: its end is our end. What happens goes to stdout, as `--json` tells
//! it. What must never happen: that this goes on when nobody wants the copy any more.

use std::io::{BufReader, Stdin};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::thread;
use std::time::Duration;

use clap::{Args, Parser};
use sys::control::{self, Runtime};
use tokio::sync::watch;

use super::choice::Choice;
use super::engine::{MachineFlags, SendFlags};
use super::errand::Errand;
use super::events::{self, Event};
use super::keeping::KeepFlags;
use super::ports::{Ports, bind};
use super::spool::state_beside;
use super::target::Reach;
use super::tree::TreeFlags;
use super::{machine, security, signals, state};
use crate::client::job::Job;
use crate::client::{Called, Dial, Manner, Options, Origin, Stop};
use crate::dataset::DatasetName;
use crate::error::{Class, Failure, Side};
use crate::protocol::message::RelativeName;
use crate::protocol::ticket::Ticket;
use crate::server::Stopping;
use crate::zfs::Zfs;

/// Send a copy to the host that started this through ssh
#[derive(Args, Debug)]
pub(super) struct Arguments {}

/// What the errand says.
#[derive(Parser, Debug)]
#[command(no_binary_name = true)]
struct Words {
    /// What to copy.
    #[arg(long)]
    source: DatasetName,
    /// Where to, below the root that the other host gives us.
    #[arg(long)]
    target: RelativeName,
    /// The same as its user knows it.
    #[arg(long)]
    target_text: String,
    /// The other host's addresses as it knows them itself.
    #[arg(long)]
    address: Vec<IpAddr>,
    /// No port leads to the other host: it connects to us, when we call.
    #[arg(long)]
    through_ssh: bool,
    /// The ports to be called at.
    #[arg(long)]
    ports: Option<Ports>,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    tree: TreeFlags,
    #[command(flatten)]
    keeping: KeepFlags,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    engine: MachineFlags,
    #[command(flatten)]
    sending: SendFlags,
}

/// Runs to the end of the copy and returns the exit code.
pub(super) fn run(_: &Arguments) -> u8 {
    match deliver() {
        Ok(()) => 0,
        Err(failure) => {
            events::failed(&failure);
            failure.exit_code()
        }
    }
}

fn deliver() -> Result<(), Failure> {
    let mut asker = BufReader::new(std::io::stdin());
    let (ticket, words) = Errand::read(&mut asker)?;
    let words = Words::try_parse_from(words).map_err(|error| not_understood(&error))?;
    events::tell(&Event::Ready);
    let zfs = Zfs::find().map_err(|error| error.on(Side::Source))?;
    let engine = words.sending.apply(words.engine.settings(Side::Source)?)?;
    let engine = security::encrypted_by_ssh(Side::Source, engine)?;
    let runtime = Runtime::new(engine.backend)
        .map_err(|error| machine(Side::Source, "start the client", &error))?;
    let limit = words.sending.limit()?;
    // Those of the other host say where a transfer is; these are of a stream that is kept here.
    let state = state_beside(None, engine.spool.as_ref());
    let records = state::records(Side::Source, state, engine.backend)?;
    let options = Options {
        connections: words.sending.connections(&engine),
        engine,
        congestion: words.sending.congestion(),
        limit: limit.told(),
        sharers: NonZeroU16::MIN,
        retry_for: words.reach.retry_for(),
        stall_timeout: words.reach.stall_timeout(),
        records,
    };
    let job = Job {
        source: words.source.clone(),
        target: words.target.clone(),
        target_text: words.target_text.clone(),
        wanted: words.choice.wanted(|| words.keeping.name(Duration::ZERO))?,
        intermediates: words.choice.intermediates(),
        chosen: words.choice.chosen(),
        retention: words.keeping.retention(words.choice.is_rehearsal()),
        on_dead_token: words.choice.on_dead_token(),
        clone_of: None,
        properties: words.choice.properties(),
        // Who asks for the copy has commands of its own host's.
        around: None,
    };
    words.tree.check_cache(&options.engine, options.connections)?;
    let copied = runtime.block_on(async {
        let stop = wanted_until(asker)
            .map_err(|error| machine(Side::Source, "listen for signals", &error))?;
        let dial = dial(&words, &ticket)?;
        let watch = events::for_another_host();
        let (what, is_rehearsal) = ((&zfs, &job), words.choice.is_rehearsal());
        let (tree, mut stop) = (&words.tree, Stop::new(stop));
        tree.carry_out(is_rehearsal, what, &dial, options, watch.as_ref(), &mut stop).await
    })?;
    if let Some(failure) = copied.missing {
        return Err(failure);
    }
    copied.tell_program();
    Ok(())
}

/// The other side is of another version, for it checks what is typed there.
fn not_understood(error: &clap::Error) -> Failure {
    let what = format!("this zferry does not understand the one that asks for a copy: {error}");
    Failure::new(Side::Source, Class::Usage, what.trim_end())
        .with_remedy("install the same version on both hosts")
}

/// Stops on a signal, and when whoever has asked for the copy does not want it any more.
fn wanted_until(mut asker: BufReader<Stdin>) -> std::io::Result<watch::Receiver<Stopping>> {
    let mut signal = signals::listen(Stopping::Now)?;
    let (hung_up, mut gone) = watch::channel(false);
    thread::Builder::new().name("zferry-asker".to_owned()).spawn(move || {
        let _gone_either_way = std::io::copy(&mut asker, &mut std::io::sink());
        hung_up.send_replace(true);
    })?;
    let (tell, stopping) = watch::channel(Stopping::No);
    control::spawn(async move {
        tokio::select! {
            _ = gone.wait_for(|&gone| gone) => {}
            _ = signal.wait_for(|&signal| signal > Stopping::No) => {}
        }
        tell.send_replace(Stopping::Now);
        // The sender lives on: a stop that nobody can pull any more is not a stop.
        std::future::pending::<()>().await;
    });
    Ok(stopping)
}

fn dial(words: &Words, ticket: &Ticket) -> Result<Dial, Failure> {
    let (limit, manner) = (words.reach.limit(), security::with_ticket(ticket, Origin::Asker)?);
    if words.through_ssh {
        return called(words, limit, manner);
    }
    let connection = std::env::var("SSH_CONNECTION").ok();
    let addresses = addresses(ticket.address, connection.as_deref(), &words.address);
    let Some(first) = addresses.first() else {
        let what = "the host that asks for the copy has no address that is known here";
        return Err(Failure::new(Side::Network, Class::Refused, what)
            .with_remedy("have the data go through ssh: --via-ssh"));
    };
    Ok(Dial::Network { name: first.to_string(), addresses, limit, manner })
}

fn called(words: &Words, limit: Duration, manner: Manner) -> Result<Dial, Failure> {
    let listener = bind(Side::Source, Ipv4Addr::LOCALHOST.into(), words.ports)?;
    let called = Called::at(listener, |address| events::tell(&Event::Call { address }));
    Ok(Dial::Called { called, limit, manner })
}

/// Where the other host can be reached: at the address that its ssh came from; behind that, for
/// logins by way of others, at those that it has itself.
fn addresses(told: SocketAddr, ssh_connection: Option<&str>, own: &[IpAddr]) -> Vec<SocketAddr> {
    let seen = ssh_connection.and_then(|words| words.split(' ').next()?.parse::<IpAddr>().ok());
    let mut all = Vec::new();
    for address in seen.into_iter().chain(own.iter().copied()) {
        let address = SocketAddr::new(address, told.port());
        if !address.ip().is_unspecified() && !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_words_of_an_errand_are_consistent() {
        Words::command().debug_assert();
    }

    #[test]
    fn the_asker_is_reached_where_its_ssh_came_from_or_where_it_says() {
        let told = "[::]:7".parse().unwrap();
        let own: Vec<IpAddr> = ["10.0.0.9", "fd00::9", "::"].map(|ip| ip.parse().unwrap()).into();
        let all = |connection| {
            let all = addresses(told, connection, &own);
            all.iter().map(SocketAddr::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            all(Some("10.0.0.1 50000 10.0.0.2 22")),
            ["10.0.0.1:7", "10.0.0.9:7", "[fd00::9]:7"]
        );
        assert_eq!(all(Some("fd00::9 5 fd00::2 22")), ["[fd00::9]:7", "10.0.0.9:7"]);
        for odd in [None, Some(""), Some("a b c d")] {
            assert_eq!(all(odd), ["10.0.0.9:7", "[fd00::9]:7"], "{odd:?}");
        }
        assert!(addresses(told, None, &[]).is_empty());
    }
}
