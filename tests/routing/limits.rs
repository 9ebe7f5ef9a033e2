//! Limits on models hold, however the body is written.

use aiproxy_testkit::{App, RawUpstream};
use serde_json::json;

use crate::relay;

const ALLOWED: &str = "gpt-4o-mini";
const CHAT: &str = "/v1/chat/completions";

async fn limited() -> (App, RawUpstream) {
    let upstream = RawUpstream::recording().await;
    let app = relay()
        .config(|c| {
            c["users"]["user1"]["models"] = json!(["gpt-4o-mini", "text-*", "通义*"]);
            c["system"]["limits"]["peek_bytes"] = "8KiB".into();
        })
        .upstream(&upstream)
        .start()
        .await;
    (app, upstream)
}

/// Posts bodies and holds the status of each against what is expected.
async fn hold(path: &str, kind: &str, cases: &[(&str, u16)]) {
    let (app, upstream) = limited().await;
    for (body, status) in cases {
        let mut answer =
            app.ask("POST", path).header("content-type", kind).body((*body).to_owned()).send().await;
        let text = answer.text().await;
        assert_eq!(answer.status, *status, "{path} {body}: {text}");
        assert!(*status == 200 || text.contains("model_not_allowed"), "{path} {body}: {text}");
    }
    let allowed: Vec<&str> =
        cases.iter().filter(|(_, status)| *status == 200).map(|(body, _)| *body).collect();
    let received = upstream.received();
    assert_eq!(received.len(), allowed.len());
    for (request, body) in received.iter().zip(allowed) {
        assert_eq!(request.body, body, "a body that passes is untouched");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_json_body_has_to_name_one_allowed_model_once() {
    let cases = [
        (r#"{"model":"gpt-4o-mini"}"#, 200),
        (r#"{"messages":[{"model":"gpt-5"}],"model":"gpt-4o-mini"}"#, 200),
        (r#"{"model":"GPT-4O-Mini"}"#, 200),
        (r#"{"model":"通义千问"}"#, 200),
        (r#"{"model":"gpt-4o"}"#, 403),
        (r#"{"model":"gpt-4o-mini\u0000"}"#, 403),
        (r#"{"model":"gpt-4o-mini "}"#, 403),
        (r#"{"model":"gpt-4o-mini","model":"gpt-5"}"#, 403),
        (r#"{"model":"gpt-4o-mini","model":"gpt-4o-mini"}"#, 403),
        (r#"{"model":"gpt-4o-mini","messages":[],"\u006dodel":"gpt-5"}"#, 403),
        (r#"{"model":["gpt-4o-mini"]}"#, 403),
        (r#"{"model":null}"#, 403),
        (r#"{"model":{"model":"gpt-4o-mini"}}"#, 403),
        (r#"{"messages":[]}"#, 403),
        (r#"["model","gpt-4o-mini"]"#, 403),
        (r#"{"model":"gpt-4o-mini"}{"model":"gpt-5"}"#, 403),
        ("", 403),
        ("not json", 403),
    ];
    hold(CHAT, "application/json", &cases).await;
    hold(CHAT, "application/vnd.api+json; charset=utf-8", &cases[..2]).await;
}

#[tokio::test]
async fn another_case_of_the_name_does_not_hide_a_model() {
    // Some platforms read JSON keys without regard to case.
    hold(
        CHAT,
        "application/json",
        &[
            (r#"{"model":"gpt-4o-mini","Model":"gpt-5"}"#, 403),
            (r#"{"Model":"gpt-5","model":"gpt-4o-mini"}"#, 403),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_multipart_body_has_to_name_one_allowed_model_once() {
    let part = |name: &str, value: &str| {
        format!("--xyz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let file = "--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n{\"model\":\"x\"}\r\n";
    let end = "--xyz--\r\n";
    let mini = part("model", ALLOWED);
    let cases = [
        (format!("{mini}{file}{end}"), 200),
        (format!("{file}{mini}{end}"), 200),
        (format!("{}{file}{end}", part("model", "whisper-1")), 403),
        (format!("{mini}{}{end}", part("model", "gpt-5")), 403),
        (format!("{mini}{file}{}{end}", part("model", ALLOWED)), 403),
        (format!("{file}{end}"), 403),
        (format!("{mini}{}{end}", part("Model", "gpt-5")), 403),
    ];
    let cases: Vec<(&str, u16)> = cases.iter().map(|(body, status)| (body.as_str(), *status)).collect();
    hold("/v1/audio/transcriptions", "multipart/form-data; boundary=xyz", &cases).await;
    hold("/v1/audio/transcriptions", "multipart/form-data", &[(cases[0].0, 403)]).await;
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused_where_a_limit_applies() {
    let (app, upstream) = limited().await;
    let body = format!("{{\"model\":\"{ALLOWED}\"}}");
    for ask in [
        app.ask("POST", CHAT).header("content-type", "application/json").header("content-encoding", "gzip"),
        app.ask("POST", CHAT).header("content-type", "text/plain"),
        app.ask("POST", CHAT),
        app.ask("POST", CHAT).header("content-type", "application/octet-stream"),
    ] {
        let mut answer = ask.body(body.clone()).send().await;
        assert_eq!(answer.status, 403);
        assert_eq!(answer.json().await["error"]["code"], "model_not_allowed");
    }
    // Past what is read ahead.
    let late = format!("{{\"pad\":\"{}\",\"model\":\"{ALLOWED}\"}}", "x".repeat(300_000));
    assert_eq!(
        app.ask("POST", CHAT).header("content-type", "application/json").body(late).send().await.status,
        403
    );
    assert_eq!(upstream.received().len(), 0);
    app.finish().await;
}

#[tokio::test]
async fn a_second_model_far_behind_what_is_read_ahead_breaks_the_request_off() {
    let (app, upstream) = limited().await;
    for second in ["gpt-5", ALLOWED] {
        let pad = "x".repeat(300_000);
        let body = format!("{{\"model\":\"{ALLOWED}\",\"pad\":\"{pad}\",\"model\":\"{second}\"}}");
        let mut answer =
            app.ask("POST", CHAT).header("content-type", "application/json").body(body).send().await;
        assert_eq!(answer.status, 403);
        assert_eq!(answer.json().await["error"]["code"], "model_not_allowed");
    }
    assert!(upstream.received().is_empty(), "the platform never got a whole request");
    app.finish().await;
}

#[tokio::test]
async fn a_large_body_with_one_allowed_model_passes_whole() {
    let (app, upstream) = limited().await;
    let body = format!("{{\"model\":\"{ALLOWED}\",\"pad\":\"{}\"}}", "x".repeat(300_000));
    let answer =
        app.ask("POST", CHAT).header("content-type", "application/json").body(body.clone()).send().await;
    assert_eq!(answer.status, 200);
    assert_eq!(upstream.request(0).await.body, body);
    app.finish().await;
}

#[tokio::test]
async fn models_in_the_path_and_in_the_query_are_limited_too() {
    let (app, upstream) = limited().await;
    let body = json!({"model": ALLOWED});
    for (target, status) in [
        ("/openai/deployments/gpt-5/chat/completions", 403),
        ("/openai/deployments/gpt-4o-mini/chat/completions", 200),
        ("/v1beta/models/gemini-2.5-pro:generateContent", 403),
        ("/v1beta/models/text-embedding-004:embedContent", 200),
        ("/v1beta/models/gemini%2D2.5-pro:generateContent", 403),
        ("/v1/chat/completions?model=gpt-5", 403),
        ("/v1/chat/completions?%6Dodel=gpt-5", 403),
        ("/v1/chat/completions?model=gpt-4o-mini&model=gpt-5", 403),
        ("/v1/chat/completions?model=gpt-4o-mini", 200),
    ] {
        let answer = app.post(target, &body).send().await;
        assert_eq!(answer.status, status, "{target}");
    }
    assert_eq!(upstream.received().len(), 3);
    app.finish().await;
}

#[tokio::test]
async fn paths_that_run_no_model_need_none() {
    let (app, _upstream) = limited().await;
    assert_eq!(app.get("/v1/things").send().await.status, 200);
    assert_eq!(
        app.ask("POST", "/v1/files").header("content-type", "text/plain").body("x").send().await.status,
        200
    );
    // Batches name their models out of sight.
    assert_eq!(app.post("/v1/batches", &json!({"input_file_id": "file-1"})).send().await.status, 403);
    app.finish().await;
}

#[tokio::test]
async fn without_a_limit_bodies_that_cannot_be_read_pass() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    let body = "{\"model\":\"a\",\"model\":\"b\"";
    for ask in [
        app.ask("POST", CHAT).header("content-type", "application/json"),
        app.ask("POST", CHAT).header("content-type", "application/json").header("content-encoding", "gzip"),
        app.ask("POST", CHAT),
    ] {
        assert_eq!(ask.body(body).send().await.status, 200);
    }
    assert!(upstream.received().iter().all(|request| request.body == body));
    app.finish().await;
}

#[tokio::test]
async fn no_spelling_of_the_path_and_no_other_family_hides_a_model() {
    let (app, upstream) = limited().await;
    let body = json!({"model": ALLOWED});
    for target in [
        "/openai/deployments/gpt-5/chat/completions",
        "/openai/d%65ployments/gpt-5/chat/completions",
        "/openai/Deployments/gpt-5/chat/completions",
        "/v1beta/m%6Fdels/gemini-pro:generateContent?model=gpt-4o-mini",
        "/v1beta/tunedModels/secret:generateContent?model=gpt-4o-mini",
        "/v1/models/gemini-pro:generateContent",
    ] {
        let answer = app.post(target, &body).header("anthropic-version", "2023-06-01").send().await;
        assert_eq!(answer.status, 403, "{target}");
    }
    assert_eq!(upstream.received().len(), 0);
    app.finish().await;
}

#[tokio::test]
async fn a_model_in_the_query_does_not_vouch_for_a_body_that_cannot_be_read() {
    let (app, upstream) = limited().await;
    let target = format!("{CHAT}?model={ALLOWED}");
    let body = r#"{"model":"gpt-5"}"#;
    let parts = "--XX\nX: y\nContent-Disposition: form-data; name=\"model\"\n\ngpt-5\n--XX--\n";
    for ask in [
        app.ask("POST", &target).body(body),
        app.ask("POST", &target).header("content-type", "text/plain").body(body),
        app.ask("POST", &target)
            .header("content-type", "multipart/form-data; boundary=x")
            .header("content-type", "application/json")
            .body(body),
        app.ask("POST", &target).header("content-type", "multipart/form-data; boundary=XX").body(parts),
        app.post("/v1/text-to-speech/v1?model=gpt-4o-mini", &json!({"model_id": "eleven_v3"})),
    ] {
        assert_eq!(ask.send().await.status, 403);
    }
    assert_eq!(upstream.received().len(), 0);
    app.finish().await;
}
