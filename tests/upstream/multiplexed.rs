//! Requests that share HTTP/2 connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aiproxy_testkit::h2::{self, H2};
use aiproxy_testkit::{Gate, HeaderMap, Manner, PROXY_KEY, Platform, TestCa, Wire, until, within};
use serde_json::json;
use tokio::task::JoinSet;

use super::{before, secure};
use crate::{chat, relay};

#[tokio::test]
async fn requests_share_a_connection_and_arrive_as_http2_wants_them() {
    let (ca, gate) = (TestCa::new(), Gate::new("all are there"));
    let opened = gate.clone();
    let platform = Platform::start(secure(&ca), move |exchange| {
        let gate = opened.clone();
        async move {
            let head = &exchange.head;
            assert_eq!(head.version, aiproxy_testkit::Version::HTTP_2);
            assert_eq!(head.uri.scheme_str(), Some("https"));
            assert_eq!(head.uri.host(), Some("platform.test"));
            for name in ["host", "connection", "transfer-encoding", "keep-alive", "x-hop"] {
                assert!(!head.headers.contains_key(name), "{name}");
            }
            assert_eq!(exchange.header("te"), Some("trailers"));
            let path = exchange.head.uri.to_string();
            gate.passed().await;
            exchange.answer(200, path).await;
        }
    })
    .await;
    let app = before(&platform, &ca, |_| ()).await;
    let mut asked = JoinSet::new();
    for number in 0..20 {
        let ask = app.ask("POST", &format!("/v1/a?n={number}")).body(vec![b'x'; 1000]);
        let ask = ask.header("te", "trailers").header("connection", "te, x-hop").header("x-hop", "1");
        asked.spawn(async move { (number, ask.send().await.text().await) });
    }
    until("all of them at the platform", || (platform.exchanges() == 20).then_some(())).await;
    gate.open();
    while let Some(answered) = asked.join_next().await {
        let (number, text) = answered.unwrap();
        let expected = format!("https://platform.test:{}/v1/a?n={number}", platform.addr().port());
        assert_eq!(text, expected);
    }
    assert_eq!(platform.connections(), 1);
    app.finish().await;
}

#[tokio::test]
async fn bodies_and_trailers_pass_both_ways_as_they_come() {
    let ca = TestCa::new();
    let platform = Platform::start(secure(&ca), |mut exchange| async move {
        let mut answering = exchange.begin_with(200, &[("trailer", "x-sum, x-more")]);
        while let Some(piece) = exchange.piece().await {
            answering.send(piece).await;
        }
        let mut trailers = exchange.trailers().await.unwrap_or_default();
        trailers.insert("x-more", "1".parse().unwrap());
        trailers.insert("set-cookie", "a=b".parse().unwrap());
        answering.trailers(trailers);
    })
    .await;
    let app = before(&platform, &ca, |_| ()).await;
    let (ask, upload) = app
        .ask("POST", "/v1/echo")
        .header("te", "trailers")
        .header("trailer", "x-sum, authorization")
        .upload();
    assert!(upload.send("one").await);
    let mut answer = ask.send().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.version, aiproxy_testkit::Version::HTTP_11);
    assert_eq!(answer.piece().await.unwrap().unwrap(), "one");
    assert!(upload.send("two").await);
    assert_eq!(answer.piece().await.unwrap().unwrap(), "two");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "42".parse().unwrap());
    trailers.insert("authorization", "Bearer x".parse().unwrap());
    upload.trailers(trailers).await;
    assert_eq!(answer.piece().await.unwrap(), None);
    let trailers = answer.trailers().unwrap();
    assert_eq!((&trailers["x-sum"], &trailers["x-more"]), (&"42".parse().unwrap(), &"1".parse().unwrap()));
    assert!(!trailers.contains_key("set-cookie") && !trailers.contains_key("authorization"));
    app.finish().await;
}

#[tokio::test]
async fn more_connections_open_where_streams_run_out() {
    let (ca, gate) = (TestCa::new(), Gate::new("all are there"));
    let opened = gate.clone();
    let platform = Platform::start(Manner { streams: Some(3), ..secure(&ca) }, move |exchange| {
        let gate = opened.clone();
        async move {
            gate.passed().await;
            exchange.answer(200, "ok").await;
        }
    })
    .await;
    let app = before(&platform, &ca, |_| ()).await;
    let mut asked = JoinSet::new();
    for _ in 0..12 {
        let ask = app.post("/v1/chat/completions", &chat("gpt-4o", "hi"));
        asked.spawn(async move { ask.send().await.text().await });
    }
    // None waits for a stream to end: none does before all have come.
    until("all of them at the platform", || (platform.exchanges() == 12).then_some(())).await;
    gate.open();
    while let Some(answered) = asked.join_next().await {
        assert_eq!(answered.unwrap(), "ok");
    }
    let connections = platform.connections();
    assert!((4..=12).contains(&connections), "{connections}");
    // What is open serves those who come later.
    for _ in 0..20 {
        assert_eq!(app.get("/v1/a").send().await.text().await, "ok");
    }
    assert_eq!(platform.connections(), connections);
    app.finish().await;
}

