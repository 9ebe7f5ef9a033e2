//! One channel of one thread: sending a request over one of its connections.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aiproxy_config::model::{BaseUrl, Channel, Timeouts};
use aiproxy_quic::BodyError;
use aiproxy_quic::client::{AskError, Open, Sending};
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, Uri, Version};
use http_body::Body;
use hyper::client::conn::TrySendError;
use hyper::{Request, Response, http};
use tokio::time::{Instant, sleep_until};

use crate::connect::Conn;
use crate::error::{Failure, SendError, is_broken, is_nonsense, is_unprocessed};
use crate::http3;
use crate::incoming::Incoming;
use crate::multiplex::Ticket;
use crate::request_body::{BodyWatch, RequestBody, Source};
use crate::supply::{Conns, Supply, Taken};
use crate::swap::Prepared;

/// The least time between two looks at an exchange's limits.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Connections that are tried for one request, where each says that it has done nothing about it.
const TRIES: usize = 5;

/// One channel's connections of one thread, and what its requests need each time.
#[derive(Debug)]
pub struct Slot {
    channel: Arc<Channel>,
    prepared: Prepared,
    /// `:scheme` and `:authority` of HTTP/2.
    origin: Option<(Scheme, Authority)>,
    supply: Rc<Supply>,
}

/// An answer whose body is still on the connection.
#[derive(Debug)]
pub struct Answer {
    /// Head and body.
    pub response: Response<Incoming>,
    /// Gives the connection back.
    pub lease: Lease,
}

/// An answer's hold on its connection. Dropping it cancels the exchange: an HTTP/1.1 connection
/// closes, on an HTTP/2 connection the exchange alone ends.
#[derive(Debug)]
pub struct Lease(Held);

#[derive(Debug)]
enum Held {
    One {
        conn: Conn,
        /// The connection may carry another exchange.
        reusable: bool,
        conns: Rc<Conns>,
    },
    Many {
        ticket: Ticket,
        source: Rc<Source>,
        /// Held by the request's body as well.
        alive: Rc<()>,
    },
    /// Over HTTP/3.
    Quic {
        _sending: Sending,
        _open: Open,
        _shared: Rc<http3::Shared>,
    },
    Done,
}

impl Lease {
    /// Whether the answer came over HTTP/2.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        matches!(self.0, Held::Many { .. })
    }

    /// Whether other exchanges share the connection: dropping this one cancels it alone.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.0, Held::Many { .. } | Held::Quic { .. })
    }

    /// Gives the connection back once the answer's body has been read to its end. Only for
    /// exchanges whose request body has been sent whole: hyper would make the next request wait
    /// for the rest.
    pub fn release(mut self) {
        match std::mem::replace(&mut self.0, Held::Done) {
            Held::One { conn, reusable: true, conns } => conns.give_back(conn),
            Held::One { .. } | Held::Many { .. } | Held::Quic { .. } | Held::Done => {}
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Held::Many { ticket, source, alive } = &self.0
            && Rc::strong_count(alive) > 1
        {
            // The upload ends with the exchange. Where it waits for the platform to read, its stream
            // may linger: no request comes after it on this connection.
            source.stop();
            ticket.shared.retire();
        }
    }
}

impl Slot {
    pub(crate) fn new(channel: &Arc<Channel>, supply: Rc<Supply>) -> Self {
        Self {
            channel: Arc::clone(channel),
            prepared: Prepared::of(channel),
            origin: origin(&channel.base),
            supply,
        }
    }

    pub(crate) fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    pub(crate) fn supply(&self) -> &Rc<Supply> {
        &self.supply
    }

