//! What a person or a program reads of a measurement: the table, the advice, the JSON.
//!
//! Fields of the JSON may be added; none is renamed. Rates are bytes in a second, sizes bytes.

use std::io::{self, Write};

use serde::Serialize;

use crate::tune::Rig;
use crate::tune::advice::{Advice, advise, best};
use crate::tune::measured::{Level, Measured, Outcome, Part, PartName, Transfer};
use crate::units::Bytes;

/// A measurement and what follows from it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The machine's architecture.
    machine: &'static str,
    /// What `uname -r` says.
    kernel: Option<String>,
    zferry: &'static str,
    /// How long each figure was measured.
    seconds: f64,
    workers: usize,
    backend: String,
    /// `made` by us, or the user's `own`.
    sample: &'static str,
    #[serde(skip)]
    spool: Option<String>,
    #[serde(flatten)]
    measured: Measured,
    advice: Option<Advice>,
    /// To be typed here.
    send: String,
    /// To be typed on the far host, where it needs flags of its own.
    receive: Option<String>,
}

impl Report {
    /// What is known before anything is measured.
    pub fn begin(rig: &Rig) -> Report {
        Report {
            machine: std::env::consts::ARCH,
            kernel: sys::probe::Facts::read().kernel_release.ok(),
            zferry: env!("CARGO_PKG_VERSION"),
            seconds: rig.time.as_secs_f64(),
            workers: rig.settings.workers,
            backend: format!("{:?}", rig.settings.backend).to_lowercase(),
            sample: if rig.sample.is_made() { "made" } else { "own" },
            spool: rig.spool.as_ref().map(|folder| folder.display().to_string()),
            measured: Measured::default(),
            advice: None,
            send: String::new(),
            receive: None,
        }
    }

    /// The whole of it.
    pub fn end(self, measured: Measured) -> Report {
        let advice = advise(&measured, self.spool.as_deref());
        let host = measured.far.as_ref().map_or("HOST:PORT", |far| far.host.as_str());
        let send = format!("zferry send {host} --plain{}", typed(&advice.send));
        let receive = (!advice.receive.is_empty()).then(|| {
            format!("zferry receive --listen ADDR:PORT --plain{}", typed(&advice.receive))
        });
        Report { measured, send, receive, advice: Some(advice), ..self }
    }

    /// Writes it as text, or as one JSON object.
    pub fn print(&self, json: bool, to: &mut impl Write) -> io::Result<()> {
        if json {
            serde_json::to_writer(&mut *to, self)?;
            writeln!(to)?;
        } else {
            self.text(to)?;
        }
        to.flush()
    }

    fn text(&self, to: &mut impl Write) -> io::Result<()> {
        let kernel = self.kernel.as_deref().unwrap_or("unknown");
        let Report { machine, backend, measured, .. } = self;
        let (cores, cache) = (measured.cores, measured.cache);
        writeln!(to, "{machine}, {cores} cores, Linux {kernel}, {backend}, cache {cache}")?;
        if let Some(far) = &measured.far {
            writeln!(to, "{}, round trip {:.3} ms", far.host, far.round_trip.as_secs_f64() * 1e3)?;
        }
        let rows = rows(measured);
        let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        let slowest = rows.iter().filter(|row| row.counts).filter_map(|row| row.rate).min();
        writeln!(to, "\n{:<width$} {:>8} {:>11}", "", "GiB/s", "to slowest")?;
        for row in rows {
            let Some(rate) = row.rate else {
                writeln!(to, "{:<width$} {}", row.name, row.note)?;
                continue;
            };
            let to_slowest = quotient(rate, slowest.unwrap_or(rate));
            let line = format!("{:<width$} {:>8.3} {to_slowest:>11.2}", row.name, gib(rate));
            writeln!(to, "{}", format!("{line}  {}", row.note).trim_end())?;
        }
        let Some(advice) = &self.advice else { return Ok(()) };
        writeln!(to, "\nbottleneck: {}", advice.says)?;
        for remark in &advice.remarks {
            writeln!(to, "note: {remark}")?;
        }
        if self.sample == "made" {
            writeln!(
                to,
                "note: the sample is half text, half noise; --sample measures with your own bytes"
            )?;
        }
        writeln!(to, "\nuse it:  {}", self.send)?;
        if let Some(receive) = &self.receive {
            writeln!(to, "  there:  {receive}")?;
        }
        Ok(())
    }
}

/// A line of the table.
struct Row {
    name: String,
    rate: Option<Bytes>,
    /// Whether it stands on the way of the transfer that is advised, so that it may be the slowest.
    counts: bool,
    note: String,
}

