//! The resident side beside the backup pool: takes connections, runs a session for each client.
//!
//! One thread drives the conversations; the streams themselves run on the threads of an engine per
//! session. What must never happen here: that a connection which has not said what it is makes the
//! server wait, or that a stopping server cuts a transfer it could finish.

pub(crate) mod audit;
mod beside;
mod destination;
mod doorman;
mod gate;
mod granted;
mod incoming;
mod kept;
mod lanes;
mod leave;
mod making;
mod nowhere;
pub mod onlooker;
mod pipe;
mod place;
mod pool;
mod portion;
mod pruning;
mod roster;
mod session;
mod taker;
mod target;
mod transfer;
mod wished;

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sys::control;
use tokio::sync::watch;

pub use self::destination::Destination;
use self::doorman::{Doorman, Pass};
pub use self::granted::Granted;
pub use self::incoming::{Door, Incoming, OneTicket};
use self::incoming::{Introduced, Stranger};
pub use self::nowhere::Nowhere;
use self::onlooker::Onlooker;
pub use self::pipe::Pipe;
use self::place::Place;
pub use self::pool::{Only, Pool};
use self::portion::Portions;
use self::roster::{Arrival, Lane, Returning, Roster, Shown};
use self::session::Session;
use self::wished::Wished;
use crate::breakpoint::record::Role;
use crate::engine::settings::{Settings, Spool, When};
use crate::error::{Class, Failure, Side};
use crate::link::{self, Link, Wire};
use crate::listing::{TargetState, TargetTree};
use crate::protocol::version::Version;
use crate::spool::transfers::Transfers;

/// How long a connection may take to say what it is.
const PREAMBLE_LIMIT: Duration = Duration::from_secs(5);

/// Connections that are closed at the door are not told of more often.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// How often a server that stops looks whether its last session has ended.
const DRAIN_EVERY: Duration = Duration::from_millis(20);

/// A session that is just about to end is none that anybody waits for.
const TELL_DRAIN_AFTER: Duration = Duration::from_millis(500);

/// How urgently a server shall stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stopping {
    /// Not at all.
    No,
    /// When the transfers that run have ended.
    Drained,
    /// Now: transfers are given up, and what takes them is told so.
    Now,
}

/// How long a server is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasts {
    /// Until it is told to stop.
    Forever,
    /// For one transfer: its outcome is the server's.
    OneTransfer,
    /// For the sessions of one client, the first of which must begin within so long.
    OneClient(Duration),
}

/// How a server runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the engine of each session is built of.
    pub engine: Settings,
    /// The most data connections that one session gets.
    pub connections_max: u16,
    /// What ends it, besides being told to stop.
    pub lasts: Lasts,
    /// How long a transfer waits for a client that went away.
    pub grace: Duration,
    /// Where it keeps records of its transfers; `None` for nowhere.
    pub records: Option<Transfers>,
    /// Who counts what becomes of what clients ask for.
    pub onlooker: Option<Arc<dyn Onlooker>>,
}

/// What all sessions of a server share.
struct Shared {
    options: Options,
    destination: Destination,
    roster: Roster,
    portions: Portions,
    doorman: Doorman,
    turned_away: RefCell<TurnedAway>,
    stop: watch::Receiver<Stopping>,
    /// Sessions that are running.
    sessions: Cell<usize>,
    /// What clients ask for is written down: it is resident, and they are others.
    is_audited: bool,
    /// What became of the only transfer, where there is only one.
    outcome: watch::Sender<Option<Result<(), Failure>>>,
}

/// Serves until `stop` says so and the transfers that run then have ended, over whichever
/// connections, or until there is what it is to last for; then it returns what became of that.
pub async fn serve(
    incoming: Incoming,
    destination: Destination,
    options: Options,
    mut stop: watch::Receiver<Stopping>,
) -> Result<(), Failure> {
    let (outcome, mut ended) = watch::channel(None);
    // What a ticket lets in is one copy, of which whoever gave it out sees how it ends.
    let is_audited = options.lasts == Lasts::Forever
        && matches!(incoming, Incoming::Network { door: Door::Plain | Door::Keys(_), .. })
        && !matches!(destination, Destination::Pipe(_));
    let shared = Rc::new(Shared {
        options,
        destination,
        roster: Roster::default(),
        portions: Portions::default(),
        doorman: Doorman::default(),
        turned_away: RefCell::default(),
        stop: stop.clone(),
        sessions: Cell::new(0),
        is_audited,
        outcome,
    });
    session::restore_all(&shared).await;
    let _listening = control::spawn(obey_the_list(Rc::downgrade(&shared)));
    let mut meeting = pin!(meet_all(incoming, &shared));
    let listening = tokio::select! {
        () = &mut meeting => false,
        _ = stop.wait_for(|&stop| stop > Stopping::No) => true,
        _ = ended.wait_for(Option::is_some) => true,
        () = nobody(&shared) => true,
    };
    // A client whose transfer still runs may lose its connections, and must find its way back.
    tokio::select! {
        () = meeting, if listening => drain(&shared).await,
        () = drain(&shared) => {}
    }
    let outcome = shared.outcome.borrow().clone();
    outcome.unwrap_or_else(|| shared.nothing_came())
}

