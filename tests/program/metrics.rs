//! `zferry schedule --metrics`: what is told by HTTP, to Prometheus and a browser that are the real
//! ones, and to whoever means no good.
//!
//! `promtool` and `prometheus` come from Debian's package `prometheus`, the browser from
//! `chromium`; both are stopped at the end of their test.
#![expect(clippy::float_cmp, reason = "counts, which Prometheus writes as numbers of any kind")]

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::host::{Running, free_address, wait_for, wait_for_words};
use crate::support::scheduled::{Host, content, job, stopped};
use crate::support::stand_in::Failing;
use crate::support::web::{Answer, asked, get, installed, listens_at, value};

/// A scheduler whose jobs have run: `a` well, `c` not, and `b` is on its way.
struct Scene {
    host: Host,
    scheduler: Running,
    address: SocketAddr,
}

const HOURLY: &str = "every = \"1h\"\n";

/// Of which `b` runs so.
fn jobs(of_b: &str) -> String {
    let small = "block-size = \"64KiB\"\n";
    let of_a = [HOURLY, small, "written = \"1TiB\"\ncheck = \"1s\"\n"].concat();
    job("a", &of_a) + &job("b", &[of_b, small].concat()) + &job("c", HOURLY)
}

impl Scene {
    fn new() -> Scene {
        let host = Host::new(&jobs(HOURLY));
        let scheduler = host.schedule_with(&["--metrics", "0"]);
        let address = listens_at(&scheduler);
        host.wait_for_status("b", |job| job["last_success"].is_object());
        host.wait_for_status("c", |job| job["failures_in_a_row"] == 1);
        host.wait_for_status("a", |job| job["written_bytes"].is_u64());
        Scene { host, scheduler, address }
    }

    fn get(&self, path: &str) -> Answer {
        get(self.address, path)
    }

    /// Has `b` be copied again, slowly.
    fn with_a_slow_copy(self) -> Scene {
        self.host.zfs.write("tank/b", &content(7));
        self.host.zfs.slow_send(8 << 10, Duration::from_millis(500));
        self.host.configure(&jobs("every = \"1s\"\n"));
        self.scheduler.signal("HUP");
        let moves = |job: &Value| job["transfers"][0]["read"].as_u64() > Some(0);
        self.host.wait_for_status("b", moves);
        self
    }
}

#[test]
fn what_prometheus_is_told_is_what_the_board_says() {
    let scene = Scene::new().with_a_slow_copy();
    let answer = scene.get("/metrics");
    assert!(answer.head.starts_with("http/1.0 200"), "{}", answer.head);
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    let status = scene.host.status();
    let of = |name: &str| scene.host.status_of(name);
    let is = |sample: &str| value(&answer.body, sample);
    assert_eq!(is("zferry_runs_total{name=\"a\"}"), 1.);
    assert_eq!(is("zferry_failed_runs_total{name=\"a\"}"), 0.);
    assert_eq!(is("zferry_failed_runs_total{name=\"c\"}"), 1.);
    assert_eq!(is("zferry_job_failures_in_a_row{name=\"c\"}"), 1.);
    assert_eq!(
        (is("zferry_job_running{name=\"a\"}"), is("zferry_job_running{name=\"b\"}")),
        (0., 1.)
    );
    let bytes = of("a")["totals"]["bytes"].as_f64().unwrap();
    assert_eq!(is("zferry_stream_bytes_total{name=\"a\"}"), bytes);
    assert!(is("zferry_wire_bytes_total{name=\"a\"}") >= bytes, "framed, and not packed");
    let success: jiff::Timestamp = of("a")["last_success"]["at"].as_str().unwrap().parse().unwrap();
    let told = is("zferry_job_last_success_timestamp_seconds{name=\"a\"}");
    assert!((told - success.as_duration().as_secs_f64()).abs() < 0.01, "{told} {success}");
    assert!(is("zferry_job_lag_seconds{name=\"a\"}") < 60.);
    assert!(!answer.body.contains("zferry_job_lag_seconds{name=\"c\"}"), "it never succeeded");
    let dataset = "zferry_dataset_last_success_timestamp_seconds{name=\"a\",dataset=\"tank/a\"}";
    assert!(is(dataset) > 1.7e9);
    assert_eq!(is("zferry_resumes_total{name=\"a\",layer=\"token\"}"), 0.);
    assert_eq!(is("zferry_bottleneck{name=\"b\",part=\"wire\"}"), 0.);
    assert!(is("zferry_transfer_read_bytes{name=\"b\"}") > 0.);
    let estimated = of("b")["transfers"][0]["estimated"].as_f64().unwrap_or_default();
    assert_eq!(is("zferry_transfer_estimated_bytes{name=\"b\"}"), estimated);
    let version = status["scheduler"]["version"].as_str().unwrap();
    assert_eq!(is(&format!("zferry_build_info{{version=\"{version}\"}}")), 1.);
    let json: Value = serde_json::from_str(&scene.get("/status.json").body).unwrap();
    assert_eq!(json["scheduler"], status["scheduler"]);
}

