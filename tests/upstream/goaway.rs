//! Platforms that let connections end under load.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aiproxy_testkit::{Gate, Platform, RawUpstream, TestCa, until};
use serde_json::json;
use tokio::task::JoinSet;

use super::frames::{self, Peer};
use super::{before, secure};
use crate::{chat, relay};

#[tokio::test]
async fn nobody_notices_that_connections_are_let_go_under_load() {
    const REQUESTS: usize = 400;
    let ca = TestCa::new();
    let seen: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let counted = Arc::clone(&seen);
    let platform = Platform::start(secure(&ca), move |mut exchange| {
        let counted = Arc::clone(&counted);
        async move {
            if exchange.number == 9 {
                exchange.go_away();
            }
            let body = exchange.body().await;
            *counted.lock().unwrap().entry(String::from_utf8_lossy(&body).into_owned()).or_default() += 1;
            exchange.answer(200, body).await;
        }
    })
    .await;
    let app = before(&platform, &ca, |_| ()).await;
    let mut callers = JoinSet::new();
    for caller in 0..16 {
        let addr = app.addr();
        callers.spawn(async move {
            let mut client = aiproxy_testkit::Client::connect(addr).await;
            for number in 0..REQUESTS / 16 {
                let text = format!("{caller}-{number}");
                let ask = aiproxy_testkit::Ask::new(addr, aiproxy_testkit::PROXY_KEY, "POST", "/v1/a");
                let mut answer = client.send(ask.body(text.clone())).await;
                assert_eq!((answer.status.as_u16(), answer.text().await), (200, text));
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), REQUESTS);
    assert!(seen.values().all(|times| *times == 1), "each once: {seen:?}");
    assert!(platform.connections() >= REQUESTS / 64, "{} connections", platform.connections());
    app.finish().await;
}

/// A platform without TLS, of exact frames; a channel that knows that it speaks HTTP/2.
async fn of_frames<F, P>(
    script: F,
    change: impl FnOnce(&mut serde_json::Value),
) -> (aiproxy_testkit::App, RawUpstream)
where
    F: Fn(Peer) -> P + Send + Sync + 'static,
    P: Future<Output = ()> + Send + 'static,
{
    let script = Arc::new(script);
    let upstream = RawUpstream::start(move |conn| {
        let script = Arc::clone(&script);
        async move {
            if let Some(peer) = Peer::greet(conn).await {
                script(peer).await;
            }
        }
    })
    .await;
    let app = relay()
        .upstream(&upstream)
        .config(|c| {
            c["system"]["workers"] = 1.into();
            c["channels"]["main"]["http_versions"] = json!(["h2"]);
        })
        .config(change)
        .start()
        .await;
    (app, upstream)
}

#[tokio::test]
async fn what_a_goaway_leaves_out_is_sent_again_and_what_it_covers_is_not() {
    for covered in [false, true] {
        let (app, upstream) = of_frames(
            move |mut peer| async move {
                let Some(stream) = peer.request().await else { return };
                if peer.index() == 0 {
                    let last = if covered { stream } else { 0 };
                    peer.send(frames::goaway(last)).await;
                    return;
                }
                peer.send(frames::answer(stream, b"ok")).await;
                peer.closed().await;
            },
            |_| (),
        )
        .await;
        let mut answer = app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send().await;
        match covered {
            false => assert_eq!((answer.status.as_u16(), answer.text().await.as_str()), (200, "ok")),
            // It may have been acted upon.
            true => assert_eq!(answer.status.as_u16(), 502),
        }
        assert_eq!(upstream.connections(), if covered { 1 } else { 2 });
        app.finish().await;
    }
}

#[tokio::test]
async fn connections_that_were_let_go_in_silence_are_passed_over() {
    const CONNECTIONS: usize = 8;
    let (gate, begun) = (Gate::new("all are there"), Arc::new(AtomicUsize::new(0)));
    let (opened, counted) = (gate.clone(), Arc::clone(&begun));
    let (app, upstream) = of_frames(
        move |mut peer| {
            let (gate, begun) = (opened.clone(), Arc::clone(&counted));
            async move {
                let Some(stream) = peer.request().await else { return };
                begun.fetch_add(1, Ordering::Relaxed);
                if peer.index() < CONNECTIONS {
                    gate.passed().await;
                    peer.send(frames::goaway(stream)).await;
                }
                peer.send(frames::answer(stream, b"ok")).await;
                // The socket stays open: nothing but the frame tells.
                peer.closed().await;
            }
        },
        |_| (),
    )
    .await;
    let mut asked = JoinSet::new();
    for number in 1..=CONNECTIONS {
        let ask = app.post("/v1/chat/completions", &chat("gpt-4o", "hi"));
        asked.spawn(async move { ask.send().await.text().await });
        until("one more request", || (begun.load(Ordering::Relaxed) == number).then_some(())).await;
    }
    gate.open();
    while let Some(answered) = asked.join_next().await {
        assert_eq!(answered.unwrap(), "ok");
    }
    let mut answer = app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send().await;
    assert_eq!((answer.status.as_u16(), answer.text().await.as_str()), (200, "ok"));
    assert_eq!(upstream.connections(), CONNECTIONS + 1);
    app.finish().await;
}

#[tokio::test]
async fn a_get_is_sent_again_where_a_used_connection_breaks() {
    let (app, upstream) = of_frames(
        |mut peer| async move {
            let first = peer.request().await;
            let Some(stream) = first else { return };
            peer.send(frames::answer(stream, b"ok")).await;
            if peer.index() == 0 {
                peer.request().await;
                return;
            }
            peer.closed().await;
        },
        |_| (),
    )
    .await;
    assert_eq!(app.get("/v1/a").send().await.text().await, "ok");
    assert_eq!(app.get("/v1/b").send().await.text().await, "ok");
    assert_eq!(upstream.connections(), 2);
    app.finish().await;
}

#[tokio::test]
async fn a_platform_that_half_closes_serves_no_more() {
    let (app, upstream) = of_frames(
        |mut peer| async move {
            let Some(stream) = peer.request().await else { return };
            peer.send(frames::answer(stream, b"ok")).await;
            peer.half_close().await;
            // Reads on, and answers nothing more.
            peer.closed().await;
        },
        |_| (),
    )
    .await;
    for number in 1..=5 {
        let mut answer = app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send().await;
        // The end may be on its way when the next request is.
        assert_eq!((answer.status.as_u16(), answer.text().await.as_str()), (200, "ok"));
        until("the relay leaving as well", || (upstream.ended() == number).then_some(())).await;
    }
    assert_eq!(upstream.connections(), 5);
    app.finish().await;
}

#[tokio::test]
async fn a_dead_peer_is_noticed_by_its_silence() {
    let held = Gate::new("the end of the test");
    let hold = held.clone();
    let (app, _upstream) = of_frames(
        move |mut peer| {
            let hold = hold.clone();
            async move {
                peer.request().await;
                // Alive for TCP, dead for HTTP/2: no PING is answered.
                hold.passed().await;
            }
        },
        |c| c["channels"]["main"]["pool"] = json!({"ping": "200ms"}),
    )
    .await;
    let mut answer = app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send().await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json().await["error"]["code"]),
        (502, &json!("upstream_unreachable"))
    );
    held.open();
    app.finish().await;
}

