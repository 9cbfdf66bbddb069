//! Where a stream comes from: a process that writes it, or a descriptor that we were given.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::process::{Ended, Process, Stopper};

/// How long a source that is not wanted any more may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);

/// A stream that is being read.
pub(super) struct Source {
    stopper: Option<Stopper>,
    ended: Option<oneshot::Receiver<std::io::Result<Ended>>>,
}

/// What a source is, before it is read.
pub(super) struct Opened {
    /// Its bytes.
    pub fd: OwnedFd,
    /// What writes them, where that is a process of ours.
    pub process: Option<Process>,
}

impl Source {
    /// Watches over the process, if there is one.
    pub fn watch(process: Option<Process>) -> Source {
        let Some(process) = process else { return Source { stopper: None, ended: None } };
        let stopper = process.stopper();
        let (tell, ended) = oneshot::channel();
        tokio::task::spawn_blocking(move || drop(tell.send(process.wait())));
        Source { stopper: Some(stopper), ended: Some(ended) }
    }

    /// How its process ended; at once `None` where there is none. To be asked once.
    pub async fn ended(&mut self) -> std::io::Result<Option<Ended>> {
        let Some(waiting) = &mut self.ended else { return Ok(None) };
        let ended = waiting.await;
        self.ended = None;
        match ended {
            Ok(ended) => ended.map(Some),
            Err(_gone) => Err(std::io::Error::other("the thread that waited for it has died")),
        }
    }

    /// Ends the process, if it still runs, and says how it ended.
    pub async fn stop(mut self) -> Option<Ended> {
        let stopper = self.stopper.clone()?;
        self.ended.as_ref()?;
        // That it has just ended by itself is as good.
        let _ = stopper.terminate();
        if let Ok(ended) = tokio::time::timeout(END_LIMIT, self.ended()).await {
            return ended.ok()?;
        }
        let _ = stopper.kill();
        self.ended().await.ok()?
    }
}
