//! Who is at the other end when it is no zferry.
//!
//! A wrong port or a port scan shows itself in its first bytes. Naming the stranger spares the
//! operator the search; nothing that a stranger sends is answered.

use super::text::escaped;

/// What the first bytes of strangers look like.
const STRANGERS: &[(&[u8], &str)] = &[
    (b"GET ", "HTTP"),
    (b"POST", "HTTP"),
    (b"HTTP", "HTTP"),
    (b"HEAD", "HTTP"),
    (b"PRI ", "HTTP/2"),
    (b"\x16\x03", "TLS"),
    (b"\x15\x03", "TLS"),
    (b"SSH-", "SSH"),
];

/// The protocol that begins with these bytes, if it is a well-known one.
pub(super) fn recognize(first: &[u8]) -> Option<&'static str> {
    STRANGERS.iter().find(|(opening, _)| first.starts_with(opening)).map(|&(_, name)| name)
}

/// Half a sentence on who speaks: `the other end speaks SSH ("SSH-2.0-")`.
pub(super) fn describe(first: &[u8]) -> String {
    let shown = escaped(first);
    match recognize(first) {
        Some(name) => format!("the other end speaks {name} (\"{shown}\")"),
        None => format!("the other end is probably no zferry (\"{shown}\")"),
    }
}
