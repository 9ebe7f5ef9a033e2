//! WebSockets: OpenAI's realtime API (the shape of its general availability) and DashScope's inference
//! tasks, as far as their clients need them.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use crate::auth;
use crate::pace::AnswerBody;
use crate::route::State;
use crate::seen::Visit;
use crate::shape::{Fault, Shape};
use crate::text;

/// The subprotocol in which browsers say their key.
const KEY_PROTOCOL: &str = "openai-insecure-api-key.";
/// Sound that is kept until a response echoes it, in base64.
const AUDIO_BYTES: usize = 32 << 20;

type Socket = WebSocketStream<TokioIo<Upgraded>>;
type Ended = Result<(), tokio_tungstenite::tungstenite::Error>;

/// What kind of socket a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Realtime,
    Inference,
}

impl Kind {
    fn of(path: &str) -> Option<Kind> {
        match path {
            "/api-ws/v1/inference" | "/api-ws/v1/inference/" => Some(Kind::Inference),
            _ if path.ends_with("/realtime") => Some(Kind::Realtime),
            _ => None,
        }
    }

    /// The name in the counters.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Realtime => "realtime",
            Kind::Inference => "dashscope.inference",
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
    let offered = protocols(&head.headers);
    let in_protocol = offered.iter().any(|one| one.strip_prefix(KEY_PROTOCOL) == Some(&*state.key));
    if !in_protocol {
        auth::check(&state.key, shape, &head.headers, head.uri.query().unwrap_or_default())?;
    }
    visit.authorize();
    let upgrade = head.extensions.remove::<OnUpgrade>();
    let (Some(upgrade), Some(key)) = (upgrade, head.headers.get(SEC_WEBSOCKET_KEY)) else {
        return Err(Fault::bad_request("This is no WebSocket handshake."));
    };
    let accept = derive_accept_key(key.as_bytes());
    let beta = head.headers.contains_key("openai-beta")
        || offered.iter().any(|protocol| protocol.starts_with("openai-beta."));
    let model = head.uri.query().unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("model="));
    let model = model.unwrap_or("gpt-realtime").to_owned();
    let mut response = Response::new(AnswerBody::unrecorded(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    let spoken = offered.iter().find(|protocol| !protocol.starts_with(KEY_PROTOCOL));
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
            Kind::Realtime => Session::new(&state, socket, &model, beta).run().await,
            Kind::Inference => Tasks { socket, task: Value::Null, characters: 0, seconds: 0 }.run().await,
        };
        if ended.is_ok() {
            visit.complete();
        }
    });
    Ok(response)
}

fn protocols(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|protocol| protocol.trim().to_owned()).collect()
}

async fn say(socket: &mut Socket, event: &Value) -> Ended {
    socket.send(Message::text(event.to_string())).await
}

/// One realtime session: what is said is echoed.
struct Session {
    socket: Socket,
    state: Arc<State>,
    session: Value,
    beta: bool,
    /// What the user said last.
    said: String,
    /// Sound since the last response, in base64.
    audio: Vec<String>,
    events: u64,
}

impl Session {
    fn new(state: &Arc<State>, socket: Socket, model: &str, beta: bool) -> Session {
        let session = json!({
            "type": "realtime",
            "object": "realtime.session",
            "id": state.ids.with_prefix("sess_"),
            "model": model,
            "output_modalities": ["audio"],
            "instructions": "",
            "tools": [],
            "tool_choice": "auto",
            "audio": { "input": { "turn_detection": null }, "output": { "voice": "alloy" } },
        });
        let (said, audio) = (String::new(), Vec::new());
        Session { socket, state: Arc::clone(state), session, beta, said, audio, events: 0 }
    }

    async fn emit(&mut self, mut event: Value) -> Ended {
        self.events += 1;
        event["event_id"] = format!("event_{}", self.events).into();
        say(&mut self.socket, &event).await
    }

