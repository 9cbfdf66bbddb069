//! What this user may do on a dataset, judged: which of the permissions that zferry needs are
//! granted, and the very `zfs allow` that is missing.
//!
//! Pure. Each permission of the tables below was seen to be needed in the guest
//! (`ci/vm/cases/unprivileged.sh`); one that nothing needs must not be asked for.

use std::collections::BTreeSet;

use sys::probe::Account;

use super::finding::{Finding, Mark};
use crate::dataset::property::PropertyName;
use crate::dataset::{DatasetName, typed};
use crate::error::{Failure, Side};
use crate::zfs::allow::{Allowed, Place};

/// A dataset that zferry is to use, and what ZFS tells of it.
#[derive(Debug)]
pub struct Use {
    /// What it is to be.
    pub duty: Duty,
    /// Its name.
    pub dataset: DatasetName,
    /// What that takes besides.
    pub asks: Asks,
    /// All that is granted there.
    pub allowed: Result<Allowed, Failure>,
}

/// What is asked of a dataset besides that it is sent or received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// Snapshots go there by rules.
    pub prunes: bool,
    /// Snapshots are taken of it.
    pub snapshots: bool,
    /// All below it is copied too.
    pub below: bool,
    /// What is set there as it is at the source.
    pub properties: BTreeSet<PropertyName>,
}

impl Asks {
    /// What both ask.
    pub(super) fn join(&mut self, other: Asks) {
        self.prunes |= other.prunes;
        self.snapshots |= other.snapshots;
        self.below |= other.below;
        self.properties.extend(other.properties);
    }
}

/// What a dataset is to be for zferry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Duty {
    /// What `replicate` and `send` read from.
    Source,
    /// What `serve`, `replicate` and `receive` write below.
    Target,
}

/// Permissions that are needed together, and what becomes of a transfer without them.
struct Need {
    permissions: &'static [&'static str],
    without: Mark,
    consequence: &'static str,
}

/// The same, of one use, which may name permissions itself.
struct Needed<'a> {
    permissions: Vec<&'a str>,
    without: Mark,
    consequence: &'static str,
}

const SOURCE: &[Need] = &[
    Need { permissions: &["send"], without: Mark::Fail, consequence: "nothing can be sent" },
    Need {
        permissions: &["hold"],
        without: Mark::Fail,
        consequence: "replicate cannot keep its snapshots from being destroyed, and stops",
    },
    Need {
        permissions: &["release"],
        without: Mark::Warn,
        consequence: "holds of replicate stay on snapshots, which cannot be destroyed then",
    },
];

const SNAPSHOT: &[Need] = &[Need {
    permissions: &["snapshot"],
    without: Mark::Warn,
    consequence: "replicate takes no snapshot: it needs --no-snapshot or --snapshot NAME",
}];

/// For rules of what stays. `mount` is what ZFS asks for with `destroy`, although nothing is
/// unmounted; a target has it anyway.
const PRUNE_SOURCE: &[Need] = &[Need {
    permissions: &["destroy", "mount"],
    without: Mark::Warn,
    consequence: "no snapshot goes by --keep, and each copy ends partly",
}];
const PRUNE_TARGET: &[Need] = &[Need {
    permissions: &["destroy"],
    without: Mark::Warn,
    consequence: "no snapshot goes by --keep-target, and each copy ends partly",
}];

const TARGET: &[Need] = &[
    // `mount` is what ZFS asks for with `create`, although nothing is mounted.
    Need {
        permissions: &["receive", "create", "mount"],
        without: Mark::Fail,
        consequence: "nothing can be received",
    },
    Need {
        permissions: &["canmount", "mountpoint"],
        without: Mark::Fail,
        consequence: "no folder above a target can be made, and what is received could be \
                      mounted over one of this host's",
    },
    Need {
        permissions: &["readonly"],
        without: Mark::Warn,
        consequence: "what is received can be changed, and takes no incremental then",
    },
    Need {
        permissions: &["setuid", "devices", "exec"],
        without: Mark::Warn,
        consequence: "programs and device nodes in what is received work here, once it is mounted",
    },
    Need {
        permissions: &["volmode"],
        without: Mark::Warn,
        consequence: "volumes that are received appear as disks of this host",
    },
];

