//! How sockets end when nobody closes them properly, and when AIProxy does.

use std::time::Duration;

use aiproxy_testkit::ws::{closing, frame, opcode, part};
use aiproxy_testkit::{App, BOUND, RawUpstream, until};
use serde_json::{Value, json};

use super::{REALTIME, echoing};
use crate::relay;

const OTHER: &str = "pk_other_5Gd8Ws2Kx9Lm3";

/// A platform that says how it was closed.
async fn closed_with(expected: Option<u16>) -> RawUpstream {
    RawUpstream::start(move |mut conn| async move {
        conn.accept("", "").await;
        let mut last = None;
        while let Some(frame) = conn.frame().await {
            last = (frame.opcode == opcode::CLOSE).then(|| frame.close().0);
        }
        assert_eq!(last, expected, "what the platform hears");
    })
    .await
}

fn two_users(c: &mut Value) {
    c["channels"]["spare"] = c["channels"]["main"].clone();
    c["users"]["user1"]["channels"] = json!(["main", "spare"]);
    c["users"]["other"] = json!({"proxy_key": OTHER, "channels": ["spare"]});
}

async fn script_ended(upstream: &RawUpstream) {
    until("the platform's script at its end", || (upstream.ended() > 0).then_some(())).await;
}

async fn line_of(app: &App, id: &str) -> Value {
    app.logged("the line", |line| line["request_id"] == id).await
}

#[tokio::test]
async fn a_caller_that_is_lost_is_going_away() {
    let upstream = closed_with(Some(1001)).await;
    let app = relay().upstream(&upstream).start().await;
    let socket = app.socket(REALTIME).open().await;
    let id = socket.id();
    socket.reset();
    script_ended(&upstream).await;
    let line = line_of(&app, &id).await;
    assert_eq!((&line["outcome"], &line["close_code"]), (&json!("caller_left"), &Value::Null));
    app.finish().await;
}

#[tokio::test]
async fn a_caller_that_is_lost_within_a_frame_takes_the_platforms_connection_with_it() {
    let upstream = RawUpstream::start(|mut conn| async move {
        conn.accept("", "").await;
        assert_eq!(conn.frame().await, None, "no close frame lands in another frame");
    })
    .await;
    let app = relay().upstream(&upstream).start().await;
    let mut socket = app.socket(REALTIME).open().await;
    let bytes = frame(opcode::BINARY, vec![1; 1000], true);
    socket.bytes(&bytes[..500]).await;
    until("half a frame at the platform", || (upstream.bytes(0).len() > 600).then_some(())).await;
    drop(socket);
    script_ended(&upstream).await;
    app.finish().await;
}

#[tokio::test]
async fn a_platform_that_is_lost_is_1011() {
    let upstream = RawUpstream::start(|mut conn| async move {
        conn.accept("", frame(opcode::TEXT, "x", false)).await;
        conn.frame().await;
    })
    .await;
    let app = relay().upstream(&upstream).start().await;
    let mut socket = app.socket(REALTIME).open().await;
    assert_eq!(socket.next().await.unwrap().text(), "x");
    socket.send(opcode::TEXT, "leave").await;
    assert_eq!(socket.closed().await.0, 1011);
    let line = line_of(&app, &socket.id()).await;
    assert_eq!((&line["outcome"], &line["close_code"]), (&json!("upstream_failed"), &json!(1011)));
    drop(socket);
    app.finish().await;
}

#[tokio::test]
async fn silence_and_age_end_with_1001() {
    for (setting, reason) in [("idle", "idle"), ("total", "the longest time of a socket is over")] {
        let upstream = closed_with(Some(1001)).await;
        let app = relay()
            .upstream(&upstream)
            .config(|c| c["channels"]["main"]["websocket"] = json!({setting: "1s"}))
            .start()
            .await;
        let mut socket = app.socket(REALTIME).open().await;
        assert_eq!(socket.closed().await, (1001, reason.to_owned()));
        let line = line_of(&app, &socket.id()).await;
        assert_eq!((&line["outcome"], &line["close_code"]), (&json!("complete"), &json!(1001)));
        drop(socket);
        script_ended(&upstream).await;
        app.finish().await;
    }
}

