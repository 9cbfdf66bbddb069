//! Snapshots that go and snapshots that stay, by the real binary on stand-in pools.
//!
//! `zferry prune` on its own host, and a client that wants a server to prune: what is decided is
//! tested beside the code; here it is done, refused and told. Names are of 2020, long before the
//! clock of any machine that runs this.

use std::net::SocketAddr;
use std::time::Duration;

use zferry::dataset::Guid;
use zferry::error::Class;
use zferry::protocol::message::Message;
use zferry::protocol::prune::Prune;
use zferry::retention::{Report, Template, Why};
use zferry::trust::OwnKey;
use zferry_chaos::{Ending, Plan, Proxy, Who};

use crate::support::host::{Ended, Running, Server, replicate, wait_for, zferry_on};
use crate::support::peer::{Peer, control_preamble};
use crate::support::scene::{Host, Scene};
use crate::support::secure::Secure;
use crate::support::stand_in::StandIn;

/// A snapshot of ours of each of the first days of 2020; its guid is its day.
fn days(host: &StandIn, dataset: &str, count: u64) {
    host.dataset(dataset, "filesystem");
    for day in 1..=count {
        host.snapshot_with_guid(dataset, &of_day(day), day, b"x");
    }
}

fn of_day(day: u64) -> String {
    format!("zferry_2020-01-{day:02}T00:00:00Z")
}

/// The days whose snapshots are there.
fn days_of(host: &StandIn, dataset: &str) -> Vec<u64> {
    let names = host.snapshots(dataset);
    (1..=31).filter(|day| names.contains(&of_day(*day))).collect()
}

fn prune(host: &StandIn, words: &[&str]) -> Ended {
    Running::start(&mut zferry_on(host, &[&["prune"], words].concat())).ended()
}

fn text(ended: &Ended) -> String {
    String::from_utf8(ended.stdout.clone()).unwrap()
}

/// The calls of `zfs destroy`.
fn destroys(host: &StandIn) -> Vec<Vec<String>> {
    host.calls().into_iter().filter(|call| call[0] == "destroy").collect()
}

#[test]
fn a_dry_run_shows_each_snapshot_and_touches_none() {
    let host = StandIn::new();
    days(&host, "tank/a", 5);
    host.snapshot("tank/a", "by-hand", b"x");
    host.hold(&format!("tank/a@{}", of_day(1)), "keep");
    let ended = prune(&host, &["tank/a", "--keep", "last=2,monthly=1", "-n"]).succeeded();
    let shown = text(&ended);
    let lines: Vec<Vec<&str>> =
        shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["SNAPSHOT", "CREATED", "VERDICT", "WHY"]);
    assert_eq!(lines[1], ["tank/a@by-hand", "2026-08-01T12:00:00Z", "keep", "not", "ours"]);
    for (line, day, rest) in [
        (2, 5, &["keep", "newest"][..]),
        (3, 4, &["keep", "last"]),
        (4, 3, &["destroy"]),
        (5, 2, &["destroy"]),
        (6, 1, &["keep", "held"]),
    ] {
        assert_eq!(lines[line][0], format!("tank/a@{}", of_day(day)));
        assert_eq!(lines[line][1], format!("2020-01-{day:02}T00:00:00Z"));
        assert_eq!(&lines[line][2..], rest, "{shown}");
    }
    assert!(shown.ends_with(
        "tank/a: 2 would be destroyed, 4 kept (1 not ours, 1 held, 1 newest, 1 last)\n"
    ));
    assert_eq!(host.snapshots("tank/a").len(), 6);
    assert_eq!(destroys(&host), [[""; 0]; 0]);
    assert!(host.calls().iter().all(|call| call[0] == "list"), "{:?}", host.calls());
}

