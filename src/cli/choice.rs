//! Which snapshots a copy takes along: the same flags for a copy that this host sends and for one
//! that ssh has another host send.

use clap::{Args, ValueEnum};

use super::typed::typed;
use crate::client::job::{OnDeadToken, Wanted};
use crate::dataset::SnapName;
use crate::dataset::property::PropertyName;
use crate::error::Failure;
use crate::pattern::{Chosen, Pattern};

/// Up to which snapshot, and by way of which.
#[derive(Args, Debug)]
pub(super) struct Choice {
    /// Tell each `zfs` command that would be run on either side, and how much would be sent, and
    /// change nothing. The other side is asked what it holds
    #[arg(short = 'n', long, visible_alias = "dryrun")]
    dry_run: bool,
    /// Copy up to this snapshot, which exists [default: take one, @zferry_<UTC time>]
    #[arg(long, value_name = "NAME", conflicts_with = "no_snapshot")]
    snapshot: Option<SnapName>,
    /// Copy up to the newest snapshot that exists, and take none
    #[arg(long)]
    no_snapshot: bool,
    /// Leave out the snapshots between the last common one and the one to copy
    #[arg(long, visible_alias = "no-stream")]
    newest_only: bool,
    /// Copy only snapshots whose names this pattern fits, such as 'daily_*'; may be given again.
    /// One that is taken now, or named by --snapshot, is copied in any case
    #[arg(long, value_name = "PATTERN")]
    include_snapshot: Vec<Pattern>,
    /// Leave out snapshots whose names this pattern fits; may be given again
    #[arg(long, value_name = "PATTERN")]
    exclude_snapshot: Vec<Pattern>,
    /// What to do with the part of a snapshot that the target has, if the snapshot or its base was
    /// destroyed on the source since, so that it can never be finished. 'ask' stops and shows the
    /// commands. 'abort-and-restart' has the target give that part up (zfs receive -A) and copies
    /// anew from the newest snapshot that both have: what had been sent of it is lost, and after an
    /// interrupted first copy the copy begins at nothing. No snapshot is ever destroyed by it
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = DeadToken::Ask)]
    on_dead_token: DeadToken,
    /// Take these properties along, separated by commas, where they are set on the source itself:
    /// compression,recordsize,com.example:owner. They are set on the target with the first stream
    /// of each run, so a change arrives with the next snapshot; none is ever unset there. What
    /// mounts, shares, runs or decrypts anything cannot be taken along; and a server with keys
    /// takes what `properties` of its grant names, and refuses the copy otherwise
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    properties: Vec<PropertyName>,
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
    /// Whether a snapshot is taken.
    pub fn takes_one(&self) -> bool {
        self.snapshot.is_none() && !self.no_snapshot
    }

    /// Which snapshot the target shall hold in the end; `taken` names one that is to be taken.
    pub fn wanted(
        &self,
        taken: impl FnOnce() -> Result<SnapName, Failure>,
    ) -> Result<Wanted, Failure> {
        Ok(match (&self.snapshot, self.no_snapshot) {
            (Some(name), _) => Wanted::Named(name.clone()),
            (None, true) => Wanted::Newest,
            (None, false) => Wanted::Taken(taken()?),
        })
    }

    /// Whether nothing is to be changed.
    pub fn is_rehearsal(&self) -> bool {
        self.dry_run
    }

    /// Whether those in between are copied too.
    pub fn intermediates(&self) -> bool {
        !self.newest_only
    }

    /// Which snapshots are copied, by their names.
    pub fn chosen(&self) -> Chosen {
        let Choice { include_snapshot, exclude_snapshot, .. } = self;
        Chosen { include: include_snapshot.clone(), exclude: exclude_snapshot.clone() }
    }

    /// What becomes of a part that can never be finished.
    pub fn on_dead_token(&self) -> OnDeadToken {
        self.on_dead_token.into()
    }

    /// Which properties are taken along.
    pub fn properties(&self) -> Vec<PropertyName> {
        self.properties.clone()
    }

    /// The same flags as words, for another host.
    pub fn for_far(&self) -> Vec<String> {
        let Choice { snapshot, no_snapshot, newest_only, on_dead_token, properties, .. } = self;
        let mut words = vec![format!("--on-dead-token={}", typed(on_dead_token))];
        words.extend(snapshot.as_ref().map(|name| format!("--snapshot={name}")));
        words.extend(no_snapshot.then(|| "--no-snapshot".to_owned()));
        words.extend(newest_only.then(|| "--newest-only".to_owned()));
        words.extend(self.dry_run.then(|| "--dry-run".to_owned()));
        let Choice { include_snapshot, exclude_snapshot, .. } = self;
        words.extend(include_snapshot.iter().map(|it| format!("--include-snapshot={it}")));
        words.extend(exclude_snapshot.iter().map(|it| format!("--exclude-snapshot={it}")));
        words.extend(properties.iter().map(|name| format!("--properties={name}")));
        words
    }
}
