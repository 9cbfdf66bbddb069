//! Hears what the other host tells of a copy that it sends, and does what it asks for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::{Receiver, UnboundedSender};

use super::Told;
use crate::cli::attend::CONNECTIONS_MAX;
use crate::cli::copied::Copied;
use crate::cli::events::{Event, tell};
use crate::client::ssh::{END_LIMIT, FarSide, Ssh};
use crate::client::{Held, Stop, TreeWatch, Watch, Would};
use crate::dataset::DatasetName;
use crate::units::Bytes;

/// Connections through ssh that there may be at once: those of a session, and some that are about
/// to end.
const CALLS_MAX: usize = 2 * CONNECTIONS_MAX as usize;

/// One run of what ssh has started.
pub(super) struct Following<'a> {
    ssh: &'a Ssh,
    sockets: UnboundedSender<UnixStream>,
    /// One more for each connection through ssh.
    calls: Arc<()>,
    watch: &'a dyn TreeWatch,
    /// Who looks on at each dataset that is on its way.
    streams: BTreeMap<Option<DatasetName>, Stream<'a>>,
    as_json: bool,
    began: bool,
    moved: Option<Instant>,
}

/// One dataset that is on its way.
struct Stream<'a> {
    watch: Box<dyn Watch + 'a>,
    fed: Bytes,
}

/// Datasets that the other host may tell of at once.
const STREAMS_MAX: usize = 64;

impl<'a> Following<'a> {
    /// Tells `watch`, or a program, and hands the ends of connections to `sockets`.
    pub fn new(
        ssh: &'a Ssh,
        sockets: UnboundedSender<UnixStream>,
        watch: &'a dyn TreeWatch,
        as_json: bool,
    ) -> Following<'a> {
        let (calls, streams, began, moved) = (Arc::default(), BTreeMap::new(), false, None);
        Following { ssh, sockets, calls, watch, streams, as_json, began, moved }
    }

    /// Whether it has said anything that is ours.
    pub fn began(&self) -> bool {
        self.began
    }

    /// When bytes were last known to have been taken here.
    pub fn moved(&self) -> Option<Instant> {
        self.moved
    }

    /// Until it has ended. `None`: without a word about what became of the copy.
    pub async fn follow(
        &mut self,
        far: &mut FarSide,
        mut lines: Receiver<String>,
        stop: &mut Stop,
    ) -> Option<Told> {
        let mut told = None;
        let mut patience = None;
        let mut is_stopped = false;
        loop {
            let end = patience.unwrap_or_else(Instant::now);
            tokio::select! {
                line = lines.recv() => {
                    let Some(line) = line else { return told };
                    told = self.hear(&line).or(told);
                }
                () = stop.pulled(), if !is_stopped => is_stopped = true,
                () = tokio::time::sleep_until(end.into()), if patience.is_some() => return told,
            }
            if patience.is_none() && (told.is_some() || is_stopped) {
                far.hang_up();
                patience = Some(Instant::now() + END_LIMIT);
            }
        }
    }

    /// What became of the copy, if this is it.
    fn hear(&mut self, line: &str) -> Option<Told> {
        let Some(event) = Event::read(line) else {
            tracing::debug!(line, "the other host said");
            return None;
        };
        self.began = true;
        match event {
            Event::Failed(failure) => return Some(Err(failure.into_owned())),
            Event::Call { address } => self.answer(address),
            Event::Ready => {}
            event if self.as_json => {
                tell(&event);
                return outcome(event);
            }
            event => {
                self.show(&event);
                return outcome(event);
            }
        }
        None
    }

    fn show(&mut self, event: &Event) {
        match event {
            Event::Planned(planned) => self.watch.planned(planned),
            Event::Begin { dataset, what, estimated } => {
                if let Some(stream) = self.stream(dataset.as_deref()) {
                    stream.fed = Bytes(0);
                    stream.watch.begin(what, *estimated);
                }
            }
            Event::Moment { dataset, far } => {
                let Some(stream) = self.stream(dataset.as_deref()) else { return };
                stream.watch.moment((*far).into());
                if far.fed > stream.fed {
                    stream.fed = far.fed;
                    self.moved = Some(Instant::now());
                }
            }
            Event::Survived { dataset, by } => {
                if let Some(stream) = self.stream(dataset.as_deref()) {
                    stream.watch.survived(*by);
                }
            }
            Event::Retry { dataset, failure } => {
                if let Some(stream) = self.stream(dataset.as_deref()) {
                    stream.watch.tried_again(failure);
                }
            }
            Event::End { dataset } => {
                if let Some(stream) = self.stream(dataset.as_deref()) {
                    stream.watch.end();
                }
            }
            Event::Copied { dataset, snapshot, took, unpruned } => {
                self.streams.remove(&Some(dataset.clone().into_owned()));
                let (snapshot, unpruned) = (snapshot.clone().into_owned(), unpruned.clone());
                let held = Held { snapshot, summary: (*took).into(), unpruned };
                self.watch.ended(dataset, &Ok(held));
            }
            Event::NotCopied { dataset, failure } => {
                self.streams.remove(&Some(dataset.clone().into_owned()));
                self.watch.ended(dataset, &Err(failure.clone().into_owned()));
            }
            Event::WouldCopy { dataset, target, streams, bytes } => {
                let (dataset, target) = (dataset.clone().into_owned(), target.clone().into_owned());
                self.watch.would(&Would::Copy {
                    dataset,
                    target,
                    streams: *streams,
                    bytes: *bytes,
                });
            }
            Event::WouldPrune { side, report } => {
                let report = report.clone().into_owned();
                self.watch.would(&Would::Prune { side: *side, report });
            }
            Event::WouldRun { side, command } => {
                self.watch
                    .would(&Would::Run { side: *side, command: command.clone().into_owned() });
            }
            Event::Done { .. } | Event::Failed(_) | Event::Ready | Event::Call { .. } => {}
        }
    }

    /// Whoever looks on at a dataset; `None` where the other host tells of too many.
    fn stream(&mut self, dataset: Option<&DatasetName>) -> Option<&mut Stream<'a>> {
        let key = dataset.cloned();
        if self.streams.len() >= STREAMS_MAX && !self.streams.contains_key(&key) {
            return None;
        }
        let watch = self.watch;
        let begin = |dataset| Stream { watch: watch.dataset(dataset), fed: Bytes(0) };
        match self.streams.entry(key) {
            Entry::Occupied(stream) => Some(stream.into_mut()),
            Entry::Vacant(place) => Some(place.insert(begin(dataset?))),
        }
    }

    /// Brings a connection to where the other side waits for one.
    fn answer(&self, address: SocketAddr) {
        // It may only ask for itself, and not for all that there is.
        let is_mine = address.ip().is_loopback();
        if !is_mine || Arc::strong_count(&self.calls) > CALLS_MAX {
            tracing::warn!(%address, "the other host asks for a connection too many");
            return;
        }
        match self.ssh.connect(address, Arc::clone(&self.calls)) {
            // Nobody takes it where all is over.
            Ok(socket) => drop(self.sockets.send(socket)),
            Err(error) => tracing::warn!(%error, "start ssh for a connection"),
        }
    }
}

fn outcome(event: Event) -> Option<Told> {
    let Event::Done { holds, snapshot, took } = event else { return None };
    let (holds, snapshot) = (holds.unwrap_or_default().into_owned(), snapshot.map(Cow::into_owned));
    Some(Ok(Copied { holds, snapshot, summary: took.into(), missing: None }))
}
