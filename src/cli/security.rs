//! Who talks with whom: from flags and files to what the two sides are started with.

use std::fs::{self, File, Metadata};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use sys::control::Listener;

use super::config_folder::ConfigFolder;
use super::target::resolve;
use super::{machine, usage};
use crate::client::{Dial, Manner, Origin};
use crate::engine::settings::{Route, RouteChoice, Settings};
use crate::error::{Class, Failure, Side};
use crate::protocol::secret::{JOIN_SECRET_BYTES, JoinSecret};
use crate::protocol::ticket::{TICKET_BYTES_MAX, Ticket};
use crate::server::{Door, OneTicket};
use crate::small_file::{self, Aside, Distrust, check_secret, read_text};
use crate::tls::{Agreement, Anybody};
use crate::trust::servers::Authority;
use crate::trust::{OwnKey, servers};

/// The door of a receiver: in clear, or for whoever gets the ticket that it writes.
pub(super) fn door(
    plain: bool,
    ticket: Option<&Path>,
    listener: &Listener,
) -> Result<Door, Failure> {
    let Some(path) = ticket.filter(|_| !plain) else { return Ok(Door::Plain) };
    let (door, ticket) = give_out(listener.local_addr())?;
    write_ticket(path, &ticket).map_err(|error| {
        machine(Side::Target, &format!("write the ticket {}", path.display()), &error)
    })?;
    Ok(door)
}

/// A ticket to whoever listens at an address, and the door that it opens. The key is made for it
/// alone.
pub(super) fn give_out(address: SocketAddr) -> Result<(Door, Ticket), Failure> {
    let key = OwnKey::generate().map_err(|error| error.on(Side::Target))?;
    let secret = new_secret()?;
    let agreement = agreement(Side::Target, &key, Arc::new(Anybody))?;
    let ticket = Ticket::new(address, key.fingerprint(), secret);
    Ok((Door::Ticket(Rc::new(OneTicket::new(agreement, secret))), ticket))
}

/// How a receiver is reached: at an address in clear, or as its ticket says.
pub(super) fn dial(
    to: Option<&Authority>,
    ticket: Option<&Path>,
    limit: std::time::Duration,
) -> Result<Dial, Failure> {
    let ticket = ticket.map(read_ticket).transpose()?;
    let (name, addresses) = match (to, &ticket) {
        (Some(to), _) => (to.to_string(), resolve(to)?),
        (None, Some(ticket)) => {
            let address = of_ticket(ticket.address)?;
            (address.to_string(), vec![address])
        }
        (None, None) => return Err(usage(Side::Source, "nowhere to send to")),
    };
    let manner = match ticket {
        None => Manner::Plain,
        Some(ticket) => with_ticket(&ticket, Origin::File)?,
    };
    Ok(Dial::Network { name, addresses, limit, manner })
}

/// As whoever has this ticket. Who that is, is of no interest afterwards.
pub(super) fn with_ticket(ticket: &Ticket, origin: Origin) -> Result<Manner, Failure> {
    let key = OwnKey::generate().map_err(|error| error.on(Side::Source))?;
    let agreement = agreement(Side::Source, &key, Arc::new(ticket.server))?;
    Ok(Manner::Ticket(agreement, ticket.secret, origin))
}

/// As the client that we are, to the server that is known by this name.
pub(super) fn with_keys(config: &ConfigFolder, server: &Authority) -> Result<Manner, Failure> {
    let folder = config.folder(Side::Source)?;
    let name = server.to_string();
    let pin = folder.servers()?.pin(&name).ok_or_else(|| servers::unknown(&name))?;
    let key = folder.key(Side::Source)?;
    Ok(Manner::Keys(agreement(Side::Source, &key, Arc::new(pin))?))
}

/// What is encrypted has to be seen: it goes by the block lane.
pub(super) fn encrypted(here: Side, settings: Settings) -> Result<Settings, Failure> {
    seen(here, settings, "leave out --lane splice, or use --plain on both sides")
}

/// The same where there is no `--plain`.
pub(super) fn encrypted_by_ssh(here: Side, settings: Settings) -> Result<Settings, Failure> {
    seen(here, settings, "leave out --lane splice: with ssh everything is encrypted")
}

