//! `zferry keys show`: what this host is known by, and whom it trusts.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::cli::show;
use crate::dataset::property::PropertyName;
use crate::error::{Failure, Side};
use crate::trust::Fingerprint;
use crate::trust::Folder;
use crate::trust::grants::{Client, Grant};

/// Show this host's key, who may send to it, and which servers it knows
///
/// Makes the key, where there is none yet. Only its fingerprint is ever shown.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    fingerprint: Fingerprint,
    key: PathBuf,
    clients: Vec<ClientReport>,
    servers: Vec<ServerReport>,
}

#[derive(Serialize)]
struct ClientReport {
    name: String,
    fingerprint: Fingerprint,
    grants: Vec<GrantReport>,
}

#[derive(Serialize)]
struct GrantReport {
    prefix: Option<String>,
    root: String,
    /// A text, for many readers of JSON have no numbers of 64 bits.
    root_guid: Option<String>,
    allow: Vec<&'static str>,
    raw_only: bool,
    properties: Vec<String>,
    datasets: Option<u32>,
    transfers: Option<u32>,
    spool_bytes: Option<u64>,
    bytes_per_second: Option<u64>,
    keep: Option<String>,
    template: Option<String>,
}

#[derive(Serialize)]
struct ServerReport {
    address: String,
    fingerprint: Fingerprint,
}

pub(super) fn run(folder: &Folder, arguments: &Arguments) -> Result<(), Failure> {
    let (clients, servers) = (folder.clients()?, folder.servers()?);
    let key = folder.key(Side::Source)?.fingerprint();
    let text = if arguments.json {
        let report = Report {
            fingerprint: key,
            key: folder.key_path(),
            clients: clients.iter().map(ClientReport::of).collect(),
            servers: servers
                .iter()
                .map(|(at, fingerprint)| ServerReport { address: at.to_string(), fingerprint })
                .collect(),
        };
        // Strings and numbers: it cannot fail.
        serde_json::to_string(&report).unwrap_or_default()
    } else {
        let mut text = format!("this host: {key} ({})", folder.key_path().display());
        let _ = write!(text, "\nclients that may send to it:{}", or_none(clients.is_empty()));
        for client in clients.iter() {
            let _ = write!(text, "\n  {}: {}", client.name(), client.fingerprint());
            for grant in client.grants() {
                let _ = write!(text, "\n    {}", grant_line(grant));
            }
        }
        let none = servers.iter().next().is_none();
        let _ = write!(text, "\nservers that it knows:{}", or_none(none));
        for (at, fingerprint) in servers.iter() {
            let _ = write!(text, "\n  {at}: {fingerprint}");
        }
        text
    };
    show::say(&mut io::stdout().lock(), &text);
    Ok(())
}

fn or_none(none: bool) -> &'static str {
    if none { " none" } else { "" }
}

/// A grant on one line.
pub(super) fn grant_line(grant: &Grant) -> String {
    let names = grant.prefix.as_ref().map(|prefix| format!("{prefix}/... is "));
    let mut line = format!("{}below {}: ", names.unwrap_or_default(), grant.root);
    let words: Vec<&str> = grant.allow.iter().map(|operation| operation.word()).collect();
    if words.is_empty() {
        line.push_str("nothing but to look");
    }
    line.push_str(&words.join(", "));
    if grant.raw_only {
        line.push_str("; raw streams only");
    }
    if !grant.properties.is_empty() {
        let names: Vec<&str> = grant.properties.iter().map(PropertyName::as_str).collect();
        let _ = write!(line, "; may set {}", names.join(", "));
    }
    let limits = grant.limits;
    let limits = [
        limits.datasets.map(|count| format!("{count} datasets")),
        limits.transfers.map(|count| format!("{count} transfers at once")),
        limits.spool.map(|bytes| format!("{bytes} of the spool")),
        limits.bandwidth.map(|rate| rate.to_string()),
    ];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    if !limits.is_empty() {
        let _ = write!(line, "; at most {}", limits.join(", "));
    }
    if let Some(rules) = &grant.keep {
        let _ = write!(line, "; keeps {} of {}", rules.keep, rules.template);
    }
    line
}

impl ClientReport {
    fn of(client: &Client) -> ClientReport {
        ClientReport {
            name: client.name().to_string(),
            fingerprint: client.fingerprint(),
            grants: client.grants().iter().map(GrantReport::of).collect(),
        }
    }
}

impl GrantReport {
    fn of(grant: &Grant) -> GrantReport {
        let limits = grant.limits;
        GrantReport {
            prefix: grant.prefix.as_ref().map(ToString::to_string),
            root: grant.root.to_string(),
            root_guid: grant.root_guid.map(|guid| guid.to_string()),
            allow: grant.allow.iter().map(|operation| operation.word()).collect(),
            raw_only: grant.raw_only,
            properties: grant.properties.iter().map(ToString::to_string).collect(),
            datasets: limits.datasets.map(u32::from),
            transfers: limits.transfers.map(u32::from),
            spool_bytes: limits.spool.map(|bytes| bytes.0),
            bytes_per_second: limits.bandwidth.map(|rate| rate.per_second().0),
            keep: grant.keep.as_ref().map(|rules| rules.keep.to_string()),
            template: grant.keep.as_ref().map(|rules| rules.template.to_string()),
        }
    }
}
