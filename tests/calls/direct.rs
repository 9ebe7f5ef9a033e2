//! Calls whose media goes past AIProxy: the key is swapped, the call can be ended, what it uses is counted.

use aiproxy_testkit::{App, PROXY_KEY, until};
use serde_json::{Value, json};

use super::behaviours::{Caller, ended, hang_up, heard, sounds, url};
use super::python;
use crate::relay;

/// A relay that has no media port.
async fn direct() -> App {
    relay()
        .config(|c| {
            c["channels"]["main"]["platform"] = "openai".into();
            c["channels"]["main"]["realtime"] = json!({"webrtc": "direct"});
        })
        .start()
        .await
}

const WAITS: [&str; 7] = ["--channel", "oai-events", "--seconds", "0.5", "--end", "stay", "--sdp"];

async fn line(app: &App) -> Value {
    app.logged("the call's line", |line| line["protocol"] == "webrtc").await
}

#[tokio::test]
async fn media_goes_straight_and_what_is_used_is_counted() {
    let app = direct().await;
    let caller = Caller::place(&url(&app), PROXY_KEY, &[&WAITS[..], &["--say", "one two"]].concat()).await;
    assert!(caller.id.starts_with("rtc_aiproxy_"), "{}", caller.id);
    heard(app.sandbox(), 0).await;
    let call = app.sandbox().calls().remove(0);
    assert_eq!(call.model, "gpt-realtime");
    assert_eq!(hang_up(&app, &caller.id).await, 200);
    assert_eq!(ended(app.sandbox()).await.ended, Some("hangup"));
    let report = caller.report().await;
    // The caller's offer reached the platform, and the platform's answer the caller.
    assert_eq!(
        (report["offer"].as_str(), report["answer"].as_str()),
        (Some(&*call.offer), Some(&*call.answer))
    );
    let channel = &report["channels"][0];
    assert_eq!(
        (&channel["same"], &channel["said"], &channel["closed"]),
        (&json!(true), &json!("one two"), &json!(true)),
        "{report}"
    );
    let line = line(&app).await;
    assert_eq!((&line["usage"]["input"], &line["usage"]["output"]), (&json!(2), &json!(2)), "{line}");
    assert_eq!(
        (&line["outcome"], &line["call"]["caller"]["packets"]),
        (&json!("complete"), &json!(0)),
        "{line}"
    );
    app.metric_is("aiproxy_live_requests", 0.0).await;
    let (status, ..) = super::behaviours::refusal(
        app.ask("POST", &format!("/v1/realtime/calls/{}/hangup", caller_id(&report))),
    )
    .await;
    assert_eq!(status, 404);
    app.finish().await;
}

fn caller_id(report: &Value) -> &str {
    report["location"].as_str().and_then(|place| place.rsplit('/').next()).unwrap()
}

#[tokio::test]
async fn a_withdrawn_key_hangs_the_platforms_call_up_and_the_platforms_end_is_noticed() {
    let mut app = direct().await;
    let caller = Caller::place(&url(&app), PROXY_KEY, &WAITS).await;
    heard(app.sandbox(), 0).await;
    app.reconfigure(|c| c["users"]["user1"]["status"] = "disabled".into());
    assert!(app.reload().await);
    assert_eq!(ended(app.sandbox()).await.ended, Some("hangup"));
    let report = caller.report().await;
    assert_eq!((&report["state"], &report["never_ended"]), (&json!("closed"), &Value::Null), "{report}");
    let cut = line(&app).await;
    assert_eq!((&cut["outcome"], &cut["error"]), (&json!("cut"), &json!("user_disabled")), "{cut}");
    app.reconfigure(|c| c["users"]["user1"]["status"] = "active".into());
    assert!(app.reload().await);

    // The caller closes: the platform ends the call, and the relay hears of that.
    let report = python(&url(&app), PROXY_KEY, &["--channel", "oai-events", "--seconds", "1.5"]).await;
    sounds(&report, 440.0);
    until("the platform's end", || app.sandbox().calls().pop().filter(|call| call.ended.is_some())).await;
    app.metric_is("aiproxy_live_requests", 0.0).await;
    app.finish().await;
}

#[tokio::test]
async fn a_call_whose_events_cannot_be_seen_is_ended() {
    // The platform names no call.
    let upstream = super::Upstream::start(aiproxy_testkit::CHANNEL_KEY, &["--location", ""]).await;
    let app = relay()
        .also("aiortc", upstream.addr)
        .config(|c| {
            c["channels"]["main"]["platform"] = "openai".into();
            c["channels"]["main"]["base_url"] = "@aiortc".into();
            c["channels"]["main"]["realtime"] = json!({"webrtc": "direct"});
        })
        .start()
        .await;
    let report = python(&url(&app), PROXY_KEY, &["--channel", "a"]).await;
    assert_eq!(report["status"], 502, "{report}");
    app.metric_is("aiproxy_live_requests", 0.0).await;
    app.finish().await;
}