#[tokio::test]
async fn what_is_not_http2_is_not_understood() {
    let upstream = RawUpstream::answering("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let app = relay()
        .upstream(&upstream)
        .config(|c| c["channels"]["main"]["http_versions"] = json!(["h2"]))
        .start()
        .await;
    let mut answer = app.get("/v1/a").send().await;
    let code = answer.json().await["error"]["code"].clone();
    assert_eq!((answer.status.as_u16(), code), (502, json!("upstream_protocol")));
    app.finish().await;
}

#[tokio::test]
async fn an_answer_whose_stream_is_reset_is_not_whole_whatever_the_code() {
    for code in [0, 2, 8] {
        let (app, _upstream) = of_frames(
            move |mut peer| async move {
                let Some(stream) = peer.request().await else { return };
                peer.send(frames::beginning(stream, b"{\"half\":")).await;
                // By then the caller has the head.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                peer.send(frames::reset(stream, code)).await;
                peer.closed().await;
            },
            |_| (),
        )
        .await;
        let mut answer = app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send().await;
        assert_eq!(answer.status, 200);
        let mut whole = true;
        loop {
            match answer.piece().await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    whole = false;
                    break;
                }
            }
        }
        assert!(!whole, "code {code}");
        app.logged("the line", |line| line["outcome"] == "upstream_failed").await;
        app.finish().await;
    }
}

#[tokio::test]
async fn a_platform_that_sends_empty_pieces_is_heard_to_the_end() {
    let (app, upstream) = of_frames(
        |mut peer| async move {
            while let Some(stream) = peer.request().await {
                let nothing = frames::nothing(stream, false).repeat(50);
                let end = frames::nothing(stream, true);
                peer.send([frames::beginning(stream, b"ok"), nothing, end].concat()).await;
            }
        },
        |_| (),
    )
    .await;
    for _ in 0..20 {
        assert_eq!(app.get("/v1/a").send().await.text().await, "ok");
    }
    assert_eq!(upstream.connections(), 1);
    app.finish().await;
}
