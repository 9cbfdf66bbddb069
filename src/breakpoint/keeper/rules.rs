//! The rules of a keeper by name, so that a simulator can break one and see whether it notices.
//!
//! A build without the feature `simulate` has no way to make anything but [`Rules::KEPT`].

/// A rule that a keeper can be made to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A record claims only what is durable in breakpoint files.
    DataBeforeRecord,
    /// Only what a durable record claims is acknowledged.
    RecordBeforeAcknowledgement,
    /// Only what two durable records do not claim is deleted.
    RecordTwiceBeforeTrim,
}

/// The rules that a keeper keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    broken: Option<Rule>,
}

impl Rules {
    /// All of them.
    pub const KEPT: Rules = Rules { broken: None };

    /// All but one: a wrong keeper, to see that tests notice.
    #[cfg(any(test, feature = "simulate"))]
    pub const fn broken(rule: Rule) -> Rules {
        Rules { broken: Some(rule) }
    }

    pub(super) fn keeps(self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }
}
