//! Where a copy goes, as it is typed: `zferry://HOST[:PORT]/DATASET`, a dataset of a host that ssh
//! reaches, or one of this host.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use clap::Args;

use super::{duration, usage};
use crate::dataset::DatasetName;
use crate::error::{Class, Failure, Side};
use crate::protocol::message::RelativeName;
use crate::trust::servers::Authority;

/// Where servers listen and clients look for them, unless they are told otherwise.
pub(super) const PORT: u16 = 7001;

/// A place that a dataset can be replicated to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Below the root of a resident server.
    Server {
        /// Where it listens.
        authority: Authority,
        /// Below the server's root.
        dataset: RelativeName,
    },
    /// On a host that is reached by ssh.
    Ssh {
        /// `[USER@]HOST`.
        host: String,
        /// There.
        dataset: DatasetName,
    },
    /// On this host.
    Local(DatasetName),
}

/// How a server is reached.
#[derive(Args, Debug)]
pub(super) struct Reach {
    /// Give up a server that does not answer within this many seconds. Once it has answered, it
    /// may take as long as it needs
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    connect_timeout: u64,
    /// When a connection is lost, try to get it back for this long without progress: the stream
    /// goes on from where it was, and where a side was started anew, from what the target has. 0
    /// gives up at once
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration::parse)]
    retry_for: Duration,
    /// Say which part stands still (source read, wire, receive) when nothing has reached the far
    /// end for this long. A wire that stands still is connected anew; nothing else is touched
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    stall_timeout: Duration,
}

impl Reach {
    /// How long it may take to answer.
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.connect_timeout)
    }

    /// How long a lost connection is tried again.
    pub fn retry_for(&self) -> Duration {
        self.retry_for
    }

    /// How long a stream may stand still before it says why.
    pub fn stall_timeout(&self) -> Duration {
        self.stall_timeout
    }

    /// The same flags as words, for another host.
    pub fn for_far(&self) -> Vec<String> {
        let Reach { connect_timeout, retry_for, stall_timeout } = self;
        vec![
            format!("--connect-timeout={connect_timeout}"),
            format!("--retry-for={}", duration::typed(*retry_for)),
            format!("--stall-timeout={}", duration::typed(*stall_timeout)),
        ]
    }
}

/// A dataset that can be replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// On a host that is reached by ssh.
    Ssh {
        /// `[USER@]HOST`.
        host: String,
        /// There.
        dataset: DatasetName,
    },
    /// On this host.
    Local(DatasetName),
}

const SCHEME: &str = "zferry://";

impl Target {
    /// Understands what was typed; says what would be right where it cannot.
    pub fn parse(text: &str) -> Result<Target, Failure> {
        if let Some(rest) = text.strip_prefix(SCHEME) {
            return server(rest);
        }
        match by_ssh(text, "target")? {
            Some((host, dataset)) => Ok(Target::Ssh { host, dataset }),
            None => dataset(text, "target").map(Target::Local),
        }
    }
}

impl Source {
    /// Understands what was typed; says what would be right where it cannot.
    pub fn parse(text: &str) -> Result<Source, Failure> {
        if text.starts_with(SCHEME) {
            return Err(usage(Side::Source, "a server takes datasets, and gives none away")
                .with_remedy(
                    "name the source [USER@]HOST:POOL/DATASET, which goes by ssh, or run \
                     `zferry replicate` there",
                ));
        }
        match by_ssh(text, "source")? {
            Some((host, dataset)) => Ok(Source::Ssh { host, dataset }),
            None => dataset(text, "source").map(Source::Local),
        }
    }
}

/// A host and a dataset there, where a text names both. A dataset may have a colon, but not before
/// its first slash: that would be a host.
fn by_ssh(text: &str, role: &str) -> Result<Option<(String, DatasetName)>, Failure> {
    let head = text.split('/').next().unwrap_or(text);
    let Some((host, _pool)) = head.rsplit_once(':') else { return Ok(None) };
    let there = dataset(&text[host.len() + 1..], role)?;
    Ok(Some((host.replace(['[', ']'], ""), there)))
}

fn dataset(text: &str, role: &str) -> Result<DatasetName, Failure> {
    text.parse().map_err(|error| usage(Side::Source, format!("{role} {error}")))
}

