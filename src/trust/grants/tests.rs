//! Grants: every set of words against every wish, and names of any kind against roots.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::error::{Class, Side};
use crate::retention::Template;

fn grant(prefix: Option<&str>, root: &str, allow: &[Operation]) -> Grant {
    Grant {
        prefix: prefix.map(|prefix| prefix.parse().unwrap()),
        root: root.parse().unwrap(),
        root_guid: None,
        allow: allow.iter().copied().collect(),
        raw_only: false,
        properties: BTreeSet::new(),
        keep: Some(floor()),
        limits: Limits::default(),
    }
}

fn floor() -> Rules {
    Rules { keep: "daily=7".parse().unwrap(), template: Template::default() }
}

fn client(grants: Vec<Grant>) -> Result<Client, BadGrants> {
    Client::new("laptop".parse().unwrap(), Fingerprint::of(b"a key"), grants)
}

fn client_of(grant: Grant) -> Client {
    client(vec![grant]).unwrap()
}

fn every_wish() -> Vec<Wish> {
    let flags = (0..8u8).map(|bits| {
        Wish::Receive(Receive {
            incremental: bits & 1 != 0,
            resumed: bits & 2 != 0,
            raw: bits & 4 != 0,
        })
    });
    flags.chain([Wish::List, Wish::CreateParents, Wish::AbortPartial, Wish::Prune]).collect()
}

fn every_set_of_words() -> impl Iterator<Item = Vec<Operation>> {
    (0..1u16 << Operation::ALL.len()).map(|bits| {
        let is_in = |place: usize| bits & (1 << place) != 0;
        (0..Operation::ALL.len()).filter(|&p| is_in(p)).map(|p| Operation::ALL[p]).collect()
    })
}

/// The words that a wish needs, written down a second time.
fn words_for(wish: Wish) -> Vec<&'static str> {
    match wish {
        Wish::List => vec![],
        Wish::CreateParents => vec!["create-parents"],
        Wish::AbortPartial => vec!["abort-partial"],
        Wish::Prune => vec!["prune"],
        Wish::Receive(receive) => {
            let mut words =
                vec![if receive.incremental { "receive-incremental" } else { "receive-full" }];
            if receive.resumed {
                words.push("resume");
            }
            words
        }
    }
}

#[test]
fn a_wish_is_granted_by_exactly_the_words_that_it_needs() {
    let mut judged = 0;
    for allow in every_set_of_words() {
        for raw_only in [false, true] {
            let client = client_of(Grant { raw_only, ..grant(None, "backup/laptop", &allow) });
            for wish in every_wish() {
                let has_words = words_for(wish)
                    .iter()
                    .all(|word| allow.iter().any(|operation| operation.word() == *word));
                let readable = matches!(wish, Wish::Receive(receive) if !receive.raw);
                let expected = has_words && !(raw_only && readable);
                let permit = client.judge("a/b", wish);
                assert_eq!(permit.is_ok(), expected, "{allow:?} {raw_only} {wish:?}");
                judged += 1;
            }
        }
    }
    assert_eq!(judged, 64 * 2 * 12);
}

#[test]
fn nothing_that_destroys_is_granted_by_words_that_only_add() {
    let append_only = client_of(grant(None, "backup", &Operation::APPEND_ONLY));
    for wish in [Wish::AbortPartial, Wish::Prune] {
        let denied = append_only.judge("a", wish).unwrap_err();
        assert!(matches!(denied.why(), Why::NotGranted { .. }), "{denied}");
    }
    assert!(Operation::APPEND_ONLY.len() + 2 == Operation::ALL.len(), "no other word destroys");
}

#[test]
fn nobody_may_prune_where_nothing_says_what_stays() {
    let pruning = grant(None, "backup", &[Operation::Prune]);
    let without = Grant { keep: None, ..pruning.clone() };
    assert_eq!(client(vec![without]), Err(BadGrants::NoFloor(0, "backup".parse().unwrap())));
    let permit = client_of(pruning).judge("a", Wish::Prune).unwrap();
    assert_eq!(permit.keep(), Some(&floor()));
}

#[test]
fn a_client_without_grants_gets_nothing_at_all() {
    let nobody = client(vec![]).unwrap();
    for wish in every_wish() {
        let denied = nobody.judge("a", wish).unwrap_err();
        assert_eq!(denied.why(), &Why::NoGrant);
        let failure = denied.on_target();
        assert!(failure.remedy.unwrap().contains("zferry keys trust client laptop"));
    }
}

#[test]
fn a_permit_says_where_and_how_much() {
    let limits = Limits {
        datasets: NonZeroU32::new(2),
        transfers: NonZeroU32::new(1),
        spool: Some(Bytes::GIB),
        bandwidth: Some("1MiB".parse().unwrap()),
    };
    let root_guid = Some(Guid(u64::MAX));
    let granted = Grant { root_guid, limits, ..grant(None, "backup/laptop", &[]) };
    let permit = client_of(granted).judge("home/a b", Wish::List).unwrap();
    assert_eq!(permit.dataset().as_str(), "backup/laptop/home/a b");
    assert_eq!(permit.root().as_str(), "backup/laptop");
    assert_eq!((permit.limits(), permit.root_guid()), (limits, root_guid));
    assert_eq!(permit.client().as_str(), "laptop");
}

