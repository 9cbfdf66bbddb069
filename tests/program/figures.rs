//! `zferry serve --metrics`: what clients have sent is counted, by client, as the log tells it.
#![expect(clippy::float_cmp, reason = "counts, which Prometheus writes as numbers of any kind")]

use std::fs;
use std::process::Stdio;

use crate::support::host::{Running, wait_for};
use crate::support::scene::Scene;
use crate::support::stand_in::Failing;
use crate::support::web::{get, installed, listens_at, value};

fn scene() -> Scene {
    Scene::serving(&[], &["-v", "--metrics", "0"])
}

fn told(scene: &Scene) -> String {
    get(listens_at(&scene.server.running), "/metrics").body
}

/// What a figure of `laptop` is.
fn of_laptop(scene: &Scene, name: &str) -> f64 {
    value(&told(scene), &format!("zferry_{name}{{client=\"laptop\"}}"))
}

#[test]
fn what_is_received_refused_and_failed_is_counted_by_client() {
    let scene = scene();
    scene.replicate("a", &[]).ended().succeeded();
    scene.source.pools.snapshot("tank/a", "two", &vec![2; 100_000]);
    scene.replicate("a", &[]).ended().succeeded();
    // Nothing was granted of that.
    scene.replicate("a", &["--keep-target", "last=1"]).ended().failed_with(1, &[]);
    let failing = Failing { after_bytes: 50_000, status: "1", words: "no space" };
    scene.target.pools.fail_receive(&failing);
    scene.replicate("b", &[]).ended().failed_with(2, &[]);

    let is = |name: &str| of_laptop(&scene, name);
    assert_eq!((is("received_streams_total"), is("failures_total")), (2., 1.));
    assert_eq!((is("refusals_total"), is("destroyed_snapshots_total")), (1., 0.));
    assert!((300_000. ..700_000.).contains(&is("received_bytes_total")));
    let text = told(&scene);
    let at =
        "zferry_dataset_last_received_timestamp_seconds{client=\"laptop\",dataset=\"backup/in/a\"}";
    assert!(value(&text, at) > 1.7e9);
    assert!(!text.contains("backup/in/b"), "of that nothing whole has come");
    assert!(value(&text, "zferry_start_time_seconds") > 1.7e9);
}

#[test]
fn clients_that_are_there_are_counted_as_long_as_they_are() {
    let scene = scene();
    scene.slow_source();
    let copy = scene.replicate("a", &[]);
    let sessions = || value(&told(&scene), "zferry_sessions");
    wait_for("a session", || (sessions() == 1.).then_some(()));
    copy.signal("INT");
    copy.ended();
    wait_for("its end", || (sessions() == 0.).then_some(()));
}

#[test]
fn a_snapshot_that_a_client_has_destroyed_is_counted() {
    let granted = ["--allow", "receive-full,receive-incremental,prune", "--keep", "last=1"];
    let scene = Scene::serving(&granted, &["-v", "--metrics", "0"]);
    for second in 1..=3 {
        let name = format!("zferry_2020-01-01T00:00:0{second}Z");
        scene.source.pools.snapshot("tank/a", &name, b"x");
    }
    scene.replicate("a", &["--keep-target", "last=1"]).ended().succeeded();
    assert_eq!(of_laptop(&scene, "destroyed_snapshots_total"), 2.);
}

#[test]
fn promtool_finds_nothing_to_blame_and_the_page_lists_all_of_it() {
    let scene = scene();
    scene.replicate("a", &[]).ended().succeeded();
    let text = told(&scene);
    let mut promtool = installed("promtool", "prometheus");
    let mut checked = Running::start(promtool.args(["check", "metrics"]).stdin(Stdio::piped()));
    checked.feed(text.clone().into_bytes());
    let ended = checked.ended().succeeded();
    assert_eq!((ended.stderr.as_str(), ended.stdout.as_slice()), ("", [].as_slice()));
    let page = fs::read_to_string("docs/monitoring.md").unwrap();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let metric = line.split(' ').next().unwrap();
        assert!(page.contains(&format!("`{metric}`")), "docs/monitoring.md lacks {metric}");
    }
    let address = listens_at(&scene.server.running);
    assert!(get(address, "/").head.starts_with("http/1.0 404"));
    assert!(get(address, "/").body.contains("there are /metrics"));
}
