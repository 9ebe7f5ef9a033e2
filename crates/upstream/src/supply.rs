//! A channel's connections of one thread: those at hand, those being opened, those to be let go.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aiproxy_config::model::{Channel, HttpVersion, PoolLimits};
use aiproxy_quic::endpoint::Dialler as Sockets;
use http::HeaderMap;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::chance::chance;
use crate::connect::{Conn, Dialler, Opened, Route};
use crate::error::ConnectError;
use crate::http3::{self, Http3};
use crate::multiplex::{MOST_STREAMS, Shared, Ticket, USUAL_STREAMS};
use crate::resolve::Resolver;
use crate::tls::TlsConfigs;

/// Answers in a row that do not name an address before its connections are let go: name services
/// that balance load name a few of many each time.
const MISSES: u32 = 3;
/// Addresses of which misses are counted.
const COUNTED: usize = 64;
/// Times that a request waits for a connection which others then fill, before it opens its own.
const ROUNDS: usize = 3;
/// The first and the longest pause after a connection that could not be opened ahead of need.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// A connection for one request.
#[derive(Debug)]
pub(crate) enum Taken {
    One {
        conn: Conn,
        reused: bool,
    },
    Many(Ticket),
    /// Over HTTP/3.
    Quic(http3::Ticket),
}

/// Where connections come from.
#[derive(Debug)]
pub(crate) struct Supply {
    channel: Arc<Channel>,
    route: Route,
    configs: Arc<TlsConfigs>,
    resolver: Rc<Resolver>,
    sockets: Rc<RefCell<Sockets>>,
    pub(crate) conns: Rc<Conns>,
}

/// The connections themselves: a reload keeps them.
#[derive(Debug)]
pub(crate) struct Conns {
    idle: RefCell<VecDeque<Idle>>,
    shared: RefCell<Vec<Rc<Shared>>>,
    http3: Rc<Http3>,
    dials: RefCell<Vec<Rc<Dial>>>,
    limits: Cell<PoolLimits>,
    /// What the platform spoke last.
    speaks: Cell<Option<HttpVersion>>,
    /// Streams that it took last.
    streams: Cell<usize>,
    /// Answers in a row that did not name an address.
    misses: RefCell<HashMap<IpAddr, u32>>,
    looked: Cell<Instant>,
    /// After failures: when one is opened ahead of need again, and the pause before that.
    ahead: Cell<Option<(Instant, Duration)>>,
}

#[derive(Debug)]
struct Idle {
    conn: Conn,
    until: Instant,
}

/// A connection that is being opened, and that requests wait for.
#[derive(Debug, Default)]
struct Dial {
    waiting: Cell<usize>,
    outcome: RefCell<Option<Result<(), ConnectError>>>,
    done: Notify,
}

/// Connections that refuse streams before no more are opened for that.
const REFUSING: usize = 3;

impl Supply {
    pub(crate) fn new(
        channel: &Arc<Channel>,
        conns: Option<Rc<Conns>>,
        configs: &Arc<TlsConfigs>,
        resolver: &Rc<Resolver>,
        sockets: &Rc<RefCell<Sockets>>,
    ) -> Rc<Self> {
        let conns = conns.unwrap_or_default();
        conns.limits.set(channel.pool);
        Rc::new(Self {
            channel: Arc::clone(channel),
            route: Route::of(channel),
            configs: Arc::clone(configs),
            resolver: Rc::clone(resolver),
            sockets: Rc::clone(sockets),
            conns,
        })
    }

    /// A connection for a request: one that is open and has room, else a new one.
    pub(crate) async fn take(self: &Rc<Self>) -> Result<Taken, ConnectError> {
        let conns = &self.conns;
        if let Some(ticket) = self.over_http3().await? {
            return Ok(Taken::Quic(ticket));
        }
        for _ in 0..ROUNDS {
            if let Some(ticket) = conns.with_room() {
                return Ok(Taken::Many(ticket));
            }
            if let Some(conn) = conns.idle().await {
                return Ok(Taken::One { conn, reused: true });
            }
            let alone = !self.channel.may_multiplex() || conns.speaks.get() == Some(HttpVersion::H1);
            if alone {
                break;
            }
            self.join().outcome().await?;
        }
        Ok(match self.dialler().open().await? {
            Opened::One(conn) => {
                conns.opened(HttpVersion::H1, conn.peer);
                Taken::One { conn, reused: false }
            }
            Opened::Many(shared) => Taken::Many(Ticket::on(&conns.add(shared))),
        })
    }

