//! `/v1/responses`: create (plain and as typed events), get, delete.

use crate::http::{Answer, Piece, RequestBody, event};
use crate::ids::unix_now;
use crate::route::Call;
use crate::shape::Fault;
use crate::text::{Reply, content_text, conversation, tokens};
use http::StatusCode;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Kept responses: this many, and this much text; the oldest go first.
const KEEP: usize = 1000;
const KEEP_BYTES: usize = 16 << 20;

/// Responses that can be asked for again and continued.
#[derive(Default)]
pub(crate) struct ResponseStore(Mutex<VecDeque<(String, String)>>);

impl ResponseStore {
    fn put(&self, id: &str, json: String) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((id.to_owned(), json));
        let mut bytes: usize = kept.iter().map(|(_, json)| json.len()).sum();
        while kept.len() > KEEP || bytes > KEEP_BYTES {
            bytes -= kept.pop_front().map_or(0, |(_, json)| json.len());
        }
    }

    fn get(&self, id: &str) -> Option<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().find(|(known, _)| known == id);
        found.map(|(_, json)| json.clone())
    }

    fn remove(&self, id: &str) -> bool {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = kept.len();
        kept.retain(|(known, _)| known != id);
        kept.len() < before
    }
}

pub(crate) async fn create(call: &Call<'_>, body: &mut RequestBody) -> Result<Answer, Fault> {
    let request = body.json().await?;
    let model = super::model(call.state, &request)?;
    if let Some(previous) = request["previous_response_id"].as_str()
        && call.state.responses.get(previous).is_none()
    {
        return Err(Fault::bad_request(format!("Previous response with id '{previous}' not found."))
            .code("previous_response_not_found")
            .param("previous_response_id"));
    }
    let (said, mut input) = match &request["input"] {
        Value::String(text) => (text.clone(), tokens(text)),
        Value::Array(items) if !items.is_empty() => conversation(items),
        _ => return Err(Fault::missing("input")),
    };
    input += tokens(&content_text(&request["instructions"]));
    let streaming = request["stream"] == true;
    let chunks = call.scenario.chunks;
    let limit = request["max_output_tokens"].as_u64();
    let reply = Reply::echo(&said, chunks.filter(|_| streaming), limit);
    let output = reply.tokens();

    let id = call.state.ids.with_prefix("resp_");
    let item_id = call.state.ids.with_prefix("msg_");
    let status = if reply.truncated() { "incomplete" } else { "completed" };
    let started = skeleton(&id, model, &request);
    let mut done = started.clone();
    done["status"] = status.into();
    if reply.truncated() {
        done["incomplete_details"] = json!({"reason": "max_output_tokens"});
    }
    done["output"] = json!([message(&item_id, status, Some(reply.text()))]);
    done["usage"] = json!({
        "input_tokens": input,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": input + output,
    });
    if request["store"] != false {
        call.state.responses.put(&id, done.to_string());
    }
    if !streaming {
        return Ok(Answer::json(&done).usage(model, input, output));
    }
    let pieces = stream(&item_id, &started, &done, reply, chunks);
    Ok(Answer::events(pieces).usage(model, input, 0))
}

pub(crate) fn get(call: &Call<'_>, id: &str) -> Result<Answer, Fault> {
    let json = call.state.responses.get(id).ok_or_else(|| unknown(id))?;
    Ok(Answer::bytes("application/json", json))
}

pub(crate) fn delete(call: &Call<'_>, id: &str) -> Result<Answer, Fault> {
    if !call.state.responses.remove(id) {
        return Err(unknown(id));
    }
    Ok(Answer::json(&json!({"id": id, "object": "response", "deleted": true})))
}

fn unknown(id: &str) -> Fault {
    Fault::new(StatusCode::NOT_FOUND, format!("Response with id '{id}' not found."))
}

/// A response that has just begun.
fn skeleton(id: &str, model: &str, request: &Value) -> Value {
    let or = |name: &str, usual: Value| match &request[name] {
        Value::Null => usual,
        given => given.clone(),
    };
    json!({
        "id": id,
        "object": "response",
        "created_at": unix_now(),
        "status": "in_progress",
        "background": false,
        "error": null,
        "incomplete_details": null,
        "instructions": or("instructions", Value::Null),
        "max_output_tokens": or("max_output_tokens", Value::Null),
        "model": model,
        "output": [],
        "parallel_tool_calls": true,
        "previous_response_id": or("previous_response_id", Value::Null),
        "reasoning": {"effort": null, "summary": null},
        "service_tier": "default",
        "store": or("store", true.into()),
        "temperature": or("temperature", 1.0.into()),
        "text": or("text", json!({"format": {"type": "text"}})),
        "tool_choice": or("tool_choice", "auto".into()),
        "tools": or("tools", json!([])),
        "top_p": or("top_p", 1.0.into()),
        "truncation": "disabled",
        "usage": null,
        "user": or("user", Value::Null),
        "metadata": or("metadata", json!({})),
    })
}

fn message(id: &str, status: &str, text: Option<&str>) -> Value {
    let content: Vec<Value> = text.map(part).into_iter().collect();
    json!({
        "id": id, "type": "message", "status": status, "role": "assistant", "content": content,
    })
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

fn stream(
    item_id: &str,
    started: &Value,
    done: &Value,
    reply: Reply,
    chunks: Option<usize>,
) -> impl Iterator<Item = Piece> + Send + use<> {
    let at = |mut fields: Value| {
        fields["item_id"] = item_id.into();
        fields["output_index"] = 0.into();
        fields["content_index"] = 0.into();
        fields
    };
    let text = reply.text().to_owned();
    let opening = [
        ("response.created", json!({"response": started})),
        ("response.in_progress", json!({"response": started})),
        (
            "response.output_item.added",
            json!({"output_index": 0, "item": message(item_id, "in_progress", None)}),
        ),
        ("response.content_part.added", at(json!({"part": part("")}))),
    ];
    let delta = at(json!({"delta": "", "logprobs": []}));
    let last = match done["status"].as_str() {
        Some("incomplete") => "response.incomplete",
        _ => "response.completed",
    };
    let closing = [
        ("response.output_text.done", at(json!({"text": text, "logprobs": []}))),
        ("response.content_part.done", at(json!({"part": part(&text)}))),
        ("response.output_item.done", json!({"output_index": 0, "item": done["output"][0]})),
        (last, json!({"response": done})),
    ];
    let deltas = reply.into_chunks(chunks).map(move |(text, tokens)| {
        let mut fields = delta.clone();
        fields["delta"] = text.into();
        ("response.output_text.delta", fields, Some(tokens))
    });
    let framing = |(name, fields)| (name, fields, None);
    opening.into_iter().map(framing).chain(deltas).chain(closing.into_iter().map(framing)).enumerate().map(
        |(sequence, (name, mut fields, tokens))| {
            fields["type"] = name.into();
            fields["sequence_number"] = sequence.into();
            let bytes = event(Some(name), &fields);
            match tokens {
                Some(tokens) => Piece::content(bytes, tokens),
                None => Piece::framing(bytes),
            }
        },
    )
}
