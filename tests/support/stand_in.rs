//! Builds pools for `zfs-stand-in`, the stand-in for the `zfs` command, and looks into them.
//!
//! Each [`StandIn`] is a host of its own: a folder with a `zfs` in `bin` and pools beside it, gone
//! when dropped. It never replaces real ZFS; see the head of the script. Here nothing may run the
//! code under test: what it is expected to do is done by hand.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A host with a `zfs` command and pools.
pub struct StandIn {
    folder: tempfile::TempDir,
}

/// What comes after a number of stream bytes: an exit status or a signal, with words on stderr.
pub struct Failing<'a> {
    /// How many bytes of the stream pass; a stream that is shorter fails at its end.
    pub after_bytes: u64,
    /// `"1"`, or the name of a signal: `"KILL"`.
    pub status: &'a str,
    /// What is said on stderr; nothing where empty.
    pub words: &'a str,
}

impl StandIn {
    /// A host with the pools `tank` and `backup`, filesystems without snapshots.
    pub fn new() -> StandIn {
        let folder = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/zfs-stand-in");
        fs::create_dir(folder.path().join("bin")).unwrap();
        // A copy could be "text file busy" while another thread forks.
        symlink(script, folder.path().join("bin/zfs")).unwrap();
        let host = StandIn { folder };
        host.dataset("tank", "filesystem");
        host.dataset("backup", "filesystem");
        host
    }

    /// Its `zfs`.
    pub fn program(&self) -> PathBuf {
        self.bin().join("zfs")
    }

    /// The folder to put in front of `PATH`.
    pub fn bin(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    /// Makes a `filesystem` or `volume`.
    pub fn dataset(&self, dataset: &str, kind: &str) {
        let at = self.at(dataset);
        fs::create_dir_all(at.join("snapshots")).unwrap();
        fs::create_dir_all(at.join("props")).unwrap();
        fs::write(at.join("kind"), kind).unwrap();
    }

    /// Another dataset has this name from now on.
    pub fn becomes_another(&self, dataset: &str) {
        fs::write(self.at(dataset).join("guid"), "7919").unwrap();
    }

    /// Makes a dataset encrypted, with its key away: only raw streams can be sent.
    pub fn encrypt(&self, dataset: &str) {
        fs::write(self.at(dataset).join("encryption"), "aes-256-gcm").unwrap();
    }

    /// What the next snapshot, taken by `zfs snapshot`, will hold.
    pub fn write(&self, dataset: &str, content: &[u8]) {
        fs::write(self.at(dataset).join("live"), content).unwrap();
    }

    /// Somebody changed the dataset since its newest snapshot.
    pub fn modify(&self, dataset: &str) {
        fs::write(self.at(dataset).join("modified"), "").unwrap();
    }

    /// So much was written to the dataset since any of its snapshots.
    pub fn was_written(&self, dataset: &str, bytes: u64) {
        fs::write(self.at(dataset).join("written"), bytes.to_string()).unwrap();
    }

    /// Adds a snapshot that is newer than all others and returns its guid, which is over 2^63.
    pub fn snapshot(&self, dataset: &str, name: &str, content: &[u8]) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let guid = u64::MAX - 7919 * NEXT.fetch_add(1, Ordering::Relaxed);
        self.snapshot_with_guid(dataset, name, guid, content);
        guid
    }

