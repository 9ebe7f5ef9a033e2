//! Per-thread pools of upstream connections.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aiproxy_config::model::{Channel, Timeouts};
use http::Method;
use http_body::Body;
use hyper::body::Incoming;
use hyper::{Request, Response, http};
use tokio::time::{Instant, sleep_until};

use crate::connect::{self, Conn};
use crate::error::SendError;
use crate::request_body::{BodyWatch, RequestBody, Source};
use crate::swap::Prepared;
use crate::tls::TlsConfigs;

/// Idle connections kept per channel and thread; the oldest goes when one more comes.
const IDLE_MAX: usize = 128;
/// How long an idle connection is kept. Platforms and their load balancers close after a minute
/// or more; staying below means that a request rarely meets a connection that is being closed.
const IDLE_TIME: Duration = Duration::from_secs(50);

/// The least time between two looks at an exchange's limits.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// All channels' connections of one thread.
#[derive(Debug)]
pub struct Pool {
    slots: RefCell<HashMap<Arc<str>, Rc<Slot>>>,
    configs: Arc<TlsConfigs>,
}

/// One channel's connections of one thread, and what its requests need each time.
#[derive(Debug)]
pub struct Slot {
    channel: Arc<Channel>,
    prepared: Prepared,
    idle: Rc<RefCell<VecDeque<Idle>>>,
    configs: Arc<TlsConfigs>,
}

#[derive(Debug)]
struct Idle {
    conn: Conn,
    since: Instant,
}

/// An answer whose body is still on the connection.
#[derive(Debug)]
pub struct Answer {
    /// Head and body.
    pub response: Response<Incoming>,
    /// Gives the connection back.
    pub lease: Lease,
}

/// A connection that one answer is still using. Dropping it closes the connection, which is how
/// an exchange is cancelled.
#[derive(Debug)]
pub struct Lease {
    conn: Conn,
    /// The connection may carry another exchange.
    reusable: bool,
    idle: Rc<RefCell<VecDeque<Idle>>>,
}

impl Lease {
    /// Gives the connection back once the answer's body has been read to its end. Only for
    /// exchanges whose request body has been sent whole: hyper would make the next request wait
    /// for the rest.
    pub fn release(self) {
        if !self.reusable || self.conn.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= IDLE_MAX {
            idle.pop_front();
        }
        idle.push_back(Idle { conn: self.conn, since: Instant::now() });
    }
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(configs: Arc<TlsConfigs>) -> Self {
        Self { slots: RefCell::default(), configs }
    }

    /// The slot of a channel. After a reload its connections are kept if they still lead to the
    /// same place.
    #[must_use]
    pub fn slot(&self, channel: &Arc<Channel>) -> Rc<Slot> {
        let mut slots = self.slots.borrow_mut();
        let idle = match slots.get(&channel.id) {
            Some(slot) if Arc::ptr_eq(&slot.channel, channel) => return Rc::clone(slot),
            Some(slot) if slot.channel.base == channel.base && slot.channel.ca_pem == channel.ca_pem => {
                Rc::clone(&slot.idle)
            }
            _ => Rc::default(),
        };
        let slot = Rc::new(Slot {
            channel: Arc::clone(channel),
            prepared: Prepared::of(channel),
            idle,
            configs: Arc::clone(&self.configs),
        });
        slots.insert(Arc::clone(&channel.id), Rc::clone(&slot));
        slot
    }

    /// Closes connections that have been idle for long. Called now and then by the owner.
    pub fn sweep(&self) {
        let now = Instant::now();
        for slot in self.slots.borrow().values() {
            slot.idle
                .borrow_mut()
                .retain(|idle| !idle.conn.sender.is_closed() && now.duration_since(idle.since) < IDLE_TIME);
        }
    }
}

impl Slot {
    /// The channel's parts of every request.
    #[must_use]
    pub fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// Sends a request whose head has been swapped, and waits for the answer's head.
    ///
    /// A connection from the pool may have been closed by the platform in this very moment. The
    /// request then goes to another one if hyper had not begun to write it, or if it is a GET,
    /// HEAD or OPTIONS without body; any other request may have been acted upon and fails with
    /// [`SendError::Broken`].
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(&self, request: Request<RequestBody>, watch: &BodyWatch) -> Result<Answer, SendError> {
        let mut request = request;
        let reusable = is_reusable(&request);
        let repeatable = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
            && request.body().is_end_stream();
        loop {
            let (mut conn, reused) = match self.pooled().await {
                Some(conn) => (conn, true),
                None => (connect::open(&self.channel, &self.configs).await?, false),
            };
            let again = (repeatable && reused).then(|| copy_head(&request));
            let sent = conn.sender.try_send_request(request);
            match self.within_limits(sent, watch).await? {
                Ok(response) => {
                    return Ok(Answer {
                        response,
                        lease: Lease { conn, reusable, idle: Rc::clone(&self.idle) },
                    });
                }
                Err(mut failed) => match (failed.take_message(), again) {
                    (Some(unsent), _) if reused => request = unsent,
                    (None, Some(copy)) if is_broken(failed.error()) => request = copy,
                    _ => return Err(classify(failed.into_error(), watch)),
                },
            }
        }
    }

    /// The most recently used connection that is still open.
    async fn pooled(&self) -> Option<Conn> {
        loop {
            let mut idle = self.idle.borrow_mut().pop_back()?;
            if idle.since.elapsed() < IDLE_TIME && idle.conn.sender.ready().await.is_ok() {
                return Some(idle.conn);
            }
        }
    }

    /// Waits for the exchange as long as it makes progress.
    async fn within_limits<T>(
        &self,
        exchange: impl Future<Output = T>,
        watch: &BodyWatch,
    ) -> Result<T, SendError> {
        let timeouts = &self.channel.timeouts;
        let mut exchange = std::pin::pin!(exchange);
        loop {
            // The body is sent by the connection's task: which of the two limits counts may change
            // while this sleeps. So it wakes for the shorter one and looks again.
            let look = watch.last() + timeouts.first_byte.min(timeouts.idle);
            tokio::select! {
                biased;
                outcome = &mut exchange => return Ok(outcome),
                () = sleep_until(look.max(Instant::now() + LOOK_AGAIN).min(deadline(timeouts, watch))) => {
                    if deadline(timeouts, watch) <= Instant::now() {
                        let stalled = watch.waiting_for_caller();
                        return Err(if stalled { SendError::CallerStalled } else { SendError::Timeout });
                    }
                }
            }
        }
    }
}

fn deadline(timeouts: &Timeouts, watch: &BodyWatch) -> Instant {
    watch.last() + if watch.done() { timeouts.first_byte } else { timeouts.idle }
}

/// Whether the platform is sure to agree with us on where this exchange ends. Some do not read the
/// body of a GET and take it for the next request; some send a body after HEAD. Their connections
/// carry nothing else.
fn is_reusable(request: &Request<RequestBody>) -> bool {
    match *request.method() {
        Method::HEAD => false,
        Method::POST | Method::PUT | Method::PATCH => true,
        _ => request.body().is_end_stream(),
    }
}

fn copy_head(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(Source::empty().attempt(BodyWatch::new()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

fn is_broken(error: &hyper::Error) -> bool {
    error.is_incomplete_message()
        || error.is_closed()
        || error.is_canceled()
        || std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}

fn classify(error: hyper::Error, watch: &BodyWatch) -> SendError {
    match watch.failure() {
        Some(failure) => SendError::Body(failure),
        None if error.is_parse() => SendError::Protocol(error),
        None => SendError::Broken(error),
    }
}
