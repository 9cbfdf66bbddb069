//! The source and the sink of `ci/bench`: the same for every contender, and charged to none.
//!
//! Writes a stream into one pipe, reads it back out of another, and runs the contender's two
//! processes in between; or nothing, and then one pipe is the floor. Source and sink are threads of
//! this process, so what the kernel charges to its children is the contender's alone. What must
//! never happen here: a figure for a stream that did not arrive.
//!
//! `pump --bytes N --pipe BYTES [--data noise|text|zeros|mixed|FILE] [--check] [--seconds-max S]
//! [--child-sink FILE] [--port P --receiver COMMAND... --sender COMMAND...]` prints seconds, CPU
//! seconds and the largest peak RSS in KiB on one line.
//!
//! With `--child-sink` the receiver starts the sink itself, as it would start `zfs receive`: this
//! program under the name of `zfs`. It leaves its account in FILE, and its CPU is taken off.

mod children;
mod data;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use sys::pipe::Pipe;

use children::{ACCOUNT, Children};
use data::Data;

/// What the sink asks for at once.
const READ_BYTES: usize = 1 << 20;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Default)]
struct Orders {
    data: String,
    bytes: usize,
    pipe_bytes: usize,
    check: bool,
    limit: Duration,
    port: u16,
    child_sink: Option<String>,
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
    let done = match std::env::var(ACCOUNT) {
        Ok(account) if std::env::args().next().is_some_and(|name| name.ends_with("zfs")) => {
            be_the_sink(&account)
        }
        _ => Orders::read(std::env::args().skip(1)).and_then(Orders::run),
    };
    match done {
        Ok(line) => {
            print!("{line}");
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
        let data = "noise".to_owned();
        let mut orders = Orders { data, limit, pipe_bytes: 1 << 20, ..Orders::default() };
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{flag} needs a value"));
            match flag.as_str() {
                "--data" => orders.data = value()?,
                "--bytes" => orders.bytes = value()?.parse()?,
                "--pipe" => orders.pipe_bytes = value()?.parse()?,
                "--port" => orders.port = value()?.parse()?,
                "--seconds-max" => orders.limit = Duration::from_secs(value()?.parse()?),
                "--child-sink" => orders.child_sink = Some(value()?),
                "--check" => orders.check = true,
                "--receiver" => {
                    let words = arguments.by_ref().take_while(|word| word != "--sender");
                    orders.receiver = words.collect();
                    orders.sender = arguments.by_ref().collect();
                }
                _ => return Err(format!("{flag} is not known").into()),
            }
        }
        if orders.receiver.is_empty() != orders.sender.is_empty() {
            return Err("a receiver and a sender, or neither".into());
        }
        Ok(orders)
    }

    /// Runs the stream once and measures it.
    fn run(self) -> Result<String, Error> {
        let into = Pipe::new(self.pipe_bytes)?;
        let data = Data::named(&self.data).map_err(|error| format!("{}: {error}", self.data))?;
        let account = self.child_sink.as_deref();
        let mut children = Children::default();
        let (started, out) = if self.sender.is_empty() {
            (Moment::now()?, into.reader)
        } else {
            let out = Pipe::new(self.pipe_bytes)?;
            children.spawn(&self.receiver, Stdio::null(), out.writer.into(), account)?;
            children.await_listener(self.port, Instant::now() + self.limit)?;
            let started = Moment::now()?;
            children.spawn(&self.sender, into.reader.into(), Stdio::null(), account)?;
            (started, out.reader)
        };
        let (bytes, check) = (self.bytes, self.check);
        let written = in_background(move || pour(data, into.writer.into(), bytes, check));
        let read = in_background(move || drain(out.into(), check));

        let deadline = Instant::now() + self.limit;
        let mut read = result(&read, deadline, "the sink", &mut children)?;
        let mut ended = Moment::now()?;
        let written = result(&written, deadline, "the source", &mut children)?;
        children.wait(deadline)?;
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let mut cpu = as_seconds(usage.user_time()) + as_seconds(usage.system_time());
        if let Some(account) = account {
            let account = std::fs::read_to_string(account)?;
            let mut fields = account.split_whitespace();
            let mut field = || fields.next().ok_or("the account is not whole");
            read = Passed { bytes: field()?.parse()?, crc32: field()?.parse()? };
            ended = Moment(field()?.parse()?);
            cpu -= field()?.parse::<f64>()?;
        }
        if read != written {
            return Err(format!("sent {written:x?}, but {read:x?} arrived").into());
        }
        let seconds = ended.0 - started.0;
        let rss_kib = if self.sender.is_empty() { 0 } else { usage.max_rss() };
        Ok(format!("{seconds:.6} {cpu:.6} {rss_kib}\n"))
    }
}

/// Seconds since 1970: what this process and a sink of its own can compare.
struct Moment(f64);

impl Moment {
    fn now() -> Result<Moment, Error> {
        Ok(Moment(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64()))
    }
}

/// Reads stdin to its end and leaves an account of it. Whether to check is the second word.
fn be_the_sink(account: &str) -> Result<String, Error> {
    let check = std::env::args().nth(1).is_some_and(|word| word == "check");
    let passed = drain(io::stdin().as_fd().try_clone_to_owned()?.into(), check)?;
    let ended = Moment::now()?.0;
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let cpu = as_seconds(usage.user_time()) + as_seconds(usage.system_time());
    let Passed { bytes, crc32 } = passed;
    std::fs::write(account, format!("{bytes} {crc32} {ended:.6} {cpu:.6}"))?;
    Ok(String::new())
}

fn pour(mut data: Data, mut pipe: File, bytes: usize, check: bool) -> io::Result<Passed> {
    let mut crc32 = crc32fast::Hasher::new();
    let mut poured = 0;
    while poured < bytes {
        let piece = data.piece(poured, bytes - poured)?;
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

fn in_background<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (tell, told) = channel();
    std::thread::spawn(move || tell.send(run()));
    told
}

/// What a thread has told, by then, unless one of the contender's processes fails before.
fn result(
    told: &Receiver<io::Result<Passed>>,
    deadline: Instant,
    who: &str,
    children: &mut Children,
) -> Result<Passed, Error> {
    loop {
        match told.recv_timeout(Duration::from_millis(100)) {
            Ok(passed) => return passed.map_err(|error| format!("{who}: {error}").into()),
            Err(RecvTimeoutError::Disconnected) => return Err(format!("{who} died").into()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        children.none_failed()?;
        if Instant::now() > deadline {
            return Err(format!("{who} did not end in time").into());
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "seconds and microseconds of a run are small")]
fn as_seconds(time: TimeVal) -> f64 {
    time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6
}
