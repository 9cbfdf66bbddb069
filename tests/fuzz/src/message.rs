//! Control messages, in whatever pieces they come.

use zferry::error::Failure;
use zferry::protocol::envelope::{self, Decoder, MESSAGE_BYTES_MAX, MessageError};
use zferry::protocol::message::{Ending, Hello, Message, Outcome, Welcome};

use crate::{Target, assert_fit_to_be_shown};

/// Each message as bytes, as text, as what it says, and all of that a few times.
pub const TARGET: Target = Target { run, allocated_bytes_max: 1 << 20 };

/// The length of the pieces, and messages with zeros between them: JSON has none.
fn run(input: &[u8]) {
    let Some((&piece_bytes, rest)) = input.split_first() else { return };
    let sealed: Vec<u8> = rest.split(|&byte| byte == 0).flat_map(sealed).collect();
    for stream in [rest, &sealed] {
        let whole = said(stream, stream.len());
        assert_eq!(said(stream, piece_bytes.into()), whole, "in pieces of {piece_bytes} bytes");
        whole.iter().for_each(check);
    }
}

/// A body in an envelope as it should be.
fn sealed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("inputs are short");
    let head = [length.to_le_bytes(), crc32fast::hash(body).to_le_bytes()].concat();
    [&head, &crc32fast::hash(&head).to_le_bytes()[..], body].concat()
}

/// What a decoder makes of the stream: an error ends it.
fn said(stream: &[u8], piece_bytes: usize) -> Vec<Result<Message, MessageError>> {
    let mut decoder = Decoder::default();
    let mut said = Vec::new();
    for mut piece in stream.chunks(piece_bytes.max(1)) {
        loop {
            match decoder.take(&mut piece) {
                Ok(Some(message)) => said.push(Ok(message)),
                Ok(None) => break,
                Err(error) => {
                    said.push(Err(error));
                    return said;
                }
            }
        }
        assert!(piece.is_empty(), "{} bytes were left behind", piece.len());
    }
    said
}

fn check(said: &Result<Message, MessageError>) {
    let message = match said {
        Ok(message) => message,
        Err(error) => return assert_fit_to_be_shown(&error.to_string(), 500),
    };
    assert!(Message::NAMES.contains(&message.name()));
    check_words(message);
    // A peer may have said it shorter than we would.
    if serde_json::to_vec(message).expect("it is plain data").len() <= MESSAGE_BYTES_MAX {
        let bytes = envelope::encode(message);
        assert_eq!(Decoder::default().take(&mut &bytes[..]), Ok(Some(message.clone())));
    }
}

/// What its sender chose freely and people are shown; in lines, as `zfs` explains itself.
fn check_words(message: &Message) {
    match message {
        Message::Hello(Hello { software, .. }) | Message::Welcome(Welcome { software, .. }) => {
            assert_fit_to_be_shown(software, 80);
        }
        Message::Refused(failure)
        | Message::End { ending: Ending::Failed(failure), .. }
        | Message::Result { outcome: Outcome::Failed(failure), .. } => {
            let Failure { side: _, class: _, what, remedy } = failure;
            for words in [what, remedy.as_ref().unwrap_or(what)] {
                assert_fit_to_be_shown(&words.replace('\n', " "), 4096);
                assert!(!words.contains(turns_the_reading), "{words:?}");
            }
        }
        _ => {}
    }
}

/// Of the characters that are no controls, those that make a terminal show others elsewhere.
fn turns_the_reading(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
