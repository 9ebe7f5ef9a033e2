//! 26: however a call ends, both sides and everything that was held for it are free soon.

use std::path::PathBuf;
use std::time::Duration;

use aiproxy_testkit::{App, BOUND, CHANNEL_KEY, PROXY_KEY, Process, until};
use serde_json::{Value, json};

use super::super::{Upstream, python};
use super::{Caller, all_gone, calling, descriptors, hang_up, heard, hung_up, platform_hangs_up, udp, url};

/// One thread, so that connections to the platform are as many as there were before.
fn small(c: &mut Value) {
    c["system"]["workers"] = 1.into();
    c["system"]["media"] = json!({"grace": "500ms"});
}

async fn line(app: &App, number: usize) -> Value {
    let lines = || {
        app.process().stdout().lines().filter_map(|it| serde_json::from_str(it).ok()).collect::<Vec<Value>>()
    };
    let calls = || lines().into_iter().filter(|line| line["protocol"] == "webrtc").nth(number);
    until("the call's line", calls).await
}

/// What the process holds besides connections to the platform; of those, a few are kept for the next
/// request.
fn held(app: &App) -> Vec<PathBuf> {
    let table = format!("/proc/{}/net/tcp", app.process().pid());
    let platform = format!("0100007F:{:04X}", app.platform().addr().port());
    let connections: Vec<String> = std::fs::read_to_string(table)
        .unwrap_or_default()
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .filter(|words| words.get(2) == Some(&&*platform))
        .filter_map(|words| Some(format!("socket:[{}]", words.get(9)?)))
        .collect();
    let (kept, others): (Vec<_>, Vec<_>) = descriptors(app.process())
        .into_iter()
        .partition(|link| connections.iter().any(|connection| link.as_os_str() == &**connection));
    assert!(kept.len() <= 2, "{kept:?}");
    others
}

