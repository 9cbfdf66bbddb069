//! What shells make of `zferry completions`, asked of the shells themselves; the manual's pages.
//!
//! `ci/test` installs the shells and mandoc.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use assert_cmd::Command;
use tempfile::TempDir;

/// Nobody waits longer for a text.
const LIMIT: Duration = Duration::from_secs(60);

/// Commands that help does not name.
const HIDDEN: [&str; 3] = ["attend", "deliver", "man"];

fn zferry(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zferry"));
    command.args(words).timeout(LIMIT).assert().success().get_output().clone()
}

/// Writes the completions for a shell to a file of this name.
fn completions(folder: &TempDir, shell: &str, name: &str) -> String {
    let path = folder.path().join(name);
    fs::write(&path, zferry(&["completions", shell]).stdout).unwrap();
    path.to_str().unwrap().to_owned()
}

/// What a shell says to a script, with words of its own; word by word.
fn words_of(shell: &str, arguments: &[&str]) -> BTreeSet<String> {
    let mut command = Command::new(shell);
    command.args(arguments).env_remove("BASH_ENV").env("HOME", "/nonexistent").timeout(LIMIT);
    let output = command.assert().success().get_output().clone();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{shell}");
    said.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

/// What bash offers for the last of these words.
fn bash_offers(script: &str, words: &[&str]) -> BTreeSet<String> {
    let ask = r#"
        source "$1" && shift
        complete -p zferry >/dev/null || exit 1
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _zferry zferry "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let arguments = ["--norc", "--noprofile", "-c", ask, "bash", script];
    words_of("bash", &[&arguments, words].concat())
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn assert_offers_what_help_names(offered: &BTreeSet<String>) {
    let named = ["replicate", "serve", "send", "receive", "keys", "completions"];
    assert!(set(&named).is_subset(offered), "{offered:?}");
    assert!(set(&HIDDEN).is_disjoint(offered), "{offered:?}");
}

#[test]
fn bash_completes_commands_flags_and_their_values() {
    let folder = TempDir::new().unwrap();
    let script = completions(&folder, "bash", "zferry");
    assert_offers_what_help_names(&bash_offers(&script, &["zferry", ""]));
    assert_eq!(bash_offers(&script, &["zferry", "rep"]), set(&["replicate"]));
    assert_eq!(bash_offers(&script, &["zferry", "replicate", "--via"]), set(&["--via-ssh"]));
    let lanes = bash_offers(&script, &["zferry", "receive", "--lane", ""]);
    assert_eq!(lanes, set(&["auto", "block", "splice"]));
}

#[test]
fn fish_completes_commands_flags_and_their_values() {
    let folder = TempDir::new().unwrap();
    let script = completions(&folder, "fish", "zferry.fish");
    let offers = |line: &str| {
        let ask = format!("source {script}; complete -C '{line}'");
        words_of("fish", &["--no-config", "-c", &ask])
    };
    assert_offers_what_help_names(&offers("zferry "));
    assert_eq!(offers("zferry rep"), set(&["replicate"]));
    assert_eq!(offers("zferry replicate --via"), set(&["--via-ssh"]));
    assert_eq!(offers("zferry receive --lane "), set(&["auto", "block", "splice"]));
}

/// It completes for a person at a terminal alone; that it reads and registers ours shows here.
#[test]
fn zsh_finds_and_reads_what_is_for_it() {
    let folder = TempDir::new().unwrap();
    completions(&folder, "zsh", "_zferry");
    let ask = r#"
        fpath=($1 $fpath)
        autoload -Uz compinit && compinit -u -D
        print -- $_comps[zferry]
        # Its definitions without the call at its end, which only a terminal could answer.
        eval "$(sed '/^if \[ "$funcstack/,$d' $1/_zferry)"
        _describe() { print -l -- ${(P)4} }
        _zferry_commands
    "#;
    let folder = folder.path().to_str().unwrap();
    let said = words_of("zsh", &["-f", "-c", ask, "zsh", folder]);
    assert!(said.contains("_zferry"), "{said:?}");
    let commands = said.iter().map(|line| line.split(':').next().unwrap().to_owned()).collect();
    assert_offers_what_help_names(&commands);
}

#[test]
fn the_manual_has_a_page_for_each_command_and_mandoc_finds_no_fault() {
    let folder = TempDir::new().unwrap();
    let pages = folder.path().join("made/for/it");
    zferry(&["man", pages.to_str().unwrap(), "--date", "2026-11-29"]);
    let names: BTreeSet<String> =
        files(&pages).iter().map(|path| path.rsplit('/').next().unwrap().to_owned()).collect();
    for name in ["zferry.1", "zferry-replicate.1", "zferry-keys-trust-client.1"] {
        assert!(names.contains(name), "{names:?}");
    }
    for hidden in HIDDEN {
        assert!(!names.contains(&format!("zferry-{hidden}.1")), "{names:?}");
    }
    // Breaks that do nothing are the generator's: `br` beside `sp`.
    let mut command = Command::new("mandoc");
    command.args(["-T", "lint", "-W", "warning"]).args(files(&pages)).timeout(LIMIT);
    let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let faults: Vec<&str> =
        said.lines().filter(|line| !line.contains("skipping paragraph macro: br")).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    let title = fs::read_to_string(pages.join("zferry.1")).unwrap();
    let title = title.lines().find(|line| line.starts_with(".TH ")).unwrap();
    let version = concat!("zferry ", env!("CARGO_PKG_VERSION"));
    assert_eq!(title, format!(".TH zferry 1 2026-11-29 \"{version}\" \"zferry manual\""));
}

fn files(folder: &Path) -> Vec<String> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| path.to_str().unwrap().to_owned()).collect()
}