    /// The channel's parts of every request.
    #[must_use]
    pub fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// Sends a request whose head has been swapped, in the form of HTTP/1.1, and waits for the
    /// answer's head.
    ///
    /// A connection may end, or be closed by the platform, in this very moment. The request then
    /// goes to another one if it had not begun to be written; if the platform says that it has done
    /// nothing about it and the body can be sent whole; or if the connection had served before and
    /// the request is a GET, HEAD or OPTIONS without body. Any other request may have been acted
    /// upon and fails with [`SendError::Broken`].
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(&self, request: Request<RequestBody>, watch: &BodyWatch) -> Result<Answer, SendError> {
        let mut request = request;
        let reusable = is_reusable(&request);
        let repeatable = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
            && request.body().is_end_stream();
        let mut tries = 0;
        loop {
            let failed = match self.supply.take().await? {
                Taken::One { mut conn, reused } => {
                    announce_body(&mut request);
                    let again = (repeatable && reused).then(|| copy_head(&request));
                    let sent = conn.sender.try_send_request(request);
                    match self.within_limits(sent, watch).await? {
                        Ok(response) => {
                            self.supply.learn(response.headers());
                            let conns = Rc::clone(&self.supply.conns);
                            return Ok(Answer {
                                response: response.map(Incoming::from),
                                lease: Lease(Held::One { conn, reusable, conns }),
                            });
                        }
                        Err(mut failed) => match (failed.take_message(), again) {
                            (Some(unsent), _) => {
                                tries += usize::from(!reused);
                                if tries == TRIES {
                                    return Err(SendError::NotProcessed(failed.into_error().into()));
                                }
                                request = unsent;
                                continue;
                            }
                            (None, Some(copy)) if is_broken(failed.error()) => {
                                request = copy.map(|()| Source::empty().attempt(BodyWatch::new()));
                                continue;
                            }
                            _ => failed,
                        },
                    }
                }
                Taken::Quic(ticket) => {
                    let (source, own) =
                        (Rc::clone(request.body().source()), Rc::clone(request.body().watch()));
                    let (head, body) = (copy_head(&request), request.into_body());
                    let reused = ticket.reused;
                    // Most requests go another way: they need no room for this.
                    let asked = Box::pin(self.over_quic(ticket, &head, body, watch));
                    let error = match asked.await? {
                        Ok(answer) => return Ok(answer),
                        Err(error) => error,
                    };
                    tries += usize::from(!reused);
                    let untouched = matches!(error, AskError::Rejected);
                    let broken = matches!(error, AskError::Broken(BodyError::Closed(_)));
                    let once_more = untouched || (repeatable && reused && broken);
                    if !once_more || tries >= TRIES || !source.is_whole() {
                        return Err(of_quic(error, watch));
                    }
                    tries += usize::from(reused);
                    request = head.map(|()| RequestBody::again(&source, &own));
                    continue;
                }
                Taken::Many(ticket) => {
                    let head = copy_head(&request);
                    let (source, own) =
                        (Rc::clone(request.body().source()), Rc::clone(request.body().watch()));
                    match self.multiplexed(&ticket, request, watch).await? {
                        Ok(answer) => return Ok(answer.with(ticket, source)),
                        Err(mut failed) => {
                            let unsent = failed.take_message();
                            // One that was let go unnoticed is no try: it is gone now.
                            tries += usize::from(unsent.is_none() || !ticket.reused);
                            let untouched = unsent.is_some() || self.is_untouched(&ticket, failed.error());
                            let once_more =
                                untouched || (repeatable && ticket.reused && is_broken(failed.error()));
                            let refused_again = ticket.rested && unsent.is_none();
                            if !once_more
                                || refused_again
                                || tries == TRIES
                                || (unsent.is_none() && !source.is_whole())
                            {
                                return Err(match untouched && watch.failure().is_none() {
                                    true => SendError::NotProcessed(failed.into_error().into()),
                                    false => classify(failed.into_error(), watch),
                                });
                            }
                            let body =
                                unsent.map_or_else(|| RequestBody::again(&source, &own), Request::into_body);
                            request = head.map(|()| body);
                            continue;
                        }
                    }
                }
            };
            return Err(classify(failed.into_error(), watch));
        }
    }

