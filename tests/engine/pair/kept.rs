//! Streams that are kept in breakpoint files, and processes that die with them.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sys::cipher::Conduit;
use sys::pipe::Pipe;
use zferry::breakpoint::identity::SessionId;
use zferry::breakpoint::record::{Cargo, Job, Role};
use zferry::engine::progress::Progress;
use zferry::engine::receiver::{self, Agreed, Feed, Receiver, Sink};
use zferry::engine::sender::{Resumed, Sender};
use zferry::engine::settings::{Spool, When};
use zferry::protocol::frame::Codec;
use zferry::protocol::message::{self, Limits, Open, Request};
use zferry::protocol::negotiate::Agreed as Agreement;
use zferry::protocol::secret::JoinSecret;
use zferry::protocol::version::Version;
use zferry::spool::handover::Handover;
use zferry::spool::keeping::{Keeping, Look, Order, Stream};
use zferry::spool::left::Left;
use zferry::spool::names::Names;
use zferry::spool::transfers::Transfers;
use zferry::units::{Bytes, Sequence};

use super::{BLOCK_BYTES, LIMIT, Pair, TRANSFER, read_out};

fn look(progress: &Arc<Progress>) -> Look {
    let progress = Arc::clone(progress);
    Box::new(move || progress.reached(TRANSFER))
}

/// Nobody looks at it here.
fn handover() -> Handover {
    let limits =
        Limits { block_bytes_max: Bytes(BLOCK_BYTES), connections: 1, codecs: [Codec::Raw].into() };
    let request = Request {
        stream: message::Stream::Pipe,
        epoch: 1,
        estimated_bytes: None,
        block_bytes: Bytes(BLOCK_BYTES),
        codec: Codec::Raw,
        interrupted_at: None,
    };
    let agreed = Agreement { version: Version::V1, limits };
    let open = Open { transfer: TRANSFER, request };
    Handover::new(("a peer".to_owned(), None), JoinSecret::new([7; 16]), &agreed, open, Sequence(0))
}

impl Pair {
    /// The receiver dies, and another takes its place: it knows what stands in the files, feeds a
    /// new sink, and the sender stands where that one does.
    pub fn receiver_dies(&mut self) {
        let dead = self.swap_receiver(Sequence(0));
        drop(dead.stop());
        self.receiver_records = None;
        // Its sink has seen the end of it.
        self.start = None;
        drop(self.sink.take().unwrap().join().unwrap());
        let left = self.left(Role::Server);
        drop(self.swap_receiver(left.next_frame()));
        let to = Pipe::new(1 << 20).unwrap();
        let slow = self.plan.slow_sink;
        self.sink = Some(std::thread::spawn(move || read_out(File::from(to.reader), slow)));
        let (found, spool) = (left.found.clone(), self.plan.receiver_spool.clone().unwrap());
        let progress = look(self.receiver.progress());
        let gone_on = self.transfers().go_on(left, progress, &spool, self.receiver.follow());
        let (records, stream) = gone_on.unwrap();
        self.receiver_records = Some(records);
        let sink = Sink { fd: to.writer, feed: Feed::Splice };
        let kept = receiver::KeptStream { stream, found: Some(found) };
        self.receiver.begin(TRANSFER, 1, sink, Some(kept));
        if let Some(end) = self.end {
            self.receiver.end(TRANSFER, end.to, end.crc32);
        }
        self.sender.stands(self.receiver.receipt());
        (0..self.plan.lanes).for_each(|lane| self.join(lane));
    }

