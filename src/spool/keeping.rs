//! Keeps the records of one transfer, on a thread of its own.
//!
//! The [`Keeper`](crate::breakpoint::keeper) decides, this writes: one record at a time, and never
//! so that anybody who carries the stream waits for the disk. How far the stream is, the thread
//! looks up by itself; the session tells it what else happens. Where the stream itself is kept in
//! breakpoint files, the thread makes them durable before a record claims them. What must never
//! happen here: that a transfer fails because its records do. The first error retires the file,
//! and is said once.

#[cfg(test)]
mod kept;
mod recorder;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::Sender;

use self::recorder::{Base, Outliving, Recorder};
use super::handover::Handover;
use super::left::Left;
use super::names::Names;
use super::notes::Note;
pub use super::notes::{Follow, Look, Order, Over};
use super::segments::{Segments, Spool};
use super::trail::Trail;
use super::transfers::Transfers;
use crate::breakpoint::record::{Job, Mark};

/// The records of one transfer. Dropped without a word, it leaves the file as it is; one that was
/// never [`Keeping::opened`] leaves none.
#[derive(Debug)]
pub struct Keeping {
    notes: Sender<Note>,
    thread: JoinHandle<()>,
}

/// The breakpoint files of a stream that shall outlive its process, for whoever writes them.
#[derive(Debug)]
pub struct Stream {
    /// The files.
    pub segments: Segments,
    /// What is to be told of the writes.
    pub trail: Trail,
}

impl Transfers {
    /// Begins to keep the records of a transfer. When this returns, its epoch is durable: bytes of
    /// it may flow. `None` where no records can be kept; that was said. Blocks.
    pub fn begin(&self, job: Job, names: Names, look: Look) -> Option<Keeping> {
        let base = Base { folder: self.clone(), job, names, look };
        let begun = start(|_| Recorder::begin(base, None));
        let (keeping, _) = begun.inspect_err(|error| self.tell(error)).ok()?;
        Some(keeping)
    }

    /// The same for a stream that is kept in breakpoint files, with what whoever comes after this
    /// process has to know.
    pub fn begin_kept(
        &self,
        job: Job,
        names: Names,
        handover: Handover,
        look: Look,
        spool: &Spool,
        follow: Follow,
    ) -> Option<(Keeping, Stream)> {
        let (base, spool) = (Base { folder: self.clone(), job, names, look }, spool.clone());
        let begin = move |notes| {
            let outliving = Outliving { spool: &spool, handover: &handover, follow };
            let (recorder, segments) = Recorder::begin(base, Some(outliving))?;
            let trail = Trail::new(notes, Mark::default());
            Ok((recorder, segments.map(|segments| Stream { segments, trail })))
        };
        let started = start(begin).inspect_err(|error| self.tell(error));
        let (keeping, stream) = started.ok()?;
        Some((keeping, stream?))
    }

    /// Goes on with a stream whose process has died. Blocks.
    pub fn go_on(
        &self,
        left: Left,
        look: Look,
        spool: &Spool,
        follow: Follow,
    ) -> io::Result<(Keeping, Stream)> {
        let (folder, spool, before) = (self.clone(), spool.clone(), left.found.end);
        start(move |notes| {
            let (recorder, segments) = Recorder::go_on(folder, left, look, &spool, follow)?;
            Ok((recorder, Stream { segments, trail: Trail::new(notes, before) }))
        })
    }
}

/// Makes a recorder on a thread of its own, which runs it from then on.
fn start<T: Send + 'static>(
    begin: impl FnOnce(Sender<Note>) -> io::Result<(Recorder, T)> + Send + 'static,
) -> io::Result<(Keeping, T)> {
    let (ready, first) = mpsc::channel();
    let (notes, inbox) = crossbeam_channel::unbounded();
    let for_trail = notes.clone();
    let keep = move || match begin(for_trail) {
        Ok((recorder, made)) => {
            // One who waits no longer has dropped the notes too.
            let _ = ready.send(Ok(made));
            recorder.run(&inbox);
        }
        Err(error) => drop(ready.send(Err(error))),
    };
    let thread = thread::Builder::new().name("zferry-record".to_owned()).spawn(keep)?;
    let made = first.recv().map_err(io::Error::other)??;
    Ok((Keeping { notes, thread }, made))
}

impl Keeping {
    /// Both sides are ready for the stream: records of earlier transfers of the job have no use
    /// any more.
    pub fn opened(&self) {
        self.tell(Note::Opened);
    }

    /// The stream's length and CRC32 are known. At a client all of it was read.
    pub fn ended(&self, end: Mark) {
        self.tell(Note::Ended(end));
    }

    /// The transfer is over; when this returns, the file says so or is gone. Blocks.
    pub fn over(self, over: Over) {
        self.tell(Note::Over(over));
        let _panicked = self.thread.join();
    }

    fn tell(&self, note: Note) {
        // A thread that is gone has panicked; the transfer does not depend on it.
        let _ = self.notes.send(note);
    }
}