    /// The same with a chosen guid.
    pub fn snapshot_with_guid(&self, dataset: &str, name: &str, guid: u64, content: &[u8]) {
        let at = self.at(&format!("{dataset}@{name}"));
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join("content"), content).unwrap();
        fs::write(at.join("guid"), guid.to_string()).unwrap();
        fs::write(at.join("createtxg"), self.next_txg().to_string()).unwrap();
    }

    /// When a snapshot was made, in seconds since 1970.
    pub fn was_created(&self, snapshot: &str, second: i64) {
        fs::write(self.at(snapshot).join("creation"), second.to_string()).unwrap();
    }

    /// Leaves a bookmark of a snapshot.
    pub fn bookmark(&self, dataset: &str, snapshot: &str, name: &str) {
        let from = self.at(&format!("{dataset}@{snapshot}"));
        let to = self.at(&format!("{dataset}#{name}"));
        fs::create_dir_all(&to).unwrap();
        for file in ["guid", "createtxg"] {
            fs::copy(from.join(file), to.join(file)).unwrap();
        }
    }

    /// Destroys a snapshot or bookmark, held or not.
    pub fn destroy(&self, name: &str) {
        fs::remove_dir_all(self.at(name)).unwrap();
    }

    /// Gives a snapshot another name.
    pub fn rename(&self, from: &str, to: &str) {
        fs::rename(self.at(from), self.at(to)).unwrap();
    }

    /// Whether there is such a dataset, snapshot or bookmark.
    pub fn exists(&self, name: &str) -> bool {
        self.at(name).exists()
    }

    /// What a snapshot holds.
    pub fn content(&self, snapshot: &str) -> Vec<u8> {
        fs::read(self.at(snapshot).join("content")).unwrap()
    }

    /// The guid of a snapshot.
    pub fn guid(&self, snapshot: &str) -> u64 {
        fs::read_to_string(self.at(snapshot).join("guid")).unwrap().trim().parse().unwrap()
    }

    /// The names of all snapshots of a dataset, sorted.
    pub fn snapshots(&self, dataset: &str) -> Vec<String> {
        names_in(&self.at(dataset).join("snapshots"))
    }

    /// Somebody holds a snapshot.
    pub fn hold(&self, snapshot: &str, tag: &str) {
        let holds = self.at(snapshot).join("holds");
        fs::create_dir_all(&holds).unwrap();
        fs::write(holds.join(tag.replace('/', "%2F")), "1785585600").unwrap();
    }

    /// Something was cloned from a snapshot.
    pub fn clone_of(&self, snapshot: &str, clone: &str) {
        fs::write(self.at(snapshot).join("clones"), clone).unwrap();
    }

    /// Somebody uses a snapshot, and `zfs` does not say so before one tries.
    pub fn is_busy(&self, snapshot: &str) {
        fs::write(self.at(snapshot).join("busy"), "").unwrap();
    }

    /// Whoever asks may not destroy anything of a dataset.
    pub fn may_not_be_destroyed(&self, dataset: &str) {
        fs::write(self.at(dataset).join("no-destroy"), "").unwrap();
    }

    /// From now on `zfs` refuses options that version 2.1 lacks.
    pub fn is_old(&self) {
        fs::write(self.folder.path().join("old"), "").unwrap();
    }

    /// The tags that hold a snapshot, sorted.
    pub fn holds(&self, snapshot: &str) -> Vec<String> {
        let files = names_in(&self.at(snapshot).join("holds"));
        files.into_iter().map(|file| file.replace("%2F", "/")).collect()
    }

    /// A dataset was cloned from a snapshot.
    pub fn is_clone(&self, dataset: &str, origin: &str) {
        fs::write(self.at(dataset).join("origin"), origin).unwrap();
    }

    /// Sets a property on a dataset.
    pub fn set(&self, dataset: &str, property: &str, value: &str) {
        let props = self.at(dataset).join("props");
        fs::create_dir_all(&props).unwrap();
        fs::write(props.join(property), value).unwrap();
    }

    /// A property that was set on a dataset.
    pub fn property(&self, dataset: &str, property: &str) -> Option<String> {
        let text = fs::read_to_string(self.at(dataset).join("props").join(property)).ok()?;
        Some(text.trim_end().to_owned())
    }

    /// What a receive that was interrupted has kept of the content.
    pub fn partly_received(&self, dataset: &str) -> Option<Vec<u8>> {
        fs::read(self.at(dataset).join("partial/content")).ok()
    }

    /// The next `zfs send` of this host fails.
    pub fn fail_send(&self, failing: &Failing) {
        self.order("fail-send-after", failing);
    }

    /// The next `zfs receive` of this host fails.
    pub fn fail_receive(&self, failing: &Failing) {
        self.order("fail-receive-after", failing);
    }

    /// From now on `zfs send` writes these bytes, whatever is asked for.
    pub fn send_instead(&self, bytes: &[u8]) {
        fs::write(self.folder.path().join("send-instead"), bytes).unwrap();
    }

    /// From now on `zfs send` writes so many bytes, then pauses.
    pub fn slow_send(&self, bytes: u64, pause: Duration) {
        self.slow("slow-send", bytes, pause);
    }

    /// From now on `zfs receive` reads so many bytes, then pauses.
    pub fn slow_receive(&self, bytes: u64, pause: Duration) {
        self.slow("slow-receive", bytes, pause);
    }

    /// The next call of a subcommand takes so much longer.
    pub fn pause_before(&self, subcommand: &str, pause: Duration) {
        let file = format!("pause-before-{subcommand}");
        fs::write(self.folder.path().join(file), pause.as_secs_f64().to_string()).unwrap();
    }

    /// The arguments of all calls so far.
    pub fn calls(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        let call = |line: &str| line.split_terminator('\t').map(str::to_owned).collect();
        text.lines().map(call).collect()
    }

    /// The environment of the last call, as `NAME=VALUE`, sorted.
    pub fn environment(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("environment")).unwrap();
        let mut variables: Vec<_> = text.split_terminator('\0').map(str::to_owned).collect();
        variables.sort();
        variables
    }

    /// What `zfs version` prints.
    pub fn set_version(&self, text: &str) {
        fs::write(self.folder.path().join("version"), text).unwrap();
    }

    fn order(&self, file: &str, failing: &Failing) {
        let Failing { after_bytes, status, words } = failing;
        let text = format!("{after_bytes}\n{status}\n{words}");
        fs::write(self.folder.path().join(file), text).unwrap();
    }

    fn slow(&self, file: &str, bytes: u64, pause: Duration) {
        let text = format!("{bytes} {}\n", pause.as_secs_f64());
        fs::write(self.folder.path().join(file), text).unwrap();
    }

    /// The script's folder for a dataset, snapshot or bookmark.
    fn at(&self, name: &str) -> PathBuf {
        let (dataset, point) = match (name.split_once('@'), name.split_once('#')) {
            (Some((dataset, snapshot)), _) => (dataset, format!("snapshots/{snapshot}")),
            (_, Some((dataset, bookmark))) => (dataset, format!("bookmarks/{bookmark}")),
            _ => (name, String::new()),
        };
        self.folder.path().join("pools").join(dataset).join("%").join(point)
    }

    fn next_txg(&self) -> u64 {
        let file = self.folder.path().join("txg");
        let txg = fs::read_to_string(&file).map_or(100, |text| text.trim().parse().unwrap());
        fs::write(file, (txg + 1).to_string()).unwrap();
        txg
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
