//! `--state DIR` of whoever sends, receives or schedules: what it knows of earlier runs lies there.

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use sys::backend::Backend;

use super::machine;
use crate::error::{Class, Failure, Side};
use crate::spool::transfers::Transfers;

/// Opens the folder for records; `None` where none was named.
pub(super) fn records(
    here: Side,
    state: Option<&Path>,
    backend: Backend,
) -> Result<Option<Transfers>, Failure> {
    let open = |state: &Path| {
        Transfers::open(state, backend).map_err(|error| {
            machine(here, &format!("use the state folder {}", state.display()), &error)
                .with_remedy("give --state a folder that this user may write")
        })
    };
    state.map(open).transpose()
}

/// Makes the folder if need be, and holds it by the file `lock` in it for as long as that lives;
/// `who`, a server or a scheduler, must not run twice with it.
pub(super) fn hold(here: Side, folder: &Path, lock: &str, who: &str) -> Result<File, Failure> {
    let shown = folder.display();
    let failed = |error| {
        machine(here, &format!("use the state folder {shown}"), &error)
            .with_remedy("give --state a folder that this user may write")
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let file = File::options().create(true).append(true).open(folder.join(lock)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let what = format!("{who} with the state folder {shown} is running already");
            Err(Failure::new(here, Class::Busy, what)
                .with_remedy("stop that one, or give this one another --state"))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