    async fn run(mut self) -> Ended {
        if self.beta {
            let message = "The Realtime Beta API shape is disabled. Remove the header OpenAI-Beta.";
            self.emit(json!({"type": "error", "error": {"type": "invalid_request_error",
                "code": "beta_api_shape_disabled", "message": message, "param": null, "event_id": null}}))
                .await?;
            let code = CloseCode::from(4000);
            self.socket.close(Some(CloseFrame { code, reason: "beta_api_shape_disabled".into() })).await?;
            // The peer's answer.
            while let Some(Ok(_)) = self.socket.next().await {}
            return Ok(());
        }
        self.emit(json!({"type": "session.created", "session": self.session.clone()})).await?;
        while let Some(message) = self.socket.next().await {
            if let Message::Text(text) = message? {
                match serde_json::from_str::<Value>(&text) {
                    Ok(event) => self.hear(event).await?,
                    Err(error) => self.complain(&format!("not JSON: {error}")).await?,
                }
            }
        }
        Ok(())
    }

    async fn complain(&mut self, message: &str) -> Ended {
        self.emit(json!({"type": "error", "error": {"type": "invalid_request_error", "code": "invalid_event",
            "message": message, "param": null, "event_id": null}}))
            .await
    }

    async fn hear(&mut self, mut event: Value) -> Ended {
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        match &*kind {
            "session.update" => {
                if let (Value::Object(session), Value::Object(changes)) =
                    (&mut self.session, event["session"].take())
                {
                    session.extend(changes);
                }
                self.emit(json!({"type": "session.updated", "session": self.session.clone()})).await
            }
            "conversation.item.create" => {
                let mut item = event["item"].take();
                if item["id"].is_null() {
                    item["id"] = self.state.ids.with_prefix("item_").into();
                }
                let texts = item["content"].as_array().into_iter().flatten();
                let texts = texts.filter_map(|part| part["text"].as_str().or(part["transcript"].as_str()));
                self.said = texts.collect::<Vec<_>>().join(" ");
                for kind in ["conversation.item.added", "conversation.item.done"] {
                    self.emit(json!({"type": kind, "previous_item_id": null, "item": item})).await?;
                }
                Ok(())
            }
            "input_audio_buffer.append" => {
                let Some(audio) = event["audio"].as_str().filter(|audio| STANDARD.decode(audio).is_ok())
                else {
                    return self.complain("`audio` is no base64").await;
                };
                if self.audio.iter().map(String::len).sum::<usize>() + audio.len() > AUDIO_BYTES {
                    return self.complain("the buffer is full").await;
                }
                self.audio.push(audio.to_owned());
                Ok(())
            }
            "input_audio_buffer.clear" => {
                self.audio.clear();
                self.emit(json!({"type": "input_audio_buffer.cleared"})).await
            }
            "input_audio_buffer.commit" => {
                let id = self.state.ids.with_prefix("item_");
                self.emit(
                    json!({"type": "input_audio_buffer.committed", "previous_item_id": null, "item_id": id}),
                )
                .await?;
                self.emit(
                    json!({"type": "conversation.item.input_audio_transcription.completed", "item_id": id,
                    "content_index": 0, "transcript": "echo",
                    "usage": {"type": "duration", "seconds": self.audio.len()}}),
                )
                .await
            }
            "response.create" => self.respond().await,
            "response.cancel" => Ok(()),
            other => self.complain(&format!("Invalid value: '{other}'.")).await,
        }
    }

