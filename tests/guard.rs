//! The leak guard itself catches leaks.

use aiproxy_testkit::ws::{opcode, part};
use aiproxy_testkit::{CHANNEL_KEY, PROXY_KEY, RawUpstream, until};
use serde_json::json;

use crate::{chat, relay};

fn only(found: &[String], part: &str) {
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains(part), "{found:?}");
    assert!(!found[0].contains(PROXY_KEY) && !found[0].contains(CHANNEL_KEY), "a report holds no key");
}

#[tokio::test]
async fn the_guard_sees_a_channel_key_that_reaches_a_caller() {
    for key in [CHANNEL_KEY.to_owned(), "sk-channel%2F%2B%3D5Hs0Jg7Kp2Md9Nf4Qb8Rv1Xz".to_owned()] {
        let upstream =
            RawUpstream::answering(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{key}", key.len()))
                .await;
        let app = relay().upstream(&upstream).start().await;
        app.get("/v1/a").send().await.bytes().await;
        only(&app.end().await, "the callers' side: the API key of main coming down");
    }
}

#[tokio::test]
async fn the_guard_sees_a_proxy_key_that_reaches_the_platform() {
    let app = relay().start().await;
    // A body is the caller's own affair, and so a way to make a leak.
    app.post("/v1/chat/completions", &chat("gpt-4o", PROXY_KEY)).send().await;
    let found = app.end().await;
    assert!(
        found.iter().any(|found| found == "the platform's side: the Proxy-Key of user1 going up"),
        "{found:?}"
    );
}

#[tokio::test]
async fn the_guard_sees_behind_masks() {
    let upstream = RawUpstream::start(|mut conn| async move {
        conn.accept("", "").await;
        for _ in 0..2 {
            conn.frame().await;
        }
    })
    .await;
    let app = relay().upstream(&upstream).start().await;
    let mut socket = app.socket("/v1/realtime?model=m").open().await;
    let (begin, end) = PROXY_KEY.split_at(10);
    socket.bytes([part(opcode::TEXT, begin, true), part(0x80, end, true)].concat()).await;
    until("the message at the platform", || (upstream.ended() > 0).then_some(())).await;
    drop(socket);
    // On the seam of two reads it may be seen twice.
    let found = app.end().await;
    let seen = |found: &String| found == "the platform's side: the Proxy-Key of user1 going up";
    assert!(!found.is_empty() && found.iter().all(seen), "{found:?}");
}

#[tokio::test]
async fn the_guard_sees_secrets_in_what_the_relay_prints_and_logs() {
    let app = relay().config(|c| c["system"]["log"]["access"] = "access.log".into()).start().await;
    app.hide_from_callers("printed", "listening on http");
    app.get("/v1/models").send().await;
    only(&app.end().await, "printed in standard error");

    let app = relay().config(|c| c["system"]["log"]["access"] = "access.log".into()).start().await;
    app.hide_from_platform("logged", "\"caller_ip_or_not\"");
    app.hide_from_platform("logged too", "\"outcome\":\"complete\"");
    app.get("/v1/models").send().await;
    only(&app.end().await, "logged too in the access log");

    let app = relay().start().await;
    app.hide_from_platform("logged", "\"outcome\":\"complete\"");
    app.get("/v1/models").send().await;
    only(&app.end().await, "logged in standard output");
}

#[tokio::test]
async fn the_guard_sees_a_relay_that_did_not_end_well() {
    let app = relay().start().await;
    app.process().signal("KILL");
    assert!(app.process().ended_within(aiproxy_testkit::BOUND).await.is_some());
    only(&app.end().await, "the relay ended with signal: 9");
}

#[tokio::test]
#[should_panic(expected = "the callers' side: the API key of main coming down")]
async fn the_guard_works_without_being_called() {
    let body = json!({"echo": CHANNEL_KEY}).to_string();
    let upstream =
        RawUpstream::answering(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
            .await;
    let app = relay().upstream(&upstream).start().await;
    app.get("/v1/a").send().await.bytes().await;
}
