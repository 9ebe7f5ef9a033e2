//! Frames as they should be and as they should not be, end to end.

use aiproxy_testkit::ws::{closing, frame, opcode, part};
use aiproxy_testkit::{PROXY_KEY, RawUpstream};
use serde_json::json;

use super::{REALTIME, echoing};
use crate::relay;

/// What a caller may send, cut as it likes.
fn proper() -> Vec<u8> {
    let mut bytes = part(opcode::TEXT, "in", true);
    bytes.extend(frame(opcode::PING, "between", true));
    bytes.extend(part(opcode::CONTINUATION, "", true));
    bytes.extend(part(0x80, " pieces", true));
    bytes.extend(frame(opcode::BINARY, vec![7; 126], true));
    bytes.extend(frame(opcode::BINARY, vec![8; 65535], true));
    bytes.extend(frame(opcode::BINARY, vec![9; 65536], true));
    bytes.extend(frame(opcode::PONG, "", true));
    bytes
}

async fn comes_back(socket: &mut aiproxy_testkit::Socket) {
    let mut seen = Vec::new();
    for _ in 0..7 {
        let next = socket.next().await.expect("a frame");
        assert_eq!(next.mask, None, "no server masks");
        seen.push((next.fin, next.opcode, next.payload.len()));
    }
    // The platform does not answer a pong, but sends it back.
    assert_eq!(
        seen,
        [
            (false, opcode::TEXT, 2),
            (true, opcode::PONG, 7),
            (false, opcode::CONTINUATION, 0),
            (true, opcode::CONTINUATION, 7),
            (true, opcode::BINARY, 126),
            (true, opcode::BINARY, 65535),
            (true, opcode::BINARY, 65536),
        ]
    );
    assert_eq!(socket.next().await.unwrap().opcode, opcode::PONG);
}

#[tokio::test]
async fn proper_frames_pass_however_they_are_cut() {
    let upstream = echoing().await;
    let app = relay().upstream(&upstream).start().await;
    // All at once, behind the handshake in the same write, and in small pieces.
    let mut socket = app.socket(REALTIME).open().await;
    socket.bytes(proper()).await;
    comes_back(&mut socket).await;
    let mut socket = app.socket(REALTIME).behind(proper()).open().await;
    comes_back(&mut socket).await;
    let mut socket = app.socket(REALTIME).open().await;
    let bytes = proper();
    let (head, tail) = bytes.split_at(400);
    for byte in head {
        socket.bytes([*byte]).await;
    }
    for piece in tail.chunks(9973) {
        socket.bytes(piece).await;
    }
    comes_back(&mut socket).await;
    drop(socket);
    app.finish().await;
}

#[tokio::test]
async fn what_comes_with_the_101_of_the_platform_is_not_lost() {
    for split in [0, 1, 3, 40] {
        let upstream = RawUpstream::start(move |mut conn| async move {
            let mut first = frame(opcode::TEXT, "{\"type\":\"session.created\"}", false);
            first.extend(frame(opcode::BINARY, vec![1; 100_000], false));
            let (with, after) = first.split_at(if split == 0 { first.len() } else { split });
            conn.accept("", with).await;
            conn.send(after).await;
            conn.echo().await;
        })
        .await;
        let app = relay().upstream(&upstream).start().await;
        let mut socket = app.socket(REALTIME).open().await;
        assert_eq!(socket.event().await["type"], "session.created");
        assert_eq!(socket.next().await.unwrap().payload.len(), 100_000, "{split}");
        drop(socket);
        app.finish().await;
    }
}

/// What no frame is, as a caller's first byte and payload would have it.
fn violations(masked: bool) -> Vec<(&'static str, Vec<u8>)> {
    let bit = u8::from(masked) << 7;
    let keyed = |mut bytes: Vec<u8>| {
        if masked {
            bytes.extend([0; 4]);
        }
        bytes
    };
    vec![
        ("RSV1", part(0xc1, "x", masked)),
        ("RSV2", part(0xa1, "x", masked)),
        ("RSV3", part(0x91, "x", masked)),
        ("opcode 3", part(0x83, "x", masked)),
        ("opcode 11", part(0x8b, "x", masked)),
        ("a ping in fragments", part(opcode::PING, "x", masked)),
        ("a long ping", part(0x80 | opcode::PING, vec![0; 126], masked)),
        ("a length that is not the shortest", keyed(vec![0x81, bit | 126, 0, 125])),
        ("a length beyond 2^63", keyed(vec![0x82, bit | 127, 0x80, 0, 0, 0, 0, 1, 0, 0])),
        ("a continuation of nothing", part(0x80, "x", masked)),
        (
            "a message in a message",
            [part(opcode::TEXT, "x", masked), frame(opcode::TEXT, "x", masked)].concat(),
        ),
        ("the wrong mask", frame(opcode::TEXT, "x", !masked)),
        ("half a close code", frame(opcode::CLOSE, "x", masked)),
        ("close code 999", frame(opcode::CLOSE, closing(999, ""), masked)),
        ("close code 1005", frame(opcode::CLOSE, closing(1005, ""), masked)),
        ("close code 1006", frame(opcode::CLOSE, closing(1006, ""), masked)),
        ("close code 1015", frame(opcode::CLOSE, closing(1015, ""), masked)),
        ("close code 2999", frame(opcode::CLOSE, closing(2999, ""), masked)),
        ("close code 5000", frame(opcode::CLOSE, closing(5000, ""), masked)),
    ]
}

