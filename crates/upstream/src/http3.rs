//! HTTP/3 towards a platform: one thread's connections, and what the process knows about the way.
//!
//! UDP is blocked in many places, and then says nothing: the first request gives it a head start and
//! goes over TCP when that is over. What came of it is remembered for all threads, so that the next
//! request does not wait; and looked at again, later and beside the requests.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aiproxy_config::model::{Channel, H3};
use aiproxy_quic::HeadLimits;
use aiproxy_quic::client::{Connection, Place};
use aiproxy_quic::endpoint::{Dialler as Sockets, Trust};
use http::HeaderMap;
use http::header::ALT_SVC;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until, timeout};

use crate::connect::addresses;
use crate::error::ConnectError;
use crate::multiplex::MOST_STREAMS;
use crate::resolve::Resolver;
use crate::tls::TlsConfigs;

/// What UDP is given before a request goes over TCP.
const HEAD_START: Duration = Duration::from_millis(300);
/// The first and the longest time for which a way that failed is not tried.
const PAUSES: [Duration; 2] = [Duration::from_secs(300), Duration::from_secs(3600)];
/// The longest time for which an offer is believed.
const OFFER: Duration = Duration::from_secs(24 * 3600);
/// Platforms of which something is remembered.
const REMEMBERED: usize = 1024;
/// Addresses that are tried for one connection, and the time for each.
const ADDRESSES: usize = 3;
const EACH: Duration = Duration::from_secs(3);
/// Signs of life that may be missing before a connection is lost.
const SIGNS: u32 = 3;
/// Of an answer's head.
const HEADS: HeadLimits = HeadLimits { bytes: 64 * 1024, fields: 1000 };

/// What all threads know about the ways to platforms.
#[derive(Debug, Default)]
pub(crate) struct Outlooks(Mutex<HashMap<(String, u16), Outlook>>);

#[derive(Debug, Clone, Copy, Default)]
struct Outlook {
    /// The port that the platform named, and until when that holds.
    offer: Option<(u16, Instant)>,
    /// Until when it is not tried, after so long a pause.
    failed: Option<(Instant, Duration)>,
    /// Since when a first connection has been tried, without any outcome yet.
    trying: Option<Instant>,
}

/// Whether HTTP/3 is worth trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Try {
    /// Not now.
    Not,
    /// On this port; requests may wait for it a moment.
    Now(u16),
    /// On this port, without anybody waiting: it failed before.
    Beside(u16),
}

impl Outlooks {
    fn with<T>(&self, channel: &Channel, change: impl FnOnce(&mut Outlook) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED {
            all.clear();
        }
        change(all.entry((channel.base.host.to_string(), channel.base.port)).or_default())
    }

    fn advice(&self, channel: &Channel, wants: H3) -> Try {
        let now = Instant::now();
        self.with(channel, |outlook| {
            let offer = outlook.offer.filter(|(_, until)| now < *until).map(|(port, _)| port);
            let port = match wants {
                H3::First => Some(offer.unwrap_or(channel.base.port)),
                H3::WhenOffered => offer,
            };
            match (port, outlook.failed) {
                (None, _) => Try::Not,
                // Another thread has waited for long enough: one that asks now need not.
                (Some(_), None) if outlook.trying.is_some_and(|since| now > since + HEAD_START) => Try::Not,
                (Some(port), None) => {
                    outlook.trying.get_or_insert(now);
                    Try::Now(port)
                }
                (Some(_), Some((until, _))) if now < until => Try::Not,
                (Some(port), Some(_)) => Try::Beside(port),
            }
        })
    }

    fn works(&self, channel: &Channel) {
        self.with(channel, |outlook| (outlook.failed, outlook.trying) = (None, None));
    }

    pub(crate) fn failed(&self, channel: &Channel) {
        let [first, longest] = PAUSES;
        let now = Instant::now();
        let pause = self.with(channel, |outlook| {
            outlook.trying = None;
            let pause = match outlook.failed {
                // Threads that fail together fail once.
                Some((until, pause)) if now < until => return pause,
                Some((_, pause)) => (pause * 2).min(longest),
                None => first,
            };
            outlook.failed = Some((now + pause, pause));
            pause
        });
        tracing::info!(channel = %channel.id, ?pause, "no way to the platform over HTTP/3; its requests go over TCP");
    }

