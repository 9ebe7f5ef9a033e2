//! Bytes pass as they come, and no faster than they are taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aiproxy_testkit::{Gate, RawUpstream, until};
use tokio::time::Instant;

use crate::{chat_stream, relay};

const MIB: u64 = 1 << 20;

/// More than any socket buffers on the way could hold.
const LARGE: u64 = 192 * MIB;

/// What may be under way between the platform and a caller who takes nothing: the buffers of six
/// sockets, which the kernel sizes as it likes, and a little in the relay.
const UNDER_WAY: u64 = 64 * MIB;

/// A first body, so that buffers have found their size.
const WARM_UP: usize = 4 << 20;

/// What the relay itself may hold of it.
const HELD: u64 = 8 * MIB;

#[tokio::test]
async fn each_event_of_a_stream_arrives_while_the_platform_holds_the_next() {
    let app = relay().start().await;
    let mut answer = app
        .post("/v1/chat/completions", &chat_stream("gpt-4o", "one two three"))
        .sandbox("hold=g1")
        .send()
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let mut text = String::new();
    while !text.contains("\"content\":") {
        let piece = answer.piece().await.unwrap().expect("more");
        text.push_str(&String::from_utf8_lossy(&piece));
    }
    assert!(!text.contains("[DONE]"));
    app.sandbox().release("g1");
    text.push_str(&answer.text().await);
    assert!(text.trim_end().ends_with("data: [DONE]"), "{text}");
    app.finish().await;
}

#[tokio::test]
async fn every_chunk_passes_alone_and_in_order() {
    let gates: Vec<Gate> = (0..20).map(|_| Gate::new("the caller has the piece")).collect();
    let script = gates.clone();
    let upstream = RawUpstream::start(move |mut conn| {
        let gates = script.clone();
        async move {
            conn.request().await;
            conn.send(
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            )
            .await;
            for (number, gate) in gates.iter().enumerate() {
                conn.send(format!("b\r\ndata: x{number:02}\n\n\r\n")).await;
                gate.passed().await;
            }
            conn.send("0\r\n\r\n").await;
        }
    })
    .await;
    let app = relay().upstream(&upstream).start().await;
    let mut answer = app.get("/v1/stream").send().await;
    for (number, gate) in gates.iter().enumerate() {
        assert_eq!(answer.piece().await.unwrap().unwrap(), format!("data: x{number:02}\n\n"));
        gate.open();
    }
    assert_eq!(answer.piece().await.unwrap(), None);
    app.finish().await;
}

#[tokio::test]
async fn an_upload_passes_while_it_comes() {
    let first = Gate::new("the platform has the first piece");
    let has_first = first.clone();
    let upstream = RawUpstream::start(move |mut conn| {
        let has_first = has_first.clone();
        async move {
            let head = conn.head().await.unwrap();
            assert_eq!(head.get("transfer-encoding").as_deref(), Some("chunked"));
            assert_eq!(conn.exact(12).await, "7\r\npiece 1\r\n");
            has_first.open();
            assert_eq!(conn.exact(17).await, "7\r\npiece 2\r\n0\r\n\r\n");
            conn.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    let app = relay().upstream(&upstream).start().await;
    let (ask, upload) = app.ask("POST", "/v1/a").upload();
    let sending = tokio::spawn(ask.send());
    upload.send("piece 1").await;
    first.passed().await;
    upload.send("piece 2").await;
    drop(upload);
    assert_eq!(sending.await.unwrap().status, 200);
    app.finish().await;
}

#[tokio::test]
async fn a_caller_that_takes_nothing_stops_the_platform_and_costs_no_memory() {
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let upstream = RawUpstream::start(move |mut conn| {
        let count = Arc::clone(&count);
        async move {
            conn.request().await;
            conn.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {WARM_UP}\r\n\r\n{}", "x".repeat(WARM_UP)))
                .await;
            conn.request().await;
            conn.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n")).await;
            let piece = vec![b'x'; 64 * 1024];
            while count.load(Ordering::Relaxed) < LARGE && conn.send(&piece).await {
                count.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
        }
    })
    .await;
    let app = relay().config(|c| c["system"]["workers"] = 1.into()).upstream(&upstream).start().await;
    app.get("/v1/warm").send().await.bytes().await;
    let before = app.process().resident_bytes();
    let mut answer = app.get("/v1/large").send().await;
    standstill(|| sent.load(Ordering::Relaxed)).await;
    let stuck = sent.load(Ordering::Relaxed);
    assert!(stuck < UNDER_WAY, "{} MiB are under way", stuck / MIB);
    let held = app.process().resident_bytes().saturating_sub(before);
    assert!(held < HELD, "the relay holds {} KiB", held / 1024);
    let mut got = 0;
    while let Some(piece) = answer.piece().await.unwrap() {
        got += piece.len() as u64;
    }
    assert_eq!(got, LARGE);
    let held = app.process().resident_bytes().saturating_sub(before);
    assert!(held < HELD, "the relay holds {} KiB", held / 1024);
    app.finish().await;
}

#[tokio::test]
async fn a_platform_that_takes_nothing_stops_the_caller_and_costs_no_memory() {
    let go = Gate::new("the platform may read");
    let may_read = go.clone();
    let upstream = RawUpstream::start(move |mut conn| {
        let may_read = may_read.clone();
        async move {
            if conn.request().await.is_some() {
                conn.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
            let Some(head) = conn.head().await else { return };
            may_read.passed().await;
            let whole = conn.body_of(head).await.is_some();
            conn.send(format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{whole:5}")).await;
        }
    })
    .await;
    let app = relay().config(|c| c["system"]["workers"] = 1.into()).upstream(&upstream).start().await;
    app.ask("POST", "/v1/warm").body(vec![b'x'; WARM_UP]).send().await;
    let before = app.process().resident_bytes();
    let (ask, upload) = app.ask("POST", "/v1/a").upload();
    let sending = tokio::spawn(ask.send());
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let feeding = tokio::spawn(async move {
        let piece = aiproxy_testkit::Bytes::from(vec![b'x'; 64 * 1024]);
        while count.load(Ordering::Relaxed) < LARGE && upload.send(piece.clone()).await {
            count.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
    });
    standstill(|| sent.load(Ordering::Relaxed)).await;
    let stuck = sent.load(Ordering::Relaxed);
    assert!(stuck < UNDER_WAY, "{} MiB are under way", stuck / MIB);
    let held = app.process().resident_bytes().saturating_sub(before);
    assert!(held < HELD, "the relay holds {} KiB", held / 1024);
    go.open();
    feeding.await.unwrap();
    assert_eq!(sending.await.unwrap().text().await, "true ");
    app.finish().await;
}

/// Waits until a count has stood still for a while. A slow machine can only make it look still
/// too early, and then less was sent than could have been.
async fn standstill(count: impl Fn() -> u64) {
    let mut last = (count(), Instant::now());
    until("a standstill", || {
        let now = count();
        if now != last.0 || now == 0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_millis(500)).then_some(())
    })
    .await;
}
