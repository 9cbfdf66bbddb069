//! ZFS's resume token as text, and the zlib stream in it.

use std::fmt::Write;

use zferry::token::Token;

use crate::{Target, assert_fit_to_be_shown};

/// The list in a token may have 16 KiB, and is copied while it grows.
pub const TARGET: Target = Target { run, allocated_bytes_max: 256 << 10 };

/// A token; or the length that one claims, and its payload.
fn run(input: &[u8]) {
    if let Ok(text) = str::from_utf8(input) {
        check(text);
    }
    if let Some((length, payload)) = input.split_first_chunk() {
        check(&sealed(payload, u16::from_le_bytes(*length).into()));
    }
}

/// A token around a payload, with the right checksum.
pub(crate) fn sealed(payload: &[u8], length: usize) -> String {
    let words = payload.as_chunks().0;
    let checksum: u64 = words.iter().map(|&word| u64::from(u32::from_le_bytes(word))).sum();
    let mut text = format!("1-{checksum:x}-{length:x}-");
    for byte in payload {
        write!(text, "{byte:02x}").expect("a string takes all");
    }
    text
}

pub(crate) fn check(text: &str) -> Option<Token> {
    match text.parse::<Token>() {
        Ok(token) => {
            assert_eq!(token.to_string(), text);
            Some(token)
        }
        Err(error) => {
            assert_fit_to_be_shown(&error.to_string(), 500);
            None
        }
    }
}