#[test]
fn what_rules_do_not_keep_is_destroyed_by_name_and_everything_else_stays() {
    let host = StandIn::new();
    days(&host, "tank/a", 9);
    days(&host, "tank/a/child", 9);
    host.snapshot("tank/a", "autosnap_2020-01-03_00:00:00_daily", b"x");
    host.hold(&format!("tank/a@{}", of_day(2)), "keep");
    host.clone_of(&format!("tank/a@{}", of_day(3)), "tank/c");
    let ended = prune(&host, &["tank/a", "--keep", "daily=2"]).succeeded();
    assert_eq!(days_of(&host, "tank/a"), [2, 3, 8, 9]);
    assert!(host.exists("tank/a@autosnap_2020-01-03_00:00:00_daily"));
    assert_eq!(days_of(&host, "tank/a/child").len(), 9, "nobody asked for that");
    let names = [1, 4, 5, 6, 7].map(of_day).join(",");
    assert_eq!(destroys(&host), [["destroy", "--", &format!("tank/a@{names}")]]);
    let shown = text(&ended);
    assert_eq!(shown.matches("destroyed tank/a@zferry_").count(), 5);
    assert!(
        shown.ends_with(
            "tank/a: 5 destroyed, 5 kept (1 not ours, 1 held, 1 cloned, 1 newest, 1 daily)\n"
        ),
        "{shown}"
    );
    // Nothing is left to do.
    prune(&host, &["tank/a", "--keep", "daily=2"]).succeeded();
    assert_eq!(destroys(&host).len(), 1);
}

#[test]
fn one_that_is_in_use_stays_for_now_and_keeps_none_of_the_others() {
    let host = StandIn::new();
    days(&host, "tank/a", 9);
    host.is_busy(&format!("tank/a@{}", of_day(4)));
    let ended = prune(&host, &["tank/a", "--keep", "last=1"]).succeeded();
    assert_eq!(days_of(&host, "tank/a"), [4, 9]);
    let shown = text(&ended);
    let busy = of_day(4);
    assert!(shown.contains(&format!("left for now tank/a@{busy}: cannot destroy snapshot")));
    assert!(shown.contains("dataset is busy") && shown.contains("1 left for now"), "{shown}");
}

#[test]
fn many_are_destroyed_by_few_calls() {
    let host = StandIn::new();
    host.dataset("tank/a", "filesystem");
    for number in 0..270 {
        let (hour, minute) = (number / 60, number % 60);
        let name = format!("zferry_2020-01-01T{hour:02}:{minute:02}:00Z");
        host.snapshot("tank/a", &name, b"x");
    }
    prune(&host, &["tank/a", "--keep", "last=10"]).succeeded();
    assert_eq!(host.snapshots("tank/a").len(), 10);
    assert_eq!(destroys(&host).len(), 2);
}

#[test]
fn a_tree_of_which_a_part_cannot_be_pruned_is_pruned_in_part() {
    let host = StandIn::new();
    for dataset in ["tank/a", "tank/a/b", "tank/a/c"] {
        days(&host, dataset, 4);
    }
    host.may_not_be_destroyed("tank/a/b");
    let ended = prune(&host, &["tank/a", "-r", "--keep", "last=1"]);
    let ended = ended.failed_with(1, &["permission denied", "tank/a/b@zferry_"]);
    assert_eq!(days_of(&host, "tank/a"), [4]);
    assert_eq!(days_of(&host, "tank/a/b"), [1, 2, 3, 4]);
    assert_eq!(days_of(&host, "tank/a/c"), [4]);
    assert!(text(&ended).contains("tank/a/b: 0 destroyed, 1 kept"));
    host.may_not_be_destroyed("tank/a");
    days(&host, "tank/a", 4);
    prune(&host, &["tank/a", "--keep", "last=1"]).failed_with(2, &["see what zfs allow grants"]);
    prune(&host, &["tank/none", "--keep", "last=1"]).failed_with(2, &["dataset does not exist"]);
}

