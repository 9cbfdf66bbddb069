//! A hand-made other end: says what no zferry would say, over plain sockets.
//!
//! Speaks with the types of `zferry::protocol` and none of its machines, so that it can leave out,
//! repeat and break whatever a test wants broken. Every wait for the real end has a limit.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use zferry::dataset::{Guid, Kind};
use zferry::error::Failure;
use zferry::protocol::envelope::{Decoder, encode};
use zferry::protocol::frame::{Codec, HEADER_BYTES, Header};
use zferry::protocol::message::Limits;
use zferry::protocol::message::{
    DatasetStream, Ending, Hello, Message, Open, Outcome, Request, Stream,
};
use zferry::protocol::preamble::{Preamble, Role};
use zferry::protocol::secret::{JoinSecret, Proof};
use zferry::protocol::version::Versions;
use zferry::units::{Bytes, Sequence, StreamOffset, TransferId};

/// How long the real end may take to say something.
const HEAR_LIMIT: Duration = Duration::from_secs(60);

/// The block size of every peer.
pub const BLOCK_BYTES: usize = 64 << 10;

/// The only transfer of a peer.
pub const TRANSFER: TransferId = TransferId(1);

/// A client with a session of one data connection.
pub struct Peer {
    address: SocketAddr,
    control: Box<dyn Channel>,
    decoder: Decoder,
    inbox: Vec<u8>,
    pub secret: JoinSecret,
}

/// What a control connection goes over.
pub trait Channel: Read + Write {}

impl<T: Read + Write> Channel for T {}

/// A connection from an address of our choice, which says so much.
pub fn dial_from(source: [u8; 4], address: SocketAddr, said: &[u8]) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(HEAR_LIMIT)).unwrap();
    // It may be closed already.
    let _ = (&stream).write_all(said);
    stream
}

/// Connects and says `preamble`.
pub fn dial(address: SocketAddr, preamble: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(HEAR_LIMIT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(preamble).unwrap();
    stream
}

/// The preamble of a control connection.
pub fn control_preamble() -> Vec<u8> {
    preamble(Role::Control { proof: Proof::NONE })
}

/// What a connection of this role says first.
pub fn preamble(role: Role) -> Vec<u8> {
    Preamble { versions: Versions::OURS, role }.encode().to_vec()
}

/// A message for the wire.
pub fn message(message: &Message) -> Vec<u8> {
    encode(message)
}

/// Everything that comes until the other end closes.
pub fn hear_out(mut stream: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the other end did not close: {error}"),
    }
    all
}

impl Peer {
    /// Greets a server as a client would.
    pub fn greet(address: SocketAddr) -> Peer {
        Peer::greet_over(Box::new(dial(address, &control_preamble())), address)
    }

    /// The same over a connection that has said its preamble.
    pub fn greet_over(control: Box<dyn Channel>, address: SocketAddr) -> Peer {
        let secret = JoinSecret::new([0; 16]);
        let (decoder, inbox) = (Decoder::default(), Vec::new());
        let mut peer = Peer { address, control, decoder, inbox, secret };
        let codecs = [Codec::Raw, Codec::Zstd].into();
        let limits = Limits { block_bytes_max: Bytes::from(BLOCK_BYTES), connections: 1, codecs };
        peer.say(&Message::Hello(Hello { software: "a hand-made peer".to_owned(), limits }));
        match peer.hear() {
            Some(Message::Welcome(welcome)) => peer.secret = welcome.secret,
            other => panic!("no welcome: {other:?}"),
        }
        peer
    }

    pub fn say(&mut self, message: &Message) {
        self.control.write_all(&encode(message)).unwrap();
    }

    /// Says something that no [`Message`] can be.
    pub fn say_raw(&mut self, json: &str) {
        let length = u32::try_from(json.len()).unwrap().to_le_bytes();
        let crc32 = crc32fast::hash(json.as_bytes()).to_le_bytes();
        let head = [length.as_slice(), &crc32].concat();
        let head_crc32 = crc32fast::hash(&head).to_le_bytes();
        let bytes = [&head, head_crc32.as_slice(), json.as_bytes()].concat();
        self.control.write_all(&bytes).unwrap();
    }

