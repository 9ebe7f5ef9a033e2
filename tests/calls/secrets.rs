//! Calls that begin with a client secret.

use std::time::Duration;

use aiproxy_testkit::{App, PROXY_KEY, Process, SeenCall, run, until};
use serde_json::{Value, json};

use super::{agents, page, python};
use crate::sdk;

const CALLS: &str = "/v1/realtime/calls";

async fn relay() -> App {
    super::relayed::with(|config| {
        config["system"]["cors"] = json!({"origins": ["https://app.example.com"]});
        config["channels"]["main"]["platform"] = "openai".into();
    })
    .await
}

async fn mint(app: &App, wanted: &Value) -> String {
    let answer = app.post("/v1/realtime/client_secrets", wanted).send().await.json().await;
    answer["value"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

async fn ended(app: &App) -> SeenCall {
    until("the call's end", || app.sandbox().calls().pop().filter(|call| call.state == "ended")).await
}

#[tokio::test]
async fn the_agents_sdk_calls_with_one() {
    let app = relay().await;
    let session = json!({"type": "realtime", "model": "gpt-realtime", "instructions": "说中文"});
    let secret = mint(&app, &json!({"session": session})).await;
    // As it is: no model in the URL, nothing but the offer in the body. In its first message it names one.
    let url = format!("{}{CALLS}", app.url());
    let report = agents(&url, &secret, &["--say", "one two", "--model", "gpt-realtime"]).await;
    assert_eq!((&report["connected"], &report["said"]), (&json!(true), &json!("one two")), "{report}");
    assert!((report["frequency"].as_f64().unwrap() - 440.0).abs() < 10.0, "{report}");
    assert_eq!((&report["failures"], &report["errors"]), (&json!([]), &json!([])), "{report}");
    assert!(report["callId"].as_str().unwrap().starts_with("rtc_aiproxy_"), "{report}");
    let seen = ended(&app).await;
    assert_eq!(seen.model, "gpt-realtime");
    println!("the Agents SDK in Chromium, set up through the relay: {}", report["times"]);
    let line = app.logged("the call's record", |line| line["protocol"] == "webrtc").await;
    assert_eq!((&line["model"], &line["usage"]["output"]), (&json!("gpt-realtime"), &json!(2)), "{line}");
    app.finish().await;
}

#[tokio::test]
async fn the_pages_of_the_examples_call_through_the_relay() {
    let app = relay().await;
    let secret = mint(&app, &json!({"session": {"type": "realtime", "model": "gpt-realtime"}})).await;
    for (which, key) in [("call", PROXY_KEY), ("agents", &secret)] {
        let report = page(which, &app.url(), key, &[]).await;
        assert_eq!((&report["connected"], &report["errors"]), (&json!(true), &json!([])), "{report}");
        assert!(ended(&app).await.packets_in > 0);
    }
    app.finish().await;
}

#[tokio::test]
async fn a_page_gets_one_from_its_backend_and_talks() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let origin = format!("http://127.0.0.1:{port}");
    let app = super::relayed::with(|config| config["system"]["cors"] = json!({"origins": [origin]})).await;
    let mut backend = std::process::Command::new(sdk::interpreter());
    backend.arg(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/secret_backend.py"));
    backend.env("AIPROXY_URL", app.url()).env("AIPROXY_KEY", PROXY_KEY).env("PORT", port.to_string());
    let backend = Process::start(backend);
    backend.printed("its page", |line| line.contains("http://").then_some(())).await;
    let work = tempfile::tempdir().unwrap();
    let mut script = sdk::node("backend.mjs");
    script.args([&*origin, "你好 one two"]).env("WORK_DIR", work.path());
    let finished = run(script, Duration::from_secs(120)).await;
    assert!(finished.stdout.contains("你好 one two"), "{}\n{}", finished.stdout, finished.stderr);
    drop(backend);
    app.finish().await;
}

#[tokio::test]
async fn its_model_is_the_call_s_and_one_is_enough() {
    let app = relay().await;
    let session = json!({"type": "realtime", "model": "gpt-realtime", "instructions": "说中文"});
    let wanted = json!({"session": session, "aiproxy": {"single_use": true}});
    let secret = mint(&app, &wanted).await;
    let url = format!("{}{CALLS}", app.url());
    // Another model is refused, however it is named; that uses up nothing.
    let refused = async |url: &str, arguments: &[&str]| {
        let report = python(url, &secret, arguments).await;
        (report["status"].as_u64().unwrap(), report["error"].to_string())
    };
    let (status, body) = refused(&format!("{url}?model=gpt-other"), &[]).await;
    assert!(status == 403 && body.contains("secret_model"), "{status} {body}");
    let (status, body) = refused(&url, &["--session", r#"{"type":"realtime","model":"gpt-other"}"#]).await;
    assert!(status == 403 && body.contains("secret_model"), "{status} {body}");
    let report = python(&url, &secret, &["--channel", "oai-events", "--say", "hi"]).await;
    assert_eq!(report["status"], 201, "{report}");
    let (status, body) = refused(&url, &[]).await;
    assert!(status == 403 && body.contains("secret_used"), "{status} {body}");
    app.finish().await;
}
