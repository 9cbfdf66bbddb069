//! Makes tokens as ZFS makes them, and others, for tests.

use super::{VERSION, fletcher4_first};

/// What a token of a test says.
#[derive(Clone, Debug)]
pub(crate) struct Example {
    pub from: Option<u64>,
    pub to: u64,
    pub to_name: String,
    /// Presence flags and any other fields without a value.
    pub flags: Vec<&'static str>,
    pub bytes: u64,
}

impl Example {
    /// A token for `to_name`, `dataset@snapshot`, in a stream as we send it.
    pub fn of(from: Option<u64>, to: u64, to_name: &str) -> Example {
        let flags = vec!["largeblockok", "compressok"];
        Example { from, to, to_name: to_name.to_owned(), flags, bytes: 0x16_2a10 }
    }

    /// The same with a flag more.
    pub fn with(mut self, flag: &'static str) -> Example {
        self.flags.push(flag);
        self
    }

    /// Its pairs, in ZFS's order.
    pub fn pairs(&self) -> Vec<Vec<u8>> {
        let from = self.from.map(|guid| number("fromguid", guid));
        let rest = [
            number("object", 9),
            number("offset", 0x14_0000),
            number("bytes", self.bytes),
            number("toguid", self.to),
            text("toname", &self.to_name),
        ];
        from.into_iter().chain(rest).chain(self.flags.iter().map(|flag| presence(flag))).collect()
    }

    /// Its text.
    pub fn token(&self) -> String {
        envelope(&packed(&self.pairs()))
    }
}

/// A packed nvlist, unique names as its flag says.
pub(super) fn packed(pairs: &[Vec<u8>]) -> Vec<u8> {
    let header = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    [header.as_slice(), &pairs.concat(), &[0; 4]].concat()
}

/// A token around bytes of any kind.
pub(super) fn envelope(packed: &[u8]) -> String {
    sealed(&miniz_oxide::deflate::compress_to_vec_zlib(packed, 6), packed.len())
}

/// A token around a payload of any kind, with the right checksum.
pub(super) fn sealed(payload: &[u8], length: usize) -> String {
    let hex = payload.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    format!("{VERSION}-{:x}-{length:x}-{hex}", fletcher4_first(payload))
}

pub(super) fn number(name: &str, value: u64) -> Vec<u8> {
    pair(name, 8, 1, &value.to_le_bytes())
}

pub(super) fn text(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = value.as_bytes().to_vec();
    bytes.resize((value.len() + 1).next_multiple_of(8), 0);
    pair(name, 9, 1, &bytes)
}

pub(super) fn presence(name: &str) -> Vec<u8> {
    pair(name, 1, 0, &[])
}

pub(super) fn numbers(name: &str, values: &[u64]) -> Vec<u8> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    pair(name, 16, i32::try_from(values.len()).unwrap(), &bytes)
}

/// A pair whose fields fit together.
pub(super) fn pair(name: &str, data_type: i32, count: i32, value: &[u8]) -> Vec<u8> {
    let value_at = (16 + name.len() + 1).next_multiple_of(8);
    let size = i32::try_from(value_at + value.len()).unwrap();
    let mut pair = size.to_le_bytes().to_vec();
    pair.extend(u16::try_from(name.len() + 1).unwrap().to_le_bytes());
    pair.extend([0, 0]);
    pair.extend(count.to_le_bytes());
    pair.extend(data_type.to_le_bytes());
    pair.extend(name.as_bytes());
    pair.resize(value_at, 0);
    pair.extend(value);
    pair
}
