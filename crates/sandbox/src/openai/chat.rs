//! `POST /v1/chat/completions`, plain and as server-sent events.

use crate::http::{Answer, Piece, RequestBody, event};
use crate::ids::unix_now;
use crate::route::Call;
use crate::shape::Fault;
use crate::text::{Reply, conversation};
use serde_json::{Value, json};
use std::iter::once;

pub(crate) async fn create(call: &Call<'_>, body: &mut RequestBody) -> Result<Answer, Fault> {
    let request = body.json().await?;
    let model = super::model(call.state, &request)?;
    let messages = request["messages"].as_array().ok_or_else(|| Fault::missing("messages"))?;
    if messages.is_empty() {
        return Err(Fault::bad_request("'messages' must not be empty.").param("messages"));
    }
    let streaming = request["stream"] == true;
    let (said, input) = conversation(messages);
    let limit = request["max_completion_tokens"].as_u64().or(request["max_tokens"].as_u64());
    let chunks = call.scenario.chunks;
    let reply = Reply::echo(&said, chunks.filter(|_| streaming), limit);
    let output = reply.tokens();
    let finish = if reply.truncated() { "length" } else { "stop" };
    let base = Base {
        id: call.state.ids.with_prefix("chatcmpl-"),
        created: unix_now(),
        model: model.to_owned(),
        finish,
        with_usage: streaming && request["stream_options"]["include_usage"] == true,
    };
    let usage = usage(input, output);
    if streaming {
        return Ok(Answer::events(stream(base, reply, chunks, &usage)).usage(model, input, 0));
    }
    let answer = json!({
        "id": base.id,
        "object": "chat.completion",
        "created": base.created,
        "model": model,
        "choices": [{
            "index": 0,
            "message": {
                "role": "assistant", "content": reply.text(), "refusal": null, "annotations": [],
            },
            "logprobs": null,
            "finish_reason": finish,
        }],
        "usage": usage,
        "service_tier": "default",
        "system_fingerprint": "fp_sandbox",
    });
    Ok(Answer::json(&answer).usage(model, input, output))
}

fn usage(input: u64, output: u64) -> Value {
    json!({
        "prompt_tokens": input,
        "completion_tokens": output,
        "total_tokens": input + output,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    })
}

/// What all chunks of one stream share.
struct Base {
    id: String,
    created: u64,
    model: String,
    finish: &'static str,
    with_usage: bool,
}

impl Base {
    fn chunk(&self, choices: &Value, usage: Option<&Value>) -> Value {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": "fp_sandbox",
            "choices": choices,
        });
        // With `include_usage` every chunk has the field, null in all but the last.
        if self.with_usage {
            chunk["usage"] = usage.cloned().unwrap_or_default();
        }
        chunk
    }

    fn delta(&self, delta: &Value, finish: Option<&str>) -> Value {
        let choice = json!({
            "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish,
        });
        self.chunk(&json!([choice]), None)
    }
}

fn stream(
    base: Base,
    reply: Reply,
    chunks: Option<usize>,
    usage: &Value,
) -> impl Iterator<Item = Piece> + Send + use<> {
    let role = json!({"role": "assistant", "content": "", "refusal": null});
    let first = event(None, &base.delta(&role, None));
    let last = event(None, &base.delta(&json!({}), Some(base.finish)));
    let usage = base.with_usage.then(|| event(None, &base.chunk(&json!([]), Some(usage))));
    let content = reply.into_chunks(chunks).map(move |(text, tokens)| {
        let chunk = base.delta(&json!({"content": text}), None);
        Piece::content(event(None, &chunk), tokens)
    });
    once(Piece::framing(first))
        .chain(content)
        .chain(once(Piece::framing(last)))
        .chain(usage.map(Piece::framing))
        .chain(once(Piece::framing("data: [DONE]\n\n")))
}
