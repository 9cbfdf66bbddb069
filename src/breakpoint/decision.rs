//! Where a transfer that was cut goes on: one table, every case in one row.
//!
//! Three layers, cheapest first: the connection is made again and both `zfs` go on (L1); a
//! breakpoint file holds what is missing (L2); `zfs` itself knows where its receive stopped (L3).
//! Whom to believe where they differ: ZFS before the live process, that before the receiver's
//! record, that before the sender's. Nothing is guessed: what cannot be, or would destroy
//! something, is asked.

use serde::Serialize;

/// What is known about a transfer that was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Situation {
    /// What the target's snapshots say.
    pub target: Target,
    /// What the target's resume token says; read while no receive runs, it is the whole truth.
    pub token: Token,
    /// What the receiving host has of this transfer.
    pub peer: Peer,
    /// Whether our `zfs send` still runs.
    pub source: Source,
    /// What we still have, from the peer's offset on: in the cache and in breakpoint files.
    pub reach: Reach,
    /// Whether a valid record of ours tells session and epoch.
    pub record: Knowledge,
    /// What to do about a partial state that cannot go on.
    pub dead_token: DeadTokenPolicy,
}

/// Whether the target has the snapshot that we carry, by its guid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Yes: then the transfer is done, whatever else is said.
    Holds,
    /// No.
    Lacks,
}

/// What the resume token of the target is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Token {
    /// There is none.
    Absent,
    /// It names our snapshot, its base and its flags, and `zfs send -t` can take it.
    Matching,
    /// It names our snapshot, which the source no longer has.
    Dead,
    /// It names something else: somebody's half-received snapshot.
    Foreign,
}

/// What the receiving host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// The session, and a live receive of the epoch that we know.
    SameEpoch,
    /// A live receive of this transfer in an epoch that we do not know.
    OtherEpoch,
    /// No receive, but all of the stream from byte 0 to its offset in breakpoint files.
    Spooled,
    /// Nothing that could go on.
    Empty,
}

/// Whether the stream still comes out of the process that began it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// It runs, or ended well and was seen to by this process.
    Alive,
    /// This process did not start it.
    Gone,
}

/// How much of the stream we have from the peer's offset on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// All, and the stream's end; nothing at all may be missing.
    ToEnd,
    /// All that was read so far.
    ToRead,
    /// Something in between is missing.
    Short,
}

/// Whether our record file told something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Knowledge {
    /// A valid record of this transfer.
    Recorded,
    /// None.
    Nothing,
}

/// `--on-dead-token`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeadTokenPolicy {
    /// Say which command would destroy it.
    #[default]
    Ask,
    /// Destroy it and go on from there.
    AbortAndRestart,
}

/// Where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// Nowhere: the snapshot is there.
    Done,
    /// L1: make the connections again; both `zfs` go on from the peer's offset.
    Reconnect,
    /// L2 at the sender: the peer's receive goes on from our breakpoint files.
    Spool,
    /// L2 at the receiver: a new receive is fed from the peer's breakpoint files from byte 0, in a
    /// new epoch; we send what they lack.
    Refeed,
    /// L3: `zfs send -t`, in a new epoch.
    Token,
    /// Have the peer end its receive and wait for it: its token is then the truth. Look again.
    EndReceive,
    /// Have the peer destroy its partial state (`zfs receive -A`), as was allowed. Look again.
    AbortPartial,
    /// From the plan on, in a new epoch, with nothing kept.
    Restart,
    /// The operator decides.
    Ask(Question),
}

/// What the operator must decide, or find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// Destroy the partial state whose source snapshot is gone?
    DeadToken,
    /// Whose is the partial state of another snapshot?
    ForeignState,
    /// What is said here cannot all be true: somebody else is at work, or lies.
    Contradiction,
}

/// One line of the table.
struct Row {
    decision: Decision,
    fits: fn(&Situation) -> bool,
}

macro_rules! row {
    ($target:pat, $token:pat, $peer:pat, $source:pat, $reach:pat, $record:pat, $policy:pat
        => $decision:expr) => {
        Row {
            decision: $decision,
            fits: |situation| {
                matches!(
                    situation,
                    Situation {
                        target: $target,
                        token: $token,
                        peer: $peer,
                        source: $source,
                        reach: $reach,
                        record: $record,
                        dead_token: $policy,
                    }
                )
            },
        }
    };
}

use DeadTokenPolicy::AbortAndRestart;
use Decision::{AbortPartial, Ask, Done, EndReceive, Reconnect, Refeed, Restart, Spool};
use Peer::{Empty, OtherEpoch, SameEpoch, Spooled};
use Question::{Contradiction, DeadToken, ForeignState};
use Reach::{Short, ToEnd, ToRead};
use Source::{Alive, Gone};
use Target::{Holds, Lacks};
use Token::{Absent, Dead, Foreign, Matching};

