//! The list of named values in a resume token: what decides which snapshot `zfs send -t` sends.

use miniz_oxide::deflate::compress_to_vec_zlib;
use zferry::token::Token;

use crate::Target;
use crate::token::{check, sealed};

/// What packs the list takes most of it.
pub const TARGET: Target = Target { run, allocated_bytes_max: 1 << 20 };

/// A packed list.
fn run(input: &[u8]) {
    let Some(token) = read(input) else { return };
    // Not of the same bytes: there is padding that nobody looks at, and an order.
    let again = read(&packed(&token)).expect("a list that we packed ourselves is read");
    let said = |token: Token| {
        let Token { to, from, to_dataset, to_snapshot, object, offset, bytes, flags, .. } = token;
        let names = (to_dataset, to_snapshot);
        (to, from, names, object, offset, bytes, flags, token.redacted, token.saved)
    };
    assert_eq!(said(again), said(token));
}

/// The token around a packed list.
fn read(packed: &[u8]) -> Option<Token> {
    check(&sealed(&compress_to_vec_zlib(packed, 1), packed.len()))
}

/// The list as ZFS would pack it.
fn packed(token: &Token) -> Vec<u8> {
    let name = format!("{}@{}", token.to_dataset, token.to_snapshot);
    let flags = [
        (token.flags.large_blocks, "largeblockok"),
        (token.flags.embedded, "embedok"),
        (token.flags.compressed, "compressok"),
        (token.flags.raw, "rawok"),
        (token.saved, "savedok"),
    ];
    let mut list = vec![0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    list.extend(token.from.map(|guid| number("fromguid", guid.0)).unwrap_or_default());
    list.extend(number("object", token.object));
    list.extend(number("offset", token.offset));
    list.extend(number("bytes", token.bytes.0));
    list.extend(number("toguid", token.to.0));
    list.extend(pair("toname", 9, 1, &[name.as_bytes(), &[0]].concat()));
    for (_, flag) in flags.into_iter().filter(|(is_set, _)| *is_set) {
        list.extend(pair(flag, 1, 0, &[]));
    }
    if token.redacted {
        list.extend(pair("redact_snaps", 16, 1, &[1; 8]));
    }
    list.extend([0; 4]);
    list
}

fn number(name: &str, value: u64) -> Vec<u8> {
    pair(name, 8, 1, &value.to_le_bytes())
}

/// Sizes, the name and the value, each padded to eight bytes.
fn pair(name: &str, data_type: i32, count: i32, value: &[u8]) -> Vec<u8> {
    let name_bytes = u16::try_from(name.len() + 1).expect("names are short");
    let mut pair = vec![0; 4];
    pair.extend(name_bytes.to_le_bytes());
    pair.extend([0, 0]);
    pair.extend(count.to_le_bytes());
    pair.extend(data_type.to_le_bytes());
    for bytes in [&[name.as_bytes(), &[0]].concat(), value] {
        pair.extend(bytes);
        pair.resize(pair.len().next_multiple_of(8), 0);
    }
    let size = i32::try_from(pair.len()).expect("pairs are short");
    pair[..4].copy_from_slice(&size.to_le_bytes());
    pair
}
