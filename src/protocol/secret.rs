//! The secret that binds data connections to their session.
//!
//! The server makes it and says it once, on the control connection; every data connection of that
//! session shows it in its preamble. It must never be printed: whoever knows it can join.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The length of a join secret: enough that nobody guesses one.
pub const JOIN_SECRET_BYTES: usize = 16;

/// What a data connection shows to join its session; on control connections as hex.
#[derive(Clone, Copy, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JoinSecret([u8; JOIN_SECRET_BYTES]);

/// Why a text is not a join secret. It does not repeat the text: that may be most of a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a join secret is 32 hexadecimal digits; this text of {got_bytes} bytes is not")]
pub struct NotASecret {
    /// How long the text was.
    pub got_bytes: usize,
}

impl JoinSecret {
    /// A secret of random bytes, which the caller drew from the kernel.
    pub fn new(random: [u8; JOIN_SECRET_BYTES]) -> JoinSecret {
        JoinSecret(random)
    }

    pub(super) fn bytes(&self) -> &[u8; JOIN_SECRET_BYTES] {
        &self.0
    }
}

impl PartialEq for JoinSecret {
    /// Looks at every byte whatever it finds, so that the time taken tells a guesser nothing.
    fn eq(&self, other: &JoinSecret) -> bool {
        self.0.iter().zip(&other.0).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
    }
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret(redacted)")
    }
}

impl From<JoinSecret> for String {
    fn from(secret: JoinSecret) -> String {
        format!("{:032x}", u128::from_be_bytes(secret.0))
    }
}

impl TryFrom<String> for JoinSecret {
    type Error = NotASecret;

    fn try_from(text: String) -> Result<JoinSecret, NotASecret> {
        let refused = NotASecret { got_bytes: text.len() };
        let digits = text.bytes().all(|digit| digit.is_ascii_hexdigit());
        if text.len() != 2 * JOIN_SECRET_BYTES || !digits {
            return Err(refused);
        }
        let number = u128::from_str_radix(&text, 16).map_err(|_| refused)?;
        Ok(JoinSecret(number.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_travels_as_hex_and_is_never_printed() {
        let secret = JoinSecret::new([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        let wire = serde_json::to_string(&secret).unwrap();
        assert_eq!(wire, r#""000102030405060708090a0b0c0d0eff""#);
        assert_eq!(serde_json::from_str::<JoinSecret>(&wire).unwrap(), secret);
        assert_eq!(format!("{secret:?}"), "JoinSecret(redacted)");
    }

    #[test]
    fn what_is_not_32_digits_is_refused_and_not_repeated() {
        for text in ["", "00", &"+".repeat(32), &"0".repeat(33), "+00102030405060708090a0b0c0d0eff"]
        {
            let refused = JoinSecret::try_from(text.to_owned());
            assert_eq!(refused, Err(NotASecret { got_bytes: text.len() }), "{text}");
        }
    }

    #[test]
    fn secrets_that_differ_in_one_bit_differ() {
        let secret = JoinSecret::new([7; 16]);
        for bit in 0..128 {
            let mut other = [7; 16];
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(secret, JoinSecret::new(other), "bit {bit}");
        }
    }
}
