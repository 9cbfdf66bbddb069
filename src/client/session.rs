//! A session seen from the client: connect, ask, carry streams, part.
//!
//! All decisions are the machine's ([`crate::protocol::sender`]); this file carries its orders
//! out. What must never happen here: a success that the server did not report, and a `zfs send`
//! that outlives its transfer.

mod carrying;
mod connections;
mod following;
mod pruning;
mod records;
mod taken_up;

use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use self::carrying::Carrying;
use self::records::Bookkeeping;
pub(super) use self::taken_up::TakenUp;
use super::conversation::Conversation;
use super::figures::Moment;
use super::lanes::Lanes;
use super::limit::Limiter;
use super::source::Opened;
use super::stripes::{Connections, Stripes};
use super::watch::{Layer, Stop, Watch};
use super::{Dial, Options};
use crate::dataset::DatasetName;
use crate::engine::sender::{Event, Sender as Engine};
use crate::engine::settings::Settings;
use crate::error::{Class, Failure, Side};
use crate::listing::{TargetState, TargetTree};
use crate::process::Ended;
use crate::protocol::frame::Codec;
use crate::protocol::message::{Applied, Hello, Limits, RelativeName, Request, Stream};
use crate::protocol::negotiate::Agreed;
use crate::protocol::secret::JoinSecret;
use crate::protocol::sender::{Input, Output};
use crate::units::Bytes;
use crate::zfs::failure::SendFailure;

/// One session.
pub struct Session {
    conversation: Conversation,
    /// What was agreed with the server, and what it knows this session by.
    terms: (Agreed, JoinSecret),
    lanes: Lanes,
    /// Where the number of lanes is found on the way.
    stripes: Option<Stripes>,
    began: Instant,
    engine: Engine,
    limiter: Limiter,
    events: UnboundedReceiver<Event>,
    block_bytes: Bytes,
    codec: Codec,
    stall_timeout: Duration,
    records: Bookkeeping,
}

/// What carries the streams of a session.
struct Equipment {
    settings: Settings,
    lanes: Lanes,
    engine: Engine,
    events: UnboundedReceiver<Event>,
}

/// Opens a source.
pub(super) type Open<'a> = dyn FnOnce() -> Result<Opened, Failure> + 'a;

/// Judges how the process of a source ended; `None` if it ended well.
pub(super) type Judge<'a> = dyn Fn(&Ended) -> Option<SendFailure> + 'a;

/// A stream to carry: what the server is asked, and where the bytes come from.
pub(super) struct Cargo<'a> {
    /// What is copied where: the same in every run.
    pub job: String,
    /// What it is, for whoever looks on.
    pub what: String,
    pub stream: Stream,
    pub estimated: Option<Bytes>,
    /// Opens the source once the server is ready for it.
    pub open: Box<Open<'a>>,
    /// The failure of a source whose process ended badly, and whether something else caused that.
    pub judge: Box<Judge<'a>>,
}

/// A stream that the target holds.
pub(super) struct Carried {
    pub applied: Applied,
    pub moment: Moment,
}

impl Session {
    /// Connects to a server and agrees with it on how to talk.
    pub async fn open(dial: Dial, options: &Options) -> Result<Session, Failure> {
        let codec = options.engine.codec();
        let hello = Hello {
            software: concat!("zferry ", env!("CARGO_PKG_VERSION")).to_owned(),
            limits: Limits {
                block_bytes_max: options.engine.block_bytes,
                connections: options.connections.most(),
                codecs: [Codec::Raw, codec].into(),
            },
        };
        let (conversation, agreed, secret) =
            Conversation::begin(dial, hello, options.retry_for).await?;
        match Session::equip(&conversation, &agreed, secret, options).await {
            Ok(Equipment { settings, lanes, engine, events }) => Ok(Session {
                limiter: Limiter::start(&engine, options.limit.clone(), options.sharers),
                engine,
                conversation,
                terms: (agreed, secret),
                lanes,
                stripes: stripes_of(options),
                began: Instant::now(),
                events,
                block_bytes: settings.block_bytes,
                codec,
                stall_timeout: options.stall_timeout,
                records: Bookkeeping::new(options.records.clone(), settings.spool.as_ref()),
            }),
            Err(failure) => {
                conversation.part(Some(&failure)).await;
                Err(failure)
            }
        }
    }

    /// Gets ready for streams as they were agreed upon.
    async fn equip(
        conversation: &Conversation,
        agreed: &Agreed,
        secret: JoinSecret,
        options: &Options,
    ) -> Result<Equipment, Failure> {
        let codec = options.engine.codec();
        if !agreed.limits.codecs.contains(&codec) {
            return Err(cannot_take(codec, conversation.server()));
        }
        let (lanes, connections) = Lanes::open(
            conversation.dial().clone(),
            secret,
            lanes_of(options, agreed),
            options.congestion.clone(),
            options.retry_for,
        )
        .await?;
        let mut settings = options.engine.clone();
        settings.block_bytes = settings.block_bytes.min(agreed.limits.block_bytes_max);
        let (event_inbox, events) = unbounded_channel();
        let engine = Engine::start(&settings, connections, &event_inbox, None)?;
        Ok(Equipment { settings, lanes, engine, events })
    }

