//! What `aiproxy usage sum` says is what the platform counted on its side.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aiproxy_testkit::{Ask, Client, PROXY_KEY, RawUpstream, until};
use serde_json::{Value, json};

use super::{row, sum};
use crate::{chat, chat_stream, relay};

const REQUESTS: usize = 10_000;
const CALLERS: usize = 16;
/// A key that may use one model only.
const LIMITED: &str = "pk_limited_8Hs0Jg7Kp2Md9Nf4";

/// Word by word the estimate of such a text is what the sandbox counts: four bytes a word, once the
/// odd ones at the beginning ("You said: ab") are even.
fn prompt(number: usize) -> String {
    format!("ab{}", " abc".repeat(number % 7))
}

fn anthropic(addr: SocketAddr, stream: bool, text: &str) -> Ask {
    let body = json!({"model": "claude-sandbox", "max_tokens": 50, "stream": stream,
                      "messages": [{"role": "user", "content": text}]});
    Ask::new(addr, PROXY_KEY, "POST", "/v1/messages").header("anthropic-version", "2023-06-01").json(&body)
}

fn dashscope(addr: SocketAddr, stream: bool, text: &str) -> Ask {
    let body = json!({"model": "qwen-plus", "input": {"messages": [{"role": "user", "content": text}]},
                      "parameters": {"result_format": "message", "incremental_output": stream}});
    let ask = Ask::new(addr, PROXY_KEY, "POST", "/api/v1/services/aigc/text-generation/generation");
    let ask = if stream { ask.header("x-dashscope-sse", "enable") } else { ask };
    ask.json(&body)
}

/// How a request is read.
enum Read {
    ToTheEnd,
    /// Until the first word is there; then the caller leaves.
    FirstWord,
    /// Until the platform breaks off.
    BreaksOff,
}

fn ask(addr: SocketAddr, number: usize) -> (Ask, Read, u16) {
    let text = prompt(number);
    let post = |path: &str, body: &Value| Ask::new(addr, PROXY_KEY, "POST", path).json(body);
    let chats = "/v1/chat/completions";
    let whole = |ask| (ask, Read::ToTheEnd, 200);
    match number % 20 {
        0..3 => whole(post(chats, &chat("gpt-4o", &text))),
        3..5 => whole(post(chats, &chat_stream("gpt-4o-mini", &text))),
        5 => {
            let mut body = chat_stream("gpt-4.1", &text);
            body["stream_options"] = json!({"include_usage": true});
            whole(post(chats, &body))
        }
        6 => whole(post("/v1/responses", &json!({"model": "gpt-5-mini", "input": text}))),
        7 => whole(post("/v1/responses", &json!({"model": "gpt-5-mini", "input": text, "stream": true}))),
        8 => {
            whole(post("/v1/embeddings", &json!({"model": "text-embedding-3-small", "input": [text, "abc"]})))
        }
        9 => whole(anthropic(addr, false, &text)),
        10 => whole(anthropic(addr, true, &text)),
        11 => whole(dashscope(addr, false, &text)),
        12 => whole(dashscope(addr, true, &text)),
        // Tried at the channel that is always busy first.
        13 => whole(post(chats, &chat("gpt-5", &text))),
        14 => whole(post(chats, &chat_stream("gpt-5", &text))),
        15 => (post(chats, &chat_stream("o4-mini", &text)).sandbox("hold=never"), Read::FirstWord, 200),
        16 => (dashscope(addr, true, &text).sandbox("hold=never"), Read::FirstWord, 200),
        17 => (
            post(chats, &chat_stream("gpt-4.1-mini", "ab abc abc abc")).sandbox("cut=5"),
            Read::BreaksOff,
            200,
        ),
        18 => (post(chats, &chat("gpt-4o", &text)).key(LIMITED), Read::ToTheEnd, 403),
        // Refused by the platform, which counts it without tokens.
        _ => (post(chats, &chat("no-such-model", &text)), Read::ToTheEnd, 404),
    }
}

