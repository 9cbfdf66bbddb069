//! Records of real streams, records that we make, and everything that can be done to them.

use proptest::prelude::*;

use super::begin::{Begin, BeginError, Content, Features, Form, PAYLOAD_BYTES_MAX};
use super::judge::{Admitted, Announced, Refusal, judge};
use crate::dataset::{Guid, Kind};
use crate::error::Class;

/// What each of these is of stands in front of it.
const GOLDEN: &str = include_str!("../../tests/golden/begins.txt");

const RECORD_BYTES: usize = 312;

/// The first bytes of a stream of OpenZFS 2.3.
fn real(name: &str) -> Vec<u8> {
    let lines = GOLDEN.lines().filter_map(|line| line.split_once(' '));
    let hex = lines.filter(|(of, _)| *of == name).map(|(_, hex)| hex).next().unwrap();
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn names() -> Vec<&'static str> {
    let lines = GOLDEN.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.split_once(' ')?.0)).collect()
}

fn read(bytes: &[u8]) -> Begin {
    Begin::read(bytes).unwrap().unwrap()
}

/// What an honest sender announces of a stream.
fn announced(begin: &Begin) -> Announced {
    let Content::Dataset(kind) = begin.content else { panic!("not of a dataset") };
    Announced {
        kind,
        snapshot: begin.snapshot().parse().unwrap(),
        to: begin.to,
        from: begin.from,
        raw: begin.features.any_of(Features::RAW),
        resumed: begin.features.any_of(Features::RESUMING),
        clone: begin.clone,
    }
}

/// The same record by a machine of the other byte order.
fn swapped(record: &[u8]) -> Vec<u8> {
    let mut other = record.to_vec();
    for (at, bytes) in
        [(0, 4), (4, 4), (8, 8), (16, 8), (24, 8), (32, 4), (36, 4), (40, 8), (48, 8)]
    {
        other[at..at + bytes].reverse();
    }
    other
}

#[test]
fn records_of_real_streams_say_what_they_are_of() {
    for (name, kind, bits, builds) in [
        ("full", Kind::Filesystem, &[2, 17, 22][..], false),
        ("incremental", Kind::Filesystem, &[2, 17, 22], true),
        ("bookmark", Kind::Filesystem, &[2, 17, 22], true),
        ("volume", Kind::Volume, &[17, 22], false),
        ("raw", Kind::Filesystem, &[2, 17, 22, 24], false),
        ("raw-incremental", Kind::Filesystem, &[2, 17, 22, 24], true),
        ("resumed", Kind::Filesystem, &[2, 17, 20, 22], true),
        ("longname", Kind::Filesystem, &[2, 28], false),
        ("microzap", Kind::Filesystem, &[2, 19, 29], false),
        ("zstd", Kind::Filesystem, &[2, 17, 22, 25], false),
    ] {
        let bytes = real(name);
        let begin = read(&bytes);
        let features = Features(bits.iter().map(|bit| 1 << bit).sum());
        assert_eq!((begin.form, begin.features), (Form::Single, features), "{name}");
        assert_eq!((begin.content, begin.clone), (Content::Dataset(kind), false), "{name}");
        assert_eq!((begin.from.is_some(), begin.length()), (builds, bytes.len()), "{name}");
        assert!(begin.to_name.starts_with("tank/") && begin.created > 1_700_000_000, "{name}");
        let makes_dataset = !builds;
        assert_eq!(judge(&begin, &announced(&begin)), Ok(Admitted { kind, makes_dataset }));
    }
    // Both of the same snapshot.
    assert_eq!(read(&real("incremental")), read(&real("bookmark")));
    assert_eq!(read(&real("incremental")).from, Some(read(&real("full")).to));
}

#[test]
fn packages_redacted_streams_and_clones_that_were_not_announced_are_not_let_in() {
    let announced = announced(&read(&real("full")));
    for name in ["package-R", "package-p", "package-I"] {
        let refusal = judge(&read(&real(name)), &announced).unwrap_err();
        assert_eq!((&refusal, refusal.class()), (&Refusal::Package, Class::Refused), "{name}");
    }
    for (name, refusal) in [("clone", Refusal::Clone), ("redacted", Refusal::Redacted)] {
        let begin = read(&real(name));
        let from = begin.from;
        let announced = Announced { to: begin.to, from, ..announced.clone() };
        assert_eq!(judge(&begin, &announced), Err(refusal), "{name}");
    }
}

