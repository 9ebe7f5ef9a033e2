//! Where the channel's key goes, and what must not come back.

use aiproxy_testkit::{CHANNEL_KEY, PROXY_KEY, RawUpstream};
use serde_json::{Value, json};

use crate::relay;

/// [`CHANNEL_KEY`] in a query.
const ENCODED: &str = "sk-channel%2F%2B%3D5Hs0Jg7Kp2Md9Nf4Qb8Rv1Xz";

#[tokio::test]
async fn the_channels_key_goes_where_the_configuration_says() {
    let bearer = format!("Bearer {CHANNEL_KEY}");
    let token = format!("Token {CHANNEL_KEY}");
    let cases: [(Value, Option<&str>, Option<&str>, &str); 5] = [
        (json!("bearer"), Some(&bearer), None, "/v1/a?x=1"),
        (json!({"header": "api-key"}), None, Some(CHANNEL_KEY), "/v1/a?x=1"),
        (json!({"header": "Authorization", "scheme": "Token"}), Some(&token), None, "/v1/a?x=1"),
        (json!({"query": "key"}), None, None, &format!("/v1/a?x=1&key={ENCODED}")),
        (json!(["bearer", {"query": "key"}]), Some(&bearer), None, &format!("/v1/a?x=1&key={ENCODED}")),
    ];
    for (placement, authorization, api_key, target) in cases {
        let upstream = RawUpstream::recording().await;
        let app = relay()
            .config(|c| c["channels"]["main"]["key_placement"] = placement.clone())
            .upstream(&upstream)
            .start()
            .await;
        // The caller's own place may be the very one that the channel's key goes to.
        let answer = app.get(&format!("/v1/a?x=1&key={PROXY_KEY}")).header("api-key", PROXY_KEY).send().await;
        assert_eq!(answer.status, 200, "{placement}");
        let request = upstream.request(0).await;
        assert_eq!(request.header("authorization").as_deref(), authorization, "{placement}");
        assert_eq!(request.header("api-key").as_deref(), api_key, "{placement}");
        assert_eq!(request.target(), target, "{placement}");
        app.finish().await;
    }
}

#[tokio::test]
async fn each_platform_gets_its_key_in_its_own_place() {
    for (platform, path, header, value) in [
        ("openai", "/v1/things", "authorization", format!("Bearer {CHANNEL_KEY}")),
        ("azure", "/openai/v1/models", "api-key", CHANNEL_KEY.to_owned()),
        ("dashscope", "/api/v1/services/x", "authorization", format!("Bearer {CHANNEL_KEY}")),
        ("anthropic", "/v1/messages", "x-api-key", CHANNEL_KEY.to_owned()),
        ("gemini", "/v1beta/models", "x-goog-api-key", CHANNEL_KEY.to_owned()),
        ("xai", "/v1/things", "authorization", format!("Bearer {CHANNEL_KEY}")),
        ("deepgram", "/v1/listen", "authorization", format!("Token {CHANNEL_KEY}")),
        ("elevenlabs", "/v1/voices", "xi-api-key", CHANNEL_KEY.to_owned()),
        ("volcengine", "/api/v3/models", "authorization", format!("Bearer {CHANNEL_KEY}")),
    ] {
        let upstream = RawUpstream::recording().await;
        let app = relay()
            .config(|c| c["channels"]["main"]["platform"] = platform.into())
            .upstream(&upstream)
            .start()
            .await;
        assert_eq!(app.get(path).send().await.status, 200, "{platform}");
        let request = upstream.request(0).await;
        assert_eq!(request.header(header), Some(value), "{platform}");
        assert_eq!(request.target(), path, "{platform}");
        for other in ["authorization", "api-key", "x-api-key", "x-goog-api-key", "xi-api-key"] {
            assert!(other == header || request.header(other).is_none(), "{platform}: {other}");
        }
        app.finish().await;
    }
}

#[tokio::test]
async fn configured_headers_replace_the_callers() {
    let upstream = RawUpstream::recording().await;
    let app = relay()
        .config(|c| {
            c["channels"]["main"]["headers"] =
                json!({"set": {"x-team": "red", "openai-project": "${PROJECT}"}});
        })
        .env("PROJECT", "proj_from_env")
        .upstream(&upstream)
        .start()
        .await;
    app.get("/v1/a").header("x-team", "blue").header("openai-project", "mine").send().await;
    let request = upstream.request(0).await;
    assert_eq!(request.header("x-team").as_deref(), Some("red"));
    assert_eq!(request.header("openai-project").as_deref(), Some("proj_from_env"));
    app.finish().await;
}

#[tokio::test]
async fn headers_that_tell_about_the_account_pass_only_where_the_channel_lets_them() {
    for pass in [false, true] {
        let upstream = RawUpstream::answering(
            "HTTP/1.1 200 OK\r\nopenai-organization: org-1\r\nset-cookie: __cf=1\r\ncontent-length: 0\r\n\r\n",
        )
        .await;
        let app = relay()
            .config(|c| {
                if pass {
                    c["channels"]["main"]["headers"] = json!({"pass": ["OpenAI-Organization", "set-cookie"]});
                }
            })
            .upstream(&upstream)
            .start()
            .await;
        let answer = app.get("/v1/a").header("openai-organization", "org-mine").send().await;
        assert_eq!(answer.header("openai-organization"), pass.then_some("org-1"));
        assert_eq!(answer.header("set-cookie"), pass.then_some("__cf=1"));
        assert_eq!(
            upstream.request(0).await.header("openai-organization").as_deref(),
            pass.then_some("org-mine")
        );
        app.finish().await;
    }
}

#[tokio::test]
async fn an_answer_header_that_shows_the_channels_key_is_taken_out() {
    let upstream = RawUpstream::answering(format!(
        "HTTP/1.1 200 OK\r\nx-echo: Bearer {CHANNEL_KEY}\r\nlink: </v1/b?key={ENCODED}>; rel=next\r\n\
         refresh: 1; url=/v1/b?key={ENCODED}\r\nx-kept: 1\r\ncontent-length: 0\r\n\r\n"
    ))
    .await;
    let app = relay()
        .config(|c| c["channels"]["main"]["key_placement"] = json!({"query": "key"}))
        .upstream(&upstream)
        .start()
        .await;
    let answer = app.get("/v1/a").send().await;
    assert_eq!(answer.header("x-kept"), Some("1"));
    for name in ["x-echo", "link", "refresh"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    app.finish().await;
}

#[tokio::test]
async fn an_answer_trailer_that_shows_the_channels_key_is_taken_out() {
    let upstream = RawUpstream::answering(format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-echo, x-kept\r\n\r\n2\r\nok\r\n0\r\n\
         x-echo: Bearer {CHANNEL_KEY}\r\nx-kept: 1\r\n\r\n"
    ))
    .await;
    let app = relay().upstream(&upstream).start().await;
    let mut answer = app.get("/v1/a").header("te", "trailers").send().await;
    assert_eq!(answer.text().await, "ok");
    let trailers = answer.trailers().cloned().unwrap_or_default();
    assert!(trailers.get("x-echo").is_none());
    app.finish().await;
}
