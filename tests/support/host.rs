//! Runs the real binary: clients, servers, what they say and how they end.
//!
//! Nothing here outlives its test: a process is killed by its handle when that is dropped, and
//! every wait ends at [`LIMIT`] with the words that the process had said by then.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::stand_in::StandIn;

/// No wait is longer. Far beyond what anything takes, for the machine may be building as well, and
/// many tests run beside one another.
pub const LIMIT: Duration = Duration::from_secs(300);

/// How long a process may hold our pipes after its end, through children of its own.
const PIPES_LIMIT: Duration = Duration::from_secs(10);

const LOOK_EVERY: Duration = Duration::from_millis(5);

/// `zferry` with `words`: stdin is empty, stdout and stderr are collected.
pub fn zferry(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zferry"));
    command.args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The same at a terminal: what it says on stderr comes out on stdout.
pub fn zferry_at_a_terminal(words: &[&str]) -> Command {
    let call = [&[env!("CARGO_BIN_EXE_zferry")], words].concat().join(" ");
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &call, "/dev/null"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The same on a host of its own: its `zfs` is the first in `PATH`.
pub fn zferry_on(host: &StandIn, words: &[&str]) -> Command {
    let path = std::env::var("PATH").unwrap();
    let mut command = zferry(words);
    command.env("PATH", format!("{}:{path}", host.bin().display()));
    command
}

/// A process that is killed when this is dropped.
pub struct Running {
    child: Child,
    stdout: Collected,
    stderr: Collected,
    peak_rss_bytes: u64,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
    /// The most memory that it had at once, as of a few milliseconds before its end.
    pub peak_rss_bytes: u64,
}

/// A `zferry serve` or `receive` that listens.
pub struct Server {
    pub running: Running,
    pub address: SocketAddr,
}

/// What comes out of a pipe, read as it comes so that nobody waits for us.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts a process; pipes that `command` asks for are collected.
    pub fn start(command: &mut Command) -> Running {
        let mut child = command.spawn().unwrap();
        let stdout = Collected::from(child.stdout.take());
        let stderr = Collected::from(child.stderr.take());
        Running { child, stdout, stderr, peak_rss_bytes: 0 }
    }

    /// Writes `bytes` to its stdin, which must be piped, and closes it; a reader that has gone is
    /// no mistake of ours.
    pub fn feed(&mut self, bytes: Vec<u8>) {
        let mut stdin = self.child.stdin.take().unwrap();
        thread::spawn(move || drop(stdin.write_all(&bytes)));
    }

    /// Its stdin, which must be piped: closed when dropped.
    pub fn stdin(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// What it has written to stdout so far.
    pub fn stdout(&self) -> Vec<u8> {
        self.stdout.so_far()
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.stderr.so_far()).into_owned()
    }

    /// Sends it a signal, by its name: `"INT"`.
    pub fn signal(&self, name: &str) {
        // Nobody has waited for it, so the pid is its own.
        let order = format!("kill -s {name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &order]).status().unwrap().success());
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub fn ended(mut self) -> Ended {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.stdout.wait();
                self.stderr.wait();
                return Ended {
                    status,
                    stdout: self.stdout(),
                    stderr: self.said(),
                    peak_rss_bytes: self.peak_rss_bytes,
                };
            }
            if let Some(bytes) = peak_rss_bytes(self.child.id()) {
                self.peak_rss_bytes = bytes;
            }
            assert!(started.elapsed() < LIMIT, "it goes on and on; it said: {}", self.said());
            thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only one that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// The exit code; a signal is none.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| {
            panic!("killed by signal {:?}; it said: {}", self.status.signal(), self.stderr)
        })
    }

    /// Demands that it went well.
    #[track_caller]
    pub fn succeeded(self) -> Ended {
        assert_eq!(self.code(), 0, "it said: {}", self.stderr);
        self
    }

    /// Demands this exit code, and that all of these words were said.
    #[track_caller]
    pub fn failed_with(self, code: i32, words: &[&str]) -> Ended {
        assert_eq!(self.code(), code, "it said: {}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in: {}", self.stderr);
        }
        self
    }
}

impl Server {
    /// Starts a process that listens, and waits until it says where.
    pub fn start(command: &mut Command) -> Server {
        Server::of(Running::start(command))
    }

    /// Waits until a process says where it listens.
    pub fn of(mut running: Running) -> Server {
        let address = wait_for("the address it listens on", || {
            let (is_running, said) = (running.is_running(), running.said());
            assert!(is_running || said.contains("listening on "), "it ended: {said}");
            let line = said.lines().find_map(|line| line.strip_prefix("listening on "))?;
            // The line may not be whole yet.
            said.contains(&format!("{line}\n")).then(|| line.parse().unwrap())
        });
        Server { running, address }
    }

