//! A resident server and clients that know each other by their keys: who may do what, and for how
//! long.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::thread;

#[path = "support/host.rs"]
mod host;
#[path = "support/scene.rs"]
mod scene;
#[path = "support/stand_in.rs"]
mod stand_in;

use host::{Running, Server, wait_for, wait_for_words, zferry};
use scene::{Host, Scene};

#[test]
fn a_client_that_is_trusted_copies_below_its_root_and_nowhere_else() {
    let scene = Scene::new(&[]);
    scene.replicate("a", &["--connections", "2"]).ended().succeeded();
    scene.source.pools.snapshot("tank/a", "two", &vec![2; 100_000]);
    scene.replicate("a", &[]).ended().succeeded();
    let arrived = scene.target.pools.snapshots("backup/in/a");
    assert_eq!(arrived, scene.source.pools.snapshots("tank/a"));
    scene.replicate("deep/er/a", &[]).ended().succeeded();
    assert!(scene.target.pools.exists("backup/in/deep/er/a"));
    for outside in ["../other/a", "..", "a/../../other"] {
        let refused = scene.replicate(outside, &[]).ended();
        assert_ne!(refused.code(), 0, "{outside}");
    }
    assert_eq!(scene.target.pools.snapshots("backup/other"), Vec::<String>::new());
}

#[test]
fn a_client_whose_key_nobody_knows_is_refused_and_told_what_to_do() {
    let scene = Scene::new(&[]);
    let stranger = Host::source();
    stranger.trusts(scene.server.address, &scene.target.key());
    let refused = stranger.replicate(scene.server.address, "a", &[]).ended();
    refused.failed_with(2, &["does not trust our key", "zferry keys trust client"]);
    wait_for_words(&scene.server.running, &stranger.key());
    assert!(!scene.target.pools.exists("backup/in/a"));
}

#[test]
fn a_server_whose_key_nobody_knows_is_not_spoken_to() {
    let scene = Scene::new(&[]);
    let newcomer = Host::source();
    let refused = newcomer.replicate(scene.server.address, "a", &[]).ended();
    refused.failed_with(2, &["is not known here", "zferry keys trust server"]);
}

