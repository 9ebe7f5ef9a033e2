//! Bodies wait where they came from, and hold up nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aiproxy_testkit::{Bytes, Gate, Platform, TestCa, until};

use super::{before, secure};

const PIECE: usize = 64 * 1024;
/// Far more than all buffers on the way hold.
const PIECES: usize = 1024;

/// Waits until a counter has stood still for a while, and returns it.
async fn settled(counter: &AtomicUsize) -> usize {
    let (mut last, mut still) = (usize::MAX, 0);
    until("the flow standing still", || {
        let now = counter.load(Ordering::Relaxed);
        still = if now == last { still + 1 } else { 0 };
        last = now;
        (still == 60 && now > 0).then_some(now)
    })
    .await
}

#[tokio::test]
async fn an_answer_that_nobody_takes_waits_at_the_platform() {
    let ca = TestCa::new();
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let platform = Platform::start(secure(&ca), move |mut exchange| {
        let counted = Arc::clone(&counted);
        async move {
            if exchange.path() == "/v1/other" {
                return exchange.answer(200, "ok").await;
            }
            let mut answering = exchange.begin(200);
            for _ in 0..PIECES {
                if !answering.send(Bytes::from(vec![b'x'; PIECE])).await {
                    return;
                }
                counted.fetch_add(PIECE, Ordering::Relaxed);
            }
            let _ = answering.send_data(Bytes::new(), true);
        }
    })
    .await;
    let app = before(&platform, &ca, |_| ()).await;
    let mut stalled = Vec::new();
    for _ in 0..16 {
        stalled.push(app.get("/v1/large").send().await);
    }
    let stopped = settled(&sent).await;
    assert!(stopped < 16 * PIECES * PIECE / 4, "{stopped} bytes taken");
    // Others pass by on the same connection.
    assert_eq!(app.get("/v1/other").send().await.text().await, "ok");
    assert_eq!(platform.connections(), 1);
    let mut one = stalled.pop().unwrap();
    drop(stalled);
    assert_eq!(one.bytes().await.len(), PIECES * PIECE, "it goes on as it is taken");
    app.finish().await;
}

#[tokio::test]
async fn an_upload_that_the_platform_does_not_read_waits_at_the_caller() {
    let ca = TestCa::new();
    let gate = Gate::new("the platform reads on");
    let opened = gate.clone();
    let platform = Platform::start(secure(&ca), move |mut exchange| {
        let gate = opened.clone();
        async move {
            if exchange.path() == "/v1/other" {
                return exchange.answer(200, "ok").await;
            }
            gate.passed().await;
            let length = exchange.body().await.len().to_string();
            exchange.answer(200, length).await;
        }
    })
    .await;
    let app = before(&platform, &ca, |_| ()).await;
    let (ask, upload) = app.ask("POST", "/v1/large").upload();
    let answer = tokio::spawn(ask.send());
    let given = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&given);
    let giving = tokio::spawn(async move {
        for _ in 0..PIECES {
            upload.send(vec![b'x'; PIECE]).await;
            counted.fetch_add(PIECE, Ordering::Relaxed);
        }
    });
    let stopped = settled(&given).await;
    assert!(stopped < PIECES * PIECE / 2, "{stopped} bytes taken");
    assert_eq!(app.get("/v1/other").send().await.text().await, "ok");
    gate.open();
    giving.await.unwrap();
    assert_eq!(answer.await.unwrap().text().await, (PIECES * PIECE).to_string());
    app.finish().await;
}

#[tokio::test]
async fn an_early_answer_ends_the_upload_and_not_the_relay() {
    let ca = TestCa::new();
    let platform = Platform::start(secure(&ca), |mut exchange| async move {
        if exchange.path() == "/v1/other" {
            return exchange.answer(200, "ok").await;
        }
        // Reads nothing of the body.
        let mut answering = exchange.begin(413);
        let _ = answering.send_data("too large".into(), true);
        answering.given_up().await;
    })
    .await;
    let app = before(&platform, &ca, |_| ()).await;
    for _ in 0..5 {
        let (ask, upload) = app.ask("POST", "/v1/large").upload();
        let sending = tokio::spawn(async move { while upload.send(vec![b'x'; PIECE]).await {} });
        let mut answer = ask.send().await;
        assert_eq!((answer.status.as_u16(), answer.text().await.as_str()), (413, "too large"));
        drop(answer);
        sending.abort();
        assert_eq!(app.get("/v1/other").send().await.text().await, "ok");
    }
    app.finish().await;
}

#[tokio::test]
async fn an_upload_that_stands_still_ends_with_its_answer() {
    let ca = TestCa::new();
    let heard = Gate::new("the platform hearing of the upload's end");
    let opened = heard.clone();
    let platform = Platform::start(secure(&ca), move |mut exchange| {
        let heard = opened.clone();
        async move {
            let mut answering = exchange.begin(200);
            let _ = answering.send_data("early".into(), true);
            while exchange.piece().await.is_some() {}
            heard.open();
        }
    })
    .await;
    let app = before(&platform, &ca, |_| ()).await;
    let (ask, upload) = app.ask("POST", "/v1/large").upload();
    assert!(upload.send("begun").await);
    let mut answer = ask.send().await;
    assert_eq!(answer.piece().await.unwrap().unwrap(), "early");
    // The caller neither goes on nor leaves.
    heard.passed().await;
    drop((upload, answer));
    app.finish().await;
}
