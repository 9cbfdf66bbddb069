//! What `zfs` says when it fails, who must act then, and what to do.
//!
//! The words are those of OpenZFS 2.1 to 2.4 under `LC_ALL=C`, newlines taken for spaces. The first
//! row that matches counts, so a text stands above every other that is a part of it. A row must not
//! promise more than ZFS's words do: what is not listed is told as it is.

use super::ZfsError;
use crate::error::Class::{self, Internal, Interrupted, Machine, Refused, Wait};

/// One text that we know. In `remedy`, `{}` stands for the dataset and `{pool}` for its pool; an
/// empty one means that running again is all there is to do.
pub(super) struct Row {
    pub text: &'static str,
    pub class: Class,
    pub remedy: &'static str,
}

const fn row(text: &'static str, class: Class, remedy: &'static str) -> Row {
    Row { text, class, remedy }
}

/// The texts of a receive whose stream ended early or came to harm on its way. If the sender has
/// failed too, these are the consequence and not the cause.
pub(super) const CUT: [&str; 4] = [
    "incomplete stream",
    "checksum mismatch",
    "failed to read from stream",
    "invalid backup stream",
];

/// What `zfs send -t` says where the rest of a stream cannot be made any more.
pub(super) const DEAD_TOKEN: [&str; 3] =
    ["used in the initial send", "no longer exists", "resume token is corrupt"];

/// What keeps a snapshot from being destroyed and may pass: a hold, a clone, a send or a mount.
pub(super) const STAYS: [&str; 4] =
    ["it's being held", "has dependent clones", "snapshot is cloned", "dataset is busy"];

/// What is said of a dataset or snapshot that is not there.
pub(super) const NO_DATASET: &str = "dataset does not exist";

impl ZfsError {
    /// Whether something that it was called with is not there, or not any more.
    pub fn says_gone(&self) -> bool {
        matches!(self, ZfsError::Failed { ended, .. } if ended.stderr.contains(NO_DATASET))
    }
}

/// `zfs receive`; its dataset is the target.
#[rustfmt::skip]
pub(super) const RECEIVE: &[Row] = &[
    // Cut or harmed on the way.
    row("checksum mismatch or incomplete stream", Interrupted, ""),
    row("failed to read from stream", Interrupted, ""),
    row("incomplete stream", Interrupted, ""),
    row("checksum mismatch", Interrupted, ""),
    row("signal received", Interrupted, ""),
    // The target is not what it was when the plan was made.
    row("contains partially-complete state", Refused,
        "if no other receive into it is running, give up its state: zfs receive -A {}"),
    row("has been modified since most recent snapshot", Refused,
        "undo what was changed on the target (zfs rollback to the newest snapshot of {}) and keep \
         it from changing again: zfs set readonly=on {}"),
    row("does not match incremental source", Interrupted, ""),
    row("Resuming recv on existing destination", Refused,
        "give up what was received so far: zfs receive -A {}"),
    row("must destroy them to overwrite it", Refused, "choose a target that does not exist yet"),
    row("must specify -F to overwrite it", Interrupted, ""),
    row("destination already exists", Refused,
        "another snapshot has this name on the target: rename it there with zfs rename"),
    row("local origin for clone", Refused, "replicate the dataset that it was cloned from first"),
    // The place that it is to be received into.
    row("unable to restore to destination", Refused,
        "make the parent first: zfs create -u -o canmount=off -o mountpoint=none PARENT"),
    row("is not a filesystem", Refused, "choose a target whose parent is a filesystem"),
    row("does not apply to datasets of this type", Internal, ""),
    // What this ZFS can receive.
    row("kernel modules must be upgraded to receive this stream", Class::Zfs,
        "look for a snapshot that was taken on the target while a receive was unfinished and \
         destroy it; if there is none, give up what was received (zfs receive -A {}) or upgrade \
         ZFS on the target"),
    row("pool must be upgraded to receive this stream", Machine, "zpool upgrade {pool}"),
    row("stream has unsupported feature", Machine, "upgrade ZFS on the target"),
    row("the loaded zfs module does not support this operation", Machine,
        "upgrade ZFS on the target"),
    row("Spill block flag missing for raw send", Machine, "upgrade ZFS on the source"),
    row("incremental send stream requires -L", Refused,
        "replicate to a new target: this one was sent large blocks by other options"),
    row("incompatible embedded data stream feature", Refused,
        "choose a target that does not lie below an encrypted dataset"),
    // Encryption.
    row("inherited key must be loaded", Refused,
        "load the key on the target: zfs load-key -r {pool}"),
    row("encryption key does not match existing key", Refused, "replicate to a new target"),
    row("failed to create encryption key", Refused,
        "load the key of the parent on the target: zfs load-key -r {pool}"),
    row("IV set guid", Refused, "replicate to a new target: raw and other streams do not mix"),
    row("cannot perform raw receive on top of existing unencrypted dataset", Refused,
        "replicate to a new target: raw and other streams do not mix"),
    row("cannot be used to destroy an encrypted filesystem", Refused, "replicate to a new target"),
    // The host.
    row("out of space", Wait, "make room in {pool}; what was received is kept"),
    row("space quota exceeded", Wait,
        "raise the quota of {} or make room; what was received is kept"),
    row("dataset is busy", Wait, "find out who uses {} and let it go"),
    row("permission denied", Machine,
        "zfs allow -u USER receive,create,mount,mountpoint,readonly,canmount,setuid,devices,exec,\
         volmode {}"),
    row("pool is read-only", Refused, "import {pool} for writing"),
    // Bytes that are no stream.
    row("bad magic number", Class::Zfs, ""),
    row("malformed nvlist", Class::Zfs, ""),
    row("invalid record type", Class::Zfs, ""),
    row("invalid backup stream", Class::Zfs, ""),
    // Last of all, for it also stands beside several of the above.
    row("does not exist", Interrupted, ""),
];

