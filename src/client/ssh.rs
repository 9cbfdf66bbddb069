//! The other host by way of ssh: what is started there, and connections that go through it.
//!
//! ssh says who we are to that host, and what the host is to us; a ticket carries both over to TLS,
//! and the data go past ssh, or, where no port is open, through it. What must never happen: that a
//! name is taken for an option, or for words of a shell.

mod far_side;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;

pub use self::far_side::{END_LIMIT, FarSide, Wanted};

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

    /// A connection through ssh to an address as the other host sees it. `kept` is dropped when its
    /// ssh has ended.
    pub fn connect(
        &self,
        address: SocketAddr,
        kept: impl Send + 'static,
    ) -> std::io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let (input, output): (OwnedFd, OwnedFd) = (theirs.try_clone()?.into(), theirs.into());
        let mut command = self.command(&["-W", &address.to_string()]);
        let mut child = command.stdin(input).stdout(output).spawn()?;
        // Ours of its ends must not stay open, or nobody sees its end.
        drop(command);
        thread::Builder::new().name("zferry-ssh".to_owned()).spawn(move || {
            let _ended_either_way = child.wait();
            drop(kept);
        })?;
        Ok(ours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