/// Descriptors are back at what they were.
async fn settled(app: &App, baseline: &[PathBuf]) {
    all_gone(app).await;
    let mut left = Vec::new();
    for _ in 0..1000 {
        left = held(app);
        if left.len() <= baseline.len() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    left.retain(|it| !baseline.contains(it));
    panic!("descriptors beyond those before: {left:?}");
}

#[tokio::test]
async fn b26_hangups_farewells_and_silence_free_both_sides() {
    let app = calling().config(small).start().await;
    assert_eq!(udp(app.process()), 1, "the media port");
    // The first one leaves a connection to the platform in the pool.
    python(&url(&app), PROXY_KEY, &["--channel", "a", "--seconds", "0.3"]).await;
    hung_up(app.sandbox()).await;
    all_gone(&app).await;
    let baseline = held(&app);
    assert_eq!(line(&app, 0).await["outcome"], "complete");

    let caller = Caller::connected(&app, &[]).await;
    assert_eq!(udp(app.process()), 2);
    assert_eq!(hang_up(&app, &caller.id).await, 200);
    hung_up(app.sandbox()).await;
    let report = caller.report().await;
    assert_eq!((&report["state"], &report["never_ended"]), (&json!("closed"), &Value::Null), "{report}");
    assert_eq!(line(&app, 1).await["outcome"], "complete");
    settled(&app, &baseline).await;

    let caller = Caller::connected(&app, &[]).await;
    platform_hangs_up(app.sandbox()).await;
    let report = caller.report().await;
    assert_eq!((&report["state"], &report["never_ended"]), (&json!("closed"), &Value::Null), "{report}");
    assert_eq!(line(&app, 2).await["outcome"], "complete");
    settled(&app, &baseline).await;

    // Nobody says goodbye.
    python(&url(&app), PROXY_KEY, &["--channel", "a", "--seconds", "0.3", "--end", "vanish"]).await;
    hung_up(app.sandbox()).await;
    assert_eq!(line(&app, 3).await["outcome"], "caller_left");
    settled(&app, &baseline).await;
    app.finish().await;
}

#[tokio::test]
async fn b26_a_caller_who_is_not_heard_for_a_moment_keeps_its_call() {
    let app = calling().config(|c| c["system"]["media"] = json!({"grace": "20s"})).start().await;
    let caller = Caller::connected(&app, &["--seconds", "12"]).await;
    caller.process.signal("STOP");
    // Long enough to count as out of reach.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let before = app.sandbox().calls()[0].packets_in;
    caller.process.signal("CONT");
    until("sound again", || app.sandbox().calls().pop().filter(|call| call.packets_in > before + 20)).await;
    assert_eq!(hang_up(&app, &caller.id).await, 200);
    assert_eq!(caller.report().await["channels"][0]["closed"], true);
    assert_eq!(line(&app, 0).await["outcome"], "complete");
    all_gone(&app).await;
    app.finish().await;
}

#[tokio::test]
async fn b26_a_platform_that_is_killed_and_a_caller_who_never_comes_free_the_other_side() {
    let upstream = Upstream::start(CHANNEL_KEY, &[]).await;
    let addr = upstream.addr;
    let app = calling()
        .also("aiortc", addr)
        .config(|c| {
            small(c);
            c["channels"]["main"]["base_url"] = "@aiortc".into();
            c["channels"]["never"] = json!({"name": "never", "platform": "custom", "api_key": CHANNEL_KEY});
            c["users"]["user1"]["channels"] = json!(["main", "never"]);
            c["system"]["media"]["setup"] = "1s".into();
        })
        .start()
        .await;
    let waits = ["--channel", "a", "--seconds", "0.5", "--end", "stay"];
    let caller = Caller::place(&url(&app), PROXY_KEY, &waits).await;
    let mut connected = false;
    for _ in 0..500 {
        let stat = upstream.stat().await;
        connected = stat["calls"][0]["received"].as_array().is_some_and(|received| received.len() > 5);
        if connected {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(connected);
    drop(upstream);
    let report = caller.report().await;
    assert_eq!((&report["state"], &report["never_ended"]), (&json!("closed"), &Value::Null), "{report}");
    let line = app.logged("the line", |line| line["protocol"] == "webrtc").await;
    assert_eq!((&line["outcome"], &line["status"]), (&json!("upstream_failed"), &json!(201)), "{line}");
    all_gone(&app).await;

    // An offer with nobody behind it.
    let mut ask = super::offering(&app, super::CALLS);
    ask = ask.header("x-aiproxy-channel", "never");
    assert_eq!(ask.send().await.status, 201);
    hung_up(app.sandbox()).await;
    let line = app.logged("the line", |line| line["channel"] == "never").await;
    assert_eq!(
        (&line["outcome"], &line["call"]["setup_us"]),
        (&json!("caller_left"), &Value::Null),
        "{line}"
    );
    all_gone(&app).await;
    app.finish().await;
}

#[tokio::test]
async fn b26_a_withdrawn_key_and_the_longest_life_end_calls() {
    let mut app = calling().config(small).start().await;
    let caller = Caller::connected(&app, &[]).await;
    app.reconfigure(|c| c["users"]["user1"]["status"] = "disabled".into());
    assert!(app.reload().await);
    hung_up(app.sandbox()).await;
    let report = caller.report().await;
    assert_eq!((&report["state"], &report["never_ended"]), (&json!("closed"), &Value::Null), "{report}");
    let cut = line(&app, 0).await;
    assert_eq!((&cut["outcome"], &cut["error"]), (&json!("cut"), &json!("user_disabled")), "{cut}");
    all_gone(&app).await;

    app.reconfigure(|c| {
        c["users"]["user1"]["status"] = "active".into();
        c["channels"]["main"]["realtime"] = json!({"total": "4s"});
    });
    assert!(app.reload().await);
    let waits = ["--channel", "a", "--seconds", "0.5", "--end", "stay"];
    let caller = Caller::place(&url(&app), PROXY_KEY, &waits).await;
    heard(app.sandbox(), 1).await;
    let report = caller.report().await;
    assert_eq!((&report["state"], &report["never_ended"]), (&json!("closed"), &Value::Null), "{report}");
    hung_up(app.sandbox()).await;
    assert_eq!(line(&app, 1).await["outcome"], "complete");
    all_gone(&app).await;
    app.finish().await;
}

#[tokio::test]
async fn b26_the_end_of_the_process_waits_for_calls_and_then_ends_them() {
    let app = calling().config(|c| c["system"]["drain"] = json!({"timeout": "1s"})).start().await;
    let caller = Caller::connected(&app, &[]).await;
    app.process().signal("TERM");
    let status = within_bound(app.process()).await;
    assert_eq!(status, Some(0));
    hung_up(app.sandbox()).await;
    let report = caller.report().await;
    assert_eq!((&report["state"], &report["never_ended"]), (&json!("closed"), &Value::Null), "{report}");
    let line = line(&app, 0).await;
    assert_eq!((&line["outcome"], &line["status"]), (&json!("complete"), &json!(201)), "{line}");
    app.finish().await;
}

async fn within_bound(process: &Process) -> Option<i32> {
    process.ended_within(BOUND).await.and_then(|status| status.code())
}