/// What cannot be. Some of it is heard from the other host, so it must not end this one.
#[rustfmt::skip]
const CONTRADICTIONS: [Row; 5] = [
    // A receive that ended well left no token of itself.
    row!(Holds, Matching | Dead, _, _, _, _, _ => Ask(Contradiction)),
    // A snapshot that is being sent cannot be destroyed.
    row!(_, Dead, _, Alive, _, _, _ => Ask(Contradiction)),
    // A dataset has one partial state, and the live receive is writing it.
    row!(_, Foreign, SameEpoch | OtherEpoch, _, _, _, _ => Ask(Contradiction)),
    // Neither process nor record could have told the epoch...
    row!(_, _, SameEpoch, Gone, _, Knowledge::Nothing, _ => Ask(Contradiction)),
    // ... or how far was read.
    row!(_, _, _, Gone, ToRead, Knowledge::Nothing, _ => Ask(Contradiction)),
];

/// What to do in all other cases; each of them fits one row.
#[rustfmt::skip]
const TABLE: [Row; 15] = [
    //   target token     peer             source reach           record, policy
    row!(Holds, _,        _,               _,     _,              _, _ => Done),
    row!(Lacks, _,        SameEpoch,       Alive, ToEnd | ToRead, _, _ => Reconnect),
    row!(Lacks, _,        SameEpoch,       Gone,  ToEnd,          _, _ => Spool),
    row!(Lacks, _,        SameEpoch,       Alive, Short,          _, _ => EndReceive),
    row!(Lacks, _,        SameEpoch,       Gone,  ToRead | Short, _, _ => EndReceive),
    row!(Lacks, _,        OtherEpoch,      _,     _,              _, _ => EndReceive),
    row!(Lacks, Foreign,  Spooled | Empty, _,     _,              _, _ => Ask(ForeignState)),
    row!(Lacks, Matching, Spooled | Empty, _,     _,              _, _ => Decision::Token),
    row!(Lacks, Dead,     Spooled | Empty, _,     _, _, DeadTokenPolicy::Ask => Ask(DeadToken)),
    row!(Lacks, Dead,     Spooled | Empty, _,     _, _, AbortAndRestart => AbortPartial),
    row!(Lacks, Absent,   Spooled,         Alive, ToEnd | ToRead, _, _ => Refeed),
    row!(Lacks, Absent,   Spooled,         Gone,  ToEnd,          _, _ => Refeed),
    row!(Lacks, Absent,   Spooled,         Alive, Short,          _, _ => Restart),
    row!(Lacks, Absent,   Spooled,         Gone,  ToRead | Short, _, _ => Restart),
    row!(Lacks, Absent,   Empty,           _,     _,              _, _ => Restart),
];

