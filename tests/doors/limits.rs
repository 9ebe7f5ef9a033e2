//! Each limit at its bound.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use aiproxy_testkit::h2::{self, H2, Outcome};
use aiproxy_testkit::{Ask, Authority, Gate, PROXY_KEY, Raw, RawUpstream, Tls, Wire, until, within};
use serde_json::{Value, json};
use tokio::net::TcpSocket;

use super::{bearer, behind, fields, get, secure};
use crate::relay;

/// A connection from an address of one's own.
async fn from(address: [u8; 4], to: SocketAddr) -> Raw {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::from(address), 0))).unwrap();
    Raw::over(Wire::Plain(within("a connection", socket.connect(to)).await.unwrap()))
}

#[tokio::test]
async fn requests_beyond_the_bound_are_refused_early() {
    let gate = Gate::new("the answers");
    let upstream = behind(&gate, "ok").await;
    let app =
        relay().config(|c| c["system"]["limits"] = json!({"requests": 3})).upstream(&upstream).start().await;
    let bearer = bearer();
    let mut h2 = H2::connect(app.addr()).await;
    for stream in [1, 3] {
        h2.send(h2::headers(stream, true, &fields("GET", "/v1/a", &bearer))).await;
    }
    let mut raw = app.raw().await;
    raw.send(get("/v1/a", "")).await;
    until("three at the platform", || (upstream.received().len() == 3).then_some(())).await;
    let mut fourth = app.raw().await;
    fourth.send(get("/v1/a", "")).await;
    let answer = fourth.answer().await;
    assert_eq!((answer.status, answer.head.get("retry-after").as_deref()), (503, Some("1")));
    let error: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(error["error"]["code"], "overloaded");
    h2.send(h2::headers(5, true, &fields("GET", "/v1/a", &bearer))).await;
    let outcome = h2.outcome(5).await;
    assert!(matches!(outcome, Outcome::Answer(503, _)), "{outcome:?}");
    assert_eq!(upstream.received().len(), 3);
    gate.open();
    assert_eq!(raw.answer().await.status, 200);
    // On the connection that was refused as well.
    within("a place", async {
        loop {
            fourth.send(get("/v1/a", "")).await;
            match fourth.answer().await.status {
                200 => break,
                status => assert_eq!(status, 503),
            }
        }
    })
    .await;
    drop(h2);
    app.finish().await;
}

#[tokio::test]
async fn refusals_that_nobody_takes_hold_up_nobody() {
    let app = relay().config(|c| c["system"]["limits"] = json!({"requests": 3})).start().await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut h2 = H2::over(Wire::Plain(Wire::tcp(app.addr()).await));
        // SETTINGS_INITIAL_WINDOW_SIZE: 0.
        h2.begin(&[(4, 0)]).await;
        for stream in 0..6 {
            h2.send(h2::headers(2 * stream + 1, true, &fields("GET", "/v1/a", "Bearer pk_nobody"))).await;
        }
        let mut heads = 0;
        while heads < 6 {
            heads += usize::from(h2.next().await.unwrap().kind == h2::kind::HEADERS);
        }
        held.push(h2);
    }
    for _ in 0..5 {
        assert_eq!(app.get("/v1/models").send().await.status, 200);
    }
    drop(held);
    app.finish().await;
}

#[tokio::test]
async fn each_address_has_its_own_connections() {
    let app = relay()
        .config(|c| {
            c["system"]["limits"] = json!({"connections_per_ip": 2});
            c["system"]["trusted_proxies"] = json!(["127.0.0.9"]);
        })
        .start()
        .await;
    // Past the tap, which has one address.
    let to = app.relay_addr();
    let request = get("/v1/models", "");
    let mut held = Vec::new();
    for (address, status) in [
        ([127, 0, 0, 2], 200),
        ([127, 0, 0, 2], 200),
        ([127, 0, 0, 2], 503),
        ([127, 0, 0, 3], 200),
        ([127, 0, 0, 9], 200),
        ([127, 0, 0, 9], 200),
        ([127, 0, 0, 9], 200),
    ] {
        let mut raw = from(address, to).await;
        raw.send(&request).await;
        assert_eq!(raw.answer().await.status, status, "{address:?}");
        if status == 200 {
            held.push(raw);
        }
    }
    app.metric_is("aiproxy_connections_turned_away_total{reason=\"connections_per_ip\"}", 1.0).await;
    drop(held.remove(0));
    within("a place", async {
        loop {
            let mut raw = from([127, 0, 0, 2], to).await;
            raw.send(&request).await;
            if raw.answer().await.status == 200 {
                break;
            }
        }
    })
    .await;
    drop(held);
    app.finish().await;
}

