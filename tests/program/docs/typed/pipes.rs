//! Each line with `zferry send`, and the one with `zferry receive` that stands before it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::typed_pages;
use crate::support::host::{Running, free_address, wait_for, wait_for_words};
use crate::support::stand_in::StandIn;

/// Two hosts with pools and a folder each, and a port of the second.
struct Pipe {
    here: (StandIn, TempDir),
    there: (StandIn, TempDir),
    address: String,
}

impl Pipe {
    fn new() -> Pipe {
        let host = || (StandIn::new(), tempfile::tempdir().unwrap());
        Pipe { here: host(), there: host(), address: free_address().to_string() }
    }

    /// What the lines of the pages ask for.
    fn prepare(&self, line: &str) {
        let (here, there) = (&self.here.0, &self.there.0);
        here.dataset("tank/a", "filesystem");
        let base = here.snapshot("tank/a", "l", b"last");
        here.snapshot("tank/a", "m", &vec![1; 300_000]);
        here.snapshot("tank/a", "monday", &vec![2; 300_000]);
        fs::write(self.here.1.path().join("file"), "in a file").unwrap();
        if line.contains("-i @l") {
            there.dataset("backup/a", "filesystem");
            there.snapshot_with_guid("backup/a", "l", base, b"last");
        }
        if line.contains("TOKEN") {
            let cut = format!(
                "set +o pipefail; zfs send tank/a@m | head -c 200000 | {} receive -s backup/a || :",
                there.program().display()
            );
            self.typed(&self.here, &cut).ended().succeeded();
        }
    }

    /// Has a shell of a host run a line.
    fn typed(&self, host: &(StandIn, TempDir), line: &str) -> Running {
        let folder = Path::new(env!("CARGO_BIN_EXE_zferry")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{}:{path}", host.0.bin().display(), folder.display());
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", &self.filled_in(line)]).current_dir(host.1.path());
        shell.env("PATH", path).stdin(Stdio::null());
        Running::start(shell.stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    fn filled_in(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for address in
            ["0.0.0.0:9090", "HOST:9090", "0.0.0.0:7002", "127.0.0.1:7002", "backup.example:7002"]
        {
            line = line.replace(address, &self.address);
        }
        if line.contains("TOKEN") {
            let get = "zfs get -H -o value receive_resume_token backup/a";
            let token = self.typed(&self.there, get).ended().succeeded().stdout;
            line = line.replace("TOKEN", String::from_utf8(token).unwrap().trim());
        }
        // The stand-in makes no packages; to zferry they are bytes like any others.
        line.replace("zfs send -R", "zfs send").replace("head -c 8G", "head -c 8M")
    }

    /// Runs both lines, and demands that what is sent here has come there.
    fn carries(&self, receive: &str, send: &str) {
        self.prepare(send);
        let receiver = self.typed(&self.there, receive);
        wait_for_words(&receiver, "listening on ");
        if receive.contains("--ticket-out") {
            let [here, there] = [&self.here, &self.there].map(|host| host.1.path().join("ticket"));
            wait_for("the ticket", || there.exists().then_some(()));
            fs::rename(there, here).unwrap();
        }
        let here = self.typed(&self.here, send).ended().succeeded();
        let there = receiver.ended().succeeded();
        self.has_come(send, &here.stderr, &String::from_utf8(there.stdout).unwrap());
    }

    fn has_come(&self, send: &str, said_here: &str, printed_there: &str) {
        let (here, there) = (&self.here.0, &self.there.0);
        // A token is that of `m`.
        let snapshots = [("monday", "@monday"), ("m", "@m"), ("m", "TOKEN")];
        if let Some((name, _)) = snapshots.iter().find(|(_, word)| send.contains(word)) {
            let (ours, theirs) = (format!("tank/a@{name}"), format!("backup/a@{name}"));
            assert_eq!(here.content(&ours), there.content(&theirs));
        } else if send.contains("tar") {
            let file = fs::read_to_string(self.there.1.path().join("file")).unwrap();
            assert_eq!(file, "in a file");
        } else {
            let is_sum = printed_there.len() > 64 && said_here.contains(printed_there);
            assert!(is_sum, "{printed_there} {said_here}");
        }
    }
}

/// Whether it is all that is typed.
fn is_whole(line: &str) -> bool {
    !["...", "ADDR:PORT", "HOST:PORT"].iter().any(|left_out| line.contains(left_out))
}

#[test]
fn every_pipe_carries_what_is_put_into_it() {
    let mut count = 0;
    for page in typed_pages() {
        let mut receive = None;
        for line in [page.spans(), page.shell_lines()].concat() {
            if line.contains("zferry receive --listen") && is_whole(&line) {
                receive = Some(line);
            } else if line.contains("zferry send ") && is_whole(&line) {
                let receive = receive.as_ref().expect("receive comes first");
                println!("{receive}\n  {line}");
                Pipe::new().carries(receive, &line);
                count += 1;
            }
        }
    }
    assert!(count > 8, "{count}");
}