#[tokio::test]
async fn a_violation_of_the_caller_closes_both_sides_with_1002() {
    let upstream = RawUpstream::start(|mut conn| async move {
        conn.accept("", "").await;
        let mut last = None;
        while let Some(frame) = conn.frame().await {
            last = Some(frame);
        }
        assert_eq!(last.expect("a close frame").close().0, 1002);
    })
    .await;
    let app = relay().upstream(&upstream).start().await;
    for (number, (name, bytes)) in violations(true).into_iter().enumerate() {
        let mut socket = app.socket(REALTIME).open().await;
        socket.send(opcode::TEXT, "fine").await;
        socket.bytes(bytes).await;
        assert_eq!(socket.closed().await.0, 1002, "{name}");
        let id = socket.id();
        drop(socket);
        let line = app.logged("the line", |line| line["request_id"] == id.as_str()).await;
        assert_eq!((&line["outcome"], &line["error"]), (&json!("refused"), &json!("bad_request")), "{name}");
        assert_eq!((&line["close_code"], &line["error_class"]), (&json!(1002), &json!("request")), "{name}");
        aiproxy_testkit::until(name, || (upstream.ended() > number).then_some(())).await;
    }
    app.finish().await;
}

#[tokio::test]
async fn a_violation_of_the_platform_closes_both_sides_with_1002() {
    for (name, bytes) in violations(false) {
        let upstream = RawUpstream::start(move |mut conn| {
            let bytes = bytes.clone();
            async move {
                conn.accept("", "").await;
                conn.send(bytes).await;
                assert_eq!(conn.frame().await.expect("a close frame").close().0, 1002);
            }
        })
        .await;
        let app = relay().upstream(&upstream).start().await;
        let mut socket = app.socket(REALTIME).open().await;
        assert_eq!(socket.closed().await.0, 1002, "{name}");
        drop(socket);
        aiproxy_testkit::until(name, || (upstream.ended() == 1).then_some(())).await;
        let line = app.logged("the line", |line| line["status"] == 101).await;
        assert_eq!(
            (&line["outcome"], &line["close_code"]),
            (&json!("upstream_failed"), &json!(1002)),
            "{name}"
        );
        app.finish().await;
    }
}

#[tokio::test]
async fn what_is_too_large_closes_both_sides_with_1009() {
    let upstream = echoing().await;
    let app = relay()
        .upstream(&upstream)
        .config(|c| c["system"]["limits"] = json!({"websocket_message": 4096, "websocket_frame": 2048}))
        .start()
        .await;
    let mut socket = app.socket(REALTIME).open().await;
    socket.send(opcode::BINARY, vec![0; 2048]).await;
    assert_eq!(socket.next().await.unwrap().payload.len(), 2048);
    socket.send(opcode::BINARY, vec![0; 2049]).await;
    assert_eq!(socket.closed().await.0, 1009);
    let mut socket = app.socket(REALTIME).open().await;
    for first in [opcode::BINARY, opcode::CONTINUATION] {
        socket.bytes(part(first, vec![0; 2048], true)).await;
    }
    socket.bytes(part(0x80, "x", true)).await;
    assert_eq!(socket.closed().await.0, 1009);
    drop(socket);
    app.finish().await;
}

#[tokio::test]
async fn masks_towards_a_platform_in_the_clear_are_fresh() {
    let upstream = RawUpstream::start(|mut conn| async move {
        conn.accept("", "").await;
        let mut masks = Vec::new();
        for _ in 0..20 {
            let frame = conn.frame().await.expect("a frame");
            assert_eq!(frame.text(), "the same");
            masks.push(frame.mask.expect("a mask"));
        }
        masks.sort_unstable();
        masks.dedup();
        // Four bytes may meet by chance, and the caller's are always the same.
        assert!(masks.len() > 15, "{masks:?}");
        conn.send(frame(opcode::TEXT, "seen", false)).await;
        conn.closed().await;
    })
    .await;
    let app = relay().upstream(&upstream).start().await;
    let mut socket = app.socket(REALTIME).open().await;
    for _ in 0..10 {
        socket.send(opcode::TEXT, "the same").await;
        socket.send(opcode::PING, "the same").await;
    }
    assert_eq!(socket.next().await.unwrap().text(), "seen");
    drop(socket);
    app.finish().await;
}

#[tokio::test]
async fn nothing_of_a_key_shows_in_frames_that_the_relay_makes() {
    // The guard of every test searches what passes; here it has something to look through.
    let upstream = echoing().await;
    let app = relay().upstream(&upstream).start().await;
    let mut socket = app.socket(&format!("{REALTIME}&key={PROXY_KEY}")).no_key().open().await;
    socket.bytes([0xff, 0xff]).await;
    assert_eq!(socket.closed().await, (1002, "protocol error".to_owned()));
    drop(socket);
    app.finish().await;
}
