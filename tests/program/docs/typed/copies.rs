//! Each copy, between hosts that are made for it.

use super::{calls, dataset};
use crate::support::far::Far;
use crate::support::host::Running;
use crate::support::scene::Scene;
use crate::support::stand_in::StandIn;

/// A host with a source, one that ssh reaches, and one whose server knows the first.
struct Hosts {
    scene: Scene,
    far: Far,
}

impl Hosts {
    /// The pools of one end of a copy, and the dataset there.
    fn end(&self, end: &str) -> (&StandIn, String) {
        match (end.strip_prefix("zferry://"), end.split_once(':')) {
            (Some(rest), _) => {
                let (_host, dataset) = rest.split_once('/').unwrap();
                (&self.scene.target.pools, format!("backup/in/{dataset}"))
            }
            (None, Some((_host, dataset))) => (&self.far.host, dataset.to_owned()),
            (None, None) => (&self.scene.source.pools, end.to_owned()),
        }
    }

    /// That end by the address that its host has here.
    fn filled_in(&self, end: &str) -> String {
        match (end.strip_prefix("zferry://"), end.split_once(':')) {
            (Some(rest), _) => {
                let (_host, dataset) = rest.split_once('/').unwrap();
                format!("zferry://{}/{dataset}", self.scene.server.address)
            }
            (None, Some((_host, dataset))) => Far::name(dataset),
            (None, None) => end.to_owned(),
        }
    }
}

/// Source and target: what else is in these lines has no slash.
fn ends(copy: &[String]) -> Option<[&String; 2]> {
    copy.iter().filter(|word| word.contains('/')).collect::<Vec<_>>().try_into().ok()
}

/// Runs it on new hosts, and demands that it has done what it says.
fn make(copy: &[String]) {
    let hosts = Hosts { scene: Scene::new(&[]), far: Far::start() };
    let [from, to] = ends(copy).unwrap();
    let ((source, from), (target, to)) = (hosts.end(from), hosts.end(to));
    let has = |flag: &str| copy.iter().any(|word| word == flag);
    let below: &[&str] = if has("-r") { &["", "/home", "/tmp"] } else { &[""] };
    for child in below {
        dataset(source, &format!("{from}{child}"));
        for (snapshot, content) in [("l", b"last"), ("m", b"more")] {
            source.snapshot(&format!("{from}{child}"), snapshot, content);
        }
    }

    let before = source.snapshots(&from);
    let words: Vec<String> = copy.iter().map(|word| hosts.filled_in(word)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut command = hosts.scene.source.command(&words);
    if copy.iter().any(|word| word.contains(':') && !word.contains("//")) {
        command.args(hosts.far.ssh_flags()).args(["--far-command", &hosts.far.command()]);
    }
    let ended = Running::start(command.args(["--retry-for", "0"])).ended().succeeded();

    if has("-n") {
        let said = String::from_utf8(ended.stdout).unwrap();
        assert!(said.contains("zfs send") && said.contains("zfs receive"), "{said}");
        assert_eq!(source.snapshots(&from), before);
        assert!(!target.exists(&to));
        return;
    }
    assert_eq!(source.snapshots(&from) == before, has("--snapshot") || has("--no-snapshot"));
    for child in below {
        let (from, to) = (format!("{from}{child}"), format!("{to}{child}"));
        if has("--exclude-dataset") && *child == "/tmp" {
            assert!(!target.exists(&to));
            continue;
        }
        let arrived = target.snapshots(&to);
        let wanted = source.snapshots(&from);
        // By its name: what comes after it is not asked for, nor taken.
        let wanted = if has("--snapshot") { vec!["m".to_owned()] } else { wanted };
        assert!(wanted.iter().all(|name| arrived.contains(name)), "{wanted:?} of {arrived:?}");
        for name in arrived {
            let (ours, theirs) = (format!("{from}@{name}"), format!("{to}@{name}"));
            assert_eq!(source.content(&ours), target.content(&theirs), "{name}");
        }
    }
}

#[test]
fn every_copy_is_made() {
    let copies: Vec<_> = calls("replicate").into_iter().filter(|it| ends(it).is_some()).collect();
    for copy in &copies {
        println!("{}", copy.join(" "));
        make(copy);
    }
    assert!(copies.len() > 15, "{}", copies.len());
}
