//! Deepgram's live transcription, with keys where its own clients say them.

use aiproxy_testkit::ws::{closing, opcode};
use aiproxy_testkit::{App, PROXY_KEY, Socket};
use serde_json::{Value, json};

use crate::relay;

const LISTEN: &str =
    "/v1/listen?model=nova-3&encoding=linear16&sample_rate=16000&interim_results=true&keywords=%E4%BD%A0";

async fn app() -> App {
    relay()
        .config(|c| {
            c["channels"]["main"]["platform"] = "deepgram".into();
            c["channels"]["main"]["prices"] =
                json!({"currency": "USD", "models": {"nova-*": {"second": 0.0001}}});
        })
        .start()
        .await
}

/// Says three seconds of sound; the final results.
async fn dictate(socket: &mut Socket) -> Vec<Value> {
    for _ in 0..3 {
        socket.send(opcode::BINARY, vec![7; 32_000]).await;
        let heard = socket.event().await;
        assert_eq!((&heard["type"], &heard["is_final"]), (&json!("Results"), &json!(false)));
    }
    socket.json(&json!({"type": "KeepAlive"})).await;
    socket.json(&json!({"type": "Finalize"})).await;
    let first = socket.event().await;
    socket.send(opcode::BINARY, vec![7; 16_000]).await;
    assert_eq!(socket.event().await["is_final"], false);
    socket.json(&json!({"type": "CloseStream"})).await;
    vec![first, socket.event().await, socket.event().await]
}

#[tokio::test]
async fn a_stream_of_sound_is_recorded_with_its_seconds() {
    let app = app().await;
    let header = format!("Token {PROXY_KEY}");
    for (offer, chosen) in [
        (app.socket(LISTEN).no_key().protocols(&format!("token, {PROXY_KEY}")), Some("token")),
        (app.socket(LISTEN).no_key().protocols(&format!("bearer, {PROXY_KEY}")), Some("bearer")),
        (app.socket(LISTEN).no_key().header("authorization", &header), None),
    ] {
        let mut socket = offer.open().await;
        assert_eq!(socket.protocol().as_deref(), chosen);
        let results = dictate(&mut socket).await;
        let span = |event: &Value| (event["start"].as_f64(), event["duration"].as_f64());
        assert_eq!((span(&results[0]), &results[0]["from_finalize"]), ((Some(0.0), Some(3.0)), &json!(true)));
        assert_eq!(span(&results[1]), (Some(3.0), Some(0.5)));
        assert_eq!(results[0]["channel"]["alternatives"][0]["transcript"], "96000 bytes");
        assert_eq!((&results[2]["type"], &results[2]["duration"]), (&json!("Metadata"), &json!(3.5)));
        assert_eq!(socket.closed().await.0, 1000);
        socket.send(opcode::CLOSE, closing(1000, "")).await;

        let line = app.logged("the line", |line| line["request_id"] == socket.id().as_str()).await;
        assert_eq!((&line["usage"]["seconds"], &line["usage"]["estimated"]), (&json!(3.5), &json!(false)));
        assert_eq!((&line["model"], &line["endpoint"]), (&json!("nova-3"), &json!("/v1/listen")));
        assert_eq!((&line["close_code"], &line["outcome"]), (&json!(1000), &json!("complete")));
        assert!(line["cost"].as_f64().is_some_and(|cost| cost > 0.0), "{line}");
    }
    // The key went to the platform where the platform wants it, and only there.
    let seen = app.seen("a handshake", |seen| seen.path.starts_with("/v1/listen")).await;
    assert_eq!(seen.path, LISTEN);
    assert_eq!(seen.headers["authorization"], "<key>");
    assert!(!seen.headers.get("sec-websocket-protocol").is_some_and(|offer| offer.contains('<')), "{seen:?}");
    app.finish().await;
}

#[tokio::test]
async fn what_is_no_sound_ends_the_stream_and_no_account_means_no_report() {
    let app = app().await;
    let mut socket = app.socket(LISTEN).no_key().protocols(&format!("token, {PROXY_KEY}")).open().await;
    socket.send(opcode::BINARY, vec![7; 32_000]).await;
    assert_eq!(socket.event().await["type"], "Results");
    socket.json(&json!({"type": "Nonsense"})).await;
    let (code, reason) = socket.closed().await;
    assert_eq!((code, reason.starts_with("DATA-0000")), (1008, true), "{reason}");
    socket.send(opcode::CLOSE, closing(code, "")).await;
    let line = app.logged("the line", |line| line["status"] == 101).await;
    assert_eq!((&line["close_code"], &line["usage"]["seconds"]), (&json!(1008), &Value::Null), "{line}");
    app.finish().await;
}
