//! `zferry keys`: a key made once, lists changed only as asked, and never written where they would
//! not be read.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use zferry::trust::Folder;
use zferry::trust::grants::{Receive, Wish};

use crate::support::host::{Ended, Running, zferry_on};
use crate::support::stand_in::StandIn;

/// A host with a `zfs` and a folder for its key, which is not there yet.
struct Host {
    zfs: StandIn,
    place: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        Host { zfs: StandIn::new(), place: tempfile::tempdir().unwrap() }
    }

    fn config(&self) -> PathBuf {
        self.place.path().join("zferry")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.config().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.file(name)).unwrap().permissions().mode() & 0o777
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = zferry_on(&self.zfs, &[&["keys"], words].concat());
        command.env("ZFERRY_CONFIG", self.config());
        command
    }

    fn keys(&self, words: &[&str]) -> Ended {
        Running::start(&mut self.command(words)).ended()
    }

    fn said(&self, words: &[&str]) -> String {
        String::from_utf8(self.keys(words).succeeded().stdout).unwrap()
    }

    fn fingerprint(&self) -> String {
        json(&self.said(&["show", "--json"]))["fingerprint"].as_str().unwrap().to_owned()
    }

    fn put(&self, name: &str, text: &str) {
        fs::create_dir_all(self.config()).unwrap();
        fs::write(self.file(name), text).unwrap();
        fs::set_permissions(self.file(name), Permissions::from_mode(0o640)).unwrap();
    }
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

const A: &str = "SHA256:j6Oqsvqpt54KA5jaW1q9B4AUJEKlvoC5pkYI1xjLH80";
const B: &str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";

#[test]
fn a_key_is_made_on_first_use_and_its_private_half_is_never_shown() {
    let host = Host::new();
    let first = host.said(&["show"]);
    assert!(first.starts_with("this host: SHA256:"), "{first}");
    assert!(first.contains("may send to it: none") && first.contains("it knows: none"), "{first}");
    assert_eq!(host.said(&["show"]), first);
    assert!(first.contains(&host.fingerprint()));
    let key = host.text("key.pem");
    let secret = key.lines().nth(1).unwrap();
    assert!(!first.contains(secret) && !host.said(&["show", "--json"]).contains(secret));
    assert_eq!(host.mode("key.pem"), 0o600);
}

/// As `docs/keys.md` has it.
#[test]
fn two_hosts_that_know_nobody_know_each_other_after_four_commands() {
    let (client, server) = (Host::new(), Host::new());
    let clients_key = client.fingerprint();
    let told = server.said(&["trust", "client", "laptop", &clients_key, "--root", "backup"]);
    assert!(told.contains("below backup: receive-full, receive-incremental, resume, create-par"));
    assert!(told.contains("systemctl reload zferry-serve") && told.contains("kill -HUP"));
    assert!(told.contains("zferry keys trust server HOST:PORT"), "{told}");
    let servers_key = server.fingerprint();
    let told = client.said(&["trust", "server", "vault.example:7001", &servers_key]);
    assert!(told.contains("zferry://vault.example:7001/"), "{told}");
    // What the commands wrote is what both sides will go by.
    let known = Folder::at(client.config()).servers().unwrap().pin("vault.example:7001");
    assert_eq!(known.unwrap().to_string(), servers_key);
    let clients = Folder::at(server.config()).clients().unwrap();
    let laptop = clients.find(&clients_key.parse().unwrap()).unwrap();
    let stream = Receive { incremental: false, resumed: false, raw: false };
    let permit = laptop.judge("home", Wish::Receive(stream)).unwrap();
    assert_eq!(permit.dataset().as_str(), "backup/home");
    assert!(laptop.judge("home", Wish::AbortPartial).is_err(), "it was granted unasked");
}

#[test]
fn the_guid_of_the_root_is_noted_where_it_can_be_read() {
    let host = Host::new();
    host.said(&["trust", "client", "a", A, "--root", "backup"]);
    assert!(host.text("clients.toml").contains("root = \"backup\"\nroot-guid = \"1\"\n"));
    let told = host.said(&["trust", "client", "b", B, "--root", "backup/new one"]);
    let create = "zfs create -o canmount=off -o mountpoint=none 'backup/new one'";
    assert!(told.contains("is not noted") && told.contains(create), "{told}");
    assert_eq!(host.text("clients.toml").matches("root-guid").count(), 1);
    // Without a zfs, or with one that does not know the pool.
    let mut command = host.command(&["trust", "client", "c", &host.fingerprint(), "--root", "x"]);
    let ended = Running::start(command.env("PATH", "/nowhere")).ended().succeeded();
    assert!(String::from_utf8(ended.stdout).unwrap().contains("is not noted"));
}