#[test]
fn a_denial_says_what_whose_and_which_line_would_allow_it() {
    let adds = [Operation::ReceiveFull, Operation::Resume];
    let client = client_of(Grant { raw_only: true, ..grant(None, "backup/laptop", &adds) });
    let stream = Receive { incremental: true, resumed: false, raw: true };
    let failure = client.judge("home", Wish::Receive(stream)).unwrap_err().on_target();
    assert_eq!((failure.side, failure.class), (Side::Target, Class::Refused));
    assert_eq!(
        failure.what,
        "client laptop may not send an incremental stream to home: receive-incremental is not \
         granted to it below backup/laptop"
    );
    let line = r#"allow = ["receive-full", "receive-incremental", "resume"]"#;
    assert_eq!(
        failure.remedy.unwrap(),
        format!("in clients.toml of the server, in the grant of laptop for backup/laptop: {line}")
    );
    let stream = Receive { incremental: false, resumed: true, raw: false };
    let failure = client.judge("home", Wish::Receive(stream)).unwrap_err().on_target();
    assert!(failure.what.contains("send the rest of a full stream to home"), "{failure}");
    assert!(failure.remedy.unwrap().ends_with("raw-only = false"));
}

/// The lines that denials name do allow what was denied.
#[test]
fn whoever_follows_a_denial_gets_what_was_denied() {
    for wish in every_wish() {
        let mut grant = Grant { raw_only: true, ..grant(None, "backup", &[]) };
        for _ in 0..4 {
            let Err(denied) = client_of(grant.clone()).judge("a", wish) else { break };
            let remedy = denied.on_target().remedy.unwrap();
            match remedy.split_once("allow = ") {
                Some((_, words)) => grant.allow = serde_json::from_str(words).unwrap(),
                None if remedy.ends_with("raw-only = false") => grant.raw_only = false,
                None => panic!("{remedy}"),
            }
        }
        assert!(client_of(grant).judge("a", wish).is_ok(), "{wish:?}");
    }
}

/// Property by property, as the line that a denial names is added to the list.
#[test]
fn a_property_is_set_where_it_is_granted_by_its_name() {
    let name = |text: &str| text.parse::<PropertyName>().unwrap();
    let mut grant = grant(None, "backup", &[Operation::ReceiveFull]);
    let full = Wish::Receive(Receive { incremental: false, resumed: false, raw: false });
    for (wanted, line) in [
        ("sync", "properties = [\"sync\"]"),
        ("com.example:owner", "properties = [\"com.example:owner\", \"sync\"]"),
    ] {
        let permit = client_of(grant.clone()).judge("a", full).unwrap();
        let failure = permit.check_property(&name(wanted)).unwrap_err().on_target();
        assert_eq!((failure.side, failure.class), (Side::Target, Class::Refused), "{failure}");
        let told = format!("the property {wanted} is not granted to it below backup");
        assert!(failure.what.contains(&told), "{failure}");
        let remedy = failure.remedy.unwrap();
        assert!(remedy.contains("--properties") && remedy.ends_with(line), "{remedy}");
        let (_, words) = remedy.split_once("properties = ").unwrap();
        grant.properties = serde_json::from_str(words).unwrap();
        let permit = client_of(grant.clone()).judge("a", full).unwrap();
        assert!(permit.check_property(&name(wanted)).is_ok(), "{wanted}");
        assert!(permit.check_property(&name("com.example:other")).is_err());
    }
}

#[test]
fn with_several_grants_the_first_part_of_a_name_chooses() {
    let all = client(vec![
        grant(Some("home"), "backup/laptop", &Operation::APPEND_ONLY),
        grant(Some("vault"), "cold/laptop", &[]),
    ])
    .unwrap();
    let full = Receive { incremental: false, resumed: false, raw: false };
    let permit = all.judge("home/vault/x", Wish::Receive(full)).unwrap();
    assert_eq!(permit.dataset().as_str(), "backup/laptop/vault/x");
    let permit = all.judge("vault/home", Wish::List).unwrap();
    assert_eq!(permit.dataset().as_str(), "cold/laptop/home");
    assert!(all.judge("vault/home", Wish::Receive(full)).is_err());
    for name in ["home", "vault", "homes/a", "a", "", "home/", "/home/a", "home/..", "home//a"] {
        assert!(all.judge(name, Wish::List).is_err(), "{name}");
    }
    let denied = all.judge("a", Wish::List).unwrap_err();
    assert!(denied.to_string().ends_with("its names begin with home/ or vault/"), "{denied}");
    // A prefix counts where there is but one grant, too.
    let one = client_of(grant(Some("home"), "backup/laptop", &[]));
    assert!(one.judge("home/a", Wish::List).is_ok() && one.judge("a/b", Wish::List).is_err());
}

