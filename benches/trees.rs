//! Trees of 10,000 datasets with 100 snapshots each: what it costs to know what both sides hold,
//! before anything is planned.
//!
//! `cargo bench --bench trees`. The listing comes from a script that stands for `zfs`, so what
//! `zfs` itself takes is not in it. Says at the end how much memory was in use at most, with the
//! trees of both sides at once.

use std::fs::{self, Permissions};
use std::hint::black_box;
use std::os::unix::fs::PermissionsExt;

use criterion::{Criterion, criterion_group, criterion_main};
use tempfile::TempDir;
use zferry::dataset::DatasetName;
use zferry::listing::TargetTree;
use zferry::protocol::envelope::{Decoder, encode};
use zferry::protocol::frame::Codec;
use zferry::protocol::message::{Hello, Limits};
use zferry::protocol::receiver::{self, Offer, Receiver};
use zferry::protocol::secret::JoinSecret;
use zferry::protocol::sender::{self, Sender};
use zferry::protocol::version::{Version, Versions};
use zferry::units::Bytes;
use zferry::zfs::Zfs;

const DATASETS: usize = 10_000;
const SNAPSHOTS: usize = 100;

/// A host whose `zfs` prints one listing.
struct Host(TempDir);

impl Host {
    fn new(columns: &str) -> Host {
        let host = Host(tempfile::tempdir().unwrap());
        let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\n\
                      case \"$*\" in *snapshot*) exec cat points ;; *) exec cat heads ;; esac\n";
        let program = host.0.path().join("zfs");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        let name = |number: usize| match number {
            0 => "tank/home".to_owned(),
            _ => format!("tank/home/group-{}/user-{number:05}", number / 100),
        };
        let head = |number| format!("{}\tfilesystem\t{number}\toff\t{columns}\n", name(number));
        fs::write(host.0.path().join("heads"), (0..DATASETS).map(head).collect::<String>())
            .unwrap();
        // As `zfs` prints them in the order of their making: all datasets, hour by hour.
        let hours = (0..SNAPSHOTS).flat_map(|hour| (0..DATASETS).map(move |number| (hour, number)));
        let point = |(hour, number)| {
            let guid = u64::MAX - (hour * DATASETS + number) as u64;
            let day = hour / 24;
            format!(
                "{}@autosnap_2026-11-{day:02}_{hour:02}:00:00_hourly\t{guid}\t{hour}\n",
                name(number)
            )
        };
        fs::write(host.0.path().join("points"), hours.map(point).collect::<String>()).unwrap();
        host
    }

    fn zfs(&self) -> Zfs {
        Zfs::at(self.0.path().join("zfs"))
    }
}

fn root() -> DatasetName {
    "tank/home".parse().unwrap()
}

fn limits() -> Limits {
    Limits { block_bytes_max: Bytes(1 << 20), connections: 1, codecs: [Codec::Raw].into() }
}

/// Both machines, and the bytes between them.
fn travels(tree: TargetTree) -> TargetTree {
    let mut to_server = Vec::new();
    let hello = Hello { software: String::new(), limits: limits() };
    let mut client = Sender::start(Versions::OURS, hello, &mut to_server);
    let mut server = Receiver::new(Offer {
        software: String::new(),
        version: Version::V1,
        limits: limits(),
        secret: JoinSecret::new([0; 16]),
    });
    let mut found = Some(tree);
    let mut decoder = Decoder::default();
    loop {
        let mut to_client = Vec::new();
        for output in std::mem::take(&mut to_server) {
            let news = match output {
                sender::Output::Send(message) => receiver::Input::Received(message),
                sender::Output::TreeListed(tree) => return tree,
                _ => continue,
            };
            server = server.handle(news, &mut to_client).unwrap();
        }
        if let Some(receiver::Output::LookUpTree(_)) = to_client.last() {
            let found = receiver::Input::FoundTree(found.take().unwrap());
            server = server.handle(found, &mut to_client).unwrap();
        }
        for output in to_client {
            let receiver::Output::Send(message) = output else { continue };
            let bytes = encode(&message);
            drop(message);
            let heard = decoder.take(&mut &bytes[..]).unwrap().unwrap();
            client = client.handle(sender::Input::Received(heard), &mut to_server).unwrap();
        }
        if client.is_idle() && found.is_some() {
            let name = "home".parse().unwrap();
            client = client.handle(sender::Input::ListTree(name), &mut to_server).unwrap();
        }
    }
}

/// What this process had in use at most.
fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

fn trees(c: &mut Criterion) {
    let (source, target) = (Host::new("-\t-"), Host::new("-"));
    let both = || {
        let source = source.zfs().source_tree(&root()).unwrap();
        let target = target.zfs().target_tree(&root()).unwrap();
        assert_eq!((source.len(), target.len()), (DATASETS, DATASETS));
        (source, target)
    };
    let mut group = c.benchmark_group("trees of 1,000,000 snapshots");
    drop(both());
    println!("both sides within one process: {} MiB at most", peak_mib());
    group.bench_function("both sides read", |b| b.iter(|| black_box(both())));
    let datasets = target.zfs().target_tree(&root()).unwrap();
    let tree = TargetTree { root: root(), datasets };
    group.bench_function("told by a server and heard by a client", |b| {
        b.iter_batched(|| tree.clone(), travels, criterion::BatchSize::PerIteration);
    });
    group.finish();
    assert_eq!(travels(tree.clone()), tree);
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = trees
}
criterion_main!(benches);