/// Somebody in between who has a key of their own, and passes on what they can.
#[test]
fn a_man_in_the_middle_is_found_out() {
    let scene = Scene::new(&[]);
    let (middle, elsewhere) = (Host::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    middle.pools.dataset("backup/in", "filesystem");
    let words = ["keys", "trust", "client", "victim", &scene.source.key(), "--root", "backup/in"];
    middle.run(&words).succeeded();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--cache", "16MiB"];
    let evil = Server::start(&mut middle.command(&serve));
    // The client takes this address for the server's.
    let address = elsewhere.local_addr().unwrap();
    scene.source.trusts(address, &scene.target.key());
    pass_on(elsewhere, evil.address);
    let refused = scene.source.replicate(address, "a", &[]).ended();
    refused.failed_with(2, &["somebody may sit in between", &middle.key()]);
    assert!(!middle.pools.exists("backup/in/a"));
}

fn pass_on(listener: TcpListener, to: SocketAddr) {
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(to).unwrap();
            for (mut from, mut to) in [
                (client.try_clone().unwrap(), server.try_clone().unwrap()),
                (server.try_clone().unwrap(), client.try_clone().unwrap()),
            ] {
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
}

#[test]
fn what_is_not_granted_is_not_done_and_the_line_that_would_grant_it_is_named() {
    let scene = Scene::new(&["--allow", "receive-incremental"]);
    let refused = scene.replicate("a", &[]).ended();
    refused.failed_with(2, &["laptop", "receive-full"]);
    assert!(!scene.target.pools.exists("backup/in/a"));
    let scene = Scene::new(&["--allow", "receive-full"]);
    let refused = scene.replicate("not/there/a", &[]).ended();
    refused.failed_with(2, &["create-parents"]);
    assert!(!scene.target.pools.exists("backup/in/not"));
    let scene = Scene::new(&["--raw-only"]);
    scene.replicate("a", &[]).ended().failed_with(2, &["raw"]);
}

#[test]
fn a_root_that_is_another_dataset_by_now_is_not_written_to() {
    let scene = Scene::new(&[]);
    scene.target.pools.becomes_another("backup/in");
    let refused = scene.replicate("a", &[]).ended();
    refused.failed_with(2, &["backup/in", "7919"]);
    assert!(!scene.target.pools.exists("backup/in/a"));
}

#[test]
fn a_second_transfer_to_a_dataset_is_told_who_is_there_already() {
    let scene = Scene::new(&[]);
    scene.slow_source();
    let first = scene.replicate("a", &[]);
    wait_for("the first", || scene.target.pools.exists("backup/in/a").then_some(()));
    let second = scene.replicate("a", &[]).ended();
    second.failed_with(4, &["is being received from laptop (127.0.0.1:", "since"]);
    drop(first);
}

#[test]
fn a_client_that_is_revoked_is_turned_out_at_once_and_not_let_in_again() {
    let scene = Scene::new(&[]);
    scene.slow_source();
    let under_way = scene.replicate("a", &[]);
    wait_for("the stream", || scene.target.pools.exists("backup/in/a").then_some(()));
    scene.target.run(&["keys", "revoke", "client", "laptop"]).succeeded();
    scene.reads_the_list_again();
    under_way.ended().failed_with(2, &["was revoked"]);
    scene.replicate("b", &[]).ended().failed_with(2, &["does not trust our key"]);
}

#[test]
fn a_list_with_a_mistake_locks_nobody_out() {
    let scene = Scene::new(&[]);
    let list = scene.target.folder.path().join("clients.toml");
    let before = fs::read_to_string(&list).unwrap();
    fs::write(&list, before.replace("name", "nmae")).unwrap();
    scene.server.running.signal("HUP");
    wait_for_words(&scene.server.running, "the former list of clients stays");
    scene.replicate("a", &[]).ended().succeeded();
}

#[test]
fn a_server_with_keys_speaks_to_nobody_in_clear() {
    let scene = Scene::new(&[]);
    let refused = scene.replicate("a", &["--plain", "--connect-timeout", "2"]).ended();
    assert_ne!(refused.code(), 0);
    assert!(!scene.target.pools.exists("backup/in/a"));
    let plain = ["serve", "--listen", "127.0.0.1:0", "--plain"];
    Running::start(&mut zferry(&plain)).ended().failed_with(3, &["--root"]);
    let rooted = ["serve", "--listen", "127.0.0.1:0", "--root", "backup"];
    Running::start(&mut zferry(&rooted)).ended().failed_with(3, &["--plain"]);
}

#[test]
fn the_secret_of_a_session_is_in_no_command_line_environment_or_log() {
    let scene = Scene::new(&[]);
    scene.slow_source();
    let mut client = scene.source.command(&[
        "replicate",
        "tank/a",
        &format!("zferry://{}/a", scene.server.address),
        "-vvv",
    ]);
    let client = Running::start(client.stdin(Stdio::null()));
    wait_for("the stream", || scene.target.pools.exists("backup/in/a").then_some(()));
    let key = fs::read_to_string(scene.source.folder.path().join("key.pem")).unwrap();
    let private = key.lines().nth(1).unwrap();
    for text in [client.said(), scene.server.running.said(), of_process(client.pid())] {
        assert!(!text.contains(private) && !text.contains("\"secret\""), "{text}");
    }
}

fn of_process(pid: u32) -> String {
    let folder = Path::new("/proc").join(pid.to_string());
    let words = ["cmdline", "environ"].map(|name| fs::read(folder.join(name)).unwrap());
    String::from_utf8_lossy(&words.concat()).into_owned()
}
