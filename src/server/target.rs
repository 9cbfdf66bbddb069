//! Where one stream goes, and what is done there, from its opening to its end.

use super::pipe::Pipe;
use super::place::Place;
use super::taker::Prepared;
use super::wished::{Verified, Wished};
use crate::error::{Class, Failure, Side};
use crate::listing::TargetState;
use crate::process::Ended;
use crate::protocol::message::Stream;

/// Where one stream goes, as it was judged when its client asked.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// Into a dataset.
    Dataset(Box<Wished>),
    /// Through a pipe.
    Pipe(Pipe),
}

impl Target {
    /// Into a dataset.
    pub fn of(wished: Wished) -> Target {
        Target::Dataset(Box::new(wished))
    }

    /// The dataset, where it is one.
    pub fn wished(&self) -> Option<&Wished> {
        match self {
            Target::Dataset(wished) => Some(wished),
            Target::Pipe(_) => None,
        }
    }

    /// What it has for itself while a stream comes.
    pub fn place(&self) -> Place {
        match self {
            Target::Dataset(wished) => Place::Dataset(wished.dataset.clone()),
            Target::Pipe(pipe) => Place::Pipe(pipe.name()),
        }
    }

    /// What it holds.
    pub fn look_up(&self) -> Result<TargetState, Failure> {
        match self {
            Target::Dataset(wished) => wished.look_up(),
            Target::Pipe(_) => Ok(TargetState::Absent),
        }
    }

    /// Makes ready whatever takes the stream; `whole` as for [`Wished::prepare`].
    pub fn prepare(&self, stream: &Stream, whole: bool) -> Result<Prepared, Failure> {
        match (self, stream) {
            (Target::Dataset(wished), Stream::Dataset(stream)) => wished.prepare(stream, whole),
            (Target::Pipe(pipe), _) => pipe.prepare(),
            (Target::Dataset(_), Stream::Pipe) => {
                let what = "a bare stream is none for a dataset";
                Err(Failure::new(Side::Target, Class::Refused, what))
            }
        }
    }

    /// Whether the stream is where it should be, now that its process has ended: for a dataset by
    /// what the target holds, whatever the process says of itself.
    pub fn verify(&self, stream: &Stream, ended: Option<&Ended>) -> Result<Verified, Failure> {
        match (self, stream) {
            (Target::Dataset(wished), Stream::Dataset(stream)) => wished.verify(stream, ended),
            _ => match ended.and_then(|ended| self.complaint(ended)) {
                Some(failure) => Err(failure),
                None => Ok(Verified { guid: None, is_rooted: true }),
            },
        }
    }

    /// The failure of a process that ended badly; `None` if it says that all went well.
    pub fn complaint(&self, ended: &Ended) -> Option<Failure> {
        match self {
            Target::Dataset(wished) => wished.complaint(ended),
            Target::Pipe(pipe) => pipe.complaint(ended),
        }
    }
}