#[tokio::test]
async fn handshakes_beyond_the_bound_are_hung_up_on() {
    let authority = Authority::default();
    let app = secure(&authority, &["relay.test"])
        .config(|c| c["system"]["limits"] = json!({"handshakes": 2, "handshake_timeout": "5s"}))
        .start()
        .await;
    let tls = Tls::new(&authority, &["http/1.1"]);
    let mut stuck = Vec::new();
    // Who says nothing takes no place.
    for beginning in ["", "", "", "\x16\x03\x01\x01", "\x16\x03\x01\x01"] {
        let mut raw = Raw::connect(app.https_addr()).await;
        raw.send(beginning).await;
        stuck.push(raw);
    }
    let refused = "aiproxy_connections_turned_away_total{reason=\"handshakes\"}";
    within("a refusal", async {
        while app.metric(refused).await < 1.0 {
            // The two have their places once the relay has read of them.
            let _ = tls.connect(app.https_addr(), "relay.test").await;
        }
    })
    .await;
    drop(stuck);
    within("a place", async { while tls.connect(app.https_addr(), "relay.test").await.is_err() {} }).await;
    app.finish().await;
}

#[tokio::test]
async fn stalled_handshakes_give_way_to_others() {
    let authority = Authority::default();
    let app = secure(&authority, &["relay.test"])
        .config(|c| c["system"]["limits"] = json!({"handshakes": 4, "handshake_timeout": "60s"}))
        .start()
        .await;
    let tls = Tls::new(&authority, &["http/1.1"]);
    let mut stuck = Vec::new();
    for _ in 0..40 {
        for _ in 0..2 {
            let mut raw = Raw::connect(app.https_addr()).await;
            raw.send("\x16\x03\x01\x01").await;
            stuck.push(raw);
        }
        assert!(tls.connect(app.https_addr(), "relay.test").await.is_ok());
    }
    app.finish().await;
}

#[tokio::test]
async fn the_bound_on_a_head_is_exact() {
    let upstream = RawUpstream::recording().await;
    let app = relay()
        .config(|c| c["system"]["limits"] = json!({"header_bytes": "16KiB"}))
        .upstream(&upstream)
        .start()
        .await;
    let frame = get("/v1/a", "x-fill: \r\n").len();
    for (size, status) in [(16 * 1024, 200), (16 * 1024 + 1, 431), (17 * 1024, 431), (40 * 1024, 431)] {
        let head = get("/v1/a", &format!("x-fill: {}\r\n", "x".repeat(size - frame)));
        assert_eq!(head.len(), size);
        for pieces in [size, 1000] {
            let mut raw = app.raw().await;
            for piece in head.as_bytes().chunks(pieces) {
                raw.send(piece).await;
            }
            let answer = raw.answer().await;
            assert_eq!(answer.status, status, "{size} in pieces of {pieces}");
            if status == 431 {
                let error: Value = serde_json::from_slice(&answer.body).unwrap();
                assert_eq!(error["error"]["code"], "headers_too_large");
            }
        }
    }
    assert_eq!(upstream.received().len(), 2);
    // Over HTTP/2 each field counts 32 bytes more (RFC 9113, section 6.5.2).
    let bearer = bearer();
    let mut h2 = H2::connect(app.addr()).await;
    for (stream, size, status) in [(1, 12 * 1024, 200), (3, 15 * 1024, 200), (5, 17 * 1024, 431)] {
        let fill = "x".repeat(size);
        let mut request = fields("GET", "/v1/a", &bearer);
        request.push(("x-fill", &fill));
        let block = h2::block(&request);
        let (first, rest) = block.split_at(8000);
        h2.send(h2::frame(h2::kind::HEADERS, h2::flag::END_STREAM, stream, first)).await;
        h2.send(h2::frame(h2::kind::CONTINUATION, h2::flag::END_HEADERS, stream, rest)).await;
        let outcome = h2.outcome(stream).await;
        assert!(matches!(outcome, Outcome::Answer(have, _) if have == status), "{size}: {outcome:?}");
    }
    drop(h2);
    app.finish().await;
}

