//! ZFS's resume token: what an interrupted `zfs receive -s` has, and what it needs to go on.
//!
//! `1-CHECKSUM-LENGTH-HEX`; the hex is a zlib stream of a packed nvlist. Whoever runs `zfs send -t`
//! sends whatever the token names, from any dataset of the pool, encrypted or not (openzfs#14153),
//! and tokens come from the other host: so one is read here, and weighed by `plan`, before it is
//! ever used. What must never happen here: a token that reads differently to `zfs` than to us.
//! Hence a field that is unknown, doubled or of another type makes the whole token unreadable.

use std::fmt;
use std::str::FromStr;

use crate::dataset::{DatasetName, Guid, SnapName};
use crate::units::Bytes;

#[cfg(test)]
pub(crate) mod example;
mod nvlist;
#[cfg(test)]
mod tests;

pub use nvlist::NvlistError;
use nvlist::{Pair, Value};

/// The longest token that is read. Usual ones have 300 bytes; a redaction list makes them longer.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;

/// The longest nvlist that may be in one: 1,024 guids of redaction snapshots, and the rest.
const PACKED_BYTES_MAX: usize = 16 << 10;

/// The only version that there is.
const VERSION: &str = "1";

/// A token that was read; [`fmt::Display`] gives its text, fit for `zfs send -t`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The snapshot that is being received.
    pub to: Guid,
    /// What it builds on; `None` for a full stream.
    pub from: Option<Guid>,
    /// The dataset that the snapshot was sent from, under its name of then.
    pub to_dataset: DatasetName,
    /// The snapshot's name of then.
    pub to_snapshot: SnapName,
    /// The object that the stream goes on with.
    pub object: u64,
    /// The byte in it.
    pub offset: u64,
    /// How much of the stream is safe on the target, over all attempts: for showing, not for
    /// seeking.
    pub bytes: Bytes,
    /// How the stream was sent, and will be.
    pub flags: Flags,
    /// Whether it leaves out what redaction snapshots name.
    pub redacted: bool,
    /// Whether it is made from the partial state of another receive (`zfs send -S`).
    pub saved: bool,
    text: String,
}

/// The options of `zfs send` that a token fixes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option that can be given or not")]
pub struct Flags {
    /// `-L`: blocks above 128 KiB.
    pub large_blocks: bool,
    /// `-e`: blocks that are embedded in their pointers.
    pub embedded: bool,
    /// `-c`: blocks as they are compressed on disk.
    pub compressed: bool,
    /// `-w`: blocks as they are encrypted on disk.
    pub raw: bool,
}

/// Why a text is not a token that we know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Over [`TOKEN_BYTES_MAX`] bytes.
    #[error("it is {0} bytes long, more than {TOKEN_BYTES_MAX}")]
    TooLong(usize),
    /// Not four parts between dashes, of hexadecimal digits.
    #[error("its form is not 1-CHECKSUM-LENGTH-HEX")]
    Form,
    /// Made by a ZFS that is newer than what we know.
    #[error("its version is not {VERSION}")]
    Version,
    /// Bytes were lost or changed.
    #[error("its checksum is {got:x}, not {expected:x} as it says itself")]
    Checksum {
        /// What the token says.
        expected: u64,
        /// What its bytes have.
        got: u64,
    },
    /// Its payload is no zlib stream, or one that is longer than any true one.
    #[error("its payload cannot be decompressed")]
    Compression,
    /// Its payload has another length than it says.
    #[error("it holds {got} bytes, not {expected} as it says itself")]
    Length {
        /// What the token says.
        expected: u64,
        /// What was found.
        got: usize,
    },
    /// Its payload is no nvlist.
    #[error("its list of values is damaged: {0}")]
    Nvlist(#[from] NvlistError),
    /// A value that `zfs` may understand and we do not.
    #[error("it has the field {0:?}, which this zferry does not know")]
    UnknownField(String),
    /// A value that is there twice: who knows which one counts.
    #[error("it has the field {0} twice")]
    Twice(&'static str),
    /// A value of another type.
    #[error("its field {0} has the wrong type")]
    WrongType(&'static str),
    /// A value that every token has.
    #[error("it has no field {0}")]
    Missing(&'static str),
    /// The snapshot's name is none.
    #[error("it names {0:?}, which is no snapshot")]
    Name(String),
}

impl FromStr for Token {
    type Err = TokenError;

    /// Reads what the property `receive_resume_token` shows.
    fn from_str(text: &str) -> Result<Token, TokenError> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong(text.len()));
        }
        let (length, payload) = read_envelope(text)?;
        let packed =
            miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(&payload, PACKED_BYTES_MAX)
                .map_err(|_| TokenError::Compression)?;
        if packed.len() as u64 != length {
            return Err(TokenError::Length { expected: length, got: packed.len() });
        }
        Fields::of(&nvlist::read(&packed)?)?.token(text)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The length that a token claims for its nvlist, and its payload, whose checksum is right.
fn read_envelope(text: &str) -> Result<(u64, Vec<u8>), TokenError> {
    let mut parts = text.split('-');
    let mut part = || parts.next().ok_or(TokenError::Form);
    let (version, checksum, length, payload) = (part()?, part()?, part()?, part()?);
    if parts.next().is_some() {
        return Err(TokenError::Form);
    }
    if version != VERSION {
        return Err(TokenError::Version);
    }
    let (expected, length) = (hex_number(checksum)?, hex_number(length)?);
    let payload = hex_bytes(payload)?;
    let got = fletcher4_first(&payload);
    if got == expected {
        Ok((length, payload))
    } else {
        Err(TokenError::Checksum { expected, got })
    }
}

/// A number as `%llx` prints it: one form for each, so that nothing is read that was never written.
fn hex_number(text: &str) -> Result<u64, TokenError> {
    let number = u64::from_str_radix(text, 16).map_err(|_| TokenError::Form)?;
    if format!("{number:x}") == text { Ok(number) } else { Err(TokenError::Form) }
}

fn hex_bytes(text: &str) -> Result<Vec<u8>, TokenError> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(TokenError::Form),
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return Err(TokenError::Form);
    }
    pairs.iter().map(|&[high, low]| Ok(digit(high)? << 4 | digit(low)?)).collect()
}

