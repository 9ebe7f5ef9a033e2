//! The stand-in platform's sockets, as callers see them through the relay.

use aiproxy_testkit::ws::{closing, opcode};
use aiproxy_testkit::{App, Socket};
use serde_json::{Value, json};

use super::REALTIME;
use crate::relay;

async fn until(socket: &mut Socket, kind: &str) -> (Vec<Value>, Value) {
    let mut before = Vec::new();
    loop {
        let event = socket.event().await;
        if event["type"] == kind || event["header"]["event"] == kind {
            return (before, event);
        }
        before.push(event);
    }
}

async fn realtime(app: &App) {
    let mut socket = app.socket(REALTIME).open().await;
    assert_eq!(socket.event().await["type"], "session.created");
    socket.json(&json!({"type": "session.update", "session": {"instructions": "echo"}})).await;
    assert_eq!(socket.event().await["session"]["instructions"], "echo");
    socket
        .json(&json!({"type": "conversation.item.create", "item": {"type": "message", "role": "user",
        "content": [{"type": "input_text", "text": "one two three"}]}}))
        .await;
    // Sound of 1 MiB, in base64.
    let sound = "QUJD".repeat(350_000);
    socket.json(&json!({"type": "input_audio_buffer.append", "audio": sound})).await;
    socket.json(&json!({"type": "response.create"})).await;
    let (events, done) = until(&mut socket, "response.done").await;
    let of = |kind: &str| events.iter().filter(|event| event["type"] == kind).collect::<Vec<_>>();
    let said: String =
        of("response.output_text.delta").iter().filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(said, "one two three");
    assert_eq!(of("response.output_audio.delta")[0]["delta"].as_str(), Some(&*sound));
    let input = done["response"]["usage"]["input_tokens"].clone();
    socket.send(opcode::CLOSE, closing(1000, "")).await;
    assert_eq!(socket.closed().await.0, 1000);
    let line = app.logged("the line", |line| line["request_id"] == socket.id().as_str()).await;
    assert_eq!((&line["usage"]["input"], &line["outcome"]), (&input, &json!("complete")));
}

#[tokio::test]
async fn a_realtime_session_speaks_text_and_sound_both_ways() {
    let app = relay().start().await;
    realtime(&app).await;
    app.finish().await;
}

#[tokio::test]
async fn a_session_that_asks_for_the_beta_is_ended_by_the_platform_unless_it_is_stripped() {
    let app = relay().start().await;
    let mut socket = app.socket(REALTIME).header("openai-beta", "realtime=v1").open().await;
    assert_eq!(socket.event().await["error"]["code"], "beta_api_shape_disabled");
    assert_eq!(socket.closed().await, (4000, "beta_api_shape_disabled".to_owned()));
    drop(socket);
    app.finish().await;
    let app = relay().config(|c| c["channels"]["main"]["platform"] = "openai".into()).start().await;
    let mut socket = app
        .socket(REALTIME)
        .header("openai-beta", "realtime=v1")
        .protocols("realtime, openai-beta.realtime-v1")
        .open()
        .await;
    assert_eq!(socket.event().await["type"], "session.created");
    drop(socket);
    app.finish().await;
}

#[tokio::test]
async fn inference_tasks_follow_each_other_on_one_socket() {
    let app = relay()
        .config(|c| {
            c["channels"]["main"]["platform"] = "dashscope".into();
        })
        .start()
        .await;
    let mut socket = app.socket("/api-ws/v1/inference").open().await;
    let action = |action: &str, payload: Value| json!({"header": {"action": action, "task_id": "t1", "streaming": "duplex"}, "payload": payload});
    socket.json(&action("run-task", json!({"model": "cosyvoice-v2", "input": {}}))).await;
    until(&mut socket, "task-started").await;
    socket.json(&action("continue-task", json!({"input": {"text": "你好"}}))).await;
    let sound = socket.next().await.unwrap();
    assert_eq!((sound.opcode, sound.text()), (opcode::BINARY, "你好".to_owned()));
    socket.json(&action("finish-task", json!({"input": {}}))).await;
    until(&mut socket, "task-finished").await;
    socket.json(&action("run-task", json!({"model": "paraformer-realtime-v2", "input": {}}))).await;
    until(&mut socket, "task-started").await;
    for _ in 0..3 {
        socket.send(opcode::BINARY, [0; 3200]).await;
        until(&mut socket, "result-generated").await;
    }
    socket.json(&action("finish-task", json!({"input": {}}))).await;
    until(&mut socket, "task-finished").await;
    socket.send(opcode::CLOSE, closing(1000, "")).await;
    socket.closed().await;
    let line = app.logged("the line", |line| line["protocol"] == "websocket").await;
    assert_eq!((&line["usage"]["seconds"], &line["usage"]["characters"]), (&json!(3.0), &json!(2)));
    assert_eq!(line["model"], "cosyvoice-v2");
    app.finish().await;
}
