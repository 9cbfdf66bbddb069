//! Whole trees asked of a real server: that they arrive whole, and only where they may.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use sys::backend::Backend;
use sys::control::Runtime;
use tempfile::TempDir;
use zferry::client::{Dial, Manner, Session};
use zferry::dataset::DatasetName;
use zferry::error::{Class, Failure};
use zferry::listing::TargetTree;
use zferry::protocol::message::Message;
use zferry::trust::OwnKey;
use zferry::zfs::Zfs;

use crate::support::executable;
use crate::support::host::{Server, zferry};
use crate::support::peer::{Peer, control_preamble};
use crate::support::scene::Scene;
use crate::support::secure::Secure;
use crate::support::small;
use crate::support::stand_in::StandIn;

/// 300 datasets with 400 snapshots each: twice as many pages as may come at once.
const DATASETS: usize = 300;
const SNAPSHOTS: usize = 400;

/// A host whose `zfs` knows of one root, and of one large tree below it.
struct Large(TempDir);

impl Large {
    fn new() -> Large {
        let host = Large(tempfile::tempdir().unwrap());
        let lines = [
            "#!/bin/sh",
            "cd \"$(dirname \"$0\")\"",
            "case \"$*\" in",
            "    list*' -r '*snapshot*) exec cat points ;;",
            "    list*' -r '*) exec cat heads ;;",
            "    list*snapshot*) ;;",
            "    list*) printf 'backup\\tfilesystem\\t1\\toff\\t-\\n' ;;",
            "    get*) echo 1 ;;",
            "esac\n",
        ];
        executable::script(&lines.join("\n"), &host.0.path().join("zfs"));
        let names: Vec<String> = (0..DATASETS)
            .map(
                |number| {
                    if number == 0 { "backup/t".to_owned() } else { format!("backup/t/{number}") }
                },
            )
            .collect();
        let heads = names.iter().enumerate().map(|(number, name)| {
            let token = if number % 50 == 7 { "1-f00-8-ba4" } else { "-" };
            let encryption = if number % 3 == 0 { "aes-256-gcm" } else { "off" };
            format!("{name}\tfilesystem\t{number}\t{encryption}\t{token}\n")
        });
        fs::write(host.0.path().join("heads"), heads.collect::<String>()).unwrap();
        // In turn, as `zfs` lists them in the order of their making.
        let points = (0..SNAPSHOTS).flat_map(|hour| {
            let taken = move |(number, name): (usize, &String)| {
                let guid = u64::MAX - (hour * DATASETS + number) as u64;
                format!("{name}@hourly_2026-11-29_{hour:05}\t{guid}\t{}\n", 1000 + hour)
            };
            names.iter().enumerate().map(taken)
        });
        fs::write(host.0.path().join("points"), points.collect::<String>()).unwrap();
        host
    }

    fn serve(&self) -> Server {
        let words = ["serve", "--listen", "127.0.0.1:0", "--plain", "--root", "backup"];
        let path = std::env::var("PATH").unwrap();
        let mut command = zferry(&words);
        command.env("PATH", format!("{}:{path}", self.0.path().display()));
        Server::start(&mut command)
    }
}

/// What a server says of trees, over one session.
fn trees(server: SocketAddr, names: &[&str]) -> Vec<Result<TargetTree, Failure>> {
    let limit = Duration::from_secs(20);
    let name = server.to_string();
    let dial = Dial::Network { name, addresses: vec![server], limit, manner: Manner::Plain };
    Runtime::new(Backend::Threads).unwrap().block_on(async {
        let mut session = Session::open(dial, &small::client(Duration::ZERO)).await.unwrap();
        let mut trees = Vec::new();
        for name in names {
            trees.push(session.list_tree(name.parse().unwrap()).await);
        }
        session.close().await;
        trees
    })
}

#[test]
fn a_large_tree_arrives_as_it_is_and_the_session_goes_on() {
    let host = Large::new();
    let server = host.serve();
    let root: DatasetName = "backup/t".parse().unwrap();
    let datasets = Zfs::at(host.0.path().join("zfs")).target_tree(&root).unwrap();
    assert_eq!(datasets.len(), DATASETS);
    let expected = Ok(TargetTree { root, datasets });
    // Not with `assert_eq`: to show the difference would take longer than the test.
    for told in trees(server.address, &["t", "t"]) {
        assert!(told == expected, "it came otherwise");
    }
    server.stopped().succeeded();
}

#[test]
fn a_tree_that_is_not_there_has_no_datasets() {
    let target = StandIn::new();
    let server = Server::serve(&target, &[]);
    let told = trees(server.address, &["none", "none/a"]);
    for (told, root) in told.into_iter().zip(["backup/none", "backup/none/a"]) {
        let root = root.parse().unwrap();
        assert_eq!(told, Ok(TargetTree { root, datasets: Vec::new() }));
    }
}

/// A hand-made client of a scene.
fn laptop(scene: &Scene) -> Peer {
    let key = OwnKey::load(&scene.source.folder.path().join("key.pem")).unwrap();
    let mut control = Secure::connect(scene.server.address, &key);
    std::io::Write::write_all(&mut control, &control_preamble()).unwrap();
    Peer::greet_over(Box::new(control), scene.server.address)
}

#[test]
fn a_tree_below_a_root_that_is_another_dataset_by_now_is_not_told() {
    let scene = Scene::new(&["--allow", "receive-full"]);
    scene.target.pools.dataset("backup/in/t", "filesystem");
    scene.target.pools.dataset("backup/in/t/a", "filesystem");
    scene.target.pools.snapshot("backup/in/t/a", "s", b"x");
    let ask = || {
        let mut peer = laptop(&scene);
        peer.say(&Message::ListTree { dataset: "t".parse().unwrap(), pages: 1 });
        peer
    };
    match ask().hear() {
        Some(Message::TreeListed { root, pieces, more: false }) => {
            assert_eq!((root.as_str(), pieces.len()), ("backup/in/t", 2));
            assert_eq!(pieces[1].snapshots.len(), 1);
        }
        other => panic!("not listed: {other:?}"),
    }
    scene.target.pools.becomes_another("backup/in");
    let refused = ask().refusal();
    assert_eq!(refused.class, Class::Refused, "{refused}");
    assert!(refused.what.contains("backup/in"), "{refused}");
}
