//! A host whose scheduler copies within it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use super::host::{Ended, Running, wait_for, zferry_on};
use super::stand_in::StandIn;

/// A host with tank/a and tank/b, and what its scheduler is told and knows.
pub struct Host {
    pub zfs: StandIn,
    pub folder: TempDir,
}

/// A job for one dataset, with what else is to be said of it.
pub fn job(name: &str, more: &str) -> String {
    format!(
        "[[job]]\nname = \"{name}\"\nsource = \"tank/{name}\"\ntarget = \"backup/{name}\"\n\
         cache = \"8MiB\"\n{more}\n"
    )
}

pub fn content(seed: u64) -> Vec<u8> {
    (0..50_000_u64).flat_map(|place| (place * 0x9E37_79B9 + seed).to_le_bytes()).collect()
}

impl Host {
    pub fn new(config: &str) -> Host {
        let (zfs, folder) = (StandIn::new(), tempfile::tempdir().unwrap());
        for (seed, dataset) in ["tank/a", "tank/b"].iter().enumerate() {
            zfs.dataset(dataset, "filesystem");
            zfs.write(dataset, &content(seed as u64));
        }
        let host = Host { zfs, folder };
        host.configure(config);
        host
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("zferry.toml")
    }

    pub fn configure(&self, config: &str) {
        fs::write(self.config(), config).unwrap();
        fs::set_permissions(self.config(), fs::Permissions::from_mode(0o644)).unwrap();
    }

    /// Where its scheduler keeps what it knows.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn schedule(&self) -> Running {
        self.schedule_with(&[])
    }

    pub fn schedule_with(&self, flags: &[&str]) -> Running {
        let mut command = zferry_on(&self.zfs, &["schedule", "-v"]);
        command.arg("--config").arg(self.config()).arg("--state").arg(self.state()).args(flags);
        Running::start(&mut command)
    }

    /// Runs a command that looks into the state folder.
    pub fn look(&self, words: &[&str]) -> Ended {
        let mut command = zferry_on(&self.zfs, words);
        Running::start(command.arg("--state").arg(self.state())).ended()
    }

    /// What `zferry status --json` says.
    pub fn status(&self) -> Value {
        if !self.state().exists() {
            return Value::Null;
        }
        let told = self.look(&["status", "--json"]).succeeded();
        serde_json::from_slice(&told.stdout).unwrap()
    }

    /// The same of one job.
    pub fn status_of(&self, name: &str) -> Value {
        let status = self.status();
        let jobs = status["jobs"].as_array();
        jobs.into_iter().flatten().find(|job| job["name"] == name).cloned().unwrap_or_default()
    }

    /// Waits until the board says so of a job.
    #[track_caller]
    pub fn wait_for_status(&self, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        wait_for("a job's state", || Some(self.status_of(name)).filter(&is_so))
    }

    pub fn check(&self) -> Ended {
        let mut command = zferry_on(&self.zfs, &["config", "check"]);
        Running::start(command.arg("--config").arg(self.config())).ended()
    }

    /// How many snapshots the copy of a dataset has.
    pub fn copies(&self, name: &str) -> usize {
        self.zfs.snapshots(&format!("backup/{name}")).len()
    }

    pub fn wait_for_copies(&self, name: &str, count: usize) {
        wait_for("a copy", || (self.copies(name) >= count).then_some(()));
    }

    /// What is kept of a job.
    pub fn kept(&self, name: &str) -> String {
        let path = self.state().join(format!("jobs/{name}.json"));
        fs::read_to_string(path).unwrap_or_default()
    }
}

pub fn stopped(scheduler: Running) -> Ended {
    scheduler.signal("TERM");
    scheduler.ended().succeeded()
}
