//! A stream on its way: does what the machine orders, and tells it what happens.
//!
//! Everything that can happen is waited for in one place, and nothing here blocks.

use std::time::{Duration, Instant};

use super::carrying::{Carrying, SourceEnd};
use super::{Cargo, Judge, Open, Session};
use crate::breakpoint::record::Mark;
use crate::client::conversation::{Heard, NotBack};
use crate::client::lanes::Reopened;
use crate::client::reconnect::Back;
use crate::client::source::{Opened, Source};
use crate::client::watch::{Layer, Stop, Watch};
use crate::engine::sender::{Event, Sent};
use crate::error::{Class, Failure, Side};
use crate::process::Ended;
use crate::protocol::message::{Applied, Message, Request, Start, Watermarks};
use crate::protocol::sender::{Input, Output};
use crate::protocol::window::Receipt;
use crate::units::{StreamOffset, TransferId};
use crate::zfs::failure::{SendFailure, verdict};

/// How often whoever looks on is told how far it is.
const MOMENT_EVERY: Duration = Duration::from_millis(200);

/// When the server has given up: how long a process that failed too may take to say so.
const SOURCE_LIMIT: Duration = Duration::from_millis(200);

/// What can happen while a stream is carried.
enum Happening {
    Heard(Heard),
    Engine(Event),
    Reopened(Reopened),
    SourceEnded(std::io::Result<Option<Ended>>),
    Tick,
    /// The reason of a fault did not come.
    NoReason,
    Stopped,
}

impl Session {
    pub(super) async fn carry_through(
        &mut self,
        request: Request,
        cargo: Cargo<'_>,
        carrying: &mut Carrying,
        watch: &mut dyn Watch,
        stop: &mut Stop,
    ) -> Result<Applied, Failure> {
        let Cargo { open, judge, .. } = cargo;
        let news = self.conversation.wish(Input::Open(request)).await?;
        self.follow(news, Some(open), &*judge, carrying, watch, stop).await
    }

    /// Does what the machine orders until the stream has arrived. `open` is asked for its source
    /// once the server is ready for it.
    pub(super) async fn follow(
        &mut self,
        mut news: Vec<Output>,
        mut open: Option<Box<Open<'_>>>,
        judge: &Judge<'_>,
        carrying: &mut Carrying,
        watch: &mut dyn Watch,
        stop: &mut Stop,
    ) -> Result<Applied, Failure> {
        loop {
            for output in std::mem::take(&mut news) {
                match output {
                    Output::Stream { transfer, start: Start::FromStart, credit } => {
                        self.engine.credit(credit);
                        let Some(open) = open.take() else { continue };
                        if let Err(failure) = self.start(open, transfer, carrying) {
                            return Err(self.fail(failure).await);
                        }
                    }
                    Output::Reached(marks, receipt) => {
                        self.advance(marks, receipt, carrying, watch);
                    }
                    Output::Stands(marks, receipt) => {
                        carrying.reached = marks;
                        self.engine.stands(receipt);
                        self.renew_lanes();
                        self.lanes.reopen();
                    }
                    Output::Applied(applied) => carrying.applied = Some(applied),
                    Output::Failed(failure) => {
                        return Err(self.settle(failure, carrying, judge).await);
                    }
                    _ => {}
                }
            }
            if let Some(applied) = carrying.applied {
                return Ok(applied);
            }
            match self.select(carrying, stop).await {
                Happening::Heard(Heard::Message(message)) => {
                    news = self.take_in(message, carrying).await?;
                }
                Happening::Heard(Heard::Lost(error)) => {
                    carrying.lost_in_silence |= error.is_silence();
                    carrying.cut = true;
                    self.conversation.reconnect(&error)?;
                }
                Happening::Heard(Heard::Back(back)) => {
                    news = self.come_back(*back, carrying).await?;
                }
                Happening::Heard(Heard::Gone(failure)) => return Err(failure),
                Happening::Engine(Event::Sent(sent)) => {
                    carrying.sent = Some(sent);
                    news = self.end_if_over(carrying).await?;
                }
                Happening::Engine(Event::Kept(Sent { total, crc32, .. })) => {
                    carrying.kept = Some(Mark { to: total, crc32 });
                    carrying.record_end();
                }
                Happening::Engine(Event::LaneLost { lane, fault }) => {
                    carrying.cut = true;
                    self.lose(lane, &fault, carrying);
                }
                Happening::Reopened(Reopened { lane, outcome, .. }) => match outcome {
                    Ok(fd) => self.engine.join(u32::from(lane), fd),
                    Err(failure) => return Err(self.fail(failure).await),
                },
                Happening::Engine(Event::Failed(fault)) => {
                    if let Some(failure) = carrying.fault_is_final(&fault) {
                        return Err(self.fail(failure).await);
                    }
                }
                Happening::SourceEnded(ended) => match judged(ended, judge) {
                    None => {
                        carrying.source_end = Some(SourceEnd::Well);
                        carrying.record_end();
                        news = self.end_if_over(carrying).await?;
                    }
                    Some(SendFailure { failure, secondary: true }) => {
                        carrying.source_end = Some(SourceEnd::Badly);
                        carrying.wait_for_reason(failure);
                    }
                    Some(SendFailure { failure, secondary: false }) => {
                        return Err(self.fail(failure).await);
                    }
                },
                Happening::Tick => {
                    carrying.told = Instant::now();
                    self.look_for_stalls(carrying);
                    self.widen_if_it_helps(carrying);
                    watch.moment(self.moment(carrying));
                }
                Happening::NoReason => {
                    if let Some((failure, _)) = carrying.fault.take() {
                        return Err(self.fail(failure).await);
                    }
                }
                Happening::Stopped => {
                    let failure = Failure::new(
                        Side::Source,
                        Class::Interrupted,
                        "stopped by a signal before the stream was complete",
                    );
                    return Err(self.fail(failure).await);
                }
            }
        }
    }

