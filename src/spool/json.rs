//! What lies beside a record file: JSON, written once, whole or not at all, for its owner alone.

use std::fs::File;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::small_file::{Aside, read_text};

/// A longer file is none of ours.
const BYTES_MAX: u64 = 64 << 10;

/// Writes one; durable when this returns.
pub(super) fn write_json(path: &Path, what: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(what)?;
    text.push(b'\n');
    Aside::write(path, &text)
        .and_then(Aside::replace)
        .map_err(|error| io::Error::new(error.kind(), format!("write {}: {error}", path.display())))
}

/// Reads what [`write_json`] wrote.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_str(&read_text(&File::open(path)?, BYTES_MAX)?)?)
}
