//! Minting: what is answered, and what is refused.

use aiproxy_testkit::{CHANNEL_KEY, PROXY_KEY, RawUpstream};
use serde_json::{Value, json};

use super::{MINT, MODEL, PAGE, minted, ours, session};
use crate::relay;

const SECOND_KEY: &str = "sk-second-8Yt3Nq6Bm1Zc";

#[tokio::test]
async fn the_answer_is_openai_s_and_no_platform_is_asked() {
    let upstream = RawUpstream::recording().await;
    let app = ours(&upstream).start().await;
    let before = super::claims().issued;
    let body = json!({
        "expires_after": {"anchor": "created_at", "seconds": 120},
        "session": {"type": "realtime", "model": MODEL, "instructions": "你好", "audio": {"output": {"voice": "alloy"}}},
        "aiproxy": {"origins": [PAGE], "single_use": true},
    });
    for (path, key) in [(MINT, None), ("/aiproxy/v1/client_secrets", None), (MINT, Some("api-key"))] {
        let mut ask = app.post(path, &body);
        if let Some(header) = key {
            ask = ask.no_key().header(header, PROXY_KEY);
        }
        let mut answer = ask.send().await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let said = answer.json().await;
        let value = said["value"].as_str().unwrap();
        assert!(value.starts_with("ek_") && !value.contains(PROXY_KEY), "{value}");
        app.hide_from_platform("a client secret", value);
        let expires = said["expires_at"].as_i64().unwrap();
        assert!((before + 120..=super::claims().issued + 120).contains(&expires), "{expires}");
        let session = &said["session"];
        assert_eq!((&session["type"], &session["object"]), (&json!("realtime"), &json!("realtime.session")));
        assert_eq!((&session["model"], &session["instructions"]), (&json!(MODEL), &json!("你好")));
        assert_eq!(session["audio"]["output"]["voice"], "alloy");
        assert!(session["id"].as_str().unwrap().starts_with("sess_"));
        let own = &said["aiproxy"];
        assert_eq!(
            (&own["channel"], &own["origins"], &own["single_use"]),
            (&json!("main"), &json!([PAGE]), &json!(true))
        );
        let line = app.logged("the line", |line| line["endpoint"] == path && line["status"] == 200).await;
        assert_eq!(
            (&line["user"], &line["channel"], &line["model"]),
            (&json!("user1"), &json!("main"), &json!(MODEL))
        );
        assert!(line["usage"].is_null(), "{line}");
    }
    assert_eq!(upstream.connections(), 0);
    app.finish().await;
}

#[tokio::test]
async fn kinds_of_sessions_have_their_shapes() {
    let upstream = RawUpstream::recording().await;
    let app = ours(&upstream).start().await;
    let audio = json!({"input": {"transcription": {"model": "gpt-4o-transcribe"}}});
    let body = json!({"session": {"type": "transcription", "audio": audio}});
    let said = app.post(MINT, &body).send().await.json().await;
    assert_eq!(
        (&said["session"]["object"], &said["session"]["audio"]),
        (&json!("realtime.transcription_session"), &audio)
    );
    assert_eq!(said["session"]["model"], Value::Null);
    let body =
        json!({"session": {"model": "gpt-realtime-translate", "audio": {"output": {"language": "zh"}}}});
    let said = app.post("/v1/realtime/translations/client_secrets", &body).send().await.json().await;
    assert_eq!(
        (&said["session"]["type"], &said["session"]["model"]),
        (&json!("translation"), &json!("gpt-realtime-translate"))
    );
    assert_eq!(said["session"]["expires_at"], said["expires_at"]);
    app.finish().await;
}

#[tokio::test]
async fn what_is_wrong_is_said_with_its_place() {
    let upstream = RawUpstream::recording().await;
    let app = ours(&upstream)
        .config(|c| {
            c["users"]["user1"]["models"] = json!(["gpt-*"]);
            c["channels"]["other"] = json!({"platform": "openai", "api_key": SECOND_KEY});
            c["system"]["client_secrets"]["max_ttl"] = "1m".into();
        })
        .start()
        .await;
    let own = |own: Value| json!({"session": {"model": MODEL}, "aiproxy": own});
    for (body, status, code, message) in [
        (
            json!({"session": {"model": MODEL}, "expires_after": {"seconds": 61}}),
            400,
            "bad_request",
            "expires_after.seconds: ",
        ),
        (
            json!({"session": {"type": "realtime"}}),
            400,
            "bad_request",
            "session.model: name the model; no channel",
        ),
        (json!({"session": {"model": MODEL}, "ttl": 5}), 400, "bad_request", "ttl: not known"),
        (
            json!({"session": {"model": MODEL, "instructions": "x".repeat(17_000)}}),
            400,
            "bad_request",
            "session: the settings",
        ),
        (
            json!({"session": {"model": MODEL, "instructions": "x".repeat(70_000)}}),
            413,
            "body_too_large",
            "The body",
        ),
        (
            json!({"session": {"model": MODEL, "audio": {"input": {"transcription": {"model": "whisper-1"}}}}}),
            403,
            "model_not_allowed",
            "This Proxy-Key may not use the model 'whisper-1'.",
        ),
        (session("o3"), 403, "model_not_allowed", ""),
        (own(json!({"channel": "other"})), 403, "channel_not_allowed", ""),
        (own(json!({"channel": "none"})), 403, "channel_not_allowed", ""),
        (own(json!({"origins": ["app.example"]})), 400, "bad_request", "aiproxy.origins[0]: "),
    ] {
        let mut answer = app.post(MINT, &body).send().await;
        let said = answer.json().await;
        assert_eq!((answer.status.as_u16(), &said["error"]["code"]), (status, &json!(code)), "{body}");
        assert!(said["error"]["message"].as_str().unwrap().starts_with(message), "{said}");
    }
    let answer = app.ask("POST", MINT).body("{").send().await.json().await;
    assert!(answer["error"]["message"].as_str().unwrap().starts_with("The body is no JSON: "), "{answer}");
    let answer = app.ask("POST", MINT).header("content-encoding", "gzip").body("x").send().await;
    assert_eq!(answer.status, 400);
    let mut answer = app.post(MINT, &session(MODEL)).key("pk_unknown_1234567890").send().await;
    assert_eq!((answer.status.as_u16(), &answer.json().await["error"]["code"]), (401, &json!("invalid_key")));
    // Only minting is answered: what a platform would do on such a path stays forbidden.
    for (method, path) in
        [("GET", MINT), ("POST", "/v1/realtime/client_secrets/x"), ("POST", "/v1/realtime/sessions")]
    {
        let mut answer = app.ask(method, path).send().await;
        assert_eq!(answer.json().await["error"]["code"], "path_forbidden", "{method} {path}");
    }
    assert_eq!(upstream.connections(), 0);
    app.finish().await;
}

