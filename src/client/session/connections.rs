//! Connections in the middle of a stream: those that are lost, those that stand still, and those
//! that may make it faster.
//!
//! Acts on the wire alone: a source that is silent and a target that is slow are left as they are.

use super::{Carrying, Session};
use crate::client::stripes::Stripes;
use crate::engine::fault::Fault;
use crate::error::Side;
use crate::protocol::stall::{News, Way};
use crate::units::StreamOffset;

impl Session {
    /// A data connection is gone. While the server cannot be reached, that waits until it can.
    pub(super) fn lose(&mut self, lane: u32, fault: &Fault, carrying: &mut Carrying) {
        if self.lanes.are_lost_for_good() {
            return carrying.wait_for_reason(fault.failure(Side::Source));
        }
        tracing::info!(lane, %fault, "lost a data connection; connecting again");
        self.lanes.lose(lane);
        if self.conversation.is_up() {
            self.lanes.reopen();
        }
    }

    /// The server can be reached again. Where it was lost in silence, so were the data connections,
    /// although they may not know it yet.
    pub(super) fn reopen_lanes(&mut self, carrying: &mut Carrying) {
        if std::mem::take(&mut carrying.lost_in_silence) {
            self.renew_lanes();
        }
        self.lanes.reopen();
    }

    /// Gives up all data connections: others are to take their place.
    pub(super) fn renew_lanes(&mut self) {
        for lane in self.lanes.all().map(u32::from) {
            self.engine.leave(lane);
            self.lanes.lose(lane);
        }
    }

    /// Has another data connection opened, if that may make the stream faster.
    pub(super) fn widen_if_it_helps(&mut self, carrying: &Carrying) {
        let (now, wire) = (self.began.elapsed(), carrying.progress.wire());
        let opening = self.lanes.is_widening();
        let helps = |stripes: &mut Stripes| stripes.look(now, wire, opening);
        if self.conversation.is_up() && self.stripes.as_mut().is_some_and(helps) {
            self.lanes.widen();
        }
    }

    /// Says which part of the way stands still, if one does. A wire that does is connected anew.
    pub(super) fn look_for_stalls(&mut self, carrying: &mut Carrying) {
        let way = Way {
            read: StreamOffset(carrying.progress.read().0),
            ended: carrying.source_end.is_some(),
            sent: carrying.progress.sent(),
            waits_for_room: carrying.progress.waits_for_room(),
            connected: self.conversation.is_up(),
            received: carrying.reached.received,
            fed: carrying.reached.fed,
            block_takes: self.limiter.block_takes(self.block_bytes, self.lanes.used()),
        };
        match carrying.watchdog.look(carrying.started.elapsed(), way) {
            Some(News::StandsStill { culprit, since, renew }) => {
                let seconds = since.as_secs();
                tracing::warn!(%culprit, seconds, "the stream stands still");
                if renew {
                    self.renew_lanes();
                    self.lanes.reopen();
                }
            }
            Some(News::Moves { after }) => {
                tracing::warn!(seconds = after.as_secs(), "the stream moves again");
            }
            None => {}
        }
    }
}