#[test]
fn a_cut_that_is_survived_is_counted_by_the_layer_that_survived_it() {
    let scene = Scene::new();
    let failing = Failing { after_bytes: 200_000, status: "KILL", words: "" };
    scene.host.zfs.write("tank/a", &content(9));
    scene.host.zfs.fail_receive(&failing);
    scene.host.configure(&job("a", "every = \"1s\"\nretry-for = \"1m\""));
    scene.scheduler.signal("HUP");
    scene.host.wait_for_status("a", |job| job["totals"]["resumes"]["token"] == 1);
    let text = scene.get("/metrics").body;
    assert_eq!(value(&text, "zferry_resumes_total{name=\"a\",layer=\"token\"}"), 1.);
    assert_eq!(value(&text, "zferry_cuts_survived_total{name=\"a\"}"), 1.);
    // The dataset may have been busy for a moment besides.
    assert!(value(&text, "zferry_retries_total{name=\"a\"}") >= 1.);
    stopped(scene.scheduler);
}

#[test]
fn promtool_finds_nothing_to_blame() {
    let scene = Scene::new().with_a_slow_copy();
    let text = scene.get("/metrics").body;
    let mut promtool = installed("promtool", "prometheus");
    let mut checked = Running::start(promtool.args(["check", "metrics"]).stdin(Stdio::piped()));
    checked.feed(text.into_bytes());
    let ended = checked.ended().succeeded();
    assert_eq!((ended.stderr.as_str(), ended.stdout.as_slice()), ("", [].as_slice()));
}

#[test]
fn prometheus_scrapes_it_and_gives_it_back_and_understands_the_dashboard() {
    let scene = Scene::new();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("prometheus.yml");
    let scrape = format!(
        "scrape_configs:\n- job_name: zferry\n  scrape_interval: 1s\n  static_configs:\n  \
         - targets: ['{}']\n",
        scene.address
    );
    fs::write(&config, scrape).unwrap();
    let address = free_address();
    let mut prometheus = installed("prometheus", "prometheus");
    prometheus.arg(format!("--config.file={}", config.display()));
    prometheus.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
    prometheus.arg(format!("--web.listen-address={address}"));
    let prometheus = Running::start(&mut prometheus);
    let query = |expression: &str| -> Option<Value> {
        TcpStream::connect(address).ok()?;
        let answer = get(address, &format!("/api/v1/query?query={}", escaped(expression)));
        let answer: Value = serde_json::from_str(&answer.body).ok()?;
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        Some(answer["data"]["result"].clone())
    };
    let scraped = wait_for("a scrape", || {
        query("zferry_runs_total{name=\"a\"}").filter(|found| found[0].is_object())
    });
    assert_eq!(scraped[0]["value"][1], "1", "{scraped}");
    let labels = &scraped[0]["metric"];
    assert_eq!((&labels["job"], &labels["name"]), (&"zferry".into(), &"a".into()), "{scraped}");
    assert!(labels["exported_job"].is_null());
    let lag = query("time() - zferry_job_last_success_timestamp_seconds").unwrap();
    let lag: f64 = lag[0]["value"][1].as_str().unwrap().parse().unwrap();
    assert!((0. ..60.).contains(&lag), "{lag}");
    for expression in expressions(&dashboard()) {
        let expression = expression.replace("$__rate_interval", "1m").replace("$name", ".*");
        assert!(query(&expression).is_some(), "{expression}");
    }
    prometheus.signal("TERM");
    prometheus.ended();
}