    /// Asks what the target holds; it also has its full name.
    pub async fn list(
        &mut self,
        dataset: RelativeName,
    ) -> Result<(DatasetName, TargetState), Failure> {
        let mut news = self.conversation.wish(Input::List(dataset)).await?;
        loop {
            for output in news {
                match output {
                    Output::Listed { dataset, target } => return Ok((dataset, target)),
                    Output::Failed(failure) => return Err(failure),
                    _ => {}
                }
            }
            news = self.conversation.hear().await?;
        }
    }

    /// Asks what the target and all below it hold.
    pub async fn list_tree(&mut self, dataset: RelativeName) -> Result<TargetTree, Failure> {
        let mut news = self.conversation.wish(Input::ListTree(dataset)).await?;
        loop {
            for output in news {
                match output {
                    Output::TreeListed(tree) => return Ok(tree),
                    Output::Failed(failure) => return Err(failure),
                    _ => {}
                }
            }
            news = self.conversation.hear().await?;
        }
    }

    /// Has the server give up what an interrupted receive left in a dataset, if that still has the
    /// token that it listed.
    pub async fn abort(&mut self, dataset: RelativeName, token: String) -> Result<(), Failure> {
        let mut news = self.conversation.wish(Input::Abort { dataset, token }).await?;
        loop {
            for output in news {
                match output {
                    Output::Aborted => return Ok(()),
                    Output::Failed(failure) => return Err(failure),
                    _ => {}
                }
            }
            news = self.conversation.hear().await?;
        }
    }

    /// Carries one stream and returns when the target holds it. After an error the session is of
    /// no more use.
    pub(super) async fn carry(
        &mut self,
        cargo: Cargo<'_>,
        watch: &mut dyn Watch,
        stop: &mut Stop,
    ) -> Result<Carried, Failure> {
        let mut carrying = Carrying::new(self.stall_timeout);
        let request = Request {
            stream: cargo.stream.clone(),
            epoch: 0,
            estimated_bytes: cargo.estimated,
            block_bytes: self.block_bytes,
            codec: self.codec,
            interrupted_at: None,
        };
        let request = self.keep_records(request, &cargo, &mut carrying).await;
        watch.begin(&cargo.what, cargo.estimated);
        let carried = self.carry_through(request, cargo, &mut carrying, watch, stop).await;
        self.finish(carried, carrying, watch).await
    }

    /// How far a stream is, for whoever looks on.
    fn moment(&self, carrying: &Carrying) -> Moment {
        carrying.moment(self.lanes.used(), self.engine.level(), self.engine.route())
    }

    /// Ends what is left of a stream that was carried, and says how far it came.
    async fn finish(
        &mut self,
        carried: Result<Applied, Failure>,
        mut carrying: Carrying,
        watch: &mut dyn Watch,
    ) -> Result<Carried, Failure> {
        if let Some(source) = carrying.source.take() {
            source.stop().await;
        }
        self.close_records(&mut carrying, carried.as_ref().err()).await;
        let moment = self.moment(&carrying);
        let applied = carried?;
        if carrying.cut {
            // Not all connections were back when the last block had arrived.
            watch.survived(Layer::Reconnect);
        }
        watch.moment(Moment { stands_still: None, ..moment });
        watch.end();
        Ok(Carried { applied, moment })
    }

    /// Waits for `work`, and keeps the session alive meanwhile.
    pub(super) async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        self.conversation.meanwhile(work).await
    }

    /// Says good-bye: all that was wished has been done.
    pub async fn close(self) {
        self.end(None).await;
    }

    /// Ends the session after a failure, which the server is told if it cannot know of it.
    pub async fn part(self, failure: &Failure) {
        self.end(Some(failure)).await;
    }

    async fn end(self, failure: Option<&Failure>) {
        let engine = self.engine;
        let ended = tokio::task::spawn_blocking(move || drop(engine));
        let (_, ()) = tokio::join!(ended, self.conversation.part(failure));
    }
}

/// A server that cannot take what is to be sent to it, or does not wish to.
fn cannot_take(codec: Codec, server: &str) -> Failure {
    let (what, remedy) = match codec {
        Codec::Zstd => ("cannot unpack blocks", "use --compress none"),
        Codec::Raw | Codec::Bare => ("takes no blocks without a checksum", "use --checksum crc32"),
    };
    Failure::new(Side::Target, Class::Refused, format!("{server} {what}")).with_remedy(remedy)
}

/// How many lanes there are at first, and at most.
fn lanes_of(options: &Options, agreed: &Agreed) -> (u16, u16) {
    let most = agreed.limits.connections;
    match options.connections {
        Connections::Fixed(_) => (most, most),
        Connections::UpTo(_) => (1, most),
    }
}

/// Who finds the number of lanes, where it is to be found.
fn stripes_of(options: &Options) -> Option<Stripes> {
    matches!(options.connections, Connections::UpTo(_)).then(|| Stripes::new(Duration::ZERO))
}
