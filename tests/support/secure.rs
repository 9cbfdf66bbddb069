//! TLS for a hand-made other end: a connection of a client whose key is known.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use sys::cipher::Cipher;
use zferry::tls::{Agreement, Anybody, Session, Stage};
use zferry::trust::OwnKey;

/// How long the real end may take to say something.
const HEAR_LIMIT: Duration = Duration::from_secs(60);

/// A connection on which both ends have proved who they are.
pub struct Secure {
    socket: TcpStream,
    session: Session,
}

impl Secure {
    /// Connects with a key, to whoever is there.
    pub fn connect(address: SocketAddr, key: &OwnKey) -> Secure {
        let agreement = Agreement::new(key, Arc::new(Anybody)).unwrap();
        let mut session = agreement.connect().unwrap();
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(HEAR_LIMIT)).unwrap();
        let mut came = vec![0; 64 << 10];
        let mut count = 0;
        loop {
            let (mut rest, mut out) = (&came[..count], Vec::new());
            let stage = session.shake_hands(&mut rest, &mut out).unwrap();
            session.take_in(rest).unwrap();
            socket.write_all(&out).unwrap();
            if stage == Stage::Done {
                return Secure { socket, session };
            }
            count = match socket.read(&mut came) {
                Ok(0) => panic!("the server closed the connection"),
                Ok(count) => count,
                // Where a read has a limit, the kernel does not take it up again.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => panic!("nothing was said: {error}"),
            };
        }
    }
}

impl Read for Secure {
    fn read(&mut self, plain: &mut [u8]) -> io::Result<usize> {
        loop {
            let decrypted = self.session.decrypt(&mut &[][..], plain)?;
            if decrypted.bytes > 0 || decrypted.ended {
                return Ok(decrypted.bytes);
            }
            let mut came = vec![0; 4 << 10];
            let count = self.socket.read(&mut came)?;
            if count == 0 {
                return Ok(0);
            }
            self.session.take_in(&came[..count]).map_err(io::Error::other)?;
        }
    }
}

impl Write for Secure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.session.encrypt(bytes, &mut self.socket)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}
