//! Messages as bytes: a length and a CRC32 in front, JSON behind them.
//!
//! Stands between a control connection and the machines. A length must never be believed before it
//! was compared with the cap, and no more than one message is ever held. The CRC32s are there for
//! the bits that TCP's checksum lets through. A changed digit would still be JSON; and a changed
//! length would have the reader wait for bytes that nobody says, and take all that is said in a
//! minute for one message: so the head has one of its own.

use serde::Deserialize;

use super::message::Message;
use super::stranger;
pub use super::text::MESSAGE_BYTES_MAX;
use super::text::{clipped, escaped, one_line};

/// The length in front of a message: u32, little-endian.
const LENGTH_BYTES: usize = 4;

/// The length, and behind it the CRC32 of the message: u32, little-endian.
const SEALED_BYTES: usize = LENGTH_BYTES + 4;

/// What stands in front of a message: both, and behind them their own CRC32, u32, little-endian.
pub const HEAD_BYTES: usize = SEALED_BYTES + 4;

/// Why bytes are not a message. Words of the other end in it are fit to be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A length over the cap: most likely not a length at all.
    #[error(
        "a message of {claimed} bytes was announced, the most is {MESSAGE_BYTES_MAX}: {}",
        stranger::describe(&claimed.to_le_bytes())
    )]
    TooLong {
        /// The length as we read it.
        claimed: u32,
    },
    /// The message was damaged on its way.
    #[error("a message's CRC32 is {expected:#010x}, but its bytes give {got:#010x}")]
    Damaged {
        /// What stands in front of it.
        expected: u32,
        /// What its bytes give.
        got: u32,
    },
    /// What stands in front of a message was damaged on its way.
    #[error("a message's head has CRC32 {expected:#010x}, but its bytes give {got:#010x}")]
    DamagedHead {
        /// What the head says.
        expected: u32,
        /// What its bytes give.
        got: u32,
    },
    /// A message of a type that this version does not have.
    #[error("the message type \"{0}\" is unknown")]
    UnknownType(String),
    /// Not JSON, or not the fields that its type has.
    #[error("the message is malformed: {why}; it begins with \"{begins}\"")]
    Malformed {
        /// What the JSON reader says, with line and column.
        why: String,
        /// Its first bytes, escaped.
        begins: String,
    },
}

/// The bytes of a message for the wire.
///
/// Free text that would not fit is cut; all else that varies is short by its type or in chunks.
///
/// # Panics
///
/// When it does not fit all the same: that is our own mistake, and it must not travel.
pub fn encode(message: &Message) -> Vec<u8> {
    let mut bytes = enveloped(message);
    if bytes.len() > HEAD_BYTES + MESSAGE_BYTES_MAX {
        bytes = enveloped(&message.clone().made_printable());
    }
    let length = bytes.len() - HEAD_BYTES;
    assert!(length <= MESSAGE_BYTES_MAX, "a {} message of {length} bytes", message.name());
    let length = u32::try_from(length).expect("the cap fits in 32 bits");
    let crc32 = crc32fast::hash(&bytes[HEAD_BYTES..]);
    bytes[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    bytes[LENGTH_BYTES..SEALED_BYTES].copy_from_slice(&crc32.to_le_bytes());
    let head_crc32 = crc32fast::hash(&bytes[..SEALED_BYTES]);
    bytes[SEALED_BYTES..HEAD_BYTES].copy_from_slice(&head_crc32.to_le_bytes());
    bytes
}

/// The message behind room for its head.
fn enveloped(message: &Message) -> Vec<u8> {
    let mut bytes = vec![0; HEAD_BYTES];
    serde_json::to_writer(&mut bytes, message).expect("messages are plain data, memory takes them");
    bytes
}

/// Takes bytes in whatever pieces they come, and gives messages.
#[derive(Debug, Default)]
pub struct Decoder {
    head: [u8; HEAD_BYTES],
    head_filled: usize,
    body: Vec<u8>,
}

impl Decoder {
    /// Takes bytes from the front of `bytes` up to the end of one message and returns it; `None`
    /// when all were taken and more are needed. Call it until then. After an error the place in
    /// the conversation is lost: close the connection.
    pub fn take(&mut self, bytes: &mut &[u8]) -> Result<Option<Message>, MessageError> {
        self.take_head(bytes);
        if self.head_filled < LENGTH_BYTES {
            return Ok(None);
        }
        let claimed = self.head_number(0);
        let body_bytes = usize::try_from(claimed).unwrap_or(usize::MAX);
        if body_bytes > MESSAGE_BYTES_MAX {
            return Err(MessageError::TooLong { claimed });
        }
        if self.head_filled < HEAD_BYTES {
            return Ok(None);
        }
        let expected = self.head_number(SEALED_BYTES);
        let got = crc32fast::hash(&self.head[..SEALED_BYTES]);
        if expected != got {
            return Err(MessageError::DamagedHead { expected, got });
        }
        let missing = body_bytes - self.body.len();
        self.body.extend_from_slice(split_front(bytes, missing));
        if self.body.len() < body_bytes {
            return Ok(None);
        }
        let (expected, got) = (self.head_number(LENGTH_BYTES), crc32fast::hash(&self.body));
        if expected != got {
            return Err(MessageError::Damaged { expected, got });
        }
        let message = parse(&self.body)?;
        self.head_filled = 0;
        self.body.clear();
        Ok(Some(message))
    }

    fn take_head(&mut self, bytes: &mut &[u8]) {
        let front = split_front(bytes, HEAD_BYTES - self.head_filled);
        self.head[self.head_filled..][..front.len()].copy_from_slice(front);
        self.head_filled += front.len();
    }

    fn head_number(&self, at: usize) -> u32 {
        let number = self.head[at..at + 4].try_into().expect("the range is four bytes long");
        u32::from_le_bytes(number)
    }
}

/// Takes up to `count` bytes off the front.
fn split_front<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (front, rest) = bytes.split_at(count.min(bytes.len()));
    *bytes = rest;
    front
}