/// Has a list that was read again hold for what runs: sessions of clients that it does not name any
/// more end, and transfers of the others have what it grants.
async fn obey_the_list(shared: std::rc::Weak<Shared>) {
    let list = shared.upgrade().and_then(|shared| shared.destination.list());
    let Some(mut list) = list else { return };
    while list.changed().await.is_ok() {
        let Some(shared) = shared.upgrade() else { return };
        let clients = Arc::clone(&list.borrow_and_update());
        shared.roster.turn_out(|key| clients.find(key).is_some());
        shared.portions.renew(|key, root| {
            let client = clients.find(key)?;
            let grant = client.grants().iter().find(|grant| grant.root == *root)?;
            Some(grant.limits)
        });
    }
}

/// Ends when the only client has not come in time.
async fn nobody(shared: &Shared) {
    let Lasts::OneClient(within) = shared.options.lasts else {
        return std::future::pending().await;
    };
    tokio::time::sleep(within).await;
    if shared.sessions.get() > 0 {
        std::future::pending::<()>().await;
    }
}

/// Hears everybody out who comes, until nobody can come any more.
async fn meet_all(mut incoming: Incoming, shared: &Rc<Shared>) {
    while let Some(stranger) = incoming.next().await {
        // Whoever is in this process already needs no place.
        let place = stranger.source.map(|source| shared.doorman.knock(source, lot()));
        control::spawn(meet(Rc::clone(shared), stranger, place));
    }
}

/// A number that nobody outside can foretell. Without random bytes there are no sessions either.
fn lot() -> u32 {
    getrandom::u32().unwrap_or(0)
}

/// Connections whose places others took; told of now and then, for they may be many.
#[derive(Debug, Default)]
struct TurnedAway {
    count: u64,
    told: Option<Instant>,
}

impl TurnedAway {
    fn tell(&mut self, peer: &str) {
        self.count += 1;
        if self.told.is_none_or(|told| told.elapsed() > TELL_EVERY) {
            self.told = Some(Instant::now());
            let count = std::mem::take(&mut self.count);
            tracing::warn!(
                count,
                peer,
                "turned away: too many connections have not said who they are"
            );
        }
    }
}

/// Hears one connection out and leads it where it belongs; until then it has its place at the door.
async fn meet(shared: Rc<Shared>, stranger: Stranger, place: Option<Pass>) {
    let (peer, source) = (stranger.peer.clone(), stranger.source);
    let taken = async {
        match &place {
            Some(place) => place.taken().await,
            None => std::future::pending().await,
        }
    };
    let newcomer = tokio::select! {
        newcomer = lead(&shared, stranger) => newcomer,
        () = taken => return shared.turned_away.borrow_mut().tell(&peer),
    };
    drop(place);
    let Some((version, wire)) = newcomer else { return };
    match Session::greeting(&shared, wire, version, peer) {
        Ok(session) => {
            let _known = source.map(|source| shared.doorman.know(source));
            shared.run(session).await;
        }
        Err(error) => tracing::error!(%error, "no random bytes for a session"),
    }
}

/// Leads a connection to the session that it belongs to; comes back with one that wants a new one.
async fn lead(shared: &Rc<Shared>, stranger: Stranger) -> Option<(Version, Wire)> {
    let peer = stranger.peer.clone();
    match incoming::introduce(stranger).await? {
        Introduced::Lane { lane, shown, connection } => {
            let delivered = shared.roster.deliver(&shown, Arrival::Lane(Lane { lane, connection }));
            if delivered.is_err() {
                tracing::warn!(peer, "refused a data connection that belongs to no session");
            }
            None
        }
        Introduced::Return { shown, wire } => {
            take_back(shared, &shown, Link::new(wire), peer).await;
            None
        }
        Introduced::Control { wire, .. } if shared.is_over() => {
            incoming::refuse(Link::new(wire), session::stopping(), &peer).await;
            None
        }
        Introduced::Control { version, wire } => Some((version, wire)),
    }
}

