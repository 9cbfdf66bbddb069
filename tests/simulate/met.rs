//! What runs come by: a simulator that never meets a case proves nothing about it.

/// One case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Met {
    /// A session went on over another control connection.
    ControlReturned,
    /// A client came back to a server that had not missed it.
    ReturnedUnmissed,
    /// A client was told that its session is gone.
    ReturnRefused,
    /// The other end was silent for too long.
    Silence,
    /// A data connection took the place of a lost one.
    LaneReplaced,
    /// A block came that was here already.
    CameAgain,
    /// A block was not what was sent.
    Rejected,
    /// A copy of such a block had come meanwhile, over another lane.
    CopyRejected,
    /// A block that had arrived out of order was not sent again with the lane that it came over.
    LeftOut,
    /// The wire stood still, and was connected anew.
    WireRenewed,
    /// A session whose client was away made room for another.
    MadeRoom,
    /// A client found the dataset busy.
    Busy,
    /// A stream went on from a token.
    FromToken,
    /// The target had the snapshot already when a client asked.
    FoundDone,
    /// A record was found after a crash.
    RecordFound,
    /// A write of a record was cut, and recovery said so.
    RecordTorn,
    /// A record was missing or in the wrong place, and recovery said so.
    RecordLost,
    /// A segment was deleted.
    Trimmed,
    /// A write failed, and its file was retired.
    Retired,
    /// What the server called durable was acknowledged.
    SpoolAcknowledged,
    /// A client's process took a session over.
    TookOver,
    /// A server's process went on with a session, and its client with it.
    StoodAnew,
    /// A receive was fed again from byte 0.
    Refed,
    /// ZFS had kept something itself, and it was not.
    RefeedOutranked,
    /// The operator had to be asked.
    Asked,
    /// A partial state was given up, as was allowed.
    Aborted,
    /// A tree was listed in one page.
    TreeListed,
    /// A tree was listed in several.
    LargeTreeListed,
}

pub const ALL: [Met; 28] = [
    Met::ControlReturned,
    Met::ReturnedUnmissed,
    Met::ReturnRefused,
    Met::Silence,
    Met::LaneReplaced,
    Met::CameAgain,
    Met::Rejected,
    Met::CopyRejected,
    Met::LeftOut,
    Met::WireRenewed,
    Met::MadeRoom,
    Met::Busy,
    Met::FromToken,
    Met::FoundDone,
    Met::RecordFound,
    Met::RecordTorn,
    Met::RecordLost,
    Met::Trimmed,
    Met::Retired,
    Met::SpoolAcknowledged,
    Met::TookOver,
    Met::StoodAnew,
    Met::Refed,
    Met::RefeedOutranked,
    Met::Asked,
    Met::Aborted,
    Met::TreeListed,
    Met::LargeTreeListed,
];
