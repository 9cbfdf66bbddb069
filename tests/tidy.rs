//! Checks of the source text itself: what the compiler and clippy cannot say for us.
//!
//! The order of the modules, what the pure ones must not touch, and how a file looks. All rules
//! are one function of a path and a text, [`check`], so each is shown here to fail on a bad
//! example. A new arrow between modules is a change of [`LAYERS`], where a reviewer sees it.

use std::fs;
use std::path::{Path, PathBuf};

// A folder beside this file is no test of its own, as a file there would be.
#[path = "tidy/source.rs"]
mod source;

use source::{Token, paths, tokens};

/// Modules from the ground up. A module may name only modules that stand before it.
const LAYERS: &[&str] = &[
    "units",
    "error",
    "backoff",
    "small_file",
    "dataset",
    "pattern",
    "listing",
    "token",
    "stream",
    "retention",
    "trust",
    "protocol",
    "breakpoint",
    "schedule",
    "plan",
    "spool",
    "process",
    "zfs",
    "engine",
    "tls",
    "link",
    "server",
    "client",
    "board",
    "tune",
    "cli",
    "main",
];

/// Modules that must run on any machine, at any time: no kernel, no clock, no thread.
const PURE: &[&str] = &[
    "units",
    "error",
    "backoff",
    "dataset",
    "pattern",
    "listing",
    "token",
    "stream",
    "retention",
    "protocol",
    "breakpoint",
    "schedule",
    "plan",
    "board",
];

/// What a path in a pure module must not begin with.
const IMPURE: &[&str] = &[
    "sys",
    "tokio",
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "crossbeam_channel",
];

/// Types that would tell the time; `now` is theirs.
const CLOCKS: &[&str] = &["Instant", "SystemTime", "Zoned", "Timestamp"];

/// Crates that reach the kernel; only `sys` may have them.
const KERNEL_CRATES: &[&str] = &["io-uring", "libc", "nix", "tokio-uring"];

const COLUMNS_MAX: usize = 100;

/// Files with lines over [`COLUMNS_MAX`]. They are being worked on; nothing may be added here.
const WIDE_FILES: &[&str] = &[];

/// Longer files tell two stories. [`LONG_FILES`] lists those that do so still.
const LINES_MAX: usize = 500;

/// Files over [`LINES_MAX`] lines and how long each may be: a number here only ever falls.
const LONG_FILES: &[(&str, usize)] = &[];

#[test]
fn tidy() {
    let mut untidy = Vec::new();
    let mut files = 0;
    for folder in ["src", "sys", "tests", "benches"] {
        for path in rust_files(Path::new(folder)) {
            let text = fs::read_to_string(&path).unwrap();
            untidy.extend(check(path.to_str().unwrap(), &text));
            files += 1;
        }
    }
    untidy.extend(check("Cargo.toml", &fs::read_to_string("Cargo.toml").unwrap()));
    assert!(files > 50, "the tests run in the package's folder");
    assert!(untidy.is_empty(), "\n{}", untidy.join("\n"));
}

/// A rule whose test was renamed would look tested for ever.
#[test]
fn every_test_that_the_architecture_names_exists() {
    let page = fs::read_to_string("ARCHITECTURE.md").unwrap();
    let rules = page.split("## The rules, and the test of each").nth(1).expect("the section");
    let rules = rules.split("\n## ").next().unwrap_or_default();
    assert_all_exist(rules, &test_sources());
}

/// So would a promise.
#[test]
fn every_test_that_the_promises_of_security_name_exists() {
    let page = fs::read_to_string("SECURITY.md").unwrap();
    assert_all_exist(&page, &test_sources());
}

/// Files and folders, where a page says them from the top.
#[test]
fn every_file_that_the_pages_name_exists() {
    let mut named = 0;
    for page in ["README.md", "ARCHITECTURE.md", "SECURITY.md", "docs/least-privilege.md"] {
        let text = fs::read_to_string(page).unwrap();
        for path in quoted(&text).filter(|words| is_path(words)) {
            assert!(Path::new(path).exists(), "{page} names {path}");
            named += 1;
        }
    }
    assert!(named > 50, "{named}");
}

