//! Asks the server to prune a dataset.

use super::Session;
use crate::error::Failure;
use crate::protocol::prune::Prune;
use crate::protocol::sender::{Input, Output};
use crate::retention::Report;

impl Session {
    /// Has the server prune a dataset, as far as it lets us. What it does not do is told in the
    /// report, and the session goes on; a failure is one of the session.
    pub async fn prune(&mut self, prune: Prune) -> Result<Report, Failure> {
        let mut news = self.conversation.wish(Input::Prune(prune)).await?;
        loop {
            for output in news {
                match output {
                    Output::Pruned(report) => return Ok(report),
                    Output::Failed(failure) => return Err(failure),
                    _ => {}
                }
            }
            news = self.conversation.hear().await?;
        }
    }
}
