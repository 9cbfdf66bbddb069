//! Makes failures of what `zfs` said and how it ended: one for each process, one for both.
//!
//! Pure. Whoever reads a failure must find ZFS's own words in it. Of two processes at the ends of
//! one stream the second mostly fails because the first did; what must never happen here is that
//! the consequence is told and the cause is not.

use crate::dataset::{DatasetName, typed};
use crate::error::{Class, Failure, Side};
use crate::process::Ended;

use super::texts::{self, Row};

/// How much of what `zfs` said is told.
const WORDS_CHARS_MAX: usize = 1000;

/// How `zfs send` failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendFailure {
    /// The failure, if it is the one to be told.
    pub failure: Failure,
    /// It was stopped from outside or lost its reader: the cause lies elsewhere.
    pub secondary: bool,
}

/// The failure of `zfs send` of `dataset`, or `None` if it succeeded.
pub fn of_send(dataset: &DatasetName, ended: &Ended) -> Option<SendFailure> {
    const SIGPIPE: i32 = 13;
    if ended.success() {
        return None;
    }
    let call = format!("zfs send of {}", typed(dataset.as_str()));
    let mut failure = judge(Side::Source, &call, ended, texts::SEND, Some(dataset));
    if ended.signal() == Some(SIGPIPE) {
        // ZFS dies of it without a word.
        failure.what = format!("{call}: nobody reads its stream any more");
    }
    let words = words(ended);
    let lost_reader = ["signal received", "Broken pipe"].iter().any(|text| words.contains(text));
    let stopped = ended.signal().is_some() && failure.class == Class::Interrupted;
    Some(SendFailure { failure, secondary: stopped || lost_reader })
}

/// The failure of `zfs receive` into `dataset`, or `None` if it succeeded: then look into
/// [`warnings`], and read back whether the snapshot is there.
pub fn of_receive(dataset: &DatasetName, ended: &Ended) -> Option<Failure> {
    if ended.success() {
        return None;
    }
    let call = format!("zfs receive into {}", typed(dataset.as_str()));
    Some(judge(Side::Target, &call, ended, texts::RECEIVE, Some(dataset)))
}

/// The failure of a command of the user's that stood at the end of a stream on `side`.
pub fn of_command(side: Side, words: &[String], ended: &Ended) -> Failure {
    let class = if ended.signal().is_some() { Class::Interrupted } else { Class::Machine };
    let program = words.first().map_or("", String::as_str);
    Failure::new(side, class, format!("{program} failed: {}", self::words(ended)))
}

/// The failure of any other `call`, which ended badly on `side`.
pub(super) fn of_call(side: Side, call: &str, ended: &Ended) -> Failure {
    judge(side, call, ended, texts::CALL, None)
}

/// The one failure of a stream whose two ends may both have failed; `receive` may have come over
/// the wire.
///
/// | send | receive | told |
/// |---|---|---|
/// | any | failed by itself | receive |
/// | failed by itself | was cut short, or well | send |
/// | lost its reader, was stopped, or well | was cut short | receive |
/// | lost its reader or was stopped | well | send |
pub fn verdict(send: Option<SendFailure>, receive: Option<Failure>) -> Option<Failure> {
    match (send, receive) {
        (Some(send), Some(receive)) if was_cut(&receive) && !send.secondary => Some(send.failure),
        (_, Some(receive)) => Some(receive),
        (send, None) => send.map(|send| send.failure),
    }
}

/// Whether a receive failed for what came, or did not come, out of its stream.
fn was_cut(receive: &Failure) -> bool {
    let stopped = receive.class == Class::Interrupted && receive.what.contains(KILLED);
    stopped || texts::CUT.iter().any(|text| receive.what.contains(text))
}

/// What `Ended` says of a process that was killed.
const KILLED: &str = "killed by signal";

