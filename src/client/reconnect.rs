//! Gets a session's control connection back after it was lost.
//!
//! Runs beside the session, which goes on to read its source meanwhile. Ends with a connection on
//! which the server has agreed to go on, with its refusal, or when patience runs out.

use std::time::{Duration, Instant};

use sys::control;
use tokio::sync::oneshot;

use super::dial::Dial;
use crate::backoff::Backoff;
use crate::error::{Class, Failure, Side};
use crate::link::{self, Answer, Link};
use crate::protocol::secret::JoinSecret;
use crate::protocol::standing::{Return, Returned};

/// The wait before the attempt that follows the first.
const FIRST_WAIT: Duration = Duration::from_millis(10);

/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Patience that go on until they succeed, or until this is dropped.
pub(super) struct Reconnect {
    outcome: oneshot::Receiver<Result<Back, Failure>>,
}

/// A connection over which the session goes on.
pub(super) struct Back {
    pub link: Link,
    /// What the server knows.
    pub server: Returned,
    /// Where the next series goes on, if this connection is lost before anything moved.
    pub patience: Patience,
}

/// What is left for one series of attempts, over as many losses as there are before anything moves.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    backoff: Backoff,
    since: Instant,
    limit: Duration,
    made: u32,
}

impl Patience {
    /// Begins now.
    pub fn begin(limit: Duration) -> Patience {
        let backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT, u64::from(std::process::id()));
        Patience { backoff, since: Instant::now(), limit, made: 0 }
    }

    /// How many there were.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// Waits until the next one is due: the very first at once. `false`: patience has run out.
    pub async fn next(&mut self) -> bool {
        if self.made > 0 {
            let wait = self.backoff.wait();
            if self.since.elapsed() + wait >= self.limit {
                return false;
            }
            tokio::time::sleep(wait).await;
        }
        self.made += 1;
        true
    }

    /// The failure when patience has run out, after the `last` of the attempts.
    pub fn exhausted(&self, last: Option<Failure>) -> Failure {
        let seconds = self.since.elapsed().as_secs();
        let mut what = format!("the connection was lost and did not come back in {seconds} s");
        if let Some(last) = last {
            what = format!("{what}: {}", last.what);
        }
        Failure::new(Side::Network, Class::Interrupted, what)
            .with_remedy("run the same command again, or use a longer --retry-for")
    }
}

impl Reconnect {
    /// Begins. `client` is what this end knows.
    pub fn start(dial: Dial, secret: JoinSecret, client: Return, patience: Patience) -> Reconnect {
        let (mut tell, outcome) = oneshot::channel();
        control::spawn(async move {
            let back = tokio::select! {
                back = try_all(&dial, secret, client, patience) => back,
                () = tell.closed() => return,
            };
            // Nobody waits any more when the session has ended.
            drop(tell.send(back));
        });
        Reconnect { outcome }
    }

    /// Waits for the end of the attempts; to be asked until it answers.
    pub async fn back(&mut self) -> Result<Back, Failure> {
        (&mut self.outcome).await.unwrap_or_else(|_gone| {
            let what = "the task that connects again has died";
            Err(Failure::new(Side::Source, Class::Internal, what))
        })
    }
}

async fn try_all(
    dial: &Dial,
    secret: JoinSecret,
    client: Return,
    mut patience: Patience,
) -> Result<Back, Failure> {
    let mut last = None;
    while patience.next().await {
        match try_once(dial, secret, client).await {
            Ok((Answer::Returned(server), link)) => return Ok(Back { link, server, patience }),
            Ok((Answer::Refused(failure), _)) => return Err(failure),
            Err(failure) => {
                tracing::debug!(attempt = patience.made, %failure, "connect again");
                last = Some(failure);
            }
        }
    }
    Err(patience.exhausted(last))
}

/// Asks once whether the server goes on with a session.
pub(super) async fn try_once(
    dial: &Dial,
    secret: JoinSecret,
    client: Return,
) -> Result<(Answer, Link), Failure> {
    let mut link = Link::new(dial.control_again(secret).await?);
    let limit = dial.limit();
    match tokio::time::timeout(limit, link::say_return(&mut link, client)).await {
        Ok(Ok(answer)) => Ok((answer, link)),
        Ok(Err(error)) => Err(error.failure(dial.name())),
        Err(_elapsed) => {
            let what = format!("{} said nothing within {} s", dial.name(), limit.as_secs());
            Err(Failure::new(Side::Network, Class::Interrupted, what))
        }
    }
}
