//! A client that died is followed by another, which has the whole stream in breakpoint files: it
//! takes the session over, and `zfs receive` never notices.

use std::collections::VecDeque;

use zferry::breakpoint::decision::{
    Decision, Knowledge, Peer, Reach, Situation, Source, Target, Token, decide,
};
use zferry::breakpoint::record::{Cargo, State};
use zferry::protocol::message::Stream;
use zferry::protocol::sender::{Sender, WholeStream};
use zferry::protocol::standing::Standing;
use zferry::protocol::window::SendWindow;
use zferry::units::{Bytes, Sequence};

use super::Outcome;
use super::carrying::Carrying;
use super::session::{ME, Session};
use crate::environment::Environment;
use crate::line::Line;
use crate::met::Met;
use crate::recorder::Recorder;
use crate::remains::{Left, Remains};
use crate::terms;

impl Session {
    /// Begins to take over the session of a process that died, if its stream is here to the end.
    pub fn take_over(life: u32, number: u32, env: &mut Environment) -> Option<Session> {
        let mut remains = Remains::find(ME, env)?;
        let progress = remains.record.progress;
        let end = progress.end.filter(|_| progress.state == State::Ended)?;
        if progress.acknowledged == end {
            remains.frames.clear();
            remains.spans.clear();
        } else if remains.written() != end {
            return None;
        }
        let mut session = Session::new(life, number, Line::restored(ME));
        session.secret = Some(remains.secret());
        session.lanes = vec![None; usize::from(env.settings.lanes)];
        session.lost_at = Some(env.now);
        session.asked = true;
        session.remains = Some(remains);
        session.dial_control(env);
        Some(session)
    }

    /// The server says where it stands.
    pub(super) fn go_on_with(
        &mut self,
        remains: Remains,
        standing: &Standing,
        env: &mut Environment,
    ) {
        match decide(situation(&remains, standing, env)) {
            Decision::Spool => {}
            Decision::EndReceive => {
                self.outcome = Some(Outcome::NotTakenOver);
                return;
            }
            other => panic!("{other:?} of a session that stands at {standing:?}"),
        }
        env.met(Met::TookOver);
        let record = remains.record;
        let end = record.progress.end.expect("it is whole");
        let Cargo::Snapshot { to, resumed, .. } = record.job.cargo else { panic!("no snapshot") };
        let stream = Stream::Dataset(terms::stream(to, resumed));
        let transfer = record.job.transfer;
        let whole = WholeStream { transfer, stream, total: end.to, crc32: end.crc32 };
        self.credit = standing.credit;
        self.window = SendWindow::restored(standing.receipt());
        let recorder = Recorder::resume(ME, &remains, env);
        let is_needed = |left: &Left| left.header.sequence >= standing.credit.taken;
        self.backlog = remains.frames.into_iter().filter(is_needed).collect();
        let marks = self.backlog.iter().map(|left| (left.header.sequence, left.mark)).collect();
        self.carrying = Some(Carrying::whole(record, recorder, marks, env));
        let mut output = Vec::new();
        let machine = Sender::restored(terms::agreed(env), whole, standing, &mut output);
        self.machine = Some(machine.unwrap_or_else(|error| panic!("the server broke it: {error}")));
        self.obey(output, env);
        self.missing = (0..env.settings.lanes).collect();
        self.tick(env);
    }

    /// Puts into the window what there is a slot for.
    pub(super) fn load(&mut self, env: &Environment) {
        while self.window.kept() < env.settings.client_slots {
            let Some(Left { header, payload, .. }) = self.backlog.pop_front() else { return };
            let frame = [&header.encode()[..], &payload].concat();
            // One that was on its way when the process before died may be taken by now.
            let _taken = self.window.put(header.sequence, Bytes::from(frame.len()), frame.into());
        }
    }
}

/// What is known of a transfer that may be taken over.
fn situation(remains: &Remains, standing: &Standing, env: &Environment) -> Situation {
    assert_eq!(standing.transfer, remains.record.job.transfer, "another transfer");
    let needed = standing.credit.taken.0..remains.record.progress.next_frame.0;
    let mut found = remains.frames.iter().map(|left| left.header.sequence);
    let first = needed.is_empty() || found.any(|sequence| sequence == Sequence(needed.start));
    Situation {
        target: Target::Lacks,
        token: Token::Absent,
        peer: Peer::SameEpoch,
        source: Source::Gone,
        reach: if first { Reach::ToEnd } else { Reach::Short },
        record: Knowledge::Recorded,
        dead_token: env.settings.dead_token,
    }
}

/// Frames that wait for a slot.
pub(super) type Backlog = VecDeque<Left>;
