//! 27: hangup, refer and sidebands belong to the call: its channel, its key, its user.

use aiproxy_testkit::{App, Ask, PROXY_KEY, ws};
use serde_json::json;

use super::{CALLS, Caller, all_gone, calling, hang_up, heard, hung_up, id_of, offering, refusal};

const OTHER_KEY: &str = "sk-second-8Vb3Wc6Yd1F7Qk2mZx9Lr4Tn";
const STRANGER: &str = "pk_user2_4Tn8Vb3Wc6Yd1F7Qk2mZx9Lr";

async fn two_platforms(second: &aiproxy_testkit::Sandbox) -> App {
    calling()
        .also("second", second.addr())
        .config(|c| {
            c["channels"]["other"] =
                json!({"name": "other", "platform": "custom", "api_key": OTHER_KEY, "base_url": "@second"});
            c["users"]["user1"]["channels"] = json!(["main", "other"]);
            c["users"]["user2"] =
                json!({"name": "李四", "proxy_key": STRANGER, "channels": ["main", "other"]});
        })
        .start()
        .await
}

#[tokio::test]
async fn b27_sidebands_and_hangups_use_the_key_that_made_the_call() {
    let second = aiproxy_testkit::sandbox(OTHER_KEY).await;
    let app = two_platforms(&second).await;
    // Both platforms would refuse the other one's key.
    let waits = ["--channel", "oai-events", "--seconds", "0.5", "--end", "stay"];
    let arguments = [&waits[..], &["--header", "x-aiproxy-channel: other"]].concat();
    let caller = Caller::place(&super::url(&app), PROXY_KEY, &arguments).await;
    heard(&second, 0).await;
    assert!(app.sandbox().calls().is_empty());
    let mut sideband = app.socket(&format!("/v1/realtime?call_id={}", caller.id)).open().await;
    assert_eq!(sideband.event().await["type"], "session.created");
    sideband.json(&json!({"type": "session.update", "session": {"instructions": "By the way."}})).await;
    assert_eq!(sideband.event().await["session"]["instructions"], "By the way.");
    let refer =
        app.post(&format!("/v1/realtime/calls/{}/refer", caller.id), &json!({"target_uri": "tel:+1"}));
    assert_eq!(refer.send().await.status, 200);
    assert_eq!(hang_up(&app, &caller.id).await, 200);
    let report = caller.report().await;
    // What the sideband changed, the caller heard as well.
    let events = super::super::texts(&report["channels"][0]["events"]);
    assert!(events.contains(&"session.updated"), "{report}");
    hung_up(&second).await;
    assert!(second.requests().iter().all(|request| request.authorized));
    app.finish().await;
}

#[tokio::test]
async fn b27_a_call_of_somebody_else_or_one_that_is_over_is_not_there() {
    let second = aiproxy_testkit::sandbox(OTHER_KEY).await;
    let app = two_platforms(&second).await;
    let answer = offering(&app, CALLS).send().await;
    let id = id_of(&answer);
    let asked = app.sandbox().requests().len();
    gone(&app, &id, STRANGER, asked).await;
    let mut sideband = app.socket(&format!("/v1/realtime?call_id={id}")).open().await;
    sideband.event().await;
    sideband.send(ws::opcode::CLOSE, ws::closing(1000, "")).await;
    drop(sideband);
    assert_eq!(hang_up(&app, &id).await, 200);
    all_gone(&app).await;
    let asked = app.sandbox().requests().len();
    gone(&app, &id, PROXY_KEY, asked).await;
    app.finish().await;
}

/// Nobody finds the call with this key, and no platform is asked for it.
async fn gone(app: &App, id: &str, key: &str, asked: usize) {
    for target in [format!("/v1/realtime/calls/{id}/hangup"), format!("/v1/realtime/calls/{id}/refer")] {
        let ask = Ask::new(app.addr(), key, "POST", &target).json(&json!({"target_uri": "tel:+1"}));
        let (status, code, _) = refusal(ask).await;
        assert_eq!((status, &*code), (404, "call_id_not_found"), "{target}");
    }
    let target = format!("/v1/realtime?call_id={id}");
    assert_eq!(app.socket(&target).key(key).refusal().await, (404, "call_id_not_found".to_owned()));
    assert_eq!(app.sandbox().requests().len(), asked);
}
