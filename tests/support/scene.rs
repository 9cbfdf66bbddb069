//! A server with keys and clients of its, each a host of its own.

use std::net::SocketAddr;
use std::time::Duration;

use tempfile::TempDir;

use super::host::{Ended, Running, Server, wait_for, zferry_on};
use super::stand_in::StandIn;

/// A host with pools and a folder for its key.
pub struct Host {
    pub pools: StandIn,
    pub folder: TempDir,
}

impl Host {
    /// A host without a key.
    pub fn new() -> Host {
        Host { pools: StandIn::new(), folder: tempfile::tempdir().unwrap() }
    }

    /// One with `tank/a` and a snapshot of it.
    pub fn source() -> Host {
        let host = Host::new();
        host.pools.dataset("tank/a", "filesystem");
        host.pools.snapshot("tank/a", "one", &vec![1; 200_000]);
        host
    }

    /// Runs `zferry` to its end.
    pub fn run(&self, words: &[&str]) -> Ended {
        Running::start(&mut self.command(words)).ended()
    }

    /// `zferry` with the folder of this host.
    pub fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = zferry_on(&self.pools, words);
        command.env("ZFERRY_CONFIG", self.folder.path());
        command
    }

    /// Its key's fingerprint.
    pub fn key(&self) -> String {
        let shown = self.run(&["keys", "show"]).succeeded();
        let text = String::from_utf8(shown.stdout).unwrap();
        let key = text.split_whitespace().find(|word| word.starts_with("SHA256:"));
        key.unwrap_or_else(|| panic!("{text}")).to_owned()
    }

    /// Has it know a server.
    pub fn trusts(&self, server: SocketAddr, key: &str) {
        self.run(&["keys", "trust", "server", &server.to_string(), key]).succeeded();
    }

    /// Copies `tank/a` to a server.
    pub fn replicate(&self, server: SocketAddr, dataset: &str, flags: &[&str]) -> Running {
        let to = format!("zferry://{server}/{dataset}");
        let words = ["replicate", "tank/a", &to, "--no-snapshot", "--retry-for", "0"];
        Running::start(self.command(&words).args(flags))
    }
}

/// A server with one client, `laptop`, whose root is `backup/in`.
pub struct Scene {
    pub target: Host,
    pub source: Host,
    pub server: Server,
}

impl Scene {
    /// With these words behind `keys trust client laptop`.
    pub fn new(granted: &[&str]) -> Scene {
        Scene::serving(granted, &["-v"])
    }

    /// The same with these flags for the server.
    pub fn serving(granted: &[&str], flags: &[&str]) -> Scene {
        let (target, source) = (Host::new(), Host::source());
        target.pools.dataset("backup/in", "filesystem");
        target.pools.dataset("backup/other", "filesystem");
        let key = source.key();
        let words = ["keys", "trust", "client", "laptop", &key, "--root", "backup/in"];
        target.run(&[&words, granted].concat()).succeeded();
        let serve = ["serve", "--listen", "127.0.0.1:0", "--cache", "16MiB"];
        let server = Server::start(target.command(&serve).args(flags));
        source.trusts(server.address, &target.key());
        Scene { target, source, server }
    }

    /// Changes what laptop is granted, and has the server know of it.
    pub fn grants(&self, words: &[&str]) {
        let key = self.source.key();
        let trust = ["keys", "trust", "client", "laptop", &key, "--root", "backup/in"];
        self.target.run(&[&trust, words].concat()).succeeded();
        self.reads_the_list_again();
    }

    /// Copies `tank/a` of the client.
    pub fn replicate(&self, dataset: &str, flags: &[&str]) -> Running {
        self.source.replicate(self.server.address, dataset, flags)
    }

    /// A dataset of which nothing goes fast.
    pub fn slow_source(&self) {
        self.source.pools.snapshot("tank/a", "slow", &vec![7; 4 << 20]);
        self.source.pools.slow_send(100_000, Duration::from_millis(100));
    }

    /// Has the server read its list again.
    pub fn reads_the_list_again(&self) {
        let words = "read the list of clients again";
        let count = || self.server.running.said().matches(words).count();
        let before = count();
        self.server.running.signal("HUP");
        wait_for(words, || (count() > before).then_some(()));
    }
}
