//! Any message at all: what proptest draws from.
//!
//! Numbers of transfers and offsets are small, so that what is drawn often comes close to what a
//! machine expects; texts are printable, so that they arrive as they were sent.

use proptest::option;
use proptest::prelude::*;
use zferry::dataset::{Guid, Kind, SnapName};
use zferry::error::{Class, Failure, Side};
use zferry::listing::{Snapshot, TargetState};
use zferry::protocol::frame::Codec;
use zferry::protocol::message::Limits;
use zferry::protocol::message::{
    Applied, CloneOf, DatasetStream, Ending, Hello, InterruptedAt, Message, Open, Outcome,
    RelativeName, Request, Start, Stream, Watermarks, Welcome,
};
use zferry::protocol::piece::{Node, Piece};
use zferry::protocol::prune::Prune;
use zferry::protocol::secret::JoinSecret;
use zferry::protocol::standing::{Return, Returned, Standing};
use zferry::protocol::window::{Arrived, Credit};
use zferry::retention::{Report, Stays, Template, Why};
use zferry::units::{Bytes, Sequence, StreamOffset, TransferId};

fn text() -> impl Strategy<Value = String> {
    "[ -~äö]{0,40}"
}

fn name() -> impl Strategy<Value = RelativeName> {
    "[a-z0-9][a-z0-9_.: -]{0,20}(/[a-z0-9]{1,9}){0,3}".prop_map(|name| name.parse().unwrap())
}

fn snap_name() -> impl Strategy<Value = SnapName> {
    "[a-z0-9][a-zA-Z0-9_.: -]{0,30}".prop_map(|name| name.parse().unwrap())
}

fn guid() -> impl Strategy<Value = Guid> {
    prop_oneof![Just(7_u64), any::<u64>()].prop_map(Guid)
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Filesystem), Just(Kind::Volume)]
}

fn offset() -> impl Strategy<Value = StreamOffset> {
    prop_oneof![8 => 0..100_u64, 1 => any::<u64>()].prop_map(StreamOffset)
}

fn transfer() -> impl Strategy<Value = TransferId> {
    prop_oneof![6 => 1..4_u32, 1 => any::<u32>()].prop_map(TransferId)
}

fn codec() -> impl Strategy<Value = Codec> {
    prop_oneof![Just(Codec::Raw), Just(Codec::Zstd)]
}

pub fn failure() -> impl Strategy<Value = Failure> {
    let side = prop_oneof![Just(Side::Source), Just(Side::Network), Just(Side::Target)];
    let class = prop_oneof![Just(Class::Wait), Just(Class::Zfs), Just(Class::Internal)];
    (side, class, text(), option::of(text())).prop_map(|(side, class, what, remedy)| Failure {
        side,
        class,
        what,
        remedy,
    })
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    (snap_name(), guid(), any::<u64>()).prop_map(|(name, guid, createtxg)| Snapshot {
        name,
        guid,
        createtxg,
    })
}

fn snapshots() -> impl Strategy<Value = Vec<Snapshot>> {
    prop::collection::vec(snapshot(), 0..4)
}

fn node() -> impl Strategy<Value = Node> {
    (option::of(name()), kind(), any::<bool>(), option::of(text())).prop_map(
        |(name, kind, encrypted, resume_token)| Node { name, kind, encrypted, resume_token },
    )
}

/// Often some that may follow each other.
fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let piece = (option::weighted(0.7, node()), snapshots())
        .prop_map(|(dataset, snapshots)| Piece { dataset, snapshots });
    prop::collection::vec(piece, 0..3)
}

fn target() -> impl Strategy<Value = TargetState> {
    let present = (kind(), any::<bool>(), snapshots(), option::of(text())).prop_map(
        |(kind, encrypted, snapshots, resume_token)| TargetState::Present {
            kind,
            encrypted,
            snapshots,
            resume_token,
        },
    );
    prop_oneof![Just(TargetState::Absent), present]
}

fn limits() -> impl Strategy<Value = Limits> {
    (0..25_u32, 0..4_u16, prop::collection::btree_set(codec(), 0..3)).prop_map(
        |(shift, connections, codecs)| Limits {
            block_bytes_max: Bytes(1 << shift),
            connections,
            codecs,
        },
    )
}

fn stream() -> impl Strategy<Value = Stream> {
    let names = (name(), kind(), snap_name());
    let rest = (guid(), option::of(guid()), any::<[bool; 3]>());
    let clone_of = (name(), snap_name(), guid()).prop_map(|(dataset, snapshot, guid)| CloneOf {
        dataset,
        snapshot,
        guid,
    });
    let properties = prop::collection::btree_map("[a-z:]{1,9}", any::<String>(), 0..3);
    let beside = (option::of(clone_of), properties);
    let dataset = (names, rest, beside).prop_map(
        |((target, dataset, snapshot), (to, from, [raw, first, resumed]), (origin, properties))| {
            Stream::Dataset(DatasetStream {
                target,
                dataset,
                snapshot,
                to,
                from,
                raw,
                first,
                resumed,
                origin: origin.map(Box::new),
                properties,
            })
        },
    );
    prop_oneof![Just(Stream::Pipe), dataset]
}