#[test]
fn grants_that_reach_into_each_other_are_no_grants() {
    let two = |a: (Option<&str>, &str), b: (Option<&str>, &str)| {
        client(vec![grant(a.0, a.1, &[]), grant(b.0, b.1, &[])])
    };
    assert!(two((Some("a"), "backup/a"), (Some("b"), "backup/ab")).is_ok());
    assert_eq!(two((Some("a"), "x"), (None, "y")), Err(BadGrants::NoPrefix(1)));
    assert_eq!(two((None, "x"), (Some("a"), "y")), Err(BadGrants::NoPrefix(0)));
    let same = two((Some("a"), "x"), (Some("a"), "y"));
    assert!(matches!(same, Err(BadGrants::SamePrefix(1, _))), "{same:?}");
    for (one, other) in [("x", "x/y"), ("x/y", "x"), ("x", "x")] {
        let nested = two((Some("a"), one), (Some("b"), other));
        assert!(matches!(nested, Err(BadGrants::Nested(1, _, _))), "{nested:?}");
    }
}

#[test]
fn another_dataset_of_the_same_name_is_not_the_root() {
    let pinned = Grant { root_guid: Some(Guid(7)), ..grant(None, "backup", &[]) };
    let permit = client_of(pinned).judge("a", Wish::List).unwrap();
    permit.check_root(Guid(7)).unwrap();
    let failure = permit.check_root(Guid(8)).unwrap_err().on_target();
    assert!(failure.what.contains("backup has guid 8"), "{failure}");
    assert!(failure.remedy.unwrap().ends_with("root-guid = \"8\""));
    let permit = client_of(grant(None, "backup", &[])).judge("a", Wish::List).unwrap();
    permit.check_root(Guid(8)).unwrap();
}

#[test]
fn what_is_missing_above_a_dataset_is_made_only_where_that_is_granted() {
    for word in Operation::ALL {
        let permit = client_of(grant(None, "backup", &[word])).judge("a/b", Wish::List).unwrap();
        let denied = permit.check_parents().err().map(|denied| denied.on_target());
        assert_eq!(denied.is_none(), word == Operation::CreateParents);
        if let Some(failure) = denied {
            assert!(failure.what.contains("may not create what is missing above"), "{failure}");
            assert!(failure.remedy.unwrap().contains("\"create-parents\""));
        }
    }
}

#[test]
fn a_limit_is_the_most_that_there_may_be() {
    let limits =
        Limits { datasets: NonZeroU32::new(3), transfers: NonZeroU32::new(2), ..Limits::default() };
    let permit = client_of(Grant { limits, ..grant(None, "backup", &[]) });
    let permit = permit.judge("a", Wish::List).unwrap();
    assert!(permit.check_transfers(1).is_ok() && permit.check_datasets(3).is_ok());
    let failure = permit.check_transfers(2).unwrap_err().on_target();
    assert_eq!(failure.class, Class::Wait, "it may be tried again");
    assert!(failure.remedy.unwrap().ends_with("transfers = 3"));
    let failure = permit.check_datasets(7).unwrap_err().on_target();
    assert_eq!(failure.class, Class::Refused);
    assert!(failure.what.contains("7 datasets below backup, and 3 are granted"), "{failure}");
    assert!(failure.remedy.unwrap().ends_with("datasets = 7"));
    let unlimited = client_of(grant(None, "backup", &[])).judge("a", Wish::List).unwrap();
    assert!(unlimited.check_transfers(usize::MAX).is_ok());
    assert!(unlimited.check_datasets(usize::MAX).is_ok());
}

fn any_root() -> impl Strategy<Value = String> {
    prop::collection::vec("[a-c]", 1..4).prop_map(|parts| parts.join("/"))
}

/// Names that are honest, names that mean harm, and noise.
fn any_name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[a-c]",
        1 => Just("..".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just(String::new()),
        1 => any::<String>(),
    ];
    prop::collection::vec(part, 0..5).prop_map(|parts| parts.join("/"))
}

proptest! {
    #[test]
    fn nothing_outside_of_its_own_roots_is_permitted(
        roots in prop::collection::vec(any_root(), 1..4),
        name in any_name(),
        wish in prop::sample::select(every_wish()),
    ) {
        let prefix = |number: usize| (roots.len() > 1).then(|| ["a", "b", "c"][number]);
        let grants = roots
            .iter()
            .enumerate()
            .map(|(number, root)| grant(prefix(number), root, &Operation::ALL))
            .collect();
        if let Ok(client) = client(grants)
            && let Ok(permit) = client.judge(&name, wish)
        {
            let within = format!("{}/", permit.root());
            prop_assert!(permit.dataset().as_str().starts_with(&within));
            prop_assert!(!permit.dataset().as_str().split('/').any(|part| part == ".."));
            // The root is the one that the name chose, and no other grant reaches there.
            let reaching: Vec<&String> = roots
                .iter()
                .filter(|root| permit.dataset().is_within(&root.parse().unwrap()))
                .collect();
            prop_assert_eq!(reaching, [permit.root().as_str()]);
            let sets: BTreeSet<&String> = roots.iter().collect();
            prop_assert_eq!(sets.len(), roots.len());
        }
    }
}
