//! What an earlier run of a job has left in breakpoint files.

use super::Options;
use crate::breakpoint::record::Role;
use crate::spool::left::Left;

/// The last stream of a job, if all of it is there: of one that is not, nothing can be sent, for no
/// other run of its source gives the same bytes.
pub(super) async fn find(options: &Options, job: String) -> Option<Left> {
    let records = options.records.clone()?;
    let look = move || records.left(Role::Client, &job);
    let found = tokio::task::spawn_blocking(look).await.ok()?;
    match found {
        Ok(left) => left.filter(Left::is_whole),
        Err(error) => {
            tracing::warn!("what an earlier run has left cannot be used: {error}");
            None
        }
    }
}