#[test]
fn the_dashboard_has_what_grafana_asks_for_and_every_metric_in_it_exists() {
    let dashboard = dashboard();
    for (field, is_fine) in [
        ("title", dashboard["title"].is_string()),
        ("uid", dashboard["uid"].is_string()),
        ("schemaVersion", dashboard["schemaVersion"].as_u64() >= Some(36)),
        ("time", dashboard["time"]["from"].is_string() && dashboard["time"]["to"].is_string()),
        ("id", dashboard["id"].is_null()),
    ] {
        assert!(is_fine, "{field}");
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let named: Vec<_> = variables.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(named, ["datasource", "name"]);
    let panels = dashboard["panels"].as_array().unwrap();
    let mut places = Vec::new();
    for (panel, others) in panels.iter().zip((0..).map(|count| &panels[..count])) {
        assert!(others.iter().all(|other| other["id"] != panel["id"]), "{panel}");
        assert!(panel["type"].is_string() && panel["title"].is_string(), "{panel}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        let [x, y, w, h] = ["x", "y", "w", "h"].map(side);
        assert!(w > 0 && h > 0 && x + w <= 24, "{panel}");
        for &(x2, y2, w2, h2) in &places {
            let apart = x + w <= x2 || x2 + w2 <= x || y + h <= y2 || y2 + h2 <= y;
            assert!(apart, "{panel} covers another");
        }
        places.push((x, y, w, h));
    }
    let scene = Scene::new().with_a_slow_copy();
    let text = scene.get("/metrics").body;
    let expressions = expressions(&dashboard);
    assert!(expressions.len() >= 8);
    let mut named = 0;
    for expression in &expressions {
        for metric in expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            if metric.starts_with("zferry_") {
                named += 1;
                assert!(text.contains(&format!("# TYPE {metric} ")), "{metric} of {expression}");
            }
        }
    }
    assert!(named >= expressions.len());
    // And the page that lists them lists all.
    let page = fs::read_to_string("docs/monitoring.md").unwrap();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let metric = line.split(' ').next().unwrap();
        assert!(page.contains(&format!("`{metric}`")), "docs/monitoring.md lacks {metric}");
    }
}

fn dashboard() -> Value {
    serde_json::from_str(&fs::read_to_string("docs/grafana.json").unwrap()).unwrap()
}