#[tokio::test]
async fn an_upload_that_trickles_is_cut_where_a_rate_is_asked_for() {
    let upstream = RawUpstream::recording().await;
    let app = relay()
        .config(|c| c["system"]["limits"] = json!({"min_body_rate": "1KiB"}))
        .upstream(&upstream)
        .start()
        .await;
    // Read ahead for the model, and passed on as it comes.
    let mut trickling = Vec::new();
    for kind in ["application/json", "application/octet-stream"] {
        let mut raw = app.raw().await;
        raw.send(format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {PROXY_KEY}\r\n\
             content-type: {kind}\r\ncontent-length: 100000\r\n\r\n{{\"a\":\""
        ))
        .await;
        trickling.push(raw);
    }
    // A byte each 250 ms until both are answered: more than the ten seconds that a rate is taken over.
    let mut left = 60;
    let mut answers = Vec::new();
    while let Some(mut raw) = trickling.pop() {
        let answer = loop {
            raw.send("x").await;
            for other in &mut trickling {
                other.send("x").await;
            }
            left -= 1;
            assert!(left > 0, "nobody cut the upload");
            match tokio::time::timeout(Duration::from_millis(250), raw.head()).await {
                Ok(answer) => break answer,
                Err(_) => continue,
            }
        };
        answers.push(answer.status);
    }
    assert_eq!(answers, [408, 408]);
    assert!(upstream.received().is_empty());
    app.finish().await;
}

#[tokio::test]
async fn an_old_connection_takes_no_more_requests() {
    let app = relay().config(|c| c["system"]["limits"] = json!({"connection_age": "1s"})).start().await;
    let bearer = bearer();
    let mut h2 = H2::connect(app.addr()).await;
    h2.send(h2::headers(1, true, &fields("GET", "/v1/models", &bearer))).await;
    let outcome = h2.outcome(1).await;
    assert!(matches!(outcome, Outcome::Answer(200, _)), "{outcome:?}");
    assert_eq!(h2.end().await, Some(0), "GOAWAY without an error");
    let mut raw = app.raw().await;
    raw.send(get("/v1/models", "")).await;
    assert_eq!(raw.answer().await.status, 200);
    assert_eq!(raw.rest().await, "");
    app.finish().await;
}

#[tokio::test]
async fn three_thousand_idle_connections_keep_nobody_out_for_long() {
    let app = relay()
        .config(|c| {
            c["system"]["max_connections"] = 1000.into();
            c["system"]["limits"] = json!({"header_timeout": "1s", "keep_alive": "1s"});
            c["system"]["log_level"] = "info".into();
        })
        .start()
        .await;
    let to = app.relay_addr();
    let mut idle = Vec::with_capacity(3000);
    for number in 0..3000_usize {
        let mut stream = Wire::tcp(to).await;
        // A third says nothing, a third begins a head, a third speaks HTTP/2 and asks for nothing.
        let beginning = [&b""[..], b"GET / HT", h2::PREFACE][number % 3];
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, beginning).await;
        idle.push(stream);
    }
    let turned_away = app.metric("aiproxy_connections_turned_away_total{reason=\"connections\"}").await;
    assert!(turned_away > 0.0, "there were too many");
    within("a place", async {
        loop {
            // Some are refused with 503, some without a word.
            let asked = Ask::new(to, PROXY_KEY, "GET", "/v1/models").try_send().await;
            if asked.is_ok_and(|answer| answer.status == 200) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    app.metric_is("aiproxy_connections", 0.0).await;
    drop(idle);
    app.finish().await;
}