fn request() -> impl Strategy<Value = Request> {
    let interrupted_at = (any::<u32>(), offset(), any::<u32>())
        .prop_map(|(epoch, offset, crc32)| InterruptedAt { epoch, offset, crc32 });
    let sizes = (option::of(any::<u64>()), prop_oneof![Just(1_u64 << 16), any::<u64>()]);
    (stream(), any::<u32>(), sizes, codec(), option::of(interrupted_at)).prop_map(
        |(stream, epoch, (estimated, block), codec, interrupted_at)| Request {
            stream,
            epoch,
            estimated_bytes: estimated.map(Bytes),
            block_bytes: Bytes(block),
            codec,
            interrupted_at,
        },
    )
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        3 => (offset(), any::<u32>()).prop_map(|(total, crc32)| Ending::Complete { total, crc32 }),
        1 => failure().prop_map(Ending::Failed),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let applied = (option::of(guid()), offset(), any::<u64>())
        .prop_map(|(guid, end, millis)| Applied { guid, bytes: end.bytes_before(), millis });
    prop_oneof![3 => applied.prop_map(Outcome::Applied), 1 => failure().prop_map(Outcome::Failed)]
}

fn watermarks() -> impl Strategy<Value = Watermarks> {
    (offset(), offset(), offset()).prop_map(|(received, spooled, fed)| Watermarks {
        received,
        spooled,
        fed,
    })
}

fn credit() -> impl Strategy<Value = Credit> {
    let sequence = || prop_oneof![8 => 0..100_u64, 1 => any::<u64>()].prop_map(Sequence);
    (sequence(), sequence()).prop_map(|(taken, room)| Credit { taken, room })
}

fn arrived() -> impl Strategy<Value = Arrived> {
    let range = (0..100_u64, 0..5_u64);
    prop::collection::vec(range, 0..3).prop_map(|ranges| {
        let range = |(from, count)| Sequence(from)..Sequence(from + count);
        Arrived::of(ranges.into_iter().map(range))
    })
}

pub fn standing() -> impl Strategy<Value = Standing> {
    (transfer(), watermarks(), credit(), arrived(), any::<bool>()).prop_map(
        |(transfer, reached, credit, arrived, ended)| Standing {
            transfer,
            reached,
            credit,
            arrived,
            ended,
        },
    )
}

fn prune() -> impl Strategy<Value = Prune> {
    let keep =
        (1..9999_u16, 0..9_u16).prop_map(|(last, daily)| format!("last={last},daily={daily}"));
    (name(), keep, guid(), any::<bool>()).prop_map(|(dataset, keep, newest_common, dry_run)| {
        let keep = keep.parse().unwrap();
        Prune { dataset, keep, template: Template::default(), newest_common, dry_run }
    })
}

fn report() -> impl Strategy<Value = Report> {
    let why = prop_oneof![Just(Why::NotOurs), Just(Why::Floor), Just(Why::NewestCommon)];
    let stays = (snap_name(), text()).prop_map(|(snapshot, why)| Stays { snapshot, why });
    let destroyed = (any::<u64>(), prop::collection::vec(snap_name(), 0..4));
    let stay = (any::<u64>(), prop::collection::vec(stays, 0..3));
    let kept = prop::collection::btree_map(why, any::<u64>(), 0..3);
    (destroyed, kept, stay, option::of(failure())).prop_map(
        |((count, destroyed), kept, (staying, stay), failure)| Report {
            count,
            destroyed,
            kept,
            staying,
            stay,
            failure,
        },
    )
}

pub fn message() -> impl Strategy<Value = Message> {
    let hello = (text(), limits()).prop_map(|(software, limits)| Hello { software, limits });
    let welcome = (text(), 0..3_u16, limits(), any::<[u8; 16]>()).prop_map(
        |(software, version, limits, random)| {
            let secret = JoinSecret::new(random);
            Welcome { software, version, limits, secret }
        },
    );
    prop_oneof![
        hello.prop_map(Message::Hello),
        welcome.prop_map(Message::Welcome),
        name().prop_map(|dataset| Message::List { dataset }),
        (target(), any::<bool>()).prop_map(|(target, more)| {
            let dataset = "backup/a".parse().unwrap();
            Message::Listed { dataset, target, more }
        }),
        (snapshots(), any::<bool>())
            .prop_map(|(snapshots, more)| Message::ListedMore { snapshots, more }),
        (name(), 0..400_u32).prop_map(|(dataset, pages)| Message::ListTree { dataset, pages }),
        (pieces(), any::<bool>()).prop_map(|(pieces, more)| {
            let root = "backup/a".parse().unwrap();
            Message::TreeListed { root, pieces, more }
        }),
        (pieces(), any::<bool>())
            .prop_map(|(pieces, more)| Message::TreeListedMore { pieces, more }),
        (0..400_u32).prop_map(|pages| Message::ListOn { pages }),
        (name(), text()).prop_map(|(dataset, token)| Message::Abort { dataset, token }),
        Just(Message::Aborted),
        prune().prop_map(Message::Prune),
        report().prop_map(Message::Pruned),
        (transfer(), request())
            .prop_map(|(transfer, request)| Message::Open(Open { transfer, request })),
        (transfer(), credit()).prop_map(|(transfer, credit)| {
            let start = Start::FromStart;
            Message::Opened { transfer, start, credit }
        }),
        (transfer(), watermarks(), credit(), arrived()).prop_map(
            |(transfer, reached, credit, arrived)| Message::Ack {
                transfer,
                reached,
                credit,
                arrived
            }
        ),
        (transfer(), ending()).prop_map(|(transfer, ending)| Message::End { transfer, ending }),
        (transfer(), outcome())
            .prop_map(|(transfer, outcome)| Message::Result { transfer, outcome }),
        failure().prop_map(Message::Refused),
        any::<u64>().prop_map(|heard| Message::Ping { heard }),
        (any::<u64>(), 0..3_u32, any::<bool>()).prop_map(|(heard, beginning, anew)| {
            Message::Return(Return { heard, beginning, anew })
        }),
        (any::<u64>(), 0..3_u32, option::of(standing())).prop_map(
            |(heard, beginning, standing)| {
                Message::Returned(Returned { heard, standing, beginning })
            }
        ),
        Just(Message::Bye),
    ]
}
