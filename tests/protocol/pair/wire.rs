//! Bytes on their way, and the messages that they become.

use std::collections::VecDeque;

use zferry::protocol::envelope::{Decoder, encode};
use zferry::protocol::message::Message;

/// One direction of the control connection.
#[derive(Default)]
pub(super) struct Wire {
    pub bytes: VecDeque<u8>,
    decoder: Decoder,
}

impl Wire {
    pub fn say(&mut self, message: &Message) {
        self.bytes.extend(encode(message));
    }

    pub fn deliver(&mut self, count: usize) -> Vec<Message> {
        let piece: Vec<u8> = self.bytes.drain(..count.min(self.bytes.len())).collect();
        let mut rest = piece.as_slice();
        let mut messages = Vec::new();
        while let Some(message) = self.decoder.take(&mut rest).unwrap() {
            messages.push(message);
        }
        messages
    }
}