/// Where a transfer goes on.
///
/// After [`Decision::EndReceive`] and [`Decision::AbortPartial`] the situation is another one, and
/// is decided anew; neither comes twice.
pub fn decide(situation: Situation) -> Decision {
    let fits = |row: &&Row| (row.fits)(&situation);
    let row = CONTRADICTIONS.iter().find(fits).or_else(|| TABLE.iter().find(fits));
    row.map_or(Ask(Contradiction), |row| row.decision)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const TARGETS: [Target; 2] = [Target::Holds, Target::Lacks];
    const TOKENS: [Token; 4] = [Token::Absent, Token::Matching, Token::Dead, Token::Foreign];
    const PEERS: [Peer; 4] = [Peer::SameEpoch, Peer::OtherEpoch, Peer::Spooled, Peer::Empty];
    const SOURCES: [Source; 2] = [Source::Alive, Source::Gone];
    const REACHES: [Reach; 3] = [Reach::ToEnd, Reach::ToRead, Reach::Short];
    const RECORDS: [Knowledge; 2] = [Knowledge::Recorded, Knowledge::Nothing];
    const POLICIES: [DeadTokenPolicy; 2] = [DeadTokenPolicy::Ask, DeadTokenPolicy::AbortAndRestart];

    /// All 768 of them.
    fn situations() -> Vec<Situation> {
        let mut all = Vec::new();
        for target in TARGETS {
            for token in TOKENS {
                for peer in PEERS {
                    for source in SOURCES {
                        for (reach, record) in
                            REACHES.into_iter().flat_map(|reach| RECORDS.map(|r| (reach, r)))
                        {
                            all.extend(POLICIES.map(|dead_token| Situation {
                                target,
                                token,
                                peer,
                                source,
                                reach,
                                record,
                                dead_token,
                            }));
                        }
                    }
                }
            }
        }
        assert_eq!(all.len(), 2 * 4 * 4 * 2 * 3 * 2 * 2);
        all
    }

    fn is_contradictory(situation: Situation) -> bool {
        CONTRADICTIONS.iter().any(|row| (row.fits)(&situation))
    }

    fn possible() -> impl Iterator<Item = (Situation, Decision)> {
        let possible = situations().into_iter().filter(|s| !is_contradictory(*s));
        possible.map(|situation| (situation, decide(situation)))
    }

    #[test]
    fn every_situation_that_can_be_fits_one_row_and_no_other() {
        let mut met: HashMap<usize, u32> = HashMap::new();
        for (situation, _) in possible() {
            let fitting: Vec<usize> =
                (0..TABLE.len()).filter(|&row| (TABLE[row].fits)(&situation)).collect();
            assert_eq!(fitting.len(), 1, "{situation:?} fits the rows {fitting:?}");
            *met.entry(fitting[0]).or_default() += 1;
        }
        assert_eq!(met.len(), TABLE.len(), "a row that nothing meets: {met:?}");
    }

    #[test]
    fn what_cannot_be_is_asked_and_every_such_row_is_met() {
        for situation in situations().into_iter().filter(|s| is_contradictory(*s)) {
            assert_eq!(decide(situation), Ask(Contradiction), "{situation:?}");
        }
        for (index, row) in CONTRADICTIONS.iter().enumerate() {
            let others = |s: &Situation| {
                CONTRADICTIONS.iter().enumerate().any(|(o, r)| o != index && (r.fits)(s))
            };
            let alone = situations().into_iter().any(|s| (row.fits)(&s) && !others(&s));
            assert!(alone, "contradiction {index} says nothing that the others do not");
        }
    }

    #[test]
    fn zfs_outranks_everybody() {
        for (situation, decision) in possible() {
            let holds = situation.target == Target::Holds;
            assert_eq!(decision == Done, holds, "{situation:?}");
            if situation.token == Token::Foreign && !holds {
                assert_eq!(decision, Ask(ForeignState), "{situation:?}");
            }
        }
    }

    #[test]
    fn an_offset_is_used_only_in_the_epoch_that_it_belongs_to() {
        for (situation, decision) in possible() {
            if matches!(decision, Reconnect | Spool) {
                assert_eq!(situation.peer, Peer::SameEpoch, "{situation:?}");
                assert_ne!(situation.reach, Reach::Short, "{situation:?}");
            }
            if decision == Reconnect {
                assert_eq!(situation.source, Source::Alive, "{situation:?}");
            }
        }
    }

    #[test]
    fn a_stream_goes_on_without_its_process_only_if_its_end_is_kept() {
        for (situation, decision) in possible() {
            if matches!(decision, Spool | Refeed) && situation.source == Source::Gone {
                assert_eq!(situation.reach, Reach::ToEnd, "{situation:?}");
            }
        }
    }

    /// The layers once more, from their definitions and not from the rows.
    #[test]
    fn the_cheapest_layer_that_can_is_taken() {
        for (situation, decision) in possible() {
            let Situation { target, token, peer, source, reach, .. } = situation;
            let enough = match source {
                Source::Alive => reach != Reach::Short,
                Source::Gone => reach == Reach::ToEnd,
            };
            let lives = match source {
                Source::Alive => Reconnect,
                Source::Gone => Spool,
            };
            let expected = match (peer, token) {
                _ if target == Target::Holds => Done,
                (Peer::SameEpoch, _) if enough => lives,
                (Peer::SameEpoch | Peer::OtherEpoch, _) => EndReceive,
                (_, Token::Matching) => Decision::Token,
                (Peer::Spooled, Token::Absent) if enough => Refeed,
                (_, Token::Absent) => Restart,
                // Asked or destroyed: said in tests of their own.
                (_, Token::Dead | Token::Foreign) => continue,
            };
            assert_eq!(decision, expected, "{situation:?}");
        }
    }

    #[test]
    fn the_live_process_outranks_the_records() {
        for (situation, decision) in possible() {
            if situation.source == Source::Alive {
                let forgotten = Situation { record: Knowledge::Nothing, ..situation };
                assert_eq!(decide(forgotten), decision, "{situation:?}");
            }
        }
    }

    #[test]
    fn nothing_is_destroyed_unless_that_was_allowed() {
        for (situation, decision) in possible() {
            let dead = situation.token == Token::Dead;
            if decision == AbortPartial {
                assert!(dead && situation.dead_token == DeadTokenPolicy::AbortAndRestart);
            }
            if decision == Restart {
                assert_eq!(situation.token, Token::Absent, "{situation:?} would lose bytes");
            }
        }
    }

    #[test]
    fn looking_again_comes_to_an_end() {
        for (situation, decision) in possible() {
            match decision {
                EndReceive => assert!(matches!(situation.peer, Peer::SameEpoch | Peer::OtherEpoch)),
                AbortPartial => {
                    let then = decide(Situation { token: Token::Absent, ..situation });
                    assert!(matches!(then, Refeed | Restart), "{situation:?}: {then:?}");
                }
                _ => {}
            }
            for token in [Token::Absent, situation.token] {
                let peer = Peer::Empty;
                let then = decide(Situation { token, peer, ..situation });
                assert_ne!(then, EndReceive, "{situation:?}");
            }
        }
    }
}
