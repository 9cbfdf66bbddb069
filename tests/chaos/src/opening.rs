//! What a connection is for, from its first 32 bytes. Pure.
//!
//! Says over again what `src/protocol/preamble.rs` says: these bytes are the same in every version,
//! and a relay that shared the code would share its mistakes.

/// The length of zferry's preamble.
pub(crate) const OPENING_BYTES: usize = 32;

const MAGIC: &[u8; 8] = b"\x89zferry\n";
const ROLE: usize = 12;
const LANE: usize = 14;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The first control connection of a session.
    Control,
    /// A control connection that takes the place of a lost one.
    Return,
    /// The data connection of this lane.
    Lane(u16),
    /// Something else than zferry.
    Stranger,
}

/// The role of a connection that began with `first`; `None` while that may still turn out.
pub(crate) fn recognize(first: &[u8]) -> Option<Role> {
    if !first.iter().zip(MAGIC).all(|(got, expected)| got == expected) {
        return Some(Role::Stranger);
    }
    let first = first.get(..OPENING_BYTES)?;
    Some(match first[ROLE] {
        1 => Role::Control,
        2 => Role::Lane(u16::from_le_bytes([first[LANE], first[LANE + 1]])),
        3 => Role::Return,
        _ => Role::Stranger,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preamble(role: u8, lane: u16) -> [u8; OPENING_BYTES] {
        let mut bytes = [0; OPENING_BYTES];
        bytes[..MAGIC.len()].copy_from_slice(MAGIC);
        bytes[ROLE] = role;
        bytes[LANE..LANE + 2].copy_from_slice(&lane.to_le_bytes());
        bytes
    }

    #[test]
    fn each_role_is_recognized_by_its_preamble_and_no_earlier() {
        for (bytes, role) in [
            (preamble(1, 0), Role::Control),
            (preamble(2, 259), Role::Lane(259)),
            (preamble(3, 0), Role::Return),
            (preamble(9, 0), Role::Stranger),
        ] {
            assert_eq!(recognize(&bytes), Some(role));
            assert_eq!(recognize(&bytes[..OPENING_BYTES - 1]), None);
        }
    }

    #[test]
    fn a_stranger_is_known_by_its_first_wrong_byte() {
        assert_eq!(recognize(b""), None);
        assert_eq!(recognize(b"\x89zferr"), None);
        assert_eq!(recognize(b"\x89zfs"), Some(Role::Stranger));
        assert_eq!(recognize(b"G"), Some(Role::Stranger));
    }
}
