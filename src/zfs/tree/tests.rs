//! Lines of whole trees, one by one.

use super::*;

fn name(text: &str) -> DatasetName {
    text.parse().unwrap()
}

#[test]
fn a_dataset_is_read_with_what_it_was_cloned_from_and_whether_it_is_wanted() {
    let read = |line: &str| read_source(line).unwrap().on_its_own(name("t")).unwrap();
    let plain = read("tank/a b\tvolume\t18446744073709551615\toff\t-\t-");
    assert_eq!((plain.guid, plain.state.kind), (Guid(u64::MAX), Kind::Volume));
    assert_eq!((plain.state.encrypted, plain.origin, plain.excluded), (false, None, false));
    let clone = read("tank/c\tfilesystem\t7\taes-256-gcm\ttank/a b@s 1\ton");
    let origin = Origin { dataset: name("tank/a b"), snapshot: "s 1".parse().unwrap() };
    assert_eq!((clone.state.encrypted, clone.origin, clone.excluded), (true, Some(origin), false));
    for (value, excluded) in
        [("-", false), ("on", false), ("true", false), ("yes", false), ("off", true)]
            .into_iter()
            .chain([("false", true), ("no", true)])
    {
        let line = format!("tank/a\tfilesystem\t7\toff\t-\t{value}");
        assert_eq!(read(&line).excluded, excluded, "{value}");
    }
}

#[test]
fn a_wish_that_means_nothing_is_told_with_its_dataset() {
    for value in ["maybe", "OFF", "off ", "off\toff"] {
        let line = format!("tank/a\tfilesystem\t7\toff\t-\t{value}");
        let error = read_source(&line).unwrap().on_its_own(name("tank/a")).unwrap_err();
        let told = error.on(crate::error::Side::Source);
        assert!(told.what.contains("tank/a has zferry:replicate"), "{told}");
        assert!(told.what.contains(&format!("{value:?}")), "{told}");
        assert!(told.remedy.unwrap().contains("zfs set zferry:replicate=off tank/a"));
    }
}

#[test]
fn lines_that_are_no_datasets_are_not_read() {
    for line in [
        "",
        "tank/a",
        "tank/a\tfilesystem\t7\toff\t-",
        "tank/a\tfilesystem\t7\toff\t-\t",
        "tank/a\tfilesystem\t7\t\t-\t-",
        "tank/a\tsnapshot\t7\toff\t-\t-",
        "tank/a\tfilesystem\t-\toff\t-\t-",
        "tank/a\tfilesystem\t7\toff\ttank/b\t-",
        "tank/a\tfilesystem\t7\toff\ttank/b@\t-",
        "tank/a\tfilesystem\t7\toff\ttank/;b@s\t-",
        "\tfilesystem\t7\toff\t-\t-",
    ] {
        assert_eq!(read_source(line), None, "{line:?}");
    }
}

#[test]
fn snapshots_are_led_to_their_datasets_by_all_of_the_name() {
    for (line, expected) in [
        ("tank/a@s\t1\t2", Some("tank/a")),
        ("tank/a b/c#m\t1\t2", Some("tank/a b/c")),
        ("tank@s\t1\t2", Some("tank")),
        ("tank/a\t1\t2", None),
        ("tank/a@s\t1", None),
        ("tank/a@s@t\t1\t2", None),
        ("x\ttank/a@s\t1\t2", None),
        ("", None),
    ] {
        assert_eq!(read_any_point(line).map(|(dataset, _)| dataset), expected, "{line:?}");
    }
}
