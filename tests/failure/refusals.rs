//! Our own answers, in the shape that the caller's SDK parses.

use aiproxy_testkit::RawUpstream;
use serde_json::json;

use crate::relay;

#[tokio::test]
async fn a_refusal_has_the_shape_of_its_paths_family() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    for (path, pointer, value) in [
        ("/v1/chat/completions", "/error/code", json!("invalid_key")),
        ("/v1/chat/completions", "/error/type", json!("authentication_error")),
        ("/v1/chat/completions", "/error/param", json!(null)),
        ("/compatible-mode/v1/chat/completions", "/error/code", json!("invalid_key")),
        ("/openai/v1/models", "/error/code", json!("invalid_key")),
        ("/anything/else", "/error/code", json!("invalid_key")),
        ("/v1/messages", "/type", json!("error")),
        ("/v1/messages", "/error/type", json!("authentication_error")),
        ("/apps/anthropic/v1/messages", "/error/type", json!("authentication_error")),
        ("/v1beta/models/x:generateContent", "/error/code", json!(401)),
        ("/v1beta/models/x:generateContent", "/error/status", json!("UNAUTHENTICATED")),
        ("/v1beta/models/x:generateContent", "/error/details/0/reason", json!("invalid_key")),
        ("/api/v1/services/aigc/x", "/code", json!("invalid_key")),
        ("/v1/listen", "/err_code", json!("invalid_key")),
        ("/v1/text-to-speech/v1", "/detail/status", json!("invalid_key")),
    ] {
        let mut answer = app.get(path).key("pk_nobody_000000").send().await;
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        let id = answer.header("x-aiproxy-request-id").unwrap().to_owned();
        let body = answer.json().await;
        assert_eq!(body.pointer(pointer), Some(&value), "{path}: {body}");
        for field in ["/request_id"].into_iter().filter_map(|pointer| body.pointer(pointer)) {
            assert_eq!(*field, id.as_str(), "{path}");
        }
    }
    assert_eq!(upstream.connections(), 0);
    app.finish().await;
}

#[tokio::test]
async fn a_refusal_to_a_head_has_no_body() {
    let app = relay().start().await;
    let mut client = app.client().await;
    for _ in 0..2 {
        let mut answer = client.send(app.ask("HEAD", "/v1/models").key("pk_nobody_000000")).await;
        assert_eq!(answer.status, 401);
        assert!(answer.bytes().await.is_empty());
    }
    app.finish().await;
}

#[tokio::test]
async fn a_refusal_reaches_a_caller_who_is_still_sending_a_large_body() {
    let upstream = RawUpstream::recording().await;
    let app = relay()
        .config(|c| c["users"]["user1"]["models"] = json!(["gpt-4o"]))
        .upstream(&upstream)
        .start()
        .await;
    let large = format!("{{\"model\":\"gpt-5\",\"pad\":\"{}\"}}", "x".repeat(3_000_000));
    for (key, status) in [("pk_nobody_000000", 401), (aiproxy_testkit::PROXY_KEY, 403)] {
        for kind in ["application/json", "application/octet-stream"] {
            let ask = app.ask("POST", "/v1/chat/completions").key(key).header("content-type", kind);
            let answer = ask.body(large.clone()).send().await;
            assert_eq!(answer.status, status, "{kind}");
        }
    }
    assert!(upstream.received().is_empty());
    app.finish().await;
}