    /// Notes where a platform offers HTTP/3 (RFC 7838). Only its own host counts: a key goes nowhere else.
    pub(crate) fn learn(&self, channel: &Channel, headers: &HeaderMap) {
        for value in headers.get_all(ALT_SVC).iter().filter_map(|value| value.to_str().ok()) {
            match offer(value) {
                Some(Some((port, age))) => {
                    self.with(channel, |outlook| {
                        outlook.offer = Some((port, Instant::now() + age.min(OFFER)));
                    });
                }
                Some(None) => self.with(channel, |outlook| outlook.offer = None),
                None => {}
            }
        }
    }
}

/// What a value of `alt-svc` says about HTTP/3: a port and for how long; or nothing, which withdraws what
/// was said before.
fn offer(value: &str) -> Option<Option<(u16, Duration)>> {
    if value.trim() == "clear" {
        return Some(None);
    }
    value.split(',').find_map(|service| {
        let mut parts = service.split(';').map(str::trim);
        let port = parts.next()?.strip_prefix("h3=\":")?.strip_suffix('"')?.parse().ok()?;
        let age = parts.find_map(|part| part.strip_prefix("ma=")?.parse().ok());
        Some(Some((port, Duration::from_secs(age.unwrap_or(24 * 3600)))))
    })
}

/// One thread's connections to one platform.
#[derive(Debug, Default)]
pub(crate) struct Http3 {
    open: RefCell<Vec<Rc<Shared>>>,
    dial: RefCell<Option<Rc<Dial>>>,
}

/// A connection that requests share.
#[derive(Debug)]
pub(crate) struct Shared {
    connection: Connection,
    used: Cell<bool>,
    since: Cell<Instant>,
}

/// A connection being opened.
#[derive(Debug)]
struct Dial {
    began: Instant,
    outcome: RefCell<Option<Result<(), ConnectError>>>,
    done: Notify,
}

/// A place for one request.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) place: Place,
    /// Keeps it open.
    pub(crate) shared: Rc<Shared>,
    /// Whether a request had used it before.
    pub(crate) reused: bool,
}

impl Http3 {
    /// A place on a connection that is open.
    async fn place(&self) -> Option<Ticket> {
        let candidates: Vec<Rc<Shared>> = self.open.borrow().clone();
        for shared in candidates {
            let connection = &shared.connection;
            let most = connection.room().min(MOST_STREAMS);
            if connection.is_over() || connection.open() >= most.max(1) {
                continue;
            }
            if let Some(place) = connection.place().await {
                let reused = shared.used.replace(true);
                return Some(Ticket { place, shared: Rc::clone(&shared), reused });
            }
        }
        None
    }

    /// Lets go of what has ended, or has been idle for long. Called about once a second.
    pub(crate) fn sweep(&self, idle: Duration) {
        self.open.borrow_mut().retain(|shared| {
            if shared.connection.open() > 0 {
                shared.since.set(Instant::now());
            }
            let unused = shared.since.get().elapsed() >= idle;
            !shared.connection.is_over() && !unused
        });
    }

    /// Lets go of connections to addresses that are left.
    pub(crate) fn leave(&self, address: IpAddr) {
        self.open.borrow_mut().retain(|shared| shared.connection.peer().ip().to_canonical() != address);
    }

    pub(crate) fn peers(&self) -> Vec<IpAddr> {
        self.open.borrow().iter().map(|shared| shared.connection.peer().ip().to_canonical()).collect()
    }
}

/// What opening a connection needs.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) channel: Arc<Channel>,
    pub(crate) configs: Arc<TlsConfigs>,
    pub(crate) resolver: Rc<Resolver>,
    pub(crate) sockets: Rc<RefCell<Sockets>>,
}