#[test]
fn a_list_keeps_its_comments_order_and_mode() {
    let host = Host::new();
    let example = include_str!("../../docs/clients.toml");
    host.put("clients.toml", example);
    let key = host.fingerprint();
    let more = ["--allow=receive-full,resume", "--raw-only", "--properties=sync,a:b"];
    let limits = ["--datasets=9", "--spool=1GiB", "--bandwidth=5MiB", "--transfers=2"];
    let trust = ["trust", "client", "nas", &key, "--root", "backup", "--prefix", "p"];
    let told = host.said(&[&trust[..], &more, &limits].concat());
    let line = "  p/... is below backup: receive-full, resume; raw streams only; may set a:b, \
                sync; at most 9 datasets, 2 transfers at once, 1.0 GiB of the spool, 5.0 MiB/s\n";
    assert!(told.contains(line), "{told}");
    let text = host.text("clients.toml");
    assert!(text.starts_with(example), "{text}");
    assert_eq!(host.mode("clients.toml"), 0o640);
    let report = json(&host.said(&["show", "--json"]));
    let grant = &report["clients"][2]["grants"][0];
    assert_eq!((&grant["prefix"], &grant["root"]), (&"p".into(), &"backup".into()));
    assert_eq!((&grant["spool_bytes"], &grant["raw_only"]), (&(1 << 30).into(), &true.into()));
    assert_eq!(grant["properties"], serde_json::json!(["a:b", "sync"]));
    assert_eq!(grant["allow"], serde_json::json!(["receive-full", "resume"]));
    host.said(&["revoke", "client", "nas"]);
    assert_eq!(host.text("clients.toml"), example);
}

#[test]
fn whoever_is_revoked_is_known_no_more() {
    let host = Host::new();
    host.said(&["trust", "client", "a", A, "--root", "backup"]);
    host.said(&["trust", "server", "h:1", B]);
    host.keys(&["revoke", "client", "b"]).failed_with(3, &["nobody of this name", "keys show"]);
    host.keys(&["revoke", "server", "h:2"]).failed_with(3, &["nobody of this name"]);
    let told = host.said(&["revoke", "client", A]);
    assert!(told.contains("trusted no more") && told.contains("kill -HUP"), "{told}");
    host.said(&["revoke", "server", "h:1"]);
    let folder = Folder::at(host.config());
    assert!(folder.clients().unwrap().is_empty());
    assert_eq!(folder.servers().unwrap().pin("h:1"), None);
}

#[test]
fn a_list_that_would_not_be_read_is_neither_changed_nor_written() {
    let host = Host::new();
    let trust = ["trust", "client", "a", A, "--root", "backup"];
    host.put("clients.toml", "[[client]]\nname = \"x\"\nkey = 5\n");
    host.keys(&trust).failed_with(3, &["clients.toml:3:1: unknown field `key`", "mend line 3"]);
    host.keys(&["show"]).failed_with(3, &["clients.toml:3:1"]);
    host.keys(&["revoke", "client", "x"]).failed_with(3, &["clients.toml:3:1"]);
    assert_eq!(host.text("clients.toml"), "[[client]]\nname = \"x\"\nkey = 5\n");
    fs::remove_file(host.file("clients.toml")).unwrap();
    host.said(&trust);
    let before = host.text("clients.toml");
    let second = ["trust", "client", "a", A, "--root", "tank"];
    host.keys(&second).failed_with(3, &["needs a prefix", "edit "]);
    host.keys(&[&second[..], &["--prefix", "t"]].concat()).failed_with(3, &["needs a prefix"]);
    host.keys(&["trust", "client", "a", B, "--root", "backup"])
        .failed_with(2, &["another key", "zferry keys revoke client a"]);
    host.keys(&["trust", "client", "b", A, "--root", "backup"])
        .failed_with(2, &["is the one of a", "zferry keys revoke client a"]);
    assert_eq!(host.text("clients.toml"), before);
}

