//! The line that lets a sender in, as it comes out of a file or over ssh.

use zferry::protocol::ticket::Ticket;

use crate::{Target, assert_fit_to_be_shown};

/// A line of 512 bytes at most, and what JSON says of it.
pub const TARGET: Target = Target { run, allocated_bytes_max: 64 << 10 };

fn run(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    match Ticket::decode(text) {
        Ok(ticket) => assert_eq!(Ticket::decode(&ticket.encode()).unwrap(), ticket),
        Err(error) => assert_fit_to_be_shown(&error.to_string(), 200),
    }
}
