//! What `zfs allow` has granted on a dataset, and to whom.
//!
//! ZFS prints this for people only, so every line is read strictly: one that is none of those we
//! know is an error, and never a grant that is missing. Nothing is granted here, and nothing is
//! decided from it but what `doctor` tells: whether a call may be made, ZFS says when it is made.

use std::collections::BTreeSet;

use sys::probe::Account;

use super::{Zfs, ZfsError};
use crate::dataset::DatasetName;

/// All grants that reach a dataset: its own and those of the datasets above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The dataset itself first, as far as anything is granted there, then what lies above it.
    levels: Vec<Level>,
}

/// Where a permission is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the dataset.
    Itself,
    /// On what will be made below it.
    Below,
}

/// What is granted on one dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Level {
    /// It is the dataset that was asked for, not one above it.
    asked_for: bool,
    /// Names of sets, each with its `@`, and what they stand for.
    sets: Vec<(String, Vec<String>)>,
    grants: Vec<Grant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Grant {
    /// On the dataset of its level.
    here: bool,
    /// On everything below that.
    below: bool,
    to: Grantee,
    /// Names of permissions and of sets.
    words: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Grantee {
    User(String),
    Group(String),
    Everyone,
}

/// A heading, which says what the lines below it mean.
#[derive(Clone, Copy)]
enum Section {
    Sets,
    Grants {
        here: bool,
        below: bool,
    },
    /// To whoever makes a dataset below, on that dataset.
    Created,
}

impl Zfs {
    /// Asks for all grants that reach `dataset`. Everybody may ask.
    pub fn allowed(&self, dataset: &DatasetName) -> Result<Allowed, ZfsError> {
        // A name that was checked begins with a letter: it is never taken for an option.
        let answer = self.ask(&["allow", dataset.as_str()])?;
        Allowed::read(&answer.text, dataset).map_err(|line| answer.unreadable(line))
    }
}

impl Allowed {
    /// Reads all that `zfs allow` prints of `dataset`; `Err` is the first line that it should not
    /// have printed.
    pub fn read<'a>(text: &'a str, dataset: &DatasetName) -> Result<Allowed, &'a str> {
        let mut levels: Vec<Level> = Vec::new();
        let mut section = None;
        for line in text.lines() {
            if let Some(title) = line.strip_prefix("---- Permissions on ") {
                let asked_for = is_ruled(title, dataset.as_str());
                levels.push(Level { asked_for, sets: Vec::new(), grants: Vec::new() });
                section = None;
            } else if let Some(entry) = line.strip_prefix('\t') {
                let level = levels.last_mut().ok_or(line)?;
                read_entry(section.ok_or(line)?, entry, level).ok_or(line)?;
            } else {
                section = Some(read_section(line).ok_or(line)?);
            }
        }
        Ok(Allowed { levels })
    }

    /// The permissions that `account` has there; root has all of them, and needs none.
    pub fn to(&self, account: &Account, place: Place) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        for (depth, level) in self.levels.iter().enumerate() {
            let on_itself = level.asked_for && place == Place::Itself;
            for grant in &level.grants {
                let reaches = if on_itself { grant.here } else { grant.below };
                if reaches && grant.to.is(account) {
                    self.add(&grant.words, depth, &mut found);
                }
            }
        }
        found
    }

    /// Adds what `words` stand for. A set is made where it is granted, or above.
    fn add<'a>(&'a self, words: &'a [String], depth: usize, found: &mut BTreeSet<&'a str>) {
        for word in words {
            // A set may hold itself.
            if !found.insert(word) || !word.starts_with('@') {
                continue;
            }
            for (_, words) in self.levels[depth..]
                .iter()
                .flat_map(|level| &level.sets)
                .filter(|(name, _)| name == word)
            {
                self.add(words, depth, found);
            }
        }
    }
}

impl Grantee {
    fn is(&self, account: &Account) -> bool {
        match self {
            Grantee::Everyone => true,
            Grantee::User(name) => is_called(name, account.user, account.name.as_deref()),
            Grantee::Group(name) => account
                .groups
                .iter()
                .any(|group| is_called(name, group.number, group.name.as_deref())),
        }
    }
}

/// ZFS prints a number that has no name as `(unknown: 1000)`.
fn is_called(printed: &str, number: u32, name: Option<&str>) -> bool {
    Some(printed) == name || printed == format!("(unknown: {number})")
}

/// Whether `title` is `name` and a ruling behind it, `tank/a ------`. No dataset above `name` is
/// called so, for all of those have shorter names.
fn is_ruled(title: &str, name: &str) -> bool {
    let rest = title.strip_prefix(name);
    rest.is_some_and(|rest| rest.trim_matches('-').trim().is_empty())
}

fn read_section(line: &str) -> Option<Section> {
    Some(match line {
        "Permission sets:" => Section::Sets,
        "Create time permissions:" => Section::Created,
        "Local permissions:" => Section::Grants { here: true, below: false },
        "Descendent permissions:" => Section::Grants { here: false, below: true },
        "Local+Descendent permissions:" => Section::Grants { here: true, below: true },
        _ => return None,
    })
}