    /// The sender dies with all of its stream in files, and another sends the rest.
    pub fn sender_dies(&mut self) {
        let end = self.kept.expect("a stream that is kept whole");
        let records = self.sender_records.take().unwrap();
        records.ended(end);
        while self.newest_end() != Some(end) {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(records);
        let (inbox, places) = (self.sender_inbox.clone(), self.places());
        let stub = Sender::start(&super::Plan::default().settings(2), places, &inbox, None);
        drop(std::mem::replace(&mut self.sender, stub.unwrap()));
        let left = self.left(Role::Client);
        let (found, receipt) = (left.found.clone(), self.receiver.receipt());
        let taken = found.place_of(receipt.credit.taken).expect("what was not taken is there");
        self.progress = Arc::default();
        let spool = self.plan.spool.clone().unwrap();
        let gone_on = self.transfers().go_on(
            left,
            look(&self.progress),
            &spool,
            // Nothing is deleted before the end here.
            Box::new(|_: Order| ()),
        );
        let (records, stream) = gone_on.unwrap();
        self.sender_records = Some(records);
        let progress = Arc::clone(&self.progress);
        let resumed = Resumed { transfer: TRANSFER, stream, found, receipt, taken, progress };
        let settings = self.plan.settings(2);
        self.sender = Sender::start(&settings, self.places(), &inbox, Some(resumed)).unwrap();
        self.end = Some(end);
        self.receiver.end(TRANSFER, end.to, end.crc32);
        (0..self.plan.lanes).for_each(|lane| self.join(lane));
    }

    /// Everything that the sender was told to have been taken is durable at the receiver.
    pub fn durable(&self) -> u64 {
        self.receiver.durable().0
    }

    /// The end of the blocks that the sender was told as taken.
    pub fn told_as_taken(&self) -> u64 {
        self.progress.reached(TRANSFER).mark.to.0
    }

    pub(super) fn keep_sent(&mut self) -> Option<Stream> {
        let spool = is_kept(self.plan.spool.as_ref())?;
        let (progress, follow) = (look(&self.progress), self.sender.follow());
        let (records, stream) = self.begin_kept(Role::Client, &spool, progress, follow);
        self.sender_records = Some(records);
        Some(stream)
    }

    pub(super) fn keep_received(&mut self) -> Option<receiver::KeptStream> {
        let spool = is_kept(self.plan.receiver_spool.as_ref())?;
        let (progress, follow) = (look(self.receiver.progress()), self.receiver.follow());
        let (records, stream) = self.begin_kept(Role::Server, &spool, progress, follow);
        self.receiver_records = Some(records);
        Some(receiver::KeptStream { stream, found: None })
    }

    fn begin_kept(
        &self,
        role: Role,
        spool: &Spool,
        look: Look,
        follow: Box<dyn Fn(Order) + Send>,
    ) -> (Keeping, Stream) {
        let (session, transfer) = (SessionId([1; 16]), TRANSFER);
        let job = Job { role, session, transfer, epoch: 1, cargo: Cargo::Pipe };
        let names = Names::new(role, "a".to_owned(), "b".to_owned());
        let begun = self.transfers().begin_kept(job, names, handover(), look, spool, follow);
        let (records, stream) = begun.unwrap();
        records.opened();
        (records, stream)
    }

    fn transfers(&self) -> Transfers {
        let state = self.plan.state.as_ref().expect("a folder for records");
        Transfers::open(state, self.plan.backend).unwrap()
    }

    fn places(&self) -> Vec<Option<Conduit>> {
        (0..self.plan.lanes).map(|_| None).collect()
    }

    /// Puts another receiver in the place of this one, which it gives back.
    fn swap_receiver(&mut self, first: Sequence) -> Receiver {
        let codec = self.plan.settings(1).codec();
        let agreed = Agreed { codec, block_bytes: Bytes(BLOCK_BYTES) };
        let (settings, inbox) = (self.plan.receiver_settings(), self.receiver_inbox.clone());
        let receiver = Receiver::start(&settings, agreed, self.places(), &inbox, first);
        std::mem::replace(&mut self.receiver, receiver.unwrap())
    }

    /// What a dead one has left, once its thread is gone.
    fn left(&self, role: Role) -> Left {
        let begun = Instant::now();
        loop {
            match self.transfers().left(role, "a") {
                Ok(Some(left)) => return left,
                other => assert!(begun.elapsed() < LIMIT, "{other:?}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn newest_end(&self) -> Option<zferry::breakpoint::record::Mark> {
        let state = self.plan.state.as_ref().unwrap();
        let entries = zferry::spool::transfers::list(state).unwrap();
        entries.iter().filter_map(|entry| entry.newest).find_map(|record| {
            let is_whole = Some(record.progress.spooled) == record.progress.end.map(|end| end.to);
            (record.job.role == Role::Client && is_whole).then_some(record.progress.end)?
        })
    }
}

fn is_kept(spool: Option<&Spool>) -> Option<Spool> {
    spool.filter(|spool| spool.when == When::Always).cloned()
}