/// What a receive that succeeded complains of: a property that was refused, a mount that failed.
pub fn warnings(ended: &Ended) -> Vec<String> {
    let lines = ended.stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    if ended.success() { lines.map(str::to_owned).collect() } else { Vec::new() }
}

/// What a process said, on one line; how it ended if it said nothing.
pub(super) fn words(ended: &Ended) -> String {
    // Below its usage, zfs repeats every subcommand that it has.
    let said = match ended.stderr.split_once("usage:\n") {
        Some((before, _)) => format!("{before} (and its usage:)"),
        None => ended.stderr.clone(),
    };
    let mut line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    line.retain(|c| !c.is_control());
    match line.char_indices().nth(WORDS_CHARS_MAX) {
        Some((end, _)) => line.truncate(end),
        None if line.is_empty() => return format!("{ended}, without a word"),
        None => {}
    }
    if ended.signal().is_some() { format!("{line} ({ended})") } else { line }
}

fn judge(
    side: Side,
    call: &str,
    ended: &Ended,
    own: &[Row],
    dataset: Option<&DatasetName>,
) -> Failure {
    let words = words(ended);
    let what = format!("{call}: {words}");
    if let Some(class) = class_of_signal(ended) {
        return Failure::new(side, class, what);
    }
    let Some(row) = own.iter().chain(texts::ANY).find(|row| words.contains(row.text)) else {
        return Failure::new(side, Class::Zfs, what);
    };
    let failure = Failure::new(side, row.class, what);
    if row.remedy.is_empty() { failure } else { failure.with_remedy(remedy(row, dataset)) }
}

/// Killed from outside, or by a mistake of its own (an unknown errno makes `zfs` abort).
fn class_of_signal(ended: &Ended) -> Option<Class> {
    const OWN_FAULTS: [i32; 6] = [4, 5, 6, 7, 8, 11];
    let is_own = |signal: i32| OWN_FAULTS.contains(&signal);
    ended.signal().map(|signal| if is_own(signal) { Class::Zfs } else { Class::Interrupted })
}

