//! Connections that are kept open, and those that are opened ahead of need.

use aiproxy_testkit::{Platform, RawUpstream, TestCa, until};
use serde_json::json;

use super::{before, secure};
use crate::relay;

#[tokio::test]
async fn warm_connections_are_there_before_the_first_request() {
    let ca = TestCa::new();
    let platform =
        Platform::start(secure(&ca), |exchange| async move { exchange.answer(200, "ok").await }).await;
    let app = before(&platform, &ca, |c| c["channels"]["main"]["pool"] = json!({"warm": 2})).await;
    until("two connections", || (platform.connections() == 2).then_some(())).await;
    for _ in 0..5 {
        assert_eq!(app.get("/v1/a").send().await.text().await, "ok");
    }
    assert_eq!((platform.connections(), platform.exchanges()), (2, 5));
    app.finish().await;
}

#[tokio::test]
async fn a_platform_that_is_down_is_not_hammered_and_found_again() {
    let upstream = RawUpstream::recording().await;
    let app = relay()
        .also("b", upstream.addr())
        .config(|c| {
            c["system"]["workers"] = 1.into();
            c["channels"]["b"] = json!({
                "platform": "custom", "api_key": "sk-second/+=7Pq1Xs9Wd3Ef5Rg2Th6Yj", "base_url": "@b",
                "pool": {"warm": 1, "idle": "100ms"},
            });
        })
        .start()
        .await;
    until("a connection", || (upstream.connections() >= 1).then_some(())).await;
    app.other("b").unplug().await;
    let before = upstream.connections();
    // Each look of the relay finds none; it pauses longer and longer.
    aiproxy_testkit::until("the relay finding it down", || {
        app.process().stderr().contains("paus").then_some(())
    })
    .await;
    app.other("b").plug().await;
    until("another connection", || (upstream.connections() > before).then_some(())).await;
    assert!(upstream.received().is_empty());
    app.finish().await;
}

#[tokio::test]
async fn idle_connections_close_in_time() {
    let upstream = RawUpstream::recording().await;
    let app = relay()
        .upstream(&upstream)
        .config(|c| {
            c["system"]["workers"] = 1.into();
            c["channels"]["main"]["pool"] = json!({"idle": "1s"});
        })
        .start()
        .await;
    app.get("/v1/a").send().await.bytes().await;
    until("the connection's end", || (upstream.ended() == 1).then_some(())).await;
    app.get("/v1/a").send().await.bytes().await;
    assert_eq!(upstream.connections(), 2);
    app.finish().await;
}

#[tokio::test]
async fn idle_http2_connections_close_in_time() {
    let ca = TestCa::new();
    let platform =
        Platform::start(secure(&ca), |exchange| async move { exchange.answer(200, "ok").await }).await;
    let app = before(&platform, &ca, |c| c["channels"]["main"]["pool"] = json!({"idle": "1s"})).await;
    app.get("/v1/a").send().await.bytes().await;
    until("the connection's end", || (platform.ended() == 1).then_some(())).await;
    app.get("/v1/a").send().await.bytes().await;
    assert_eq!(platform.connections(), 2);
    app.finish().await;
}

#[tokio::test]
async fn no_more_are_kept_than_the_channel_says() {
    for (most, expected) in [(0, 3), (1, 1)] {
        let upstream = RawUpstream::recording().await;
        let app = relay()
            .upstream(&upstream)
            .config(|c| {
                c["system"]["workers"] = 1.into();
                c["channels"]["main"]["pool"] = json!({"max_idle": most});
            })
            .start()
            .await;
        for _ in 0..3 {
            app.get("/v1/a").send().await.bytes().await;
        }
        assert_eq!(upstream.connections(), expected, "{most}");
        app.finish().await;
    }
}