/// Reads `@set WORDS`, `user NAME WORDS`, `group NAME WORDS`, `everyone WORDS`, or WORDS alone.
fn read_entry(section: Section, entry: &str, level: &mut Level) -> Option<()> {
    // A name may hold a blank, as in `(unknown: 1000)`; permissions never do.
    let (before, words) = entry.trim_end().rsplit_once(' ').unwrap_or(("", entry.trim_end()));
    let words: Vec<String> = words.split(',').map(str::to_owned).collect();
    let (here, below) = match section {
        Section::Grants { here, below } => (here, below),
        Section::Sets => {
            level.sets.push((before.to_owned(), words));
            return before.starts_with('@').then_some(());
        }
        // By then, whoever asks has made it.
        Section::Created if before.is_empty() => (false, true),
        Section::Created => return None,
    };
    let to = match before.split_once(' ').unwrap_or((before, "")) {
        ("user", name) => Grantee::User(name.to_owned()),
        ("group", name) => Grantee::Group(name.to_owned()),
        ("everyone", "") => Grantee::Everyone,
        ("", "") if !here => Grantee::Everyone,
        _ => return None,
    };
    level.grants.push(Grant { here, below, to, words });
    Some(())
}

#[cfg(test)]
mod tests {
    use sys::probe::Group;

    use super::*;

    /// As ZFS 2.3.9 prints it.
    const TEXT: &str = "\
---- Permissions on tank/a -------------------------------------------
Permission sets:
\t@copy send,@keep
Create time permissions:
\tdestroy
Local permissions:
\tuser carrier snapshot
Local+Descendent permissions:
\tuser carrier @copy
\tuser (unknown: 4711) mount
\tgroup backup receive,create
\teveryone userprop
---- Permissions on tank ---------------------------------------------
Permission sets:
\t@keep hold,release,@copy
Local permissions:
\tuser carrier rollback
Descendent permissions:
\tuser carrier bookmark
\tgroup (unknown: 12) clone
";

    fn account(user: u32, name: Option<&str>, groups: &[(u32, Option<&str>)]) -> Account {
        let group =
            |&(number, name): &(u32, Option<&str>)| Group { number, name: name.map(str::to_owned) };
        Account { user, name: name.map(str::to_owned), groups: groups.iter().map(group).collect() }
    }

    fn to(account: &Account, place: Place) -> String {
        let allowed = Allowed::read(TEXT, &"tank/a".parse().unwrap()).unwrap();
        let words: Vec<_> =
            allowed.to(account, place).into_iter().filter(|word| !word.starts_with('@')).collect();
        words.join(",")
    }

    #[test]
    fn a_user_has_what_is_granted_here_and_what_comes_down_from_above() {
        let carrier = account(1000, Some("carrier"), &[]);
        let here = to(&carrier, Place::Itself);
        assert_eq!(here, "bookmark,hold,release,send,snapshot,userprop");
        let below = to(&carrier, Place::Below);
        assert_eq!(below, "bookmark,destroy,hold,release,send,userprop");
    }

    #[test]
    fn groups_and_numbers_without_a_name_count() {
        let keeper = account(4711, None, &[(5, Some("backup")), (12, None)]);
        assert_eq!(to(&keeper, Place::Itself), "clone,create,mount,receive,userprop");
        let stranger = account(4712, Some("x"), &[(6, Some("staff"))]);
        assert_eq!(to(&stranger, Place::Itself), "userprop");
    }

    #[test]
    fn a_set_is_looked_for_where_it_is_granted_and_above() {
        let text = "---- Permissions on t/a ----\nPermission sets:\n\t@low send\n\
                    ---- Permissions on t ----\nLocal+Descendent permissions:\n\teveryone @low\n";
        let allowed = Allowed::read(text, &"t/a".parse().unwrap()).unwrap();
        let found = allowed.to(&account(1, None, &[]), Place::Itself);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["@low"]);
    }

    #[test]
    fn nothing_granted_is_an_answer() {
        let allowed = Allowed::read("", &"tank/a".parse().unwrap()).unwrap();
        assert!(allowed.to(&account(1, None, &[]), Place::Itself).is_empty());
    }

    #[test]
    fn what_was_granted_on_a_dataset_of_a_longer_or_shorter_name_is_told_apart() {
        for (title, name, expected) in [
            ("tank/a -----", "tank/a", true),
            ("tank/a- -----", "tank/a-", true),
            ("tank/a b ---", "tank/a b", true),
            ("tank/long", "tank/long", true),
            ("tank -----", "tank/a", false),
            ("tank/a -----", "tank", false),
        ] {
            assert_eq!(is_ruled(title, name), expected, "{title} {name}");
        }
    }

    #[test]
    fn a_line_that_means_nothing_to_us_is_no_missing_grant() {
        let rule = "---- Permissions on tank ----\n";
        for (text, bad) in [
            ("\tuser a send\n".to_owned(), "\tuser a send"),
            (format!("{rule}\tuser a send\n"), "\tuser a send"),
            (format!("{rule}Lokale Rechte:\n"), "Lokale Rechte:"),
            (format!("{rule}Local permissions:\n\trole a send\n"), "\trole a send"),
            (format!("{rule}Local permissions:\n\tsend\n"), "\tsend"),
            (format!("{rule}Permission sets:\n\tsend\n"), "\tsend"),
            (format!("{rule}Create time permissions:\n\tuser a send\n"), "\tuser a send"),
        ] {
            assert_eq!(Allowed::read(&text, &"tank".parse().unwrap()), Err(bad));
        }
    }
}