/// The first of fletcher-4's four sums: that of the words. Up to three bytes at the end do not
/// count; the zlib stream has a checksum of its own.
fn fletcher4_first(bytes: &[u8]) -> u64 {
    let (words, _rest) = bytes.as_chunks::<4>();
    // At most 2^12 words of 32 bits: it cannot overflow.
    words.iter().map(|&word| u64::from(u32::from_le_bytes(word))).sum()
}

/// The fields of a token, each at most once.
#[derive(Default)]
struct Fields {
    from_guid: Option<u64>,
    object: Option<u64>,
    offset: Option<u64>,
    bytes: Option<u64>,
    to_guid: Option<u64>,
    to_name: Option<String>,
    large_blocks: Option<()>,
    embedded: Option<()>,
    compressed: Option<()>,
    raw: Option<()>,
    saved: Option<()>,
    redact_snaps: Option<()>,
    redact_bookmark: Option<()>,
}

impl Fields {
    fn of(pairs: &[Pair<'_>]) -> Result<Fields, TokenError> {
        let mut fields = Fields::default();
        pairs.iter().try_for_each(|pair| fields.take(pair))?;
        Ok(fields)
    }

    fn take(&mut self, pair: &Pair<'_>) -> Result<(), TokenError> {
        let value = pair.value;
        match pair.name {
            "fromguid" => set(&mut self.from_guid, "fromguid", number(value)),
            "object" => set(&mut self.object, "object", number(value)),
            "offset" => set(&mut self.offset, "offset", number(value)),
            "bytes" => set(&mut self.bytes, "bytes", number(value)),
            "toguid" => set(&mut self.to_guid, "toguid", number(value)),
            "toname" => set(&mut self.to_name, "toname", text(value)),
            "largeblockok" => set(&mut self.large_blocks, "largeblockok", presence(value)),
            "embedok" => set(&mut self.embedded, "embedok", presence(value)),
            "compressok" => set(&mut self.compressed, "compressok", presence(value)),
            "rawok" => set(&mut self.raw, "rawok", presence(value)),
            "savedok" => set(&mut self.saved, "savedok", presence(value)),
            // Of what type they are does not matter: they are refused by all who look.
            "redact_snaps" => set(&mut self.redact_snaps, "redact_snaps", Some(())),
            "book_redact_snaps" => set(&mut self.redact_bookmark, "book_redact_snaps", Some(())),
            unknown => Err(TokenError::UnknownField(unknown.to_owned())),
        }
    }

    fn token(self, text: &str) -> Result<Token, TokenError> {
        let need = |value: Option<u64>, name| value.ok_or(TokenError::Missing(name));
        let name = self.to_name.ok_or(TokenError::Missing("toname"))?;
        let (to_dataset, to_snapshot) = split_name(&name).ok_or(TokenError::Name(name))?;
        Ok(Token {
            to: Guid(need(self.to_guid, "toguid")?),
            from: self.from_guid.map(Guid),
            to_dataset,
            to_snapshot,
            object: need(self.object, "object")?,
            offset: need(self.offset, "offset")?,
            bytes: Bytes(need(self.bytes, "bytes")?),
            flags: Flags {
                large_blocks: self.large_blocks.is_some(),
                embedded: self.embedded.is_some(),
                compressed: self.compressed.is_some(),
                raw: self.raw.is_some(),
            },
            redacted: self.redact_snaps.or(self.redact_bookmark).is_some(),
            saved: self.saved.is_some(),
            text: text.to_owned(),
        })
    }
}

fn set<T>(field: &mut Option<T>, name: &'static str, value: Option<T>) -> Result<(), TokenError> {
    let value = value.ok_or(TokenError::WrongType(name))?;
    if field.replace(value).is_some() { Err(TokenError::Twice(name)) } else { Ok(()) }
}

fn number(value: Value<'_>) -> Option<u64> {
    if let Value::Number(number) = value { Some(number) } else { None }
}

fn text(value: Value<'_>) -> Option<String> {
    if let Value::Text(text) = value { Some(text.to_owned()) } else { None }
}

fn presence(value: Value<'_>) -> Option<()> {
    (value == Value::Present).then_some(())
}

fn split_name(name: &str) -> Option<(DatasetName, SnapName)> {
    let (dataset, snapshot) = name.split_once('@')?;
    Some((dataset.parse().ok()?, snapshot.parse().ok()?))
}
