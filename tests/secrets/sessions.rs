//! Sessions that begin with a secret.

use aiproxy_testkit::ws::{closing, opcode};
use aiproxy_testkit::{CHANNEL_KEY, RawUpstream};
use serde_json::{Value, json};

use super::{MODEL, PAGE, claims, minted, ours, sealed, session};
use crate::sockets::echoing;

#[tokio::test]
async fn it_stands_wherever_a_proxy_key_may_stand() {
    let upstream = echoing().await;
    let app = ours(&upstream).start().await;
    let value = minted(&app, &session(MODEL)).await;
    for (index, (target, given, protocols)) in [
        ("/v1/realtime?model=gpt-realtime", "bearer", None),
        ("/v1/realtime", "bearer", None),
        ("/v1/realtime?a=b", "none", Some(format!("realtime, openai-insecure-api-key.{value}"))),
        ("/v1/realtime", "api-key", None),
        ("/v1/realtime", "query", None),
        ("/@main/v1/realtime", "bearer", None),
    ]
    .into_iter()
    .enumerate()
    {
        let key = if given == "query" { format!("{target}?key={value}") } else { target.to_owned() };
        let mut opening = app.socket(&key);
        opening = match given {
            "bearer" => opening.key(&value),
            "api-key" => opening.no_key().header("api-key", &value),
            _ => opening.no_key(),
        };
        if let Some(protocols) = &protocols {
            opening = opening.protocols(protocols).header("origin", PAGE);
        }
        let mut socket = opening.open().await;
        assert_eq!(socket.protocol().as_deref(), protocols.as_ref().map(|_| "realtime"));
        // Nothing that the caller has not said.
        socket.json(&json!({"type": "response.create"})).await;
        assert_eq!(socket.event().await, json!({"type": "response.create"}));
        socket.send(opcode::CLOSE, closing(1000, "")).await;
        socket.closed().await;
        let request = upstream.request(index).await;
        let expected = if target.contains("a=b") {
            "/v1/realtime?a=b&model=gpt%2Drealtime"
        } else {
            "/v1/realtime?model=gpt"
        };
        assert!(request.target().starts_with(expected), "{}", request.target());
        assert_eq!(request.header("authorization"), Some(format!("Bearer {CHANNEL_KEY}")));
        let id = socket.id();
        drop(socket);
        let line = app.logged("the line", |line| line["request_id"] == id.as_str()).await;
        assert_eq!(
            (&line["user"], &line["model"], &line["outcome"]),
            (&json!("user1"), &json!(MODEL), &json!("complete"))
        );
    }
    app.finish().await;
}

#[tokio::test]
async fn the_platform_hears_the_settings_before_any_word_of_the_caller() {
    let upstream = echoing().await;
    let app = ours(&upstream).start().await;
    let settings = json!({"type": "realtime", "model": MODEL, "instructions": "你好".repeat(500), "audio": {"output": {"voice": "alloy"}}});
    let value = minted(&app, &json!({"session": settings})).await;
    let said = json!({"type": "response.create"});
    let behind = aiproxy_testkit::ws::frame(opcode::TEXT, said.to_string(), true);
    let mut socket = app.socket("/v1/realtime").key(&value).behind(behind).open().await;
    let first = socket.event().await;
    let mut expected = settings;
    expected.as_object_mut().unwrap().remove("model");
    assert_eq!(first, json!({"type": "session.update", "session": expected}));
    assert_eq!(socket.event().await, said);
    socket.send(opcode::CLOSE, closing(1000, "")).await;
    socket.closed().await;
    let id = socket.id();
    drop(socket);
    let line = app.logged("the line", |line| line["request_id"] == id.as_str()).await;
    assert_eq!(line["frames_in"], 2, "the caller's alone: {line}");
    app.finish().await;
}

#[tokio::test]
async fn a_transcription_says_so_to_the_platform() {
    let upstream = echoing().await;
    let app = ours(&upstream).start().await;
    let audio = json!({"input": {"transcription": {"model": "gpt-4o-transcribe"}}});
    let value = minted(&app, &json!({"session": {"type": "transcription", "audio": audio}})).await;
    for (index, target) in ["/v1/realtime", "/v1/realtime?intent=transcription"].into_iter().enumerate() {
        let mut socket = app.socket(target).key(&value).open().await;
        let session = json!({"type": "transcription", "audio": audio});
        assert_eq!(socket.event().await, json!({"type": "session.update", "session": session}));
        assert_eq!(upstream.request(index).await.target(), "/v1/realtime?intent=transcription");
    }
    app.finish().await;
}

#[tokio::test]
async fn another_model_in_a_message_ends_the_socket() {
    let upstream = echoing().await;
    let mut app = ours(&upstream).start().await;
    let value = minted(&app, &session(MODEL)).await;
    let mut socket = app.socket("/v1/realtime").key(&value).open().await;
    let same = json!({"type": "session.update", "session": {"model": MODEL}});
    socket.json(&same).await;
    assert_eq!(socket.event().await, same);
    // SDKs have what the caller says written down by a model that they choose.
    let aside = json!({"type": "session.update", "session": {"audio": {"input": {"transcription": {"model": "gpt-4o-mini-transcribe"}}}}});
    socket.json(&aside).await;
    assert_eq!(socket.event().await, aside);
    socket.json(&json!({"type": "session.update", "session": {"model": "o3"}})).await;
    assert_eq!(socket.closed().await, (4403, "model_not_allowed".to_owned()));
    // The key's own rules hold for it, and a transcription has no other model.
    assert!(app.change(|c| c["users"]["user1"]["models"] = json!(["gpt-realtime", "whisper-1"])).await);
    let audio = json!({"input": {"transcription": {"model": "whisper-1"}}});
    let transcription = minted(&app, &json!({"session": {"type": "transcription", "audio": audio}})).await;
    for value in [&value, &transcription] {
        let mut socket = app.socket("/v1/realtime").key(value).open().await;
        socket.json(&aside).await;
        assert_eq!(socket.closed().await, (4403, "model_not_allowed".to_owned()));
    }
    app.finish().await;
}