#[test]
fn a_clone_is_let_in_as_it_was_announced_and_makes_its_dataset() {
    let (whole, rest) = (read(&real("clone")), read(&real("clone-resumed")));
    assert!(whole.clone && rest.clone && whole.from.is_some());
    let kind = Kind::Filesystem;
    let judged = |begin: &Begin| judge(begin, &announced(begin));
    assert_eq!(judged(&whole), Ok(Admitted { kind, makes_dataset: true }));
    assert_eq!(judged(&rest), Ok(Admitted { kind, makes_dataset: false }));
}

#[test]
fn a_clone_of_anything_else_than_was_announced_is_not_let_in() {
    let begin = read(&real("clone"));
    let honest = announced(&begin);
    for (announced, refusal, class) in [
        (Announced { clone: false, ..honest.clone() }, Refusal::Clone, Class::Refused),
        (
            Announced { from: Some(Guid(7)), ..honest.clone() },
            Refusal::From { announced: Some(Guid(7)), got: begin.from },
            Class::Peer,
        ),
        (Announced { from: None, clone: false, ..honest.clone() }, Refusal::Clone, Class::Refused),
        (
            Announced { resumed: true, ..honest.clone() },
            Refusal::Resumed { announced: true },
            Class::Peer,
        ),
        (
            Announced { to: Guid(7), ..honest.clone() },
            Refusal::To { announced: Guid(7), got: begin.to },
            Class::Peer,
        ),
    ] {
        let refused = judge(&begin, &announced).unwrap_err();
        assert_eq!((&refused, refused.class()), (&refusal, class));
    }
    // What adds to the dataset is none, and neither is what builds on nothing.
    for name in ["incremental", "full"] {
        let begin = read(&real(name));
        let announced = Announced { clone: true, ..announced(&begin) };
        let refused = judge(&begin, &announced).unwrap_err();
        assert_eq!((&refused, refused.class()), (&Refusal::NoClone, Class::Peer), "{name}");
    }
}

#[test]
fn the_byte_order_of_the_sender_does_not_matter() {
    for name in names() {
        assert_eq!(read(&swapped(&real(name))), read(&real(name)), "{name}");
    }
}

#[test]
fn a_rest_of_a_full_stream_makes_no_dataset() {
    let begin = read(&real("resumed"));
    let begin = Begin { from: None, ..begin };
    let admitted = judge(&begin, &announced(&begin)).unwrap();
    assert!(!admitted.makes_dataset);
}

#[test]
fn whatever_was_not_announced_is_not_let_in() {
    let (guid, begin) = (Guid(7), read(&real("incremental")));
    let honest = announced(&begin);
    let other = |change: fn(&mut Announced)| {
        let mut announced = honest.clone();
        change(&mut announced);
        judge(&begin, &announced).unwrap_err()
    };
    for (refusal, told) in [
        (other(|a| a.kind = Kind::Volume), "of a filesystem; announced was a volume"),
        (other(|a| a.to = Guid(7)), "announced was guid 7"),
        (other(|a| a.from = Some(Guid(7))), "announced was that it builds on the snapshot with"),
        (other(|a| a.from = None), "announced was that it builds on nothing"),
        (other(|a| a.snapshot = "x".parse().unwrap()), "\"tank/data@two\"; announced was the"),
        (other(|a| a.raw = true), "it is not raw; announced was one that is raw"),
        (other(|a| a.resumed = true), "announced was the rest of a stream"),
    ] {
        assert!(refusal.to_string().contains(told), "{refusal}");
        assert_eq!(refusal.class(), Class::Peer, "{refusal}");
    }
    for (name, change) in [
        ("raw", Refusal::Raw { announced: false }),
        ("full", Refusal::To { announced: guid, got: read(&real("full")).to }),
    ] {
        let begin = read(&real(name));
        let announced = Announced { to: guid, raw: false, ..announced(&begin) };
        assert_eq!(judge(&begin, &announced), Err(change), "{name}");
    }
}

