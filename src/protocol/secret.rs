//! The secret that binds connections to their session.
//!
//! The server makes it and says it once, on the control connection; whatever connection wants to
//! join that session shows a [`Proof`] of it in its preamble. It must never be printed: whoever
//! knows it can join.

use std::fmt;

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

/// The length of a join secret: enough that nobody guesses one.
pub const JOIN_SECRET_BYTES: usize = 16;

/// What whoever may join a session knows; on control connections as hex.
#[derive(Clone, Copy, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JoinSecret([u8; JOIN_SECRET_BYTES]);

/// What a connection shows to join a session.
///
/// Under TLS an HMAC-SHA256 with the secret of what both ends of that one connection have agreed on
/// (RFC 8446, 7.5), cut to 16 bytes: of no use on another connection, and whoever hears it learns
/// nothing. In clear there is nothing to bind it to: it is the secret.
#[derive(Clone, Copy, Eq)]
pub struct Proof([u8; JOIN_SECRET_BYTES]);

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

    /// What to show on a connection that is bound so, or in clear.
    pub fn proof(&self, binding: Option<&[u8]>) -> Proof {
        let Some(binding) = binding else { return Proof(self.0) };
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), binding);
        let mut proof = [0; JOIN_SECRET_BYTES];
        proof.copy_from_slice(&tag.as_ref()[..JOIN_SECRET_BYTES]);
        Proof(proof)
    }
}

impl Proof {
    /// Of nothing.
    pub const NONE: Proof = Proof([0; JOIN_SECRET_BYTES]);

    /// As it came over the wire.
    pub(super) fn new(bytes: [u8; JOIN_SECRET_BYTES]) -> Proof {
        Proof(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8; JOIN_SECRET_BYTES] {
        &self.0
    }
}

/// Looks at every byte whatever it finds, so that the time taken tells a guesser nothing.
fn are_equal(left: &[u8; JOIN_SECRET_BYTES], right: &[u8; JOIN_SECRET_BYTES]) -> bool {
    left.iter().zip(right).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
}

impl PartialEq for JoinSecret {
    fn eq(&self, other: &JoinSecret) -> bool {
        are_equal(&self.0, &other.0)
    }
}

impl PartialEq for Proof {
    fn eq(&self, other: &Proof) -> bool {
        are_equal(&self.0, &other.0)
    }
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret(redacted)")
    }
}

/// In clear it is a secret.
impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof(redacted)")
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
    fn a_proof_is_of_one_secret_and_one_connection() {
        let (secret, other) = (JoinSecret::new([7; 16]), JoinSecret::new([8; 16]));
        let proof = secret.proof(Some(b"one"));
        assert_eq!(proof, secret.proof(Some(b"one")));
        for wrong in [secret.proof(Some(b"two")), other.proof(Some(b"one")), secret.proof(None)] {
            assert_ne!(proof, wrong);
        }
        // As `openssl dgst -sha256 -hmac` finds it, for a secret of sixteen times `a`.
        let tag = JoinSecret::new(*b"aaaaaaaaaaaaaaaa").proof(Some(b"one"));
        assert_eq!(u128::from_be_bytes(*tag.bytes()), 0x8a0f_4298_d5fe_d833_3f68_9891_a1b3_c885);
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
