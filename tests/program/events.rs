//! `--json`: what a program is told of a copy, as it goes and at its end.

use serde_json::{Value, json};

use crate::support::host::{Ended, Server, replicate, send};
use crate::support::stand_in::StandIn;

const SMALL: [&str; 2] = ["--cache", "8MiB"];

/// Every line of stdout is an object with a name.
fn events(ended: &Ended) -> Vec<Value> {
    let text = std::str::from_utf8(&ended.stdout).unwrap();
    let events: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(events.iter().all(|event| event["event"].is_string()), "{text}");
    events
}

fn names(events: &[Value]) -> Vec<&str> {
    let mut names: Vec<&str> =
        events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    names.dedup();
    names
}

#[test]
fn a_stream_is_told_from_its_begin_to_its_end() {
    let receiver = Server::receive(&SMALL);
    let sender = send(receiver.address, &["--json"], vec![7; 3 << 20]).ended().succeeded();
    receiver.running.ended().succeeded();
    let events = events(&sender);
    assert_eq!(names(&events), ["begin", "moment", "end", "done"]);
    assert_eq!(
        events[0],
        json!({
            "event": "begin", "dataset": null, "what": "stdin", "estimated": null,
        })
    );
    let (last, done) = (&events[events.len() - 3], &events[events.len() - 1]);
    assert_eq!((&last["read"], &last["fed"]), (&json!(3 << 20), &json!(3 << 20)));
    assert_eq!((&done["bytes"], &done["holds"]), (&json!(3 << 20), &Value::Null));
    assert!(done["wire"].as_u64().unwrap() > 3 << 20, "{done}");
    assert_eq!(sender.stderr, "");
}

#[test]
fn what_stands_still_is_told_when_it_begins_to_and_when_it_moves_again() {
    let slow = ["--", "sh", "-c", "sleep 3; cat"];
    let receiver = Server::receive(&[&SMALL, slow.as_slice()].concat());
    let flags = ["--json", "--stall-timeout", "1"];
    let sender = send(receiver.address, &flags, vec![7; 2 << 20]).ended().succeeded();
    receiver.running.ended().succeeded();
    let events = events(&sender);
    let moments = events.iter().filter(|event| event["event"] == "moment");
    let mut still: Vec<&Value> = moments.map(|moment| &moment["stands_still"]).collect();
    still.dedup();
    assert_eq!(still, [&Value::Null, &json!("receive"), &Value::Null]);
}

#[test]
fn a_copy_tells_what_the_target_holds_however_little_there_was_to_do() {
    let (source, sink) = (StandIn::new(), StandIn::new());
    source.dataset("tank/a", "filesystem");
    source.snapshot("tank/a", "s", b"content");
    sink.dataset("backup", "filesystem");
    let server = Server::serve(&sink, &[]);
    let flags = ["--no-snapshot", "--json"];
    for streams in [1, 0] {
        let copy = replicate(&source, "tank/a", &server.url("a"), &flags).ended().succeeded();
        let events = events(&copy);
        let done = events.last().unwrap();
        assert_eq!((&done["holds"], &done["streams"]), (&json!("tank/a@s"), &json!(streams)));
        let of = events.iter().filter(|event| event["event"] != "done");
        assert!(of.clone().count() == 0 || of.clone().all(|it| it["dataset"] == "tank/a"));
    }
}

#[test]
fn a_failure_is_the_last_that_is_told_and_stderr_has_it_too() {
    let (source, sink) = (StandIn::new(), StandIn::new());
    sink.dataset("backup", "filesystem");
    let server = Server::serve(&sink, &[]);
    let copy = replicate(&source, "tank/missing", &server.url("a"), &["--json"]).ended();
    let events = events(&copy);
    let failed = events.last().unwrap();
    assert_eq!((&failed["event"], &failed["side"]), (&json!("failed"), &json!("source")));
    let what = failed["what"].as_str().unwrap();
    assert!(what.contains("tank/missing"), "{failed}");
    copy.failed_with(2, &[what]);
}
