//! Takes connections, and makes one to the server for each.
//!
//! One thread with an event loop of its own, from [`Proxy::start`] to the drop of the [`Proxy`].

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, broadcast};
use tokio::task::LocalSet;
use tokio::time::{sleep, sleep_until};

use crate::counters::Counters;
use crate::opening::Role;
use crate::plan::{Courses, Dealer, Ending, Fault, Plan, Way, Who};
use crate::relay::relay;
use crate::throttle::Throttle;

/// What the kernel may hold for us on each connection. Small, so that a way that is silent soon has
/// its sender stand still, as a line without acknowledgements would.
const RECEIVE_BYTES: u32 = 64 << 10;

/// After an error of bind(2) or accept(2), the next attempt waits this long.
const AFTER_ERROR: Duration = Duration::from_millis(10);

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;

/// Cuts that a connection has not looked at yet: each ends it, so one is enough.
const CUTS_MAX: usize = 64;

/// A relay that runs until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    counters: Arc<Mutex<Counters>>,
    orders: Option<UnboundedSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Cut(Who, Ending),
    Silence(Duration),
    Refuse(Duration),
    ForwardTo(SocketAddr),
    ComeFrom(IpAddr),
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub cuts: broadcast::Sender<(Who, Ending)>,
    /// Until when nothing passes anywhere.
    pub silent: Cell<Instant>,
    /// The lines that connections share, up and down.
    narrow: RefCell<[Option<Throttle>; 2]>,
    dealer: RefCell<Dealer>,
    counters: Arc<Mutex<Counters>>,
    refused_until: Cell<Instant>,
    refusing: Notify,
    to: Cell<SocketAddr>,
    from: Cell<Option<IpAddr>>,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and forwards to `to`.
    pub fn start(to: SocketAddr, plan: &Plan) -> io::Result<Proxy> {
        Proxy::listen((Ipv4Addr::LOCALHOST, 0).into(), to, plan)
    }

    /// Listens at `address` and forwards to `to`.
    pub fn listen(address: SocketAddr, to: SocketAddr, plan: &Plan) -> io::Result<Proxy> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(async { bind(address) })?;
        let address = listener.local_addr()?;
        let counters = Arc::new(Mutex::new(Counters::default()));
        let (orders, inbox) = unbounded_channel();
        let dealer = Dealer::new(plan);
        let books = Arc::clone(&counters);
        let thread = std::thread::Builder::new().name("chaos".to_owned()).spawn(move || {
            let shared = Rc::new(Shared::new(to, dealer, books));
            run(&runtime, &shared, listener, inbox);
        })?;
        Ok(Proxy { address, counters, orders: Some(orders), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has passed so far.
    pub fn counters(&self) -> Counters {
        locked(&self.counters).clone()
    }

    /// Ends these connections now.
    pub fn cut(&self, who: Who, ending: Ending) {
        self.order(Order::Cut(who, ending));
    }

    /// Lets nothing pass for so long, on any connection there is or will be.
    pub fn silence(&self, time: Duration) {
        self.order(Order::Silence(time));
    }

    /// Refuses new connections for so long.
    pub fn refuse(&self, time: Duration) {
        self.order(Order::Refuse(time));
    }

    /// Makes new connections to this address.
    pub fn forward_to(&self, to: SocketAddr) {
        self.order(Order::ForwardTo(to));
    }

    /// Makes new connections from this address, one of this machine's.
    pub fn come_from(&self, from: IpAddr) {
        self.order(Order::ComeFrom(from));
    }

    fn order(&self, order: Order) {
        let sent = self.orders.as_ref().map(|orders| orders.send(order));
        assert!(matches!(sent, Some(Ok(()))), "the proxy's thread has died");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // Its panic was printed.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn new(to: SocketAddr, dealer: Dealer, counters: Arc<Mutex<Counters>>) -> Shared {
        let now = Instant::now();
        Shared {
            cuts: broadcast::Sender::new(CUTS_MAX),
            silent: Cell::new(now),
            narrow: RefCell::default(),
            dealer: RefCell::new(dealer),
            counters,
            refused_until: Cell::new(now),
            refusing: Notify::new(),
            to: Cell::new(to),
            from: Cell::new(None),
        }
    }

    /// A new connection of this role: what lies ahead of it.
    pub fn deal(&self, role: Role) -> Courses {
        locked(&self.counters).of(role).connections += 1;
        self.dealer.borrow_mut().deal(role)
    }

    pub async fn connect(&self) -> io::Result<TcpStream> {
        let socket = socket(self.to.get())?;
        if let Some(from) = self.from.get() {
            socket.bind((from, 0).into())?;
        }
        let stream = socket.connect(self.to.get()).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    pub fn count(&self, fault: Fault) {
        locked(&self.counters).count(fault);
    }

    pub fn passed(&self, role: Role, way: Way, bytes: usize) {
        locked(&self.counters).of(role).pass(way, bytes);
    }

    /// From now on there is a line in this direction, if there was none, of so many bytes a second.
    pub fn narrow(&self, way: Way, rate: u64) {
        let line = &mut self.narrow.borrow_mut()[usize::from(way == Way::Down)];
        line.get_or_insert_with(|| Throttle::new(rate, Instant::now()));
    }

    /// So many bytes pass over that line: when whoever sent them may send more.
    pub fn turn(&self, way: Way, bytes: usize) -> Instant {
        let now = Instant::now();
        let line = &mut self.narrow.borrow_mut()[usize::from(way == Way::Down)];
        line.as_mut().map_or(now, |line| line.pass(bytes, now))
    }

    /// How many bytes are a turn on that line.
    pub fn bytes_at_once(&self, way: Way) -> usize {
        let line = &self.narrow.borrow()[usize::from(way == Way::Down)];
        line.as_ref().map_or(usize::MAX, Throttle::bytes_at_once)
    }

    pub fn cut_all(&self, ending: Ending) {
        self.cut(Who::Any, ending);
    }

    pub fn silence(&self, time: Duration) {
        self.silent.set(Instant::now() + time);
    }

    pub fn refuse(&self, time: Duration) {
        self.refused_until.set(Instant::now() + time);
        self.refusing.notify_one();
    }

    fn cut(&self, who: Who, ending: Ending) {
        // Nobody listens where there are no connections.
        let _ = self.cuts.send((who, ending));
    }

    fn obey(&self, order: Order) {
        match order {
            Order::Cut(who, ending) => self.cut(who, ending),
            Order::Silence(time) => self.silence(time),
            Order::Refuse(time) => self.refuse(time),
            Order::ForwardTo(to) => self.to.set(to),
            Order::ComeFrom(from) => self.from.set(Some(from)),
        }
    }
}

fn run(
    runtime: &Runtime,
    shared: &Rc<Shared>,
    listener: TcpListener,
    mut orders: UnboundedReceiver<Order>,
) {
    let connections = LocalSet::new();
    connections.block_on(runtime, async {
        let listening = tokio::task::spawn_local(listen(Rc::clone(shared), listener));
        while let Some(order) = orders.recv().await {
            shared.obey(order);
        }
        listening.abort();
    });
}

async fn listen(shared: Rc<Shared>, listener: TcpListener) {
    let Ok(address) = listener.local_addr() else { return };
    let mut listener = Some(listener);
    loop {
        if shared.refused_until.get() > Instant::now() {
            // Only a port that nobody listens on refuses.
            listener = None;
            sleep_until(shared.refused_until.get().into()).await;
            continue;
        }
        let Some(open) = &listener else {
            match bind(address) {
                Ok(again) => listener = Some(again),
                // Somebody may be dialling out from it.
                Err(_taken) => sleep(AFTER_ERROR).await,
            }
            continue;
        };
        tokio::select! {
            () = shared.refusing.notified() => {}
            accepted = open.accept() => match accepted {
                Ok((client, _)) => {
                    tokio::task::spawn_local(relay(Rc::clone(&shared), client));
                }
                Err(_) => sleep(AFTER_ERROR).await,
            },
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_recv_buffer_size(RECEIVE_BYTES)?;
    Ok(socket)
}

/// A panic between two additions leaves numbers that are still good enough to be told.
fn locked(counters: &Mutex<Counters>) -> MutexGuard<'_, Counters> {
    counters.lock().unwrap_or_else(PoisonError::into_inner)
}
