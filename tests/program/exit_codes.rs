//! That the page about exit codes says what the code does, and that the program ends so.
//!
//! To renew the page: `INSTA_UPDATE=always cargo test --test program exit_codes`.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use zferry::breakpoint::identity::FileId;
use zferry::breakpoint::record::SegmentNumber;
use zferry::breakpoint::segment::{ENTRY_HEADER, Entry, PAGE_BYTES, Position};
use zferry::error::{Class, Exit, Failure, Side};
use zferry::protocol::envelope::encode;
use zferry::protocol::frame::{Codec, Header};
use zferry::protocol::message::Message;
use zferry::units::{Sequence, StreamOffset, TransferId};

use crate::support::host::{Ended, Running, Server, replicate, running_zfs, wait_for, zferry};
use crate::support::stand_in::{Failing, StandIn};

const PAGE: &str = "docs/exit-codes.md";

#[test]
fn the_page_about_exit_codes_says_what_the_code_does() {
    let old = fs::read_to_string(PAGE).unwrap();
    let new = with_table(&with_table(&old, "codes", &codes()), "classes", &classes());
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        fs::write(PAGE, &new).unwrap();
    } else {
        let renew = "INSTA_UPDATE=always cargo test --test program exit_codes";
        assert!(old == new, "{PAGE} is not what the code says; to renew it: {renew}\n{new}");
    }
}

fn codes() -> String {
    let mut table = "| code | | |\n|---|---|---|\n".to_owned();
    for exit in Exit::ALL {
        writeln!(table, "| {} | {} | {} |", exit.code(), exit.name(), exit.meaning()).unwrap();
    }
    table
}

fn classes() -> String {
    let mut table = "| class | what has happened | who must act | exit code |\n".to_owned();
    table.push_str("|---|---|---|---|\n");
    for class in Class::ALL {
        let (name, code) = (name(class), class.exit().code());
        writeln!(table, "| `{name}` | {} | {} | {code} |", class.meaning(), class.who()).unwrap();
    }
    table
}

/// As it stands in `--json`.
fn name(class: Class) -> String {
    serde_json::to_value(class).unwrap().as_str().unwrap().to_owned()
}

/// The page with another table between two marks.
fn with_table(page: &str, mark: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {mark} -->\n"), format!("<!-- end of {mark} -->\n"));
    let (before, rest) = page.split_once(&begin).expect(&begin);
    let (_, after) = rest.split_once(&end).expect(&end);
    format!("{before}{begin}{table}{end}{after}")
}

#[test]
fn every_class_is_reached_and_ends_with_its_exit_code() {
    for class in Class::ALL {
        let ended = reached(class);
        let told: Value = serde_json::from_slice(last_line(&ended.stdout))
            .unwrap_or_else(|_| panic!("{class:?}: {}", ended.stderr));
        assert_eq!(told["event"], "failed", "{class:?}: {told}");
        assert_eq!(told["class"], name(class), "{told}");
        assert!(ended.stderr.contains(told["what"].as_str().unwrap()), "{}", ended.stderr);
        assert_eq!(ended.code(), i32::from(class.exit().code()), "{class:?}: {told}");
    }
}

#[test]
fn every_exit_code_is_reached() {
    let mut reached: Vec<u8> = Class::ALL.iter().map(|class| class.exit().code()).collect();
    let (source, target) = hosts();
    let server = Server::serve(&target, &[]);
    for _new_then_up_to_date in 0..2 {
        reached.push(code(&copy(&source, &server.url("a")).ended()));
    }
    reached.push(code(&looked_at(&half_of_a_segment())));
    for exit in Exit::ALL {
        assert!(reached.contains(&exit.code()), "{exit:?}: {reached:?}");
    }
}

/// The breakpoint file of a stream, of whose two blocks the second is damaged.
fn half_of_a_segment() -> Vec<u8> {
    const BLOCK_BYTES: u32 = 1000;
    // A page with its header at the end, and one with the block.
    const PAGES_EACH: u32 = 2;
    let mut bytes = [0].repeat(2 * PAGES_EACH as usize * PAGE_BYTES);
    for number in 0..2 {
        let payload = [7; BLOCK_BYTES as usize];
        let frame = Header {
            transfer: TransferId(1),
            epoch: 1,
            sequence: Sequence(number.into()),
            offset: StreamOffset((number * BLOCK_BYTES).into()),
            codec: Codec::Raw,
            plain_bytes: BLOCK_BYTES,
            payload_bytes: BLOCK_BYTES,
            crc32: crc32fast::hash(&payload),
        };
        let page = PAGES_EACH * number;
        let at = Position { segment: SegmentNumber(0), page };
        let entry = Entry { at, frame, payload_crc32: frame.crc32 };
        bytes[page as usize * PAGE_BYTES..][ENTRY_HEADER]
            .copy_from_slice(&entry.encode(FileId([1; 16])));
        bytes[entry.payload()].copy_from_slice(&payload);
    }
    let end = bytes.iter().rposition(|&byte| byte == 7).unwrap();
    bytes[end] ^= 1;
    bytes
}

