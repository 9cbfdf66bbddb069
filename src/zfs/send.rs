//! Starts `zfs send` for one step of a plan.
//!
//! Where the data's way begins. What must never happen here: `-e`, `-p` or `-R` (a stream with
//! them is refused or obeyed by the target in ways that nobody asked for), and a stream without
//! `-L`: once large blocks were sent to a target, it refuses streams without them.

use std::os::fd::OwnedFd;

use super::command::call;
use super::{Zfs, ZfsError};
use crate::dataset::DatasetName;
use crate::plan::{Base, Step};
use crate::process::{Process, Stderr};
use crate::token::Token;

impl Zfs {
    /// Starts to send `step` of `dataset`; the descriptor is where its stream comes from.
    pub fn send(&self, dataset: &DatasetName, step: &Step) -> Result<(Process, OwnedFd), ZfsError> {
        let arguments = arguments(dataset, step);
        Process::writing(self.command(&arguments), Stderr::Kept)
            .map_err(|source| ZfsError::Run { call: call(&arguments), source })
    }
}

impl Zfs {
    /// Starts to send the rest of the stream that `token` belongs to. Whether it may be sent is
    /// for `plan` to say, before.
    pub fn send_rest(&self, token: &Token) -> Result<(Process, OwnedFd), ZfsError> {
        let arguments = rest_arguments(&[], token);
        Process::writing(self.command(&arguments), Stderr::Kept)
            .map_err(|source| ZfsError::Run { call: call(&arguments), source })
    }
}

/// What `zfs` is called with to send the rest of a stream. All options of the stream are in the
/// token; `zfs` refuses some beside it and adds others to it, so there are none.
pub fn rest_arguments(options: &[&str], token: &Token) -> Vec<String> {
    let words = ["send"].iter().chain(options).map(|&word| word.to_owned());
    words.chain(["-t".to_owned(), token.to_string()]).collect()
}

/// What `zfs` is called with to send `step` of `dataset`.
pub fn arguments(dataset: &DatasetName, step: &Step) -> Vec<String> {
    arguments_with(&[], dataset, step)
}

/// The same with `options` more. The stream's own options stay, for the size of a stream that is
/// only estimated depends on them too.
pub(super) fn arguments_with(options: &[&str], dataset: &DatasetName, step: &Step) -> Vec<String> {
    let mut arguments = vec!["send"];
    arguments.extend(options);
    arguments.extend(["-L", "-c"]);
    if step.raw {
        arguments.push("-w");
    }
    // In full, for `zfs` warns at bare names.
    let base = step.from.as_ref().map(|base| base_name(dataset, base));
    if let Some(base) = &base {
        arguments.extend(["-i", base]);
    }
    let snapshot = dataset.at(&step.to.name);
    arguments.extend(["--", &snapshot]);
    arguments.into_iter().map(str::to_owned).collect()
}

fn base_name(dataset: &DatasetName, base: &Base) -> String {
    match base {
        Base::Snapshot(snapshot) => dataset.at(&snapshot.name),
        Base::Bookmark(bookmark) => format!("{dataset}#{}", bookmark.name),
        Base::Origin { dataset, snapshot } => dataset.at(&snapshot.name),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::dataset::Guid;
    use crate::listing::{Bookmark, Snapshot};

    pub(in crate::zfs) fn snapshot(name: &str) -> Snapshot {
        Snapshot { name: name.parse().unwrap(), guid: Guid(1), createtxg: 1 }
    }

    #[test]
    fn the_rest_of_a_stream_has_no_options_but_its_token() {
        let text = crate::token::example::Example::of(Some(1), 2, "tank/a@s").token();
        let token: Token = text.parse().unwrap();
        assert_eq!(rest_arguments(&[], &token), ["send", "-t", &text]);
        let dry = ["send", "-n", "-v", "-P", "-t", &text];
        assert_eq!(rest_arguments(&["-n", "-v", "-P"], &token), dry);
    }

    #[test]
    fn a_step_is_one_stream_of_one_snapshot() {
        let bookmark = Bookmark { name: "m".parse().unwrap(), guid: Guid(1), createtxg: 1 };
        for (from, raw, expected) in [
            (None, false, "send -L -c -- tank/a@s"),
            (None, true, "send -L -c -w -- tank/a@s"),
            (Some(Base::Snapshot(snapshot("r"))), false, "send -L -c -i tank/a@r -- tank/a@s"),
            (Some(Base::Snapshot(snapshot("r"))), true, "send -L -c -w -i tank/a@r -- tank/a@s"),
            (Some(Base::Bookmark(bookmark)), false, "send -L -c -i tank/a#m -- tank/a@s"),
            (
                Some(Base::Origin { dataset: "tank/o".parse().unwrap(), snapshot: snapshot("r") }),
                false,
                "send -L -c -i tank/o@r -- tank/a@s",
            ),
        ] {
            let step = Step { to: snapshot("s"), from, raw };
            assert_eq!(arguments(&"tank/a".parse().unwrap(), &step).join(" "), expected);
        }
    }
}
