//! Each call of `zferry keys`, with a folder of its own for the lists.

use super::{calls, dataset};
use crate::support::scene::Host;

/// Runs it; what is to be revoked is trusted before.
fn run(call: &[String]) {
    let host = Host::new();
    let folder = host.folder.path().to_str().unwrap();
    let ours =
        |word: &'_ String| if word == "/etc/zferry" { folder.to_owned() } else { word.clone() };
    let call: Vec<String> = call.iter().map(ours).collect();
    let call: Vec<&str> = call.iter().map(String::as_str).collect();
    if let Some(root) = call.iter().position(|word| *word == "--root") {
        dataset(&host.pools, call[root + 1]);
    }
    if let ["keys", "revoke", kind, name, ..] = call[..] {
        let key = host.key();
        let root = if kind == "client" { &["--root", "backup"][..] } else { &[] };
        host.run(&[&["keys", "trust", kind, name, &key], root].concat()).succeeded();
    }
    host.run(&call).succeeded();
}

#[test]
fn every_key_is_shown_trusted_and_revoked() {
    let calls = calls("keys");
    for call in &calls {
        println!("{}", call.join(" "));
        run(call);
    }
    assert!(calls.len() > 8, "{}", calls.len());
}
