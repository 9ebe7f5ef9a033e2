//! 29: what is used is counted once, and recorded however the call ends.

use aiproxy_testkit::{App, PROXY_KEY, until};
use serde_json::{Value, json};

use super::super::python;
use super::{Caller, all_gone, calling, hang_up};

fn lines(app: &App) -> Vec<Value> {
    let text = std::fs::read_to_string(app.dir().join("access.log")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn logging(c: &mut Value) {
    c["system"]["log"]["access"] = "access.log".into();
    c["system"]["journal"] = json!({"session_interval": "1s"});
    c["channels"]["main"]["prices"] =
        json!({"currency": "USD", "models": {"gpt-realtime*": {"input": 4.0, "output": 16.0}}});
}

/// The lines of calls, once there are so many.
async fn of_calls(app: &App, count: usize) -> Vec<Value> {
    let calls = || lines(app).into_iter().filter(|line| line["protocol"] == "webrtc").collect::<Vec<_>>();
    until("the lines of calls", || Some(calls()).filter(|calls| calls.len() >= count)).await
}

#[tokio::test]
async fn b29_tokens_are_counted_once_though_a_sideband_hears_of_them_too() {
    let app = calling().config(logging).start().await;
    let caller = Caller::connected(&app, &[]).await;
    let mut sideband = app.socket(&format!("/v1/realtime?call_id={}", caller.id)).open().await;
    assert_eq!(sideband.event().await["type"], "session.created");
    let content = json!([{"type": "input_text", "text": "one two"}]);
    let item = json!({"type": "message", "role": "user", "content": content});
    sideband.json(&json!({"type": "conversation.item.create", "item": item})).await;
    sideband.json(&json!({"type": "response.create"})).await;
    let used = loop {
        let event = sideband.event().await;
        if event["type"] == "response.done" {
            break event["response"]["usage"].clone();
        }
    };
    assert_eq!(used["total_tokens"], 4);
    assert_eq!(hang_up(&app, &caller.id).await, 200);
    let report = caller.report().await;
    assert_eq!(report["channels"][0]["usage"], used, "the caller heard it as well");
    all_gone(&app).await;
    let calls = of_calls(&app, 1).await;
    let [line] = &*calls else { panic!("{calls:?}") };
    assert_eq!((&line["usage"]["input"], &line["usage"]["output"]), (&json!(2), &json!(2)), "{line}");
    assert_eq!(
        (&line["outcome"], &line["status"], &line["model"]),
        (&json!("complete"), &json!(201), &json!("gpt-realtime"))
    );
    assert!(line["cost"].as_f64().unwrap() > 0.0);
    let call = &line["call"];
    assert!(call["setup_us"].as_u64().unwrap() > 0 && call["connected_us"].as_u64().unwrap() > 0, "{call}");
    for side in ["caller", "platform"] {
        let figures = &call[side];
        assert!(
            figures["packets"].as_u64().unwrap() > 5 && figures["bytes"].as_u64().unwrap() > 100,
            "{call}"
        );
        assert!(figures["messages"].as_u64().unwrap() > 9, "{call}");
    }
    let bytes =
        |side: &str| call[side]["bytes"].as_u64().unwrap() + call[side]["message_bytes"].as_u64().unwrap();
    assert_eq!(
        (line["bytes_in"].as_u64(), line["bytes_out"].as_u64()),
        (Some(bytes("caller")), Some(bytes("platform")))
    );
    // Who listens uses nothing.
    let sidebands = until("the sideband's line", || {
        Some(lines(&app).into_iter().filter(|line| line["protocol"] == "websocket").collect::<Vec<_>>())
            .filter(|lines| !lines.is_empty())
    })
    .await;
    assert_eq!(
        (sidebands.len(), &sidebands[0]["usage"], &sidebands[0]["cost"]),
        (1, &Value::Null, &Value::Null),
        "{sidebands:?}"
    );
    app.finish().await;
}

#[tokio::test]
async fn b29_what_a_killed_process_knew_of_a_call_is_recorded_by_the_next_one() {
    let mut app = calling().config(logging).start().await;
    let caller = Caller::connected(&app, &["--say", "one two three", "--seconds", "5", "--stay", "1"]).await;
    // A report is made each second: the second one knows what was used.
    let record = || app.sandbox().calls().pop().filter(|call| call.packets_in > 150);
    until("the call going on for a while", record).await;
    app.restart_after("KILL").await;
    let report = caller.report().await;
    assert_eq!(report["channels"][0]["said"], "one two three");
    let calls = of_calls(&app, 1).await;
    let line = &calls[0];
    assert_eq!(
        (calls.len(), &line["outcome"], &line["status"]),
        (1, &json!("aborted"), &json!(201)),
        "{line}"
    );
    assert_eq!((&line["usage"]["input"], &line["usage"]["output"]), (&json!(3), &json!(3)), "{line}");
    assert!(line["call"]["caller"]["packets"].as_u64().unwrap() > 20, "{line}");
    // It is over: nothing is recorded a second time.
    app.restart_after("TERM").await;
    assert_eq!(of_calls(&app, 1).await.len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn b29_a_call_that_is_refused_is_one_line_too() {
    let app = calling().config(logging).start().await;
    let report = python(&format!("{}/v1/realtime/calls", app.url()), PROXY_KEY, &[]).await;
    assert_eq!(report["status"], 400, "{report}");
    let line = of_calls(&app, 1).await.remove(0);
    assert_eq!(
        (&line["outcome"], &line["error"], &line["call"]),
        (&json!("refused"), &json!("bad_request"), &Value::Null),
        "{line}"
    );
    app.finish().await;
}
