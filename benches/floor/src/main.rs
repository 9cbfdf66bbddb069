//! The lane floor of `ci/bench`: the least that one TCP connection between two pipes can cost.
//!
//! Both sides move pages by splice(2), pipe to socket and socket to pipe, in a blocking loop. There
//! is no framing, no check and no second try, so nobody should send anything that matters this way.
//! What must never happen here: a byte that this program itself has read or copied.
//!
//! `floor receive --listen ADDRESS` takes one connection and writes it to stdout; `floor send
//! ADDRESS` sends it stdin. Both ends must be pipes.

use std::io::{self, Read, stdin, stdout};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};

/// What a pipe of `ci/bench` holds: more than that is never there at once.
const SPLICE_BYTES: usize = 1 << 20;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match *words {
        ["receive", "--listen", address] => receive(address),
        ["send", address] => send(address),
        _ => {
            eprintln!("floor: usage: floor receive --listen ADDRESS, or floor send ADDRESS");
            return ExitCode::from(3);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {}: {error}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn receive(address: &str) -> io::Result<()> {
    let (socket, _) = TcpListener::bind(address)?.accept()?;
    move_all(&socket, &stdout())
}

fn send(address: &str) -> io::Result<()> {
    let mut socket = TcpStream::connect(address)?;
    move_all(&stdin(), &socket)?;
    socket.shutdown(Shutdown::Write)?;
    // It closes when it has handed all on, or when it has failed, which its exit status says.
    match socket.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("the receiver has answered, which it never does")),
    }
}

/// From one descriptor to the other until the first has ended; one of them is a pipe.
fn move_all(from: &impl AsFd, to: &impl AsFd) -> io::Result<()> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_MORE;
    loop {
        match splice(from, None, to, None, SPLICE_BYTES, flags) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
