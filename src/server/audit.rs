//! What clients asked of a resident server and how that ended: a line for each, whatever else is
//! logged.
//!
//! For whoever has to know later who put what where. What must never happen here: a stream that
//! was taken, or a wish that was refused, of which no line tells; and a line that a client can
//! break, or that says what another client did.

use std::time::Instant;

use super::onlooker::{Outcome, Told};
use crate::error::Failure;
use crate::protocol::message::{DatasetStream, RelativeName, Stream};
use crate::protocol::prune::Prune;
use crate::retention::Report;
use crate::trust::Fingerprint;
use crate::units::Bytes;

/// What its lines are logged as: [`crate::cli`] lets all of them through.
pub const TARGET: &str = "audit";

/// A wish that has not ended.
#[derive(Debug)]
pub(super) struct Entry {
    wish: Wish,
    /// By its full name, as soon as that is known.
    dataset: String,
    asked: Instant,
    /// What the target has taken; `None` before a stream was let in.
    bytes: Option<Bytes>,
    /// How many snapshots were destroyed.
    destroyed: Option<u64>,
}

#[derive(Debug)]
enum Wish {
    List,
    ListTree,
    Abort,
    Prune { dry_run: bool },
    Receive { snapshot: String, form: &'static str },
}

/// Whose it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whose<'a> {
    /// Its name and address.
    pub client: &'a str,
    /// Its name alone, where it has one.
    pub name: Option<&'a str>,
    /// `None` in clear.
    pub key: Option<Fingerprint>,
}

impl Entry {
    /// To be told what a dataset holds.
    pub fn list(name: &RelativeName) -> Entry {
        Entry::new(Wish::List, name.as_str())
    }

    /// To be told what a dataset and all below it hold.
    pub fn list_tree(name: &RelativeName) -> Entry {
        Entry::new(Wish::ListTree, name.as_str())
    }

    /// That what is partly received is given up.
    pub fn abort(name: &RelativeName) -> Entry {
        Entry::new(Wish::Abort, name.as_str())
    }

    /// That snapshots are pruned.
    pub fn prune(prune: &Prune) -> Entry {
        Entry::new(Wish::Prune { dry_run: prune.dry_run }, prune.dataset.as_str())
    }

    /// To send a stream.
    pub fn receive(stream: &Stream) -> Entry {
        match stream {
            Stream::Dataset(stream) => {
                let (snapshot, form) = (stream.snapshot.as_str().to_owned(), form_of(stream));
                Entry::new(Wish::Receive { snapshot, form }, stream.target.as_str())
            }
            Stream::Pipe => {
                let wish = Wish::Receive { snapshot: String::new(), form: "bare" };
                Entry::new(wish, "a pipe")
            }
        }
    }

    fn new(wish: Wish, dataset: &str) -> Entry {
        let dataset = dataset.to_owned();
        Entry { wish, dataset, asked: Instant::now(), bytes: None, destroyed: None }
    }

    /// What the client's name stands for.
    pub fn is_about(&mut self, place: String) {
        self.dataset = place;
    }

    /// So much of its stream was taken.
    pub fn has_taken(&mut self, bytes: Bytes) {
        self.bytes = Some(bytes);
    }

    /// So many snapshots were destroyed.
    pub fn has_pruned(&mut self, report: &Report) {
        let is_true = matches!(self.wish, Wish::Prune { dry_run: false });
        self.destroyed =
            (is_true && (report.failure.is_none() || report.count > 0)).then_some(report.count);
    }

    /// It was done, or refused, or has failed: writes the line, and says the same for whoever
    /// counts. That something was listed is not worth a line.
    pub fn ended(self, whose: Whose<'_>, failure: Option<&Failure>) -> Option<Told> {
        let Entry { wish, dataset, asked, bytes, destroyed } = self;
        let Whose { client, name, key } = whose;
        let outcome = match (&wish, failure, bytes) {
            (Wish::List | Wish::ListTree | Wish::Prune { dry_run: true }, None, _) => return None,
            (Wish::Prune { .. }, None, _) => Outcome::Pruned,
            (Wish::Prune { .. }, Some(_), _) if destroyed.is_some() => Outcome::Failed,
            (Wish::Abort, None, _) => Outcome::GivenUp,
            (Wish::Receive { .. }, None, _) => Outcome::Received,
            (Wish::Receive { .. }, Some(_), Some(_)) => Outcome::Failed,
            (_, Some(_), _) => Outcome::Refused,
        };
        let (wish, snapshot) = match &wish {
            Wish::List => ("list", None),
            Wish::ListTree => ("list a tree", None),
            Wish::Abort => ("give up a part", None),
            Wish::Prune { .. } => ("prune", None),
            Wish::Receive { snapshot, form } => (*form, Some(snapshot.as_str())),
        };
        let (key, seconds) = (key.map(tracing::field::display), asked.elapsed().as_secs_f32());
        // As a text and not by its Display: then line ends in it do not end the line.
        let reason = failure.map(|failure| failure.what.as_str());
        tracing::info!(
            target: TARGET,
            client, key, wish, dataset, snapshot, bytes = bytes.map(|bytes| bytes.0), destroyed,
            seconds, reason,
            "audit: {outcome}"
        );
        Some(Told { client: name.map(str::to_owned), outcome, dataset, bytes, destroyed })
    }
}

fn form_of(stream: &DatasetStream) -> &'static str {
    match (stream.from.is_some(), stream.resumed) {
        _ if stream.origin.is_some() => {
            if stream.resumed {
                "rest of a clone"
            } else {
                "clone"
            }
        }
        (false, false) => "full",
        (true, false) => "incremental",
        (false, true) => "rest of a full",
        (true, true) => "rest of an incremental",
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::error::{Class, Side};

    /// What is logged, as text.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nothing_that_a_client_or_zfs_says_ends_a_line() {
        let log = Log::default();
        let writer = log.clone();
        let to_log =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let what = "no\n INFO audit: received client=\"another\"\u{1b}[2K";
        let failure = Failure::new(Side::Target, Class::Refused, what);
        tracing::subscriber::with_default(to_log, || {
            let entry = Entry::abort(&"a b".parse().unwrap());
            let told = entry.ended(Whose { client: "x\ny", name: None, key: None }, Some(&failure));
            assert_eq!(told.unwrap().outcome, Outcome::Refused);
        });
        let said = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(
            said.contains("client=\"x\\ny\"") && said.contains("reason=\"no\\n INFO"),
            "{said}"
        );
        assert!(!said.contains('\u{1b}'), "{said}");
    }
}
