//! Reads a packed nvlist: the named values that a resume token is made of.
//!
//! The *native* encoding of libnvpair, as little-endian hosts write it: a header of twelve bytes,
//! then pairs of a header, a name and a value, each padded to eight bytes, then a size of zero.
//! Every byte is a stranger's: a length is checked before it is used, and what is not understood
//! is an error, never skipped.

/// Encoding and byte order, two reserved bytes, version, flags.
const LIST_HEADER_BYTES: usize = 12;

/// Size of the pair, size of its name, a reserved field, number of elements, type.
const PAIR_HEADER_BYTES: usize = 16;

const NATIVE: u8 = 0;
const LITTLE_ENDIAN: u8 = 1;

/// `data_type_t` of libnvpair, as far as tokens use it.
const BOOLEAN: i32 = 1;
const UINT64: i32 = 8;
const STRING: i32 = 9;
const UINT64_ARRAY: i32 = 16;

/// A name and what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair<'a> {
    pub name: &'a str,
    pub value: Value<'a>,
}

/// What can stand behind a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// That the name is there says it all.
    Present,
    Number(u64),
    Text(&'a str),
    /// Numbers that nobody here asks for.
    Numbers,
}

/// Why bytes are no nvlist of ours; `at` counts bytes from its beginning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NvlistError {
    /// Another encoding, or the byte order of another kind of machine.
    #[error("its encoding is {encoding}, its byte order {order}; this host's are 0 and 1")]
    OtherEncoding {
        /// 0 is native, 1 is XDR.
        encoding: u8,
        /// 0 is big-endian, 1 is little-endian.
        order: u8,
    },
    /// It ends within something.
    #[error("it ends within what begins at byte {at}")]
    Short {
        /// Where that begins.
        at: usize,
    },
    /// It goes on behind its own end.
    #[error("{count} bytes stand behind its end")]
    Longer {
        /// How many.
        count: usize,
    },
    /// A pair whose sizes contradict each other, or whose name or text is none.
    #[error("the pair at byte {at} is malformed")]
    Malformed {
        /// Where it begins.
        at: usize,
    },
    /// A type that no token has.
    #[error("the pair at byte {at} has the unknown type {got}")]
    UnknownType {
        /// Where it begins.
        at: usize,
        /// Its type.
        got: i32,
    },
}

/// All pairs of a packed nvlist, in its order.
pub(super) fn read(packed: &[u8]) -> Result<Vec<Pair<'_>>, NvlistError> {
    let header = packed.get(..LIST_HEADER_BYTES).ok_or(NvlistError::Short { at: 0 })?;
    if (header[0], header[1]) != (NATIVE, LITTLE_ENDIAN) {
        return Err(NvlistError::OtherEncoding { encoding: header[0], order: header[1] });
    }
    let mut at = LIST_HEADER_BYTES;
    let mut pairs = Vec::new();
    loop {
        let rest = packed.get(at..).ok_or(NvlistError::Short { at })?;
        let size = i32_at(rest, 0).ok_or(NvlistError::Short { at })?;
        if size == 0 {
            let count = rest.len() - 4;
            return if count == 0 { Ok(pairs) } else { Err(NvlistError::Longer { count }) };
        }
        let size = usize::try_from(size).map_err(|_| NvlistError::Malformed { at })?;
        let pair = rest.get(..size).ok_or(NvlistError::Short { at })?;
        pairs.push(read_pair(pair, at)?);
        // Within `packed`, as `pair` is.
        at += size;
    }
}

fn read_pair(pair: &[u8], at: usize) -> Result<Pair<'_>, NvlistError> {
    let malformed = || NvlistError::Malformed { at };
    let name_bytes = pair.get(4..6).ok_or_else(malformed)?;
    let name_bytes = usize::from(u16::from_le_bytes([name_bytes[0], name_bytes[1]]));
    let count = i32_at(pair, 8).ok_or_else(malformed)?;
    let data_type = i32_at(pair, 12).ok_or_else(malformed)?;
    let name_end = PAIR_HEADER_BYTES + name_bytes;
    let name = pair.get(PAIR_HEADER_BYTES..name_end).and_then(terminated).ok_or_else(malformed)?;
    let bytes = pair.get(name_end.next_multiple_of(8)..).ok_or_else(malformed)?;
    let value = match data_type {
        BOOLEAN => bytes.is_empty().then_some(Value::Present),
        UINT64 if count == 1 => number(bytes).map(Value::Number),
        STRING if count == 1 => padded(bytes).map(Value::Text),
        UINT64_ARRAY => is_array_of(count, bytes).then_some(Value::Numbers),
        UINT64 | STRING => None,
        got => return Err(NvlistError::UnknownType { at, got }),
    };
    Ok(Pair { name, value: value.ok_or_else(malformed)? })
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(i32::from_le_bytes(four.try_into().ok()?))
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// Text up to the one NUL at its end.
fn terminated(bytes: &[u8]) -> Option<&str> {
    let (&last, text) = bytes.split_last()?;
    (last == 0 && !text.is_empty() && !text.contains(&0)).then_some(())?;
    std::str::from_utf8(text).ok()
}

/// The same, padded with further NULs to a multiple of eight.
fn padded(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    let padding = bytes.get(end..)?;
    (padding.len() <= 8 && padding.iter().all(|&byte| byte == 0)).then_some(())?;
    terminated(bytes.get(..=end)?)
}

fn is_array_of(count: i32, bytes: &[u8]) -> bool {
    let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(8));
    length == Some(bytes.len())
}
