//! What a server receives into: datasets below a root, or the one stream of a pipe.
//!
//! Drives `zfs` by way of `pool`, and so it blocks: sessions call it on other threads. A client
//! names a dataset relative to its root and can name nothing outside of it.

use std::sync::Arc;

use tokio::sync::watch;

use super::beside::Beside;
use super::granted::Granted;
use super::pipe::Pipe;
use super::pool::Pool;
use super::target::Target;
use super::wished::Wished;
use crate::error::{Class, Failure, Side};
use crate::protocol::message::{RelativeName, Stream};
use crate::trust::Fingerprint;
use crate::trust::clients::Clients;
use crate::trust::grants::Wish;
use crate::units::Rate;

/// Where streams go.
#[derive(Clone, Debug)]
pub enum Destination {
    /// Datasets below a root, for everybody who is let in.
    Pool(Pool),
    /// Datasets below what each client is granted.
    Granted(Granted),
    /// A command or our own stdout.
    Pipe(Pipe),
}

impl Destination {
    /// As whoever has shown this key may use it.
    pub(super) fn to(&self, client: Option<Fingerprint>) -> Destination {
        match self {
            Destination::Granted(granted) => Destination::Granted(granted.to(client)),
            Destination::Pool(_) | Destination::Pipe(_) => self.clone(),
        }
    }

    /// A client as people know it, for messages and the log.
    pub(super) fn name_of(&self, address: String) -> String {
        match self.client() {
            Some(name) => format!("{name} ({address})"),
            None => address,
        }
    }

    /// The client's name in the list; `None` where it has none, or has been taken out of it.
    pub(super) fn client(&self) -> Option<String> {
        match self {
            Destination::Granted(granted) => Some(granted.client().ok()?.name().to_string()),
            Destination::Pool(_) | Destination::Pipe(_) => None,
        }
    }

    /// The least that a client may bring in a second, of all that it is granted; `None` for no
    /// limit.
    pub(super) fn slowest(&self) -> Option<Rate> {
        match self {
            Destination::Granted(granted) => {
                let client = granted.client().ok()?;
                client.grants().iter().filter_map(|grant| grant.limits.bandwidth).min()
            }
            Destination::Pool(_) | Destination::Pipe(_) => None,
        }
    }

    /// The list of clients, now and whenever it is read again, where there is one.
    pub(super) fn list(&self) -> Option<watch::Receiver<Arc<Clients>>> {
        match self {
            Destination::Granted(granted) => Some(granted.list()),
            Destination::Pool(_) | Destination::Pipe(_) => None,
        }
    }

    /// Where a stream goes. Refuses what does not belong here, or is not granted.
    pub(super) fn target_of(&self, stream: &Stream) -> Result<Target, Failure> {
        match (self, stream) {
            (Destination::Pool(pool), Stream::Dataset(stream)) => {
                let wished = wished_in(pool, &stream.target)?;
                let beside = Beside::of(stream, |name| pool.dataset(name))?;
                Ok(Target::of(Wished { beside, ..wished }))
            }
            (Destination::Granted(granted), Stream::Dataset(stream)) => {
                granted.wished_by(stream).map(Target::of)
            }
            (Destination::Pipe(pipe), Stream::Pipe) => Ok(Target::Pipe(pipe.clone())),
            (Destination::Pool(_) | Destination::Granted(_), Stream::Pipe) => Err(refused(
                "this is `zferry serve`, which receives datasets; a bare stream was sent",
                "send to a `zferry receive`, or use `zferry replicate`",
            )),
            (Destination::Pipe(_), Stream::Dataset(_)) => Err(refused(
                "this is `zferry receive`, which takes a bare stream; a dataset was sent",
                "replicate to a `zferry serve`, or use `zferry send`",
            )),
        }
    }

    /// A dataset that a client wishes something about.
    pub(super) fn wished(&self, name: &RelativeName, wish: Wish) -> Result<Wished, Failure> {
        match self {
            Destination::Pool(pool) => wished_in(pool, name),
            Destination::Granted(granted) => granted.wished(name, wish),
            Destination::Pipe(_) => Err(refused(
                "this is `zferry receive`, which has no datasets",
                "replicate to a `zferry serve`, or use `zferry send`",
            )),
        }
    }
}

/// For everybody, who may do all below the root.
fn wished_in(pool: &Pool, name: &RelativeName) -> Result<Wished, Failure> {
    let dataset = pool.dataset(name)?;
    let (pool, beside) = (pool.clone(), Beside::default());
    Ok(Wished { pool, dataset, leave: None, beside })
}

fn refused(what: &str, remedy: &str) -> Failure {
    Failure::new(Side::Target, Class::Refused, what).with_remedy(remedy)
}
