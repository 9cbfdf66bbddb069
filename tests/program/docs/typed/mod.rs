//! Copies, pipes, prunings and keys as the documents have people type them: each line is run, and
//! must do what its page says.
//!
//! By the real binary on stand-in pools, over a real sshd, to a real server. Only hosts, ports and
//! what a reader fills in are filled in here. The tutorial is typed by ci/vm, on real ZFS.

use std::collections::BTreeSet;

use zferry::cli::check;

use super::page::Page;
use super::{is_for_users, pages, shell};
use crate::support::stand_in::StandIn;

mod copies;
mod keys;
mod pipes;
mod prunings;

/// The pages whose lines are typed here.
fn typed_pages() -> impl Iterator<Item = Page> {
    let is_ours = |page: &Page| is_for_users(page) && !page.path.ends_with("tutorial.md");
    pages().into_iter().filter(is_ours)
}

/// The whole calls of a subcommand, each once, with all that a reader fills in; without `zferry`.
fn calls(subcommand: &str) -> Vec<Vec<String>> {
    let lines = typed_pages().flat_map(|page| [page.shell_lines(), page.spans()].concat());
    let calls = lines.flat_map(|line| shell::calls(&line));
    let filled = calls.map(|words| words.iter().map(|word| shell::filled_in(word)).collect());
    let is_whole = |words: &Vec<String>| check::command_line(words.iter().map(Into::into)).is_ok();
    let ours = |words: &Vec<String>| words.get(1).is_some_and(|word| word == subcommand);
    let whole: BTreeSet<Vec<String>> = filled.filter(ours).filter(is_whole).collect();
    whole.into_iter().map(|words| words[1..].to_vec()).collect()
}

/// Makes a dataset, and those above it that are not there.
fn dataset(host: &StandIn, name: &str) {
    for (at, _) in name.match_indices('/').chain([(name.len(), "")]) {
        if !host.exists(&name[..at]) {
            host.dataset(&name[..at], "filesystem");
        }
    }
}