/// `zfs send`; its dataset is the source.
#[rustfmt::skip]
pub(super) const SEND: &[Row] = &[
    row("signal received", Interrupted, ""),
    row("Broken pipe", Interrupted, ""),
    row("Input/output error", Class::Zfs,
        "the data of this snapshot is damaged on the source: zpool status -v {pool}"),
    row("not an earlier snapshot from the same fs", Refused, "replicate to a new target"),
    row("key must be loaded", Refused, "load the key on the source: zfs load-key {}"),
    row("without the raw flag", Internal, ""),
    row("large microzaps", Internal, ""),
    row("must not be mounted", Internal, ""),
    row("cannot be written to a terminal", Internal, ""),
    row("can not be written to a terminal", Internal, ""),
    row("used in the initial send", Refused, "give up what was received so far: zfs receive -A"),
    row("no longer exists", Refused, "give up what was received so far: zfs receive -A"),
    row("resume token is corrupt", Refused, "give up what was received so far: zfs receive -A"),
    row("permission denied", Machine,
        "zfs allow -u USER send,hold,release,snapshot {}"),
    row("does not exist", Interrupted, ""),
];

/// All other calls.
#[rustfmt::skip]
pub(super) const CALL: &[Row] = &[
    row("permission denied", Machine, "see what zfs allow grants this user, or run as root"),
    row(NO_DATASET, Refused, "check the name: zfs list"),
    row("dataset already exists", Refused, "choose another name"),
    row("dataset is busy", Wait, ""),
    row("it's being held", Refused, "see who holds it: zfs holds"),
    row("out of space", Wait, "make room in the pool"),
    row("space quota exceeded", Wait,
        "raise the quota or make room"),
];

/// What any call may say; looked up after its own texts.
#[rustfmt::skip]
pub(super) const ANY: &[Row] = &[
    row("pool I/O is currently suspended", Wait, "zpool status"),
    row("internal error", Class::Zfs, ""),
    row("modules cannot be auto-loaded", Machine, "modprobe zfs"),
    row("modules are not loaded", Machine, "modprobe zfs"),
    row("must be run as root", Machine, "run as root, or let this user at /dev/zfs"),
    row("usage:", Machine, "zferry needs ZFS 2.1 or newer: see zfs version"),
];
