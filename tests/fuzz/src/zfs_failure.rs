//! What `zfs` says when it fails, and how it ended: made into one failure.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use zferry::dataset::DatasetName;
use zferry::error::{Failure, Side};
use zferry::process::Ended;
use zferry::zfs::{ZfsError, failure};

use crate::Target;

/// A thousand characters of words, a few times.
pub const TARGET: Target = Target { run, allocated_bytes_max: 128 << 10 };

/// More than the words that are told, with the call in front of them.
const WHAT_BYTES_MAX: usize = 4 * 1000 + 300;

/// How each end of a stream ended, in two bytes each, and their last words with a zero between.
fn run(input: &[u8]) {
    let Some((&[send_code, send_signal, code, signal], words)) = input.split_first_chunk() else {
        return;
    };
    let (send_words, words) = match words.iter().position(|&byte| byte == 0) {
        Some(at) => (&words[..at], &words[at + 1..]),
        None => (words, words),
    };
    let send_ended = ended(send_code, send_signal, send_words);
    let receive_ended = ended(code, signal, words);
    let dataset: DatasetName = "tank/a b".parse().expect("it is a name");

    let send = failure::of_send(&dataset, &send_ended);
    let receive = failure::of_receive(&dataset, &receive_ended);
    assert_eq!(send.is_none(), send_ended.success());
    assert_eq!(receive.is_none(), receive_ended.success());
    assert!(receive.is_none() || failure::warnings(&receive_ended).is_empty());
    let command = ["mbuffer".to_owned()];
    let others = [
        failure::of_command(Side::Source, &command, &send_ended),
        ZfsError::Failed { call: "zfs list".to_owned(), ended: receive_ended }.on(Side::Target),
    ];
    let ends = send.iter().map(|send| &send.failure).chain(&receive);
    ends.chain(&others).for_each(check);

    let candidates = [send.clone().map(|send| send.failure), receive.clone()];
    match failure::verdict(send, receive) {
        Some(told) => assert!(candidates.contains(&Some(told))),
        None => assert_eq!(candidates, [None, None]),
    }
}

/// An exit with a code where there is no signal.
fn ended(code: u8, signal: u8, words: &[u8]) -> Ended {
    let status = ExitStatus::from_raw(i32::from(code) << 8 | i32::from(signal % 65));
    Ended { status, stderr: String::from_utf8_lossy(words).into_owned() }
}

fn check(failure: &Failure) {
    crate::assert_fit_to_be_shown(&failure.what, WHAT_BYTES_MAX);
    let remedy = failure.remedy.as_deref().unwrap_or("none");
    assert!(!remedy.is_empty() && !remedy.contains('{'), "{remedy}");
}
