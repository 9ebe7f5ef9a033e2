//! DashScope's native API (Aliyun Bailian).

use crate::http::{Answer, Piece, RequestBody};
use crate::ids::unix_now;
use crate::route::Call;
use crate::shape::Fault;
use crate::text::{Reply, conversation, tokens};
use bytes::Bytes;
use serde_json::{Value, json};
use std::iter::once;

/// How a stream tells what it has said so far.
struct Style {
    /// `output.choices[].message`, or `output.text`.
    message: bool,
    /// A message's content is a list of parts.
    multimodal: bool,
    /// Chunks carry what is new, instead of all so far.
    incremental: bool,
}

impl Style {
    /// The finish reason of an unfinished answer is the string `null`.
    fn output(&self, text: &str, finish: &str) -> Value {
        if !self.message {
            return json!({"text": text, "finish_reason": finish});
        }
        let content = if self.multimodal { json!([{"text": text}]) } else { text.into() };
        json!({"choices": [{
            "message": {"role": "assistant", "content": content}, "finish_reason": finish,
        }]})
    }
}

/// `/api/v1/services/aigc/{text,multimodal}-generation/generation`.
pub(crate) async fn generate(
    call: &Call<'_>,
    body: &mut RequestBody,
    multimodal: bool,
) -> Result<Answer, Fault> {
    let request = body.json().await?;
    let model = request["model"]
        .as_str()
        .ok_or_else(|| Fault::bad_request("Required parameter(model) missing or invalid."))?;
    call.state.know_model(model).map_err(|_| Fault::not_found("Model not exist.").code("ModelNotFound"))?;
    let (said, input) = match (&request["input"]["messages"], &request["input"]["prompt"]) {
        (Value::Array(messages), _) if !messages.is_empty() => conversation(messages),
        (_, Value::String(prompt)) => (prompt.clone(), tokens(prompt)),
        _ => {
            return Err(Fault::bad_request("Required parameter(messages or prompt) missing or invalid."));
        }
    };
    let parameters = &request["parameters"];
    let style = Style {
        message: multimodal || parameters["result_format"] == "message",
        multimodal,
        incremental: parameters["incremental_output"] == true,
    };
    let headers = &call.head.headers;
    let is = |name: &str, wanted: &str| {
        headers.get(name).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(wanted.as_bytes()))
    };
    let streaming = is("x-dashscope-sse", "enable") || is("accept", "text/event-stream");
    let chunks = call.scenario.chunks;
    let reply = Reply::echo(&said, chunks.filter(|_| streaming), parameters["max_tokens"].as_u64());
    if streaming {
        let pieces = stream(style, reply, chunks, input, call.request_id.to_owned());
        return Ok(Answer::events(pieces).usage(model, input, 0));
    }
    let output = reply.tokens();
    let answer = json!({
        "output": style.output(reply.text(), finish(&reply)),
        "usage": usage(input, output),
        "request_id": call.request_id,
    });
    Ok(Answer::json(&answer).usage(model, input, output))
}

fn finish(reply: &Reply) -> &'static str {
    if reply.truncated() { "length" } else { "stop" }
}

fn usage(input: u64, output: u64) -> Value {
    json!({"input_tokens": input, "output_tokens": output, "total_tokens": input + output})
}

/// Usage counts up from chunk to chunk.
fn stream(
    style: Style,
    reply: Reply,
    chunks: Option<usize>,
    input: u64,
    request_id: String,
) -> impl Iterator<Item = Piece> + Send {
    let finish = finish(&reply);
    let whole = reply.text().to_owned();
    let (mut said, mut spent, mut id) = (0, 0, 0);
    let mut event = move |length: usize, new: u64, finish: &str| {
        let from = if style.incremental { said } else { 0 };
        said += length;
        spent += new;
        id += 1;
        let data = json!({
            "output": style.output(&whole[from..said], finish),
            "usage": usage(input, spent),
            "request_id": request_id,
        });
        Bytes::from(format!("id:{id}\nevent:result\n:HTTP_STATUS/200\ndata:{data}\n\n"))
    };
    // `None` is the closing event: no text, and the finish reason.
    reply.into_chunks(chunks).map(Some).chain(once(None)).map(move |chunk| match chunk {
        Some((text, tokens)) => Piece::content(event(text.len(), tokens, "null"), tokens),
        None => Piece::framing(event(0, 0, finish)),
    })
}

/// `POST /api/v1/tokens`: a temporary key. The sandbox itself does not accept it: it is there so
/// that a relay can be seen to keep such keys away from callers.
pub(crate) fn token(call: &Call<'_>) -> Answer {
    let seconds = call
        .head
        .uri
        .query()
        .and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("expire_in_seconds=")))
        .and_then(|seconds| seconds.parse::<u64>().ok())
        .unwrap_or(60)
        .clamp(1, 1800);
    Answer::json(&json!({
        "token": call.state.ids.with_prefix("st-"),
        "expires_at": unix_now() + seconds,
    }))
}