fn parse(body: &[u8]) -> Result<Message, MessageError> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(rename = "type")]
        name: String,
    }
    let error = match serde_json::from_slice::<Message>(body) {
        Ok(message) => return Ok(message.made_printable()),
        Err(error) => error,
    };
    match serde_json::from_slice::<Named>(body) {
        Ok(Named { name }) if !Message::NAMES.contains(&name.as_str()) => {
            Err(MessageError::UnknownType(one_line(&name, 80)))
        }
        _ => Err(MessageError::Malformed {
            why: one_line(&error.to_string(), 200),
            begins: clipped(&escaped(&body[..body.len().min(40)]), 80),
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::{Class, Failure, Side};
    use crate::protocol::secret::JoinSecret;

    fn framed(json: &str) -> Vec<u8> {
        let length = u32::try_from(json.len()).unwrap();
        let crc32 = crc32fast::hash(json.as_bytes());
        let head = [length.to_le_bytes(), crc32.to_le_bytes()].concat();
        [&head, &crc32fast::hash(&head).to_le_bytes()[..], json.as_bytes()].concat()
    }

    fn decoded(bytes: &[u8]) -> Result<Option<Message>, MessageError> {
        Decoder::default().take(&mut &*bytes)
    }

    #[test]
    fn unknown_fields_are_ignored_and_unknown_types_named() {
        let json = r#"{"new":[1,{"a":null}],"type":"list","dataset":"a/b","type2":"x"}"#;
        let expected = Message::List { dataset: "a/b".parse().unwrap() };
        assert_eq!(decoded(&framed(json)), Ok(Some(expected)));
        assert_eq!(
            decoded(&framed(r#"{"type":"ping","rtt":5}"#)),
            Ok(Some(Message::Ping { heard: 0 }))
        );
        let unknown = decoded(&framed(r#"{"type":"tele\u001bport","to":"mars"}"#)).unwrap_err();
        assert_eq!(unknown.to_string(), "the message type \"tele\u{fffd}port\" is unknown");
    }

    #[test]
    fn every_type_that_is_known_is_known_by_its_name() {
        for name in Message::NAMES {
            let refused = decoded(&framed(&format!(r#"{{"type":"{name}"}}"#)));
            assert!(!matches!(refused, Err(MessageError::UnknownType(_))), "{name}: {refused:?}");
        }
    }

    #[test]
    fn what_is_malformed_says_where_and_shows_its_front() {
        let told = decoded(&framed("[\x1b{")).unwrap_err().to_string();
        assert!(told.contains("line 1 column") && told.ends_with(r#""[\x1b{""#), "{told}");
        let told = decoded(&framed(r#"{"type":"list","dataset":"../etc"}"#)).unwrap_err();
        assert!(told.to_string().contains("'../etc' has a part '.' or '..'"), "{told}");
        assert!(decoded(&framed("")).is_err());
        assert!(decoded(&framed(&"[".repeat(MESSAGE_BYTES_MAX))).is_err());
    }

    #[test]
    fn a_length_over_the_cap_is_refused_before_anything_is_held() {
        for (first, name) in [
            (
                *b"HTTP",
                "1347703880 bytes was announced, the most is 65536: the other end speaks HTTP",
            ),
            (*b"SSH-", "speaks SSH"),
            (*b"\x15\x03\x03\x00", "speaks TLS"),
            (*b"\x01\x00\x01\x00", "65537 bytes was announced"),
            ([0xff; 4], "probably no zferry"),
        ] {
            let mut decoder = Decoder::default();
            let told = decoder.take(&mut &first[..]).unwrap_err().to_string();
            assert!(told.contains(name), "{told}");
            assert_eq!(decoder.body.capacity(), 0);
        }
        assert_eq!(decoded(&65536_u32.to_le_bytes()), Ok(None));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let whole = encode(&Message::List { dataset: "a/b".parse().unwrap() });
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // Also one in the length, which else would wait for bytes that do not come.
            assert!(decoded(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn words_of_a_peer_are_fit_to_be_shown() {
        let failure = Failure::new(Side::Target, Class::Zfs, "no\x1b[2Jspace").with_remedy("\x07");
        let Ok(Some(Message::Refused(shown))) = decoded(&encode(&Message::Refused(failure))) else {
            panic!("not refused");
        };
        assert_eq!(
            (shown.what.as_str(), shown.remedy.as_deref()),
            ("no\u{fffd}[2Jspace", Some("\u{fffd}"))
        );
    }

    #[test]
    fn a_failure_too_long_for_the_wire_is_cut() {
        let failure = Failure::new(Side::Target, Class::Zfs, "\x01".repeat(1 << 20))
            .with_remedy("ä".repeat(1 << 20));
        let bytes = encode(&Message::Refused(failure));
        let Ok(Some(Message::Refused(cut))) = decoded(&bytes) else { panic!("not refused") };
        assert!(cut.what.len() <= 4096 && cut.what.ends_with("..."));
    }

    #[test]
    #[should_panic(expected = "a listed-more message of")]
    fn a_message_of_our_own_that_does_not_fit_does_not_travel() {
        let snapshot = crate::listing::Snapshot {
            name: "a".parse().unwrap(),
            guid: crate::dataset::Guid(1),
            createtxg: 1,
        };
        encode(&Message::ListedMore { snapshots: vec![snapshot; 10_000], more: false });
    }

    #[test]
    fn the_join_secret_of_a_welcome_is_not_printed() {
        let json = r#"{"type":"welcome","software":"z","version":1,
            "limits":{"block_bytes_max":4096,"connections":1,"codecs":["raw"]},
            "secret":"abababababababababababababababab"}"#;
        let message = decoded(&framed(json)).unwrap().unwrap();
        let Message::Welcome(welcome) = &message else { panic!("{message:?}") };
        assert_eq!(welcome.secret, JoinSecret::new([0xab; 16]));
        let shown = format!("{message:?}");
        assert!(shown.contains("redacted") && !shown.contains("abab"), "{shown}");
        let told = decoded(&framed(&json.replace("ab\"", "ag\""))).unwrap_err().to_string();
        assert!(!told.contains("abab"), "{told}");
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_and_never_hold_more_than_one_message(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            small in any::<bool>(),
        ) {
            let mut decoder = Decoder::default();
            let mut stream = pieces.concat();
            if small && stream.len() > 4 {
                stream[2..4].fill(0);
            }
            let mut rest = stream.as_slice();
            while let Ok(Some(_)) = decoder.take(&mut rest) {}
            prop_assert!(decoder.body.capacity() <= 2 * MESSAGE_BYTES_MAX);
        }
    }
}
