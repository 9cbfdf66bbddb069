//! Trees in pages, and what no page may say.

use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::dataset::Kind;
use crate::protocol::envelope::{Decoder, HEAD_BYTES, encode};

fn name(text: &str) -> DatasetName {
    text.parse().unwrap()
}

fn snapshots(count: usize, name_bytes: usize) -> Vec<Snapshot> {
    let snapshot = |number: usize| Snapshot {
        name: format!("{number:0>name_bytes$}").parse().unwrap(),
        guid: Guid(u64::MAX - number as u64),
        createtxg: u64::MAX,
    };
    (0..count).map(snapshot).collect()
}

fn dataset(dataset: DatasetName, snapshots: Vec<Snapshot>, token: Option<String>) -> TargetDataset {
    let (kind, encrypted) = (Kind::Filesystem, snapshots.len() % 2 == 1);
    let state = TargetState::Present { kind, encrypted, snapshots, resume_token: token };
    TargetDataset { dataset, state }
}

/// All pages, as they arrive.
fn told(tree: TargetTree) -> Vec<Message> {
    let mut pages = Pages::of(tree).unwrap();
    let mut told = Vec::new();
    while !pages.are_over() {
        // `encode` panics where a message does not fit.
        let bytes = encode(&pages.tell());
        told.extend(Decoder::default().take(&mut &bytes[..]).unwrap());
    }
    told
}

fn joined(told: Vec<Message>) -> TargetTree {
    let mut so_far = None;
    for message in told {
        let heard = match (so_far.take(), message) {
            (None, Message::TreeListed { root, pieces, more }) => Tree::begin(root, pieces, more),
            (Some(Heard::Partial(tree)), Message::TreeListedMore { pieces, more }) => {
                tree.join(pieces, more)
            }
            other => panic!("{other:?}"),
        };
        so_far = Some(heard.unwrap());
    }
    match so_far {
        Some(Heard::Whole(tree)) => tree,
        other => panic!("not whole: {other:?}"),
    }
}

