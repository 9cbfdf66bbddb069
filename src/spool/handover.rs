//! What a process that takes a session over has to know of it: a file beside the records.
//!
//! Written before the first byte of a stream that shall outlive its process, and never changed. It
//! holds the secret of the session, so only its owner may read it.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::protocol::message::{Limits, Open};
use crate::protocol::negotiate::Agreed;
use crate::protocol::secret::JoinSecret;
use crate::protocol::version::{Versions, agree};
use crate::small_file::{read_json, write_json};
use crate::trust::Fingerprint;
use crate::units::Sequence;

/// A session, and the transfer that is under way in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// Who is at the other end, for messages to people.
    pub peer: String,
    /// Its key, under TLS.
    #[serde(default)]
    pub key: Option<Fingerprint>,
    /// What those show who belong to the session.
    pub secret: JoinSecret,
    version: u16,
    limits: Limits,
    /// What the client asked for.
    pub open: Open,
    /// The number of the stream's first frame.
    pub first_frame: Sequence,
}

impl Handover {
    /// Of a session in which `open` was asked for, and whose next frame is `first_frame`.
    pub fn new(
        (peer, key): (String, Option<Fingerprint>),
        secret: JoinSecret,
        agreed: &Agreed,
        open: Open,
        first_frame: Sequence,
    ) -> Handover {
        let Agreed { version, limits } = agreed.clone();
        Handover { peer, key, secret, version: version.number(), limits, open, first_frame }
    }

    /// What was agreed. `None`: this process speaks other versions.
    pub fn agreed(&self) -> Option<Agreed> {
        let theirs = Versions { min: self.version, max: self.version };
        let version = agree(Versions::OURS, theirs).ok()?;
        Some(Agreed { version, limits: self.limits.clone() })
    }

    /// Where that of a record file stands.
    pub(super) fn beside(records: &Path) -> PathBuf {
        records.with_extension("session")
    }

    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        write_json(path, self)
    }

    pub(super) fn read(path: &Path) -> io::Result<Handover> {
        read_json(path)
    }
}
