//! A caller that speaks HTTP/1.1.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::wait::within;

/// A request to be sent.
#[derive(Debug)]
pub struct Ask {
    to: SocketAddr,
    key: Option<String>,
    request: Request<Body>,
}

/// A request's body.
#[derive(Debug)]
pub enum Body {
    /// Known length; empty bytes are no body at all.
    Whole(Bytes),
    /// Chunked, as frames come.
    Frames(mpsc::Receiver<Frame<Bytes>>),
}

/// The sending end of a chunked body: dropping it ends the body.
#[derive(Debug)]
pub struct Upload(mpsc::Sender<Frame<Bytes>>);

/// One connection to the relay. Dropping it closes the connection at once.
#[derive(Debug)]
pub struct Client {
    sender: SendRequest<Body>,
    _connection: Connection,
}

/// The task that drives a connection.
#[derive(Debug)]
struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer whose body is still to be read. Dropping one that came on a connection of its own
/// closes that connection: the caller leaves.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Version of the status line.
    pub version: Version,
    body: Incoming,
    trailers: Option<HeaderMap>,
    _client: Option<Client>,
}

impl Ask {
    /// A request to this address with the key as a bearer token.
    ///
    /// # Panics
    /// When method or target cannot be one.
    #[must_use]
    pub fn new(to: SocketAddr, key: &str, method: &str, target: &str) -> Self {
        let mut request = Request::new(Body::Whole(Bytes::new()));
        *request.method_mut() = Method::from_bytes(method.as_bytes()).expect("a method");
        *request.uri_mut() = target.parse::<Uri>().expect("a request target");
        Self { to, key: Some(key.to_owned()), request }
    }

    /// Presents this key in place of the usual one.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// Presents no key (in the usual place).
    #[must_use]
    pub fn no_key(mut self) -> Self {
        self.key = None;
        self
    }

    /// Adds a header.
    ///
    /// # Panics
    /// When name or value cannot be one.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        let value = http::HeaderValue::from_bytes(value.as_bytes()).expect("a header value");
        self.request.headers_mut().append(name, value);
        self
    }

    /// Asks the sandbox for a scenario.
    #[must_use]
    pub fn sandbox(self, scenario: &str) -> Self {
        self.header("x-sandbox", scenario)
    }

    /// A JSON body.
    #[must_use]
    pub fn json(self, value: &Value) -> Self {
        self.header("content-type", "application/json").body(value.to_string())
    }

    /// A body with a content length.
    #[must_use]
    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        *self.request.body_mut() = Body::Whole(bytes.into());
        self
    }

    /// A chunked body that the test feeds.
    #[must_use]
    pub fn upload(mut self) -> (Self, Upload) {
        let (sender, receiver) = mpsc::channel(1);
        *self.request.body_mut() = Body::Frames(receiver);
        (self, Upload(sender))
    }

    /// Sends it on a connection of its own.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn send(self) -> Answer {
        self.try_send().await.expect("an answer")
    }

    /// Sends it on a connection of its own.
    ///
    /// # Errors
    /// When the connection ends before the answer's head.
    ///
    /// # Panics
    /// After [`crate::BOUND`].
    pub async fn try_send(self) -> hyper::Result<Answer> {
        let mut client = Client::connect(self.to).await;
        let mut answer = client.try_send(self).await?;
        answer._client = Some(client);
        Ok(answer)
    }

    fn into_request(mut self) -> Request<Body> {
        let headers = self.request.headers_mut();
        if !headers.contains_key(http::header::HOST) {
            headers.insert(http::header::HOST, self.to.to_string().parse().expect("an address"));
        }
        if let Some(key) = &self.key
            && !headers.contains_key(http::header::AUTHORIZATION)
        {
            headers.insert(http::header::AUTHORIZATION, format!("Bearer {key}").parse().expect("a key"));
        }
        self.request
    }
}

impl Upload {
    /// Sends a piece; false when the connection has gone.
    ///
    /// # Panics
    /// When nobody takes it within [`crate::BOUND`].
    pub async fn send(&self, bytes: impl Into<Bytes>) -> bool {
        within("a piece being taken", self.0.send(Frame::data(bytes.into()))).await.is_ok()
    }

    /// Sends trailers and ends the body.
    ///
    /// # Panics
    /// When nobody takes them within [`crate::BOUND`].
    pub async fn trailers(self, trailers: HeaderMap) {
        let _ = within("trailers being taken", self.0.send(Frame::trailers(trailers))).await;
    }
}

impl Client {
    /// Connects.
    ///
    /// # Panics
    /// When the connection is not accepted.
    pub async fn connect(to: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(to)).await.expect("a connection");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("a handshake");
        let task = tokio::spawn(async move { drop(connection.await) });
        Self { sender, _connection: Connection(task.abort_handle()) }
    }

    /// Sends a request on this connection.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn send(&mut self, ask: Ask) -> Answer {
        self.try_send(ask).await.expect("an answer")
    }

    /// Sends a request on this connection.
    ///
    /// # Errors
    /// When the connection ends before the answer's head.
    ///
    /// # Panics
    /// After [`crate::BOUND`].
    pub async fn try_send(&mut self, ask: Ask) -> hyper::Result<Answer> {
        within("a connection that takes requests", self.sender.ready()).await?;
        let response = within("an answer", self.sender.send_request(ask.into_request())).await?;
        let (head, body) = response.into_parts();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            version: head.version,
            body,
            trailers: None,
            _client: None,
        })
    }

    /// Whether the relay has closed the connection.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl Answer {
    /// A header's value, where there is one.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The next piece of the body as it comes; `None` at its clean end.
    ///
    /// # Errors
    /// When the body breaks off.
    ///
    /// # Panics
    /// After [`crate::BOUND`].
    pub async fn piece(&mut self) -> hyper::Result<Option<Bytes>> {
        loop {
            let Some(frame) = within("a piece of the body", self.body.frame()).await else { return Ok(None) };
            match frame?.into_data() {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
    }

    /// The rest of the body.
    ///
    /// # Errors
    /// When it breaks off.
    pub async fn try_bytes(&mut self) -> hyper::Result<Bytes> {
        let mut all = Vec::new();
        while let Some(bytes) = self.piece().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all.into())
    }

    /// The rest of the body.
    ///
    /// # Panics
    /// When it breaks off.
    pub async fn bytes(&mut self) -> Bytes {
        self.try_bytes().await.expect("a whole body")
    }

    /// The rest of the body as text.
    ///
    /// # Panics
    /// When it breaks off.
    pub async fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.bytes().await).into_owned()
    }

    /// The rest of the body as JSON.
    ///
    /// # Panics
    /// When it breaks off or is none.
    pub async fn json(&mut self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// The trailers, once the body has been read.
    #[must_use]
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Frames(frames) => frames.poll_recv(cx).map(|frame| frame.map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Frames(_) => SizeHint::default(),
        }
    }
}
