//! The peers among themselves, with no relay between: what they report can be relied on.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use aiproxy_testkit::{CHANNEL_KEY, Sandbox, SeenCall, run, sandbox, until};
use serde_json::{Value, json};

use super::{Upstream, agents, chromium, page, python, texts};
use crate::sdk;

const PATH: &str = "/v1/realtime/calls?model=gpt-realtime";

async fn ended(sandbox: &Sandbox) -> SeenCall {
    until("the call's end", || sandbox.calls().pop().filter(|call| call.state == "ended")).await
}

/// Sound went there and came back as it was, of the frequency it had; packets may get lost.
fn echoed(report: &Value, hertz: &[f64]) {
    let (sent, received) = (texts(&report["sent"]), texts(&report["received"]));
    assert!(received.len() * 10 > sent.len() * 7 && sent.len() > 50, "{} {}", sent.len(), received.len());
    assert_eq!(report["strangers"], 0, "{report}");
    let heard: Vec<f64> =
        report["frequencies"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
    assert_eq!(heard.len(), hertz.len(), "{report}");
    for (heard, hertz) in heard.iter().zip(hertz) {
        assert!((heard - hertz).abs() < 5.0, "{heard} Hz for {hertz} Hz");
    }
}

#[tokio::test]
async fn aiortc_calls_the_sandbox() {
    let sandbox = sandbox(CHANNEL_KEY).await;
    let url = format!("{}{PATH}", sandbox.base_url());
    let channels = ["--channel", "oai-events", "--channel", "q,ordered=0,maxRetransmits=3,protocol=p"];
    let more = ["--say", "one two", "--big", "200000", "--end", "hangup"];
    let report = python(&url, CHANNEL_KEY, &[&channels[..], &more].concat()).await;
    echoed(&report, &[440.0]);
    assert_eq!((&report["status"], &report["hangup"]), (&json!(201), &json!(200)), "{report}");
    assert_eq!(report["in_order"], true);
    let [events, other] = report["channels"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!((&events["said"], &events["usage"]["total_tokens"]), (&json!("one two"), &json!(4)));
    assert_eq!((&events["same"], &other["same_in_any_order"]), (&json!(true), &json!(true)), "{report}");

    let seen = ended(&sandbox).await;
    assert_eq!((seen.ended, seen.model.as_str()), (Some("hangup"), "gpt-realtime"));
    let sent = texts(&report["sent"]);
    let heard: Vec<String> = seen.payloads.iter().map(|payload| format!("{payload:016x}")).collect();
    assert!(heard.iter().all(|payload| sent.contains(&payload.as_str())), "{heard:?}");
    assert_eq!(seen.channels[1], ("q".to_owned(), "p".to_owned(), false));
}

#[tokio::test]
async fn aiortc_calls_with_several_tracks_in_other_formats() {
    let sandbox = sandbox(CHANNEL_KEY).await;
    for codec in ["PCMU", "PCMA", "G722"] {
        let session = json!({"type": "realtime", "model": "m"}).to_string();
        let url = format!("{}/v1/realtime/calls", sandbox.base_url());
        let arguments = ["--tracks", "2", "--codec", codec, "--session", &session, "--session-first"];
        echoed(&python(&url, CHANNEL_KEY, &arguments).await, &[440.0, 550.0]);
        assert_eq!(ended(&sandbox).await.ended, Some("peer"));
    }
    // A caller who just goes away, and one who tells no address.
    let url = format!("{}/api/v1/webrtc/realtime?model=qwen3-omni", sandbox.base_url());
    let arguments = ["--channel", "mine", "--strip-candidates", "--end", "vanish"];
    let report = python(&url, CHANNEL_KEY, &arguments).await;
    echoed(&report, &[440.0]);
    assert_eq!(report["opened_there"][0]["label"], "txt");
    assert_eq!(report["opened_there"][0]["same"], true);
    assert_eq!(ended(&sandbox).await.ended, Some("failed"));
    let refused = python(&url, "sk-other", &[]).await;
    assert_eq!(refused["status"], 401);
}

#[tokio::test]
async fn aiortc_calls_aiortc() {
    let upstream = Upstream::start(CHANNEL_KEY, &["--opens", "txt"]).await;
    let url = format!("http://{}{PATH}", upstream.addr);
    let arguments = [
        "--tracks",
        "2",
        "--channel",
        "a,protocol=p",
        "--big",
        "200000",
        "--session",
        r#"{"type":"realtime"}"#,
    ];
    let report = python(&url, CHANNEL_KEY, &arguments).await;
    echoed(&report, &[440.0, 550.0]);
    assert_eq!(
        (&report["channels"][0]["same"], &report["opened_there"][0]["label"]),
        (&json!(true), &json!("txt"))
    );
    let stat = upstream.stat().await;
    let call = &stat["calls"][0];
    assert_eq!(call["session"], json!({"type": "realtime"}));
    let sent = texts(&report["sent"]);
    assert!(texts(&call["received"]).iter().all(|payload| sent.contains(payload)));
    assert_eq!((&call["channels"][0]["label"], &call["channels"][0]["protocol"]), (&json!("a"), &json!("p")));
    assert_eq!(python(&url, "sk-other", &[]).await["status"], 401);
    assert_eq!(upstream.stat().await["refused"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn chromium_calls_the_sandbox() {
    let sandbox = sandbox(CHANNEL_KEY).await;
    let url = format!("{}{PATH}", sandbox.base_url());
    for more in [&["--video"][..], &["--mdns", "--early", "--codec", "PCMU"]] {
        let channels = ["--channel", "oai-events", "--say", "one two", "--big", "200000", "--end", "hangup"];
        let report = chromium(&url, CHANNEL_KEY, &[&channels[..], more].concat()).await;
        assert_eq!((&report["connected"], &report["errors"]), (&json!(true), &json!([])), "{report}");
        let heard = report["frequency"].as_f64().unwrap();
        assert!((heard - 440.0).abs() < 5.0, "{heard} Hz");
        let channel = &report["channels"][0];
        assert_eq!((&channel["same"], &channel["said"]), (&json!(true), &json!("one two")), "{report}");
        assert_eq!((&channel["closed"], &report["hangup"]), (&json!(true), &json!(200)), "{report}");
        // The camera is refused, the sound goes on.
        assert_eq!(report["directions"], json!([["audio", "sendrecv"]]));
        let seen = ended(&sandbox).await;
        assert!(seen.packets_in > 50 && seen.packets_out == seen.packets_in, "{seen:?}");
    }
}

#[tokio::test]
async fn the_agents_sdk_calls_the_sandbox() {
    let sandbox = sandbox(CHANNEL_KEY).await;
    let report = agents(&format!("{}{PATH}", sandbox.base_url()), CHANNEL_KEY, &["--say", "one two"]).await;
    assert_eq!((&report["connected"], &report["said"]), (&json!(true), &json!("one two")), "{report}");
    assert!((report["frequency"].as_f64().unwrap() - 440.0).abs() < 10.0, "{report}");
    assert_eq!(report["callId"].as_str(), Some(ended(&sandbox).await.id.as_str()));
    assert_eq!((&report["failures"], &report["errors"]), (&json!([]), &json!([])));
}

#[tokio::test]
async fn the_pages_of_the_examples_call_the_sandbox() {
    let sandbox = sandbox(CHANNEL_KEY).await;
    let report = page("call", &sandbox.base_url(), CHANNEL_KEY, &[]).await;
    assert_eq!((&report["connected"], &report["errors"]), (&json!(true), &json!([])), "{report}");
    let seen = ended(&sandbox).await;
    assert!(seen.packets_in > 0 && seen.ended.is_some(), "{seen:?}");
    let refused = page("call", &sandbox.base_url(), "sk-other", &[]).await;
    assert!(refused["log"].as_str().unwrap().contains("401"), "{refused}");

    // The SDK takes secrets only; here one is the platform's key.
    let secret = "ek_sandbox_0123456789";
    let sandbox = aiproxy_testkit::sandbox(secret).await;
    let report = page("agents", &sandbox.base_url(), secret, &["--add-model"]).await;
    assert_eq!((&report["connected"], &report["errors"]), (&json!(true), &json!([])), "{report}");
    assert_eq!(ended(&sandbox).await.ended, Some("peer"));
}

#[tokio::test]
async fn the_script_of_the_examples_calls_the_sandbox() {
    let sandbox = sandbox(CHANNEL_KEY).await;
    let dir = tempfile::tempdir().unwrap();
    let tries = async |arguments: &[&str]| {
        let mut script = Command::new(sdk::interpreter());
        script.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/call.py")).args(arguments);
        script.current_dir(dir.path()).env("AIPROXY_URL", sandbox.base_url()).env("AIPROXY_KEY", CHANNEL_KEY);
        let finished = run(script, Duration::from_secs(60)).await;
        assert_eq!(finished.code, Some(0), "{}\n{}", finished.stdout, finished.stderr);
        finished.stdout
    };
    let said = tries(&["--text", "one two", "--seconds", "1"]).await;
    assert_eq!(said, "one two\n4 tokens\nsound in answer.wav\n");
    let length = std::fs::metadata(dir.path().join("answer.wav")).unwrap().len();
    assert!(length > 44 + 48_000, "{length} bytes of sound");
    // What came back, sent again.
    tries(&["--wav", "answer.wav", "--out", "again.wav", "--seconds", "1"]).await;
    assert!(std::fs::metadata(dir.path().join("again.wav")).unwrap().len() > 44);
    assert_eq!(ended(&sandbox).await.ended, Some("hangup"));
}
