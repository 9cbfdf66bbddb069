//! `servers.toml`: which key each server has that this host sends to.
//!
//! What `known_hosts` is to ssh, but for one thing: nothing is ever added to it unasked. A server
//! is known by `HOST:PORT`, as it stands in a URL; what address a name leads to says nothing of
//! who is there.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_spanned::Spanned;

use super::fingerprint::Fingerprint;
use super::list::{self, ListError, Mistake};
use crate::error::{Class, Failure, Side};

/// The keys of all servers that are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Servers {
    pins: BTreeMap<Authority, Fingerprint>,
}

/// `HOST:PORT`; an IPv6 address has brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Authority {
    /// In small letters: names of hosts do not tell them from large ones.
    host: String,
    port: u16,
}

/// Why a text names no server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{}' is no HOST:PORT, as in backup.example:7001 or [fd00::1]:7001, as the URL has it",
    .0.escape_debug()
)]
pub struct BadAuthority(String);

/// What a host's name can be at most.
const HOST_BYTES_MAX: usize = 255;

impl Servers {
    /// What a file says; nothing, where there is none.
    pub fn load(path: &Path) -> Result<Servers, ListError> {
        Servers::parse(&list::read(path)?)
            .map_err(|mistake| ListError::Wrong { path: path.to_owned(), mistake })
    }

    /// What a text says.
    pub fn parse(text: &str) -> Result<Servers, Mistake> {
        let file: FileText = list::decode(text)?;
        let mut servers = Servers::default();
        for ServerText { address, fingerprint } in file.server {
            let authority = address.get_ref().clone();
            if servers.pins.insert(authority, fingerprint).is_some() {
                let what = format!("server {} stands here a second time", address.get_ref());
                return Err(Mistake::at(text, &address.span(), &what));
            }
        }
        Ok(servers)
    }

    /// The key that the server at `HOST:PORT` must have, if that is known.
    pub fn pin(&self, authority: &str) -> Option<Fingerprint> {
        self.pins.get(&authority.parse().ok()?).copied()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Authority, Fingerprint)> {
        self.pins.iter().map(|(authority, pin)| (authority, *pin))
    }
}

/// What to say where nobody has said which key a server has.
pub fn unknown(authority: &str) -> Failure {
    let what = format!("the key of {authority} is not known here, so it could be anybody");
    Failure::new(Side::Source, Class::Refused, what).with_remedy(format!(
        "see its fingerprint there, by `zferry keys show`, and here: zferry keys trust server \
         {authority} FINGERPRINT"
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    server: Vec<ServerText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServerText {
    address: Spanned<Authority>,
    fingerprint: Fingerprint,
}

impl FromStr for Authority {
    type Err = BadAuthority;

    fn from_str(text: &str) -> Result<Authority, BadAuthority> {
        let bad = || BadAuthority(text.chars().take(HOST_BYTES_MAX).collect());
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let is_number = port.bytes().all(|digit| digit.is_ascii_digit());
        let port = port.parse().ok().filter(|&port| is_number && port != 0).ok_or_else(bad)?;
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        // An IPv6 address may have a zone: fe80::1%eth0.
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_host = match address {
            Some(address) => {
                address.contains(':') && address.chars().all(|c| fits(c) || ":%".contains(c))
            }
            None => !host.is_empty() && host.chars().all(fits),
        };
        if !is_host || host.len() > HOST_BYTES_MAX {
            return Err(bad());
        }
        Ok(Authority { host: host.to_ascii_lowercase(), port })
    }
}

impl TryFrom<String> for Authority {
    type Error = BadAuthority;

    fn try_from(text: String) -> Result<Authority, BadAuthority> {
        text.parse()
    }
}

impl From<Authority> for String {
    fn from(authority: Authority) -> String {
        authority.to_string()
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "SHA256:j6Oqsvqpt54KA5jaW1q9B4AUJEKlvoC5pkYI1xjLH80";

    fn server(address: &str) -> String {
        format!("[[server]]\naddress = \"{address}\"\nfingerprint = \"{A}\"\n")
    }

    #[test]
    fn a_server_is_known_by_host_and_port_as_typed() {
        let text = server("Backup.example:7001") + &server("[FD00::1]:7001");
        let servers = Servers::parse(&text).unwrap();
        let pin = A.parse().ok();
        for known in ["backup.example:7001", "BACKUP.example:7001", "[fd00::1]:7001"] {
            assert_eq!(servers.pin(known), pin, "{known}");
        }
        for other in ["backup.example:7002", "backup.example", "fd00::1:7001", "x:7001", ""] {
            assert_eq!(servers.pin(other), None, "{other}");
        }
        let listed: Vec<String> =
            servers.iter().map(|(authority, _)| authority.to_string()).collect();
        assert_eq!(listed, ["[fd00::1]:7001", "backup.example:7001"]);
    }

    #[test]
    fn an_empty_or_missing_file_knows_nobody() {
        assert_eq!(Servers::parse("# nobody\n").unwrap(), Servers::default());
        let folder = tempfile::tempdir().unwrap();
        let servers = Servers::load(&folder.path().join("servers.toml")).unwrap();
        assert_eq!(servers.pin("a:1"), None);
        let failure = unknown("a:1");
        assert!(failure.remedy.unwrap().contains("zferry keys trust server a:1 FINGERPRINT"));
    }

    #[test]
    fn every_mistake_has_its_place_and_says_what_is_right() {
        for (text, place, words) in [
            (server("backup.example"), "2:11", "as in backup.example:7001"),
            (server("a:1") + &server("A:1"), "5:11", "server a:1 stands here a second time"),
            (server("a:1").replace(A, "x"), "3:15", "is no fingerprint"),
            (server("a:1") + "port = 5", "4:1", "unknown field `port`, expected `address`"),
            ("servers = []".to_owned(), "1:1", "unknown field `servers`, expected `server`"),
        ] {
            let mistake = Servers::parse(&text).unwrap_err().to_string();
            assert!(mistake.starts_with(place) && mistake.contains(words), "{mistake}\n{text}");
        }
    }

    #[test]
    fn what_is_no_host_and_port_is_refused() {
        for text in [
            "",
            ":1",
            "a",
            "a:",
            "a:x",
            "a:0",
            "a:65536",
            "a:+1",
            "a b:1",
            "::1:7001",
            "[]:1",
            "[a]:1",
            "u@a:1",
            "a\n:1",
            "zferry://a:1",
        ] {
            assert!(text.parse::<Authority>().is_err(), "{text:?}");
        }
        let long = format!("{}:1", "a".repeat(256));
        assert!(long.parse::<Authority>().is_err());
        assert_eq!("fe80.x:07001".parse::<Authority>().unwrap().to_string(), "fe80.x:7001");
    }
}