fn remedy(row: &Row, dataset: Option<&DatasetName>) -> String {
    match dataset {
        Some(dataset) => row
            .remedy
            .replace("{pool}", &typed(dataset.pool()))
            .replace("{}", &typed(dataset.as_str())),
        None => row.remedy.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;
    use crate::error::Class::{Interrupted, Machine, Refused, Wait, Zfs};

    fn exited(code: i32, stderr: &str) -> Ended {
        Ended { status: ExitStatus::from_raw(code << 8), stderr: stderr.to_owned() }
    }

    fn killed(signal: i32, stderr: &str) -> Ended {
        Ended { status: ExitStatus::from_raw(signal), stderr: stderr.to_owned() }
    }

    fn received(ended: &Ended) -> Option<Failure> {
        of_receive(&"dst/fs".parse().unwrap(), ended)
    }

    fn sent(ended: &Ended) -> Option<SendFailure> {
        of_send(&"src/fs".parse().unwrap(), ended)
    }

    const CUT_SAVED: &str = "cannot receive new filesystem stream: checksum mismatch or incomplete \
        stream.\nPartially received snapshot is saved.\nA resuming stream can be generated on the \
        sending system by running:\n    zfs send -t 1-c740b4779-a8-789c\n";
    const CUT_AT_BEGIN: &str = "cannot open 'dst/c312': dataset does not exist\n\
        cannot receive new filesystem stream: invalid backup stream\n";
    const MODIFIED: &str = "cannot receive incremental stream: destination dst/fs has been \
        modified\nsince most recent snapshot\n";

    #[test]
    fn receives_are_judged_by_their_words() {
        for (stderr, class, remedy) in [
            (CUT_SAVED, Interrupted, ""),
            ("cannot receive: failed to read from stream\n", Interrupted, ""),
            ("cannot receive incremental stream: incomplete stream\n", Interrupted, ""),
            (CUT_AT_BEGIN, Zfs, ""),
            (MODIFIED, Refused, "zfs set readonly=on dst/fs"),
            (
                "cannot receive incremental stream: destination dst/fs contains \
                 partially-complete state from \"zfs receive -s\".\n",
                Refused,
                "zfs receive -A dst/fs",
            ),
            (
                "cannot receive incremental stream: most recent snapshot of dst/fs does not\n\
                 match incremental source\n",
                Interrupted,
                "",
            ),
            (
                "cannot receive new filesystem stream: destination 'dst/fs' exists\n\
                 must specify -F to overwrite it\n",
                Interrupted,
                "",
            ),
            (
                "cannot receive new filesystem stream: destination has snapshots (eg. dst/fs@a)\n\
                 must destroy them to overwrite it\n",
                Refused,
                "does not exist yet",
            ),
            ("cannot restore to dst/fs@s2: destination already exists\n", Refused, "zfs rename"),
            (
                "cannot open 'dst/no': dataset does not exist\n\
                 cannot receive new filesystem stream: unable to restore to destination\n",
                Refused,
                "zfs create",
            ),
            (
                "cannot receive incremental stream: destination 'dst/fs' does not exist\n",
                Interrupted,
                "",
            ),
            (
                "cannot receive incremental stream: kernel modules must be upgraded to receive \
                 this stream.\n",
                Zfs,
                "zfs receive -A dst/fs",
            ),
            (
                "cannot receive new filesystem stream: pool must be upgraded to receive this \
                 stream.\n",
                Machine,
                "zpool upgrade dst",
            ),
            ("cannot receive new filesystem stream: out of space\n", Wait, "make room in dst"),
            (
                "cannot receive new filesystem stream: destination dst/fs space quota exceeded.\n",
                Wait,
                "quota of dst/fs",
            ),
            ("cannot receive incremental stream: dataset is busy\n", Wait, "dst/fs"),
            ("cannot receive new filesystem stream: permission denied\n", Machine, "zfs allow"),
            ("cannot receive: invalid stream (bad magic number)\n", Zfs, ""),
            (
                "cannot receive new filesystem stream: inherited key must be loaded\n",
                Refused,
                "zfs load-key",
            ),
            ("The ZFS modules cannot be auto-loaded.\n", Machine, "modprobe zfs"),
            ("something that nobody has ever said\n", Zfs, ""),
            ("", Zfs, ""),
        ] {
            let failure = received(&exited(1, stderr)).unwrap();
            assert_eq!((failure.side, failure.class), (Side::Target, class), "{failure}");
            let told = failure.remedy.unwrap_or_default();
            assert!(told.contains(remedy), "{remedy:?} is not in {told:?} for {stderr}");
            assert_eq!(remedy.is_empty(), told.is_empty(), "{told:?} for {stderr}");
        }
    }

    #[test]
    fn sends_are_judged_by_their_words() {
        for (code, stderr, class, secondary) in [
            (1, "warning: cannot send 'src/fs@s': signal received\n", Interrupted, true),
            (1, "warning: cannot send 'src/fs@s': Broken pipe\n", Interrupted, true),
            (1, "warning: cannot send 'src/fs@s': Input/output error\n", Zfs, false),
            (1, "cannot open 'src/fs@s': dataset does not exist\n", Interrupted, false),
            (
                1,
                "warning: cannot send 'src/fs@s': incremental source (src/fs@r) does not exist\n",
                Interrupted,
                false,
            ),
            (
                1,
                "warning: cannot send 'src/fs@s': not an earlier snapshot from the same fs\n",
                Refused,
                false,
            ),
            (1, "cannot send 'src/fs@s': dataset key must be loaded\n", Refused, false),
            (255, "cannot resume send: resume token is corrupt (invalid format)\n", Refused, false),
            (2, "invalid option 'w'\nusage:\n\tsend [-DLPbc]\n", Machine, false),
        ] {
            let send = sent(&exited(code, stderr)).unwrap();
            assert_eq!((send.failure.class, send.secondary), (class, secondary), "{send:?}");
        }
    }

    #[test]
    fn a_signal_is_told_by_its_name_and_weighed() {
        for (signal, class, secondary, what) in [
            (13, Interrupted, true, "nobody reads its stream"),
            (9, Interrupted, true, "killed by signal 9 (SIGKILL), without a word"),
            (15, Interrupted, true, "SIGTERM"),
            (6, Zfs, false, "SIGABRT"),
            (11, Zfs, false, "SIGSEGV"),
        ] {
            let send = sent(&killed(signal, "")).unwrap();
            assert_eq!((send.failure.class, send.secondary), (class, secondary), "{send:?}");
            assert!(send.failure.what.contains(what), "{send:?}");
        }
        let aborted = received(&killed(6, "internal error: Level 2 halted\n")).unwrap();
        assert_eq!(
            aborted.what,
            "zfs receive into dst/fs: internal error: Level 2 halted (killed by signal 6 (SIGABRT))"
        );
    }

    #[test]
    fn of_two_failures_the_cause_is_told() {
        let well = exited(0, "");
        let damaged = exited(1, "warning: cannot send 'src/fs@s': Input/output error\n");
        let (no_reader, stopped) = (killed(13, ""), killed(15, ""));
        let cut = exited(1, CUT_SAVED);
        let cut_at_begin = exited(1, CUT_AT_BEGIN);
        let full = exited(1, "cannot receive incremental stream: out of space\n");
        for (send, receive, told) in [
            (&well, &well, None),
            (&damaged, &cut, Some("Input/output error")),
            (&damaged, &cut_at_begin, Some("Input/output error")),
            (&damaged, &killed(9, ""), Some("Input/output error")),
            (&damaged, &well, Some("Input/output error")),
            (&damaged, &full, Some("out of space")),
            (&no_reader, &full, Some("out of space")),
            (&stopped, &full, Some("out of space")),
            (&no_reader, &cut, Some("incomplete stream")),
            (&stopped, &cut, Some("incomplete stream")),
            (&well, &cut, Some("incomplete stream")),
            (&well, &full, Some("out of space")),
            (&no_reader, &well, Some("nobody reads")),
        ] {
            let verdict = verdict(sent(send), received(receive));
            match told {
                None => assert_eq!(verdict, None),
                Some(told) => assert!(verdict.as_ref().unwrap().what.contains(told), "{verdict:?}"),
            }
        }
    }

    #[test]
    fn a_text_never_hides_below_one_that_is_a_part_of_it() {
        for table in [texts::RECEIVE, texts::SEND, texts::CALL, texts::ANY] {
            for (place, row) in table.iter().enumerate() {
                let above = &table[..place];
                let hiding = above.iter().find(|above| row.text.contains(above.text));
                assert!(hiding.is_none_or(|above| above.text == "does not exist"), "{}", row.text);
            }
        }
    }

    #[test]
    fn long_words_are_cut_and_strange_ones_tamed() {
        let failure = received(&exited(1, &"ä ".repeat(5000))).unwrap();
        assert!(failure.what.chars().count() < WORDS_CHARS_MAX + 50);
        let failure = received(&exited(1, "a\u{1b}[31m\r\n\tb\n")).unwrap();
        assert_eq!(failure.what, "zfs receive into dst/fs: a[31m b");
        let failure = sent(&exited(2, "invalid option 'w'\nusage:\n\tsend\n")).unwrap().failure;
        assert_eq!(failure.what, "zfs send of src/fs: invalid option 'w' (and its usage:)");
    }

    #[test]
    fn a_success_may_have_warnings() {
        let stderr = "cannot receive canmount property on dst/fs: permission denied\n\n";
        let warned = exited(0, stderr);
        assert_eq!(received(&warned), None);
        assert_eq!(warnings(&warned), [stderr.trim()]);
        assert_eq!(warnings(&exited(1, stderr)), Vec::<String>::new());
    }
}
