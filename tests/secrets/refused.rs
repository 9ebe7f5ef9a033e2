//! What a secret is not for.

use aiproxy_secrets::{Claims, Kind};
use aiproxy_testkit::{App, PROXY_KEY, RawUpstream};
use serde_json::{Value, json};

use super::{MINT, MODEL, PAGE, claims, minted, ours, sealed, sealed_with, session};
use crate::chat;

const OTHER_KEY: &str = "pk_other_5Gd8Ws2Kx9Lm3";

async fn refusal(app: &App, value: &str, target: &str, origin: Option<&str>) -> (u16, String) {
    let opening = app.socket(target).key(value);
    let opening = origin.into_iter().fold(opening, |opening, origin| opening.header("origin", origin));
    opening.refusal().await
}

#[tokio::test]
async fn what_does_not_open_or_is_over_is_told_apart() {
    let upstream = RawUpstream::recording().await;
    let app = ours(&upstream)
        .config(|c| {
            c["users"]["other"] = json!({"proxy_key": OTHER_KEY, "channels": ["main"]});
        })
        .start()
        .await;
    let value = minted(&app, &session(MODEL)).await;
    let now = claims().issued;
    let mut changed = value.clone().into_bytes();
    let at = changed.len() / 2;
    changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
    for (value, status, code) in [
        (String::from_utf8(changed).unwrap(), 401, "invalid_secret"),
        (value[..value.len() - 4].to_owned(), 401, "invalid_secret"),
        ("ek_".to_owned(), 401, "invalid_secret"),
        ("ek_68b0f1c2d3e4".to_owned(), 401, "invalid_secret"),
        (sealed_with(&app, &claims(), "another-key-of-another-installation-1"), 401, "invalid_secret"),
        (sealed(&app, &Claims { expires: now, ..claims() }), 403, "secret_expired"),
        (sealed(&app, &Claims { user: "other".into(), ..claims() }), 403, "secret_orphaned"),
        (sealed(&app, &Claims { user: "nobody".into(), ..claims() }), 403, "secret_orphaned"),
        (
            sealed(&app, &Claims { parent: aiproxy_core::KeyDigest::of(b"pk_before"), ..claims() }),
            403,
            "secret_orphaned",
        ),
        (sealed(&app, &Claims { channel: "gone".into(), ..claims() }), 403, "channel_not_allowed"),
    ] {
        assert_eq!(refusal(&app, &value, "/v1/realtime", None).await, (status, code.to_owned()));
    }
    // A bad secret does not tell whether the path exists.
    let mut answer = app.get("/v1/models").key("ek_68b0f1c2d3e4").send().await;
    assert_eq!(answer.json().await["error"]["code"], "invalid_secret");
    assert_eq!(upstream.connections(), 0);
    app.finish().await;
}

#[tokio::test]
async fn it_begins_sessions_and_does_nothing_else() {
    let upstream = RawUpstream::recording().await;
    let app = ours(&upstream).start().await;
    let value = minted(&app, &session(MODEL)).await;
    for (method, target, body) in [
        ("POST", "/v1/chat/completions", chat(MODEL, "x")),
        ("GET", "/v1/models", Value::Null),
        ("GET", "/v1/realtime", Value::Null),
        ("POST", MINT, session(MODEL)),
        ("POST", "/aiproxy/v1/client_secrets", session(MODEL)),
        ("POST", "/v1/realtime/calls/rtc_1/hangup", Value::Null),
        ("POST", "/v1/realtime/calls/rtc_1/refer", Value::Null),
        ("POST", "/v1/files", json!({})),
        ("GET", "/", Value::Null),
    ] {
        let mut answer = app.ask(method, target).key(&value).json(&body).send().await;
        let said = answer.json().await;
        assert_eq!(
            (answer.status.as_u16(), &said["error"]["code"]),
            (403, &json!("secret_scope")),
            "{method} {target}"
        );
        assert_eq!(answer.header("x-should-retry"), Some("false"));
    }
    for target in [
        "/v1/realtime?call_id=rtc_1",
        "/v1/realtime?intent=transcription",
        "/v1/responses",
        "/v1/realtime/translations",
    ] {
        assert_eq!(refusal(&app, &value, target, None).await, (403, "secret_scope".into()), "{target}");
    }
    let line = app.logged("the line", |line| line["error"] == "secret_scope").await;
    assert_eq!(line["user"], "user1");
    // Two keys are two keys.
    let opening = app.socket("/v1/realtime").key(&value).header("api-key", PROXY_KEY);
    assert_eq!(opening.refusal().await, (401, "conflicting_keys".into()));
    assert_eq!(upstream.connections(), 0);
    app.finish().await;
}

#[tokio::test]
async fn kinds_are_not_mixed() {
    let upstream = RawUpstream::recording().await;
    let app = ours(&upstream).start().await;
    let translation = sealed(&app, &Claims { kind: Kind::Translation, ..claims() });
    assert_eq!(refusal(&app, &translation, "/v1/realtime", None).await, (403, "secret_scope".into()));
    let answer = app.socket("/v1/realtime").key(&translation).refused().await;
    let said: Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(said["error"]["message"].as_str().unwrap().contains("'translation'"), "{said}");
    app.finish().await;
}

#[tokio::test]
async fn another_model_and_another_channel_are_refused() {
    let upstream = RawUpstream::recording().await;
    let app = ours(&upstream)
        .config(|c| {
            c["channels"]["second"] = json!({"platform": "openai", "api_key": "sk-second-8Yt3Nq6Bm1Zc"});
            c["users"]["user1"]["channels"] = json!(["main", "second"]);
        })
        .start()
        .await;
    let value = minted(&app, &session(MODEL)).await;
    for (target, code) in [
        ("/v1/realtime?model=o3", "secret_model"),
        ("/v1/realtime?model=gpt-realtime&model=o3", "secret_model"),
        ("/v1/realtime?MODEL=o3", "secret_model"),
        ("/v1/realtime?model=gpt-*", "secret_model"),
        ("/@second/v1/realtime", "secret_channel"),
        ("/@none/v1/realtime", "secret_channel"),
    ] {
        assert_eq!(refusal(&app, &value, target, None).await, (403, code.into()), "{target}");
    }
    let opening = app.socket("/v1/realtime").key(&value).header("x-aiproxy-channel", "second");
    assert_eq!(opening.refusal().await, (403, "secret_channel".into()));
    assert_eq!(upstream.connections(), 0);
    app.finish().await;
}

#[tokio::test]
async fn only_pages_of_its_origins_may_use_it() {
    let upstream = crate::sockets::echoing().await;
    let app = ours(&upstream).start().await;
    let body = json!({"session": {"model": MODEL}, "aiproxy": {"origins": [PAGE]}});
    let value = minted(&app, &body).await;
    let refused = (403, "secret_origin_not_allowed".to_owned());
    assert_eq!(refusal(&app, &value, "/v1/realtime", Some("https://other.example")).await, refused);
    assert_eq!(refusal(&app, &value, "/v1/realtime", None).await, refused, "a program has no origin");
    // The installation's own list comes first.
    let foreign = refusal(&app, &value, "/v1/realtime", Some("https://evil.example")).await;
    assert_eq!(foreign, (403, "origin_not_allowed".into()));
    assert_eq!(upstream.connections(), 0);
    drop(app.socket("/v1/realtime").key(&value).header("origin", PAGE).open().await);
    app.finish().await;
}