#[tokio::test]
async fn a_refused_stream_goes_elsewhere_whatever_the_method() {
    let ca = TestCa::new();
    let platform = Platform::start(secure(&ca), |mut exchange| async move {
        if exchange.connection < 2 {
            return exchange.refuse();
        }
        let body = exchange.body().await;
        exchange.answer(200, body).await;
    })
    .await;
    let app = before(&platform, &ca, |_| ()).await;
    let mut answer = app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send().await;
    assert_eq!((answer.status.as_u16(), answer.json().await), (200, chat("gpt-4o", "hi")));
    assert_eq!((platform.connections(), platform.exchanges()), (3, 3));
    app.finish().await;
}

#[tokio::test]
async fn a_body_that_is_too_long_to_keep_is_not_sent_twice() {
    let ca = TestCa::new();
    let platform = Platform::start(secure(&ca), |mut exchange| async move {
        exchange.piece().await;
        exchange.refuse();
    })
    .await;
    let app = before(&platform, &ca, |c| c["system"]["limits"] = json!({"replay_bytes": "1KiB"})).await;
    let mut answer = app.ask("POST", "/v1/a").body(vec![b'x'; 100_000]).send().await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json().await["error"]["code"]),
        (502, &json!("upstream_unreachable"))
    );
    assert_eq!(platform.exchanges(), 1);
    app.finish().await;
}

#[tokio::test]
async fn a_platform_that_refuses_all_streams_hands_over_to_the_next_channel() {
    let ca = TestCa::new();
    let platform = Platform::start(secure(&ca), |exchange| async move { exchange.refuse() }).await;
    let other = aiproxy_testkit::RawUpstream::recording().await;
    let app = relay()
        .recorded(&platform)
        .also("b", other.addr())
        .config(super::lead(&platform, &ca))
        .config(|c| {
            c["channels"]["b"] = json!({"platform": "custom", "api_key": "sk-second/+=7Pq1Xs9Wd3Ef5Rg2Th6Yj", "base_url": "@b"});
            c["users"]["user1"]["channels"] = json!(["main", "b"]);
        })
        .start()
        .await;
    let mut answer = app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send().await;
    assert_eq!((answer.status.as_u16(), answer.json().await), (200, json!({"ok": true})));
    assert_eq!((platform.exchanges(), platform.connections()), (4, 3), "bounded");
    assert_eq!(other.received()[0].body, chat("gpt-4o", "hi").to_string());
    for _ in 0..30 {
        assert_eq!(app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send().await.status, 200);
    }
    assert_eq!(platform.connections(), 3, "it has enough as it is");
    app.finish().await;
}

#[tokio::test]
async fn a_caller_who_leaves_ends_its_own_stream_alone() {
    let ca = TestCa::new();
    let (left, go_on) = (Gate::new("the platform hearing of it"), Gate::new("the other goes on"));
    let (heard, wait) = (left.clone(), go_on.clone());
    let platform = Platform::start(secure(&ca), move |mut exchange| {
        let (heard, wait) = (heard.clone(), wait.clone());
        async move {
            match exchange.path() {
                "/v1/head" => {
                    exchange.given_up().await;
                    heard.open();
                }
                "/v1/body" => {
                    let mut answering = exchange.begin(200);
                    answering.send("begun".into()).await;
                    answering.given_up().await;
                    heard.open();
                }
                "/v1/other" => {
                    let mut answering = exchange.begin(200);
                    answering.send("one".into()).await;
                    wait.passed().await;
                    let _ = answering.send_data("two".into(), true);
                }
                _ => exchange.answer(200, "ok").await,
            }
        }
    })
    .await;
    for path in ["/v1/head", "/v1/body"] {
        let app = before(&platform, &ca, |_| ()).await;
        let before = platform.connections();
        let mut other = app.get("/v1/other").send().await;
        assert_eq!(other.piece().await.unwrap().unwrap(), "one");
        let asked = platform.exchanges();
        let leaving = tokio::spawn(app.post(path, &chat("gpt-4o", "hi")).send());
        if path == "/v1/head" {
            until("the request at the platform", || (platform.exchanges() > asked).then_some(())).await;
            leaving.abort();
        } else {
            let mut answer = within("the answer", leaving).await.unwrap();
            assert_eq!(answer.piece().await.unwrap().unwrap(), "begun");
            drop(answer);
        }
        left.passed().await;
        assert_eq!(app.get("/v1/a").send().await.text().await, "ok");
        go_on.open();
        assert_eq!(other.piece().await.unwrap().unwrap(), "two");
        assert_eq!(other.piece().await.unwrap(), None);
        assert_eq!(platform.connections(), before + 1, "{path}");
        app.finish().await;
    }
}

