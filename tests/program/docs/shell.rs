//! As much of a shell's grammar as documents need: words, quotes, pipes, comments, `$(...)`.

/// The calls of zferry in a line, each as its words, by whomever they are started: `sudo`, `ssh`, a
/// unit.
pub fn calls(line: &str) -> Vec<Vec<String>> {
    let mut calls = Vec::new();
    for words in commands(without_prompt(line)) {
        for inner in words.iter().filter_map(|word| word.strip_prefix("$(")?.strip_suffix(')')) {
            calls.extend(self::calls(inner));
        }
        calls.extend(call(&words));
    }
    calls
}

/// What a reader fills in, filled in.
pub fn filled_in(word: &str) -> String {
    const FINGERPRINT: &str = "SHA256:j6Oqsvqpt54KA5jaW1q9B4AUJEKlvoC5pkYI1xjLH80";
    let filled = match word {
        "SHA256:..." | "SHA256:(new)" => FINGERPRINT,
        word if word.starts_with("$(") && word.contains("fingerprint") => FINGERPRINT,
        "HOST:PORT" => "backup.example:7001",
        "ADDR:PORT" => "192.0.2.7:7001",
        "..." => "tank/data",
        "SHELL" => "bash",
        "TIME" => "1h",
        "RULES" => "last=7",
        "TEMPLATE" => "zferry_%Y-%m-%dT%H:%M:%SZ",
        "FIRST-LAST" => "7100-7199",
        "$host" => "web",
        word => return word.replace("[:PORT]", "").replace("$host", "web"),
    };
    filled.to_owned()
}

/// The words from zferry on, if this is a call of it.
fn call(words: &[String]) -> Option<Vec<String>> {
    let is_zferry = |word: &str| word == "zferry" || word.ends_with("/bin/zferry");
    let words: Vec<String> = words.iter().map(|word| word.replace("ExecStart=", "")).collect();
    let at = match words.first()?.as_str() {
        // The user may be called so, too.
        "sudo" | "ssh" | "docker" => {
            (1..words.len()).find(|&at| is_zferry(&words[at]) && words[at - 1] != "-u")?
        }
        word if is_zferry(word) => 0,
        _ => return None,
    };
    Some(words[at..].to_vec())
}

/// `# `, `$ `, `> ` or `web# ` in front of what is typed.
fn without_prompt(line: &str) -> &str {
    let line = line.trim();
    match line.split_once(' ') {
        Some(("$" | "#" | ">", rest)) => rest.trim(),
        Some((word, rest))
            if word.strip_suffix('#').is_some_and(|it| it.chars().all(char::is_alphanumeric)) =>
        {
            rest.trim()
        }
        _ => line,
    }
}

/// The commands of a line, each as its words: what stands between `|`, `;` and `&`, without what
/// goes to files.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, behind) = rest.split_at(word_end(rest));
        match word {
            "|" | ";" | "&" => commands.push(Vec::new()),
            word if word.starts_with('#') => break,
            word if word.trim_start_matches(char::is_numeric).starts_with(['>', '<']) => {}
            word => commands.last_mut().unwrap().push(unquoted(word)),
        }
        rest = behind.trim_start();
    }
    commands
}

/// Where the word ends that a text begins with.
fn word_end(text: &str) -> usize {
    let (mut quote, mut depth) = (None, 0usize);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            (None, _) if depth > 0 => {}
            (None, '|' | ';' | '&') if at == 0 => return 1,
            (None, '|' | ';') => return at,
            (None, c) if c.is_whitespace() => return at,
            _ => {}
        }
    }
    text.len()
}

fn unquoted(word: &str) -> String {
    if word.starts_with("$(") { word.to_owned() } else { word.replace(['\'', '"'], "") }
}
