//! Which snapshots a copy takes along: the same flags for a copy that this host sends and for one
//! that ssh has another host send.

use clap::{Args, ValueEnum};

use super::typed::typed;
use crate::client::job::{OnDeadToken, Wanted};
use crate::dataset::SnapName;
use crate::zfs::snapshot;

/// Up to which snapshot, and by way of which.
#[derive(Args, Debug)]
pub(super) struct Choice {
    /// Copy up to this snapshot, which exists [default: take one, @zferry_<UTC time>]
    #[arg(long, value_name = "NAME", conflicts_with = "no_snapshot")]
    snapshot: Option<SnapName>,
    /// Copy up to the newest snapshot that exists, and take none
    #[arg(long)]
    no_snapshot: bool,
    /// Leave out the snapshots between the last common one and the one to copy
    #[arg(long)]
    newest_only: bool,
    /// What to do with the part of a snapshot that the target has, if the snapshot or its base was
    /// destroyed on the source since, so that it can never be finished. 'ask' stops and shows the
    /// commands. 'abort-and-restart' has the target give that part up (zfs receive -A) and copies
    /// anew from the newest snapshot that both have: what had been sent of it is lost, and after an
    /// interrupted first copy the copy begins at nothing. No snapshot is ever destroyed by it
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = DeadToken::Ask)]
    on_dead_token: DeadToken,
}

/// How [`OnDeadToken`] is typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum DeadToken {
    Ask,
    AbortAndRestart,
}

impl From<DeadToken> for OnDeadToken {
    fn from(typed: DeadToken) -> OnDeadToken {
        match typed {
            DeadToken::Ask => OnDeadToken::Ask,
            DeadToken::AbortAndRestart => OnDeadToken::AbortAndRestart,
        }
    }
}

impl Choice {
    /// Which snapshot the target shall hold in the end; one to be taken is named after now.
    pub fn wanted(&self) -> Wanted {
        match (&self.snapshot, self.no_snapshot) {
            (Some(name), _) => Wanted::Named(name.clone()),
            (None, true) => Wanted::Newest,
            (None, false) => Wanted::Taken(snapshot::name_at(jiff::Timestamp::now())),
        }
    }

    /// Whether those in between are copied too.
    pub fn intermediates(&self) -> bool {
        !self.newest_only
    }

    /// What becomes of a part that can never be finished.
    pub fn on_dead_token(&self) -> OnDeadToken {
        self.on_dead_token.into()
    }

    /// The same flags as words, for another host.
    pub fn for_far(&self) -> Vec<String> {
        let Choice { snapshot, no_snapshot, newest_only, on_dead_token } = self;
        let mut words = vec![format!("--on-dead-token={}", typed(on_dead_token))];
        words.extend(snapshot.as_ref().map(|name| format!("--snapshot={name}")));
        words.extend(no_snapshot.then(|| "--no-snapshot".to_owned()));
        words.extend(newest_only.then(|| "--newest-only".to_owned()));
        words
    }
}