#[test]
fn every_feature_that_is_not_known_is_named() {
    let begin = read(&real("full"));
    let known = [2, 16, 17, 19, 22, 23, 25, 27, 28, 29];
    for bit in 0..62 {
        let features = Features(begin.features.0 | 1 << bit);
        let odd = Begin { features, ..begin.clone() };
        match (bit, judge(&odd, &announced(&begin))) {
            (bit, Ok(_)) => assert!(known.contains(&bit), "{bit}"),
            (0 | 1, Err(refusal)) => assert_eq!(refusal, Refusal::Deduplicated),
            (20, Err(refusal)) => assert_eq!(refusal, Refusal::Resumed { announced: false }),
            (21, Err(refusal)) => assert_eq!(refusal, Refusal::Redacted),
            (24, Err(refusal)) => assert_eq!(refusal, Refusal::Raw { announced: false }),
            (bit, Err(refusal)) => {
                assert_eq!(refusal, Refusal::Features(Features(1 << bit)));
                assert!(refusal.to_string().contains(&format!("(bits {bit})")), "{refusal}");
            }
        }
    }
}

#[test]
fn what_is_no_beginning_is_refused_by_what_it_is() {
    let change = |at: usize, bytes: &[u8]| {
        let mut record = real("full");
        record[at..at + bytes.len()].copy_from_slice(bytes);
        Begin::read(&record)
    };
    assert_eq!(change(8, &[0]), Err(BeginError::NoStream));
    assert_eq!(Begin::read(&[0; RECORD_BYTES]), Err(BeginError::NoStream));
    assert_eq!(change(0, &3u32.to_le_bytes()), Err(BeginError::Middle(3)));
    let beyond = PAYLOAD_BYTES_MAX + 1;
    assert_eq!(change(4, &beyond.to_le_bytes()), Err(BeginError::Payload(beyond)));
    let most = change(4, &PAYLOAD_BYTES_MAX.to_le_bytes()).unwrap().unwrap();
    assert_eq!(most.length(), RECORD_BYTES + (1 << 20));
    assert_eq!(change(56, &[0]), Err(BeginError::Name));
    assert_eq!(change(56, &[0xff]), Err(BeginError::Name));
    assert_eq!(change(56, &[b'a'; 256]), Err(BeginError::Name));
    for form in [0, 3] {
        let begin = change(16, &[form]).unwrap().unwrap();
        assert_eq!(judge(&begin, &announced(&begin)), Err(Refusal::Form(form)));
    }
    let begin = change(32, &[1]).unwrap().unwrap();
    let announced = announced(&read(&real("full")));
    assert_eq!(judge(&begin, &announced), Err(Refusal::Content(1)));
}

#[test]
fn a_record_that_is_cut_anywhere_is_not_whole() {
    let whole = real("raw");
    for cut in 0..RECORD_BYTES {
        assert_eq!(Begin::read(&whole[..cut]), Ok(None), "{cut}");
    }
    assert_eq!(read(&whole[..RECORD_BYTES]), read(&whole));
}

#[test]
fn every_refusal_of_a_stream_says_what_to_do() {
    for refusal in [
        Refusal::Begin(BeginError::NoStream),
        Refusal::CutShort(100),
        Refusal::Package,
        Refusal::Features(Features(1 << 40)),
    ] {
        assert!(!refusal.to_string().is_empty() && !refusal.remedy().is_empty());
    }
    assert_eq!(Refusal::CutShort(1).class(), Class::Peer);
    assert_eq!(Refusal::Features(Features(1)).class(), Class::Refused);
}

proptest! {
    #[test]
    fn nothing_is_too_strange_to_be_judged(
        name in prop::sample::select(names()),
        changes in prop::collection::vec((0..RECORD_BYTES, any::<u8>()), 0..8),
        length in 0..RECORD_BYTES * 2,
    ) {
        let mut bytes = real(name);
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.resize(length, 0);
        if let Ok(Some(begin)) = Begin::read(&bytes) {
            prop_assert!(begin.length() <= RECORD_BYTES + PAYLOAD_BYTES_MAX as usize);
            let full = read(&real("full"));
            if let Ok(admitted) = judge(&begin, &announced(&full)) {
                prop_assert_eq!((begin.to, begin.from), (full.to, full.from));
                prop_assert_eq!(begin.form, Form::Single);
                prop_assert!(admitted.makes_dataset);
            }
        }
    }

    #[test]
    fn bytes_of_no_stream_are_no_stream(bytes in prop::collection::vec(any::<u8>(), 312..400)) {
        prop_assert_eq!(Begin::read(&bytes), Err(BeginError::NoStream));
    }
}
