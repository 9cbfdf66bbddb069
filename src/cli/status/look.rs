//! `zferry status` without a wish for holds: jobs and transfers.
//!
//! Nothing here asks `zfs`: what is held on a host is known once each of its snapshots was read,
//! which takes minutes where there are many, and whoever types this waits for an answer.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::transfers::{self, Transfer};
use super::{Arguments, board};
use crate::board::Document;
use crate::error::Failure;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(1);

/// What there is to see, for programs: the board, where there is one, and what lies in the folder.
#[derive(Serialize)]
struct Seen {
    #[serde(flatten)]
    document: Option<Document>,
    transfers: Vec<Transfer>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if !arguments.watch {
        let state = arguments.state();
        let told = told(&look(arguments)?, arguments.json, Some(&state));
        // A reader that is gone is no reason to fail.
        let _ = io::stdout().lock().write_all(told.as_bytes());
        return Ok(());
    }
    let in_place = io::stdout().is_terminal() && !arguments.json;
    loop {
        let told = told(&look(arguments)?, arguments.json, None);
        let text = if in_place { redrawn(&told) } else { told };
        let mut out = io::stdout().lock();
        // Whoever read it is gone.
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
        drop(out);
        std::thread::sleep(EVERY);
    }
}

/// Over what was there before: the cursor home, each line to its end, and the rest of the screen.
fn redrawn(text: &str) -> String {
    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
}

fn look(arguments: &Arguments) -> Result<Seen, Failure> {
    let (state, socket) = (arguments.state(), arguments.socket());
    let document = board::document(&state, &socket)?;
    // Whoever names a folder wants to know that it is not there.
    let transfers = if arguments.state.is_some() || state.exists() {
        transfers::all(&state)?
    } else {
        Vec::new()
    };
    Ok(Seen { document, transfers })
}

/// As text or as JSON; `state` is where it was looked, if that is worth a word.
fn told(seen: &Seen, json: bool, state: Option<&Path>) -> String {
    if json {
        // Strings and numbers: it cannot fail.
        return serde_json::to_string(seen).unwrap_or_default() + "\n";
    }
    let mut lines = match (&seen.document, state) {
        (Some(document), _) => board::lines(document),
        (None, Some(state)) if seen.transfers.is_empty() => {
            vec![format!("no scheduler has ever run with {}", state.display())]
        }
        (None, _) => Vec::new(),
    };
    lines.extend(seen.transfers.iter().map(Transfer::line));
    if seen.transfers.is_empty() && seen.document.is_none() {
        lines.push("no transfer has records there".to_owned());
    }
    // Of a copy's or a server's own folder nothing else was asked.
    if state.is_some() && seen.document.is_some() {
        lines.push("what interrupted copies have left: zferry status --orphans".to_owned());
    }
    lines.into_iter().map(|line| line + "\n").collect()
}
