//! Rust as far as the rules need it: words and signs without comments and strings, and the paths
//! that they name.
//!
//! No parser. What must not happen: a path that is missed because of how it is written, in a
//! group, behind `super::super` or in a module within the file.

/// A word, `::`, or one character of punctuation.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    pub line: usize,
    pub text: &'a str,
}

/// The code of a file without comments, strings and characters.
pub fn tokens(text: &str) -> Vec<Token<'_>> {
    let (mut found, mut rest, mut line) = (Vec::new(), text, 1);
    while !rest.is_empty() {
        let (length, is_code) = front(rest);
        let (token, after) = rest.split_at(length);
        if is_code {
            found.push(Token { line, text: token });
        }
        line += token.matches('\n').count();
        rest = after;
    }
    found
}

/// How long the thing at the front is, and whether it is code.
fn front(text: &str) -> (usize, bool) {
    let mut chars = text.chars();
    let (first, second, third) = (chars.next().unwrap(), chars.next(), chars.next());
    match (first, second) {
        ('/', Some('/')) => (text.find('\n').unwrap_or(text.len()), false),
        ('/', Some('*')) => (comment(text), false),
        ('"', _) => (1 + quoted(&text[1..], '"'), false),
        ('\'', Some('\\')) => (1 + quoted(&text[1..], '\''), false),
        ('\'', Some(only)) if third == Some('\'') => (2 + only.len_utf8(), false),
        (':', Some(':')) => (2, true),
        _ if first.is_whitespace() => (first.len_utf8(), false),
        _ if is_word(first) => {
            let word = text.find(|c| !is_word(c)).unwrap_or(text.len());
            let hashes = text[word..].chars().take_while(|&c| c == '#').count();
            let opens_string = text[word + hashes..].starts_with('"');
            match &text[..word] {
                "r" | "br" | "cr" if opens_string => {
                    let inside = word + hashes + 1;
                    let end = format!("\"{}", "#".repeat(hashes));
                    let length = text[inside..].find(&end).map_or(text.len(), |at| inside + at);
                    ((length + end.len()).min(text.len()), false)
                }
                _ => (word, true),
            }
        }
        _ => (first.len_utf8(), true),
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of a quotation behind its opening quote, with the closing one.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a block comment; they nest.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        let rest = &text.as_bytes()[at..];
        match rest {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            [_, ..] => at += 1,
            [] => return at,
        }
    }
}

/// All paths that the code of `module` names, each with its line. One that begins with `crate`,
/// `self` or `super` is told from the crate's root on: `["crate", "engine", ..]`.
pub fn paths<'a>(module: &[&'a str], tokens: &[Token<'a>]) -> Vec<(usize, Vec<&'a str>)> {
    let mut found = Vec::new();
    let mut module = module.to_vec();
    // How many braces were open where each inline module began.
    let (mut braces, mut inline) = (0, Vec::new());
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let before = at.checked_sub(1).map_or("", |at| tokens[at].text);
        match token.text {
            "{" => braces += 1,
            "}" => {
                braces -= 1;
                if inline.last() == Some(&braces) {
                    inline.pop();
                    module.pop();
                }
            }
            _ if before == "mod" && text_at(tokens, at + 1) == "{" => {
                inline.push(braces);
                module.push(token.text);
            }
            word if word.starts_with(is_word)
                && (before == "use" || text_at(tokens, at + 1) == "::") =>
            {
                tree(&module, tokens, &mut at, &[], &mut found);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

fn text_at<'a>(tokens: &[Token<'a>], at: usize) -> &'a str {
    tokens.get(at).map_or("", |token| token.text)
}

/// Reads one path, or a tree of them: `a::{b, c::d}`. Leaves `at` behind it.
fn tree<'a>(
    module: &[&'a str],
    tokens: &[Token<'a>],
    at: &mut usize,
    stem: &[&'a str],
    found: &mut Vec<(usize, Vec<&'a str>)>,
) {
    let mut path = stem.to_vec();
    let line = tokens.get(*at).map_or(0, |token| token.line);
    loop {
        let from_here = || std::iter::once("crate").chain(module.iter().copied()).collect();
        match text_at(tokens, *at) {
            "self" if path.is_empty() => path = from_here(),
            "self" => {}
            "super" => {
                if path.is_empty() {
                    path = from_here();
                }
                path.pop();
            }
            "{" => {
                *at += 1;
                while !matches!(text_at(tokens, *at), "}" | "") {
                    let start = *at;
                    if text_at(tokens, start) != "," {
                        tree(module, tokens, at, &path, found);
                    }
                    *at = (*at).max(start + 1);
                }
                *at += 1;
                return;
            }
            word if word == "*" || word.starts_with(is_word) => path.push(word),
            _ => break,
        }
        *at += 1;
        if text_at(tokens, *at) != "::" {
            break;
        }
        *at += 1;
    }
    // `as _` gives another name to the same thing.
    if text_at(tokens, *at) == "as" {
        *at += 2;
    }
    found.push((line, path));
}
