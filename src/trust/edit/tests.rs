//! Lists before and after a change, as whoever opens them in an editor sees them.

use proptest::prelude::*;

use super::*;
use crate::trust::clients::Clients;
use crate::trust::servers::Servers;

const A: &str = "SHA256:j6Oqsvqpt54KA5jaW1q9B4AUJEKlvoC5pkYI1xjLH80";
const B: &str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";

fn grant(root: &str) -> NewGrant {
    NewGrant {
        prefix: None,
        root: root.parse().unwrap(),
        root_guid: None,
        allow: None,
        raw_only: false,
        properties: None,
        datasets: None,
        transfers: None,
        spool: None,
        bandwidth: None,
        keep: None,
        template: None,
    }
}

fn trust(text: &str, name: &str, key: &str, grant: &NewGrant) -> Result<String, EditError> {
    let text = trust_client(text, &name.parse().unwrap(), key.parse().unwrap(), grant)?;
    Clients::parse(&text).unwrap_or_else(|mistake| panic!("{mistake}\n{text}"));
    Ok(text)
}

fn revoke(text: &str, who: &str) -> Option<String> {
    let text = revoke_client(text, who).unwrap()?;
    Clients::parse(&text).unwrap_or_else(|mistake| panic!("{mistake}\n{text}"));
    Some(text)
}

#[test]
fn a_new_list_says_what_it_is_and_what_was_granted() {
    let pinned = NewGrant { root_guid: Some(Guid(u64::MAX)), ..grant("backup/a b") };
    assert_eq!(
        trust("", "laptop", A, &pinned).unwrap(),
        format!(
            "# Who may send to this host, and what: docs/keys.md.\n\n\
             [[client]]\nname = \"laptop\"\nfingerprint = \"{A}\"\n\n\
             [[client.grant]]\nroot = \"backup/a b\"\nroot-guid = \"18446744073709551615\"\n\
             allow = [\"receive-full\", \"receive-incremental\", \"resume\", \"create-parents\"]\n"
        )
    );
}

#[test]
fn everything_that_can_be_granted_is_read_back_as_it_was_meant() {
    let all = NewGrant {
        prefix: Some("p".parse().unwrap()),
        root_guid: Some(Guid(7)),
        allow: Some([Operation::AbortPartial, Operation::Resume].into()),
        raw_only: true,
        properties: Some(["a:b", "sync"].map(|name| name.parse().unwrap()).into()),
        datasets: NonZeroU32::new(u32::MAX),
        transfers: NonZeroU32::new(1),
        spool: Some(Bytes(1500)),
        bandwidth: Some("3GiB".parse().unwrap()),
        keep: Some("last=7,daily=30".parse().unwrap()),
        template: Some("z%Y-%m-%dT%H:%M:%S".parse().unwrap()),
        ..grant("x")
    };
    let text = trust("", "a", A, &all).unwrap();
    let read = Clients::parse(&text).unwrap().find(&A.parse().unwrap()).unwrap();
    let [read] = read.grants() else { panic!("{text}") };
    assert_eq!((&read.prefix, &read.root, read.root_guid), (&all.prefix, &all.root, Some(Guid(7))));
    assert_eq!((Some(&read.allow), read.raw_only), (all.allow.as_ref(), true));
    assert_eq!(Some(&read.properties), all.properties.as_ref());
    assert_eq!((read.limits.datasets, read.limits.transfers), (all.datasets, all.transfers));
    assert_eq!((read.limits.spool, read.limits.bandwidth), (all.spool, all.bandwidth));
    assert!(text.contains("bandwidth = \"3GiB\"\n"), "{text}");
    let rules = read.keep.clone().unwrap();
    assert_eq!((Some(rules.keep), Some(rules.template)), (all.keep, all.template));
}

#[test]
fn one_more_client_changes_nothing_above_it() {
    let example = include_str!("../../../docs/clients.toml");
    let key = Fingerprint::of(b"another key").to_string();
    for end in ["", "\n# The end.\n", "\n\n# The end."] {
        let before = format!("{example}{end}");
        let text = trust(&before, "nas", &key, &grant("backup/nas")).unwrap();
        assert!(text.starts_with(&before), "{text}");
        let added = text[before.len()..].trim_start_matches('\n');
        assert!(added.starts_with("[[client]]\nname = \"nas\"\n"), "{added}");
        let after = revoke(&text, "nas").unwrap();
        assert_eq!(after.trim_end(), before.trim_end());
    }
}

#[test]
fn what_is_not_named_of_a_grant_stays_as_it_is() {
    let before = trust("", "a", A, &NewGrant { raw_only: true, ..grant("x") }).unwrap();
    let before = before.replace("raw-only = true", "raw-only = true  # never in clear");
    let slower = NewGrant { bandwidth: Some("1MiB".parse().unwrap()), ..grant("x") };
    let text = trust(&before, "a", A, &slower).unwrap();
    assert_eq!(text, before.clone() + "bandwidth = \"1MiB\"\n");
    let fewer = NewGrant { allow: Some([Operation::Resume].into()), ..grant("x") };
    let text = trust(&before, "a", A, &fewer).unwrap();
    assert!(text.contains("allow = [\"resume\"]\nraw-only = true  # never in clear\n"), "{text}");
}

