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

    /// The exit code that tells a script what a person reads: 2 failed, 3 usage, 4 running already.
    pub fn exit_code(&self) -> u8 {
        match self.class {
            Class::Usage => 3,
            Class::Busy => 4,
            _ => 2,
        }
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
    fn only_usage_and_busy_have_exit_codes_of_their_own() {
        let code = |class| Failure::new(Side::Source, class, "").exit_code();
        assert_eq!((code(Class::Usage), code(Class::Busy), code(Class::Zfs)), (3, 4, 2));
    }
}