#[test]
fn a_list_that_others_can_write_is_refused_with_the_remedy() {
    let host = Host::new();
    for (list, words) in [
        ("clients.toml", ["trust", "client", "b", B, "--root", "backup"].as_slice()),
        ("servers.toml", &["trust", "server", "h:1", A]),
    ] {
        host.put(list, "# nobody\n");
        fs::set_permissions(host.file(list), Permissions::from_mode(0o664)).unwrap();
        let remedy = format!("chmod go-w {}", host.file(list).display());
        host.keys(words).failed_with(2, &["can be changed by others (mode 664)", &remedy]);
        host.keys(&["show"]).failed_with(2, &[&remedy]);
        assert_eq!(host.text(list), "# nobody\n");
        fs::set_permissions(host.file(list), Permissions::from_mode(0o644)).unwrap();
        host.said(words);
    }
}

#[test]
fn what_is_typed_wrongly_is_told_with_what_is_right() {
    let host = Host::new();
    for (words, told) in [
        (["trust", "client", "a b", A, "--root", "backup"].as_slice(), "is no name for a client"),
        (&["trust", "client", "a", "x", "--root", "backup"], "SHA256: and 43 characters"),
        (&["trust", "client", "a", A], "--root <POOL/DS>"),
        (&["trust", "client", "a", A, "--root", "/x"], "without a leading or trailing slash"),
        (&["trust", "client", "a", A, "--root", "b", "--allow", "send"], "receive-incremental"),
        (
            &["trust", "client", "a", A, "--root", "b", "--allow", "resume,destroy"],
            "'destroy' is not something that a client can be granted yet",
        ),
        (&["trust", "server", "h", A], "as in backup.example:7001"),
        (&["revoke", "server", "h"], "as in backup.example:7001"),
        (&["trust"], "client"),
    ] {
        let ended = host.keys(words);
        assert_eq!(ended.code(), 3, "{words:?}");
        assert!(ended.stderr.contains(told), "{words:?}: {}", ended.stderr);
    }
    assert!(!host.config().exists(), "a mistake makes nothing");
}

#[test]
fn many_who_change_a_list_at_once_lose_nothing() {
    let host = Host::new();
    let running: Vec<Running> = (1..=12)
        .map(|port| {
            let server = format!("h:{port}");
            Running::start(&mut host.command(&["trust", "server", &server, A]))
        })
        .collect();
    for running in running {
        running.ended().succeeded();
    }
    let servers = Folder::at(host.config()).servers().unwrap();
    assert_eq!(servers.iter().count(), 12);
    assert_eq!(fs::read_dir(host.config()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn the_folder_is_the_one_that_is_named() {
    let host = Host::new();
    let other = host.place.path().join("other");
    let show = |flags: &[&str]| host.said(&[&["show"], flags].concat());
    show(&[]);
    assert!(host.file("key.pem").exists());
    show(&["--config", other.to_str().unwrap()]);
    assert!(is_folder_with_key(&other));
    let mut before_the_command = host.command(&[]);
    let third = host.place.path().join("third");
    before_the_command.arg("--config").arg(&third).arg("show");
    Running::start(&mut before_the_command).ended().succeeded();
    assert!(is_folder_with_key(&third));
}

fn is_folder_with_key(folder: &Path) -> bool {
    folder.join("key.pem").exists()
}

#[test]
fn a_key_of_another_user_says_whose_it_is_and_as_whom_to_go_on() {
    let host = Host::new();
    host.said(&["show"]);
    // Root may read everything: so it looks as another user; and others may not read their own.
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let mode = |mode| fs::set_permissions(host.file("key.pem"), Permissions::from_mode(mode));
    mode(if is_root { 0o600 } else { 0 }).unwrap();
    for folder in [host.place.path(), &host.config()] {
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    }
    let show = || {
        let mut command = host.command(&["show"]);
        if is_root {
            command.uid(65_534).gid(65_534);
        }
        Running::start(&mut command).ended()
    };
    let denied = format!("the key {}: Permission denied", host.file("key.pem").display());
    if !is_root {
        show().failed_with(2, &[&denied, "\n  to mend it: chmod u+rw "]);
        return;
    }
    let remedy = "\n  to mend it: it belongs to root: run this as that user (sudo -u root zferry ";
    show().failed_with(2, &[&denied, remedy, "), or give it to another: chown "]);
    fs::set_permissions(host.config(), Permissions::from_mode(0o700)).unwrap();
    let folder =
        format!("\n  to mend it: {} belongs to root: run this as", host.config().display());
    show().failed_with(2, &["Permission denied", &folder]);
    // Root itself, before a key of a service's.
    chown(host.file("key.pem"), Some(65_534), None).unwrap();
    let theirs = "it belongs to nobody: run this as that user (sudo -u nobody zferry ";
    host.keys(&["show"]).failed_with(2, &["belongs to user nobody", theirs]);
}