#[tokio::test]
async fn a_stream_reset_after_its_head_looks_cut_off_and_hurts_nobody_else() {
    let ca = TestCa::new();
    let gate = Arc::new(tokio::sync::Notify::new());
    let opened = Arc::clone(&gate);
    let platform = Platform::start(secure(&ca), move |mut exchange| {
        let half_came = Arc::clone(&opened);
        async move {
            match exchange.path() {
                "/v1/reset" => {
                    let mut answering = exchange.begin(200);
                    answering.send("half".into()).await;
                    // A reset overtakes what still waits to be sent.
                    half_came.notified().await;
                    answering.reset();
                }
                "/v1/never" => exchange.reset(),
                _ => exchange.answer(200, "ok").await,
            }
        }
    })
    .await;
    let app = before(&platform, &ca, |_| ()).await;
    for _ in 0..3 {
        let mut answer = app.get("/v1/reset").send().await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.piece().await.unwrap().unwrap(), "half");
        gate.notify_one();
        assert!(answer.try_bytes().await.is_err());
        assert_eq!(app.ask("POST", "/v1/never").body("x").send().await.status, 502);
        assert_eq!(app.get("/v1/fine").send().await.text().await, "ok");
    }
    assert_eq!(platform.connections(), 1);
    app.logged("the line", |line| line["outcome"] == "upstream_failed").await;
    app.finish().await;
}

#[tokio::test]
async fn a_withdrawn_user_is_cut_from_a_shared_connection() {
    let ca = TestCa::new();
    let ended = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&ended);
    let platform = Platform::start(secure(&ca), move |mut exchange| {
        let counted = Arc::clone(&counted);
        async move {
            if exchange.path() == "/v1/other" {
                return exchange.answer(200, "ok").await;
            }
            let mut answering = exchange.begin(200);
            answering.send("begun".into()).await;
            answering.given_up().await;
            counted.fetch_add(1, Ordering::Relaxed);
        }
    })
    .await;
    let other = "pk_other_9Zt4Kw7Pb2Xn5Qr8Lc3Vd6Hs";
    let mut app = before(&platform, &ca, |c| {
        c["users"]["other"] = json!({"proxy_key": other, "channels": ["main"]});
    })
    .await;
    // An upload under way ends with its answer.
    let (ask, upload) = app.ask("POST", "/v1/a").upload();
    assert!(upload.send("begun").await);
    let mut answer = ask.send().await;
    assert_eq!(answer.piece().await.unwrap().unwrap(), "begun");
    assert!(app.change(|c| c["users"]["user1"]["status"] = "disabled".into()).await);
    assert!(answer.try_bytes().await.is_err());
    until("the stream's end", || (ended.load(Ordering::Relaxed) == 1).then_some(())).await;
    assert_eq!(app.get("/v1/other").key(other).send().await.text().await, "ok");
    app.finish().await;
}

#[tokio::test]
async fn answers_without_a_body_are_whole_though_their_end_comes_later() {
    let ca = TestCa::new();
    let platform = Platform::start(secure(&ca), |mut exchange| async move {
        let status = exchange.path().rsplit('/').next().unwrap().parse().unwrap();
        let mut answering = exchange.begin(status);
        tokio::task::yield_now().await;
        let _ = answering.send_data(aiproxy_testkit::Bytes::new(), true);
        answering.given_up().await;
    })
    .await;
    let app = before(&platform, &ca, |_| ()).await;
    for (method, status) in [("DELETE", 204), ("GET", 304), ("HEAD", 200)] {
        let mut answer = app.ask(method, &format!("/v1/a/{status}")).send().await;
        assert_eq!((answer.status.as_u16(), answer.bytes().await.len()), (status, 0));
        let line = app.logged("the line", |line| line["method"] == method).await;
        assert_eq!(line["outcome"], "complete", "{method}");
    }
    assert_eq!(platform.connections(), 1);
    app.finish().await;
}

/// Callers who take nothing of what they asked for.
const STALLED: u32 = 16;

#[tokio::test]
async fn small_pieces_that_wait_for_some_callers_cost_the_others_nothing() {
    let ca = TestCa::new();
    let platform = Platform::start(secure(&ca), |mut exchange| async move {
        if exchange.path() == "/v1/other" {
            return exchange.answer(200, "ok").await;
        }
        let mut answering = exchange.begin(200);
        let event =
            aiproxy_testkit::Bytes::from_static(b"data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n");
        while answering.send(event.clone()).await {}
    })
    .await;
    let app = before(&platform, &ca, |_| ()).await;
    let mut stalled = H2::over(Wire::Plain(Wire::tcp(app.addr()).await));
    // SETTINGS_INITIAL_WINDOW_SIZE: 0.
    stalled.begin(&[(4, 0)]).await;
    let bearer = format!("Bearer {PROXY_KEY}");
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "relay"),
        (":path", "/v1/stalled"),
        ("authorization", &bearer),
    ];
    // As many as a build without optimisation fills well within the bound of a wait.
    for stream in 0..STALLED {
        stalled.send(h2::headers(2 * stream + 1, true, &fields)).await;
    }
    until("all of them at the platform", || (platform.exchanges() == STALLED as usize).then_some(())).await;
    // Each fills its window with pieces.
    for _ in 0..40 {
        assert_eq!(app.get("/v1/other").send().await.text().await, "ok");
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    assert_eq!(platform.connections(), 1);
    drop(stalled);
    app.finish().await;
}