    /// The server came so far, and lets us go so far.
    fn advance(
        &mut self,
        marks: Watermarks,
        receipt: Receipt,
        carrying: &mut Carrying,
        watch: &mut dyn Watch,
    ) {
        self.engine.credit(receipt);
        if carrying.reached.fed < marks.fed {
            self.conversation.moves_on();
            // However many connections a cut has taken, it is one.
            let is_whole = self.conversation.is_up() && self.lanes.are_whole();
            if is_whole && std::mem::take(&mut carrying.cut) {
                watch.survived(Layer::Reconnect);
            }
            self.lanes.move_on();
        }
        carrying.reached = marks;
    }

    async fn select(&mut self, carrying: &mut Carrying, stop: &mut Stop) -> Happening {
        let deadline = carrying.fault.as_ref().map(|&(_, until)| until);
        let Carrying { source, source_end, .. } = carrying;
        let source_end = async {
            match source {
                Some(source) if source_end.is_none() => source.ended().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            heard = self.conversation.next() => Happening::Heard(heard),
            Some(event) = self.events.recv() => Happening::Engine(event),
            reopened = self.lanes.next() => Happening::Reopened(reopened),
            ended = source_end => Happening::SourceEnded(ended),
            () = tokio::time::sleep_until((carrying.told + MOMENT_EVERY).into()) => {
                Happening::Tick
            }
            () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now).into()),
                if deadline.is_some() => Happening::NoReason,
            () = stop.pulled() => Happening::Stopped,
        }
    }

    fn start(
        &mut self,
        open: impl FnOnce() -> Result<Opened, Failure>,
        transfer: TransferId,
        carrying: &mut Carrying,
    ) -> Result<(), Failure> {
        if let Some(records) = &carrying.records {
            records.opened();
        }
        let Opened { fd, process } = open()?;
        carrying.source = Some(Source::watch(process));
        let (progress, stream) = (&carrying.progress, carrying.stream.take());
        self.engine.carry(transfer, carrying.epoch, fd, progress, stream);
        Ok(())
    }

    /// The machine must know of bytes before it hears that they have arrived; what was read is at
    /// least what was sent.
    async fn tell_sent(&mut self, carrying: &Carrying) -> Result<Vec<Output>, Failure> {
        if carrying.source.is_none() || self.conversation.is_idle() {
            return Ok(Vec::new());
        }
        let read = carrying.progress.read();
        self.conversation.advance(Input::Sent(StreamOffset(read.0))).await
    }

    /// The server can be reached again, and may have lost its memory meanwhile.
    async fn come_back(
        &mut self,
        back: Back,
        carrying: &mut Carrying,
    ) -> Result<Vec<Output>, Failure> {
        let mut news = self.tell_sent(carrying).await?;
        match self.conversation.come_back(back).await {
            Ok(orders) => {
                news.extend(orders);
                self.reopen_lanes(carrying);
            }
            Err(NotBack::Lost(error)) => self.conversation.reconnect(&error)?,
            Err(NotBack::Over(failure)) => return Err(failure),
        }
        Ok(news)
    }

    /// A message during a transfer.
    async fn take_in(
        &mut self,
        message: Message,
        carrying: &Carrying,
    ) -> Result<Vec<Output>, Failure> {
        let mut news = self.tell_sent(carrying).await?;
        news.extend(self.conversation.advance(Input::Received(message)).await?);
        Ok(news)
    }

    /// Tells the server that the stream is complete, once its bytes are out and its process has
    /// ended well.
    async fn end_if_over(&mut self, carrying: &Carrying) -> Result<Vec<Output>, Failure> {
        let (Some(Sent { total, crc32, .. }), Some(SourceEnd::Well)) =
            (carrying.sent, carrying.source_end)
        else {
            return Ok(Vec::new());
        };
        if let Some(records) = &carrying.records {
            records.ended(Mark { to: total, crc32 });
        }
        self.conversation.advance(Input::StreamEnded { total, crc32 }).await
    }

    /// Tells the server why we give up.
    async fn fail(&mut self, failure: Failure) -> Failure {
        // It learns as much from the end of the connection.
        let _ = self.conversation.advance(Input::Failed(failure.clone())).await;
        failure
    }

    /// The one failure to tell when the server has given up: of two processes at the ends of one
    /// stream, the one that failed by itself.
    async fn settle(
        &mut self,
        failure: Failure,
        carrying: &mut Carrying,
        judge: &Judge<'_>,
    ) -> Failure {
        let Some(mut source) = carrying.source.take() else { return failure };
        let ended = match tokio::time::timeout(SOURCE_LIMIT, source.ended()).await {
            Ok(ended) => ended.ok().flatten(),
            // It runs well, so it is not the cause; stopped by us it has nothing to add.
            Err(_elapsed) => {
                source.stop().await;
                None
            }
        };
        let sent = ended.as_ref().and_then(judge);
        verdict(sent, Some(failure.clone())).unwrap_or(failure)
    }
}

fn judged(ended: std::io::Result<Option<Ended>>, judge: &Judge<'_>) -> Option<SendFailure> {
    match ended {
        Ok(ended) => ended.as_ref().and_then(judge),
        Err(error) => {
            let what = format!("wait for the process that makes the stream: {error}");
            let failure = Failure::new(Side::Source, Class::Machine, what);
            Some(SendFailure { failure, secondary: false })
        }
    }
}