#[tokio::test]
async fn the_plan_chooses_the_channel_once_and_for_all() {
    let app = relay()
        .config(|c| {
            c["channels"] = json!({
                "a": {"platform": "openai", "api_key": CHANNEL_KEY, "models": ["gpt-realtime"]},
                "b": {"platform": "azure", "api_key": SECOND_KEY, "models": ["gpt-realtime", "mini"], "default_model": "mini"},
                "c": {"platform": "dashscope", "api_key": "sk-third-9Zu4Or7Cn2", "models": ["qwen-*"]},
                "off": {"platform": "openai", "api_key": "sk-fourth-0Av5Ps8Do3", "models": ["gpt-9"], "status": "disabled"},
            });
            c["users"]["user1"]["channels"] = json!(["a", "b", "c", "off"]);
        })
        .start()
        .await;
    let own = |channel: &str| json!({"session": {"model": MODEL}, "aiproxy": {"channel": channel}});
    let ours = "/aiproxy/v1/client_secrets";
    for (path, header, body, channel, model) in [
        (MINT, None, session(MODEL), "a", MODEL),
        (MINT, None, session("mini"), "b", "mini"),
        (MINT, None, own("b"), "b", MODEL),
        (MINT, Some("b"), session(MODEL), "b", MODEL),
        (MINT, Some("b"), own("b"), "b", MODEL),
        ("/@b/v1/realtime/client_secrets", None, session(MODEL), "b", MODEL),
        ("/openai/v1/realtime/client_secrets", None, session(MODEL), "b", MODEL),
        (MINT, None, json!({}), "b", "mini"),
        (ours, None, session("qwen-omni"), "c", "qwen-omni"),
        (ours, None, session(MODEL), "a", MODEL),
        ("/@c/aiproxy/v1/client_secrets", None, session("qwen-omni"), "c", "qwen-omni"),
    ] {
        let mut ask = app.post(path, &body);
        if let Some(header) = header {
            ask = ask.header("x-aiproxy-channel", header);
        }
        let said = ask.send().await.json().await;
        assert_eq!(
            (&said["aiproxy"]["channel"], &said["session"]["model"]),
            (&json!(channel), &json!(model)),
            "{path} {body}"
        );
    }
    let settings =
        json!({"session": {"model": "qwen-omni", "instructions": "x"}, "aiproxy": {"channel": "c"}});
    for (path, body, status, code) in [
        ("/@a/v1/realtime/client_secrets", own("b"), 400, "bad_request"),
        (ours, settings, 400, "bad_request"),
        (MINT, session("gpt-9"), 404, "no_channel"),
        ("/@off/v1/realtime/client_secrets", session("gpt-9"), 503, "channel_unavailable"),
        (MINT, session("claude-9"), 404, "no_channel"),
    ] {
        let mut answer = app.post(path, &body).send().await;
        let said = answer.json().await;
        assert_eq!(
            (answer.status.as_u16(), &said["error"]["code"]),
            (status, &json!(code)),
            "{path} {body}: {said}"
        );
    }
    app.finish().await;
}

#[tokio::test]
async fn a_key_has_so_many_at_one_time() {
    let upstream = RawUpstream::recording().await;
    let app = ours(&upstream)
        .config(|c| {
            c["system"]["client_secrets"]["max_per_key"] = 2.into();
            c["users"]["other"] = json!({"proxy_key": "pk_other_5Gd8Ws2Kx9Lm3", "channels": ["main"]});
        })
        .start()
        .await;
    minted(&app, &session(MODEL)).await;
    // What is refused does not count.
    app.post(MINT, &json!({"x": 1})).send().await;
    minted(&app, &session(MODEL)).await;
    let mut answer = app.post(MINT, &session(MODEL)).send().await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json().await["error"]["code"]),
        (429, &json!("secret_limit"))
    );
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=600).contains(&wait), "{wait}");
    let other = app.post(MINT, &session(MODEL)).key("pk_other_5Gd8Ws2Kx9Lm3").send().await;
    assert_eq!(other.status, 200);
    app.finish().await;
}

#[tokio::test]
async fn a_secret_has_to_fit_into_a_head() {
    let upstream = RawUpstream::recording().await;
    let app =
        ours(&upstream).config(|c| c["system"]["limits"] = json!({"header_bytes": "8KiB"})).start().await;
    let body = json!({"session": {"model": MODEL, "instructions": "x".repeat(5000)}});
    let said = app.post(MINT, &body).send().await.json().await;
    assert!(said["error"]["message"].as_str().unwrap().contains("limits.header_bytes"), "{said}");
    minted(&app, &json!({"session": {"model": MODEL, "instructions": "x".repeat(500)}})).await;
    app.finish().await;
}
