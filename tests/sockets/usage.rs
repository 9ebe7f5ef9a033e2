//! What is recorded of sockets, and which models they may ask for.

use aiproxy_testkit::ws::{closing, frame, opcode, part};
use aiproxy_testkit::{App, RawUpstream, until};
use serde_json::{Value, json};

use super::REALTIME;
use crate::relay;

/// A platform that says all this and closes when the caller says anything.
async fn saying(messages: Vec<Value>) -> RawUpstream {
    RawUpstream::start(move |mut conn| {
        let messages = messages.clone();
        async move {
            let mut bytes = Vec::new();
            for message in &messages {
                // In two frames, the first one short: what is read has to follow that.
                let text = message.to_string();
                let (begin, rest) = text.split_at(7);
                bytes.extend(part(opcode::TEXT, begin, false));
                bytes.extend(frame(opcode::PING, "", false));
                bytes.extend(part(0x80, rest, false));
            }
            conn.accept("", bytes).await;
            while let Some(next) = conn.frame().await {
                if next.opcode == opcode::TEXT {
                    conn.send(frame(opcode::CLOSE, closing(1000, ""), false)).await;
                } else if next.opcode == opcode::CLOSE {
                    break;
                }
            }
        }
    })
    .await
}

/// The line of a socket that a platform closed after it had said all this.
async fn line(target: &str, messages: Vec<Value>) -> Value {
    let count = messages.len() * 3;
    let upstream = saying(messages).await;
    let app = relay()
        .upstream(&upstream)
        .config(|c| {
            c["channels"]["main"]["prices"] =
                json!({"currency": "USD", "models": {"gpt-realtime*": {"input": 4.0, "output": 16.0}}});
        })
        .start()
        .await;
    let mut socket = app.socket(target).open().await;
    for _ in 0..count {
        socket.next().await.expect("a frame");
    }
    socket.send(opcode::TEXT, "done").await;
    assert_eq!(socket.closed().await.0, 1000);
    socket.send(opcode::CLOSE, closing(1000, "")).await;
    let line = app.logged("the line", |line| line["status"] == 101).await;
    app.finish().await;
    line
}

fn done(input: u64, output: u64) -> Value {
    json!({"type": "response.done", "response": {"status": "completed", "usage": {
        "total_tokens": input + output, "input_tokens": input, "output_tokens": output,
        "input_token_details": {"audio_tokens": input / 2, "cached_tokens": 1},
        "output_token_details": {"audio_tokens": output / 2}}}})
}

#[tokio::test]
async fn a_realtime_session_is_one_record_with_all_its_responses() {
    let line = line(
        REALTIME,
        vec![
            json!({"type": "session.created", "session": {"model": "gpt-realtime-2025-08-28"}}),
            done(10, 20),
            json!({"type": "conversation.item.input_audio_transcription.completed",
                "usage": {"type": "tokens", "total_tokens": 5, "input_tokens": 3, "output_tokens": 2}}),
            done(30, 40),
        ],
    )
    .await;
    assert_eq!((&line["protocol"], &line["method"]), (&json!("websocket"), &json!("GET")));
    assert_eq!((&line["endpoint"], &line["model"]), (&json!("/v1/realtime"), &json!("gpt-realtime")));
    assert_eq!(line["model_served"], "gpt-realtime-2025-08-28");
    let usage = &line["usage"];
    assert_eq!((&usage["input"], &usage["output"]), (&json!(43), &json!(62)), "{line}");
    assert_eq!((&usage["audio_input"], &usage["audio_output"]), (&json!(20), &json!(30)));
    assert_eq!((&usage["cached"], &usage["estimated"]), (&json!(2), &json!(false)));
    assert!(line["cost"].as_f64().unwrap() > 0.0);
    assert_eq!((&line["frames_out"], &line["close_code"]), (&json!(13), &json!(1000)));
    assert_eq!(line["frames_in"], 2);
    assert!(line["bytes_in"].as_u64().unwrap() >= 18 && line["bytes_out"].as_u64().unwrap() > 500);
    assert!(line["total_us"].as_u64().unwrap() >= line["first_byte_us"].as_u64().unwrap());
}

