//! What is kept of a transfer, for the time after a crash.

use std::sync::Arc;

use crate::engine::receiver::KeptStream;
use crate::spool::keeping::Keeping;
use crate::spool::share::Account;

/// Where a transfer stands, and what came of it.
#[derive(Debug)]
pub(super) struct Kept {
    /// Where it is recorded how far it came.
    pub records: Keeping,
    /// The stream itself, in breakpoint files.
    pub stream: Option<KeptStream>,
    /// What its files have of a room that is shared.
    pub room: Option<Arc<Account>>,
}