/// All that [`Duty::Source`] needs, as `zfs allow` takes it.
pub(super) fn for_source() -> String {
    words(SOURCE.iter().chain(SNAPSHOT).flat_map(|need| need.permissions))
}

/// All that [`Duty::Target`] needs, as `zfs allow` takes it.
pub(super) fn for_target() -> String {
    words(TARGET.iter().flat_map(|need| need.permissions))
}

fn words<'a>(words: impl Iterator<Item = &'a &'a str>) -> String {
    words.copied().collect::<Vec<_>>().join(",")
}

impl From<&Need> for Needed<'static> {
    fn from(&Need { permissions, without, consequence }: &Need) -> Self {
        Needed { permissions: permissions.to_vec(), without, consequence }
    }
}

impl Use {
    fn needs(&self) -> Vec<Needed<'_>> {
        let Asks { prunes, snapshots, properties, .. } = &self.asks;
        let (all, to_snapshot, to_prune): (_, &[Need], _) = match self.duty {
            Duty::Source => (SOURCE, SNAPSHOT, PRUNE_SOURCE),
            Duty::Target => (TARGET, &[], PRUNE_TARGET),
        };
        let to_snapshot = to_snapshot.iter().filter(|_| *snapshots);
        let to_prune = to_prune.iter().filter(|_| *prunes);
        let mut needs: Vec<_> =
            all.iter().chain(to_snapshot).chain(to_prune).map(Needed::from).collect();
        let words: BTreeSet<&str> = properties.iter().map(permission).collect();
        if !words.is_empty() {
            needs.push(Needed {
                permissions: words.into_iter().collect(),
                without: Mark::Warn,
                consequence: "properties that are to be taken along are not set, and only the \
                              server's log says so",
            });
        }
        needs
    }

    /// A stream goes to one dataset, or to one that is made below.
    fn places(&self) -> &'static [Place] {
        match self.duty {
            Duty::Source if !self.asks.below => &[Place::Itself],
            Duty::Source | Duty::Target => &[Place::Itself, Place::Below],
        }
    }
}

/// What ZFS asks for where that property is set.
fn permission(name: &PropertyName) -> &str {
    if name.as_str().contains(':') { "userprop" } else { name.as_str() }
}

impl Duty {
    pub(super) fn topic(self) -> &'static str {
        match self {
            Duty::Source => "source",
            Duty::Target => "target",
        }
    }

    pub(super) fn side(self) -> Side {
        match self {
            Duty::Source => Side::Source,
            Duty::Target => Side::Target,
        }
    }
}

/// Whether `account` may do with a dataset what it is for.
pub(super) fn judge(wanted: &Use, account: &Account) -> Finding {
    let Use { duty, dataset, allowed, .. } = wanted;
    let allowed = match allowed {
        Ok(allowed) => allowed,
        Err(failure) => return unknown(*duty, dataset, failure),
    };
    if account.user == 0 {
        let fact = format!("root, on {dataset}");
        return Finding::ok(duty.topic(), fact, "root needs no grants");
    }
    let needs = wanted.needs();
    let missing = missing(&needs, wanted.places(), allowed, account);
    let user = account.name.clone().unwrap_or_else(|| account.user.to_string());
    let marks = missing.iter().map(|(need, _)| need.without);
    let Some(mark) = marks.max_by_key(|mark| *mark == Mark::Fail) else {
        let fact = format!(
            "{user} has {} on {dataset}",
            words(needs.iter().flat_map(|need| &need.permissions)).replace(',', ", ")
        );
        return Finding::ok(duty.topic(), fact, "all that zferry asks of ZFS there is granted");
    };
    let lacking: Vec<&str> = missing.iter().flat_map(|(_, words)| words).copied().collect();
    let consequences: Vec<&str> = missing.iter().map(|(need, _)| need.consequence).collect();
    let fact = format!("{user} lacks {} on {dataset}", lacking.join(", "));
    let remedy = format!(
        "sudo zfs allow -u {} {} {}",
        typed(&user),
        lacking.join(","),
        typed(dataset.as_str())
    );
    Finding::new(mark, duty.topic(), fact, consequences.join("; "), Some(remedy))
}

