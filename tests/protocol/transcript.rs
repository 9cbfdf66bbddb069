//! The bytes of one conversation, written down: a change of the wire is a visible change.
//!
//! A full and an incremental transfer, the rest of an interrupted one, a partial state that is
//! given up, a pruning, a tree, and a transfer in which both processes are replaced, from the
//! preamble to the farewell. If this differs and no new version was meant, an old end and a new one
//! will not understand each other. To accept a change:
//! `INSTA_UPDATE=always cargo test --test protocol`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use zferry::dataset::{Guid, Kind};
use zferry::listing::{Snapshot, TargetDataset, TargetState, TargetTree};
use zferry::protocol::envelope::{Decoder, HEAD_BYTES, encode};
use zferry::protocol::frame::{Codec, Header};
use zferry::protocol::message::Limits;
use zferry::protocol::message::{
    DatasetStream, Hello, Message, Open, Request, Start, Stream, Watermarks,
};
use zferry::protocol::negotiate::Agreed;
use zferry::protocol::preamble::{Preamble, Role};
use zferry::protocol::prune::Prune;
use zferry::protocol::receiver::{self, Ended, Offer, Receiver};
use zferry::protocol::secret::{JoinSecret, Proof};
use zferry::protocol::sender::{self, Sender, WholeStream};
use zferry::protocol::standing::{Return, Returned, Standing};
use zferry::protocol::version::{Version, Versions};
use zferry::protocol::window::{Arrived, Credit, Receipt};
use zferry::retention::{Report, Stays, Template, Why};
use zferry::units::{Bytes, Sequence, StreamOffset, TransferId};

const FULL: Guid = Guid(0xf011_0000_0000_0001);
const NEXT: Guid = Guid(0xf011_0000_0000_0002);
const LAST: Guid = Guid(0xf011_0000_0000_0003);
const AFTER: Guid = Guid(0xf011_0000_0000_0004);
const TOKEN: &str = "1-eb46e146b-d0-789c6360";
const SECRET: [u8; 16] = *b"0123456789abcdef";
const TOTAL: u32 = (1 << 20) + 312;

/// Both machines, and what they said.
struct Conversation {
    client: Option<Sender>,
    server: Option<Receiver>,
    written: String,
    ended: Option<Ended>,
}

fn limits(connections: u16) -> Limits {
    let codecs = [Codec::Raw, Codec::Zstd].into_iter().collect();
    Limits { block_bytes_max: Bytes::MIB, connections, codecs }
}

fn request(snapshot: &str, to: Guid, from: Option<Guid>) -> Request {
    Request {
        stream: Stream::Dataset(DatasetStream {
            target: "hosts/web 1".parse().unwrap(),
            dataset: Kind::Filesystem,
            snapshot: snapshot.parse().unwrap(),
            to,
            from,
            raw: true,
            first: from.is_none(),
            resumed: false,
            origin: None,
            properties: BTreeMap::new(),
        }),
        epoch: 1,
        estimated_bytes: Some(Bytes(1 << 20)),
        block_bytes: Bytes::MIB,
        codec: Codec::Zstd,
        interrupted_at: None,
    }
}

fn target(snapshots: &[(&str, Guid)]) -> TargetState {
    let snapshot = |&(name, guid): &(&str, Guid)| Snapshot {
        name: name.parse().unwrap(),
        guid,
        createtxg: 42,
    };
    TargetState::Present {
        kind: Kind::Filesystem,
        encrypted: false,
        snapshots: snapshots.iter().map(snapshot).collect(),
        resume_token: None,
    }
}

fn credit(taken: u64) -> Credit {
    Credit { taken: Sequence(taken), room: Sequence(taken + 126) }
}

fn partly(snapshots: &[(&str, Guid)], token: &str) -> TargetState {
    let TargetState::Present { kind, snapshots, .. } = target(snapshots) else { unreachable!() };
    let resume_token = Some(token.to_owned());
    TargetState::Present { kind, encrypted: false, snapshots, resume_token }
}