/// A place for a request over HTTP/3; `None` where it goes another way.
///
/// # Errors
/// Only where there is no other way.
pub(crate) async fn take(http3: &Rc<Http3>, way: &Way) -> Result<Option<Ticket>, ConnectError> {
    let channel = &way.channel;
    let Some(wants) = channel.reach.wants_h3().filter(|_| channel.base.tls) else { return Ok(None) };
    if let Some(ticket) = http3.place().await {
        return Ok(Some(ticket));
    }
    let only = channel.reach.is_only_h3();
    let dial = match way.configs.outlooks.advice(channel, wants) {
        _ if only => begin(http3, way, channel.base.port),
        Try::Not => return Ok(None),
        Try::Now(port) => begin(http3, way, port),
        Try::Beside(port) => {
            begin(http3, way, port);
            return Ok(None);
        }
    };
    let until = if only { dial.began + channel.timeouts.connect } else { dial.began + HEAD_START };
    tokio::select! {
        biased;
        outcome = dial.outcome() => match outcome {
            Ok(()) => Ok(http3.place().await),
            Err(error) if only => Err(error),
            Err(_) => Ok(None),
        },
        () = sleep_until(until) => if only { Err(ConnectError::Timeout) } else { Ok(None) },
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

/// Opens a connection on its own, unless that is under way: whoever waits for it may leave.
fn begin(http3: &Rc<Http3>, way: &Way, port: u16) -> Rc<Dial> {
    if let Some(dial) = &*http3.dial.borrow() {
        return Rc::clone(dial);
    }
    let dial = Rc::new(Dial { began: Instant::now(), outcome: RefCell::default(), done: Notify::new() });
    *http3.dial.borrow_mut() = Some(Rc::clone(&dial));
    let (http3, begun, way) = (Rc::clone(http3), Rc::clone(&dial), way.clone());
    spawn_local(async move {
        let bound = way.channel.timeouts.connect;
        let opening = Box::pin(open(&way, port));
        let outcome = timeout(bound, opening).await.unwrap_or(Err(ConnectError::Timeout));
        let outcome = match outcome {
            Ok(connection) => {
                way.configs.outlooks.works(&way.channel);
                let since = Cell::new(Instant::now());
                let shared = Shared { connection, used: Cell::new(false), since };
                http3.open.borrow_mut().push(Rc::new(shared));
                Ok(())
            }
            Err(error) => {
                tracing::debug!(channel = %way.channel.id, %error, "no connection over HTTP/3");
                way.configs.outlooks.failed(&way.channel);
                Err(error)
            }
        };
        *http3.dial.borrow_mut() = None;
        *begun.outcome.borrow_mut() = Some(outcome);
        begun.done.notify_waiters();
    });
    dial
}

async fn open(way: &Way, port: u16) -> Result<Connection, ConnectError> {
    let channel = &way.channel;
    let tls = way.configs.get(channel)?;
    let trust = Trust::new(&tls).map_err(ConnectError::Roots)?;
    let addresses = addresses(channel, &channel.base.host, &way.resolver).await?;
    let mut last = ConnectError::Timeout;
    for address in addresses.iter().take(ADDRESSES) {
        let address = SocketAddr::new(*address, port);
        let idle = channel.pool.ping * SIGNS;
        let dialled = way.sockets.borrow_mut().dial(address, &channel.base.host, &trust, idle, HEADS);
        let connecting = dialled.map_err(ConnectError::Quic)?;
        match timeout(EACH, connecting).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => last = ConnectError::Quic(error),
            Err(_) => last = ConnectError::Timeout,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_for_the_same_host_alone() {
        let day = Duration::from_secs(24 * 3600);
        for (value, expected) in [
            ("h3=\":443\"; ma=3600", Some(Some((443, Duration::from_secs(3600))))),
            ("h2=\":443\", h3=\":8443\"; persist=1", Some(Some((8443, day)))),
            ("h3-29=\":443\"", None),
            ("h3=\"other.example:443\"", None),
            ("h3=\":99999\"", None),
            ("clear", Some(None)),
            ("", None),
        ] {
            assert_eq!(offer(value), expected, "{value}");
        }
    }
}