/// What is not granted everywhere that it is needed.
fn missing<'a>(
    needs: &'a [Needed<'a>],
    places: &[Place],
    allowed: &Allowed,
    account: &Account,
) -> Vec<(&'a Needed<'a>, Vec<&'a str>)> {
    let granted: Vec<BTreeSet<&str>> =
        places.iter().map(|place| allowed.to(account, *place)).collect();
    let lacks = |need: &'a Needed<'a>| {
        let is_missing = |word: &&&str| granted.iter().any(|granted| !granted.contains(**word));
        let words: Vec<_> = need.permissions.iter().filter(is_missing).copied().collect();
        (!words.is_empty()).then_some((need, words))
    };
    needs.iter().filter_map(lacks).collect()
}

fn unknown(duty: Duty, dataset: &DatasetName, failure: &Failure) -> Finding {
    let remedy = failure.remedy.clone().unwrap_or_else(|| {
        format!("see what `zfs allow {}` says, typed by this user", typed(dataset.as_str()))
    });
    let meaning = format!("what may be done on {dataset} is unknown");
    Finding::fail(duty.topic(), failure.what.clone(), meaning, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    /// What `zfs allow` prints where a user has been granted `words` on `dataset`.
    fn granted(duty: Duty, dataset: &str, section: &str, words: &str) -> Use {
        let text = format!(
            "---- Permissions on {dataset} ----\n{section} permissions:\n\tuser carrier {words}\n"
        );
        let dataset: DatasetName = dataset.parse().unwrap();
        let asks = Asks { snapshots: true, ..Asks::default() };
        Use { duty, asks, allowed: Ok(Allowed::read(&text, &dataset).unwrap()), dataset }
    }

    fn carrier() -> Account {
        Account { user: 1000, name: Some("carrier".to_owned()), groups: Vec::new() }
    }

    #[test]
    fn whoever_has_all_permissions_lacks_nothing() {
        for (duty, section, words) in [
            (Duty::Source, "Local", for_source()),
            (Duty::Source, "Local+Descendent", for_source() + ",destroy"),
            (Duty::Target, "Local+Descendent", for_target()),
        ] {
            let found = judge(&granted(duty, "tank/a", section, &words), &carrier());
            assert_eq!((found.mark, &found.remedy), (Mark::Ok, &None), "{found:#?}");
            assert!(found.fact.starts_with("carrier has "), "{found:#?}");
        }
    }

    #[test]
    fn each_permission_that_is_missing_is_named_and_granted_by_the_remedy() {
        for (duty, all) in [(Duty::Source, for_source()), (Duty::Target, for_target())] {
            for word in all.split(',') {
                let rest: Vec<_> = all.split(',').filter(|other| *other != word).collect();
                let granted = granted(duty, "tank/a b", "Local+Descendent", &rest.join(","));
                let found = judge(&granted, &carrier());
                assert_eq!(found.fact, format!("carrier lacks {word} on tank/a b"));
                let remedy = format!("sudo zfs allow -u carrier {word} 'tank/a b'");
                assert_eq!(found.remedy, Some(remedy));
                let optional =
                    ["release", "snapshot", "readonly", "setuid", "devices", "exec", "volmode"]
                        .contains(&word);
                assert_eq!(found.mark, if optional { Mark::Warn } else { Mark::Fail }, "{word}");
            }
        }
    }

    #[test]
    fn the_page_on_least_privilege_grants_what_is_asked_for_here() {
        let page = include_str!("../../../docs/least-privilege.md");
        for (words, dataset) in [(for_source(), "tank/data"), (for_target(), "backup/hosts")] {
            let line = format!("\nzfs allow -u zferry {words} {dataset}\n");
            assert!(page.contains(&line), "{line}");
        }
    }

    #[test]
    fn the_worst_of_what_is_missing_counts_and_all_of_it_is_told() {
        let found = judge(&granted(Duty::Source, "tank/a", "Local", "hold,release"), &carrier());
        assert_eq!(found.mark, Mark::Fail);
        assert_eq!(found.remedy.as_deref(), Some("sudo zfs allow -u carrier send,snapshot tank/a"));
        let both = ["nothing can be sent", "--no-snapshot"];
        assert!(both.iter().all(|words| found.meaning.contains(words)), "{found:#?}");
    }

    #[test]
    fn a_target_needs_its_grants_below_it_too() {
        for section in ["Local", "Descendent"] {
            let granted = granted(Duty::Target, "vault/in", section, &for_target());
            let found = judge(&granted, &carrier());
            let remedy = format!("sudo zfs allow -u carrier {} vault/in", for_target());
            assert_eq!((found.mark, found.remedy), (Mark::Fail, Some(remedy)), "{section}");
        }
    }

    #[test]
    fn to_prune_and_to_set_properties_takes_more_where_that_is_asked_for() {
        let properties = ["recordsize", "com.example:owner", "com.example:x", "compression"];
        let properties = properties.map(|name| name.parse().unwrap()).into_iter().collect();
        let asks = Asks { prunes: true, snapshots: true, properties, ..Asks::default() };
        for (duty, all, lacks) in [
            (Duty::Source, for_source(), "destroy,mount"),
            (Duty::Target, for_target(), "destroy,compression,recordsize,userprop"),
        ] {
            let granted = |words: &str| {
                let granted = granted(duty, "tank/a", "Local+Descendent", words);
                let asks = asks.clone();
                // Nothing is set at a source.
                let properties = asks.properties.into_iter().filter(|_| duty == Duty::Target);
                Use { asks: Asks { properties: properties.collect(), ..asks }, ..granted }
            };
            let found = judge(&granted(&all), &carrier());
            let remedy = format!("sudo zfs allow -u carrier {lacks} tank/a");
            assert_eq!((found.mark, found.remedy), (Mark::Warn, Some(remedy)));
            assert!(found.meaning.contains("ends partly"), "{}", found.meaning);
            let found = judge(&granted(&format!("{all},{lacks}")), &carrier());
            assert_eq!((found.mark, found.remedy), (Mark::Ok, None));
            assert!(found.fact.contains("destroy"), "{}", found.fact);
        }
    }

    #[test]
    fn of_a_source_is_asked_what_the_job_does_and_where() {
        let words = for_source();
        let rest = words.replace(",snapshot", "");
        let mut wanted = granted(Duty::Source, "tank/a", "Local", &rest);
        assert_eq!(judge(&wanted, &carrier()).fact, "carrier lacks snapshot on tank/a");
        wanted.asks.snapshots = false;
        assert_eq!(judge(&wanted, &carrier()).mark, Mark::Ok);
        // What is granted here alone is not granted below.
        wanted.asks.below = true;
        assert_eq!(judge(&wanted, &carrier()).mark, Mark::Fail);
    }

    #[test]
    fn root_needs_no_grants_and_a_user_without_a_name_is_a_number() {
        let nothing = granted(Duty::Target, "vault/in", "Local", "diff");
        let root = Account { user: 0, ..carrier() };
        assert_eq!(judge(&nothing, &root).mark, Mark::Ok);
        let nameless = Account { name: None, ..carrier() };
        let remedy = judge(&nothing, &nameless).remedy.unwrap();
        assert!(remedy.starts_with("sudo zfs allow -u 1000 receive,"), "{remedy}");
    }

    #[test]
    fn a_dataset_that_cannot_be_asked_is_in_the_way_even_of_root() {
        for remedy in [Some("check the name: zfs list"), None] {
            let mut failure = Failure::new(Side::Target, Class::Refused, "cannot open 'vault/in'");
            failure.remedy = remedy.map(str::to_owned);
            let dataset = "vault/in".parse().unwrap();
            let (duty, asks) = (Duty::Target, Asks::default());
            let wanted = Use { duty, dataset, asks, allowed: Err(failure) };
            let found = judge(&wanted, &Account { user: 0, ..carrier() });
            assert_eq!((found.mark, found.topic), (Mark::Fail, "target"));
            let told = found.remedy.unwrap();
            assert!(told.contains(remedy.unwrap_or("zfs allow vault/in")), "{told}");
        }
    }
}