fn rest_of(mut request: Request) -> Request {
    let Stream::Dataset(stream) = &mut request.stream else { unreachable!() };
    stream.resumed = true;
    request
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

impl Conversation {
    fn begin() -> Conversation {
        let mut conversation =
            Conversation { client: None, server: None, written: String::new(), ended: None };
        conversation.write_preamble(Role::Control { proof: Proof::NONE });
        let mut output = Vec::new();
        let hello = Hello { software: "zferry 0.1.0".to_owned(), limits: limits(8) };
        conversation.client = Some(Sender::start(Versions::OURS, hello, &mut output));
        conversation.server = Some(Receiver::new(Offer {
            software: "zferry 0.1.0".to_owned(),
            version: Version::V1,
            limits: limits(2),
            secret: JoinSecret::new(SECRET),
        }));
        conversation.client_does(output);
        conversation
    }

    fn write_preamble(&mut self, role: Role) {
        let preamble = Preamble { versions: Versions::OURS, role };
        let connection = match role {
            Role::Control { .. } => "control".to_owned(),
            Role::Return { .. } => "control again".to_owned(),
            Role::Data { lane, .. } => format!("data {lane}"),
        };
        let bytes = hex(&preamble.encode());
        writeln!(self.written, "client -> server, {connection}: preamble\n  {bytes}").unwrap();
    }

    fn write_frame(&mut self, header: Header) {
        let bytes = hex(&header.encode());
        writeln!(self.written, "client -> server, data: frame header\n  {bytes}").unwrap();
    }

    /// Writes a message down as it travels, and returns it as it arrives.
    fn travel(&mut self, direction: &str, message: &Message) -> Message {
        let bytes = encode(message);
        let (head, json) = bytes.split_at(HEAD_BYTES);
        let (head, json) = (hex(head), std::str::from_utf8(json).unwrap());
        writeln!(self.written, "{direction}, control: {}\n  {head} {json}", message.name())
            .unwrap();
        let arrived = Decoder::default().take(&mut bytes.as_slice()).unwrap().unwrap();
        assert_eq!(arrived, *message);
        arrived
    }

    fn client(&mut self, input: sender::Input) {
        let mut output = Vec::new();
        self.client = Some(self.client.take().unwrap().handle(input, &mut output).unwrap());
        self.client_does(output);
    }

    fn client_does(&mut self, output: Vec<sender::Output>) {
        for one in output {
            match one {
                sender::Output::Send(message) => {
                    let arrived = self.travel("client -> server", &message);
                    self.server(receiver::Input::Received(arrived));
                }
                sender::Output::Ready { agreed, secret, .. } => {
                    for lane in 0..agreed.limits.connections {
                        self.write_preamble(Role::Data { lane, proof: secret.proof(None) });
                    }
                }
                _ => {}
            }
        }
    }

    fn server(&mut self, input: receiver::Input) {
        let mut output = Vec::new();
        self.server = Some(self.server.take().unwrap().handle(input, &mut output).unwrap());
        for one in output {
            match one {
                receiver::Output::Send(message) => {
                    let arrived = self.travel("server -> client", &message);
                    self.client(sender::Input::Received(arrived));
                }
                receiver::Output::Finish(ended) => self.ended = Some(ended),
                _ => {}
            }
        }
    }

    /// Another control connection takes the place of one that was lost.
    fn come_back(&mut self) {
        self.write_preamble(Role::Return { proof: JoinSecret::new(SECRET).proof(None) });
        self.travel("client -> server", &Message::Return(Return { heard: 5, ..Return::default() }));
        self.travel(
            "server -> client",
            &Message::Returned(Returned { heard: 6, ..Returned::default() }),
        );
        self.travel("client -> server", &Message::Ping { heard: 5 });
    }

    /// A control connection that follows a crash of one end. The counts begin anew.
    fn return_after_crash(&mut self, client: Return, beginning: u32) -> Standing {
        self.write_preamble(Role::Return { proof: JoinSecret::new(SECRET).proof(None) });
        self.travel("client -> server", &Message::Return(client));
        let standing = self.server.as_ref().unwrap().standing().unwrap();
        let returned = Returned { heard: 0, standing: Some(standing.clone()), beginning };
        self.travel("server -> client", &Message::Returned(returned));
        standing
    }

    /// The server's process dies in the middle of a transfer, and later the client's.
    fn crash(&mut self, number: u32, request: Request, guid: Guid) {
        let taken = u64::from(number - 1) * 2;
        self.client(sender::Input::Open(request.clone()));
        self.server(receiver::Input::Prepared(Start::FromStart, credit(taken)));
        let total = StreamOffset(u64::from(TOTAL));
        self.client(sender::Input::Sent(total));
        let durable = StreamOffset(1 << 20);
        let reached = Watermarks { received: durable, spooled: durable, fed: StreamOffset(0) };
        let transfer = TransferId(number);
        let agreed = Agreed { version: Version::V1, limits: limits(2) };
        let open = Open { transfer, request: request.clone() };
        self.server = Some(Receiver::restored(agreed.clone(), open, reached, credit(taken + 1)));
        let client = Return { heard: 9, ..Return::default() };
        let standing = self.return_after_crash(client, 1);
        self.client(sender::Input::Stands(standing));
        self.client(sender::Input::StreamEnded { total, crc32: 0x9abc_def0 });
        let standing = self.return_after_crash(Return { anew: true, ..Return::default() }, 2);
        let whole = WholeStream { transfer, stream: request.stream, total, crc32: 0x9abc_def0 };
        let mut output = Vec::new();
        let client = Sender::restored(agreed, whole, &standing, &mut output).unwrap();
        self.client = Some(client);
        self.client_does(output);
        let reached = Watermarks { received: total, spooled: total, fed: total };
        self.server(receiver::Input::Progress(reached, credit(taken + 2).into()));
        let ended = self.ended.take().unwrap();
        self.server(receiver::Input::Applied { ended, guid: Some(guid), millis: 2500 });
    }

    fn list(&mut self, target: TargetState) {
        self.client(sender::Input::List("hosts/web 1".parse().unwrap()));
        self.server(receiver::Input::Found { dataset: "backup/hosts/a".parse().unwrap(), target });
    }

    fn list_tree(&mut self, datasets: &[(&str, TargetState)]) {
        self.client(sender::Input::ListTree("hosts/web 1".parse().unwrap()));
        let root = "backup/hosts/a".parse().unwrap();
        let datasets = datasets.iter().map(|(dataset, state)| TargetDataset {
            dataset: dataset.parse().unwrap(),
            state: state.clone(),
        });
        let datasets = datasets.collect();
        self.server(receiver::Input::FoundTree(TargetTree { root, datasets }));
    }

    fn abort(&mut self, token: &str) {
        let dataset = "hosts/web 1".parse().unwrap();
        self.client(sender::Input::Abort { dataset, token: token.to_owned() });
        self.server(receiver::Input::Aborted);
    }

    fn prune(&mut self) {
        self.client(sender::Input::Prune(Prune {
            dataset: "hosts/web 1".parse().unwrap(),
            keep: "last=7,daily=30".parse().unwrap(),
            template: Template::default(),
            newest_common: Guid(u64::MAX),
            dry_run: false,
        }));
        let snapshot = || "zferry_2026-08-01T12:00:00Z".parse().unwrap();
        self.server(receiver::Input::Pruned(Report {
            count: 1,
            destroyed: vec![snapshot()],
            kept: [(Why::NewestCommon, 1), (Why::Daily, 30)].into(),
            staying: 1,
            stay: vec![Stays { snapshot: snapshot(), why: "it is held".to_owned() }],
            failure: None,
        }));
    }

    fn transfer(&mut self, number: u32, request: Request, guid: Guid) {
        let taken = u64::from(number - 1) * 2;
        self.client(sender::Input::Open(request));
        self.server(receiver::Input::Prepared(Start::FromStart, credit(taken)));
        let header = Header {
            transfer: TransferId(number),
            epoch: 1,
            sequence: Sequence(taken),
            offset: StreamOffset(0),
            codec: Codec::Zstd,
            plain_bytes: 1 << 20,
            payload_bytes: 1000,
            crc32: 0x1234_5678,
        };
        self.client(sender::Input::Sent(StreamOffset(u64::from(TOTAL))));
        self.write_frame(header);
        self.write_frame(Header {
            sequence: header.sequence.next(),
            offset: StreamOffset(1 << 20),
            codec: Codec::Raw,
            plain_bytes: 312,
            payload_bytes: 312,
            ..header
        });
        let total = StreamOffset(u64::from(TOTAL));
        let behind = Sequence(taken + 1)..Sequence(taken + 2);
        let receipt = Receipt { credit: credit(taken), arrived: Arrived::of([behind]) };
        self.server(receiver::Input::Progress(Watermarks::default(), receipt));
        let reached = Watermarks { received: total, spooled: StreamOffset(1 << 20), fed: total };
        self.client(sender::Input::StreamEnded { total, crc32: 0x9abc_def0 });
        self.server(receiver::Input::Progress(reached, credit(taken + 2).into()));
        let ended = self.ended.take().unwrap();
        self.server(receiver::Input::Applied { ended, guid: Some(guid), millis: 1500 });
    }
}

#[test]
fn the_conversation_is_as_it_always_was() {
    let mut conversation = Conversation::begin();
    conversation.list(TargetState::Absent);
    conversation.transfer(1, request("daily-1", FULL, None), FULL);
    conversation.list(target(&[("daily-1", FULL)]));
    conversation.transfer(2, request("daily-2", NEXT, Some(FULL)), NEXT);
    conversation.list(partly(&[("daily-1", FULL), ("daily-2", NEXT)], TOKEN));
    conversation.transfer(3, rest_of(request("daily-3", LAST, Some(NEXT))), LAST);
    conversation.list(partly(&[("daily-3", LAST)], TOKEN));
    conversation.abort(TOKEN);
    conversation.prune();
    conversation.list_tree(&[
        ("backup/hosts/a", target(&[("daily-1", FULL), ("daily-2", NEXT)])),
        ("backup/hosts/a/b", partly(&[("daily-1", LAST)], TOKEN)),
    ]);
    conversation.come_back();
    conversation.crash(4, request("daily-4", AFTER, Some(LAST)), AFTER);
    conversation.client(sender::Input::Bye);
    assert!(conversation.client.unwrap().is_closed() && conversation.server.unwrap().is_closed());

    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("conversation", conversation.written));
}
