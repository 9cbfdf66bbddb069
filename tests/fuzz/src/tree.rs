//! The pages of a tree, as a server may say them.

use zferry::dataset::DatasetName;
use zferry::listing::{TargetDataset, TargetTree};
use zferry::protocol::envelope::encode;
use zferry::protocol::frame::Codec;
use zferry::protocol::message::{Hello, Limits, Message, Welcome};
use zferry::protocol::receiver::{self, Offer, Receiver};
use zferry::protocol::secret::JoinSecret;
use zferry::protocol::sender::{Input, Output, Sender};
use zferry::protocol::version::{Version, Versions};
use zferry::units::Bytes;

use crate::Target;

/// Each page as text, as what it says and as a part of the tree, and all of that told once more.
pub const TARGET: Target = Target { run, allocated_bytes_max: 2 << 20 };

/// Pages with zeros between them: JSON has none.
fn run(input: &[u8]) {
    let pages = input.split(|&byte| byte == 0);
    let pages: Vec<Message> = pages.filter_map(|page| serde_json::from_slice(page).ok()).collect();
    let Some(tree) = heard(pages) else { return };
    check(&tree);
    assert_eq!(heard(told(tree.clone())), Some(tree), "it does not arrive as it was told");
}

fn limits() -> Limits {
    Limits { block_bytes_max: Bytes(1 << 20), connections: 1, codecs: [Codec::Raw].into() }
}

/// What a client makes of them: `None` where one is not what it waits for, or where one is missing.
fn heard(pages: Vec<Message>) -> Option<TargetTree> {
    let mut output = Vec::new();
    let hello = Hello { software: String::new(), limits: limits() };
    let mut client = Sender::start(Versions::OURS, hello, &mut output);
    let (version, secret) = (Version::V1.number(), JoinSecret::new([0; 16]));
    let welcome = Welcome { software: String::new(), version, limits: limits(), secret };
    let wishes = [
        Input::Received(Message::Welcome(welcome)),
        Input::ListTree("a".parse().expect("it is a name")),
    ];
    for input in wishes.into_iter().chain(pages.into_iter().map(Input::Received)) {
        output.clear();
        client = client.handle(input, &mut output).ok()?;
        for news in &mut output {
            if let Output::TreeListed(tree) = news {
                return Some(tree.clone());
            }
        }
    }
    None
}

/// What a server makes of it.
fn told(tree: TargetTree) -> Vec<Message> {
    let mut output = Vec::new();
    let (software, secret) = (String::new(), JoinSecret::new([0; 16]));
    let offer = Offer { software, version: Version::V1, limits: limits(), secret };
    let hello = Hello { software: String::new(), limits: limits() };
    let (dataset, pages) = ("a".parse().expect("it is a name"), 256);
    let mut server = Receiver::new(offer);
    for input in [
        receiver::Input::Received(Message::Hello(hello)),
        receiver::Input::Received(Message::ListTree { dataset, pages }),
        receiver::Input::FoundTree(tree),
    ] {
        output.clear();
        server = server.handle(input, &mut output).expect("nobody lies to it");
    }
    let said = output.into_iter().filter_map(|output| match output {
        receiver::Output::Send(message) => Some(message),
        _ => None,
    });
    // `encode` panics where a message does not fit.
    said.inspect(|message| drop(encode(message))).collect()
}

/// Nothing lies outside of the root, or is there twice, or before what it lies in.
fn check(TargetTree { root, datasets }: &TargetTree) {
    let names = datasets.iter().map(|TargetDataset { dataset, .. }| dataset);
    let names: Vec<&DatasetName> = names.collect();
    assert!(names.is_sorted_by(|one, other| one < other), "{names:?}");
    assert!(names.iter().all(|name| name.is_within(root)), "{names:?}");
    assert!(names.first().is_none_or(|first| *first == root), "{names:?}");
}
