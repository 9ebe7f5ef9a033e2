//! Who stops reading while the other side sends and sends.
//!
//! Each run of the tests sends hundreds of megabytes, `AIPROXY_SOAK=1` (`make soak`) a gigabyte.

use std::time::Duration;

use aiproxy_testkit::ws::{frame, opcode};
use aiproxy_testkit::{App, RawUpstream, within};

use super::REALTIME;
use super::many::{resident, soaking};
use crate::relay;

/// One message of a flood.
const PIECE: usize = 1 << 20;
const READERS: u64 = 8;
/// Messages towards a platform that has stopped; tests keep what their platforms receive.
const UPWARD: usize = 64;
/// What a socket of which one side has stopped may cost.
const COST: u64 = 256 << 10;

/// Far more than all buffers of the system on the way hold.
fn pieces() -> usize {
    if soaking() { 1024 } else { 128 }
}

/// Waits until every buffer between a sender and a reader that has stopped is full.
async fn until_nothing_passes(passed: impl Fn() -> u64) {
    within("nothing passing any more", async {
        let mut before = 0;
        while before == 0 || before != passed() {
            before = passed();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
}

/// A relay whose threads have each mapped a segment of the journal, which they do for their first socket.
async fn warm(upstream: &RawUpstream) -> App {
    let app = relay().upstream(upstream).start().await;
    for _ in 0..16 {
        drop(app.socket(REALTIME).open().await);
    }
    app
}

#[tokio::test]
async fn b10_a_caller_that_stops_reading_costs_bounded_memory_and_nobody_else_waits() {
    let upstream = RawUpstream::start(|mut conn| async move {
        conn.accept("", "").await;
        let Some(first) = conn.frame().await else { return };
        if first.text() != "flood" {
            conn.send(frame(opcode::TEXT, "fine", false)).await;
            conn.closed().await;
            return;
        }
        let piece = frame(opcode::BINARY, vec![1; PIECE], false);
        for _ in 0..pieces() {
            if !conn.send(&piece).await {
                break;
            }
        }
    })
    .await;
    let app = warm(&upstream).await;
    let mut other = app.socket(REALTIME).open().await;
    let before = resident(&app);
    let mut stopped = Vec::new();
    for _ in 0..READERS {
        let mut socket = app.socket(REALTIME).open().await;
        socket.send(opcode::TEXT, "flood").await;
        stopped.push(socket);
    }
    until_nothing_passes(|| app.platform().downward()).await;
    let cost = resident(&app).saturating_sub(before) / READERS;
    assert!(cost <= COST, "{cost} bytes for each stopped reader");
    other.send(opcode::TEXT, "x").await;
    assert_eq!(other.next().await.unwrap().text(), "fine");
    // Who reads again gets everything.
    let mut frames = 0;
    let socket = &mut stopped[0];
    while socket.next().await.is_some_and(|frame| frame.opcode == opcode::BINARY) {
        frames += 1;
    }
    assert_eq!(frames, pieces());
    drop(stopped);
    app.finish().await;
}

#[tokio::test]
async fn b10_a_platform_that_stops_reading_costs_bounded_memory_and_nobody_else_waits() {
    let (go, going) = tokio::sync::watch::channel(false);
    let upstream = RawUpstream::start(move |mut conn| {
        let mut going = going.clone();
        async move {
            conn.accept("", "").await;
            let Some(first) = conn.frame().await else { return };
            if first.text() == "flood" {
                let _ = going.wait_for(|going| *going).await;
                let whole = frame(opcode::BINARY, vec![1; PIECE], true).len();
                for _ in 0..UPWARD {
                    assert_eq!(conn.exact(whole).await.len(), whole);
                }
            }
            conn.send(frame(opcode::TEXT, "fine", false)).await;
            conn.closed().await;
        }
    })
    .await;
    let app = warm(&upstream).await;
    let before = resident(&app);
    let mut flooding = Vec::new();
    for _ in 0..READERS {
        let mut socket = app.socket(REALTIME).open().await;
        flooding.push(tokio::spawn(async move {
            socket.send(opcode::TEXT, "flood").await;
            let piece = frame(opcode::BINARY, vec![1; PIECE], true);
            for _ in 0..UPWARD {
                socket.bytes(&piece).await;
            }
            socket.next().await.unwrap().text()
        }));
    }
    until_nothing_passes(|| app.platform().upward()).await;
    let cost = resident(&app).saturating_sub(before) / READERS;
    assert!(cost <= COST, "{cost} bytes for each platform that has stopped");
    let mut other = app.socket(REALTIME).open().await;
    other.send(opcode::TEXT, "x").await;
    assert_eq!(other.next().await.unwrap().text(), "fine");
    drop(other);
    go.send_replace(true);
    for socket in flooding {
        let word = tokio::time::timeout(Duration::from_secs(60), socket).await;
        assert_eq!(word.expect("the platform's word").unwrap(), "fine");
    }
    app.finish().await;
}
