//! A fact about this machine, and what it means for transfers.

use std::io;

use serde::Serialize;

/// How good a fact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// As it should be.
    Ok,
    /// Transfers work, but slower or with less certainty than this machine could give.
    Warn,
    /// zferry cannot replicate here.
    Fail,
}

/// One fact, judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How good it is.
    pub mark: Mark,
    /// What was looked at.
    pub topic: &'static str,
    /// What was found.
    pub fact: String,
    /// What that means for a transfer.
    pub meaning: String,
    /// The command or setting that mends it, where there is something to mend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(
        topic: &'static str,
        fact: impl Into<String>,
        meaning: impl Into<String>,
    ) -> Finding {
        Finding::new(Mark::Ok, topic, fact, meaning, None)
    }

    pub(super) fn warn(
        topic: &'static str,
        fact: impl Into<String>,
        meaning: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding::new(Mark::Warn, topic, fact, meaning, Some(remedy.into()))
    }

    pub(super) fn fail(
        topic: &'static str,
        fact: impl Into<String>,
        meaning: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding::new(Mark::Fail, topic, fact, meaning, Some(remedy.into()))
    }

    pub(super) fn new(
        mark: Mark,
        topic: &'static str,
        fact: impl Into<String>,
        meaning: impl Into<String>,
        remedy: Option<String>,
    ) -> Finding {
        Finding { mark, topic, fact: fact.into(), meaning: meaning.into(), remedy }
    }

    /// A fact that could not be read; `consequence` is what we do not know.
    pub(super) fn unread(topic: &'static str, error: &io::Error, consequence: &str) -> Finding {
        Finding::warn(topic, error.to_string(), consequence, "mount /proc and /sys for zferry")
    }
}