#[tokio::test]
async fn a_platform_that_does_not_answer_the_handshake_is_left() {
    let upstream = RawUpstream::start(|mut conn| async move {
        conn.request().await;
        conn.closed().await;
    })
    .await;
    let app = relay()
        .upstream(&upstream)
        .config(|c| c["channels"]["main"]["websocket"] = json!({"handshake": "1s"}))
        .start()
        .await;
    assert_eq!(app.socket(REALTIME).refusal().await, (504, "upstream_timeout".to_owned()));
    app.finish().await;
}

#[tokio::test]
async fn a_withdrawn_key_user_or_channel_cuts_its_sockets_and_no_other() {
    type Change = fn(&mut Value);
    let rows: [(&str, Change, &str); 4] = [
        ("the user disabled", |c| c["users"]["user1"]["status"] = "disabled".into(), "user_disabled"),
        (
            "the key changed",
            |c| c["users"]["user1"]["proxy_key"] = "pk_fresh_8Hn4Vt6Bz1Qc7".into(),
            "invalid_key",
        ),
        (
            "the channel disabled",
            |c| c["channels"]["main"]["status"] = "disabled".into(),
            "channel_unavailable",
        ),
        (
            "the channel taken away",
            |c| c["users"]["user1"]["channels"] = json!(["spare"]),
            "channel_not_allowed",
        ),
    ];
    for (what, change, reason) in rows {
        let upstream = echoing().await;
        let mut app = relay().upstream(&upstream).config(two_users).start().await;
        let mut mine = app.socket(REALTIME).open().await;
        let mut theirs = app.socket(REALTIME).key(OTHER).open().await;
        app.metric_is("aiproxy_live_requests", 2.0).await;
        assert!(app.change(change).await, "{what}");
        assert_eq!(mine.closed().await, (4001, "revoked".to_owned()), "{what}");
        let line = line_of(&app, &mine.id()).await;
        assert_eq!((&line["outcome"], &line["error"]), (&json!("cut"), &json!(reason)), "{what}");
        assert_eq!((&line["close_code"], &line["protocol"]), (&json!(4001), &json!("websocket")), "{what}");
        theirs.send(opcode::TEXT, "still here").await;
        assert_eq!(theirs.next().await.unwrap().text(), "still here", "{what}");
        drop((mine, theirs));
        app.finish().await;
    }
}

#[tokio::test]
async fn a_caller_that_does_not_read_is_cut_all_the_same() {
    let upstream = RawUpstream::start(|mut conn| async move {
        conn.accept("", "").await;
        let piece = frame(opcode::BINARY, vec![1; 1 << 20], false);
        while conn.send(&piece).await {}
    })
    .await;
    let mut app = relay().upstream(&upstream).config(two_users).start().await;
    let stopped = app.socket(REALTIME).open().await;
    let id = stopped.id();
    assert!(app.change(|c| c["users"]["user1"]["status"] = "disabled".into()).await);
    let line = line_of(&app, &id).await;
    assert_eq!((&line["outcome"], &line["error"]), (&json!("cut"), &json!("user_disabled")));
    script_ended(&upstream).await;
    drop(stopped);
    app.finish().await;
}

#[tokio::test]
async fn a_reload_touches_no_socket_that_it_is_not_about() {
    let upstream = echoing().await;
    let mut app = relay().upstream(&upstream).config(two_users).start().await;
    let mut socket = app.socket(REALTIME).open().await;
    for number in 0..5 {
        assert!(
            app.change(|c| {
                c["users"]["user1"]["name"] = format!("user {number}").into();
                c["channels"]["main"]["api_key"] = format!("sk-rotated-0Pm3Xk8Vc5-{number}").into();
                c["channels"]["main"]["websocket"] = json!({"idle": format!("{}m", number + 1)});
                c["users"]["other"]["status"] = if number % 2 == 0 { "disabled" } else { "active" }.into();
            })
            .await
        );
        socket.send(opcode::TEXT, number.to_string()).await;
        assert_eq!(socket.next().await.unwrap().text(), number.to_string());
    }
    drop(socket);
    app.finish().await;
}

