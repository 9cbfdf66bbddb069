//! What runs on the other host while a copy goes on: started by ssh, heard through it, ended with
//! it.
//!
//! To push, that is a receiver (`zferry attend`), which gives us a ticket; to fetch, a sender
//! (`zferry deliver`), which is given one and tells how far it is. Its warnings, and what ssh
//! itself has to say, are passed on with the host's name in front. What must never happen: that an
//! ssh is left behind, or that a ticket stands among the words that start the other side.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Receiver, channel};

use super::Ssh;
use crate::dataset::{DatasetName, typed};
use crate::error::{Class, Failure, Side};
use crate::protocol::text::one_line;
use crate::protocol::ticket::{TICKET_BYTES_MAX, Ticket};

/// What runs on the other host while a copy goes on.
#[derive(Debug)]
pub struct FarSide {
    host: String,
    side: Side,
    child: Child,
    /// Open for as long as it is wanted.
    input: Option<ChildStdin>,
    /// Closed, it would be told of no failure.
    said: Option<ChildStdout>,
    /// Passes on what it says on stderr.
    words: JoinHandle<()>,
}

/// A receiver that is to be started on the other host.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// How zferry is called there, for the shell there.
    pub program: String,
    /// What clients' datasets land below.
    pub root: DatasetName,
    /// Ports to listen on, the first that is free; any, where there is none.
    pub ports: Option<(u16, u16)>,
    /// The data come through ssh as well.
    pub through_ssh: bool,
    /// How it works there: letters and digits with nothing that a shell would obey.
    pub flags: Vec<String>,
}

/// What a login may say before the ticket comes.
const NOISE_LINES_MAX: usize = 200;

/// The longest line that is understood, and the longest that is shown.
const LINE_BYTES_MAX: u64 = 64 << 10;
const SHOWN_BYTES_MAX: usize = 4096;

/// Lines that may wait for whoever understands them.
const LINES_MAX: usize = 64;

/// How long it may take to end once the session has.
pub const END_LIMIT: Duration = Duration::from_secs(10);
/// How long its last words may take once it has ended: ssh may have left a master behind, which
/// keeps stderr open.
const WORDS_LIMIT: Duration = Duration::from_secs(1);
/// What a zferry ends with that does not know what it is asked for.
const USAGE: i32 = 3;
const VERSIONS: &str = "see what --far-command starts there; both hosts need this version or later";

const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Ssh {
    /// Starts what receives on the other host, and waits for its ticket: for as long as it takes,
    /// for ssh may ask for a password.
    pub fn start(&self, wanted: &Wanted) -> Result<(FarSide, Ticket), Failure> {
        let (mut far, said) = self.spawn(Side::Target, &wanted.words(), Stdio::null())?;
        let mut said = BufReader::new(said);
        match read_ticket(&mut said) {
            Some(ticket) => {
                far.said = Some(said.into_inner());
                Ok((far, ticket))
            }
            None => Err(far.no_ticket()),
        }
    }

    /// Starts what sends on the other host, by words for the shell there, and gives it a line that
    /// nobody else sees. What comes back are the lines that it says, until it ends.
    pub fn send_for(
        &self,
        words: &str,
        line: &str,
    ) -> Result<(FarSide, Receiver<String>), Failure> {
        let (mut far, said) = self.spawn(Side::Source, words, Stdio::piped())?;
        far.input = far.child.stdin.take();
        if let Some(input) = &mut far.input {
            // One that is gone says why by how it ends.
            let _gone = input.write_all(line.as_bytes()).and_then(|()| input.flush());
        }
        let (tell, lines) = channel(LINES_MAX);
        let read = move || {
            read_lines(BufReader::new(said), |line| tell.blocking_send(line).is_ok());
        };
        let named = thread::Builder::new().name("zferry-far".to_owned());
        named.spawn(read).map_err(|error| no_ssh(&error))?;
        Ok((far, lines))
    }

    fn spawn(
        &self,
        side: Side,
        words: &str,
        input: Stdio,
    ) -> Result<(FarSide, ChildStdout), Failure> {
        let mut command = self.command(&[]);
        command.arg(words).stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| no_ssh(&error))?;
        let said = child.stdout.take().expect("it was asked for");
        let complaints = child.stderr.take().expect("it was asked for");
        let host = self.host().to_owned();
        let pass_on = move || {
            read_lines(BufReader::new(complaints), |line| {
                let line = one_line(&line, SHOWN_BYTES_MAX);
                // Whether anybody reads it or not.
                let _ = writeln!(std::io::stderr(), "{host}: {line}");
                true
            });
        };
        let named = thread::Builder::new().name("zferry-far".to_owned());
        match named.spawn(pass_on) {
            Ok(words) => {
                let host = self.host().to_owned();
                Ok((FarSide { host, side, child, input: None, said: None, words }, said))
            }
            Err(error) => {
                reap(&mut child);
                Err(no_ssh(&error))
            }
        }
    }
}