    /// A place on a connection over HTTP/3, where that is a way.
    async fn over_http3(self: &Rc<Self>) -> Result<Option<http3::Ticket>, ConnectError> {
        if self.channel.reach.wants_h3().is_none() {
            return Ok(None);
        }
        if let Route::Proxy(_) = self.route {
            return match self.channel.reach.is_only_h3() {
                true => Err(ConnectError::ProxyRefused("HTTP/3 goes through no proxy".to_owned())),
                false => Ok(None),
            };
        }
        let way = http3::Way {
            channel: Arc::clone(&self.channel),
            configs: Arc::clone(&self.configs),
            resolver: Rc::clone(&self.resolver),
            sockets: Rc::clone(&self.sockets),
        };
        // What waits for a connection is many times as large as what has one.
        Box::pin(http3::take(&self.conns.http3, &way)).await
    }

    /// An answer came over TCP: it may say where HTTP/3 is to be had.
    pub(crate) fn learn(&self, headers: &HeaderMap) {
        if self.channel.reach.wants_h3().is_some() {
            self.configs.outlooks.learn(&self.channel, headers);
        }
    }

    /// A connection over HTTP/3 went silent.
    pub(crate) fn lost_http3(&self) {
        self.configs.outlooks.failed(&self.channel);
    }

    /// The connection being opened that has a place left, or one more.
    fn join(self: &Rc<Self>) -> Rc<Dial> {
        let dials = self.conns.dials.borrow();
        let places = self.conns.streams.get();
        let open = dials.iter().find(|dial| dial.waiting.get() < places).cloned();
        drop(dials);
        let dial = open.unwrap_or_else(|| self.begin());
        dial.waiting.set(dial.waiting.get() + 1);
        dial
    }

    /// Opens a connection on its own: whoever waits for it may leave.
    fn begin(self: &Rc<Self>) -> Rc<Dial> {
        let dial = Rc::<Dial>::default();
        self.conns.dials.borrow_mut().push(Rc::clone(&dial));
        let (supply, begun) = (Rc::clone(self), Rc::clone(&dial));
        spawn_local(async move {
            let opened = supply.dialler().open().await;
            let conns = &supply.conns;
            conns.dials.borrow_mut().retain(|other| !Rc::ptr_eq(other, &begun));
            let outcome = opened.map(|opened| match opened {
                Opened::One(conn) => {
                    conns.opened(HttpVersion::H1, conn.peer);
                    conns.give_back(conn);
                }
                Opened::Many(shared) => drop(conns.add(shared)),
            });
            if let Err(error) = &outcome {
                let pause = conns.pause();
                tracing::debug!(channel = %supply.channel.id, %error, ?pause, "no connection; pausing before one is opened ahead of need");
            }
            *begun.outcome.borrow_mut() = Some(outcome);
            begun.done.notify_waiters();
        });
        dial
    }

    pub(crate) fn dialler(&self) -> Dialler<'_> {
        Dialler {
            channel: &self.channel,
            route: &self.route,
            configs: &self.configs,
            resolver: &self.resolver,
            streams: self.conns.streams.get(),
        }
    }

    /// Opens one connection ahead of need, where one is missing and nothing speaks against it.
    pub(crate) fn warm(self: &Rc<Self>) {
        let conns = &self.conns;
        let wanted = self.channel.pool.warm;
        if wanted == 0 || conns.ahead.get().is_some_and(|(when, _)| Instant::now() < when) {
            return;
        }
        let usable = conns.shared.borrow().iter().filter(|shared| shared.has_room()).count();
        if conns.idle.borrow().len() + usable + conns.dials.borrow().len() < wanted {
            self.begin();
        }
    }

    /// Looks the host up where that is due, and lets go of connections to addresses that are its no
    /// longer.
    pub(crate) fn follow(self: &Rc<Self>) {
        let conns = &self.conns;
        let (host, _) = self.route.first_hop(&self.channel.base);
        let fixed = host.parse::<IpAddr>().is_ok() || self.channel.reach.addresses_of(host).is_some();
        if fixed || conns.looked.get().elapsed() < self.channel.pool.lookup || conns.is_empty() {
            return;
        }
        // Noted now: the next is due from here, however long this one takes.
        conns.looked.set(Instant::now() + jitter(self.channel.pool.lookup / 4));
        let supply = Rc::clone(self);
        spawn_local(async move {
            let (host, _) = supply.route.first_hop(&supply.channel.base);
            // A name service that is away says nothing about addresses.
            if let Ok(found) = supply.resolver.lookup(host).await {
                supply.conns.compare(&found, &supply.channel.id);
            }
        });
    }
}

impl Dial {
    async fn outcome(&self) -> Result<(), ConnectError> {
        loop {
            let done = self.done.notified();
            if let Some(outcome) = &*self.outcome.borrow() {
                return outcome.clone();
            }
            done.await;
        }
    }
}