/// Where tests are declared, those of the guest too.
fn test_sources() -> Vec<String> {
    let mut files: Vec<PathBuf> =
        ["src", "tests"].iter().flat_map(|folder| rust_files(Path::new(folder))).collect();
    files.extend(fs::read_dir("ci/vm/cases").unwrap().map(|entry| entry.unwrap().path()));
    let scripts = files.into_iter().filter(|path| path.is_file());
    scripts.map(|path| fs::read_to_string(path).unwrap()).collect()
}

#[track_caller]
fn assert_all_exist(page: &str, sources: &[String]) {
    let exists = |name: &str| {
        let declared = [
            format!("fn {name}("),
            format!("    {name},\n"),
            format!("({name})"),
            format!("\ncase_{name}() {{"),
        ];
        let is_there = |source: &String| declared.iter().any(|text| source.contains(text));
        sources.iter().any(is_there)
    };
    let named: Vec<&str> = quoted(page).filter(|word| is_name(word)).collect();
    let missing: Vec<&str> = named.iter().copied().filter(|name| !exists(name)).collect();
    assert!(named.len() > 20, "the page names its tests");
    assert_eq!(missing, [""; 0]);
}

/// What stands between backticks.
fn quoted(page: &str) -> impl Iterator<Item = &str> {
    page.split('`').skip(1).step_by(2)
}

fn is_path(words: &str) -> bool {
    let tops = ["src/", "sys/", "tests/", "benches/", "ci/", "docs/"];
    tops.iter().any(|top| words.starts_with(top)) && !words.contains([' ', '{', '*'])
}

fn is_name(word: &str) -> bool {
    let of_words = word.contains('_') || word.chars().filter(char::is_ascii_uppercase).count() > 1;
    of_words && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// All that is wrong with one file; `path` is relative to the package.
fn check(path: &str, text: &str) -> Vec<String> {
    if path == "Cargo.toml" {
        return check_manifest(text);
    }
    let mut untidy = Vec::new();
    let mut say = |line: usize, what: String| untidy.push(format!("{path}:{line}: {what}"));
    if !text.starts_with("//! ") {
        say(1, "no opening paragraph (//!)".to_owned());
    }
    for (line, content) in (1..).zip(text.lines()) {
        if content.chars().count() > COLUMNS_MAX && !WIDE_FILES.contains(&path) {
            say(line, format!("longer than {COLUMNS_MAX} columns"));
        }
    }
    let lines = text.lines().count();
    let allowed = LONG_FILES.iter().find(|(long, _)| *long == path).map(|&(_, lines)| lines);
    match allowed {
        None if lines > LINES_MAX => say(lines, format!("longer than {LINES_MAX} lines")),
        Some(allowed) if lines > allowed => say(lines, format!("grew beyond {allowed} lines")),
        Some(_) if lines <= LINES_MAX => say(1, "take it off LONG_FILES".to_owned()),
        _ => {}
    }
    let tokens = tokens(text);
    if !path.starts_with("sys/") {
        for token in tokens.iter().filter(|token| token.text == "unsafe") {
            say(token.line, "unsafe outside of sys/".to_owned());
        }
    }
    if let Some(place) = path.strip_prefix("src/") {
        check_arrows(&module_of(place), &tokens, &mut say);
    }
    untidy
}

fn check_arrows(module: &[&str], tokens: &[Token], say: &mut impl FnMut(usize, String)) {
    let rank = |module: &str| LAYERS.iter().position(|&layer| layer == module);
    let Some(&own) = module.first() else {
        return check_declarations(tokens, say);
    };
    let Some(own_rank) = rank(own) else {
        return say(1, format!("{own} has no place in LAYERS"));
    };
    for (line, named) in paths(module, tokens) {
        match named.as_slice() {
            ["crate"] | ["crate", "*", ..] => say(line, format!("{own} names the whole crate")),
            ["crate", other, ..] if rank(other).is_some_and(|other| other > own_rank) => {
                say(line, format!("{own} names {other}, which stands above it"));
            }
            _ => {}
        }
        if PURE.contains(&own) {
            let begins_with = |impure: &&&str| {
                impure.split("::").eq(named.iter().copied().take(impure.split("::").count()))
            };
            if let Some(impure) = IMPURE.iter().find(begins_with) {
                say(line, format!("{own} is pure but names {impure}"));
            }
            let clock = named.windows(2).find_map(|pair| match *pair {
                [clock, "now"] if CLOCKS.contains(&clock) => Some(clock),
                _ => None,
            });
            if let Some(clock) = clock {
                say(line, format!("{own} is pure but asks {clock}::now"));
            }
        }
    }
}

/// `lib.rs` declares the modules in their order.
fn check_declarations(tokens: &[Token], say: &mut impl FnMut(usize, String)) {
    let mut highest = 0;
    for pair in tokens.windows(2).filter(|pair| pair[0].text == "mod") {
        let module = pair[1].text;
        match LAYERS.iter().position(|&layer| layer == module) {
            None => say(pair[1].line, format!("{module} has no place in LAYERS")),
            Some(rank) if rank < highest => {
                say(pair[1].line, format!("{module} is declared above what it stands on"));
            }
            Some(rank) => highest = rank,
        }
    }
}

fn check_manifest(text: &str) -> Vec<String> {
    let mut untidy = Vec::new();
    let mut section = "";
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(['[', ']']);
        }
        if section.starts_with("workspace") || !section.contains("dependencies") {
            continue;
        }
        // `[dependencies.libc]`, `libc = ..`, `libc.workspace = ..`, `x = { package = "libc" }`
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '-' && c != '_');
        if let Some(named) = words.find(|word| KERNEL_CRATES.contains(word)) {
            untidy.push(format!("Cargo.toml:{number}: {named} belongs to sys alone"));
        }
    }
    untidy
}

