//! One connection as plain bytes, whatever it travels as.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use sys::cipher::{Cipher, Conduit};
use sys::control::Stream;

use crate::tls::{Exported, Session, Stage};
use crate::trust::Fingerprint;

/// A connection before, or without, a data plane.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    tls: Option<Box<Session>>,
}

/// Why two ends have not agreed to talk.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection broke.
    #[error("{0}")]
    Broken(#[from] io::Error),
    /// The other end closed it.
    #[error("it was closed by the other side before it said who it is")]
    Closed,
    /// What it said does not do.
    #[error(transparent)]
    Refused(#[from] rustls::Error),
}

/// What is read at once. With TLS no more than is surely deciphered at once, so that nothing waits
/// outside of the session when the connection is given away.
const READ_BYTES: usize = 4 << 10;

impl Wire {
    /// A connection in clear.
    pub fn plain(stream: Stream) -> Wire {
        Wire { stream, tls: None }
    }

    /// A connection on which both ends have proved who they are.
    pub async fn secure(stream: Stream, session: Session) -> Result<Wire, HandshakeError> {
        let mut wire = Wire { stream, tls: None };
        let session = wire.shake_hands(session).await?;
        wire.tls = Some(Box::new(session));
        Ok(wire)
    }

    async fn shake_hands(&self, mut session: Session) -> Result<Session, HandshakeError> {
        let mut came = Vec::new();
        loop {
            let (mut rest, mut out) = (came.as_slice(), Vec::new());
            let stage = session.shake_hands(&mut rest, &mut out);
            if !out.is_empty() {
                self.stream.write_all(out).await?;
            }
            if stage? == Stage::Done {
                session.take_in(rest)?;
                return Ok(session);
            }
            came = self.receive().await?;
            if came.is_empty() {
                return Err(HandshakeError::Closed);
            }
        }
    }

    async fn receive(&self) -> io::Result<Vec<u8>> {
        let (result, bytes) = self.stream.read(Vec::with_capacity(READ_BYTES)).await;
        result.map(|_| bytes)
    }

    /// Reads once, no more than `most` bytes; none are the end. Dropping the future loses nothing.
    pub async fn read(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let Some(session) = &mut self.tls else {
            let (result, bytes) = self.stream.read(Vec::with_capacity(most)).await;
            return result.map(|_| bytes);
        };
        let mut plain = vec![0; most];
        loop {
            let decrypted = session.decrypt(&mut &[][..], &mut plain)?;
            if decrypted.bytes > 0 || decrypted.ended {
                plain.truncate(decrypted.bytes);
                return Ok(plain);
            }
            let (result, came) = self.stream.read(Vec::with_capacity(READ_BYTES)).await;
            if result? == 0 {
                return Ok(Vec::new());
            }
            session.take_in(&came).map_err(io::Error::other)?;
        }
    }

    /// Writes all. What was written of a dropped call goes out whole, or not at all.
    pub async fn write_all(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        // A call that is dropped while it waits for an earlier one must not have encrypted anything
        // yet: what has a number and never goes out makes all that follows unreadable.
        self.stream.write_all(Vec::new()).await?;
        let Some(session) = &mut self.tls else { return self.stream.write_all(bytes).await };
        let mut out = Vec::new();
        session.encrypt(&bytes, &mut out)?;
        self.stream.write_all(out).await
    }

    /// Says that nothing more will be written; reading goes on.
    pub async fn finish(&mut self) -> io::Result<()> {
        if let Some(session) = &mut self.tls {
            let mut out = Vec::new();
            session.close(&mut out);
            self.stream.write_all(out).await?;
        }
        self.stream.shutdown_write()
    }

    /// Whose key the other end has; `None` in clear.
    pub fn peer(&self) -> Option<Fingerprint> {
        self.tls.as_ref()?.peer()
    }

    /// What binds words to this connection; `None` in clear.
    pub fn binding(&self) -> Result<Option<Exported>, rustls::Error> {
        self.tls.as_ref().map(|session| session.export()).transpose()
    }

    /// Gives the connection away, for the data plane. Nothing may be on its way.
    pub fn into_conduit(self) -> io::Result<Conduit> {
        let socket = self.stream.into_fd()?;
        Ok(match self.tls {
            None => Conduit::plain(socket),
            Some(session) => Conduit::enciphered(socket, session),
        })
    }
}

/// For options: see [`sys::socket`].
impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use sys::backend::Backend;
    use sys::control::{self, Runtime};

    use super::*;
    use crate::tls::{Agreement, Anybody};
    use crate::trust::OwnKey;

    async fn pair() -> (Wire, Wire) {
        let agreement = || Agreement::new(&OwnKey::generate().unwrap(), Arc::new(Anybody)).unwrap();
        let (left, right) = Stream::pair().unwrap();
        let (client, server) = (agreement().connect().unwrap(), agreement().accept().unwrap());
        let (left, right) = tokio::join!(Wire::secure(left, client), Wire::secure(right, server));
        (left.unwrap(), right.unwrap())
    }

    /// Far more than a socket holds, so that it waits for the other end.
    const LARGE: usize = 8 << 20;

    /// As a sign of life is given up when something else happens, and then the next.
    async fn write_and_give_up_twice() {
        let (mut writer, mut reader) = pair().await;
        let moment = Duration::from_millis(30);
        tokio::time::timeout(moment, writer.write_all(vec![1; LARGE])).await.unwrap_err();
        tokio::time::timeout(moment, writer.write_all(vec![2; 10])).await.unwrap_err();
        let writing = control::spawn(async move {
            writer.write_all(vec![3; 10]).await.unwrap();
            writer.finish().await.unwrap();
        });
        let mut came = Vec::new();
        loop {
            match reader.read(READ_BYTES).await.expect("each record follows the one before") {
                end if end.is_empty() => break,
                bytes => came.extend(bytes),
            }
        }
        writing.await.unwrap();
        assert!(came.len() >= LARGE + 10 && came[..LARGE].iter().all(|&byte| byte == 1));
        assert!(came.ends_with(&[3; 10]), "{:?}", &came[LARGE..]);
    }

    #[test]
    fn a_write_that_is_given_up_leaves_no_gap_in_what_follows() {
        for backend in [Backend::Threads, Backend::Uring] {
            // Where io_uring is forbidden there is the other.
            if let Ok(runtime) = Runtime::new(backend) {
                runtime.block_on(write_and_give_up_twice());
            }
        }
    }
}
