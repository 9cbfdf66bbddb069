//! The local socket of a scheduler: whoever connects is given one JSON document, and nothing is
//! heard.
//!
//! What must never happen here: that somebody who does not read keeps others from reading, or that
//! a socket in use is taken away.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::super::machine;
use super::shared::Shared;
use crate::board::Document;
use crate::error::{Class, Failure, Side};
use crate::small_file::SECRET_MODE;

/// What it is called in the state folder.
const NAME: &str = "zferry.sock";

/// How many may be given a document at once; others are turned away.
const READERS_MAX: usize = 16;

/// How long either side waits for the other.
const LIMIT: Duration = Duration::from_secs(5);

/// A longer document is none of ours.
const DOCUMENT_BYTES_MAX: u64 = 256 << 20;

/// Where the socket of a state folder is.
pub(in crate::cli) fn beside(state: &Path) -> PathBuf {
    state.join(NAME)
}

/// A socket that is listened at; gone from its folder when dropped.
pub(super) struct Socket {
    path: PathBuf,
}

impl Socket {
    /// Gives `shared` to whoever connects at `path`.
    pub fn listen(path: &Path, shared: Shared) -> Result<Socket, Failure> {
        let failed = |error: io::Error| {
            machine(Side::Source, &format!("listen at the socket {}", path.display()), &error)
                .with_remedy("choose another place for it: --socket PATH")
        };
        match UnixStream::connect(path) {
            Ok(_somebody) => {
                let what = format!("somebody listens at {} already", path.display());
                return Err(Failure::new(Side::Source, Class::Busy, what)
                    .with_remedy("choose another place: --socket PATH"));
            }
            // What a process has left that was killed.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                remove(path).map_err(failed)?;
            }
            Err(_not_there) => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let socket = Socket { path: path.to_owned() };
        fs::set_permissions(path, Permissions::from_mode(SECRET_MODE)).map_err(failed)?;
        let serve = move || serve(&listener, &shared);
        thread::Builder::new().name("zferry-socket".to_owned()).spawn(serve).map_err(failed)?;
        Ok(socket)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::debug!(%error, "remove {}", self.path.display());
        }
    }
}

/// Removes a socket, and nothing else.
fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.file_type().is_socket() { fs::remove_file(path) } else { Ok(()) }
}

fn serve(listener: &UnixListener, shared: &Shared) {
    let readers = Arc::new(());
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept at the local socket");
                // It would fail again at once, where descriptors have run out.
                thread::sleep(LIMIT);
                continue;
            }
        };
        let reader = Arc::clone(&readers);
        if Arc::strong_count(&readers) > READERS_MAX + 1 {
            continue;
        }
        let shared = shared.clone();
        let give = move || {
            if let Err(error) = give(stream, &shared) {
                tracing::debug!(%error, "give somebody the state of things");
            }
            drop(reader);
        };
        if let Err(error) = thread::Builder::new().name("zferry-socket".to_owned()).spawn(give) {
            tracing::warn!(%error, "start a thread for the local socket");
        }
    }
}

fn give(mut stream: UnixStream, shared: &Shared) -> io::Result<()> {
    stream.set_write_timeout(Some(LIMIT))?;
    let mut text = serde_json::to_vec(&shared.document())?;
    text.push(b'\n');
    stream.write_all(&text)
}

/// Whether somebody listens at a socket; also where only others may ask.
pub(super) fn is_heard(path: &Path) -> bool {
    match UnixStream::connect(path) {
        Ok(_somebody) => true,
        Err(error) => error.kind() == ErrorKind::PermissionDenied && path.exists(),
    }
}

/// Asks the scheduler at a socket; `None` where there is none.
pub(in crate::cli) fn ask(path: &Path) -> io::Result<Option<Document>> {
    let stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(LIMIT))?;
    let mut text = Vec::new();
    stream.take(DOCUMENT_BYTES_MAX).read_to_end(&mut text)?;
    Ok(Some(serde_json::from_slice(&text)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_connects_is_given_a_document_whatever_others_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = beside(folder.path());
        assert!(ask(&path).unwrap().is_none());
        let socket = Socket::listen(&path, Shared::new()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let _silent: Vec<_> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
        let document = ask(&path).unwrap().unwrap();
        assert_eq!(document.scheduler.unwrap().pid, std::process::id());
        let second = Socket::listen(&path, Shared::new()).err().unwrap();
        assert_eq!(second.class, Class::Busy);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_process_has_left_is_replaced_and_what_is_no_socket_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = beside(folder.path());
        drop(UnixListener::bind(&path).unwrap());
        assert!(ask(&path).unwrap().is_none());
        drop(Socket::listen(&path, Shared::new()).unwrap());
        fs::write(&path, "mine").unwrap();
        let failure = Socket::listen(&path, Shared::new()).err().unwrap();
        assert!(failure.remedy.unwrap().contains("--socket"), "{}", failure.what);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}
