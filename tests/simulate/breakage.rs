//! Rules that a run can be made to break, to see that the checks notice.

use zferry::breakpoint::keeper::Rule;

/// One broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breakage {
    /// A record claims what is not durable yet; nobody is told before the record is; one record is
    /// enough to delete a segment.
    Keeper(Rule),
    /// The same, where both sides keep the whole stream in breakpoint files.
    KeeperOfAll(Rule),
    /// A server that keeps the whole stream acknowledges what is in its memory.
    AcknowledgeBeforeDurable,
    /// A receive is fed from byte 0 although ZFS has kept something itself.
    RefeedOverToken,
    /// A server that takes over wants the block behind the first that is not durable.
    RestoreBeyondDurable,
    /// The sender takes a frame for delivered when the kernel has it.
    ForgetBeforeTaken,
    /// The receiver gives room for which it has no slots.
    CreditBeyondRoom,
    /// What the other end heard is counted wrong when the conversation goes on.
    ReplayFromWrongCount,
    /// What proved corrupt is still said to have arrived.
    ListRejected,
    /// What arrives again is taken for new.
    TakeTwice,
    /// The stream begins before its snapshot is held.
    HoldAfterFirstByte,
    /// The hold is let go when all is sent.
    ReleaseBeforeApplied,
    /// A file goes on to be written after an error.
    WriteAfterError,
    /// The stream begins before the epoch is durable.
    EpochAfterFirstByte,
    /// `zfs send` goes on elsewhere than the token says.
    SkipAfterToken,
    /// A success is reported without reading the target's guid back.
    SuccessUnread,
}

pub const ALL: [Breakage; 20] = [
    Breakage::Keeper(Rule::DataBeforeRecord),
    Breakage::Keeper(Rule::RecordBeforeAcknowledgement),
    Breakage::Keeper(Rule::RecordTwiceBeforeTrim),
    Breakage::KeeperOfAll(Rule::DataBeforeRecord),
    Breakage::KeeperOfAll(Rule::RecordBeforeAcknowledgement),
    Breakage::KeeperOfAll(Rule::RecordTwiceBeforeTrim),
    Breakage::AcknowledgeBeforeDurable,
    Breakage::RefeedOverToken,
    Breakage::RestoreBeyondDurable,
    Breakage::ForgetBeforeTaken,
    Breakage::CreditBeyondRoom,
    Breakage::ReplayFromWrongCount,
    Breakage::ListRejected,
    Breakage::TakeTwice,
    Breakage::HoldAfterFirstByte,
    Breakage::ReleaseBeforeApplied,
    Breakage::WriteAfterError,
    Breakage::EpochAfterFirstByte,
    Breakage::SkipAfterToken,
    Breakage::SuccessUnread,
];