fn no_ssh(error: &std::io::Error) -> Failure {
    Failure::new(Side::Source, Class::Machine, format!("start ssh: {error}"))
        .with_remedy("install the ssh client, or use zferry://HOST/DATASET")
}

impl Wanted {
    /// For the shell of the other host.
    fn words(&self) -> String {
        let Wanted { program, root, ports, through_ssh, flags } = self;
        let ports = ports.map(|(first, last)| format!(" --ports {first}-{last}"));
        let within = if *through_ssh { " --within-host" } else { "" };
        let ports = ports.unwrap_or_default();
        let flags = [&["attend".to_owned()], flags.as_slice()].concat().join(" ");
        format!("{program} {flags}{within}{ports} --root {}", typed(root.as_str()))
    }
}

/// The first line that is a ticket.
fn read_ticket(said: &mut impl BufRead) -> Option<Ticket> {
    for _ in 0..NOISE_LINES_MAX {
        let mut line = String::new();
        let most = TICKET_BYTES_MAX as u64 + 1;
        if said.by_ref().take(most).read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Ok(ticket) = Ticket::decode(line.trim_end()) {
            return Some(ticket);
        }
    }
    None
}

/// Hands on line after line, until the end or until nobody wants more.
fn read_lines(mut said: impl BufRead, mut tell: impl FnMut(String) -> bool) {
    loop {
        let mut line = Vec::new();
        match said.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        let line = String::from_utf8_lossy(&line);
        if !tell(line.trim_end().to_owned()) {
            return;
        }
    }
}

impl FarSide {
    /// Tells it that it is not wanted any more.
    pub fn hang_up(&mut self) {
        self.input = None;
    }

    /// Waits until it has ended, now that the session has.
    pub fn end(mut self) {
        self.hang_up();
        if self.ended().is_none() {
            tracing::warn!("what was started by ssh on {} is still there", self.host);
        }
    }

    /// Why it has ended without a word about the copy. `began`: it had said something before.
    pub fn lost(mut self, began: bool) -> Failure {
        self.hang_up();
        let status = self.ended();
        let host = &self.host;
        match status {
            // Its ssh ends with 255 in either case.
            Some(_) if began => {
                let what = format!(
                    "ssh to {host} ended before the copy did: the connection was lost, or zferry \
                     was killed there"
                );
                Failure::new(Side::Network, Class::Interrupted, what)
                    .with_remedy("run the same command again: it goes on from what is here")
            }
            status => self.not_started(status),
        }
    }

    fn no_ticket(mut self) -> Failure {
        let status = self.ended();
        if status.is_some() {
            return self.not_started(status);
        }
        let what = format!("what was started on {} gives no ticket", self.host);
        Failure::new(Side::Target, Class::Peer, what).with_remedy(VERSIONS)
    }