#[tokio::test]
async fn at_the_end_of_the_drain_time_sockets_close_with_1001() {
    let upstream = closed_with(Some(1001)).await;
    let app =
        relay().upstream(&upstream).config(|c| c["system"]["drain"] = json!({"timeout": "1s"})).start().await;
    let mut socket = app.socket(REALTIME).open().await;
    app.process().signal("TERM");
    assert_eq!(socket.closed().await.0, 1001);
    socket.send(opcode::CLOSE, closing(1001, "")).await;
    assert_eq!(socket.rest().await, "");
    script_ended(&upstream).await;
    assert_eq!(app.process().ended_within(BOUND).await.and_then(|status| status.code()), Some(0));
    let line = line_of(&app, &socket.id()).await;
    assert_eq!((&line["outcome"], &line["close_code"]), (&json!("complete"), &json!(1001)));
    app.finish().await;
}

#[tokio::test]
async fn a_socket_that_ends_meanwhile_does_not_hold_the_drain_up() {
    let upstream = echoing().await;
    let app =
        relay().upstream(&upstream).config(|c| c["system"]["drain"] = json!({"timeout": "1h"})).start().await;
    let mut socket = app.socket(REALTIME).open().await;
    app.process().signal("TERM");
    // Long enough for the threads that have no socket to have ended.
    for _ in 0..20 {
        socket.send(opcode::TEXT, "still served").await;
        assert_eq!(socket.next().await.unwrap().text(), "still served");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    socket.send(opcode::CLOSE, closing(1000, "bye")).await;
    assert_eq!(socket.closed().await, (1000, "bye".to_owned()));
    assert_eq!(socket.rest().await, "");
    assert_eq!(app.process().ended_within(BOUND).await.and_then(|status| status.code()), Some(0));
    app.finish().await;
}

#[tokio::test]
async fn a_thread_that_has_nothing_left_to_drain_ends_no_socket_of_another() {
    let upstream = echoing().await;
    let app = relay()
        .upstream(&upstream)
        .config(|c| {
            c["system"]["workers"] = 4.into();
            c["system"]["drain"] = json!({"timeout": "1h"});
        })
        .start()
        .await;
    let mut socket = app.socket(REALTIME).open().await;
    app.process().signal("TERM");
    // All threads have closed their listeners, and three of them wait for nothing.
    until("closed listeners", || std::net::TcpStream::connect(app.relay_addr()).is_err().then_some(())).await;
    for number in 0..100 {
        socket.send(opcode::TEXT, number.to_string()).await;
        assert_eq!(socket.next().await.unwrap().text(), number.to_string());
    }
    socket.send(opcode::CLOSE, closing(1000, "bye")).await;
    assert_eq!(socket.closed().await, (1000, "bye".to_owned()));
    assert_eq!(app.process().ended_within(BOUND).await.and_then(|status| status.code()), Some(0));
    app.finish().await;
}

#[tokio::test]
async fn a_close_frame_waits_for_the_end_of_the_frame_under_way() {
    let upstream = RawUpstream::start(|mut conn| async move {
        conn.accept("", "").await;
        let bytes = frame(opcode::BINARY, vec![1; 1000], false);
        conn.send(&bytes[..500]).await;
        conn.frame().await;
        conn.send(&bytes[500..]).await;
        conn.closed().await;
    })
    .await;
    let app = relay().upstream(&upstream).start().await;
    let mut socket = app.socket(REALTIME).open().await;
    until("half a frame at the caller", || (app.callers().downward() > 600).then_some(())).await;
    // A continuation of nothing.
    socket.bytes(part(0x80, "x", true)).await;
    let whole = socket.next().await.unwrap();
    assert_eq!((whole.opcode, whole.payload.len()), (opcode::BINARY, 1000));
    assert_eq!(socket.closed().await.0, 1002);
    drop(socket);
    app.finish().await;
}

#[tokio::test]
async fn who_stops_sending_after_its_close_frame_still_hears_the_answer() {
    let upstream = RawUpstream::start(|mut conn| async move {
        conn.accept("", "").await;
        let close = conn.frame().await.expect("a close frame");
        conn.send(frame(opcode::TEXT, "one more thing", false)).await;
        conn.send(frame(opcode::CLOSE, &close.payload, false)).await;
    })
    .await;
    let app = relay().upstream(&upstream).start().await;
    let mut socket = app.socket(REALTIME).open().await;
    socket.send(opcode::CLOSE, closing(1000, "bye")).await;
    socket.finish().await;
    assert_eq!(socket.next().await.unwrap().text(), "one more thing");
    assert_eq!(socket.closed().await, (1000, "bye".to_owned()));
    assert_eq!(socket.rest().await, "");
    drop(socket);
    app.finish().await;
}
