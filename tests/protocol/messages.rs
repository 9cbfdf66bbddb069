//! Every message survives the wire, in whatever pieces it comes.

use proptest::prelude::*;
use zferry::protocol::envelope::{Decoder, HEAD_BYTES, encode};
use zferry::protocol::message::Message;

use crate::arbitrary;

fn json_name(message: &Message) -> String {
    let value: serde_json::Value = serde_json::from_slice(&encode(message)[HEAD_BYTES..]).unwrap();
    value["type"].as_str().unwrap().to_owned()
}

proptest! {
    #[test]
    fn what_is_said_is_what_is_heard(
        said in prop::collection::vec(arbitrary::message(), 0..8),
        cuts in prop::collection::vec(1..200_usize, 1..20),
    ) {
        let bytes: Vec<u8> = said.iter().flat_map(encode).collect();
        let mut decoder = Decoder::default();
        let mut heard = Vec::new();
        let mut rest = bytes.as_slice();
        for cut in cuts.iter().cycle() {
            let (mut piece, behind) = rest.split_at((*cut).min(rest.len()));
            while let Some(message) = decoder.take(&mut piece).unwrap() {
                heard.push(message);
            }
            prop_assert!(piece.is_empty());
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(heard, said);
    }

    #[test]
    fn a_message_is_called_what_the_wire_calls_it(message in arbitrary::message()) {
        prop_assert_eq!(json_name(&message), message.name());
        prop_assert!(Message::NAMES.contains(&message.name()));
    }

    #[test]
    fn a_flipped_byte_never_panics(
        message in arbitrary::message(), at in any::<prop::sample::Index>(), flip in 1..=255_u8,
    ) {
        let mut bytes = encode(&message);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let mut rest = bytes.as_slice();
        let mut decoder = Decoder::default();
        while let Ok(Some(_)) = decoder.take(&mut rest) {}
    }
}
