//! One connection's TLS, apart from its socket: bytes in, bytes out.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};

use rustls::{Connection, Error};
use sys::cipher::{Cipher, Decrypted};

use crate::trust::Fingerprint;

/// One end of a connection.
pub struct Session {
    connection: Connection,
}

/// How far a handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The peer has to say more.
    Hearing,
    /// Both have proved who they are. What the server thinks of a client's key, that client hears
    /// only with the first bytes that come.
    Done,
}

/// A secret that both ends of one connection know, and nobody else (RFC 9266 uses it alike).
#[derive(Clone, Copy)]
pub struct Exported([u8; 32]);

/// For what it is asked for: nothing else gets the same.
const LABEL: &[u8] = b"EXPORTER-zferry-join";

impl Session {
    pub(super) fn new(mut connection: Connection) -> Session {
        // What is written is taken off at once.
        connection.set_buffer_limit(None);
        Session { connection }
    }

    /// Takes what came, and appends what is to be sent, until both ends know each other. Bytes
    /// behind the handshake stay in `wire`.
    pub fn shake_hands(&mut self, wire: &mut &[u8], out: &mut Vec<u8>) -> Result<Stage, Error> {
        loop {
            self.flush(out);
            if !self.connection.is_handshaking() {
                return Ok(Stage::Done);
            }
            if wire.is_empty() {
                return Ok(Stage::Hearing);
            }
            let taken = self.connection.read_tls(wire);
            taken.map_err(|error| Error::General(error.to_string()))?;
            if let Err(error) = self.connection.process_new_packets() {
                // The peer is told why.
                self.flush(out);
                return Err(error);
            }
        }
    }

    /// Takes in what came before anybody asks for it: no more than a record, 16 KiB.
    pub fn take_in(&mut self, mut wire: &[u8]) -> Result<(), Error> {
        while !wire.is_empty() {
            let taken = self.connection.read_tls(&mut wire);
            taken.map_err(|error| Error::General(error.to_string()))?;
            self.connection.process_new_packets()?;
        }
        Ok(())
    }

    /// Whose key the other end has; `None` before the handshake.
    pub fn peer(&self) -> Option<Fingerprint> {
        let key = self.connection.peer_certificates()?.first()?;
        Some(Fingerprint::of(key))
    }

    /// What binds a word said within this connection to it.
    pub fn export(&self) -> Result<Exported, Error> {
        self.connection.export_keying_material([0; 32], LABEL, None).map(Exported)
    }

    /// Appends our good-bye.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        self.connection.send_close_notify();
        self.flush(out);
    }

    /// Has the next bytes be the first under new keys, as rustls does after 2^24 records by itself.
    #[cfg(test)]
    pub(super) fn renew_keys(&mut self) {
        self.connection.refresh_traffic_keys().unwrap();
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            self.connection.write_tls(out).expect("a vector takes all");
        }
    }
}

impl Cipher for Session {
    fn encrypt(&mut self, plain: &[u8], wire: &mut dyn Write) -> io::Result<()> {
        self.connection.writer().write_all(plain)?;
        while self.connection.wants_write() {
            if self.connection.write_tls(&mut &mut *wire)? == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    fn decrypt(&mut self, wire: &mut &[u8], plain: &mut [u8]) -> io::Result<Decrypted> {
        let mut bytes = 0;
        loop {
            match self.connection.reader().read(&mut plain[bytes..]) {
                Ok(0) if bytes < plain.len() => return Ok(Decrypted { bytes, ended: true }),
                Ok(count) if bytes + count < plain.len() => {
                    bytes += count;
                    continue;
                }
                Ok(count) => bytes += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if bytes == plain.len() || wire.is_empty() {
                return Ok(Decrypted { bytes, ended: false });
            }
            self.connection.read_tls(wire)?;
            self.connection.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("peer", &self.peer()).finish_non_exhaustive()
    }
}

impl Exported {
    /// The bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exported(redacted)")
    }
}