/// The path of a file's module: `engine/sender/mod.rs` is `engine::sender`, `lib.rs` is the root.
fn module_of(place: &str) -> Vec<&str> {
    let mut module: Vec<&str> = place.trim_end_matches(".rs").split('/').collect();
    if module.last() == Some(&"mod") || module == ["lib"] {
        module.pop();
    }
    module
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// What [`check`] says about a file with an opening paragraph and this code.
fn check_code(path: &str, code: &str) -> Vec<String> {
    check(path, &format!("//! A file.\n{code}\n"))
}

#[test]
fn a_module_that_names_one_above_it_is_told() {
    for (path, code, expected) in [
        ("src/protocol/a.rs", "use crate::engine::block;", "protocol names engine"),
        ("src/protocol/a.rs", "fn f() { crate::zfs::g() }", "protocol names zfs"),
        ("src/units.rs", "use crate::{dataset::Guid as G, units};", "units names dataset"),
        ("src/units.rs", "use crate::{\n    units, error};", "units names error"),
        ("src/plan/mod.rs", "use {std::fmt, crate::{error, zfs}};", "plan names zfs"),
        ("src/zfs/mod.rs", "use super::engine;", "zfs names engine"),
        ("src/zfs/send.rs", "use super::super::engine;", "zfs names engine"),
        ("src/zfs/send.rs", "use self::super::super::{engine};", "zfs names engine"),
        ("src/zfs/send.rs", "mod t { use super::super::super::cli; }", "zfs names cli"),
        ("src/zfs/send.rs", "mod t {} use super::super::cli;", "zfs names cli"),
        ("src/server/mod.rs", "use crate::client;", "server names client"),
        ("src/schedule.rs", "use crate::plan::Plan;", "schedule names plan"),
        ("src/error.rs", "use crate::*;", "error names the whole crate"),
        ("src/error.rs", "use crate as all;", "error names the whole crate"),
        ("src/error.rs", "use super as all;", "error names the whole crate"),
        ("src/misc.rs", "", "misc has no place in LAYERS"),
        ("src/lib.rs", "pub mod misc;", "misc has no place in LAYERS"),
        ("src/lib.rs", "pub mod error;\npub mod units;", "units is declared above"),
    ] {
        let said = check_code(path, code);
        assert_eq!(said.len(), 1, "{path}: {code}: {said:?}");
        assert!(said[0].contains(expected), "{path}: {code}: {said:?}");
    }
}

#[test]
fn a_module_may_name_itself_and_what_stands_below_it() {
    for (path, code) in [
        ("src/engine/sender/read.rs", "use super::super::block; use crate::units::Bytes;"),
        ("src/engine/sender/mod.rs", "mod tests { use super::super::super::zfs; }"),
        ("src/client/mod.rs", "use crate::server::Session;"),
        ("src/units.rs", "mod tests { use super::*; } pub(crate) fn f() {}"),
        ("src/units.rs", "// crate::engine\nconst A: &str = \"crate::engine\"; /* crate::zfs */"),
        ("src/units.rs", "const A: &str = r#\"use \" crate::zfs\"#; const B: char = '\"';"),
        ("src/units.rs", "/// [`crate::engine`], `sys::port`, Instant::now\nfn f<'a>() {}"),
        ("src/main.rs", "fn main() { zferry::cli::run() }"),
        ("src/lib.rs", "pub mod units;\npub mod error;"),
    ] {
        assert_eq!(check_code(path, code), [""; 0], "{path}: {code}");
    }
}

#[test]
fn a_pure_module_that_reaches_out_is_told() {
    for (code, expected) in [
        ("use sys::port::Port;", "names sys"),
        ("use sys;", "names sys"),
        ("use tokio::{sync, time};", "names tokio"),
        ("use std::{fmt, fs};", "names std::fs"),
        ("use std::{fmt, net::{self as n}};", "names std::net"),
        ("fn f() { ::std::thread::yield_now() }", "names std::thread"),
        ("fn f() { std::process::abort() }", "names std::process"),
        ("fn f() { std::env::args(); }", "names std::env"),
        ("fn f() { let t = Instant::now(); }", "asks Instant::now"),
        ("fn f() { let t = std::time::SystemTime::now(); }", "asks SystemTime::now"),
        ("fn f() { let t = jiff::Timestamp::now(); }", "asks Timestamp::now"),
        ("fn f() { let t = jiff::Zoned::now(); }", "asks Zoned::now"),
    ] {
        for module in PURE {
            let said = check_code(&format!("src/{module}/a.rs"), code);
            assert!(said.iter().any(|what| what.contains(expected)), "{code}: {said:?}");
        }
        assert_eq!(check_code("src/engine/a.rs", code), [""; 0], "{code}");
    }
    let fine = "use std::{fmt, time::Instant}; use std::io; fn now(system: u8) {}";
    assert_eq!(check_code("src/protocol/a.rs", fine), [""; 0]);
}

#[test]
fn a_file_that_looks_wrong_is_told() {
    let said = |path: &str, text: &str| check(path, text).join("\n");
    assert!(said("tests/a.rs", "use std::fs;\n").contains("a.rs:1: no opening paragraph"));
    assert!(said("sys/src/a.rs", "// A file.\n").contains("no opening paragraph"));
    let wide = format!("//! A file.\n// {}\n", "ü".repeat(COLUMNS_MAX - 3));
    assert_eq!(said("src/units.rs", &wide), "");
    let wider = wide.replacen('ü', "üü", 1);
    assert!(said("src/units.rs", &wider).contains("units.rs:2: longer than 100 columns"));
    let long = format!("//! A file.\n{}", "\n".repeat(LINES_MAX - 1));
    assert_eq!(said("src/units.rs", &long), "");
    assert!(said("src/units.rs", &format!("{long}\n")).contains("longer than 500 lines"));
    let reckless = "fn f() { unsafe { g() } }";
    assert!(check_code("src/engine/a.rs", reckless)[0].contains("a.rs:2: unsafe outside"));
    assert!(check_code("tests/a.rs", reckless)[0].contains("unsafe outside"));
    assert_eq!(check_code("sys/src/a.rs", reckless), [""; 0]);
    assert_eq!(check_code("src/lib.rs", "#![forbid(unsafe_code)] // unsafe"), [""; 0]);
}

#[test]
fn a_root_package_that_reaches_for_the_kernel_is_told() {
    for bad in [
        "[dependencies]\nlibc = \"0.2\"",
        "[dependencies]\nnix.workspace = true",
        "[dev-dependencies]\nio-uring = { version = \"0.7\" }",
        "[target.'cfg(unix)'.dependencies]\nx = { package = \"libc\", version = \"0.2\" }",
        "[dependencies.tokio-uring]\nversion = \"0.5\"",
    ] {
        assert_eq!(check("Cargo.toml", bad).len(), 1, "{bad}");
    }
    let good = "[workspace.dependencies]\nlibc = \"0.2\"\n[dependencies]\nserde = \"1\" # no libc";
    assert_eq!(check("Cargo.toml", good), [""; 0]);
}
