//! Words of the other end, made fit to be shown.
//!
//! Everything that a peer wrote and a person may read passes here: a terminal or a log must never
//! obey what a stranger sent, nor drown in it. How much can be said at once stands here too.

/// The longest control message, without its head. What is longer travels in several.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// What a peer may say about one failure, and we about one of ours; the rest is cut off.
pub(super) const TEXT_BYTES_MAX: usize = 4096;

/// `text` without characters that move a cursor, ring a bell or turn the reading direction, and
/// with at most `bytes_max` bytes. Line ends stay: `zfs` explains itself in several lines.
pub fn printable(text: &str, bytes_max: usize) -> String {
    let obeyed = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let shown: String = text.chars().map(|c| if obeyed(c) { '\u{fffd}' } else { c }).collect();
    clipped(&shown, bytes_max)
}

/// Printable, and on one line.
pub fn one_line(text: &str, bytes_max: usize) -> String {
    printable(&text.replace('\n', " "), bytes_max)
}

/// The front of `text`, at most `bytes_max` bytes of it; a cut is marked.
pub(super) fn clipped(text: &str, bytes_max: usize) -> String {
    const MARK: &str = "...";
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let room = bytes_max.saturating_sub(MARK.len());
    let end = (0..=room).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    format!("{}{MARK}", &text[..end])
}

/// Bytes of any kind as text: what is not printable ASCII is escaped.
pub(super) fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_that_a_peer_wrote() {
        let shown = printable("a\x1b[2Jb\u{202e}c\r\nd\u{9b}e", 100);
        assert_eq!(shown, "a\u{fffd}[2Jb\u{fffd}c\u{fffd}\nd\u{fffd}e");
        assert_eq!(one_line("a\nb", 100), "a b");
    }

    #[test]
    fn long_words_are_cut_between_characters() {
        assert_eq!(clipped("äöü", 6), "äöü");
        assert_eq!(clipped("äöüä", 6), "ä...");
        assert_eq!(clipped("abc", 2), "...");
    }
}
