//! WebSockets, as far as their clients need them.
//!
//! - `realtime`: OpenAI's realtime sessions; `tasks`: DashScope's inference tasks
//! - `listen`: Deepgram's live transcription

mod listen;
mod realtime;
mod tasks;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::SinkExt as _;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use self::listen::Listen;
use self::tasks::Tasks;
use crate::auth;
use crate::pace::AnswerBody;
use crate::route::State;
use crate::seen::Visit;
use crate::shape::{Fault, Shape};

type Socket = WebSocketStream<TokioIo<Upgraded>>;
type Ended = Result<(), tokio_tungstenite::tungstenite::Error>;

/// What kind of socket a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Realtime,
    Inference,
    Listen,
}

impl Kind {
    fn of(path: &str) -> Option<Kind> {
        match path {
            "/api-ws/v1/inference" | "/api-ws/v1/inference/" => Some(Kind::Inference),
            "/v1/listen" => Some(Kind::Listen),
            _ if path.ends_with("/realtime") => Some(Kind::Realtime),
            _ => None,
        }
    }

    /// The name in the counters.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Realtime => "realtime",
            Kind::Inference => "dashscope.inference",
            Kind::Listen => "deepgram.listen",
        }
    }
}

/// Whether a request is a WebSocket's handshake, and where it leads.
pub(crate) fn wanted(head: &Parts) -> Option<Option<Kind>> {
    let upgrade = head.headers.get(UPGRADE)?.to_str().ok()?;
    upgrade.eq_ignore_ascii_case("websocket").then(|| Kind::of(head.uri.path()))
}

/// Accepts the handshake; the socket goes on by itself.
pub(crate) fn accept(
    state: &Arc<State>,
    shape: Shape,
    head: &mut Parts,
    kind: Kind,
    visit: Visit,
) -> Result<Response<AnswerBody>, Fault> {
    auth::check(&state.key, shape, &head.headers, head.uri.query().unwrap_or_default())?;
    visit.authorize();
    let upgrade = head.extensions.remove::<OnUpgrade>();
    let (Some(upgrade), Some(key)) = (upgrade, head.headers.get(SEC_WEBSOCKET_KEY)) else {
        return Err(Fault::bad_request("This is no WebSocket handshake."));
    };
    let accept = derive_accept_key(key.as_bytes());
    let offered = auth::protocols(&head.headers);
    let beta = head.headers.contains_key("openai-beta")
        || offered.iter().any(|protocol| protocol.starts_with("openai-beta."));
    let query = head.uri.query().unwrap_or_default().to_owned();
    let sideband = match (kind, parameter(&query, "call_id")) {
        (Kind::Realtime, Some(id)) => Some(state.calls.join(id)?),
        _ => None,
    };
    let mut response = Response::new(AnswerBody::unrecorded(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    let spoken = offered.iter().find(|protocol| !auth::holds_key(protocol));
    if let Some(protocol) = spoken.and_then(|protocol| HeaderValue::from_str(protocol).ok()) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    visit.answer(StatusCode::SWITCHING_PROTOCOLS);
    let state = Arc::clone(state);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let config = WebSocketConfig::default();
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        let ended = match kind {
            Kind::Realtime => {
                let model = parameter(&query, "model").unwrap_or("gpt-realtime");
                match sideband {
                    Some(sideband) => realtime::join(socket, sideband).await,
                    None => realtime::run(&state, socket, model, beta).await,
                }
            }
            Kind::Inference => Tasks::new(socket).run().await,
            Kind::Listen => Listen::new(&state, socket, &query).run().await,
        };
        if ended.is_ok() {
            visit.complete();
        }
    });
    Ok(response)
}

/// A query parameter as it is written.
fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

async fn say(socket: &mut Socket, event: &Value) -> Ended {
    socket.send(Message::text(event.to_string())).await
}