    /// `zferry serve --root backup` on `host`.
    pub fn serve(host: &StandIn, flags: &[&str]) -> Server {
        let mut words = vec!["serve", "--listen", "127.0.0.1:0", "--plain", "--root", "backup"];
        words.extend(flags);
        Server::start(&mut zferry_on(host, &words))
    }

    /// `zferry receive`; its stdout is collected.
    pub fn receive(flags: &[&str]) -> Server {
        let mut words = vec!["receive", "--listen", "127.0.0.1:0", "--plain"];
        words.extend(flags);
        Server::start(&mut zferry(&words))
    }

    /// The target for `replicate`: `dataset` below the root.
    pub fn url(&self, dataset: &str) -> String {
        format!("zferry://{}/{dataset}", self.address)
    }

    /// Asks it to stop, and waits for its end.
    pub fn stopped(self) -> Ended {
        self.running.signal("TERM");
        self.running.ended()
    }

    /// Demands that it is still there and serves a real client.
    #[track_caller]
    pub fn still_serves(&self) {
        let source = StandIn::new();
        source.dataset("tank/proof", "filesystem");
        source.snapshot("tank/proof", "s", b"alive");
        let name = format!("proof{}", PROOFS.fetch_add(1, Ordering::Relaxed));
        replicate(&source, "tank/proof", &self.url(&name), &["--no-snapshot"]).ended().succeeded();
    }
}

/// How many servers were asked to prove that they serve.
static PROOFS: AtomicU32 = AtomicU32::new(0);

/// `zferry replicate` on `host`, which tells every failure instead of trying again.
pub fn replicate(host: &StandIn, from: &str, to: &str, flags: &[&str]) -> Running {
    replicate_for(0, host, from, to, flags)
}

/// The same, which tries again for so many seconds.
pub fn replicate_for(
    seconds: u32,
    host: &StandIn,
    from: &str,
    to: &str,
    flags: &[&str],
) -> Running {
    let seconds = seconds.to_string();
    let mut words = vec!["replicate", from, to, "--retry-for", &seconds];
    // Within one host nothing could be encrypted.
    words.extend(to.starts_with("zferry://").then_some("--plain"));
    words.extend(flags);
    Running::start(&mut zferry_on(host, &words))
}

/// `zferry send` to `address` with `input` as its stdin.
pub fn send(address: SocketAddr, flags: &[&str], input: Vec<u8>) -> Running {
    let mut sender = send_open(address, flags);
    sender.feed(input);
    sender
}

/// `zferry send` whose stdin stays open.
pub fn send_open(address: SocketAddr, flags: &[&str]) -> Running {
    let address = address.to_string();
    let mut words = vec!["send", address.as_str(), "--plain"];
    words.extend(flags);
    Running::start(zferry(&words).stdin(Stdio::piped()))
}

/// An address that nobody has and nobody is given: its port is none that the kernel gives to
/// clients and to whoever asks for any, of whom there are many here. It can be had again, too.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 10_000).unwrap();
    loop {
        let port = 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if let Ok(free) = TcpListener::bind(("127.0.0.1", port)) {
            return free.local_addr().unwrap();
        }
    }
}

/// Looks until there is something to see.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(started.elapsed() < LIMIT, "waited in vain for {what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// Waits until `words` were said.
#[track_caller]
pub fn wait_for_words(running: &Running, words: &str) {
    wait_for(words, || running.said().contains(words).then_some(()));
}

/// The `zfs` calls of a host that are running now.
pub fn running_zfs(host: &StandIn) -> Vec<String> {
    let program = host.program();
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok())
        .filter(|words| words.split('\0').any(|word| Path::new(word) == program))
        .collect()
}

fn peak_rss_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

impl Collected {
    fn from(pipe: Option<impl Read + Send + 'static>) -> Collected {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let inbox = Arc::clone(&bytes);
        let read = |mut pipe: Box<dyn Read + Send>| {
            move || {
                let mut chunk = vec![0; 256 << 10];
                while let Ok(count @ 1..) = pipe.read(&mut chunk) {
                    inbox.lock().unwrap().extend_from_slice(&chunk[..count]);
                }
            }
        };
        let reader = pipe.map(|pipe| thread::spawn(read(Box::new(pipe))));
        Collected { bytes, reader }
    }

    fn so_far(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }

    fn wait(&self) {
        let started = Instant::now();
        let still_open = || self.reader.as_ref().is_some_and(|reader| !reader.is_finished());
        while still_open() && started.elapsed() < PIPES_LIMIT {
            thread::sleep(LOOK_EVERY);
        }
    }
}