    /// Echoes what was said and heard.
    async fn respond(&mut self) -> Ended {
        let id = self.state.ids.with_prefix("resp_");
        let item_id = self.state.ids.with_prefix("item_");
        let place = |kind: &str, index: usize, more: Value| {
            let mut event = json!({"type": kind, "response_id": id, "item_id": item_id,
                "output_index": 0, "content_index": index});
            if let (Value::Object(event), Value::Object(more)) = (&mut event, more) {
                event.extend(more);
            }
            event
        };
        let response = |status: &str, output: Value, usage: Value| {
            json!({"object": "realtime.response", "id": id, "status": status, "status_details": null,
                "output": output, "output_modalities": ["audio"], "usage": usage, "metadata": null})
        };
        let item = |status: &str, content: Value| {
            json!({"id": item_id, "object": "realtime.item", "type": "message", "status": status,
                "role": "assistant", "content": content})
        };
        self.emit(
            json!({"type": "response.created", "response": response("in_progress", json!([]), Value::Null)}),
        )
        .await?;
        self.emit(json!({"type": "response.output_item.added", "response_id": id, "output_index": 0,
            "item": item("in_progress", json!([]))}))
            .await?;
        let said = std::mem::take(&mut self.said);
        let audio = std::mem::take(&mut self.audio);
        let words: Vec<&str> = said.split_inclusive(' ').collect();
        for word in &words {
            self.emit(place("response.output_text.delta", 0, json!({"delta": word}))).await?;
        }
        self.emit(place("response.output_text.done", 0, json!({"text": said}))).await?;
        for sound in &audio {
            self.emit(place("response.output_audio.delta", 1, json!({"delta": sound}))).await?;
        }
        if !audio.is_empty() {
            self.emit(place("response.output_audio.done", 1, json!({}))).await?;
        }
        let whole = item("completed", json!([{"type": "output_text", "text": said}]));
        self.emit(
            json!({"type": "response.output_item.done", "response_id": id, "output_index": 0, "item": whole}),
        )
        .await?;
        let (tokens, sounds) = (text::tokens(&said), audio.len() as u64);
        let usage = json!({
            "total_tokens": 2 * (tokens + sounds), "input_tokens": tokens + sounds, "output_tokens": tokens + sounds,
            "input_token_details": {"text_tokens": tokens, "audio_tokens": sounds, "image_tokens": 0,
                "cached_tokens": 0},
            "output_token_details": {"text_tokens": tokens, "audio_tokens": sounds},
        });
        self.emit(json!({"type": "response.done", "response": response("completed", json!([whole]), usage)}))
            .await
    }
}

/// DashScope's tasks on one socket, one after the other.
struct Tasks {
    socket: Socket,
    /// The id of the task under way.
    task: Value,
    characters: usize,
    seconds: u64,
}

impl Tasks {
    async fn emit(&mut self, event: &str, payload: Value) -> Ended {
        let header = json!({"task_id": self.task, "event": event, "attributes": {}});
        say(&mut self.socket, &json!({"header": header, "payload": payload})).await
    }

    async fn run(mut self) -> Ended {
        while let Some(message) = self.socket.next().await {
            match message? {
                Message::Text(text) => {
                    let event = serde_json::from_str::<Value>(&text).unwrap_or_default();
                    self.hear(&event).await?;
                }
                // Sound to be recognised.
                Message::Binary(sound) => {
                    self.seconds += 1;
                    let sentence = json!({"text": format!("{} bytes", sound.len()), "sentence_end": true});
                    let payload =
                        json!({"output": {"sentence": sentence}, "usage": {"duration": self.seconds}});
                    self.emit("result-generated", payload).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn hear(&mut self, event: &Value) -> Ended {
        match event["header"]["action"].as_str().unwrap_or_default() {
            "run-task" => {
                self.task = event["header"]["task_id"].clone();
                (self.characters, self.seconds) = (0, 0);
                self.emit("task-started", json!({})).await
            }
            "continue-task" => {
                let text = event["payload"]["input"]["text"].as_str().unwrap_or_default();
                self.characters += text.chars().count();
                self.socket.send(Message::binary(text.as_bytes().to_vec())).await?;
                let usage = json!({"characters": self.characters});
                self.emit("result-generated", json!({"output": {}, "usage": usage})).await
            }
            "finish-task" => {
                let usage = match self.seconds {
                    0 => json!({"characters": self.characters}),
                    seconds => json!({"duration": seconds}),
                };
                self.emit("task-finished", json!({"output": {}, "usage": usage})).await
            }
            other => {
                let header = json!({"task_id": self.task, "event": "task-failed", "error_code": "InvalidParameter",
                    "error_message": format!("unknown action '{other}'"), "attributes": {}});
                say(&mut self.socket, &json!({"header": header, "payload": {}})).await
            }
        }
    }
}
