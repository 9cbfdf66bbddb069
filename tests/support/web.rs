//! Asks by HTTP, as whoever means well and whoever does not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use super::host::{LIMIT, Running, wait_for};

/// An answer.
pub struct Answer {
    pub head: String,
    pub body: String,
}

/// Where a process says that it tells by HTTP.
pub fn listens_at(process: &Running) -> SocketAddr {
    wait_for("the address", || {
        let said = process.said();
        let rest = said.split("http://").nth(1)?;
        rest.split_once('/').map(|(address, _)| address.parse().unwrap())
    })
}

pub fn get(address: SocketAddr, path: &str) -> Answer {
    asked(address, &format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"))
}

pub fn asked(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Answer { head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// What a metric with these labels is, in Prometheus' text.
#[track_caller]
pub fn value(text: &str, sample: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{sample} is not in:\n{text}")).parse().unwrap()
}

/// A program that a Debian package brings.
pub fn installed(program: &str, package: &str) -> Command {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
    assert!(found.status.success(), "there is no {program}: ci/install {package}");
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}