async fn keep_asking(addr: SocketAddr, next: Arc<AtomicUsize>) {
    let mut client = Client::connect(addr).await;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= REQUESTS {
            return;
        }
        let (ask, read, status) = ask(addr, number);
        let mut answer = client.send(ask).await;
        assert_eq!(answer.status, status, "request {number}");
        match read {
            Read::ToTheEnd => drop(answer.bytes().await),
            Read::BreaksOff => {
                assert!(answer.try_bytes().await.is_err());
                client = Client::connect(addr).await;
            }
            Read::FirstWord => {
                let mut text = String::new();
                while !text.contains("You") {
                    text += std::str::from_utf8(&answer.piece().await.unwrap().unwrap()).unwrap();
                }
                client = Client::connect(addr).await;
            }
        }
    }
}

#[tokio::test]
async fn the_sums_are_what_the_platform_counted() {
    let busy = RawUpstream::answering(
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: 0\r\ncontent-length: 2\r\n\r\n{}",
    )
    .await;
    let app = relay()
        .also("busy", busy.addr())
        .config(|c| {
            c["channels"]["busy"] = json!({"platform": "custom", "base_url": "@busy", "models": ["gpt-5"],
                "api_key": "sk-busy-0123456789abcdef", "breaker": {"failures": 1_000_000, "error_rate": 1.0, "min_requests": 1_000_000}});
            c["users"]["user1"]["channels"] = json!(["busy", "main"]);
            c["users"]["limited"] = json!({"name": "李四", "proxy_key": LIMITED, "channels": ["main"], "models": ["qwen*"]});
            c["system"]["log_level"] = "info".into();
            c["system"]["log"]["access"] = "access.log".into();
        })
        .start()
        .await;
    let next = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> =
        (0..CALLERS).map(|_| tokio::spawn(keep_asking(app.addr(), Arc::clone(&next)))).collect();
    for caller in callers {
        caller.await.unwrap();
    }
    until("every request being recorded", || {
        let text = std::fs::read_to_string(app.dir().join("access.log")).ok()?;
        (text.lines().count() == REQUESTS).then_some(())
    })
    .await;

    let counted = app.sandbox().counters();
    let outcomes = sum(&app, "outcome", &[]).await;
    assert_eq!(outcomes["total"]["requests"], REQUESTS);
    let share = REQUESTS / 20;
    assert_eq!(row(&outcomes, "outcome", "refused")["requests"], share);
    assert_eq!(row(&outcomes, "outcome", "caller_left")["requests"], 2 * share);
    assert_eq!(row(&outcomes, "outcome", "upstream_failed")["requests"], share);
    let passed_over = busy.received().len() as u64;
    assert!(passed_over > 0);
    assert_eq!(outcomes["total"]["attempts"].as_u64().unwrap(), counted.requests + passed_over);

    let main = sum(&app, "model", &["--channel", "main"]).await;
    let total = &main["total"];
    assert_eq!(total["requests"], counted.requests);
    assert_eq!(total["tokens"]["input"], counted.tokens.input);
    assert_eq!(total["tokens"]["output"], counted.tokens.output);
    for (model, tokens) in &counted.by_model {
        let row = row(&main, "model", model);
        assert_eq!(row["tokens"]["input"], tokens.input, "{model}");
        assert_eq!(row["tokens"]["output"], tokens.output, "{model}");
    }
    // Of what broke off, what was seen was counted, and is marked. DashScope says it with each event.
    assert_eq!(row(&main, "model", "o4-mini")["estimated"], share);
    assert_eq!(row(&main, "model", "gpt-4.1-mini")["estimated"], share);
    let endpoints = sum(&app, "endpoint", &[]).await;
    assert_eq!(row(&endpoints, "endpoint", "/v1/embeddings")["requests"], share);
    assert_eq!(row(&sum(&app, "user", &[]).await, "user", "limited")["requests"], share);
    app.finish().await;
}
