//! A page of Markdown: its blocks, code in its sentences, links and headings.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// A page.
pub struct Page {
    /// From the root of the repository.
    pub path: PathBuf,
    /// What stands outside of blocks.
    prose: String,
    blocks: Vec<Block>,
}

struct Block {
    language: String,
    text: String,
}

impl Page {
    pub fn read(path: &Path) -> Page {
        Page::of(path, &fs::read_to_string(path).unwrap())
    }

    pub fn of(path: impl Into<PathBuf>, text: &str) -> Page {
        let mut page = Page { path: path.into(), prose: String::new(), blocks: Vec::new() };
        let mut open: Option<Block> = None;
        for line in text.lines() {
            let into = match (line.strip_prefix("```"), open.take()) {
                (Some(language), None) => {
                    let language = language.trim().to_owned();
                    open = Some(Block { language, text: String::new() });
                    continue;
                }
                (Some(_), Some(block)) => {
                    page.blocks.push(block);
                    continue;
                }
                (None, Some(block)) => &mut open.insert(block).text,
                (None, None) => &mut page.prose,
            };
            into.push_str(line);
            into.push('\n');
        }
        assert!(open.is_none(), "{}: a block has no end", page.path.display());
        page
    }

    /// The blocks in this language.
    pub fn blocks(&self, language: &str) -> impl Iterator<Item = &str> {
        let blocks = self.blocks.iter().filter(move |block| block.language == language);
        blocks.map(|block| block.text.as_str())
    }

    /// The lines of those blocks that may show what to type; what goes on in the next line is one.
    pub fn shell_lines(&self) -> Vec<String> {
        let blocks = self.blocks("").chain(self.blocks("console"));
        let joined = blocks.map(|text| text.replace("\\\n", " ")).collect::<String>();
        // What stands further in is a part of a picture or of a program's words.
        joined.lines().filter(|line| !line.starts_with("    ")).map(str::to_owned).collect()
    }

    /// Code in sentences, each in one line. In a table a bar is written `\|`.
    pub fn spans(&self) -> Vec<String> {
        let one_line =
            |span: &str| span.split_whitespace().collect::<Vec<_>>().join(" ").replace("\\|", "|");
        self.prose.split('`').skip(1).step_by(2).map(one_line).collect()
    }

    /// Where its links lead, but for those to other sites.
    pub fn links(&self) -> Vec<String> {
        let sentences = self.prose.split('`').step_by(2).collect::<String>();
        let link = |rest: &str| rest.split(')').next().unwrap_or_default().to_owned();
        let links = sentences.split("](").skip(1).map(link);
        links.filter(|link| !link.contains("://")).collect()
    }

    /// Its headings, as links name them.
    pub fn headings(&self) -> BTreeSet<String> {
        let titles = self.prose.lines().filter(|line| line.starts_with('#'));
        titles.map(|title| slug(title.trim_start_matches('#').trim())).collect()
    }

    /// The path of what a link on this page names.
    pub fn beside(&self, link: &str) -> PathBuf {
        let mut path = self.path.parent().unwrap_or(Path::new("")).to_path_buf();
        for part in Path::new(link).components() {
            if part == Component::ParentDir {
                path.pop();
            } else {
                path.push(part);
            }
        }
        path
    }
}

fn slug(title: &str) -> String {
    let keep = |c: char| c.is_alphanumeric() || "-_ ".contains(c);
    title.chars().filter(|&c| keep(c)).collect::<String>().to_lowercase().replace(' ', "-")
}
