//! A child process at one end of a pipe of ours: the first and the last metre of the data's way.
//!
//! Stands below `zfs` and serves any other command that a stream comes from or goes to. The pipe
//! has its size before the child is spawned, and the child's end stays blocking, for `zfs` takes
//! `EAGAIN` for failure. What must never happen here: a child that outlives its [`Process`], as a
//! zombie or as a `zfs` that keeps a dataset busy.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sys::pidfd::{PidFd, StopSignal};
use sys::pipe::Pipe;

use crate::units::Bytes;

/// The pipe that is asked for; `sys::pipe` takes less where the kernel grants less. One of 64 KiB
/// halves the throughput of `zfs send`.
pub const PIPE_BYTES: Bytes = Bytes::MIB;

/// How much of a child's last words is kept; what came before them is dropped.
pub const STDERR_BYTES_MAX: usize = 64 << 10;

/// How long [`Process::wait`] waits for the rest of stderr when the child itself has ended: a
/// grandchild in the background may hold it open for ever.
const STDERR_GRACE: Duration = Duration::from_secs(1);

/// How often it is looked whether a child has ended that has a limit.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What becomes of the child's stderr. It is kept for [`Ended`] in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stderr {
    /// Kept only: we tell the user ourselves what `zfs` said.
    Kept,
    /// Shown on our own stderr as it comes, too: the words of the user's own command.
    Shown,
}

/// A running child in a process group of its own, so that Ctrl-C at a terminal reaches only us and
/// we decide what becomes of the child.
///
/// Dropped before [`Process::wait`], it kills the child and waits until it is gone, which for a
/// `zfs receive` may take seconds (it waits for a transaction group).
#[derive(Debug)]
pub struct Process {
    child: Child,
    pidfd: Arc<PidFd>,
    stderr: Collector,
    waited: bool,
}

/// How a child ended, and its last words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status, or the signal that killed it. Shown with `{}`: see [`Ended`]'s `Display`.
    pub status: ExitStatus,
    /// The last [`STDERR_BYTES_MAX`] bytes of its stderr; what is not UTF-8 is replaced.
    pub stderr: String,
}

/// What became of a child that was waited for with a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It has ended by itself.
    Ended(Ended),
    /// It had to be killed, with its group.
    OutOfIt(Ended),
}

/// Stops a [`Process`] from any thread, at any time, even after it was waited for.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<PidFd>);

impl Process {
    /// Spawns `command` so that its stdout is the pipe whose read end we get.
    ///
    /// Its stdin is empty. Stdout and stderr that `command` may have been given are replaced.
    pub fn writing(mut command: Command, stderr: Stderr) -> io::Result<(Process, OwnedFd)> {
        let pipe = Pipe::new(PIPE_BYTES.as_usize())?;
        command.stdin(Stdio::null()).stdout(pipe.writer);
        Ok((Process::spawn(command, stderr)?, pipe.reader))
    }

    /// Spawns `command` so that its stdin is the pipe whose write end we get; closing that end is
    /// the end of its input.
    ///
    /// Its stdout stays as `command` says: our own, unless it was given another.
    pub fn reading(mut command: Command, stderr: Stderr) -> io::Result<(Process, OwnedFd)> {
        let pipe = Pipe::new(PIPE_BYTES.as_usize())?;
        command.stdin(pipe.reader);
        Ok((Process::spawn(command, stderr)?, pipe.writer))
    }

    /// Takes `command` by value: it holds the child's end of the pipe, and while we held that too
    /// we would never see the end of the stream.
    fn spawn(mut command: Command, stderr: Stderr) -> io::Result<Process> {
        command.stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        match watch(&mut child, stderr) {
            Ok((pidfd, stderr)) => Ok(Process { child, pidfd, stderr, waited: false }),
            Err(error) => {
                // Nobody else has waited, so the pid is still the child's.
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// The child's pid, for logs: to signal it, use [`Process::stopper`].
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A handle that stops this process from another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.pidfd))
    }

    /// Waits until the child has ended. It may first have to be given the end of its input, or a
    /// reader: that is the caller's end of the pipe.
    pub fn wait(mut self) -> io::Result<Ended> {
        let status = self.child.wait()?;
        self.waited = true;
        Ok(Ended { status, stderr: self.stderr.finish() })
    }

    /// Waits as [`Process::wait`] does, but no longer than `limit`: then the child is killed, and
    /// what it has started with it as far as that is in its group still.
    pub fn wait_for(mut self, limit: Duration) -> io::Result<Patience> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.waited = true;
                let stderr = self.stderr.finish();
                return Ok(Patience::Ended(Ended { status, stderr }));
            }
            if started.elapsed() >= limit {
                sys::group::kill(&mut self.child)?;
                return Ok(Patience::OutOfIt(self.wait()?));
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.waited {
            // Without success there is nothing left to do: SIGKILL to one's own child fails only
            // when it is gone.
            let _ = self.pidfd.stop(StopSignal::Kill);
            let _ = self.child.wait();
        }
    }
}

