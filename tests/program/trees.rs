//! Whole trees asked of a real server: that they arrive whole, and only where they may. And trees
//! that are on their way when a server is away for a moment, or a dataset is gone.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
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
use zferry_chaos::{Plan, Proxy};

use crate::support::executable;
use crate::support::host::{Ended, Running, Server, replicate_for, wait_for, zferry, zferry_on};
use crate::support::peer::{Peer, control_preamble};
use crate::support::scene::Scene;
use crate::support::scheduled;
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

/// A tree of five that is copied by two sessions, and a server that takes no other connections from
/// when the first of them stands.
struct Away {
    target: StandIn,
    proxy: Proxy,
    copy: Running,
    _others: (StandIn, Server),
}

impl Away {
    fn begin(retry_for_seconds: u32) -> Away {
        let (source, target) = (StandIn::new(), StandIn::new());
        for dataset in FIVE {
            source.dataset(dataset, "filesystem");
            source.snapshot(dataset, "one", &[7].repeat(100_000));
        }
        let server = Server::serve(&target, &["--cache", "16MiB"]);
        let proxy = Proxy::start(server.address, &Plan::none()).unwrap();
        // Until it is over, there is time to bolt the door.
        target.pause_before("list", Duration::from_secs(2));
        let to = format!("zferry://{}/t", proxy.address());
        let flags = ["-r", "--no-snapshot", "--parallel", "2", "--cache", "64MiB"];
        let copy = replicate_for(retry_for_seconds, &source, "tank/t", &to, &flags);
        wait_for("the first session", || (proxy.counters().lanes.connections > 0).then_some(()));
        Away { target, proxy, copy, _others: (source, server) }
    }

    /// Those of the five that have arrived.
    fn arrived(target: &StandIn) -> usize {
        let there = FIVE.iter().map(|dataset| dataset.replacen("tank", "backup", 1));
        there.filter(|dataset| target.snapshots(dataset) == ["one"]).count()
    }
}

const FIVE: [&str; 5] = ["tank/t", "tank/t/a", "tank/t/b", "tank/t/c", "tank/t/d"];

#[test]
fn a_further_session_that_cannot_be_opened_at_once_is_tried_again_like_any() {
    let mut away = Away::begin(240);
    wait_for("another attempt, or the end", || {
        away.proxy.refuse(Duration::from_secs(1));
        (away.copy.said().contains("tried again in") || !away.copy.is_running()).then_some(())
    });
    let copied = away.copy.ended().succeeded();
    assert!(copied.stderr.contains("tried again in"), "it was not away: {}", copied.stderr);
    assert_eq!(Away::arrived(&away.target), 5);
}

#[test]
fn what_one_session_has_given_up_costs_no_dataset_that_another_can_carry() {
    let away = Away::begin(1);
    away.proxy.refuse(Duration::from_secs(3600));
    let words = ["1 of 5 datasets were not copied: tank/t/", "no connection to "];
    away.copy.ended().failed_with(1, &words);
    assert_eq!(Away::arrived(&away.target), 4);
}

/// A host with tank/t, two datasets below it and one that is left out, whose `zfs snapshot` is
/// preceded by this, in the folder of its pools.
fn disturbed(script: &str) -> (StandIn, TempDir) {
    let (host, folder) = (StandIn::new(), tempfile::tempdir().unwrap());
    for dataset in ["tank/t", "tank/t/a", "tank/t/b", "tank/t/tmp"] {
        host.dataset(dataset, "filesystem");
        host.write(dataset, b"x");
    }
    let bin = host.bin();
    let lines = [
        "#!/bin/sh\n",
        &format!("cd {}/../pools\n", bin.display()),
        &format!("[ \"$1\" = snapshot ] && {{ {script}; }}\n"),
        &format!("exec {}/zfs \"$@\"\n", bin.display()),
    ];
    executable::script(&lines.concat(), &folder.path().join("zfs"));
    (host, folder)
}

fn copy_disturbed((host, folder): &(StandIn, TempDir)) -> Ended {
    let words = ["replicate", "-r", "--exclude-dataset", "tmp", "--cache", "64MiB"];
    let mut command: Command = zferry_on(host, &[&words[..], &["tank/t", "backup/t"]].concat());
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{}:{path}", folder.path().display(), host.bin().display()));
    Running::start(&mut command).ended()
}

fn snapshots_of(host: &StandIn) -> Vec<Vec<String>> {
    host.calls().into_iter().filter(|call| call[0] == "snapshot").collect()
}

#[test]
fn a_dataset_that_is_destroyed_before_its_snapshot_is_taken_costs_no_other() {
    let disturbed = disturbed("rm -rf tank/t/b");
    copy_disturbed(&disturbed).succeeded();
    let host = &disturbed.0;
    let taken = snapshots_of(host);
    assert_eq!(taken.len(), 2, "{taken:?}");
    assert!(taken[0][3].starts_with("tank/t/a@") && taken[0][4].starts_with("tank/t/b@"));
    assert_eq!(taken[1].len(), 4, "{taken:?}");
    for name in ["backup/t", "backup/t/a"] {
        assert_eq!(host.snapshots(name).len(), 1, "{name}");
    }
    assert!(!host.exists("backup/t/b") && !host.exists("backup/t/tmp"));
}

#[test]
fn a_tree_whose_datasets_come_and_go_all_the_time_is_not_called_a_wrong_name() {
    // Each time the one that is there goes, and another comes.
    let disturbed = disturbed("ls -d tank/t/b* | while read b; do mv $b ${b}x; done");
    let ended = copy_disturbed(&disturbed);
    let words = ["was destroyed each of the 3 times", "dataset does not exist", "run it again"];
    let ended = ended.failed_with(2, &words);
    assert!(!ended.stderr.contains("check the name"), "{}", ended.stderr);
    assert_eq!(snapshots_of(&disturbed.0).len(), 3);
    assert!(disturbed.0.snapshots("tank/t").is_empty());
}

#[test]
fn what_a_command_before_the_snapshot_destroys_is_none_of_the_tree() {
    let host = scheduled::Host::new("");
    for dataset in ["tank/a/b", "tank/a/gone", "tank/a/tmp"] {
        host.zfs.dataset(dataset, "filesystem");
        host.zfs.write(dataset, b"x");
    }
    let gone = host.zfs.bin().join("../pools/tank/a/gone");
    let words = format!(
        "every = \"1h\"\nrecursive = true\nparallel = 1\nexclude-dataset = [\"tmp\"]\n\
         pre-snapshot = [\"/bin/rm\", \"-r\", \"{}\"]\n",
        gone.display()
    );
    host.configure(&scheduled::job("a", &words));
    let scheduler = host.schedule();
    let ended = |job: &serde_json::Value| {
        job["last_success"].is_object() || job["failures_in_a_row"].as_u64() > Some(0)
    };
    let told = host.wait_for_status("a", ended);
    assert_eq!(told["failures_in_a_row"], 0, "{told}");
    scheduled::stopped(scheduler);
    assert_eq!((host.copies("a"), host.copies("a/b")), (1, 1));
    assert_eq!(snapshots_of(&host.zfs).len(), 1);
}
