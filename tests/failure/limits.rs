//! Slow and numerous callers.

use aiproxy_testkit::{PROXY_KEY, Raw, RawUpstream, within};
use serde_json::{Value, json};

use crate::relay;

#[tokio::test]
async fn a_head_that_does_not_come_whole_is_given_up() {
    let app = relay().config(|c| c["system"]["limits"]["header_timeout"] = "1s".into()).start().await;
    for beginning in ["", "GET /v1/models HTTP/1.1\r\nhost: x\r\n"] {
        let mut raw = app.raw().await;
        raw.send(beginning).await;
        let answer = raw.answer().await;
        assert_eq!(answer.status, 408, "{beginning:?}");
        assert_eq!(answer.head.get("connection").as_deref(), Some("close"));
        assert_eq!(raw.rest().await, "");
    }
    app.finish().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let app = relay().config(|c| c["system"]["limits"]["keep_alive"] = "1s".into()).start().await;
    let mut raw = app.raw().await;
    raw.send(format!("GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {PROXY_KEY}\r\n\r\n"))
        .await;
    assert_eq!(raw.answer().await.status, 200);
    assert_eq!(raw.rest().await, "");
    app.finish().await;
}

#[tokio::test]
async fn an_upload_that_stops_coming_is_given_up() {
    let upstream = RawUpstream::recording().await;
    let app = relay()
        .config(|c| c["channels"]["main"]["timeouts"] = json!({"idle": "300ms"}))
        .upstream(&upstream)
        .start()
        .await;
    for kind in ["application/json", "application/octet-stream"] {
        let mut raw = app.raw().await;
        raw.send(format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {PROXY_KEY}\r\ncontent-type: {kind}\r\n\
             content-length: 100\r\n\r\n{{\"mod"
        ))
        .await;
        let answer = raw.answer().await;
        assert_eq!(answer.status, 408, "{kind}");
        let error: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(error["error"]["code"], "request_timeout", "{kind}");
        assert_eq!(answer.head.get("x-should-retry"), None);
    }
    assert!(upstream.received().is_empty());
    app.finish().await;
}

#[tokio::test]
async fn connections_beyond_the_bound_are_refused_until_one_ends() {
    let app = relay().config(|c| c["system"]["max_connections"] = 2.into()).start().await;
    let (mut first, mut second) = (app.client().await, app.client().await);
    for client in [&mut first, &mut second] {
        assert_eq!(client.send(app.get("/v1/models")).await.status, 200);
    }
    let mut third = app.raw().await;
    let answer = third.answer().await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.head.get("retry-after").as_deref(), Some("1"));
    let error: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(error["error"]["code"], "overloaded");
    drop(third);
    drop(first);
    // The relay hears of the end a moment later.
    within("a place", async {
        loop {
            let mut raw = Raw::connect(app.addr()).await;
            raw.send(format!(
                "GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {PROXY_KEY}\r\n\r\n"
            ))
            .await;
            match raw.answer().await.status {
                200 => break,
                status => assert_eq!(status, 503),
            }
        }
    })
    .await;
    assert_eq!(second.send(app.get("/v1/models")).await.status, 200, "who was there stays");
    app.finish().await;
}