fn watch(child: &mut Child, stderr: Stderr) -> io::Result<(Arc<PidFd>, Collector)> {
    let pidfd = PidFd::of(child)?;
    let words = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
    Ok((Arc::new(pidfd), Collector::start(words, stderr == Stderr::Shown)?))
}

impl Stopper {
    /// Asks the process, and the group that it leads, to end (`SIGTERM`). That it has ended
    /// already is a success.
    pub fn terminate(&self) -> io::Result<()> {
        self.0.stop(StopSignal::Terminate)
    }

    /// Ends the process, and the group that it leads, at once (`SIGKILL`). `zfs` needs no more
    /// courtesy: a killed receive keeps its state.
    pub fn kill(&self) -> io::Result<()> {
        self.0.stop(StopSignal::Kill)
    }
}

impl Ended {
    /// Whether it exited with status 0. For `zfs receive` that is not the whole truth: it is 0 too
    /// when a mount or a property failed.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// The signal that killed it.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

impl fmt::Display for Ended {
    /// `exit status 1`, `killed by signal 9 (SIGKILL)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status.code(), self.signal()) {
            (Some(code), _) => write!(f, "exit status {code}"),
            (None, Some(signal)) => match signal_name(signal) {
                Some(name) => write!(f, "killed by signal {signal} ({name})"),
                None => write!(f, "killed by signal {signal}"),
            },
            (None, None) => write!(f, "{}", self.status),
        }
    }
}

/// The names of the signals that end processes in practice; they are the same on all of Linux.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        6 => "SIGABRT",
        7 => "SIGBUS",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return None,
    })
}

/// Reads a child's stderr on a thread, so that the child never blocks on its own complaints.
#[derive(Debug)]
struct Collector {
    kept: Arc<Mutex<Vec<u8>>>,
    ended: Receiver<()>,
}

impl Collector {
    fn start(mut words: ChildStderr, shown: bool) -> io::Result<Collector> {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (end, ended) = channel::<()>();
        let tail = Arc::clone(&kept);
        let collect = move || {
            // Dropped at the end, which is what the receiver waits for.
            let _end = end;
            let mut chunk = [0; 4096];
            while let Ok(length) = words.read(&mut chunk) {
                let Some(words) = chunk.get(..length).filter(|words| !words.is_empty()) else {
                    break;
                };
                if shown {
                    // A closed stderr of ours is no reason to stop reading the child's.
                    let _ = io::stderr().write_all(words);
                }
                keep_last(&mut tail.lock().unwrap_or_else(PoisonError::into_inner), words);
            }
        };
        thread::Builder::new().name("stderr".to_owned()).spawn(collect)?;
        Ok(Collector { kept, ended })
    }

    fn finish(&self) -> String {
        let _ = self.ended.recv_timeout(STDERR_GRACE);
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).into_owned()
    }
}