    /// The next message that is no sign of life or progress; `None` at the end.
    pub fn hear(&mut self) -> Option<Message> {
        loop {
            let mut rest = self.inbox.as_slice();
            let found = self.decoder.take(&mut rest).unwrap();
            self.inbox = rest.to_vec();
            match found {
                Some(Message::Ping { .. } | Message::Ack { .. }) => {}
                Some(message) => return Some(message),
                None => {
                    let mut chunk = [0; 4096];
                    match self.control.read(&mut chunk) {
                        Ok(0) => return None,
                        Ok(count) => self.inbox.extend_from_slice(&chunk[..count]),
                        Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                        // Where a read has a limit, the kernel does not take it up again.
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Err(error) => panic!("nothing was said: {error}"),
                    }
                }
            }
        }
    }

    /// The failure that the server tells; nothing else may come.
    #[track_caller]
    pub fn refusal(&mut self) -> Failure {
        match self.hear() {
            Some(
                Message::Refused(failure)
                | Message::Result { outcome: Outcome::Failed(failure), .. },
            ) => failure,
            other => panic!("no failure was told: {other:?}"),
        }
    }

    /// Opens a data connection, with the session's secret or another one.
    pub fn lane(&self, lane: u16, secret: JoinSecret) -> TcpStream {
        let role = Role::Data { lane, proof: secret.proof(None) };
        let preamble = Preamble { versions: Versions::OURS, role };
        dial(self.address, &preamble.encode())
    }

    /// Asks to send `stream`, without waiting for the answer.
    pub fn ask(&mut self, stream: Stream, codec: Codec) {
        let request = Request {
            stream,
            epoch: 1,
            estimated_bytes: None,
            block_bytes: Bytes::from(BLOCK_BYTES),
            codec,
            interrupted_at: None,
        };
        self.say(&Message::Open(Open { transfer: TRANSFER, request }));
    }

    /// Opens the data connection and a transfer of `stream`, all as it should be.
    pub fn open(&mut self, stream: Stream) -> TcpStream {
        let lane = self.lane(0, self.secret);
        self.ask(stream, Codec::Raw);
        match self.hear() {
            Some(Message::Opened { .. }) => lane,
            other => panic!("not opened: {other:?}"),
        }
    }

    /// Says that the stream was `bytes` and nothing more.
    pub fn end(&mut self, bytes: &[u8]) {
        self.end_with(bytes.len() as u64, crc32fast::hash(bytes));
    }

    /// Says that the stream was so long and had this CRC32.
    pub fn end_with(&mut self, total: u64, crc32: u32) {
        let ending = Ending::Complete { total: StreamOffset(total), crc32 };
        self.say(&Message::End { transfer: TRANSFER, ending });
    }
}

/// A full stream of a filesystem to `target`.
pub fn full_stream(target: &str, snapshot: &str, guid: u64) -> Stream {
    Stream::Dataset(DatasetStream {
        target: target.parse().unwrap(),
        dataset: Kind::Filesystem,
        snapshot: snapshot.parse().unwrap(),
        to: Guid(guid),
        from: None,
        raw: false,
        first: true,
        resumed: false,
        origin: None,
        properties: BTreeMap::new(),
    })
}

/// The header of block `number` of a stream that holds `payload`.
pub fn header(number: usize, payload: &[u8]) -> Header {
    Header {
        transfer: TRANSFER,
        epoch: 1,
        sequence: Sequence(number as u64),
        offset: StreamOffset((number * BLOCK_BYTES) as u64),
        codec: Codec::Raw,
        plain_bytes: u32::try_from(payload.len()).unwrap(),
        payload_bytes: u32::try_from(payload.len()).unwrap(),
        crc32: crc32fast::hash(payload),
    }
}

/// Header and payload for the wire.
pub fn frame(header: Header, payload: &[u8]) -> Vec<u8> {
    [header.encode().as_slice(), payload].concat()
}

/// The bytes of a header with its own CRC made right again.
pub fn sealed(mut bytes: [u8; HEADER_BYTES]) -> [u8; HEADER_BYTES] {
    let crc32 = crc32fast::hash(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..].copy_from_slice(&crc32.to_le_bytes());
    bytes
}

/// A port where `answer` is given to one connection and then nothing more happens until the test
/// ends; `None` says nothing at all.
pub fn stranger(answer: Option<&'static [u8]>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        if let Some(answer) = answer {
            let _ = stream.write_all(answer);
        }
        // Held open, and further connections are never accepted.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    address
}