#[tokio::test]
async fn a_secret_for_one_session_begins_one_even_of_many_at_once() {
    let upstream = echoing().await;
    let app = ours(&upstream).start().await;
    let body = json!({"session": {"model": MODEL}, "aiproxy": {"single_use": true}});
    let value = minted(&app, &body).await;
    // What is refused by AIProxy itself uses nothing up.
    assert_eq!(app.socket("/v1/realtime?model=o3").key(&value).refusal().await.1, "secret_model");
    let asked = (0..6).map(|_| tokio::spawn(app.socket("/v1/realtime").key(&value).status()));
    let mut statuses = Vec::new();
    for asked in asked.collect::<Vec<_>>() {
        statuses.push(asked.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [101, 403, 403, 403, 403, 403]);
    assert_eq!(app.socket("/v1/realtime").key(&value).refusal().await, (403, "secret_used".into()));
    assert_eq!(upstream.connections(), 1);
    app.finish().await;
}

#[tokio::test]
async fn an_offer_is_made_with_its_model_and_its_settings() {
    let answer = "HTTP/1.1 418 I'm a teapot\r\ncontent-length: 2\r\n\r\n{}";
    let upstream = RawUpstream::answering(answer).await;
    let media = |config: &mut Value| config["system"]["listen"]["media"] = json!("127.0.0.1:0");
    let app = ours(&upstream).config(media).start().await;
    let mut claims = claims();
    claims.settings = json!({"instructions": "说中文"}).as_object().cloned();
    let value = sealed(&app, &claims);
    let sdp = include_str!("../../relay/src/tests/chromium.sdp");
    let offer = |target: &str, kind: &str, body: String| {
        app.ask("POST", target).key(&value).header("content-type", kind).header("origin", PAGE).body(body)
    };
    let in_parts = |session: &str| {
        format!(
            "--b\r\nContent-Disposition: form-data; name=\"session\"\r\n\r\n{session}\r\n--b\r\nContent-Disposition: form-data; name=\"sdp\"\r\n\r\n{sdp}\r\n--b--\r\n"
        )
    };
    let form = "multipart/form-data; boundary=b";
    let own = r#"{"audio":{"output":{"voice":"marin"}}}"#;
    for (index, (kind, body)) in
        [("application/sdp", sdp.to_owned()), (form, in_parts(own))].into_iter().enumerate()
    {
        let answer = offer("/v1/realtime/calls", kind, body).send().await;
        assert_eq!(answer.status.as_u16(), 418);
        assert!(answer.header("access-control-expose-headers").unwrap().contains("Location"));
        let asked = upstream.request(index).await;
        assert_eq!(asked.target(), "/v1/realtime/calls");
        let body = String::from_utf8_lossy(&asked.body).into_owned();
        for part in
            [r#""instructions":"说中文""#, r#""model":"gpt-realtime""#, r#""type":"realtime""#, "v=0\r\n"]
        {
            assert!(body.contains(part), "{part} is not in {body}");
        }
        assert_eq!(body.contains("marin"), kind == form);
        // The offer is ours.
        assert!(!body.contains("EsAw") && !body.contains("203.0.113.5"), "{body}");
    }
    for (target, kind, body) in [
        ("/v1/realtime/calls?model=o3", "application/sdp", sdp.to_owned()),
        ("/v1/realtime/calls", form, in_parts(r#"{"model":"o3"}"#)),
        ("/v1/realtime/calls", form, in_parts(r#"{"model":"gpt-realtime","Model":"o3"}"#)),
    ] {
        let mut answer = offer(target, kind, body).send().await;
        assert_eq!(answer.json().await["error"]["code"], "secret_model", "{target} {kind}");
    }
    let other = in_parts(r#"{"type":"transcription"}"#);
    for (target, kind, body, code) in [
        ("/v1/realtime/calls", form, other, "secret_scope"),
        ("/v1/realtime", "application/sdp", sdp.to_owned(), "bad_request"),
    ] {
        let mut answer = offer(target, kind, body).send().await;
        assert_eq!(answer.json().await["error"]["code"], code, "{target}");
    }
    // What was refused never got there. (Each thread of the relay has connections of its own.)
    assert_eq!(upstream.received().len(), 2);
    // Browsers ask in advance.
    let preflight = app
        .ask("OPTIONS", "/v1/realtime/calls")
        .no_key()
        .header("origin", PAGE)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type,x-openai-agents-sdk")
        .send()
        .await;
    assert_eq!(preflight.status, 204);
    assert_eq!(
        preflight.header("access-control-allow-headers"),
        Some("authorization,content-type,x-openai-agents-sdk")
    );
    app.finish().await;
}
