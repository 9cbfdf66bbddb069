//! Another host for tests: an sshd of its own on loopback that lets our key in, and pools.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::host::{Ended, Running, free_address, wait_for, zferry_on};
use super::stand_in::StandIn;

/// Another host.
pub struct Far {
    pub host: StandIn,
    folder: TempDir,
    sshd: Child,
    port: u16,
}

/// A process as `/proc` shows it, with a zero byte behind each word.
pub struct Shown {
    pub pid: u32,
    pub words: String,
    pub environment: String,
}

impl Far {
    /// With pools and nothing in them.
    pub fn start() -> Far {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for key in ["host", "key"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at(key));
            assert!(keygen.status().expect("ssh-keygen is installed").success());
        }
        let port = free_address().port();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\n\
             UsePAM no\nPidFile none\nPermitRootLogin prohibit-password\n",
            at("host").display(),
            at("key.pub").display()
        );
        fs::write(at("config"), config).unwrap();
        // Where sshd runs as root, it wants this folder of Debian's.
        let _ours_or_not = fs::create_dir_all("/run/sshd");
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.args(["-D", "-e", "-f"]).arg(at("config")).stderr(Stdio::null());
        let sshd = sshd.spawn().expect("sshd is installed");
        wait_for("sshd", || TcpStream::connect(("127.0.0.1", port)).ok());
        Far { host: StandIn::new(), folder, sshd, port }
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    /// How zferry is called there.
    pub fn command(&self) -> String {
        let path = std::env::var("PATH").unwrap();
        let bin = self.host.bin();
        format!("env PATH={}:{path} {}", bin.display(), env!("CARGO_BIN_EXE_zferry"))
    }

    /// `zferry replicate` of our tank/a to a dataset there.
    pub fn copy(&self, here: &StandIn, to: &str, flags: &[&str]) -> Ended {
        self.copying(here, to, flags).ended()
    }

    /// The same, which goes on.
    pub fn copying(&self, here: &StandIn, to: &str, flags: &[&str]) -> Running {
        self.replicating(here, ["tank/a", &Far::name(to)], flags)
    }

    /// `zferry replicate` of a dataset there to our backup/a.
    pub fn fetch(&self, here: &StandIn, from: &str, flags: &[&str]) -> Ended {
        self.fetching(here, from, flags).ended()
    }

    /// The same, which goes on.
    pub fn fetching(&self, here: &StandIn, from: &str, flags: &[&str]) -> Running {
        self.replicating(here, [&Far::name(from), "backup/a"], flags)
    }

    /// A dataset there, for ssh.
    pub fn name(dataset: &str) -> String {
        let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout);
        format!("{}@127.0.0.1:{dataset}", user.unwrap().trim())
    }

    fn replicating(&self, here: &StandIn, ends: [&str; 2], flags: &[&str]) -> Running {
        let mut command = zferry_on(here, &["replicate"]);
        command.args(ends).arg("--no-snapshot").args(self.ssh_flags());
        if !flags.contains(&"--far-command") {
            command.args(["--far-command", &self.command()]);
        }
        if !flags.contains(&"--retry-for") {
            command.args(["--retry-for", "0"]);
        }
        Running::start(command.args(flags))
    }

    /// How ssh gets there.
    pub fn ssh_flags(&self) -> Vec<String> {
        let (port, key) = (self.port.to_string(), self.key().display().to_string());
        let mut flags = vec!["--ssh-port".to_owned(), port, "--identity".to_owned(), key];
        for option in [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "BatchMode=yes",
            "LogLevel=ERROR",
        ] {
            flags.extend(["--ssh-option".to_owned(), option.to_owned()]);
        }
        flags
    }

    /// No ssh gets there any more.
    pub fn stop(&mut self) {
        self.sshd.kill().unwrap();
        self.sshd.wait().unwrap();
    }

    /// What is left there of what was started for us.
    pub fn left(&self) -> Vec<String> {
        let mine = self.host.bin().display().to_string();
        let ours = processes().filter(|process| process.environment.contains(&mine));
        ours.map(|process| process.words.replace('\0', " ")).collect()
    }

    /// Waits until nothing is left there.
    #[track_caller]
    pub fn is_left_alone(&self) {
        let left = || Some(self.left()).filter(Vec::is_empty);
        wait_for("the end of what was started there", left);
    }

    /// The senders that run there, by their process ids.
    pub fn senders(&self) -> Vec<u32> {
        let mine = self.host.bin().display().to_string();
        let there = processes().filter(|process| process.environment.contains(&mine));
        let senders = there.filter(|process| process.words.ends_with("\0deliver\0"));
        senders.map(|process| process.pid).collect()
    }

    /// Our own ends of ssh to there that have this word, by their process ids.
    pub fn sshs(&self, word: &str) -> Vec<u32> {
        let key = self.key().display().to_string();
        let ours = processes().filter(|process| {
            let words: Vec<&str> = process.words.split('\0').collect();
            let is_ours = words[0] == "ssh" && words.contains(&key.as_str());
            is_ours && words.iter().any(|one| one.contains(word))
        });
        ours.map(|process| process.pid).collect()
    }

    /// All that runs for a copy between `here` and there, at both ends and between them.
    pub fn shown(&self, here: &StandIn) -> Vec<Shown> {
        let ours = [self.host.bin(), self.key(), here.bin()].map(|path| path.display().to_string());
        let names_us = |process: &Shown| {
            let names = |text: &str| ours.iter().any(|ours| text.contains(ours));
            names(&process.words) || names(&process.environment)
        };
        processes().filter(names_us).collect()
    }
}

/// What runs on this machine.
fn processes() -> impl Iterator<Item = Shown> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|process| {
        let text = |file| {
            let bytes = fs::read(process.path().join(file)).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        let pid = process.file_name().to_str()?.parse().ok()?;
        Some(Shown { pid, words: text("cmdline")?, environment: text("environ")? })
    })
}

impl Drop for Far {
    fn drop(&mut self) {
        let _already_gone = self.sshd.kill();
        let _reaped = self.sshd.wait();
    }
}
