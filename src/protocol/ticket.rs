//! What lets one sender in, once: where a receiver listens, what its key is, and a secret.
//!
//! The receiver makes it and hands it over on a way of its own: through ssh, or in a file that only
//! one user reads. Both ends need no other knowledge of each other. What must never happen: that it
//! is printed, or stands where other users of a host can see it (arguments, environment).

use core::net::SocketAddr;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::secret::JoinSecret;
use crate::trust::Fingerprint;

/// A right to send one stream.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// 1 in this version.
    #[serde(rename = "zferry_ticket")]
    version: u16,
    /// Where the receiver listens. An unspecified address (`0.0.0.0`) stands for all of its host.
    pub address: SocketAddr,
    /// Whose key it will show.
    pub server: Fingerprint,
    /// What the sender proves to know.
    pub secret: JoinSecret,
}

/// Why a text is no ticket. It does not repeat the text, for that holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum NotATicket {
    /// A ticket is much shorter.
    #[error("a ticket is one line of at most {TICKET_BYTES_MAX} bytes")]
    TooLong,
    /// It is something else, or was cut short.
    #[error("this is no ticket of `zferry receive --ticket-out`, or not all of it")]
    Malformed,
    /// A later version made it.
    #[error("this is a ticket of version {0}; this zferry knows version 1")]
    Version(u16),
}

/// More than twice what one takes.
pub const TICKET_BYTES_MAX: usize = 512;

impl Ticket {
    /// For one sender, who will find a server with this key at this address.
    pub fn new(address: SocketAddr, server: Fingerprint, secret: JoinSecret) -> Ticket {
        Ticket { version: 1, address, server, secret }
    }

    /// One line of text.
    pub fn encode(&self) -> String {
        let mut line = serde_json::to_string(self).expect("a ticket has nothing that JSON has not");
        line.push('\n');
        line
    }

    /// Reads what [`Ticket::encode`] made.
    pub fn decode(text: &str) -> Result<Ticket, NotATicket> {
        if text.len() > TICKET_BYTES_MAX {
            return Err(NotATicket::TooLong);
        }
        let ticket: Ticket = serde_json::from_str(text).map_err(|_| NotATicket::Malformed)?;
        if ticket.version != 1 {
            return Err(NotATicket::Version(ticket.version));
        }
        Ok(ticket)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({}, {}, redacted)", self.address, self.server)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ticket() -> Ticket {
        let server = Fingerprint::of(b"a key");
        Ticket::new("[::1]:7002".parse().unwrap(), server, JoinSecret::new([7; 16]))
    }

    #[test]
    fn a_ticket_is_one_line_that_reads_back() {
        let line = ticket().encode();
        assert_eq!((line.matches('\n').count(), line.len() < TICKET_BYTES_MAX / 2), (1, true));
        assert_eq!(Ticket::decode(&line).unwrap(), ticket());
    }

    #[test]
    fn what_is_none_is_refused_and_not_repeated() {
        let line = ticket().encode();
        let secret = String::from(ticket().secret);
        let later = line.replace("\"zferry_ticket\":1", "\"zferry_ticket\":2");
        for text in [&line[..60], "", "{}", &line.replace("SHA256", "MD5"), &line.repeat(2), &later]
        {
            let refused = Ticket::decode(text).unwrap_err();
            assert!(!format!("{refused} {refused:?}").contains(&secret), "{refused}");
        }
        assert!(matches!(Ticket::decode(&later), Err(NotATicket::Version(2))));
        assert!(matches!(Ticket::decode(&" ".repeat(513)), Err(NotATicket::TooLong)));
    }

    #[test]
    fn the_secret_is_not_printed() {
        assert!(!format!("{:?}", ticket()).contains(&String::from(ticket().secret)));
    }

    proptest! {
        #[test]
        fn no_text_is_more_than_refused(text in ".{0,600}") {
            let _ = Ticket::decode(&text);
        }
    }
}
