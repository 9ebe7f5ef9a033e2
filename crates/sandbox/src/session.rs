//! OpenAI's realtime API, in the shape of its general availability: what a session says to what it
//! hears, whatever carries the events.

use std::collections::VecDeque;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::route::State;
use crate::text;

/// Sound that is kept until a response echoes it, in base64.
const AUDIO_BYTES: usize = 32 << 20;
/// Items of a conversation that can be asked for.
const ITEMS: usize = 100;

/// One realtime session: what is said is echoed.
pub(crate) struct Session {
    state: Arc<State>,
    session: Value,
    /// What the user said last.
    said: String,
    /// Sound since the last response, in base64.
    audio: Vec<String>,
    /// What the conversation consists of, the newest at the end.
    items: VecDeque<Value>,
    events: u64,
    /// What is still to be sent.
    out: Vec<Value>,
}

impl Session {
    /// A session with this model; `wishes` are what the caller asked for when it made the session.
    pub(crate) fn new(state: &Arc<State>, model: &str, wishes: Value) -> Session {
        let mut session = json!({
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
        merge(&mut session, wishes);
        session["model"] = model.into();
        let (said, audio, items, out) = (String::new(), Vec::new(), VecDeque::new(), Vec::new());
        Session { state: Arc::clone(state), session, said, audio, items, events: 0, out }
    }

    fn emit(&mut self, mut event: Value) {
        self.events += 1;
        event["event_id"] = format!("event_{}", self.events).into();
        self.out.push(event);
    }

    /// What a peer hears first.
    pub(crate) fn greet(&mut self) -> Value {
        self.emit(json!({"type": "session.created", "session": self.session.clone()}));
        self.out.pop().unwrap_or_default()
    }

    /// The end of sessions in the shape before general availability.
    pub(crate) fn refuse_beta(&mut self) -> Value {
        let message = "The Realtime Beta API shape is disabled. Remove the header OpenAI-Beta.";
        self.emit(json!({"type": "error", "error": {"type": "invalid_request_error",
            "code": "beta_api_shape_disabled", "message": message, "param": null, "event_id": null}}));
        self.out.pop().unwrap_or_default()
    }

    /// What is said to a text.
    pub(crate) fn hear_text(&mut self, text: &str) -> Vec<Value> {
        match serde_json::from_str::<Value>(text) {
            Ok(event) => return self.hear(event),
            Err(error) => self.complain(&format!("not JSON: {error}")),
        }
        std::mem::take(&mut self.out)
    }

    /// What is said to an event.
    pub(crate) fn hear(&mut self, event: Value) -> Vec<Value> {
        self.take_in(event);
        std::mem::take(&mut self.out)
    }

    fn complain(&mut self, message: &str) {
        self.emit(
            json!({"type": "error", "error": {"type": "invalid_request_error", "code": "invalid_event",
            "message": message, "param": null, "event_id": null}}),
        );
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

    fn take_in(&mut self, mut event: Value) {
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        match &*kind {
            "session.update" => {
                let changes = event["session"].take();
                merge(&mut self.session, changes);
                self.emit(json!({"type": "session.updated", "session": self.session.clone()}));
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
                    self.emit(json!({"type": kind, "previous_item_id": previous, "item": item}));
                }
            }
            "input_audio_buffer.append" => {
                let Some(audio) = event["audio"].as_str().filter(|audio| STANDARD.decode(audio).is_ok())
                else {
                    return self.complain("`audio` is no base64");
                };
                if self.audio.iter().map(String::len).sum::<usize>() + audio.len() > AUDIO_BYTES {
                    return self.complain("the buffer is full");
                }
                self.audio.push(audio.to_owned());
            }
            "input_audio_buffer.clear" => {
                self.audio.clear();
                self.emit(json!({"type": "input_audio_buffer.cleared"}));
            }
            "input_audio_buffer.commit" => {
                let id = self.state.ids.with_prefix("item_");
                let previous = self
                    .keep(json!({"id": id, "object": "realtime.item", "type": "message", "role": "user",
                    "status": "completed", "content": [{"type": "input_audio", "transcript": "echo"}]}));
                self.emit(
                    json!({"type": "input_audio_buffer.committed", "previous_item_id": previous, "item_id": id}),
                );
                self.emit(
                    json!({"type": "conversation.item.input_audio_transcription.completed", "item_id": id,
                    "content_index": 0, "transcript": "echo",
                    "usage": {"type": "duration", "seconds": self.audio.len()}}),
                );
            }
            "conversation.item.retrieve" => {
                let id = &event["item_id"];
                match self.items.iter().find(|item| item["id"] == *id).cloned() {
                    Some(item) => {
                        self.emit(json!({"type": "conversation.item.retrieved", "item": item}));
                    }
                    None => self.complain(&format!("no item {id}")),
                }
            }
            "response.create" => self.respond(),
            "response.cancel" => {}
            other => self.complain(&format!("Invalid value: '{other}'.")),
        }
    }

    /// Echoes what was said and heard.
    fn respond(&mut self) {
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
        );
        self.emit(json!({"type": "response.output_item.added", "response_id": id, "output_index": 0,
            "item": item("in_progress", json!([]))}));
        let said = std::mem::take(&mut self.said);
        let audio = std::mem::take(&mut self.audio);
        let words: Vec<&str> = said.split_inclusive(' ').collect();
        for word in &words {
            self.emit(place("response.output_text.delta", 0, json!({"delta": word})));
        }
        self.emit(place("response.output_text.done", 0, json!({"text": said})));
        for sound in &audio {
            self.emit(place("response.output_audio.delta", 1, json!({"delta": sound})));
        }
        if !audio.is_empty() {
            self.emit(place("response.output_audio.done", 1, json!({})));
        }
        let whole = item("completed", json!([{"type": "output_text", "text": said}]));
        self.emit(
            json!({"type": "response.output_item.done", "response_id": id, "output_index": 0, "item": whole}),
        );
        self.keep(whole.clone());
        let (tokens, sounds) = (text::tokens(&said), audio.len() as u64);
        let usage = json!({
            "total_tokens": 2 * (tokens + sounds), "input_tokens": tokens + sounds, "output_tokens": tokens + sounds,
            "input_token_details": {"text_tokens": tokens, "audio_tokens": sounds, "image_tokens": 0,
                "cached_tokens": 0},
            "output_token_details": {"text_tokens": tokens, "audio_tokens": sounds},
        });
        self.emit(json!({"type": "response.done", "response": response("completed", json!([whole]), usage)}));
    }
}

/// Puts the members of an object into another.
fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}