#[tokio::test]
async fn cumulative_seconds_tasks_and_responses_are_counted_once() {
    let live = line(
        "/v1/live/sessions",
        vec![
            json!({"type": "session.usage.updated", "usage": {"seconds": 15}}),
            json!({"type": "session.usage.updated", "usage": {"seconds": 40.5}}),
        ],
    )
    .await;
    assert_eq!(live["usage"]["seconds"], 40.5);
    let task = |event: &str, usage: Value| json!({"header": {"event": event}, "payload": {"usage": usage}});
    let tasks = line(
        "/api-ws/v1/inference",
        vec![
            task("result-generated", json!({"duration": 1})),
            task("result-generated", json!({"duration": 2})),
            task("task-finished", json!({"duration": 2})),
            task("result-generated", json!({"duration": 3})),
        ],
    )
    .await;
    assert_eq!(tasks["usage"]["seconds"], 5.0);
    let responses = line(
        "/v1/responses",
        vec![json!({"type": "response.completed", "response": {"model": "gpt-5", "usage": {
            "input_tokens": 7, "output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 4}}}})],
    )
    .await;
    assert_eq!((&responses["usage"]["input"], &responses["usage"]["reasoning"]), (&json!(7), &json!(4)));
}

async fn limited(upstream: &RawUpstream) -> App {
    relay()
        .upstream(upstream)
        .config(|c| c["users"]["user1"]["models"] = json!(["gpt-*", "qwen*"]))
        .start()
        .await
}

#[tokio::test]
async fn a_model_named_in_a_message_is_admitted_like_any_other() {
    let upstream = super::echoing().await;
    let app = limited(&upstream).await;
    for (target, fine, forbidden) in [
        (
            REALTIME,
            json!({"type": "session.update", "session": {"model": "gpt-realtime-mini"}}),
            json!({"type": "session.update", "session": {"audio": {"input": {"transcription": {"model": "whisper"}}}}}),
        ),
        (
            "/v1/responses",
            json!({"type": "response.create", "model": "gpt-5", "input": "hello"}),
            json!({"type": "response.create", "response": {"model": "o3"}, "padding": "x".repeat(200_000)}),
        ),
        (
            "/api-ws/v1/inference",
            json!({"header": {"action": "run-task"}, "payload": {"model": "qwen-tts", "input": {}}}),
            json!({"header": {"action": "run-task"}, "payload": {"model": "cosyvoice-v2", "input": {}}}),
        ),
        (REALTIME, json!({"Session": {"MODEL": "gpt-4o"}}), json!({"session": {"model": ["o3"]}})),
        (REALTIME, json!({"session": {"model": null}}), json!([{"model": "o3"}])),
        (REALTIME, json!({}), json!({"agent": {"think": {"provider": {"model": "o3"}}}})),
        (REALTIME, json!({}), json!("{'model':'o3'}")),
    ] {
        for pieces in [1, 3] {
            let mut socket = app.socket(target).open().await;
            socket.json(&fine).await;
            assert_eq!(socket.event().await, fine);
            let opened = upstream.connections() - 1;
            let text = forbidden.to_string();
            let size = text.len().div_ceil(pieces);
            let chunks: Vec<_> = text.as_bytes().chunks(size).collect();
            for (index, chunk) in chunks.iter().enumerate() {
                let first = if index == 0 { opcode::TEXT } else { 0 };
                let last = if index + 1 == chunks.len() { 0x80 } else { 0 };
                socket.bytes(part(first | last, chunk, true)).await;
            }
            assert_eq!(socket.closed().await, (4403, "model_not_allowed".to_owned()), "{target}");
            let line = app.logged("the line", |line| line["request_id"] == socket.id().as_str()).await;
            assert_eq!((&line["error"], &line["outcome"]), (&json!("model_not_allowed"), &json!("refused")));
            assert_eq!(line["error_class"], "permission");
            drop(socket);
            // The platform never had the message whole.
            until("the platform's script at its end", || (upstream.ended() > opened).then_some(())).await;
        }
    }
    app.finish().await;
}

#[tokio::test]
async fn a_model_that_is_named_late_is_recorded() {
    let upstream = super::echoing().await;
    let app = relay().upstream(&upstream).start().await;
    let mut socket = app.socket("/v1/responses").open().await;
    let create = json!({"type": "response.create", "model": "gpt-5", "input": "hello"});
    socket.json(&create).await;
    assert_eq!(socket.event().await, create);
    socket.send(opcode::CLOSE, closing(1000, "")).await;
    socket.closed().await;
    let line = app.logged("the line", |line| line["status"] == 101).await;
    assert_eq!((&line["model"], &line["outcome"]), (&json!("gpt-5"), &json!("complete")));
    drop(socket);
    app.finish().await;
}
