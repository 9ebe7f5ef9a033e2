//! OpenAI's realtime API, in the shape of its general availability.

use std::collections::VecDeque;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{Ended, Socket, say};
use crate::route::State;
use crate::text;

/// Sound that is kept until a response echoes it, in base64.
const AUDIO_BYTES: usize = 32 << 20;
/// Items of a conversation that can be asked for.
const ITEMS: usize = 100;

/// One realtime session: what is said is echoed.
pub(super) struct Session {
    socket: Socket,
    state: Arc<State>,
    session: Value,
    beta: bool,
    /// What the user said last.
    said: String,
    /// Sound since the last response, in base64.
    audio: Vec<String>,
    /// What the conversation consists of, the newest at the end.
    items: VecDeque<Value>,
    events: u64,
}

impl Session {
    pub(super) fn new(state: &Arc<State>, socket: Socket, model: &str, beta: bool) -> Session {
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
        let (said, audio, items) = (String::new(), Vec::new(), VecDeque::new());
        Session { socket, state: Arc::clone(state), session, beta, said, audio, items, events: 0 }
    }

    async fn emit(&mut self, mut event: Value) -> Ended {
        self.events += 1;
        event["event_id"] = format!("event_{}", self.events).into();
        say(&mut self.socket, &event).await
    }

    pub(super) async fn run(mut self) -> Ended {
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

    /// Adds to the conversation; the id of the item before.
    fn keep(&mut self, item: Value) -> Value {
        let previous = self.items.back().map_or(Value::Null, |item| item["id"].clone());
        self.items.push_back(item);
        if self.items.len() > ITEMS {
            self.items.pop_front();
        }
        previous
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
                let said = texts.collect::<Vec<_>>().join(" ");
                self.said = said;
                let previous = self.keep(item.clone());
                for kind in ["conversation.item.added", "conversation.item.done"] {
                    self.emit(json!({"type": kind, "previous_item_id": previous, "item": item})).await?;
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
                let previous = self
                    .keep(json!({"id": id, "object": "realtime.item", "type": "message", "role": "user",
                    "status": "completed", "content": [{"type": "input_audio", "transcript": "echo"}]}));
                self.emit(
                    json!({"type": "input_audio_buffer.committed", "previous_item_id": previous, "item_id": id}),
                )
                .await?;
                self.emit(
                    json!({"type": "conversation.item.input_audio_transcription.completed", "item_id": id,
                    "content_index": 0, "transcript": "echo",
                    "usage": {"type": "duration", "seconds": self.audio.len()}}),
                )
                .await
            }
            "conversation.item.retrieve" => {
                let id = &event["item_id"];
                match self.items.iter().find(|item| item["id"] == *id).cloned() {
                    Some(item) => {
                        self.emit(json!({"type": "conversation.item.retrieved", "item": item})).await
                    }
                    None => self.complain(&format!("no item {id}")).await,
                }
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
        self.keep(whole.clone());
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