#[test]
fn json_says_the_same_for_programs() {
    let host = StandIn::new();
    days(&host, "tank/a", 3);
    let ended = prune(&host, &["tank/a", "--keep", "last=1", "--json"]).succeeded();
    let json: serde_json::Value = serde_json::from_str(&text(&ended)).unwrap();
    assert_eq!((&json["dataset"], &json["destroyed"]), (&"tank/a".into(), &2.into()));
    assert_eq!((&json["keep"], &json["kept"]["newest"]), (&"last=1".into(), &1.into()));
    let first = &json["snapshots"][0];
    assert_eq!((&first["guid"], &first["verdict"]), (&"1".into(), &"destroy".into()));
    assert_eq!(json["snapshots"][2]["why"], "newest");
    assert_eq!(json["failure"], serde_json::Value::Null);
}

#[test]
fn rules_and_templates_that_mean_nothing_are_mistakes_of_whoever_typed_them() {
    let host = StandIn::new();
    for (words, said) in [
        (&["tank/a"][..], "--keep <RULES>"),
        (&["tank/a", "--keep", "monthy=3"], "expected last, hourly, daily"),
        (&["tank/a", "--keep", "daily=0"], "keep nothing at all"),
        (&["tank/a", "--keep", "daily=1", "--template", "%Y-%m-%d"], "to the second"),
        (&["tank;a", "--keep", "daily=1"], "has the character ';'"),
    ] {
        prune(&host, words).failed_with(3, &[said]);
    }
    assert_eq!(host.calls(), [[""; 0]; 0]);
}

/// Both have days 1 to 3, and the source the fourth besides.
fn to_be_pruned() -> StandIn {
    let host = StandIn::new();
    days(&host, "tank/a", 4);
    days(&host, "backup/a", 3);
    host
}

const KEEP_BOTH: [&str; 5] = ["--no-snapshot", "--keep", "last=1", "--keep-target", "last=2"];

#[test]
fn a_copy_that_went_well_and_cannot_be_pruned_is_done_in_part() {
    for (dataset, side) in [("tank/a", "source"), ("backup/a", "target")] {
        let host = to_be_pruned();
        host.may_not_be_destroyed(dataset);
        let ended = replicate(&host, "tank/a", "backup/a", &KEEP_BOTH).ended();
        let copied = format!("{side}: tank/a@{} is copied, but pruning failed: ", of_day(4));
        let words = [&*copied, "permission denied", "to mend it: see what zfs allow grants"];
        let ended = ended.failed_with(1, &words);
        let told = text(&ended);
        assert!(told.contains(&format!("tank/a@{} -> backup/a, 1 stream", of_day(4))), "{told}");
        // The other side is pruned all the same.
        let (ours, theirs) = (days_of(&host, "tank/a"), days_of(&host, "backup/a"));
        let expected: (&[u64], &[u64]) =
            if side == "source" { (&[1, 2, 3, 4], &[3, 4]) } else { (&[4], &[1, 2, 3, 4]) };
        assert_eq!((&ours[..], &theirs[..]), expected);
        // It is so until it is mended, also where nothing is left to copy.
        let again = replicate(&host, "tank/a", "backup/a", &KEEP_BOTH).ended();
        again.failed_with(1, &[&copied]);
    }
}

#[test]
fn a_pruning_that_failed_on_both_sides_is_told_of_both() {
    let host = to_be_pruned();
    host.may_not_be_destroyed("tank/a");
    host.may_not_be_destroyed("backup/a");
    let flags = [&KEEP_BOTH[..], &["--json"]].concat();
    let ended = replicate(&host, "tank/a", "backup/a", &flags).ended();
    let ended = ended.failed_with(1, &["source: tank/a@", "; at the target: "]);
    let events: Vec<serde_json::Value> =
        text(&ended).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [.., copied, failed] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&copied["event"], &copied["streams"]), (&"copied".into(), &1.into()));
    let sides: Vec<_> =
        copied["unpruned"].as_array().unwrap().iter().map(|it| it["side"].clone()).collect();
    assert_eq!(sides, ["source", "target"]);
    assert_eq!((&failed["event"], &failed["class"]), (&"failed".into(), &"partly".into()));
}

