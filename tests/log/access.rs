//! One line per request, whatever became of it.

use std::os::unix::fs::PermissionsExt as _;

use aiproxy_testkit::{PROXY_KEY, RawUpstream, until};
use serde_json::{Value, json};

use crate::{chat, chat_stream, relay};

/// What every line has.
const FIELDS: &[&str] = &[
    "time",
    "request_id",
    "user",
    "key",
    "key_id",
    "channel",
    "protocol",
    "method",
    "endpoint",
    "model",
    "status",
    "error",
    "error_class",
    "outcome",
    "first_byte_us",
    "total_us",
    "bytes_in",
    "bytes_out",
    "ip",
    "user_agent",
    "own_us",
    "attempts",
];

#[tokio::test]
async fn a_complete_request_has_every_field() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    let body = chat("通义千问", "你好");
    let mut answer = app.post("/v1/chat/completions?trace=1", &body).send().await;
    let id = answer.header("x-aiproxy-request-id").unwrap().to_owned();
    let length = answer.bytes().await.len();
    let line = app.logged("the line", |line| line["request_id"] == id.as_str()).await;
    for (field, value) in [
        ("user", json!("user1")),
        ("key", json!("pk_user1")),
        ("channel", json!("main")),
        ("protocol", json!("http1")),
        ("method", json!("POST")),
        ("endpoint", json!("/v1/chat/completions")),
        ("model", json!("通义千问")),
        ("status", json!(200)),
        ("error", json!(null)),
        ("outcome", json!("complete")),
        ("bytes_in", json!(body.to_string().len())),
        ("bytes_out", json!(length)),
        ("ip", json!("127.0.0.1")),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
    for field in FIELDS {
        assert!(line.get(field).is_some(), "{field} in {line}");
    }
    assert!(line["first_byte_us"].as_u64().unwrap() <= line["total_us"].as_u64().unwrap());
    assert_eq!(line["key_id"].as_str().unwrap().len(), 8);
    // For people who read it without a tool: as it is, not escaped.
    assert!(app.process().stdout().contains("\"model\":\"通义千问\""));
    app.finish().await;
}

#[tokio::test]
async fn refused_requests_are_logged_with_what_was_known() {
    let app = relay().config(|c| c["users"]["user1"]["models"] = json!(["gpt-4o"])).start().await;
    let line = async |code: &str| app.logged(code, |line| line["error"] == code).await;

    app.get("/v1/models").key("pk_nobody_000000").send().await;
    let refused = line("invalid_key").await;
    assert_eq!(refused["user"], Value::Null);
    assert_eq!(refused["channel"], Value::Null);
    assert_eq!(refused["status"], 401);
    assert_eq!(refused["outcome"], "refused");
    assert_eq!(refused["endpoint"], "/v1/models");
    assert_eq!(refused["path"], Value::Null, "the path may hold anything as long as nobody is known");
    assert_eq!(refused["user_agent"], Value::Null);
    assert_eq!(refused["error_class"], "key");

    app.post("/v1/chat/completions", &chat("gpt-5", "hi")).send().await;
    let refused = line("model_not_allowed").await;
    assert_eq!(refused["user"], "user1");
    assert_eq!(refused["endpoint"], "/v1/chat/completions");
    assert_eq!(refused["status"], 403);
    assert!(refused["bytes_out"].as_u64().unwrap() > 0);

    app.ask("POST", "/v1/realtime/sessions").send().await;
    assert_eq!(line("path_forbidden").await["endpoint"], "/v1/realtime/sessions");
    app.finish().await;
}

#[tokio::test]
async fn a_path_that_holds_a_key_is_not_logged() {
    let app = relay().start().await;
    for path in [format!("/v1/{PROXY_KEY}"), format!("/v1/{}", PROXY_KEY.replace('_', "%5F"))] {
        let answer = app.get(&path).send().await;
        assert_eq!(answer.status, 400);
        let id = answer.header("x-aiproxy-request-id").unwrap();
        let line = app.logged("the line", |line| line["request_id"] == id).await;
        assert!(["/v1", "/v1/…"].contains(&line["endpoint"].as_str().unwrap()), "{line}");
        assert_eq!(line["path"], Value::Null);
    }
    app.finish().await;
}

#[tokio::test]
async fn answers_that_break_off_are_logged_as_such() {
    let app = relay().start().await;
    let ask = app.post("/v1/chat/completions", &chat_stream("gpt-4o", "a b c d")).sandbox("cut=2");
    assert!(ask.send().await.try_bytes().await.is_err());
    let line = app.logged("the line", |line| line["outcome"] == "upstream_failed").await;
    assert_eq!(
        (&line["status"], &line["error"], &line["model"]),
        (&json!(200), &Value::Null, &json!("gpt-4o"))
    );
    app.finish().await;
}

#[tokio::test]
async fn the_access_log_can_be_a_file_that_is_appended_to() {
    let app = relay().config(|c| c["system"]["log"]["access"] = "access.log".into()).start().await;
    let file = app.dir().join("access.log");
    app.get("/v1/models").send().await.bytes().await;
    app.get("/v1/models/gpt-4o").send().await.bytes().await;
    let text = until("two lines", || {
        let text = std::fs::read_to_string(&file).ok()?;
        (text.lines().count() == 2 && text.ends_with('\n')).then_some(text)
    })
    .await;
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["endpoint"], "/v1/models");
    assert_eq!(lines[0].get("path"), None);
    assert_eq!(lines[1]["endpoint"], "/v1/models/{model}");
    assert_eq!(lines[1]["path"], "/v1/models/gpt-4o");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o007, 0, "not for everybody");
    assert_eq!(app.process().stdout(), "");
    app.finish().await;
}

#[tokio::test]
async fn the_access_log_can_be_off() {
    let app = relay().config(|c| c["system"]["log"]["access"] = "off".into()).start().await;
    assert_eq!(app.get("/v1/models").send().await.status, 200);
    app.process().signal("TERM");
    app.process().ended_within(aiproxy_testkit::BOUND).await;
    assert_eq!(app.process().stdout(), "");
    app.finish().await;
}

#[tokio::test]
async fn long_paths_and_odd_characters_make_one_valid_line() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    for path in
        [format!("/v1/{}", "长".repeat(300)), "/v1/%22%7B%0A".replace("%0A", ""), "/v1/\u{202e}x".to_owned()]
    {
        let encoded: String =
            path.chars().map(|c| if c.is_ascii() { c.to_string() } else { encode(c) }).collect();
        let answer = app.get(&encoded).send().await;
        assert_eq!(answer.status, 200, "{path}");
        let id = answer.header("x-aiproxy-request-id").unwrap();
        let line = app.logged("the line", |line| line["request_id"] == id).await;
        assert!(line["endpoint"].as_str().unwrap().starts_with("/v1/{id}"), "{line}");
        assert!(line["path"].as_str().unwrap().len() <= 256);
    }
    app.finish().await;
}

fn encode(c: char) -> String {
    c.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect()
}