/// Brings a client back to its session, or tells it that there is none any more.
async fn take_back(shared: &Shared, shown: &Shown, mut link: Link, peer: String) {
    let client = match tokio::time::timeout(PREAMBLE_LIMIT, link::hear_return(&mut link)).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return tracing::warn!(peer, %error, "refused a client that came back"),
        Err(_elapsed) => return tracing::warn!(peer, "refused a client that said nothing"),
    };
    let returning = Arrival::Client(Box::new(Returning { link, client, peer }));
    if let Err(Arrival::Client(turned_away)) = shared.roster.deliver(shown, returning) {
        let Returning { link, peer, .. } = *turned_away;
        let what = "the server has ended the session, or was started anew since";
        let failure = Failure::new(Side::Target, Class::Interrupted, what);
        incoming::refuse(link, failure, &peer).await;
    }
}

/// Waits for the sessions that still run; they know that no more transfers are wanted.
async fn drain(shared: &Shared) {
    let mut tell_at = Some(Instant::now() + TELL_DRAIN_AFTER);
    while shared.sessions.get() > 0 {
        let is_drained = *shared.stop.borrow() == Stopping::Drained;
        if is_drained && tell_at.take_if(|tell_at| Instant::now() > *tell_at).is_some() {
            // Whoever stopped it wonders why it is still there.
            let transfers = shared.sessions.get();
            tracing::warn!(
                transfers,
                "stopping when the last transfer ends; a second signal ends it now"
            );
        }
        tokio::time::sleep(DRAIN_EVERY).await;
    }
}

/// Asks the pool, which blocks.
async fn on_another_thread<T: Send + 'static>(
    look: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(look).await {
        Ok(found) => found,
        Err(panicked) => {
            let what = format!("read the target: {panicked}");
            Err(Failure::new(Side::Target, Class::Internal, what))
        }
    }
}

impl Options {
    /// Where streams are kept that shall outlive this process.
    fn keeps_in(&self) -> Option<&Spool> {
        self.engine.spool.as_ref().filter(|spool| spool.when == When::Always)
    }
}

impl Shared {
    /// Whether no new session is wanted.
    fn is_over(&self) -> bool {
        *self.stop.borrow() > Stopping::No || self.outcome.borrow().is_some()
    }

    /// Runs a session, which counts from now on.
    fn run(self: &Rc<Shared>, session: Session) -> impl Future<Output = ()> + use<> {
        let shared = Rc::clone(self);
        shared.count(|running| running + 1);
        async move {
            session.run().await;
            shared.count(|running| running - 1);
        }
    }

    /// There is one session more, or less.
    fn count(&self, change: impl Fn(usize) -> usize) {
        self.sessions.update(change);
        if let Some(onlooker) = &self.options.onlooker {
            onlooker.sessions(self.sessions.get());
        }
    }

    /// Reads what a dataset holds, once nobody receives into it.
    async fn look_up(&self, wished: Wished) -> Result<TargetState, Failure> {
        self.roster.free(&Place::Dataset(wished.dataset.clone())).await?;
        let records = self.options.records.clone();
        let look = move || {
            let target = wished.look_up()?;
            if let Some(records) = records {
                records.forget_arrived(Role::Server, wished.dataset.as_str(), &target);
            }
            Ok(target)
        };
        on_another_thread(look).await
    }

    /// The same for a dataset and all below it. What somebody receives there stays as it is.
    async fn look_up_tree(&self, wished: Wished) -> Result<TargetTree, Failure> {
        self.roster.free_below(&wished.dataset).await;
        let records = self.options.records.clone();
        on_another_thread(move || {
            let tree = wished.look_up_tree()?;
            if let Some(records) = records {
                records.forget_arrived_below(Role::Server, &tree.datasets);
            }
            Ok(tree)
        })
        .await
    }

    /// The end of a server that was wanted for something that did not come.
    fn nothing_came(&self) -> Result<(), Failure> {
        let what = match self.options.lasts {
            Lasts::Forever => return Ok(()),
            Lasts::OneTransfer => "stopped before a stream came",
            Lasts::OneClient(_) => "stopped before anybody came",
        };
        Err(Failure::new(Side::Target, Class::Interrupted, what))
    }
}
