//! A WebSocket's opening handshake with a platform.
//!
//! Always on a connection of its own and over HTTP/1.1.

use std::pin::pin;
use std::time::Duration;

use aiproxy_core::ports::SocketStream;
use aiproxy_core::websocket::{accept, lists};
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, UPGRADE};
use http::{HeaderMap, Request, StatusCode, response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::error::{SendError, is_broken, is_nonsense};
use crate::slot::Slot;

/// The longest refusal that is passed on, in bytes.
const REFUSAL_BYTES: usize = 64 * 1024;
/// How long a refusal's body may take.
const REFUSAL_TIME: Duration = Duration::from_secs(5);

/// What a platform answered to a handshake.
pub enum Handshake {
    /// The socket is open.
    Open {
        /// The head of the 101.
        head: response::Parts,
        /// The connection.
        stream: Box<dyn SocketStream>,
        /// What came behind the head.
        ahead: Bytes,
    },
    /// It is not: an answer like any other.
    Refused {
        /// Its head.
        head: response::Parts,
        /// Its body, or the beginning of it.
        body: Bytes,
    },
}

impl Slot {
    /// Sends a handshake whose head has been [swapped](crate::swap::Prepared::swap_handshake) and
    /// waits for the answer, at most as long as `websocket.handshake` says.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn handshake(&self, head: Request<()>, key: &str) -> Result<Handshake, SendError> {
        let stream = self.supply().dialler().bare().await?;
        let limit = self.channel().websocket.handshake;
        timeout(limit, Box::pin(exchange(stream, head, key))).await.unwrap_or(Err(SendError::Timeout))
    }
}

async fn exchange(
    stream: Box<dyn SocketStream>,
    head: Request<()>,
    key: &str,
) -> Result<Handshake, SendError> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| SendError::Broken(error.into()))?;
    // Nothing is spawned: the exchange ends when nobody waits for it any more.
    let mut connection = pin!(connection.without_shutdown());
    let mut sending = pin!(sender.send_request(head.map(|()| Empty::<Bytes>::new())));
    let mut parts = None;
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut sending => break answer,
            ended = &mut connection, if parts.is_none() => parts = Some(ended),
        }
    };
    let answer = answer.map_err(failed)?;
    let (head, body) = answer.into_parts();
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        let mut reading = pin!(timeout(REFUSAL_TIME, beginning(body)));
        let body = loop {
            tokio::select! {
                biased;
                body = &mut reading => break body.unwrap_or_default(),
                ended = &mut connection, if parts.is_none() => parts = Some(ended),
            }
        };
        return Ok(Handshake::Refused { head, body });
    }
    if !accepts(&head.headers, key) {
        return Err(SendError::NotASocket);
    }
    let parts = match parts {
        Some(parts) => parts,
        None => connection.await,
    };
    let parts = parts.map_err(failed)?;
    Ok(Handshake::Open { head, stream: parts.io.into_inner(), ahead: parts.read_buf })
}

fn failed(error: hyper::Error) -> SendError {
    if is_nonsense(&error) && !is_broken(&error) {
        SendError::Protocol(error.into())
    } else {
        SendError::Broken(error.into())
    }
}

/// Whether the 101 is one to our key (RFC 6455, section 4.1): a cache or a confused server in between
/// might answer anything. No extension was offered, so none can be accepted.
fn accepts(headers: &HeaderMap, key: &str) -> bool {
    lists(headers, &UPGRADE, "websocket")
        && lists(headers, &CONNECTION, "upgrade")
        && headers.get(SEC_WEBSOCKET_ACCEPT).is_some_and(|value| value.as_bytes() == accept(key).as_bytes())
        && headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().all(http::HeaderValue::is_empty)
}

async fn beginning(mut body: Incoming) -> Bytes {
    let mut bytes = BytesMut::new();
    while bytes.len() < REFUSAL_BYTES {
        let Some(Ok(frame)) = body.frame().await else { break };
        if let Ok(data) = frame.into_data() {
            let room = REFUSAL_BYTES - bytes.len();
            bytes.extend_from_slice(&data[..data.len().min(room)]);
        }
    }
    bytes.freeze()
}
