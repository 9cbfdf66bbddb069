//! Targets on hosts that only ssh knows: a real sshd on loopback, and a stand-in on either side.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

#[path = "support/host.rs"]
mod host;
#[path = "support/stand_in.rs"]
mod stand_in;

use host::{Ended, Running, wait_for, zferry_on};
use stand_in::StandIn;

/// Another host: an sshd of its own that lets our key in, and pools.
struct Far {
    host: StandIn,
    folder: TempDir,
    sshd: Child,
    port: u16,
}

impl Far {
    fn start() -> Far {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for key in ["host", "key"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at(key));
            assert!(keygen.status().expect("ssh-keygen is installed").success());
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
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
    fn command(&self) -> String {
        let path = std::env::var("PATH").unwrap();
        let bin = self.host.bin();
        format!("env PATH={}:{path} {}", bin.display(), env!("CARGO_BIN_EXE_zferry"))
    }

    /// `zferry replicate` from `here` to a dataset there.
    fn copy(&self, here: &StandIn, to: &str, flags: &[&str]) -> Ended {
        self.copy_calling(&self.command(), here, to, flags)
    }

    fn copy_calling(&self, program: &str, here: &StandIn, to: &str, flags: &[&str]) -> Ended {
        let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout);
        let to = format!("{}@127.0.0.1:{to}", user.unwrap().trim());
        let words = ["replicate", "tank/a", &to, "--no-snapshot", "--retry-for", "0"];
        let mut command = zferry_on(here, &words);
        command.args(["--ssh-port", &self.port.to_string(), "--far-command", program]);
        command.arg("--identity").arg(self.key());
        for option in ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes"]
        {
            command.args(["--ssh-option", option]);
        }
        Running::start(command.args(["--ssh-option", "LogLevel=ERROR"]).args(flags)).ended()
    }

    /// What is left there of what was started for us.
    fn left(&self) -> Vec<String> {
        let mine = self.host.bin().display().to_string();
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let environments = processes.filter_map(|process| {
            let environment = fs::read(process.path().join("environ")).ok()?;
            let words = fs::read(process.path().join("cmdline")).ok()?;
            let is_ours = String::from_utf8_lossy(&environment).contains(&mine);
            is_ours.then(|| String::from_utf8_lossy(&words).replace('\0', " "))
        });
        environments.collect()
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _already_gone = self.sshd.kill();
        let _reaped = self.sshd.wait();
    }
}

fn source() -> StandIn {
    let here = StandIn::new();
    here.dataset("tank/a", "filesystem");
    here.snapshot("tank/a", "one", &vec![1; 300_000]);
    here
}

#[test]
fn a_dataset_is_copied_to_a_host_that_has_only_ssh_and_zferry() {
    let (here, far) = (source(), Far::start());
    far.copy(&here, "backup/a", &[]).succeeded();
    here.snapshot("tank/a", "two", &vec![2; 100_000]);
    far.copy(&here, "backup/a", &["--connections", "3"]).succeeded();
    let again = far.copy(&here, "backup/a", &[]).succeeded();
    assert!(String::from_utf8_lossy(&again.stdout).contains("nothing to do"));
    assert_eq!(far.host.snapshots("backup/a"), here.snapshots("tank/a"));
    let left = || Some(far.left()).filter(Vec::is_empty);
    wait_for("the end of what was started there", left);
}

#[test]
fn the_data_go_through_ssh_where_that_is_wished() {
    let (here, far) = (source(), Far::start());
    far.copy(&here, "backup/a", &["--via-ssh", "--connections", "2"]).succeeded();
    assert_eq!(far.host.snapshots("backup/a"), here.snapshots("tank/a"));
}

#[test]
fn the_other_host_listens_on_the_ports_that_are_given() {
    let (here, far) = (source(), Far::start());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let refused = far.copy(&here, "backup/a", &["--ports", &port]);
    refused.failed_with(2, &["did not start", "--via-ssh"]);
    drop(taken);
    far.copy(&here, "backup/a", &["--ports", &port]).succeeded();
}

#[test]
fn what_is_wrong_with_the_other_host_is_said() {
    let (here, mut far) = (source(), Far::start());
    let nowhere = far.copy_calling("no-such-zferry", &here, "backup/a", &[]);
    nowhere.failed_with(2, &["there is no zferry on", "--far-command"]);
    let other = far.copy_calling("echo hello; true", &here, "backup/a", &[]);
    other.failed_with(2, &["did not start"]);
    let mistake = far.copy(&here, "nopool/a", &[]);
    assert_eq!(mistake.code(), 2);
    far.sshd.kill().unwrap();
    far.sshd.wait().unwrap();
    far.copy(&here, "backup/a", &[]).failed_with(2, &["no connection by ssh", "true"]);
}

#[test]
fn flags_that_have_nothing_to_say_are_refused() {
    let here = source();
    let copy = |to: &str, flags: &[&str]| {
        let mut command = zferry_on(&here, &["replicate", "tank/a", to]);
        Running::start(command.args(flags)).ended()
    };
    copy("h:backup/a", &["--plain"]).failed_with(3, &["with ssh there is a ticket"]);
    copy("h:backup/a", &["--via-ssh", "--bwlimit", "1MiB"]).failed_with(3, &["--via-ssh"]);
    copy("h:backup/a", &["--lane", "splice", "--checksum", "none"])
        .failed_with(3, &["cannot be encrypted"]);
    copy("backup/a", &["--via-ssh"]).failed_with(3, &["not reached by ssh"]);
    copy("h:backup", &[]).failed_with(3, &["is a whole pool"]);
    copy("-oProxyCommand=x:backup/a", &[]).failed_with(3, &[]);
}