/// A tree as `zfs` lists it: the root, and names that begin alike in every way.
fn tree() -> impl Strategy<Value = TargetTree> {
    let below = prop::collection::btree_set("[a-c][a-c -]{0,2}(/[a-b-]{1,2}){0,2}", 0..20);
    let history = (0..400_usize, prop_oneof![1..20_usize, Just(255)]);
    let token = option::weighted(0.2, "[ -~]{0,300}");
    let held = prop::collection::vec((history, token), 21);
    (option::weighted(0.9, below), held).prop_map(|(below, held)| {
        let root = name("backup/t");
        let names = below.into_iter().flat_map(|below| {
            let below: Vec<_> = below.iter().map(|below| root.join(below).unwrap()).collect();
            [root.clone()].into_iter().chain(below)
        });
        let mut datasets: Vec<_> = names
            .zip(held)
            .map(|(name, ((count, bytes), token))| dataset(name, snapshots(count, bytes), token))
            .collect();
        datasets.sort_by(|one, other| one.dataset.cmp(&other.dataset));
        TargetTree { root, datasets }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_tree_that_was_told_is_the_tree_that_is_heard(tree in tree()) {
        let pages = told(tree.clone());
        // All pages but the last are full: no dataset would find room.
        let (last, full) = pages.split_last().unwrap();
        let most = PIECE_BYTES + 2 * NAME_BYTES_MAX + 600;
        for page in full {
            prop_assert!(encode(page).len() - HEAD_BYTES + most >= PAGE_BYTES);
        }
        let is_empty =
            matches!(last, Message::TreeListedMore { pieces, .. } if pieces.is_empty());
        prop_assert!(!is_empty);
        prop_assert_eq!(joined(pages), tree);
    }
}

#[test]
fn the_longest_names_numbers_and_tokens_fit() {
    let root = name(&"a".repeat(120));
    let child = root.join(&"b".repeat(134)).unwrap();
    for token in
        ["f".repeat(TOKEN_BYTES_MAX), "\u{1}".repeat(TOKEN_BYTES_MAX / 6), "\"".repeat(8000)]
    {
        for count in [0, 1, 193, 194, 1000] {
            let datasets = vec![
                dataset(root.clone(), snapshots(count, 255), Some(token.clone())),
                dataset(child.clone(), snapshots(count, 255), Some(token.clone())),
            ];
            let tree = TargetTree { root: root.clone(), datasets };
            assert_eq!(joined(told(tree.clone())), tree);
        }
    }
}

#[test]
fn of_a_tree_that_is_not_there_one_empty_page_is_told() {
    let tree = TargetTree { root: name("backup/t"), datasets: Vec::new() };
    let pages = told(tree.clone());
    assert_eq!(pages.len(), 1);
    assert_eq!(joined(pages), tree);
}

#[test]
fn what_could_not_be_told_is_refused_at_its_source() {
    let refused = |root: &str, datasets| {
        let tree = TargetTree { root: name(root), datasets };
        Pages::of(tree).map(|_| ()).unwrap_err().what
    };
    let token = Some("f".repeat(TOKEN_BYTES_MAX + 1));
    assert!(refused("t", vec![dataset(name("t"), Vec::new(), token)]).contains("resume token"));
    // What a client names is joined to a root of any length.
    let long = format!("t/{}", "b".repeat(253));
    let told = refused("t", vec![dataset(name(&long), Vec::new(), None)]);
    assert!(told.contains("cannot be named below t"), "{told}");
    let beside = refused("t/a", vec![dataset(name("t/ab"), Vec::new(), None)]);
    assert!(beside.contains("t/ab cannot be named below t/a"), "{beside}");
}

const SMALL: Size = Size { datasets: 100, snapshots: 1000, text_bytes: 50_000 };

/// A tree of so many datasets with so many snapshots each, of names of so many bytes.
fn even(datasets: usize, count: usize, name_bytes: usize) -> TargetTree {
    let root = name("t");
    let below = (1..datasets).map(|number| root.join(&number.to_string()).unwrap());
    let names = [root.clone()].into_iter().chain(below);
    let datasets = names.map(|name| dataset(name, snapshots(count, name_bytes), None)).collect();
    TargetTree { root, datasets }
}

#[test]
fn a_tree_is_as_large_as_it_may_be_and_no_larger() {
    let within = |tree| Pages::within(SMALL, tree).map(|_| ()).map_err(|told| told.what);
    for (fits, does_not, of) in [
        (even(100, 0, 8), even(101, 0, 8), "100 datasets"),
        (even(10, 100, 8), even(11, 91, 8), "1000 snapshots"),
        (even(1, 199, 250), even(1, 200, 250), "50000 bytes of names and tokens"),
    ] {
        assert_eq!(within(fits), Ok(()));
        let what = format!("t and what lies below it have more than {of}");
        assert_eq!(within(does_not), Err(what));
    }
}

fn piece(below: Option<&str>, count: usize) -> Piece {
    let name = below.map(|below| below.parse().unwrap());
    let node = Node { name, kind: Kind::Filesystem, encrypted: false, resume_token: None };
    Piece { dataset: Some(node), snapshots: snapshots(count, 8) }
}

fn more_snapshots(count: usize) -> Piece {
    Piece { dataset: None, snapshots: snapshots(count, 8) }
}

/// What is made of pages, all of which but the last say that more follows.
fn heard(pages: Vec<Vec<Piece>>) -> Result<Heard, PeerMisbehaved> {
    let count = pages.len();
    let mut so_far: Option<Tree> = None;
    for (place, pieces) in pages.into_iter().enumerate() {
        let more = place + 1 < count;
        let heard = match so_far.take() {
            None => Tree::begin(name("t"), pieces, more)?,
            Some(tree) => tree.join(pieces, more)?,
        };
        match heard {
            Heard::Partial(tree) => so_far = Some(tree),
            whole @ Heard::Whole(_) => return Ok(whole),
        }
    }
    panic!("no page")
}

#[test]
fn a_page_that_does_not_move_the_tree_on_is_refused() {
    let root = || vec![piece(None, 1)];
    for pages in [
        vec![vec![], vec![]],
        vec![root(), vec![]],
        vec![root(), vec![], vec![]],
        vec![vec![more_snapshots(1)]],
        vec![root(), vec![more_snapshots(0)]],
        vec![vec![piece(None, 1), more_snapshots(1)]],
        vec![root(), vec![more_snapshots(1), more_snapshots(1)]],
    ] {
        let told = heard(pages.clone());
        assert!(matches!(told, Err(PeerMisbehaved::ListingStands)), "{pages:?}: {told:?}");
    }
    assert!(matches!(heard(vec![vec![]]), Ok(Heard::Whole(_))));
    assert!(matches!(heard(vec![root(), vec![more_snapshots(1)]]), Ok(Heard::Whole(_))));
}

#[test]
fn a_dataset_comes_once_behind_its_parent_and_the_root_before_all() {
    for pages in [
        vec![vec![piece(Some("a"), 1)]],
        vec![vec![piece(None, 1), piece(None, 1)]],
        vec![vec![piece(None, 1), piece(Some("a"), 1), piece(Some("a"), 1)]],
        vec![vec![piece(None, 1), piece(Some("a/b"), 1)], vec![piece(Some("a"), 1)]],
        vec![vec![piece(None, 1), piece(Some("a"), 1)], vec![piece(None, 1)]],
    ] {
        let told = heard(pages.clone());
        assert!(matches!(told, Err(PeerMisbehaved::TreeOrder { .. })), "{pages:?}: {told:?}");
    }
    let long = "b".repeat(250);
    let root = name(&"r".repeat(100));
    let told = Tree::begin(root, vec![piece(None, 0), piece(Some(&long), 0)], false);
    assert!(matches!(told, Err(PeerMisbehaved::TreeName(_))), "{told:?}");
}

#[test]
fn a_tree_that_never_ends_is_cut_off() {
    let endless = |next: &dyn Fn(usize) -> Piece| {
        let mut heard = Tree::new(name("t"), SMALL).join(vec![piece(None, 0)], true);
        for number in 1..2000 {
            match heard {
                Ok(Heard::Partial(tree)) => heard = tree.join(vec![next(number)], true),
                other => return (number, other.map(|_| ()).unwrap_err()),
            }
        }
        panic!("it has no end");
    };
    let too_large = |max, of| PeerMisbehaved::TreeTooLarge { max, of };
    let deep = endless(&|_| more_snapshots(10));
    assert_eq!(deep, (102, too_large(1000, "snapshots")));
    let named = |number: usize| piece(Some(&format!("{number:0>9}")), 0);
    assert_eq!(endless(&named), (101, too_large(100, "datasets")));
    let wordy = endless(&|number| {
        let mut piece = named(number);
        piece.dataset.as_mut().unwrap().resume_token = Some("f".repeat(6000));
        piece
    });
    assert_eq!(wordy, (10, too_large(50_000, "bytes of names and tokens")));
}

#[test]
fn more_pages_are_asked_for_long_before_those_that_may_come_have_come() {
    let mut tree = match Tree::begin(name("t"), vec![piece(None, 1)], true) {
        Ok(Heard::Partial(tree)) => tree,
        other => panic!("{other:?}"),
    };
    let (mut room, mut asked) = (PAGES_AHEAD, 0);
    for page in 1..1000 {
        assert!(page + PAGES_AHEAD / 2 < room, "page {page} of {room}");
        assert!(room - page <= PAGES_AHEAD_MAX);
        if let Some(more) = tree.room() {
            (room, asked) = (more, asked + 1);
        }
        tree = match tree.join(vec![more_snapshots(1)], true) {
            Ok(Heard::Partial(tree)) => tree,
            other => panic!("{other:?}"),
        };
    }
    assert!(asked < 1000 / 10, "{asked} times");
}
