//! `--state DIR` of whoever sends or receives: where the records of transfers lie.

use std::path::Path;

use sys::backend::Backend;

use super::machine;
use crate::error::{Failure, Side};
use crate::spool::folder::Folder;

/// Opens the folder for records; `None` where none was named.
pub(super) fn records(
    here: Side,
    state: Option<&Path>,
    backend: Backend,
) -> Result<Option<Folder>, Failure> {
    let open = |state: &Path| {
        Folder::open(state, backend).map_err(|error| {
            machine(here, &format!("use the state folder {}", state.display()), &error)
                .with_remedy("give --state a folder that this user may write")
        })
    };
    state.map(open).transpose()
}
