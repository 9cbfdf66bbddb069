//! Small files beside a record file: written once, whole or not at all, and only for their owner.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A longer file is none of ours.
const BYTES_MAX: u64 = 64 << 10;

/// Writes a small file that only its owner may read; whole and durable when this returns, or not
/// there at all.
pub(super) fn write_json(path: &Path, what: &impl Serialize) -> io::Result<()> {
    let unfinished = unfinished(path);
    let written = write_to(&unfinished, what).and_then(|()| fs::rename(&unfinished, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&unfinished);
        let text = format!("write {}: {error}", path.display());
        return Err(io::Error::new(error.kind(), text));
    }
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Where a file stands until it is whole.
fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn write_to(path: &Path, what: &impl Serialize) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    serde_json::to_writer(&mut file, what)?;
    file.write_all(b"\n")?;
    file.sync_all()
}

/// Reads what [`write_json`] wrote.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let mut text = Vec::new();
    File::open(path)?.take(BYTES_MAX).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}
