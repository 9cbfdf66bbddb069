//! A host's own key, and the file that it is kept in.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::fingerprint::Fingerprint;
use super::owner;
use crate::error::{Class, Failure, Side};
use crate::small_file::{self, Aside, Distrust, check_secret, folder_of, read_text};

/// An Ed25519 key pair. Its private half is wiped from memory with it, and never printed.
pub struct OwnKey {
    /// RFC 8410, version 1: the form that openssl 3.0 reads, too.
    pkcs8: Zeroizing<Vec<u8>>,
    public: Vec<u8>,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read, made or written.
    #[error("the key {}: {error}", path.display())]
    File {
        /// Where it is.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Others may read it: it may be known to them.
    #[error("the key {} can be read by others (mode {mode:03o})", path.display())]
    Exposed {
        /// Where it is.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It belongs to somebody who is neither root nor us, and may be known to him.
    #[error("the key {} belongs to user {}", path.display(), owner::name(*owner))]
    Foreign {
        /// Where it is.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// It is no Ed25519 key in PEM.
    #[error("{} holds no Ed25519 key in PEM form", path.display())]
    Malformed {
        /// Where it is.
        path: PathBuf,
    },
    /// No key could be made.
    #[error("no key can be made: the machine has no random bytes")]
    NoRandomBytes,
}

const HEAD: &str = "-----BEGIN PRIVATE KEY-----\n";
const FOOT: &str = "-----END PRIVATE KEY-----\n";

/// Many times what a key takes: a file that is longer is none.
const FILE_MAX: u64 = 4096;

impl OwnKey {
    /// A new one, known to nobody.
    pub fn generate() -> Result<OwnKey, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::NoRandomBytes)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| KeyError::NoRandomBytes)?;
        OwnKey::from_pkcs8(Zeroizing::new(pkcs8.as_ref().to_vec())).ok_or(KeyError::NoRandomBytes)
    }

    fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>) -> Option<OwnKey> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).ok()?;
        let public = pair.public_key().as_der().ok()?.as_ref().to_vec();
        Some(OwnKey { pkcs8, public })
    }

    /// The key of a file; without one, a new key in a new file that nobody else can read.
    pub fn load_or_create(path: &Path) -> Result<OwnKey, KeyError> {
        match OwnKey::load(path) {
            Err(KeyError::File { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                OwnKey::create(path)
            }
            loaded => loaded,
        }
    }

    /// The key of a file.
    pub fn load(path: &Path) -> Result<OwnKey, KeyError> {
        let failed = |error| KeyError::File { path: path.to_owned(), error };
        let malformed = || KeyError::Malformed { path: path.to_owned() };
        // Before it is opened: to open a pipe is to wait for its writer.
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(malformed());
        }
        let file = File::open(path).map_err(failed)?;
        let user = small_file::user().map_err(failed)?;
        check_secret(&file.metadata().map_err(failed)?, user).map_err(|why| match why {
            Distrust::Mode(mode) => KeyError::Exposed { path: path.to_owned(), mode },
            Distrust::Owner(owner) => KeyError::Foreign { path: path.to_owned(), owner },
        })?;
        let text = read_text(&file, FILE_MAX).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => malformed(),
            _ => failed(error),
        })?;
        decode(&text).and_then(OwnKey::from_pkcs8).ok_or_else(malformed)
    }

    /// Of two processes that do so at once, both get the key of the first.
    fn create(path: &Path) -> Result<OwnKey, KeyError> {
        let failed = |error| KeyError::File { path: path.to_owned(), error };
        let key = OwnKey::generate()?;
        DirBuilder::new().recursive(true).mode(0o700).create(folder_of(path)).map_err(failed)?;
        match Aside::write(path, key.encode().as_bytes()).and_then(Aside::put) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return OwnKey::load(path);
            }
            written => written.map_err(failed)?,
        }
        Ok(key)
    }

    fn encode(&self) -> Zeroizing<String> {
        // 48 bytes are one line of 64 characters.
        Zeroizing::new(format!("{HEAD}{}\n{FOOT}", STANDARD.encode(&*self.pkcs8)))
    }

    /// What others know it by.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.public)
    }

    /// Its public half: a `SubjectPublicKeyInfo` in DER.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Both halves: a `PrivateKeyInfo` in DER. For TLS alone.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }
}

/// What stands between head and foot; whatever else is in the file is for people.
fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (_, rest) = text.split_once(HEAD)?;
    let (digits, _) = rest.split_once(FOOT)?;
    let digits: Zeroizing<String> =
        Zeroizing::new(digits.chars().filter(|digit| !digit.is_ascii_whitespace()).collect());
    STANDARD.decode(&*digits).ok().map(Zeroizing::new)
}

impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnKey({})", self.fingerprint())
    }
}

impl KeyError {
    /// The failure on one side.
    pub fn on(&self, side: Side) -> Failure {
        let failure = Failure::new(side, Class::Machine, self.to_string());
        match self {
            KeyError::Exposed { path, .. } => failure.with_remedy(format!(
                "chmod 600 {0}; if somebody may have read it, remove it: a new one is made, which \
                 the other hosts must be told of",
                path.display()
            )),
            KeyError::Foreign { path, owner } => failure.with_remedy(format!(
                "it belongs to {0}: run this as that user (sudo -u {0} zferry ...); or, if nobody \
                 else can have read it, give it to another: chown USER {1}",
                owner::name(*owner),
                path.display()
            )),
            KeyError::Malformed { path } => failure.with_remedy(format!(
                "restore {} from a backup, or remove it: a new one is made, which the other hosts \
                 must be told of",
                path.display()
            )),
            KeyError::File { path, error } => {
                let remedy = owner::remedy(path, error);
                Failure { remedy, ..failure }
            }
            KeyError::NoRandomBytes => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/key.pem");
        let made = OwnKey::load_or_create(&path).unwrap();
        let found = OwnKey::load_or_create(&path).unwrap();
        assert_eq!(made.fingerprint(), found.fingerprint());
        let bits = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((bits(&path), bits(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert_ne!(OwnKey::generate().unwrap().fingerprint(), made.fingerprint());
    }

    #[test]
    fn processes_that_start_at_once_have_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let first = OwnKey::load_or_create(&path).unwrap();
        let second = OwnKey::create(&path).unwrap();
        assert_eq!(first.fingerprint(), second.fingerprint());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        OwnKey::load_or_create(&path).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let refused = OwnKey::load_or_create(&path).unwrap_err();
            assert!(matches!(refused, KeyError::Exposed { .. }), "{refused}");
            assert!(refused.on(Side::Target).to_string().contains("chmod 600"));
        }
    }

    #[test]
    fn what_is_no_key_is_neither_taken_for_one_nor_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let whole = OwnKey::generate().unwrap().encode();
        for bytes in [b"".as_slice(), b"\xff\xfe", &whole.as_bytes()[..90], b"-----BEGIN"] {
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            let refused = OwnKey::load_or_create(&path).unwrap_err();
            assert!(matches!(refused, KeyError::Malformed { .. }), "{refused}");
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn the_private_half_is_not_printed() {
        let key = OwnKey::generate().unwrap();
        assert_eq!(format!("{key:?}"), format!("OwnKey({})", key.fingerprint()));
    }
}