/// All that a dashboard asks Prometheus for.
fn expressions(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_browser_draws_the_page_with_each_job_and_the_plot() {
    let scene = Scene::new().with_a_slow_copy();
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("page.png");
    let dom = browsed(scene.address, folder.path(), &["--dump-dom"]);
    let rows: Vec<&str> = dom.split("<tr").filter(|row| row.contains("<strong>")).collect();
    assert_eq!(rows.len(), 3, "{dom}");
    for (row, words) in rows.iter().zip([
        ["<strong>a</strong>", "tank/a \u{2192} backup/a", "idle"],
        ["<strong>b</strong>", "<progress max=", "running"],
        ["<strong>c</strong>", "dataset does not exist", "waiting to retry"],
    ]) {
        assert!(words.iter().all(|word| row.contains(word)), "{words:?}: {row}");
    }
    let plot = dom.split("<figure id=\"ten-minutes\">").nth(1).expect("the plot");
    let plot = plot.split("</figure>").next().unwrap();
    assert!(
        plot.starts_with("<svg ") && plot.contains("<polyline ") && plot.contains("MiB/s")
            || plot.contains("KiB/s"),
        "{plot}"
    );
    assert!(!dom.contains("<script"));
    let flag = format!("--screenshot={}", picture.display());
    browsed(scene.address, folder.path(), &[&flag, "--window-size=1200,1000"]);
    let picture = fs::read(picture).unwrap();
    assert!(picture.starts_with(b"\x89PNG") && picture.len() > 10_000, "{}", picture.len());
    if let Some(kept) = std::env::var_os("ZFERRY_KEEP_PICTURE") {
        fs::write(kept, picture).unwrap();
    }
}

/// What the browser says on stdout; it must have obeyed every rule of the page.
fn browsed(address: SocketAddr, folder: &Path, flags: &[&str]) -> String {
    let mut browser = installed("chromium", "chromium");
    // Root has no sandbox, and a container perhaps no large /dev/shm.
    browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
    browser.args(["--enable-logging=stderr", "--no-first-run", "--disable-background-networking"]);
    browser.arg(format!("--user-data-dir={}", folder.join("browser").display()));
    browser.args(flags).arg(format!("http://{address}/"));
    let ended = Running::start(&mut browser).ended().succeeded();
    for words in ["Content Security Policy", "Refused to"] {
        assert!(!ended.stderr.contains(words), "{}", ended.stderr);
    }
    String::from_utf8(ended.stdout).unwrap()
}

#[test]
fn a_page_lets_nothing_in_from_elsewhere_and_only_what_is_asked_nicely_is_answered() {
    let scene = Scene::new();
    for path in ["/", "/metrics", "/status.json", "/style.css", "/nothing"] {
        let answer = scene.get(path);
        let code = if path == "/nothing" { "404" } else { "200" };
        assert!(answer.head.starts_with(&format!("http/1.0 {code}")), "{}", answer.head);
        for rule in
            ["content-security-policy: default-src 'none';", "x-content-type-options: nosniff"]
        {
            assert!(answer.head.contains(rule), "{path}: {}", answer.head);
        }
    }
    let request = |method: &str| format!("{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let post = asked(scene.address, &request("POST"));
    assert!(post.head.starts_with("http/1.1 405") && post.head.contains("allow: get, head"));
    let head = asked(scene.address, &request("HEAD"));
    assert!(head.head.starts_with("http/1.1 200") && head.body.is_empty(), "{}", head.body);
    let foreign = asked(scene.address, "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert!(foreign.head.starts_with("http/1.1 403") && !foreign.body.contains("tank"));
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(64 << 10));
    let mut stream = TcpStream::connect(scene.address).unwrap();
    // It may be refused before all is said.
    let _ = stream.write_all(long.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains(" 200 "), "{answer:?}");
    stopped(scene.scheduler);
}

#[test]
fn whoever_connects_and_says_nothing_keeps_others_out_for_seconds_only() {
    let scene = Scene::new();
    let started = Instant::now();
    let silent: Vec<_> = (0..40).map(|_| TcpStream::connect(scene.address).unwrap()).collect();
    let answers = || {
        let mut stream = TcpStream::connect(scene.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.contains(" 200 ").then_some(())
    };
    assert!(answers().is_none(), "there is room for more than is said");
    wait_for("an answer", answers);
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    // Copies and their clock have nothing to do with it.
    assert_eq!(scene.host.status_of("a")["totals"]["runs"], 1);
    drop(silent);
}

#[test]
fn an_address_that_others_can_reach_is_said_aloud_and_one_that_is_taken_is_refused() {
    let host = Host::new(&job("a", "every = \"1h\""));
    let scheduler = host.schedule_with(&["--metrics", "0.0.0.0:0"]);
    wait_for_words(&scheduler, "for whoever can reach that, in clear");
    // By then it hears signals, too.
    host.wait_for_copies("a", 1);
    stopped(scheduler);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = host.schedule_with(&["--metrics", &address]).ended();
    refused.failed_with(2, &["listen for --metrics at 127.0.0.1:", "choose another address"]);
}

/// For a query in an address.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        write!(escaped, "%{byte:02X}").unwrap();
        escaped
    })
}