impl Default for Conns {
    fn default() -> Self {
        Self {
            idle: RefCell::default(),
            shared: RefCell::default(),
            http3: Rc::default(),
            dials: RefCell::default(),
            limits: Cell::default(),
            speaks: Cell::new(None),
            streams: Cell::new(USUAL_STREAMS),
            misses: RefCell::default(),
            looked: Cell::new(Instant::now()),
            ahead: Cell::new(None),
        }
    }
}

impl Conns {
    /// A place on an HTTP/2 connection. The first with room is taken, so that others fall idle. Where
    /// several refuse streams, one more connection would not help: it is the platform that has enough.
    fn with_room(&self) -> Option<Ticket> {
        let shared = self.shared.borrow();
        if let Some(free) = shared.iter().find(|shared| shared.has_room()) {
            return Some(Ticket::on(free));
        }
        let mut resting = shared.iter().filter(|shared| shared.rests());
        let first = resting.next()?;
        (resting.count() + 1 >= REFUSING).then(|| Ticket::on(first))
    }

    /// The most recently used HTTP/1.1 connection that is still open.
    async fn idle(&self) -> Option<Conn> {
        loop {
            let mut idle = self.idle.borrow_mut().pop_back()?;
            if Instant::now() < idle.until && idle.conn.sender.ready().await.is_ok() {
                return Some(idle.conn);
            }
        }
    }

    /// Keeps an HTTP/1.1 connection for the next request.
    pub(crate) fn give_back(&self, conn: Conn) {
        let limits = self.limits.get();
        let gone = self.misses.borrow().get(&conn.peer).is_some_and(|misses| *misses >= MISSES);
        if gone || limits.max_idle == 0 || conn.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        while idle.len() >= limits.max_idle {
            idle.pop_front();
        }
        let until = Instant::now() + limits.idle - jitter(limits.idle / 5);
        idle.push_back(Idle { conn, until });
    }

    fn add(&self, shared: Shared) -> Rc<Shared> {
        self.opened(HttpVersion::H2, shared.peer);
        let shared = Rc::new(shared);
        self.shared.borrow_mut().push(Rc::clone(&shared));
        shared
    }

    fn opened(&self, version: HttpVersion, peer: IpAddr) {
        self.speaks.set(Some(version));
        self.misses.borrow_mut().remove(&peer);
        self.ahead.set(None);
    }

    /// An answer came over the connection: what it allows is known.
    pub(crate) fn learn(&self, shared: &Shared) {
        self.streams.set(shared.capacity().clamp(1, MOST_STREAMS));
    }

    fn pause(&self) -> Duration {
        let [first, longest] = PAUSES;
        let pause = self.ahead.get().map_or(first, |(_, last)| (last * 2).min(longest));
        self.ahead.set(Some((Instant::now() + pause + jitter(pause / 4), pause)));
        pause
    }

    fn is_empty(&self) -> bool {
        self.idle.borrow().is_empty() && self.shared.borrow().is_empty() && self.http3.peers().is_empty()
    }

    /// Lets go of what has ended, or has been idle for long.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let idle = self.limits.get().idle;
        self.http3.sweep(idle);
        self.idle.borrow_mut().retain(|idle| !idle.conn.sender.is_closed() && now < idle.until);
        self.shared.borrow_mut().retain(|shared| {
            let limit = idle - (idle / 5).mul_f64(shared.spread);
            !shared.is_over() && shared.idle_for().is_none_or(|time| time < limit)
        });
    }

    fn compare(&self, found: &[IpAddr], channel: &str) {
        let mut misses = self.misses.borrow_mut();
        misses.retain(|address, _| !found.contains(address));
        let idle = self.idle.borrow();
        let shared = self.shared.borrow();
        let peers = idle.iter().map(|idle| idle.conn.peer).chain(shared.iter().map(|shared| shared.peer));
        let peers = peers.chain(self.http3.peers());
        let mut missed: Vec<IpAddr> = peers.filter(|peer| !found.contains(peer)).collect();
        missed.sort_unstable();
        missed.dedup();
        drop((idle, shared));
        for peer in missed {
            if misses.len() >= COUNTED && !misses.contains_key(&peer) {
                continue;
            }
            let count = misses.entry(peer).or_default();
            *count += 1;
            if *count == MISSES {
                tracing::info!(channel, %peer, "the platform has left this address; its connections take no more requests");
            }
            if *count >= MISSES {
                self.idle.borrow_mut().retain(|idle| idle.conn.peer != peer);
                self.http3.leave(peer);
                self.shared
                    .borrow()
                    .iter()
                    .filter(|shared| shared.peer == peer)
                    .for_each(|shared| shared.retire());
            }
        }
    }
}

/// A random time up to the bound, so that what began together does not go on together.
fn jitter(bound: Duration) -> Duration {
    bound.mul_f64(chance())
}