#[test]
fn a_grant_does_not_move_to_another_dataset_of_that_name() {
    let before = NewGrant { root_guid: Some(Guid(7)), ..grant("x") };
    let text = trust("", "a", A, &before).unwrap();
    let moved = trust(&text, "a", A, &NewGrant { root_guid: Some(Guid(8)), ..grant("x") });
    assert_eq!(
        moved.unwrap_err().to_string(),
        "x has guid 8, and the dataset that was granted to a had 7"
    );
    assert_eq!(trust(&text, "a", A, &before).unwrap(), text, "the same again changes nothing");
    assert_eq!(trust(&text, "a", A, &grant("x")).unwrap(), text, "nor does an unknown guid");
}

#[test]
fn a_second_grant_stands_with_its_client() {
    let home = NewGrant { prefix: Some("home".parse().unwrap()), ..grant("x/a") };
    let vault = NewGrant { prefix: Some("vault".parse().unwrap()), ..grant("y/a") };
    let text = trust("", "a", A, &home).unwrap();
    let text = trust(&text, "b", B, &grant("x/b")).unwrap();
    let text = trust(&text, "a", A, &vault).unwrap();
    let clients = Clients::parse(&text).unwrap();
    assert_eq!(clients.find(&A.parse().unwrap()).unwrap().grants().len(), 2);
    assert!(text.find("y/a").unwrap() < text.find("x/b").unwrap(), "{text}");
}

#[test]
fn nobody_gets_the_name_or_the_key_of_another() {
    let text = trust("", "a", A, &grant("x")).unwrap();
    let other_key = trust(&text, "a", B, &grant("x")).unwrap_err();
    assert_eq!(other_key.to_string(), format!("a is known here by another key, {A}"));
    let other_key = trust(&text, "A", B, &grant("x")).unwrap_err();
    assert!(matches!(other_key, EditError::OtherKey { .. }), "names differ by more than case");
    let other_name = trust(&text, "b", A, &grant("x")).unwrap_err();
    assert_eq!(other_name.to_string(), format!("the key {A} is the one of a"));
}

#[test]
fn whoever_is_revoked_goes_with_all_grants_and_the_comment_above() {
    let text = format!(
        "# The head of the file.\n\n# About a.\n[[client]]\nname = \"a\"\nfingerprint = \"{A}\"\n\
         [[client.grant]]\nroot = \"x\"\nallow = [] # all of it\n\n# A section.\n\n# About b.\n\
         [[client]]\nname = \"b\"\nfingerprint = \"{B}\"\n# The end.\n"
    );
    let without_a = format!(
        "# The head of the file.\n\n# A section.\n\n# About b.\n\
         [[client]]\nname = \"b\"\nfingerprint = \"{B}\"\n# The end.\n"
    );
    assert_eq!(revoke(&text, "a").unwrap(), without_a);
    assert_eq!(revoke(&text, A).unwrap(), without_a);
    assert_eq!(revoke(&text, "A").unwrap(), without_a);
    let without_b = revoke(&text, B).unwrap();
    assert!(without_b.ends_with("# all of it\n\n# A section.\n# The end.\n"), "{without_b}");
    assert_eq!(
        revoke(&without_a, "b").unwrap(),
        "# The head of the file.\n\n# A section.\n# The end.\n"
    );
    assert_eq!(revoke(&text, "c"), None);
    assert_eq!(revoke("", "a"), None);
}

#[test]
fn servers_come_and_go() {
    let (one, two): (Authority, Authority) =
        ("a.example:1".parse().unwrap(), "[::1]:2".parse().unwrap());
    let key: Fingerprint = A.parse().unwrap();
    let text = trust_server("", &one, key).unwrap();
    assert_eq!(trust_server(&text, &one, key).unwrap(), text, "twice is once");
    let text = trust_server(&text, &two, key).unwrap();
    let servers = Servers::parse(&text).unwrap();
    assert_eq!((servers.pin("A.example:1"), servers.pin("[::1]:2")), (Some(key), Some(key)));
    let changed = trust_server(&text, &one, B.parse().unwrap()).unwrap_err();
    assert!(matches!(changed, EditError::OtherKey { .. }), "a key that changed is told: {changed}");
    let text = revoke_server(&text.replace("a.example", "A.example"), &one).unwrap().unwrap();
    assert_eq!(Servers::parse(&text).unwrap().pin("a.example:1"), None);
    assert_eq!(revoke_server(&text, &one), Ok(None));
}

#[test]
fn what_is_written_in_another_form_is_left_to_people() {
    let text = format!("client = [{{ name = \"a\", fingerprint = \"{A}\" }}]\n");
    assert_eq!(Clients::parse(&text).unwrap().iter().count(), 1);
    let refused = trust(&text, "b", B, &grant("x")).unwrap_err();
    assert_eq!(refused, EditError::OtherForm("client"));
    assert!(revoke_client(&text, "a").is_err(), "it would seem to be gone");
}

proptest! {
    #[test]
    fn a_size_is_read_back_as_the_same(bytes in any::<u64>(), shift in 0..50u32) {
        for bytes in [Bytes(bytes), Bytes(bytes >> shift << shift), Bytes(1 << shift)] {
            prop_assert_eq!(exact(bytes).parse::<Bytes>().unwrap(), bytes);
        }
    }
}
