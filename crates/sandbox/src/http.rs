//! Request bodies as handlers read them, and answers as handlers make them.

use crate::seen::{BodyMeter, Visit};
use crate::shape::Fault;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use serde_json::Value;
use std::time::Duration;

/// Bound of a JSON body; large base64 images travel in them.
const JSON_LIMIT: usize = 64 << 20;
/// An unread body is drained up to this, so that the caller can read an early answer...
const DRAIN_LIMIT: usize = 64 << 20;
/// ...and for this long.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// A request body that keeps the record of what was read.
pub(crate) struct RequestBody {
    inner: Incoming,
    meter: BodyMeter,
    /// `Expect: 100-continue` and not a byte asked for yet.
    unasked: bool,
    ended: bool,
    lost: bool,
}

impl RequestBody {
    pub(crate) fn new(inner: Incoming, visit: &Visit, headers: &HeaderMap) -> RequestBody {
        let mut body = RequestBody {
            meter: visit.meter(),
            unasked: headers.contains_key("expect"),
            ended: inner.is_end_stream(),
            lost: false,
            inner,
        };
        if body.ended {
            body.meter.end();
        }
        body
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        self.unasked = false;
        // Hyper tells of a broken body once, and then that it is over.
        while !self.ended {
            if self.lost {
                return Err(Fault::bad_request("The request body broke off."));
            }
            match self.inner.frame().await {
                None => self.end(),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.meter.data(&data);
                        if self.inner.is_end_stream() {
                            self.end();
                        }
                        return Ok(Some(data));
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            self.meter.trailers(&trailers);
                        }
                    }
                },
                Some(Err(_)) => self.lost = true,
            }
        }
        Ok(None)
    }

    fn end(&mut self) {
        self.ended = true;
        self.meter.end();
    }

    /// The whole body as JSON.
    pub(crate) async fn json(&mut self) -> Result<Value, Fault> {
        let mut whole = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if whole.len() + chunk.len() > JSON_LIMIT {
                return Err(Fault::too_large("The request body is larger than 64 MiB."));
            }
            whole.extend_from_slice(&chunk);
        }
        match serde_json::from_slice(&whole) {
            Ok(value @ Value::Object(_)) => Ok(value),
            Ok(_) => Err(Fault::bad_request("The JSON body must be an object.")),
            Err(error) => {
                Err(Fault::bad_request(format!("We could not parse the JSON body of your request: {error}.")))
            }
        }
    }

    /// Reads what the handler left, within bounds: closing on a caller who still writes would
    /// reset the connection before the answer is read. A caller who waits for `100 Continue`
    /// is not asked for the body just to throw it away.
    pub(crate) async fn drain(&mut self) {
        if self.unasked {
            return;
        }
        let read = async {
            let mut total = 0;
            while let Ok(Some(chunk)) = self.chunk().await {
                total += chunk.len();
                if total > DRAIN_LIMIT {
                    break;
                }
            }
        };
        // Running out of time is as good as running out of bytes.
        let _ = tokio::time::timeout(DRAIN_TIME, read).await;
    }

    /// Whether the peer went away before the body's end.
    pub(crate) fn lost(&self) -> bool {
        self.lost
    }
}

/// One frame of a streamed answer.
pub(crate) struct Piece {
    pub(crate) bytes: Bytes,
    /// Content counts for `chunks=`, `cut=`, `delay=` and `hold=`; framing events do not.
    pub(crate) content: bool,
    /// Output tokens that this piece carries.
    pub(crate) tokens: u64,
}

impl Piece {
    pub(crate) fn framing(bytes: impl Into<Bytes>) -> Piece {
        Piece { bytes: bytes.into(), content: false, tokens: 0 }
    }

    pub(crate) fn content(bytes: impl Into<Bytes>, tokens: u64) -> Piece {
        Piece { bytes: bytes.into(), content: true, tokens }
    }
}

/// Pieces are made one by one as the connection takes them.
pub(crate) type Pieces = Box<dyn Iterator<Item = Piece> + Send>;

pub(crate) enum Payload {
    Whole(Bytes),
    Stream {
        pieces: Pieces,
        /// Known lengths go out as `Content-Length`, others chunked.
        length: Option<u64>,
    },
}

/// What a model call cost, for the counters.
pub(crate) struct Usage {
    pub(crate) model: String,
    pub(crate) input: u64,
    /// Of a whole answer; a stream's pieces carry their own.
    pub(crate) output: u64,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    pub(crate) usage: Option<Usage>,
}

impl Answer {
    pub(crate) fn bytes(content_type: &'static str, bytes: impl Into<Bytes>) -> Answer {
        Answer::with(content_type, Payload::Whole(bytes.into()))
    }

    pub(crate) fn json(value: &Value) -> Answer {
        Answer::bytes("application/json", value.to_string())
    }

    pub(crate) fn empty(status: StatusCode) -> Answer {
        Answer { status, headers: HeaderMap::new(), payload: Payload::Whole(Bytes::new()), usage: None }
    }

    /// A chunked stream of any type.
    pub(crate) fn stream(
        content_type: &'static str,
        pieces: impl Iterator<Item = Piece> + Send + 'static,
    ) -> Answer {
        let pieces = Box::new(pieces);
        let length = None;
        Answer::with(content_type, Payload::Stream { pieces, length })
    }

    /// Server-sent events.
    pub(crate) fn events(pieces: impl Iterator<Item = Piece> + Send + 'static) -> Answer {
        Answer::stream("text/event-stream; charset=utf-8", pieces).header("cache-control", "no-cache")
    }

    fn with(content_type: &'static str, payload: Payload) -> Answer {
        let mut answer = Answer::empty(StatusCode::OK);
        answer.payload = payload;
        answer.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        answer
    }

    pub(crate) fn status(mut self, status: StatusCode) -> Answer {
        self.status = status;
        self
    }

    /// Adds a header; a value that no header can carry is left out.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Answer {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    pub(crate) fn usage(mut self, model: &str, input: u64, output: u64) -> Answer {
        self.usage = Some(Usage { model: model.to_owned(), input, output });
        self
    }
}

/// One server-sent event, with an `event:` line where the platform has one.
pub(crate) fn event(name: Option<&str>, data: &Value) -> Bytes {
    match name {
        Some(name) => format!("event: {name}\ndata: {data}\n\n").into(),
        None => format!("data: {data}\n\n").into(),
    }
}