fn looked_at(bytes: &[u8]) -> Ended {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    Running::start(&mut zferry(&["inspect", file.path().to_str().unwrap()])).ended()
}

/// A dataset that takes a few seconds where `zfs send` is slow.
fn hosts() -> (StandIn, StandIn) {
    let (source, target) = (StandIn::new(), StandIn::new());
    source.dataset("tank/a", "filesystem");
    source.snapshot("tank/a", "s", &[5].repeat(1 << 20));
    (source, target)
}

fn copy(source: &StandIn, url: &str) -> Running {
    replicate(source, "tank/a", url, &["--no-snapshot", "--json"])
}

fn to(source: &StandIn, target: &StandIn) -> Ended {
    let server = Server::serve(target, &[]);
    copy(source, &server.url("a")).ended()
}

fn wait_for_zfs(host: &StandIn, subcommand: &str) {
    let runs = || running_zfs(host).iter().any(|call| call.contains(subcommand));
    wait_for(subcommand, || runs().then_some(()));
}

/// A server that says this to whoever comes, whatever they say.
fn saying(words: &[u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, words) = (listener.local_addr().unwrap(), words.to_owned());
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // Whoever has gone has heard enough.
            let _ = (&client).write_all(&words);
            let _ = io::copy(&mut &client, &mut io::sink());
        }
    });
    address
}

fn last_line(text: &[u8]) -> &[u8] {
    text.trim_ascii_end().rsplit(|&byte| byte == b'\n').next().unwrap()
}

fn code(ended: &Ended) -> u8 {
    u8::try_from(ended.code()).unwrap()
}

/// A copy that fails in the way that is asked for.
fn reached(class: Class) -> Ended {
    let (source, target) = hosts();
    match class {
        Class::Usage => copy(&source, "zferry://no-port:x/a").ended(),
        Class::Refused => {
            target.dataset("backup/a", "filesystem");
            target.snapshot("backup/a", "mine", b"something else");
            to(&source, &target)
        }
        Class::Partly => {
            to(&source, &target).succeeded();
            source.dataset("tank/a/b", "filesystem");
            source.snapshot("tank/a/b", "s", b"something");
            target.dataset("backup/a/b", "filesystem");
            target.snapshot("backup/a/b", "mine", b"something else");
            let server = Server::serve(&target, &[]);
            let flags = ["-r", "--no-snapshot", "--json"];
            replicate(&source, "tank/a", &server.url("a"), &flags).ended()
        }
        Class::Busy => {
            let server = Server::serve(&target, &[]);
            source.slow_send(64 << 10, Duration::from_millis(500));
            let _first = copy(&source, &server.url("a"));
            wait_for_zfs(&target, "receive");
            copy(&source, &server.url("a")).ended()
        }
        Class::Interrupted => {
            let server = Server::serve(&target, &[]);
            source.slow_send(64 << 10, Duration::from_millis(500));
            let running = copy(&source, &server.url("a"));
            wait_for_zfs(&source, "send");
            running.signal("TERM");
            running.ended()
        }
        Class::Wait => {
            let words = "cannot receive new filesystem stream: out of space";
            target.fail_receive(&Failing { after_bytes: 1000, status: "1", words });
            to(&source, &target)
        }
        Class::Peer => {
            let other = saying(b"SSH-2.0-other\r\n");
            copy(&source, &format!("zferry://{other}/a")).ended()
        }
        Class::Machine => {
            let words = ["replicate", "tank/a", "backup/a", "--json"];
            Running::start(zferry(&words).env("PATH", "/nonexistent")).ended()
        }
        Class::Zfs => {
            let words = "internal error: warning: cannot send 'tank/a@s': Input/output error";
            source.fail_send(&Failing { after_bytes: 1000, status: "1", words });
            to(&source, &target)
        }
        Class::Internal => {
            let failure = Failure::new(Side::Target, Class::Internal, "a mistake of ours");
            let said = encode(&Message::Refused(failure));
            copy(&source, &format!("zferry://{}/a", saying(&said))).ended()
        }
    }
}