fn seen(here: Side, settings: Settings, remedy: &str) -> Result<Settings, Failure> {
    if settings.route == RouteChoice::Only(Route::Splice) {
        let what = "what stays in the kernel cannot be encrypted";
        return Err(usage(here, what).with_remedy(remedy));
    }
    Ok(Settings { route: RouteChoice::Only(Route::Block), ..settings })
}

/// The words of a command that was told neither whom to trust nor to trust everybody.
pub(super) fn require_one(
    here: Side,
    plain: bool,
    ticket: Option<&PathBuf>,
) -> Result<(), Failure> {
    if plain || ticket.is_some() {
        return Ok(());
    }
    let (what, remedy) = match here {
        Side::Target => (
            "who may send is not said",
            "--ticket-out FILE lets in whoever gets that file; --plain, on both sides, everybody, \
             and whoever listens on the way",
        ),
        _ => (
            "how to know the receiver is not said",
            "--ticket FILE is what its --ticket-out wrote; --plain, on both sides, trusts the \
             network between them",
        ),
    };
    Err(usage(here, what).with_remedy(remedy))
}

pub(super) fn agreement(
    here: Side,
    key: &OwnKey,
    trusted: Arc<dyn crate::tls::Trusted>,
) -> Result<Agreement, Failure> {
    Agreement::new(key, trusted)
        .map_err(|error| Failure::new(here, Class::Internal, format!("set up TLS: {error}")))
}

fn new_secret() -> Result<JoinSecret, Failure> {
    let mut random = [0; JOIN_SECRET_BYTES];
    getrandom::fill(&mut random).map_err(|error| {
        Failure::new(Side::Target, Class::Machine, format!("no random bytes: {error}"))
    })?;
    Ok(JoinSecret::new(random))
}

fn of_ticket(address: SocketAddr) -> Result<SocketAddr, Failure> {
    if address.ip().is_unspecified() {
        return Err(usage(
            Side::Source,
            "the receiver listens on all addresses of its host, which the ticket does not name",
        )
        .with_remedy(format!("say which: zferry send HOST:{} --ticket FILE", address.port())));
    }
    Ok(address)
}

/// For nobody but us, if it is a file.
fn write_ticket(path: &Path, ticket: &Ticket) -> std::io::Result<()> {
    let text = ticket.encode();
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            File::options().write(true).open(path)?.write_all(text.as_bytes())
        }
        // Behind a link, as /dev/stdout is one, lies what is meant.
        Ok(_) => Aside::write(&fs::canonicalize(path)?, text.as_bytes())?.replace(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Aside::write(path, text.as_bytes())?.replace()
        }
        Err(error) => Err(error),
    }
}

fn read_ticket(path: &Path) -> Result<Ticket, Failure> {
    let shown = path.display();
    let failed = |error| machine(Side::Source, &format!("read the ticket {shown}"), &error);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let user = small_file::user().map_err(failed)?;
    if let Err(why) = check_secret(&metadata, user).or_else(|why| unless_pipe(&metadata, why)) {
        let what = match why {
            Distrust::Mode(mode) => format!("can be read by others (mode {mode:03o})"),
            Distrust::Owner(owner) => format!("belongs to user {owner}"),
        };
        return Err(usage(Side::Source, format!("the ticket {shown} {what}"))
            .with_remedy("use one that nobody else has seen; then: chmod 600 FILE"));
    }
    let text = match read_text(&file, TICKET_BYTES_MAX as u64) {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            return Err(usage(Side::Source, format!("{shown} is no ticket: {error}")));
        }
        read => read.map_err(failed)?,
    };
    Ticket::decode(&text).map_err(|error| usage(Side::Source, format!("{shown}: {error}")))
}

/// Who else may read from a pipe gets what we do not.
fn unless_pipe(metadata: &Metadata, why: Distrust) -> Result<(), Distrust> {
    if metadata.is_file() { Err(why) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_not_seen_by_who_had_its_file_open_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ticket");
        fs::write(&path, "old").unwrap();
        let reader = File::open(&path).unwrap();
        let key = OwnKey::generate().unwrap();
        let address = "127.0.0.1:7001".parse().unwrap();
        let ticket = Ticket::new(address, key.fingerprint(), new_secret().unwrap());
        write_ticket(&path, &ticket).unwrap();
        assert_eq!(std::io::read_to_string(reader).unwrap(), "old");
        assert_eq!(read_ticket(&path).unwrap().encode(), ticket.encode());
    }
}
