//! What went wrong, told so that the right one acts.
//!
//! Modules have error types of their own with the evidence inside; where an error leaves a module
//! for the wire, the log or a person it becomes a [`Failure`]. A failure without a side or without
//! a class must not exist: the reader would not know where to look or whether to try again.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a failure happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The host that holds the snapshot: its `zfs send`, its client.
    Source,
    /// Between the two hosts.
    Network,
    /// The host that wants the snapshot: its `zfs receive`, its server.
    Target,
}

/// Who must act, and whether the same command may simply be run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The caller: the command line or configuration cannot mean what it says.
    Usage,
    /// The operator: going on would need a decision that zferry never takes by itself.
    Refused,
    /// The operator: what was asked for is so in part: some datasets of a tree were not copied, or
    /// what was copied was not pruned.
    Partly,
    /// Nobody: the same job is running already.
    Busy,
    /// Nobody: cut short from outside; the same command may be run again.
    Interrupted,
    /// The operator, in time: space, quota or a busy dataset; the same command works later.
    Wait,
    /// The peer: it broke the protocol, or it is no zferry.
    Peer,
    /// The machine: a program, permission, port or kernel feature is missing.
    Machine,
    /// `zfs` itself failed in a way that running again does not mend.
    Zfs,
    /// Us: a mistake in zferry.
    #[serde(other)]
    Internal,
}

/// One failure: what happened, to what, on which side, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Failure {
    /// Where it happened.
    pub side: Side,
    /// Who must act.
    pub class: Class,
    /// What happened and to which dataset or address, with the words of `zfs` or the kernel.
    pub what: String,
    /// What to do, as an order or a command to type; `None` where running again is all there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What a command ends with: for a script, what a person reads. Commands that judge something
/// (`zferry inspect`) have codes of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All that was asked for is so.
    Done = 0,
    /// Some of it is, and some is not.
    Partly = 1,
    /// It is not.
    Failed = 2,
    /// It was not even tried.
    Usage = 3,
    /// Somebody else is at it.
    Busy = 4,
}

impl Exit {
    /// All of them, by number.
    pub const ALL: [Exit; 5] = [Exit::Done, Exit::Partly, Exit::Failed, Exit::Usage, Exit::Busy];

    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::Partly => "partly",
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::Busy => "already running",
        }
    }

    /// What it means, for the page about it.
    pub fn meaning(self) -> &'static str {
        match self {
            Exit::Done => "all that was asked for is so, also where there was nothing to do",
            Exit::Partly => "some of it is so, and what is not is named",
            Exit::Failed => "it is not so; the message says why, on which side, and what to do",
            Exit::Usage => {
                "the command line or the configuration cannot mean what it says; nothing was tried"
            }
            Exit::Busy => "somebody else is at the same job; nothing was done or is wrong",
        }
    }
}

impl Class {
    /// All of them, in the order in which they are documented.
    pub const ALL: [Class; 10] = [
        Class::Usage,
        Class::Partly,
        Class::Refused,
        Class::Busy,
        Class::Interrupted,
        Class::Wait,
        Class::Peer,
        Class::Machine,
        Class::Zfs,
        Class::Internal,
    ];

    /// Who must act, for the page about it.
    pub fn who(self) -> &'static str {
        match self {
            Class::Usage => "whoever typed it",
            Class::Refused | Class::Partly | Class::Machine | Class::Zfs => "whoever runs the host",
            Class::Wait => "whoever runs the host, in time",
            Class::Busy | Class::Interrupted => "nobody",
            Class::Peer => "whoever runs the other end",
            Class::Internal => "us: please report it",
        }
    }

    /// What has happened, for the page about it.
    pub fn meaning(self) -> &'static str {
        match self {
            Class::Usage => "the command line or a configuration cannot mean what it says",
            Class::Refused => "going on would need a decision that zferry never takes by itself",
            Class::Partly => {
                "some datasets of a tree were copied, and others not, each for its own reason; or \
                 all was copied, and what need not be kept could not be pruned"
            }
            Class::Busy => "the same job is running already",
            Class::Interrupted => "cut short from outside; the same command may be run again",
            Class::Wait => "no space, a quota, a busy dataset; the same command works later",
            Class::Peer => "the other end broke the protocol, or is no zferry",
            Class::Machine => "a program, a permission, a port or a kernel feature is missing",
            Class::Zfs => "`zfs` failed in a way that running it again does not mend",
            Class::Internal => "a mistake in zferry, or a class that a newer one knows",
        }
    }

    /// What a command ends with after a failure of this class.
    pub fn exit(self) -> Exit {
        match self {
            Class::Usage => Exit::Usage,
            Class::Partly => Exit::Partly,
            Class::Busy => Exit::Busy,
            _ => Exit::Failed,
        }
    }
}

impl Failure {
    /// A failure with no remedy to offer yet.
    pub fn new(side: Side, class: Class, what: impl Into<String>) -> Failure {
        Failure { side, class, what: what.into(), remedy: None }
    }

    /// The same failure with a remedy: an order or a command to type.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Failure {
        self.remedy = Some(remedy.into());
        self
    }

    /// The exit code that tells a script what a person reads.
    pub fn exit_code(&self) -> u8 {
        self.class.exit().code()
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Source => "source",
            Side::Network => "network",
            Side::Target => "target",
        })
    }
}

impl fmt::Display for Failure {
    /// `target: WHAT; to mend it: REMEDY`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.side, self.what)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n  to mend it: {remedy}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_side_event_and_remedy() {
        let failure = Failure::new(Side::Target, Class::Refused, "tank/a exists")
            .with_remedy("choose another target");
        assert_eq!(
            failure.to_string(),
            "target: tank/a exists\n  to mend it: choose another target"
        );
    }

    #[test]
    fn a_class_from_a_newer_peer_is_still_a_failure() {
        let text = r#"{"side":"target","class":"from-the-future","what":"x"}"#;
        let failure: Failure = serde_json::from_str(text).unwrap();
        assert_eq!(failure.class, Class::Internal);
    }

    #[test]
    fn what_a_script_may_do_by_itself_has_exit_codes_of_its_own() {
        let code = |class| Failure::new(Side::Source, class, "").exit_code();
        assert_eq!((code(Class::Usage), code(Class::Busy), code(Class::Zfs)), (3, 4, 2));
        assert_eq!(code(Class::Partly), 1);
    }
}
