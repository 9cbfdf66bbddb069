//! The processes of a contender: started, waited for, and killed when they are not waited for.
//!
//! What must never happen here: a connection made to see whether a contender listens, which would
//! be taken for its sender's.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Error;

/// Names the file where a sink that is a child leaves its account.
pub const ACCOUNT: &str = "ZFERRY_PUMP_ACCOUNT";

/// Each with its command line.
#[derive(Default)]
pub struct Children(Vec<(String, Child)>);

impl Children {
    /// Starts a command; an `account` is told to it, and to what it starts.
    pub fn spawn(
        &mut self,
        words: &[String],
        stdin: Stdio,
        stdout: Stdio,
        account: Option<&str>,
    ) -> Result<(), Error> {
        let (program, arguments) = words.split_first().ok_or("no command")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(stdin).stdout(stdout);
        command.envs(account.map(|account| (ACCOUNT, account)));
        let child = command.spawn().map_err(|error| format!("start {program}: {error}"))?;
        self.0.push((words.join(" "), child));
        Ok(())
    }

    /// Waits until somebody listens on `port`, by what the kernel says.
    pub fn await_listener(&mut self, port: u16, deadline: Instant) -> Result<(), Error> {
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

    /// Fails where one has ended badly, for then the others may wait for ever.
    pub fn none_failed(&mut self) -> Result<(), Error> {
        for (name, child) in &mut self.0 {
            match child.try_wait()? {
                Some(status) if !status.success() => return Err(format!("{status}: {name}").into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Waits until all have ended well.
    pub fn wait(&mut self, deadline: Instant) -> Result<(), Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn spawned(children: &mut Children, words: &[&str]) {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        children.spawn(&words, Stdio::null(), Stdio::null(), None).unwrap();
    }

    #[test]
    fn one_that_fails_is_seen_while_another_waits() {
        let mut children = Children::default();
        spawned(&mut children, &["sleep", "60"]);
        spawned(&mut children, &["true"]);
        spawned(&mut children, &["false"]);
        let failure = loop {
            match children.none_failed() {
                Ok(()) => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => break error.to_string(),
            }
        };
        assert_eq!(failure, "exit status: 1: false");
    }

    #[test]
    fn one_that_ends_without_having_listened_is_no_listener() {
        let mut children = Children::default();
        spawned(&mut children, &["true"]);
        // Nobody can listen on port 0.
        let error = children.await_listener(0, Instant::now() + Duration::from_secs(60));
        assert_eq!(error.unwrap_err().to_string(), "exit status: 0: true");
    }
}