/// Appends `words` and drops from the front what is more than [`STDERR_BYTES_MAX`].
fn keep_last(kept: &mut Vec<u8>, words: &[u8]) {
    kept.extend_from_slice(words);
    let surplus = kept.len().saturating_sub(STDERR_BYTES_MAX);
    kept.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn is_alive(pid: u32) -> bool {
        fs::exists(format!("/proc/{pid}")).unwrap()
    }

    #[test]
    fn what_a_child_writes_comes_out_of_our_end_and_then_ends() {
        let (process, output) =
            Process::writing(shell("echo a; echo b >&2"), Stderr::Kept).unwrap();
        assert_eq!(io::read_to_string(File::from(output)).unwrap(), "a\n");
        let ended = process.wait().unwrap();
        assert!(ended.success());
        assert_eq!(ended.stderr, "b\n");
    }

    #[test]
    fn what_we_write_is_what_a_child_reads() {
        let mut command = shell("cat >&2; exit 3");
        command.stdout(Stdio::null());
        let (process, input) = Process::reading(command, Stderr::Kept).unwrap();
        let mut input = File::from(input);
        input.write_all(b"some words").unwrap();
        drop(input);
        let ended = process.wait().unwrap();
        assert_eq!(
            (ended.to_string().as_str(), ended.stderr.as_str()),
            ("exit status 3", "some words")
        );
    }

    #[test]
    fn pipes_are_large_before_the_child_starts() {
        let (process, output) = Process::writing(shell("sleep 60"), Stderr::Kept).unwrap();
        // Compared with a fresh one, for a user with many pipes is granted less.
        let granted = Pipe::new(PIPE_BYTES.as_usize()).unwrap().capacity;
        assert_eq!(sys::pipe::capacity(&output).unwrap(), granted);
        drop(process);
    }

    #[test]
    fn a_child_that_loses_its_reader_dies_of_sigpipe() {
        let (process, output) = Process::writing(Command::new("yes"), Stderr::Kept).unwrap();
        drop(output);
        let ended = process.wait().unwrap();
        assert_eq!(ended.signal(), Some(13), "SIGPIPE was not restored for the child: {ended}");
        assert_eq!(ended.to_string(), "killed by signal 13 (SIGPIPE)");
    }

    #[test]
    fn a_dropped_process_is_gone_with_its_group() {
        // The shell waits for a grandchild, whose pid it tells us.
        let (process, output) =
            Process::writing(shell("sleep 60 & echo $!; wait"), Stderr::Kept).unwrap();
        let mut line = [0; 16];
        let length = File::from(output).read(&mut line).unwrap();
        let grandchild: u32 = str::from_utf8(&line[..length]).unwrap().trim().parse().unwrap();
        let child = process.pid();
        assert!(is_alive(child) && is_alive(grandchild));
        drop(process);
        assert!(!is_alive(child), "the child is still there, alive or as a zombie");
        if reaches_groups() {
            let started = Instant::now();
            while is_alive(grandchild) && started.elapsed() < Duration::from_secs(5) {
                thread::sleep(Duration::from_millis(5));
            }
            let state = fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
            // Where nobody reaps orphans it stays as a zombie, which holds nothing.
            assert!(state.is_empty() || state.contains(") Z "), "the group outlived us: {state}");
        }
    }

    /// Whether this kernel can signal a group by pidfd (6.9).
    fn reaches_groups() -> bool {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 9)
    }

    #[test]
    fn a_stopper_stops_from_another_thread_and_after_the_end() {
        let (process, _output) = Process::writing(shell("sleep 60"), Stderr::Kept).unwrap();
        let stopper = process.stopper();
        let other = stopper.clone();
        let stopping = thread::spawn(move || other.terminate());
        let ended = process.wait().unwrap();
        stopping.join().unwrap().unwrap();
        assert_eq!(ended.to_string(), "killed by signal 15 (SIGTERM)");
        stopper.kill().unwrap();
        stopper.terminate().unwrap();
    }

    #[test]
    fn one_that_takes_too_long_is_killed_with_what_it_has_started() {
        let script = "sleep 60 & echo $! >&2; wait";
        let (process, input) = Process::reading(shell(script), Stderr::Kept).unwrap();
        drop(input);
        let Patience::OutOfIt(ended) = process.wait_for(Duration::from_millis(300)).unwrap() else {
            panic!("it ended by itself")
        };
        assert_eq!(ended.signal(), Some(9));
        let grandchild: u32 = ended.stderr.trim().parse().unwrap();
        // Where nobody reaps orphans it stays as a zombie, which holds nothing. To be killed takes
        // a moment, and the sleep of its own would take a minute.
        let stat = format!("/proc/{grandchild}/stat");
        let state = || fs::read_to_string(&stat).unwrap_or_default();
        let is_gone = || state().is_empty() || state().contains(") Z ");
        let until = Instant::now() + Duration::from_secs(20);
        while !is_gone() {
            assert!(Instant::now() < until, "{}", state());
            thread::sleep(Duration::from_millis(5));
        }
        let (process, _input) = Process::reading(shell("exit 3"), Stderr::Kept).unwrap();
        let Patience::Ended(ended) = process.wait_for(Duration::from_secs(60)).unwrap() else {
            panic!("it was killed")
        };
        assert_eq!(ended.status.code(), Some(3));
    }

    #[test]
    fn of_many_words_the_last_are_kept() {
        let script =
            "i=0; while [ $i -lt 20000 ]; do echo 12345; i=$((i+1)); done >&2; echo end >&2";
        let (process, _output) = Process::writing(shell(script), Stderr::Kept).unwrap();
        let ended = process.wait().unwrap();
        assert_eq!(ended.stderr.len(), STDERR_BYTES_MAX);
        assert!(ended.stderr.ends_with("12345\nend\n"));
    }

    #[test]
    fn a_grandchild_that_keeps_stderr_open_does_not_keep_us() {
        let script = "echo words >&2; sleep 30 > /dev/null & exit 1";
        let (process, _output) = Process::writing(shell(script), Stderr::Kept).unwrap();
        let (started, stopper) = (Instant::now(), process.stopper());
        let ended = process.wait().unwrap();
        assert!(started.elapsed() < Duration::from_secs(20));
        assert_eq!(ended.stderr, "words\n");
        stopper.kill().unwrap();
    }

    #[test]
    fn a_child_leads_a_group_of_its_own() {
        let script = "ps -o pgid= -p $$ 2>/dev/null || cut -d' ' -f5 /proc/$$/stat";
        let (process, output) = Process::writing(shell(script), Stderr::Kept).unwrap();
        let group = io::read_to_string(File::from(output)).unwrap();
        assert_eq!(group.trim(), process.pid().to_string());
        process.wait().unwrap();
    }

    #[test]
    fn a_program_that_does_not_exist_is_an_error_of_the_spawn() {
        let error = Process::writing(Command::new("/nonexistent/zfs"), Stderr::Kept).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