#[test]
fn a_server_that_does_not_prune_has_copied_all_the_same() {
    let (source, target) = (StandIn::new(), StandIn::new());
    days(&source, "tank/a", 2);
    let server = Server::serve(&target, &[]);
    let flags = ["--no-snapshot", "--keep-target", "last=1"];
    let ended = replicate(&source, "tank/a", &server.url("a"), &flags).ended();
    ended
        .failed_with(1, &["target: tank/a@", "is copied, but pruning failed", "prunes for nobody"]);
    assert_eq!(days_of(&target, "backup/a"), [1, 2]);
}

#[test]
fn a_pruning_whose_connection_is_lost_is_tried_again() {
    let granted = ["--allow", "receive-incremental,prune", "--keep", "last=1"];
    let scene = Scene::new(&granted);
    days(&scene.source.pools, "tank/b", 4);
    days(&scene.target.pools, "backup/in/b", 3);
    let proxy = Proxy::start(scene.server.address, &Plan::none()).unwrap();
    scene.source.trusts(proxy.address(), &scene.target.key());
    scene.target.pools.pause_before("destroy", Duration::from_secs(3));
    let to = format!("zferry://{}/b", proxy.address());
    let words = ["replicate", "tank/b", &to, "--no-snapshot", "--keep-target", "last=1"];
    let copy = Running::start(&mut scene.source.command(&words));
    let is_asked = || scene.target.pools.calls().iter().any(|call| call[0] == "destroy");
    wait_for("the pruning", || is_asked().then_some(()));
    proxy.cut(Who::Any, Ending::Rst);
    let said = copy.ended().succeeded().stderr;
    assert!(said.contains("tried again"), "{said}");
    assert_eq!(days_of(&scene.target.pools, "backup/in/b"), [4]);
    // Before the copy, and once more where time has gone by since it ended.
    let asks = |call: &Vec<String>| call.iter().any(|word| word.contains("receive_resume_token"));
    let lists =
        scene.target.pools.calls().into_iter().filter(|call| call[0] == "list" && asks(call));
    assert_eq!(lists.count(), 2);
}

#[test]
fn one_in_use_after_a_copy_stays_for_now_and_the_copy_is_done() {
    let host = to_be_pruned();
    host.is_busy(&format!("tank/a@{}", of_day(2)));
    replicate(&host, "tank/a", "backup/a", &KEEP_BOTH).ended().succeeded();
    assert_eq!(days_of(&host, "tank/a"), [2, 4]);
}

/// A hand-made client of a server with keys.
fn laptop(scene: &Scene) -> Peer {
    let key = OwnKey::load(&scene.source.folder.path().join("key.pem")).unwrap();
    let address: SocketAddr = scene.server.address;
    let mut control = Secure::connect(address, &key);
    std::io::Write::write_all(&mut control, &control_preamble()).unwrap();
    Peer::greet_over(Box::new(control), address)
}

/// Asks for a pruning of a dataset, whose newest common snapshot has this guid.
fn ask(peer: &mut Peer, dataset: &str, keep: &str, common: u64) -> Report {
    ask_for(
        peer,
        Prune {
            dataset: dataset.parse().unwrap(),
            keep: keep.parse().unwrap(),
            template: Template::default(),
            newest_common: Guid(common),
            dry_run: false,
        },
    )
}

fn ask_for(peer: &mut Peer, prune: Prune) -> Report {
    peer.say(&Message::Prune(prune));
    match peer.hear() {
        Some(Message::Pruned(report)) => report,
        other => panic!("no report: {other:?}"),
    }
}

