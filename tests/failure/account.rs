//! Errors about the channel's account are ours; all others are the platform's and pass untouched.

use aiproxy_testkit::{CHANNEL_KEY, PROXY_KEY, RawUpstream};
use serde_json::json;

use crate::{chat, relay};

#[tokio::test]
async fn a_channel_key_that_the_platform_refuses_is_not_the_callers_fault() {
    // The sandbox does not know this key, and shows a part of it in its refusal.
    let wrong = "sk-wrongZ9y8X7w6V5u4T3";
    let app = relay().config(|c| c["channels"]["main"]["api_key"] = wrong.into()).start().await;
    let mut answer = app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send().await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    let body = answer.json().await;
    assert_eq!(body["error"]["code"], "channel_key_rejected");
    let text = body.to_string();
    assert!(
        !text.contains("sk-wr") && !text.contains("Incorrect") && !text.contains("platform.openai.com"),
        "{text}"
    );
    assert!(!app.sandbox().requests()[0].authorized);
    let line = app.logged("the line", |line| line["error"] == "channel_key_rejected").await;
    assert_eq!((&line["status"], &line["channel"]), (&json!(502), &json!("main")));
    app.finish().await;
}

#[tokio::test]
async fn errors_about_the_account_are_told_apart_by_platform() {
    for (platform, path, scenario) in [
        ("openai", "/v1/chat/completions", "status=401"),
        ("openai", "/v1/chat/completions", "status=401;code=invalid_api_key"),
        ("openai", "/v1/chat/completions", "status=429;code=insufficient_quota"),
        ("openai", "/v1/chat/completions", "status=403;code=account_deactivated"),
        ("custom", "/v1/chat/completions", "status=429;code=insufficient_quota"),
        ("dashscope", "/v1/chat/completions", "status=400;code=Arrearage"),
        ("dashscope", "/api/v1/services/aigc/text-generation/generation", "status=403;code=Arrearage"),
        ("dashscope", "/api/v1/services/aigc/text-generation/generation", "status=401"),
    ] {
        let app = relay().config(|c| c["channels"]["main"]["platform"] = platform.into()).start().await;
        let mut answer = app.post(path, &chat("gpt-4o", "hi")).sandbox(scenario).send().await;
        let text = answer.text().await;
        assert_eq!(answer.status, 502, "{platform} {scenario}: {text}");
        assert!(text.contains("channel_key_rejected"), "{platform} {scenario}: {text}");
        app.finish().await;
    }
}

#[tokio::test]
async fn the_platforms_own_errors_pass_untouched() {
    let app = relay().config(|c| c["channels"]["main"]["platform"] = "openai".into()).start().await;
    let direct = |scenario: &str| {
        let ask =
            aiproxy_testkit::Ask::new(app.sandbox().addr(), CHANNEL_KEY, "POST", "/v1/chat/completions");
        ask.json(&chat("gpt-4o", "hi")).sandbox(scenario)
    };
    for scenario in [
        "status=400",
        "status=403",
        "status=404",
        "status=409",
        "status=422",
        "status=429;retry-after=7",
        "status=429;code=rate_limit_exceeded",
        "status=500",
        "status=503",
    ] {
        let mut expected = direct(scenario).send().await;
        let mut answer =
            app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).sandbox(scenario).send().await;
        assert_eq!(answer.status, expected.status, "{scenario}");
        for name in ["content-type", "retry-after", "openai-version", "content-length"] {
            assert_eq!(answer.header(name), expected.header(name), "{scenario} {name}");
        }
        assert_eq!(answer.header("x-should-retry"), None, "{scenario}: that is the platform's to say");
        assert_eq!(answer.bytes().await, expected.bytes().await, "{scenario}");
    }
    app.finish().await;
}

#[tokio::test]
async fn an_error_body_that_shows_the_channels_key_is_never_passed_on() {
    let body =
        json!({"error": {"message": format!("Incorrect API key provided: {CHANNEL_KEY}"), "code": "odd"}})
            .to_string();
    let upstream = RawUpstream::answering(format!(
        "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await;
    let app = relay().upstream(&upstream).start().await;
    assert_eq!(app.get("/v1/models").send().await.status, 502);
    app.finish().await;
}

#[tokio::test]
async fn a_long_or_slow_error_body_passes_whole() {
    let body = json!({"error": {"message": "x".repeat(100_000), "code": "rate_limit_exceeded"}}).to_string();
    let whole = body.clone();
    let upstream = RawUpstream::start(move |mut conn| {
        let body = body.clone();
        async move {
            conn.request().await;
            conn.send("HTTP/1.1 429 Too Many Requests\r\ntransfer-encoding: chunked\r\n\r\n").await;
            for piece in body.as_bytes().chunks(10_000) {
                conn.send(format!("{:x}\r\n", piece.len())).await;
                conn.send(piece).await;
                conn.send("\r\n").await;
            }
            conn.send("0\r\n\r\n").await;
        }
    })
    .await;
    let app = relay()
        .config(|c| c["channels"]["main"]["platform"] = "openai".into())
        .upstream(&upstream)
        .start()
        .await;
    let mut answer = app.get("/v1/models").send().await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.text().await, whole);
    app.finish().await;
}

#[tokio::test]
async fn a_callers_own_bad_key_is_told_apart_from_the_channels() {
    let app =
        relay().config(|c| c["channels"]["main"]["api_key"] = "sk-wrongZ9y8X7w6V5u4T3".into()).start().await;
    assert_eq!(app.get("/v1/models").key("pk_nobody_000000").send().await.status, 401);
    assert_eq!(app.get("/v1/models").key(PROXY_KEY).send().await.status, 502);
    app.finish().await;
}

#[tokio::test]
async fn an_error_that_quotes_the_channels_key_does_not_reach_the_caller() {
    for status in ["404 Not Found", "403 Forbidden", "500 Oops"] {
        let body = format!("{{\"error\":\"cannot GET /v1/a with {CHANNEL_KEY}\"}}");
        let upstream = RawUpstream::answering(format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
        let app = relay().upstream(&upstream).start().await;
        let mut answer = app.get("/v1/a").send().await;
        assert_eq!(answer.status, 502, "{status}");
        assert_eq!(answer.json().await["error"]["code"], "channel_key_rejected");
        app.finish().await;
    }
}