fn rows(measured: &Measured) -> Vec<Row> {
    let best = best(&measured.transfers);
    let part = |part: &Part| Row {
        name: part_name(part.name).to_owned(),
        rate: Some(part.bytes_per_second),
        counts: part.name != PartName::Spool,
        note: String::new(),
    };
    let level = |level: &Level| Row {
        name: format!("compress zstd:{}", level.level),
        rate: Some(level.bytes_per_second),
        counts: best.is_some_and(|best| best.choice.zstd == Some(level.level)),
        note: format!("ratio {:.2}", level.ratio),
    };
    let transfer = |transfer: &Transfer| Row {
        name: format!("transfer{}", typed(&transfer.choice.flags())),
        rate: transfer.rate(),
        counts: best == Some(transfer),
        note: match &transfer.outcome {
            Outcome::Carried { wire_bytes_per_second, .. } => {
                format!("on the wire {:.3}", gib(*wire_bytes_per_second))
            }
            Outcome::Refused { refused } => refused.clone(),
        },
    };
    let parts = measured.parts.iter().map(part);
    let levels = measured.levels.iter().map(level);
    let transfers = measured.transfers.iter().map(transfer);
    parts.chain(levels).chain(transfers).collect()
}

fn part_name(name: PartName) -> &'static str {
    match name {
        PartName::Read => "read",
        PartName::Send => "send",
        PartName::Receive => "receive",
        PartName::Splice => "splice",
        PartName::Spool => "spool",
    }
}

/// Words after others, as a shell reads them.
fn typed(words: &[String]) -> String {
    words.iter().fold(String::new(), |line, word| line + " " + &quoted(word))
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn gib(rate: Bytes) -> f64 {
    rate.0 as f64 / Bytes::GIB.0 as f64
}

#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn quotient(rate: Bytes, by: Bytes) -> f64 {
    rate.0 as f64 / by.0.max(1) as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;
    use crate::cli::Arguments;
    use crate::tune::measured::{Choice, Far, Transfer};

    /// A pair for which every flag there is pays.
    fn report() -> Report {
        let rate = |rate: u64| Outcome::Carried {
            bytes_per_second: Bytes(rate << 20),
            wire_bytes_per_second: Bytes(rate << 20),
        };
        let choice = Choice {
            zstd: Some(3),
            connections: 16,
            block_bytes: Bytes(256 << 10),
            congestion: Some("bbr".to_owned()),
        };
        let part = |name| Part { name, bytes_per_second: Bytes::GIB };
        let workers = |workers, rate| crate::tune::measured::Workers {
            workers,
            bytes_per_second: Bytes(rate),
        };
        let level = Level { level: 3, bytes_per_second: Bytes::GIB, ratio: 2.0 };
        let measured = Measured {
            cores: 4,
            cache: Bytes(128 << 20),
            parts: vec![part(PartName::Read), part(PartName::Send), part(PartName::Spool)],
            levels: vec![level],
            workers: vec![workers(2, 1 << 30), workers(4, 1 << 30)],
            transfers: vec![
                Transfer { choice: Choice::plain(), outcome: rate(100) },
                Transfer { choice: choice.clone(), outcome: rate(300) },
                Transfer {
                    choice: Choice { zstd: Some(9), ..choice },
                    outcome: Outcome::Refused { refused: "no room".to_owned() },
                },
            ],
            far: Some(Far {
                host: "far:1".to_owned(),
                round_trip: Duration::from_millis(400),
                socket_bytes_max: Some(Bytes::MIB),
            }),
        };
        let report = Report {
            machine: "x",
            kernel: None,
            zferry: "0",
            seconds: 3.0,
            workers: 4,
            backend: "uring".to_owned(),
            sample: "made",
            spool: Some("/a/b".to_owned()),
            measured: Measured::default(),
            advice: None,
            send: String::new(),
            receive: None,
        };
        report.end(measured)
    }

    #[test]
    fn every_command_understands_what_it_is_advised() {
        let report = report();
        let Advice { send, receive, .. } = report.advice.clone().unwrap();
        for flag in ["--compress", "--connections", "--block-size", "--congestion", "--cache"] {
            assert!(send.iter().any(|word| word == flag), "{flag} is not in {send:?}");
        }
        assert!(send.iter().any(|word| word == "--workers"), "{send:?}");
        assert!(send.iter().any(|word| word == "--spool"), "{send:?}");
        let there = report.receive.unwrap().replace("ADDR:PORT", "0.0.0.0:1");
        for line in [
            report.send,
            format!("zferry replicate tank/a zferry://far:1/a --plain{}", typed(&send)),
            there,
            format!("zferry serve --listen 0.0.0.0:1 --root backup --plain{}", typed(&receive)),
        ] {
            let parsed = Arguments::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }

    #[test]
    fn a_table_has_a_line_for_each_figure_and_says_what_was_refused() {
        let mut text = Vec::new();
        report().print(false, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let transfer = "transfer --compress zstd:3 --connections 16 --block-size 256KiB";
        assert!(text.contains(transfer), "{text}");
        // The slowest is the transfer that is advised, not one that was worse.
        let line = text.lines().find(|line| line.starts_with(transfer)).unwrap();
        assert!(line.contains(" 1.00 "), "{line}");
        assert!(text.contains("no room"), "{text}");
        assert!(text.contains("round trip 400.000 ms"), "{text}");
    }

    #[test]
    fn a_word_is_quoted_where_a_shell_would_take_it_apart() {
        for (word, expected) in [
            ("--cache", "--cache"),
            ("/a b", "'/a b'"),
            ("it's", r"'it'\''s'"),
            ("$(x)", "'$(x)'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
