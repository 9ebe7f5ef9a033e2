//! Anthropic's Messages API, also served below `/apps/anthropic` as Aliyun does.

use crate::http::{Answer, Piece, RequestBody, event};
use crate::route::Call;
use crate::shape::Fault;
use crate::text::{Reply, content_text, conversation, tokens};
use serde_json::{Value, json};

/// A request that has passed the checks.
struct Prompt {
    model: String,
    said: String,
    input: u64,
    request: Value,
}

async fn read(call: &Call<'_>, body: &mut RequestBody) -> Result<Prompt, Fault> {
    if !call.head.headers.contains_key("anthropic-version") {
        return Err(Fault::bad_request("anthropic-version: header is required"));
    }
    let request = body.json().await?;
    let model = request["model"].as_str().ok_or_else(|| Fault::bad_request("model: Field required"))?;
    call.state.know_model(model).map_err(|_| Fault::not_found(format!("model: {model}")))?;
    let messages =
        request["messages"].as_array().ok_or_else(|| Fault::bad_request("messages: Field required"))?;
    if messages.is_empty() {
        return Err(Fault::bad_request("messages: at least one message is required"));
    }
    let (said, input) = conversation(messages);
    Ok(Prompt {
        model: model.to_owned(),
        said,
        input: input + tokens(&content_text(&request["system"])),
        request,
    })
}

/// `POST /v1/messages`.
pub(crate) async fn messages(call: &Call<'_>, body: &mut RequestBody) -> Result<Answer, Fault> {
    let prompt = read(call, body).await?;
    let limit = prompt.request["max_tokens"]
        .as_u64()
        .ok_or_else(|| Fault::bad_request("max_tokens: Field required"))?;
    let streaming = prompt.request["stream"] == true;
    let chunks = call.scenario.chunks;
    let reply = Reply::echo(&prompt.said, chunks.filter(|_| streaming), Some(limit));
    let stop = if reply.truncated() { "max_tokens" } else { "end_turn" };
    let mut message = json!({
        "id": call.state.ids.with_prefix("msg_"),
        "type": "message",
        "role": "assistant",
        "model": prompt.model,
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "usage": usage(prompt.input, 1),
    });
    if streaming {
        let pieces = stream(&message, reply, chunks, stop);
        return Ok(Answer::events(pieces).usage(&prompt.model, prompt.input, 0));
    }
    let output = reply.tokens();
    message["content"] = json!([{"type": "text", "text": reply.text()}]);
    message["stop_reason"] = stop.into();
    message["usage"] = usage(prompt.input, output);
    Ok(Answer::json(&message).usage(&prompt.model, prompt.input, output))
}

/// `POST /v1/messages/count_tokens`.
pub(crate) async fn count_tokens(call: &Call<'_>, body: &mut RequestBody) -> Result<Answer, Fault> {
    let prompt = read(call, body).await?;
    Ok(Answer::json(&json!({"input_tokens": prompt.input})))
}

/// `GET /v1/models` of a caller who sends `anthropic-version`.
pub(crate) fn models(call: &Call<'_>) -> Answer {
    let data: Vec<Value> = call.state.models().map(object).collect();
    Answer::json(&json!({
        "first_id": data.first().map(|model| &model["id"]),
        "last_id": data.last().map(|model| &model["id"]),
        "data": data,
        "has_more": false,
    }))
}

/// `GET /v1/models/{id}` of such a caller.
pub(crate) fn model(call: &Call<'_>, id: &str) -> Result<Answer, Fault> {
    call.state.know_model(id).map_err(|_| Fault::not_found(format!("model: {id}")))?;
    Ok(Answer::json(&object(id)))
}

fn object(id: &str) -> Value {
    json!({
        "type": "model", "id": id, "display_name": id, "created_at": "2023-11-14T22:13:20Z",
    })
}

fn usage(input: u64, output: u64) -> Value {
    json!({
        "input_tokens": input,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output,
        "service_tier": "standard",
    })
}

/// `message_start` carries the input tokens, `message_delta` the final output tokens.
fn stream(
    message: &Value,
    reply: Reply,
    chunks: Option<usize>,
    stop: &str,
) -> impl Iterator<Item = Piece> + Send + use<> {
    let output = reply.tokens();
    let opening = [
        json!({"type": "message_start", "message": message}),
        json!({
            "type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""},
        }),
        json!({"type": "ping"}),
    ];
    let closing = [
        json!({"type": "content_block_stop", "index": 0}),
        json!({
            "type": "message_delta",
            "delta": {"stop_reason": stop, "stop_sequence": null},
            "usage": {"output_tokens": output},
        }),
        json!({"type": "message_stop"}),
    ];
    let deltas = reply.into_chunks(chunks).map(|(text, tokens)| {
        let delta = json!({"type": "text_delta", "text": text});
        let data = json!({"type": "content_block_delta", "index": 0, "delta": delta});
        Piece::content(event(Some("content_block_delta"), &data), tokens)
    });
    opening
        .into_iter()
        .map(|data| framing(&data))
        .chain(deltas)
        .chain(closing.into_iter().map(|data| framing(&data)))
}

/// The `event:` line repeats the type.
fn framing(data: &Value) -> Piece {
    Piece::framing(event(data["type"].as_str(), data))
}
