//! The other host by way of ssh: starts what is needed there, and brings its ticket back.
//!
//! ssh says who we are to that host, and what the host is to us; the ticket carries both over to
//! TLS, and the data go past ssh, or, where no port is open, through it. Nothing is left there when
//! the session is over. What must never happen: that a name is taken for an option, or for words of
//! a shell.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::dataset::{DatasetName, typed};
use crate::error::{Class, Failure, Side};
use crate::protocol::ticket::{TICKET_BYTES_MAX, Ticket};

/// How a host is reached by ssh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    host: String,
    flags: Vec<OsString>,
}

/// A host's name for ssh that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no [USER@]HOST for ssh")]
pub struct NotAHost(String);

/// What runs on the other host while a copy goes on.
#[derive(Debug)]
pub struct FarSide {
    child: Child,
    /// Closed, it would be told of no failure.
    _said: ChildStdout,
}

/// What is to be started on the other host.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// How zferry is called there, for the shell there.
    pub program: String,
    /// What clients' datasets land below.
    pub root: DatasetName,
    /// Ports to listen on, the first that is free; any, where there is none.
    pub ports: Option<(u16, u16)>,
    /// The data come through ssh as well.
    pub through_ssh: bool,
}

/// What a login may say before the ticket comes.
const NOISE_LINES_MAX: usize = 200;

/// How long it may take to end once the session has.
const END_LIMIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Ssh {
    /// By a name that ssh understands, and with these flags of its own.
    pub fn new(host: &str, flags: Vec<OsString>) -> Result<Ssh, NotAHost> {
        let is_wrong = |letter: char| letter.is_whitespace() || letter.is_control();
        if host.is_empty() || host.starts_with('-') || host.contains(is_wrong) {
            return Err(NotAHost(host.escape_debug().take(80).collect()));
        }
        Ok(Ssh { host: host.to_owned(), flags })
    }

    /// As it was typed.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Without the user.
    pub fn host_alone(&self) -> &str {
        self.host.rsplit_once('@').map_or(&self.host, |(_user, host)| host)
    }

    fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        // No terminal and no windows: bytes alone.
        command.args(["-T", "-x"]).args(&self.flags).args(flags).arg("--").arg(&self.host);
        command
    }

    /// A connection through ssh to an address as the other host sees it.
    pub(super) fn connect(&self, address: SocketAddr) -> std::io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let (input, output): (OwnedFd, OwnedFd) = (theirs.try_clone()?.into(), theirs.into());
        let mut command = self.command(&["-W", &address.to_string()]);
        let mut child = command.stdin(input).stdout(output).spawn()?;
        // Ours of its ends must not stay open, or nobody sees its end.
        drop(command);
        thread::Builder::new().name("zferry-ssh".to_owned()).spawn(move || child.wait())?;
        Ok(ours)
    }

    /// Starts what receives on the other host, and waits for its ticket: for as long as it takes,
    /// for ssh may ask for a password.
    pub fn start(&self, wanted: &Wanted) -> Result<(FarSide, Ticket), Failure> {
        let mut command = self.command(&[]);
        command.arg(wanted.words()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| {
            Failure::new(Side::Source, Class::Machine, format!("start ssh: {error}"))
                .with_remedy("install the ssh client, or use zferry://HOST/DATASET")
        })?;
        let said = child.stdout.take().expect("it was asked for");
        let mut said = BufReader::new(said);
        match read_ticket(&mut said) {
            Some(ticket) => Ok((FarSide { child, _said: said.into_inner() }, ticket)),
            None => Err(self.no_ticket(&mut child)),
        }
    }

    fn no_ticket(&self, child: &mut Child) -> Failure {
        let host = &self.host;
        match end(child) {
            Some(status) if status.code() == Some(255) => {
                let what = format!("no connection by ssh to {host}; what ssh said stands above");
                Failure::new(Side::Network, Class::Interrupted, what)
                    .with_remedy(format!("see that this works: ssh {host} true"))
            }
            Some(status) if status.code() == Some(127) => {
                let what = format!("there is no zferry on {host}, or not where its shell looks");
                Failure::new(Side::Target, Class::Machine, what)
                    .with_remedy("install it there, or say how to call it: --far-command")
            }
            Some(status) => {
                let what = format!(
                    "the receiving side on {host} did not start ({status}); what it said stands \
                     above"
                );
                Failure::new(Side::Target, Class::Machine, what)
            }
            None => {
                let what = format!("what was started on {host} gives no ticket");
                Failure::new(Side::Target, Class::Peer, what).with_remedy(
                    "see what --far-command starts there; both hosts need this version or later",
                )
            }
        }
    }
}

