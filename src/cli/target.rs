//! Where a copy goes, as it is typed: `zferry://HOST:PORT/DATASET` or a dataset of this host.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use clap::Args;

use super::{duration, usage};
use crate::dataset::DatasetName;
use crate::error::{Class, Failure, Side};
use crate::protocol::message::RelativeName;

/// A place that a dataset can be replicated to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Below the root of a resident server.
    Server {
        /// `HOST:PORT`.
        authority: String,
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
}

const SCHEME: &str = "zferry://";

impl Target {
    /// Understands what was typed; says what would be right where it cannot.
    pub fn parse(text: &str) -> Result<Target, Failure> {
        if let Some(rest) = text.strip_prefix(SCHEME) {
            return server(rest);
        }
        // A dataset may have a colon, but not before its first slash: that would be a host.
        let head = text.split('/').next().unwrap_or(text);
        let wrong = |error| usage(Side::Source, format!("target {error}"));
        let Some((host, _pool)) = head.rsplit_once(':') else {
            return text.parse().map(Target::Local).map_err(wrong);
        };
        let dataset = text[host.len() + 1..].parse().map_err(wrong)?;
        let bare = host.replace(['[', ']'], "");
        Ok(Target::Ssh { host: bare, dataset })
    }
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
    let form = "the target's form is zferry://HOST:PORT/DATASET, DATASET below the server's root";
    let (authority, dataset) = rest.split_once('/').ok_or_else(|| usage(Side::Source, form))?;
    if authority
        .rsplit_once(':')
        .is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
    {
        return Err(usage(Side::Source, format!("'{authority}' is no HOST:PORT; {form}")));
    }
    let dataset =
        dataset.parse().map_err(|error| usage(Side::Source, format!("target {error}")))?;
    Ok(Target::Server { authority: authority.to_owned(), dataset })
}

/// The addresses of `HOST:PORT`, in the order to try.
pub(super) fn resolve(authority: &str) -> Result<Vec<SocketAddr>, Failure> {
    match authority.to_socket_addrs() {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
            Err(usage(Side::Source, format!("'{authority}' is no HOST:PORT")))
        }
        Err(error) => {
            let what = format!("no address for {authority}: {error}");
            Err(Failure::new(Side::Network, Class::Interrupted, what)
                .with_remedy("check the name, or use an address"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_server_and_a_bare_name_this_host() {
        let Target::Server { authority, dataset } =
            Target::parse("zferry://[::1]:7001/hosts/a b:c").unwrap()
        else {
            panic!("no server")
        };
        assert_eq!((authority.as_str(), dataset.as_str()), ("[::1]:7001", "hosts/a b:c"));
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
    fn what_cannot_be_understood_is_a_usage_error() {
        for text in [
            "zferry://host:1",
            "zferry://host/ds",
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
