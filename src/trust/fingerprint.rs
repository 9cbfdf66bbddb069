//! What a public key is known by.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};

/// The SHA-256 of a public key, as `SHA256:` and 43 characters of base64: the form that ssh uses.
///
/// Of the whole `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7) in DER, as TLS carries it (RFC 7250), so
/// that `openssl pkey -pubout -outform DER | openssl dgst -sha256` finds the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

/// Why a text is no fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no fingerprint: that is SHA256: and 43 characters, see `zferry keys show`")]
pub struct NotAFingerprint {
    /// The beginning of it.
    text: String,
}

const PREFIX: &str = "SHA256:";

/// A longer text is cut when it is repeated to whoever typed it.
const SHOWN_MAX: usize = 60;

impl Fingerprint {
    /// Of a `SubjectPublicKeyInfo` in DER.
    pub fn of(public_key: &[u8]) -> Fingerprint {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, public_key).as_ref());
        Fingerprint(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Fingerprint, NotAFingerprint> {
        let bytes = text
            .strip_prefix(PREFIX)
            .and_then(|digits| STANDARD_NO_PAD.decode(digits).ok())
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let refused = || NotAFingerprint { text: text.chars().take(SHOWN_MAX).collect() };
        bytes.map(Fingerprint).ok_or_else(refused)
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = NotAFingerprint;

    fn try_from(text: String) -> Result<Fingerprint, NotAFingerprint> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> String {
        fingerprint.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_typed_as_it_is_shown() {
        let fingerprint = Fingerprint::of(b"a key");
        let shown = fingerprint.to_string();
        assert_eq!(shown, "SHA256:j6Oqsvqpt54KA5jaW1q9B4AUJEKlvoC5pkYI1xjLH80");
        assert_eq!(shown.parse(), Ok(fingerprint));
        assert_ne!(Fingerprint::of(b"another key"), fingerprint);
    }

    #[test]
    fn what_is_none_is_refused() {
        let whole = Fingerprint::of(b"a key").to_string();
        for text in ["", "SHA256:", "MD5:00", &whole[1..], &whole[..49], &format!("{whole}A")] {
            let refused = text.parse::<Fingerprint>().unwrap_err();
            assert!(refused.to_string().contains("zferry keys show"), "{text}");
        }
    }
}
