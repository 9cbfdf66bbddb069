//! One call of `zfs`: how it is made, and how a short one is run to its end.
//!
//! Below all other files of this module. What must never happen here: an environment variable of
//! ours that reaches `zfs` (`ZFS_SET_PIPE_MAX` would resize our pipes, a locale would translate
//! its words), or an answer that eats the memory.

use std::fs::File;
use std::io::Read;
use std::process::Command;
use std::string::FromUtf8Error;

use super::{Zfs, ZfsError};
use crate::dataset::typed;
use crate::process::{Ended, Process, Stderr};

/// The longest answer that is read: a line for each of two million snapshots.
const OUTPUT_BYTES_MAX: usize = 256 << 20;

/// What a call printed and how it ended, well or not.
#[derive(Debug)]
pub(super) struct Output {
    pub call: String,
    pub text: String,
    pub ended: Ended,
}

impl Zfs {
    /// `zfs` with `arguments`, ready to be spawned.
    pub(super) fn command<S: AsRef<str>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments.iter().map(AsRef::as_ref));
        command.env_clear().env("PATH", &self.path).env("LC_ALL", "C");
        command
    }

    /// Runs `zfs` with `arguments` to its end, which may be a failure.
    pub(super) fn run<S: AsRef<str>>(&self, arguments: &[S]) -> Result<Output, ZfsError> {
        let call = call(arguments);
        let run = |source| ZfsError::Run { call: call.clone(), source };
        let (process, output) =
            Process::writing(self.command(arguments), Stderr::Kept).map_err(run)?;
        let mut text = Vec::new();
        let limit = OUTPUT_BYTES_MAX as u64 + 1;
        File::from(output).take(limit).read_to_end(&mut text).map_err(run)?;
        if text.len() > OUTPUT_BYTES_MAX {
            return Err(ZfsError::TooLong { call, bytes_max: OUTPUT_BYTES_MAX });
        }
        let ended = process.wait().map_err(run)?;
        // Nearly always it is text, and need not be there twice: it may be long.
        let lossy = |error: FromUtf8Error| String::from_utf8_lossy(error.as_bytes()).into_owned();
        let text = String::from_utf8(text).unwrap_or_else(lossy);
        Ok(Output { call, text, ended })
    }

    /// Runs `zfs` with `arguments`; what it printed counts only if it succeeded.
    pub(super) fn ask<S: AsRef<str>>(&self, arguments: &[S]) -> Result<Output, ZfsError> {
        let output = self.run(arguments)?;
        if output.ended.success() { Ok(output) } else { Err(output.failed()) }
    }
}

impl Output {
    /// The error that a bad end is.
    pub(super) fn failed(self) -> ZfsError {
        ZfsError::Failed { call: self.call, ended: self.ended }
    }

    /// The error that an answer is whose `line` means nothing to us.
    pub(super) fn unreadable(&self, line: &str) -> ZfsError {
        ZfsError::Unreadable { call: self.call.clone(), line: line.to_owned() }
    }

    /// Whether it failed with these words.
    pub(super) fn failed_with(&self, words: &str) -> bool {
        !self.ended.success() && self.ended.stderr.contains(words)
    }
}

/// A call as one would type it.
pub fn call<S: AsRef<str>>(arguments: &[S]) -> String {
    let words = arguments.iter().map(|argument| typed(argument.as_ref()));
    std::iter::once("zfs".into()).chain(words).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_shown_as_one_would_type_it() {
        assert_eq!(call(&["hold", "--", "a:b", "tank/x y@z"]), "zfs hold -- a:b 'tank/x y@z'");
    }

    #[test]
    fn endless_output_is_cut_off() {
        // `yes` prints its arguments for ever, whatever they are.
        let yes = Zfs::at("/usr/bin/yes");
        let error = yes.ask(&["x".repeat(4000).as_str()]).unwrap_err();
        assert!(matches!(error, ZfsError::TooLong { .. }), "{error}");
    }
}
