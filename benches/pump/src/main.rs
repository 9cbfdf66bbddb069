//! The source and the sink of `ci/bench`: the same for every contender, and charged to none.
//!
//! Writes a stream that does not compress into one pipe, reads it back out of another, and runs
//! the contender's two processes in between; or nothing, and then one pipe is the floor. Source
//! and sink are threads of this process, so what the kernel charges to its children is the
//! contender's alone. What must never happen here: a figure for a stream that did not arrive.
//!
//! `pump --bytes N --pipe BYTES [--check] [--seconds-max S] [--port P -- RECEIVER... -- SENDER...]`
//! prints seconds, CPU seconds and the larger peak RSS in KiB on one line.

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use sys::pipe::Pipe;

/// As large as the writes of `zfs send` of datasets with the default record size.
const WRITE_BYTES: usize = 128 << 10;
/// What the sink asks for at once.
const READ_BYTES: usize = 1 << 20;
/// The source's data repeats after this: more than a block, and little for the RSS of a child,
/// which by the kernel's count starts with that of its parent.
const DATA_BYTES: usize = 4 << 20;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Default)]
struct Orders {
    bytes: usize,
    pipe_bytes: usize,
    check: bool,
    limit: Duration,
    port: u16,
    receiver: Vec<String>,
    sender: Vec<String>,
}

/// What passed one end.
#[derive(Debug, PartialEq, Eq)]
struct Passed {
    bytes: usize,
    /// 0 unless the run checks.
    crc32: u32,
}

fn main() -> ExitCode {
    match Orders::read(std::env::args().skip(1)).and_then(Orders::run) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("pump: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Orders {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Orders, Error> {
        let limit = Duration::from_secs(60);
        let mut orders = Orders { limit, pipe_bytes: 1 << 20, ..Orders::default() };
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{flag} needs a value"));
            match flag.as_str() {
                "--bytes" => orders.bytes = value()?.parse()?,
                "--pipe" => orders.pipe_bytes = value()?.parse()?,
                "--port" => orders.port = value()?.parse()?,
                "--seconds-max" => orders.limit = Duration::from_secs(value()?.parse()?),
                "--check" => orders.check = true,
                "--" => break,
                _ => return Err(format!("{flag} is not known").into()),
            }
        }
        orders.receiver = arguments.by_ref().take_while(|word| word != "--").collect();
        orders.sender = arguments.collect();
        if orders.receiver.is_empty() != orders.sender.is_empty() {
            return Err("a receiver and a sender, or neither".into());
        }
        Ok(orders)
    }

    /// Runs the stream once and measures it.
    fn run(self) -> Result<String, Error> {
        let into = Pipe::new(self.pipe_bytes)?;
        let mut children = Children(Vec::new());
        let (started, out) = if self.sender.is_empty() {
            (Instant::now(), into.reader)
        } else {
            let out = Pipe::new(self.pipe_bytes)?;
            children.spawn(&self.receiver, Stdio::null(), out.writer.into())?;
            children.await_listener(self.port, Instant::now() + self.limit)?;
            let started = Instant::now();
            children.spawn(&self.sender, into.reader.into(), Stdio::null())?;
            (started, out.reader)
        };
        let (bytes, check) = (self.bytes, self.check);
        let written = in_background(move || pour(into.writer.into(), bytes, check));
        let read = in_background(move || drain(out.into(), check));

        let deadline = started + self.limit;
        let read = result(&read, deadline, "the sink")?;
        let seconds = started.elapsed().as_secs_f64();
        let written = result(&written, deadline, "the source")?;
        children.wait(deadline)?;
        if read != written {
            return Err(format!("sent {written:x?}, but {read:x?} arrived").into());
        }
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let cpu = as_seconds(usage.user_time()) + as_seconds(usage.system_time());
        let rss_kib = if self.sender.is_empty() { 0 } else { usage.max_rss() };
        Ok(format!("{seconds:.6} {cpu:.6} {rss_kib}"))
    }
}

/// The contender's processes; killed when they are not waited for.
struct Children(Vec<(String, Child)>);