impl Wanted {
    /// For the shell of the other host.
    fn words(&self) -> String {
        let Wanted { program, root, ports, through_ssh } = self;
        let ports = ports.map(|(first, last)| format!(" --ports {first}-{last}"));
        let within = if *through_ssh { " --within-host" } else { "" };
        let ports = ports.unwrap_or_default();
        format!("{program} attend{within}{ports} --root {}", typed(root.as_str()))
    }
}

/// The first line that is a ticket.
fn read_ticket(said: &mut impl BufRead) -> Option<Ticket> {
    for _ in 0..NOISE_LINES_MAX {
        let mut line = String::new();
        let most = TICKET_BYTES_MAX as u64 + 1;
        if said.by_ref().take(most).read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Ok(ticket) = Ticket::decode(line.trim_end()) {
            return Some(ticket);
        }
    }
    None
}

impl FarSide {
    /// Waits until it has ended, now that the session has.
    pub fn end(mut self) {
        if end(&mut self.child).is_none() {
            tracing::warn!("what was started by ssh on the other host is still there");
        }
    }
}

/// Waits for the end, but not for ever.
fn end(child: &mut Child) -> Option<ExitStatus> {
    let until = Instant::now() + END_LIMIT;
    while Instant::now() < until {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        thread::sleep(LOOK_EVERY);
    }
    let _already_gone = child.kill();
    let _reaped = child.wait();
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::secret::JoinSecret;
    use crate::trust::Fingerprint;

    #[test]
    fn a_host_is_never_an_option_nor_several_words() {
        for host in ["backup", "root@backup.example", "::1", "me@::1"] {
            assert_eq!(Ssh::new(host, Vec::new()).unwrap().host(), host);
        }
        for host in ["", "-oProxyCommand=x", "a b", "a\nb", "a\0"] {
            assert!(Ssh::new(host, Vec::new()).is_err(), "{host:?}");
        }
        assert_eq!(Ssh::new("me@backup", Vec::new()).unwrap().host_alone(), "backup");
    }

    #[test]
    fn ssh_is_told_where_its_options_end() {
        let ssh = Ssh::new("backup", vec!["-p".into(), "2222".into()]).unwrap();
        let command = ssh.command(&["-W", "127.0.0.1:7"]);
        let words: Vec<_> = command.get_args().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(words, ["-T", "-x", "-p", "2222", "-W", "127.0.0.1:7", "--", "backup"]);
    }

    #[test]
    fn a_name_with_a_blank_is_one_word_for_the_shell_there() {
        let wanted = Wanted {
            program: "sudo zferry".to_owned(),
            root: "backup/a b".parse().unwrap(),
            ports: Some((7100, 7199)),
            through_ssh: true,
        };
        let words = "sudo zferry attend --within-host --ports 7100-7199 --root 'backup/a b'";
        assert_eq!(wanted.words(), words);
    }

    #[test]
    fn a_ticket_is_found_behind_what_a_login_says() {
        let secret = JoinSecret::new([7; 16]);
        let ticket = Ticket::new("[::1]:7".parse().unwrap(), Fingerprint::of(b"a key"), secret);
        let said = format!("Welcome!\n{}\n{}more\n", "x".repeat(2000), ticket.encode());
        assert_eq!(read_ticket(&mut said.as_bytes()), Some(ticket.clone()));
        let endless = "no ticket\n".repeat(NOISE_LINES_MAX) + &ticket.encode();
        assert_eq!(read_ticket(&mut endless.as_bytes()), None);
        assert_eq!(read_ticket(&mut b"".as_slice()), None);
    }
}