/// That the session goes on.
fn still_talks(peer: &mut Peer) {
    peer.say(&Message::List { dataset: "a".parse().unwrap() });
    assert!(matches!(peer.hear(), Some(Message::Listed { .. })));
}

/// A server that lets laptop prune down to three days, with ten days of `a`.
fn pruning() -> Scene {
    let scene = Scene::new(&["--allow", "receive-incremental,prune", "--keep", "daily=3"]);
    days(&scene.target.pools, "backup/in/a", 10);
    scene
}

#[test]
fn a_client_prunes_by_its_own_rules_and_never_below_the_floor_of_the_server() {
    let scene = pruning();
    let mut peer = laptop(&scene);
    let report = ask(&mut peer, "a", "daily=5", 10);
    assert_eq!((report.count, report.failure), (5, None));
    assert_eq!(report.destroyed[0].as_str(), of_day(1));
    assert_eq!(days_of(&scene.target.pools, "backup/in/a"), [6, 7, 8, 9, 10]);
    // In the same session, and less than the server keeps.
    let report = ask(&mut peer, "a", "last=1", 10);
    assert_eq!(report.count, 2);
    assert_eq!(report.kept[&Why::Floor], 2);
    assert_eq!(report.kept[&Why::NewestCommon], 1);
    assert_eq!(days_of(&scene.target.pools, "backup/in/a"), [8, 9, 10]);
    still_talks(&mut peer);
}

#[test]
fn what_the_client_does_not_hold_itself_is_not_pruned_for_it() {
    let scene = pruning();
    let mut peer = laptop(&scene);
    // A guid that is not there: nobody has confirmed anything.
    let report = ask(&mut peer, "a", "last=1", 77);
    assert_eq!((report.count, report.kept[&Why::NotConfirmed]), (0, 9));
    // Older than what is there: what is newer than that stays.
    let report = ask(&mut peer, "a", "last=1", 4);
    assert_eq!(report.count, 3);
    assert_eq!(days_of(&scene.target.pools, "backup/in/a"), [4, 5, 6, 7, 8, 9, 10]);
}

#[test]
fn a_client_names_no_other_tools_snapshots_by_its_template() {
    let scene = pruning();
    let of_tool = |day: u64| format!("autosnap_2020-02-{day:02}_00:00:00_daily");
    for day in 1..=6 {
        scene.target.pools.snapshot_with_guid("backup/in/a", &of_tool(day), 100 + day, b"x");
    }
    let prune = Prune {
        dataset: "a".parse().unwrap(),
        keep: "last=1".parse().unwrap(),
        template: "autosnap_%Y-%m-%d_%H:%M:%S_daily".parse().unwrap(),
        newest_common: Guid(106),
        dry_run: false,
    };
    let report = ask_for(&mut laptop(&scene), prune);
    assert_eq!((report.count, report.kept[&Why::NotOurs]), (0, 16));
    assert_eq!(scene.target.pools.snapshots("backup/in/a").len(), 16);
}

#[test]
fn a_dry_run_of_a_client_says_what_would_go() {
    let scene = pruning();
    let prune = Prune {
        dataset: "a".parse().unwrap(),
        keep: "last=1".parse().unwrap(),
        template: Template::default(),
        newest_common: Guid(10),
        dry_run: true,
    };
    let report = ask_for(&mut laptop(&scene), prune);
    assert_eq!((report.count, report.destroyed.len()), (7, 7));
    assert_eq!(days_of(&scene.target.pools, "backup/in/a").len(), 10);
    assert_eq!(destroys(&scene.target.pools), [[""; 0]; 0]);
}

