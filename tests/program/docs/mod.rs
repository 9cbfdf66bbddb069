//! That the documents say nothing that the program does not understand, and lead nowhere that is
//! not there.
//!
//! Each command line in README.md and docs is read by the program's own parser, as are the jobs.
//! Only what a reader fills in (`HOST:PORT`, `SHA256:...`) is filled in here. What of it can be run
//! on one machine is run in [`typed`].

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use zferry::cli::check::{self, Mistake};

mod page;
mod shell;
mod typed;

use page::Page;

/// README.md, what stands beside it, and all of docs.
fn pages() -> Vec<Page> {
    let beside = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "SECURITY.md"].map(PathBuf::from);
    let docs = fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().path());
    let docs = docs.filter(|path| path.extension().is_some_and(|it| it == "md"));
    let mut paths: Vec<PathBuf> = beside.into_iter().chain(docs).collect();
    paths.sort();
    paths.iter().map(|path| Page::read(path)).collect()
}

/// Whether people are told there what to type.
fn is_for_users(page: &Page) -> bool {
    page.path.starts_with("docs") || page.path == Path::new("README.md")
}

/// What is wrong with the zferry in a line of a shell.
fn mistakes(line: &str, may_be_unfinished: bool) -> Vec<String> {
    let judge = |words: Vec<String>| {
        let filled = words.iter().map(|word| OsString::from(shell::filled_in(word)));
        match check::command_line(filled) {
            Ok(()) => None,
            Err(Mistake::Unfinished(_)) if may_be_unfinished => None,
            Err(mistake) => Some(format!("{}\n    {mistake}", words.join(" "))),
        }
    };
    shell::calls(line).into_iter().filter_map(judge).collect()
}

#[test]
fn every_command_line_in_a_block_is_understood() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for page in pages().iter().filter(|page| is_for_users(page)) {
        for line in page.shell_lines() {
            count += shell::calls(&line).len();
            let mistakes = mistakes(&line, false);
            wrong.extend(mistakes.iter().map(|it| format!("{}: {it}", page.path.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Or nothing was found where something is.
    assert!(count > 50, "{count}");
}

#[test]
fn every_command_line_in_a_sentence_is_understood_as_far_as_it_goes() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for page in pages().iter().filter(|page| is_for_users(page)) {
        for span in page.spans() {
            count += shell::calls(&span).len();
            let mistakes = mistakes(&span, true);
            wrong.extend(mistakes.iter().map(|it| format!("{}: {it}", page.path.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "{count}");
}

#[test]
fn every_configuration_has_jobs_and_no_mistake() {
    let of = |page: &Page| page.blocks("toml").map(str::to_owned).collect::<Vec<_>>();
    let mut texts: Vec<(PathBuf, String)> =
        vec![("docs/zferry.toml".into(), fs::read_to_string("docs/zferry.toml").unwrap())];
    for page in pages().iter().filter(|page| is_for_users(page)) {
        texts.extend(of(page).into_iter().map(|text| (page.path.clone(), text)));
    }
    texts.retain(|(_, text)| text.contains("[[job]]"));
    for (path, text) in &texts {
        match check::jobs(text) {
            Ok(count) => assert!(count > 0, "{}", path.display()),
            Err(mistakes) => panic!("{}:\n{}\n{text}", path.display(), mistakes.join("\n")),
        }
    }
    assert!(texts.len() > 4, "{}", texts.len());
}

#[test]
fn every_link_leads_to_a_page_and_to_a_heading_of_it() {
    let pages = pages();
    let mut wrong = Vec::new();
    for page in &pages {
        for link in page.links() {
            if let Err(why) = leads_somewhere(page, &link, &pages) {
                wrong.push(format!("{}: ({link}): {why}", page.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn leads_somewhere(from: &Page, link: &str, pages: &[Page]) -> Result<(), String> {
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let path = if file.is_empty() { from.path.clone() } else { from.beside(file) };
    if !path.exists() {
        return Err(format!("there is no {}", path.display()));
    }
    let to = pages.iter().find(|page| page.path == path);
    match to {
        _ if heading.is_empty() => Ok(()),
        Some(to) if to.headings().contains(heading) => Ok(()),
        Some(_) => Err(format!("{} has no heading #{heading}", path.display())),
        None => Err(format!("{} is no page with headings", path.display())),
    }
}

#[test]
fn the_reference_leads_to_every_page() {
    let pages = pages();
    let reference = pages.iter().find(|page| page.path == Path::new("docs/reference.md")).unwrap();
    let led_to: BTreeSet<PathBuf> = reference
        .links()
        .iter()
        .map(|link| reference.beside(link.split('#').next().unwrap_or_default()))
        .collect();
    for page in pages.iter().filter(|page| page.path != reference.path) {
        assert!(led_to.contains(&page.path), "docs/reference.md leads not to {:?}", page.path);
    }
}

#[test]
fn what_is_wrong_is_found_out() {
    assert_eq!(mistakes("web# sudo -u zferry zferry status --watch", false).len(), 0);
    assert_eq!(mistakes("zferry replicate tank/a backup/a --frobnicate", true).len(), 1);
    assert_eq!(mistakes("zferry prune tank/a", false).len(), 1);
    assert_eq!(mistakes("zferry prune tank/a", true).len(), 0);
    assert_eq!(mistakes("x | zferry send HOST:PORT --plain -- zfs send a@b | y", false).len(), 0);
    assert_eq!(mistakes("ssh a zferry keys trust $(zferry keys sho)", false).len(), 2);
    assert_eq!(mistakes("zferry replicate tank/a backup/a --bwlimit 1MiB", false).len(), 1);
    assert!(check::jobs("[[job]]\nname = \"a\"\nsource = \"a\"\ntarget = \"b/c\"\n").is_err());
    let page = Page::of("docs/a.md", "# A `b`: c\n[x](#a-b-c) [y](#d) [z](nowhere.md) `[q](r)`\n");
    let told: Vec<bool> = page
        .links()
        .iter()
        .map(|link| leads_somewhere(&page, link, std::slice::from_ref(&page)).is_ok())
        .collect();
    // The page itself is no file.
    assert_eq!(told, [false, false, false]);
    assert!(page.headings().contains("a-b-c"));
}
