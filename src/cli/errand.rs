//! What a host is asked for that shall send to us: one line that goes to it through ssh.
//!
//! Between the two halves of a copy that is fetched: `replicate::fetch` writes it to the stdin of
//! `zferry deliver` and keeps that open for as long as the copy is wanted. Everything that somebody
//! typed is in here, so that no shell and no list of processes sees any of it. What must never
//! happen: that the ticket in it is printed.

use std::io::{BufRead, Read};

use serde::{Deserialize, Serialize};

use crate::error::{Class, Failure, Side};
use crate::protocol::ticket::Ticket;

/// A copy that is asked for.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Errand {
    /// 1 in this version.
    #[serde(rename = "zferry_errand")]
    version: u16,
    /// How we let in who brings it.
    ticket: String,
    /// Flags of `zferry deliver`.
    words: Vec<String>,
}

/// Far more than one takes.
const LINE_BYTES_MAX: u64 = 32 << 10;

impl Errand {
    /// For whoever reads it first.
    pub fn new(ticket: &Ticket, words: Vec<String>) -> Errand {
        Errand { version: 1, ticket: ticket.encode(), words }
    }

    /// One line of text.
    pub fn encode(&self) -> Result<String, Failure> {
        let line = serde_json::to_string(self).unwrap_or_default() + "\n";
        if line.len() as u64 > LINE_BYTES_MAX {
            let what = "the names and flags are too long to be told to another host";
            return Err(Failure::new(Side::Source, Class::Usage, what));
        }
        Ok(line)
    }

    /// The first line of what somebody says.
    pub fn read(from: &mut impl BufRead) -> Result<(Ticket, Vec<String>), Failure> {
        let wrong = |what: &str| {
            Failure::new(Side::Source, Class::Usage, what.to_owned()).with_remedy(
                "leave it to `zferry replicate HOST:POOL/DATASET ...` to start this; both hosts \
                 need the same version",
            )
        };
        let mut line = String::new();
        let read = from.take(LINE_BYTES_MAX).read_line(&mut line);
        read.map_err(|_| wrong("nobody says what is to be sent"))?;
        let errand: Errand =
            serde_json::from_str(&line).map_err(|_| wrong("it is not said what is to be sent"))?;
        if errand.version != 1 {
            return Err(wrong("the host that asks for a copy has a later version of zferry"));
        }
        let ticket = Ticket::decode(errand.ticket.trim_end());
        let ticket = ticket.map_err(|_| wrong("the host that asks for a copy gives no ticket"))?;
        Ok((ticket, errand.words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::secret::JoinSecret;
    use crate::trust::Fingerprint;

    fn ticket() -> Ticket {
        let server = Fingerprint::of(b"a key");
        Ticket::new("[::]:7002".parse().unwrap(), server, JoinSecret::new([7; 16]))
    }

    #[test]
    fn an_errand_is_one_line_whatever_is_in_it() {
        let words = vec!["--source=tank/a b".to_owned(), "--spool=/a\n\"'$(x)\\".to_owned()];
        let line = Errand::new(&ticket(), words.clone()).encode().unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        let mut said = line.as_bytes();
        assert_eq!(Errand::read(&mut said).unwrap(), (ticket(), words));
    }

    #[test]
    fn what_is_none_is_refused_and_not_repeated() {
        let secret = String::from(ticket().secret);
        let line = Errand::new(&ticket(), Vec::new()).encode().unwrap();
        let later = line.replace("\"zferry_errand\":1", "\"zferry_errand\":2");
        for text in ["", "\n", "{}", &line[..90], &later, &line.replace("SHA256", "MD5")] {
            let refused = Errand::read(&mut text.as_bytes()).unwrap_err();
            assert_eq!(refused.exit_code(), 3);
            assert!(!format!("{refused} {refused:?}").contains(&secret), "{refused}");
        }
        let long = vec!["x".repeat(40_000)];
        assert!(Errand::new(&ticket(), long).encode().is_err());
    }
}