#[test]
fn without_the_word_nothing_is_pruned_and_the_session_goes_on() {
    let scene = Scene::new(&["--keep", "daily=3"]);
    days(&scene.target.pools, "backup/in/a", 10);
    let mut peer = laptop(&scene);
    let refused = ask(&mut peer, "a", "last=1", 10).failure.unwrap();
    assert!(
        refused.what.starts_with("client laptop may not have pruned the snapshots of a: prune is"),
        "{refused}"
    );
    assert!(refused.remedy.unwrap().contains("\"prune\""));
    still_talks(&mut peer);
    let refused = ask(&mut peer, "none", "last=1", 10).failure.unwrap();
    assert!(refused.what.contains("may not have pruned"), "it learns nothing of what is there");
    assert_eq!(days_of(&scene.target.pools, "backup/in/a").len(), 10);
}

#[test]
fn the_word_alone_is_no_grant_and_the_root_must_be_the_one_that_was_granted() {
    let scene = pruning();
    let key = scene.source.key();
    let words =
        ["keys", "trust", "client", "b", &key, "--root", "backup/other", "--allow", "prune"];
    // Of a host that knows nobody yet.
    let fresh = Host::new();
    fresh.run(&words).failed_with(3, &["without a word of what stays there", "add keep ="]);
    scene.target.pools.becomes_another("backup/in");
    let refused = ask(&mut laptop(&scene), "a", "last=1", 10).failure.unwrap();
    assert!(refused.what.contains("backup/in has guid 7919"), "{refused}");
    assert_eq!(days_of(&scene.target.pools, "backup/in/a").len(), 10);
}

#[test]
fn each_pruning_leaves_a_line_of_what_was_destroyed() {
    let scene = pruning();
    let mut peer = laptop(&scene);
    ask(&mut peer, "a", "daily=5", 10);
    ask(&mut peer, "b", "daily=5", 10);
    let lines = || -> Vec<String> {
        let said = scene.server.running.said();
        said.lines().filter(|line| line.contains("audit: ")).map(str::to_owned).collect()
    };
    wait_for("both lines", || (lines().len() == 2).then_some(()));
    let lines = lines();
    for words in ["audit: pruned", "client=\"laptop (", "wish=\"prune\"", "destroyed=5"] {
        assert!(lines[0].contains(words), "{words} is not in: {}", lines[0]);
    }
    assert!(lines[0].contains("dataset=\"backup/in/a\""), "{}", lines[0]);
    assert!(lines[1].contains("audit: refused") && lines[1].contains("does not exist"));
}

#[test]
fn a_pruning_whose_client_is_gone_is_finished_and_written_down() {
    let scene = pruning();
    let mut peer = laptop(&scene);
    scene.target.pools.pause_before("destroy", Duration::from_secs(1));
    peer.say(&Message::Prune(Prune {
        dataset: "a".parse().unwrap(),
        keep: "last=1".parse().unwrap(),
        template: Template::default(),
        newest_common: Guid(10),
        dry_run: false,
    }));
    let pools = &scene.target.pools;
    wait_for("a call", || (!destroys(pools).is_empty()).then_some(()));
    // Nobody else prunes or receives meanwhile.
    let busy = ask(&mut laptop(&scene), "a", "last=1", 10).failure.unwrap();
    assert_eq!(busy.class, Class::Busy, "{busy}");
    drop(peer);
    wait_for("its end", || (days_of(pools, "backup/in/a") == [8, 9, 10]).then_some(()));
    let line = || {
        let said = scene.server.running.said();
        said.lines().find(|line| line.contains("destroyed=7")).map(str::to_owned)
    };
    let line = wait_for("a line", line);
    assert!(line.contains("dataset=\"backup/in/a\""), "{line}");
}

#[test]
fn a_server_that_lets_everybody_in_prunes_for_nobody() {
    let host = StandIn::new();
    days(&host, "backup/a", 4);
    let server = Server::serve(&host, &[]);
    let mut peer = Peer::greet(server.address);
    let refused = ask(&mut peer, "a", "last=1", 4).failure.unwrap();
    assert!(refused.what.contains("prunes for nobody"), "{refused}");
    still_talks(&mut peer);
    assert_eq!(days_of(&host, "backup/a").len(), 4);
}