    fn not_started(&self, status: Option<ExitStatus>) -> Failure {
        let (host, side) = (&self.host, self.side);
        let role = if side == Side::Target { "receiving" } else { "sending" };
        let code = status.and_then(|status| status.code());
        match code {
            Some(255) => {
                let what = format!("no connection by ssh to {host}; what ssh said stands above");
                Failure::new(Side::Network, Class::Interrupted, what)
                    .with_remedy(format!("see that this works: ssh {host} true"))
            }
            Some(127) => {
                let what = format!("there is no zferry on {host}, or not where its shell looks");
                Failure::new(side, Class::Machine, what)
                    .with_remedy("install it there, or say how to call it: --far-command")
            }
            _ => {
                let status = status.map_or("it hangs".to_owned(), |status| status.to_string());
                let what = format!(
                    "the {role} side on {host} did not start ({status}); what it said stands above"
                );
                let failure = Failure::new(side, Class::Machine, what);
                match code {
                    Some(USAGE) | None => failure.with_remedy(VERSIONS),
                    // It has said itself what is to be done.
                    Some(_) => failure,
                }
            }
        }
    }

    /// Waits for the end and for its last words, but not for ever.
    fn ended(&mut self) -> Option<ExitStatus> {
        let status = wait_for(END_LIMIT, || self.child.try_wait().ok().flatten());
        reap(&mut self.child);
        wait_for(WORDS_LIMIT, || self.words.is_finished().then_some(()));
        status
    }
}

/// Whoever lets go of it without waiting has no use for it.
impl Drop for FarSide {
    fn drop(&mut self) {
        reap(&mut self.child);
    }
}

fn reap(child: &mut Child) {
    let _already_gone = child.kill();
    let _reaped = child.wait();
}

fn wait_for<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + limit;
    loop {
        match look() {
            Some(seen) => return Some(seen),
            None if Instant::now() >= until => return None,
            None => thread::sleep(LOOK_EVERY),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;
    use crate::protocol::secret::JoinSecret;
    use crate::trust::Fingerprint;

    #[test]
    fn a_name_with_a_blank_is_one_word_for_the_shell_there() {
        let wanted = Wanted {
            program: "sudo zferry".to_owned(),
            root: "backup/a b".parse().unwrap(),
            ports: Some((7100, 7199)),
            through_ssh: true,
            flags: vec!["--cache=4".to_owned()],
        };
        let words =
            "sudo zferry attend --cache=4 --within-host --ports 7100-7199 --root 'backup/a b'";
        assert_eq!(wanted.words(), words);
    }

    #[test]
    fn a_ticket_is_found_behind_what_a_login_says() {
        let secret = JoinSecret::new([7; 16]);
        let ticket = Ticket::new("[::1]:7".parse().unwrap(), Fingerprint::of(b"a key"), secret);
        let said = format!("Welcome!\n{}\n{}more\n", "x".repeat(2000), ticket.encode());
        assert_eq!(read_ticket(&mut said.as_bytes()), Some(ticket.clone()));
        let endless = "no ticket\n".repeat(NOISE_LINES_MAX) + &ticket.encode();
        assert_eq!(read_ticket(&mut endless.as_bytes()), None);
        assert_eq!(read_ticket(&mut b"".as_slice()), None);
    }

    #[test]
    fn endless_lines_come_in_pieces() {
        let most = usize::try_from(LINE_BYTES_MAX).unwrap();
        let said = format!("one\r\n\n{}\nlast", "x".repeat(most + 5));
        let mut lines = Vec::new();
        read_lines(said.as_bytes(), |line| {
            lines.push(line);
            true
        });
        let lengths: Vec<usize> = lines.iter().map(String::len).collect();
        assert_eq!(lengths, [3, 0, most, 5, 4]);
        let mut count = 0;
        read_lines(said.as_bytes(), |_| {
            count += 1;
            count < 2
        });
        assert_eq!(count, 2, "nobody wanted more");
    }

    #[test]
    fn whoever_lets_go_of_the_other_side_leaves_no_ssh_behind() {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = format!("/proc/{}", child.id());
        assert!(Path::new(&process).exists());
        let (host, side, words) = ("h".to_owned(), Side::Source, thread::spawn(|| ()));
        drop(FarSide { host, side, child, input: None, said: None, words });
        assert!(!Path::new(&process).exists());
    }
}