/// A dataset as a place below its pool, which is there already.
pub(super) fn below_pool(name: &DatasetName) -> Result<(DatasetName, RelativeName), Failure> {
    let (pool, below) = name.as_str().split_once('/').ok_or_else(|| {
        usage(Side::Source, format!("the target {name} is a whole pool"))
            .with_remedy(format!("name a dataset in it: {name}/NAME"))
    })?;
    let pool = pool.parse().map_err(|error| usage(Side::Source, format!("target {error}")))?;
    let below = below.parse().map_err(|error| usage(Side::Source, format!("target {error}")))?;
    Ok((pool, below))
}

fn server(rest: &str) -> Result<Target, Failure> {
    let form = "the target's form is zferry://HOST[:PORT]/DATASET, DATASET below the server's root";
    let (authority, dataset) = rest.split_once('/').ok_or_else(|| usage(Side::Source, form))?;
    let has_port = authority.contains(':') && !authority.ends_with(']');
    let authority =
        if has_port { authority.parse() } else { format!("{authority}:{PORT}").parse() };
    let authority = authority.map_err(|error| usage(Side::Source, format!("{error}; {form}")))?;
    let dataset =
        dataset.parse().map_err(|error| usage(Side::Source, format!("target {error}")))?;
    Ok(Target::Server { authority, dataset })
}

/// What a place that is typed as `HOST:PORT` stands for.
pub(super) fn authority(text: &str) -> Result<Authority, String> {
    text.parse::<Authority>().map_err(|error| error.to_string())
}

/// The addresses of a server, in the order to try.
pub(super) fn resolve(authority: &Authority) -> Result<Vec<SocketAddr>, Failure> {
    let addresses = authority.to_string().to_socket_addrs().map_err(|error| {
        let what = format!("no address for {authority}: {error}");
        Failure::new(Side::Network, Class::Interrupted, what)
            .with_remedy("check the name, or use an address")
    })?;
    Ok(addresses.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_server_and_a_bare_name_this_host() {
        for (typed, known_as) in [
            ("[::1]:7002", "[::1]:7002"),
            ("[::1]", "[::1]:7001"),
            ("backup.example:7002", "backup.example:7002"),
            ("Backup.example", "backup.example:7001"),
        ] {
            let url = format!("zferry://{typed}/hosts/a b:c");
            let Target::Server { authority, dataset } = Target::parse(&url).unwrap() else {
                panic!("no server: {url}")
            };
            assert_eq!(
                (authority.to_string().as_str(), dataset.as_str()),
                (known_as, "hosts/a b:c")
            );
        }
        assert_eq!(
            Target::parse("backup/a:b").unwrap(),
            Target::Local("backup/a:b".parse().unwrap())
        );
    }

    #[test]
    fn a_host_before_a_colon_is_reached_by_ssh() {
        for (text, name) in [
            ("backup:pool/a:b", "backup"),
            ("me@backup.example:pool/a:b", "me@backup.example"),
            ("[::1]:pool/a:b", "::1"),
            ("me@[fe80::1]:pool/a:b", "me@fe80::1"),
        ] {
            let Target::Ssh { host, dataset } = Target::parse(text).unwrap() else { panic!() };
            assert_eq!((host.as_str(), dataset.as_str()), (name, "pool/a:b"));
        }
    }

    #[test]
    fn a_source_is_a_dataset_here_or_on_a_host_that_ssh_reaches() {
        let Source::Ssh { host, dataset } = Source::parse("me@[::1]:tank").unwrap() else {
            panic!()
        };
        assert_eq!((host.as_str(), dataset.as_str()), ("me@::1", "tank"));
        assert_eq!(Source::parse("tank/a:b").unwrap(), Source::Local("tank/a:b".parse().unwrap()));
        for text in ["zferry://host/a", "host:", "host:/a", "", "/a", "h:a@b"] {
            assert_eq!(Source::parse(text).unwrap_err().exit_code(), 3, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_a_usage_error() {
        for text in [
            "zferry://host:1",
            "zferry:///ds",
            "zferry://host:/ds",
            "zferry://host:0/ds",
            "zferry://::1/ds",
            "zferry://a b/ds",
            "zferry://:1/ds",
            "zferry://host:99999/ds",
            "zferry://host:1/",
            "zferry://host:1//ds",
            "zferry://host:1/../ds",
            "zferry://host:1/a;b",
            "host:",
            "host:/pool",
            "",
            "/pool",
        ] {
            let failure = Target::parse(text).unwrap_err();
            assert_eq!(failure.exit_code(), 3, "{text}");
        }
    }
}
