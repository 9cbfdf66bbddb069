//! Hears what the other host tells of a copy that it sends, and does what it asks for.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Receiver, UnboundedSender};

use super::Told;
use crate::cli::attend::CONNECTIONS_MAX;
use crate::cli::events::{Event, tell};
use crate::client::ssh::{END_LIMIT, FarSide, Ssh};
use crate::client::{Moment, Stop, Summary, Watch};
use crate::engine::sender::Level;
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
    watch: &'a mut dyn Watch,
    as_json: bool,
    began: bool,
    fed: Bytes,
    moved: Option<Instant>,
}

impl<'a> Following<'a> {
    /// Tells `watch`, or a program, and hands the ends of connections to `sockets`.
    pub fn new(
        ssh: &'a Ssh,
        sockets: UnboundedSender<UnixStream>,
        watch: &'a mut dyn Watch,
        as_json: bool,
    ) -> Following<'a> {
        let (calls, began, fed, moved) = (Arc::default(), false, Bytes(0), None);
        Following { ssh, sockets, calls, watch, as_json, began, fed, moved }
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
            Event::Begin { what, estimated } => {
                self.fed = Bytes(0);
                self.watch.begin(what, *estimated);
            }
            &Event::Moment { read, wire, fed, spooled, connections, level, lane, stands_still } => {
                if fed > self.fed {
                    (self.fed, self.moved) = (fed, Some(Instant::now()));
                }
                let (level, route) = (level.map(Level::from), lane);
                let moment =
                    Moment { read, wire, fed, spooled, connections, level, route, stands_still };
                self.watch.moment(moment);
            }
            Event::End => self.watch.end(),
            _ => {}
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
    let Event::Done { holds, streams, bytes, wire, spooled, kept, millis } = event else {
        return None;
    };
    let taken = Duration::from_millis(millis);
    let summary = Summary { streams, bytes, wire, kept, spooled, taken };
    Some(Ok((holds.unwrap_or_default().into_owned(), summary)))
}