impl Children {
    fn spawn(&mut self, words: &[String], stdin: Stdio, stdout: Stdio) -> Result<(), Error> {
        let (program, arguments) = words.split_first().ok_or("no command")?;
        let spawned = Command::new(program).args(arguments).stdin(stdin).stdout(stdout).spawn();
        let child = spawned.map_err(|error| format!("start {program}: {error}"))?;
        self.0.push((words.join(" "), child));
        Ok(())
    }

    /// Waits until somebody listens on `port`; asks the kernel, for a connection made to try it
    /// would be taken for the sender's.
    fn await_listener(&mut self, port: u16, deadline: Instant) -> Result<(), Error> {
        // sl, local_address, rem_address, st: address and port in hexadecimal, state 0A is LISTEN.
        let listens = |line: &str| {
            let mut fields = line.split_whitespace();
            let local = fields.nth(1).and_then(|address| address.rsplit(':').next());
            fields.nth(1) == Some("0A") && local == Some(format!("{port:04X}").as_str())
        };
        while Instant::now() < deadline {
            for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
                let sockets = std::fs::read_to_string(table).unwrap_or_default();
                if sockets.lines().any(listens) {
                    return Ok(());
                }
            }
            for (name, child) in &mut self.0 {
                if let Some(status) = child.try_wait()? {
                    return Err(format!("{status}: {name}").into());
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(format!("nobody listens on port {port}").into())
    }

    fn wait(&mut self, deadline: Instant) -> Result<(), Error> {
        for (name, child) in &mut self.0 {
            let status = loop {
                match child.try_wait()? {
                    Some(status) => break status,
                    None if Instant::now() > deadline => {
                        return Err(format!("did not end in time: {name}").into());
                    }
                    None => std::thread::sleep(Duration::from_millis(1)),
                }
            };
            if !status.success() {
                return Err(format!("{status}: {name}").into());
            }
        }
        Ok(())
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for (_, child) in &mut self.0 {
            // One that was waited for is left alone by std.
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

fn pour(mut pipe: File, bytes: usize, check: bool) -> io::Result<Passed> {
    let mut data = noise();
    let mut crc32 = crc32fast::Hasher::new();
    let mut poured = 0;
    while poured < bytes {
        let at = poured % DATA_BYTES;
        let piece = &mut data[at..at + WRITE_BYTES.min(bytes - poured)];
        // No two pieces are the same, so that one in the wrong place is seen.
        if let Some(stamp) = piece.first_chunk_mut() {
            *stamp = poured.to_le_bytes();
        }
        if check {
            crc32.update(piece);
        }
        pipe.write_all(piece)?;
        poured += piece.len();
    }
    Ok(Passed { bytes, crc32: crc32.finalize() })
}

fn drain(mut pipe: File, check: bool) -> io::Result<Passed> {
    let mut buffer = vec![0; READ_BYTES];
    let mut crc32 = crc32fast::Hasher::new();
    let mut bytes = 0;
    loop {
        let count = pipe.read(&mut buffer)?;
        if count == 0 {
            return Ok(Passed { bytes, crc32: crc32.finalize() });
        }
        if check {
            crc32.update(&buffer[..count]);
        }
        bytes += count;
    }
}

/// Bytes that no compressor shortens: xorshift64.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(DATA_BYTES / 8).flatten().collect()
}

fn in_background<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (tell, told) = channel();
    std::thread::spawn(move || tell.send(run()));
    told
}

fn result(
    told: &Receiver<io::Result<Passed>>,
    deadline: Instant,
    who: &str,
) -> Result<Passed, Error> {
    match told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(passed) => passed.map_err(|error| format!("{who}: {error}").into()),
        Err(RecvTimeoutError::Timeout) => Err(format!("{who} did not end in time").into()),
        Err(RecvTimeoutError::Disconnected) => Err(format!("{who} died").into()),
    }
}

#[allow(clippy::cast_precision_loss, reason = "seconds and microseconds of a run are small")]
fn as_seconds(time: TimeVal) -> f64 {
    time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6
}