    /// Sends a request over an HTTP/2 connection.
    async fn multiplexed(
        &self,
        ticket: &Ticket,
        mut request: Request<RequestBody>,
        watch: &BodyWatch,
    ) -> Result<Result<Heard, TrySendError<Request<RequestBody>>>, SendError> {
        if let Some(uri) = self.absolute(request.uri()) {
            *request.uri_mut() = uri;
            request.headers_mut().remove(HOST);
        }
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(TRANSFER_ENCODING);
        let alive = request.body_mut().alive();
        let sent = ticket.sender().try_send_request(request);
        Ok(self.within_limits(sent, watch).await?.map(|response| {
            self.supply.learn(response.headers());
            self.supply.conns.learn(&ticket.shared);
            Heard { response: response.map(Incoming::from), alive }
        }))
    }

    /// Sends a request over an HTTP/3 connection.
    async fn over_quic(
        &self,
        ticket: http3::Ticket,
        head: &Request<()>,
        body: RequestBody,
        watch: &BodyWatch,
    ) -> Result<Result<Answer, AskError>, SendError> {
        let uri = self.absolute(head.uri()).unwrap_or_else(|| head.uri().clone());
        let http3::Ticket { place, shared, .. } = ticket;
        let asked = place.ask((head.method(), &uri, head.headers()), body);
        let asked = self.within_limits(asked, watch).await?;
        if let Err(AskError::Broken(error)) = &asked
            && error.is_silence()
        {
            self.supply.lost_http3();
        }
        Ok(asked.map(|answer| Answer {
            response: answer.response.map(Incoming::from),
            lease: Lease(Held::Quic { _sending: answer.sending, _open: answer.open, _shared: shared }),
        }))
    }

    /// The target with the platform's scheme and authority.
    fn absolute(&self, uri: &Uri) -> Option<Uri> {
        let (scheme, authority) = self.origin.as_ref()?;
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(scheme.clone());
        parts.authority = Some(authority.clone());
        parts.path_and_query = uri.path_and_query().cloned();
        Uri::from_parts(parts).ok()
    }

    /// Whether the platform has done nothing about the request; notes what that says about the
    /// connection.
    fn is_untouched(&self, ticket: &Ticket, error: &hyper::Error) -> bool {
        if !is_unprocessed(error) {
            return false;
        }
        self.supply.conns.learn(&ticket.shared);
        ticket.shared.refused();
        true
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

/// An answer's head that came over an HTTP/2 connection.
struct Heard {
    response: Response<Incoming>,
    alive: Rc<()>,
}

impl Heard {
    fn with(self, ticket: Ticket, source: Rc<Source>) -> Answer {
        let lease = Lease(Held::Many { ticket, source, alive: self.alive });
        Answer { response: self.response, lease }
    }
}

fn deadline(timeouts: &Timeouts, watch: &BodyWatch) -> Instant {
    watch.last() + if watch.done() { timeouts.first_byte } else { timeouts.idle }
}

fn origin(base: &BaseUrl) -> Option<(Scheme, Authority)> {
    let scheme = if base.tls { Scheme::HTTPS } else { Scheme::HTTP };
    Some((scheme, Authority::try_from(&*base.authority).ok()?))
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

/// hyper takes a GET or HEAD that says nothing of a body for one that has none.
fn announce_body(request: &mut Request<RequestBody>) {
    let usual = matches!(*request.method(), Method::GET | Method::HEAD);
    let headers = request.headers();
    let said = headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING);
    if usual && !said && !request.body().is_end_stream() && request.body().size_hint().exact().is_none() {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

fn copy_head(request: &Request<RequestBody>) -> Request<()> {
    let mut copy = Request::new(());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

fn of_quic(error: AskError, watch: &BodyWatch) -> SendError {
    match (watch.failure(), error) {
        (Some(failure), _) => SendError::Body(failure),
        (None, AskError::Rejected) => {
            SendError::NotProcessed(Failure::Quic(BodyError::Malformed("the request was not taken")))
        }
        (None, AskError::Broken(error)) => SendError::Broken(Failure::Quic(error)),
        (None, AskError::Malformed(why)) => SendError::Protocol(Failure::Quic(BodyError::Malformed(why))),
    }
}

fn classify(error: hyper::Error, watch: &BodyWatch) -> SendError {
    match watch.failure() {
        Some(failure) => SendError::Body(failure),
        None if is_nonsense(&error) => SendError::Protocol(error.into()),
        None => SendError::Broken(error.into()),
    }
}
