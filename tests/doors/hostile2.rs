//! Hostile HTTP/2: floods, bombs, stalls and malformed requests. The end or the reset that
//! `docs/status-codes.md` promises, bounded memory, and everybody else still served.

use aiproxy_testkit::h2::{self, H2, Outcome, flag, kind};
use aiproxy_testkit::{App, RawUpstream, until};

use super::{bearer, fields};
use crate::relay;

/// The relay in front of a platform that keeps what it has seen.
async fn start() -> (App, RawUpstream) {
    let upstream = RawUpstream::recording().await;
    let app = relay().config(|c| c["system"]["log_level"] = "info".into()).upstream(&upstream).start().await;
    (app, upstream)
}

/// A caller that behaves is served, on a connection of its own.
async fn others_are_served(app: &App) {
    let bearer = bearer();
    let mut h2 = H2::connect(app.addr()).await;
    h2.send(h2::headers(1, true, &fields("GET", "/v1/fine", &bearer))).await;
    let outcome = h2.outcome(1).await;
    assert!(matches!(outcome, Outcome::Answer(200, _)), "{outcome:?}");
    assert_eq!(app.get("/v1/fine").send().await.status, 200);
}

/// Sends `piece` again and again until the relay has enough; returns what it said and how many.
async fn flood(app: &App, piece: impl Fn(u32) -> Vec<u8>, most: u32) -> (Option<u32>, u32) {
    let mut h2 = H2::connect(app.addr()).await;
    let mut sent = 0;
    while sent < most && h2.offer(piece(sent)).await {
        sent += 1;
    }
    (h2.end().await, sent)
}

#[tokio::test]
async fn floods_end_the_connection_and_cost_no_memory() {
    let (app, upstream) = start().await;
    others_are_served(&app).await;
    let before = app.process().resident_bytes();
    let bearer = bearer();
    let request = |stream| h2::headers(stream, true, &fields("GET", "/v1/hostile", &bearer));
    let reset = |stream| h2::frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes());
    let repeated = |frame: Vec<u8>| move |_| frame.repeat(100);
    let update = |stream| h2::frame(kind::WINDOW_UPDATE, 0, stream, &1_u32.to_be_bytes());
    type Piece<'a> = Box<dyn Fn(u32) -> Vec<u8> + 'a>;
    let floods: Vec<(&str, Piece<'_>)> = vec![
        ("PING", Box::new(repeated(h2::frame(kind::PING, 0, 0, b"hostile!")))),
        ("SETTINGS", Box::new(repeated(h2::settings(&[(4, 65_535)])))),
        ("empty SETTINGS", Box::new(repeated(h2::settings(&[])))),
        ("PRIORITY", Box::new(repeated(h2::frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 1])))),
        ("WINDOW_UPDATE", Box::new(repeated(update(0)))),
        ("unknown frames", Box::new(repeated(h2::frame(0x42, 0, 0, b"")))),
        (
            "empty DATA",
            Box::new(|round| match round {
                0 => h2::headers(1, false, &fields("POST", "/v1/hostile", &bearer)),
                _ => h2::frame(kind::DATA, 0, 1, b"").repeat(100),
            }),
        ),
        (
            "empty CONTINUATION",
            Box::new(|round| match round {
                0 => h2::frame(kind::HEADERS, 0, 1, &h2::block(&fields("GET", "/v1/hostile", &bearer))),
                _ => h2::frame(kind::CONTINUATION, 0, 1, b"").repeat(100),
            }),
        ),
        (
            "CONTINUATION",
            Box::new(|round| match round {
                0 => h2::frame(kind::HEADERS, 0, 1, &h2::block(&fields("GET", "/v1/hostile", &bearer))),
                _ => h2::frame(kind::CONTINUATION, 0, 1, &h2::block(&[("x-a", &"x".repeat(16_000))])),
            }),
        ),
        ("requests reset at once", Box::new(|round| [request(2 * round + 1), reset(2 * round + 1)].concat())),
        (
            "requests without an end",
            Box::new(|round| h2::headers(2 * round + 1, false, &fields("POST", "/v1/hostile", &bearer))),
        ),
        (
            "requests that the relay resets",
            Box::new(|round| h2::headers(2 * round + 1, true, &[(":method", "GET"), ("X-Upper", "1")])),
        ),
        (
            "requests reset by a malformed frame",
            Box::new(|round| {
                [request(2 * round + 1), h2::frame(kind::WINDOW_UPDATE, 0, 2 * round + 1, &[0; 4])].concat()
            }),
        ),
    ];
    for (name, piece) in floods {
        let (said, sent) = flood(&app, piece, 20_000).await;
        assert!(sent < 20_000 || said.is_some(), "{name}: nobody minded");
        others_are_served(&app).await;
    }
    app.metric_is("aiproxy_live_requests", 0.0).await;
    let grown = app.process().resident_bytes().saturating_sub(before);
    assert!(grown < 48 << 20, "{grown} bytes");
    assert!(app.metric("aiproxy_connections_turned_away_total{reason=\"flood\"}").await >= 6.0);
    // Some of the resets came too late to keep their requests from the platform; no more than the
    // budget allows.
    let hostile = upstream.received().iter().filter(|seen| seen.target() == "/v1/hostile").count();
    assert!(hostile < 500, "{hostile} hostile requests at the platform");
    app.finish().await;
}

#[tokio::test]
async fn a_bomb_of_compressed_fields_is_not_unpacked() {
    let (app, upstream) = start().await;
    others_are_served(&app).await;
    let before = app.process().resident_bytes();
    let bearer = bearer();
    let mut h2 = H2::connect(app.addr()).await;
    let mut stream = 1;
    for _ in 0..8 {
        // One field of 4,000 bytes in the table, then a byte for each further 4,000: 48 MiB a request.
        let mut block = h2::block(&fields("GET", "/v1/hostile", &bearer));
        block.push(0x40);
        block.extend(h2::block(&[("x", &"y".repeat(3990))]).split_off(1));
        block.extend(vec![0xbe; 12_000]);
        h2.send(h2::frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, &block)).await;
        match h2.outcome(stream).await {
            Outcome::Answer(431, _) | Outcome::Reset(_) => stream += 2,
            Outcome::GoAway(_) | Outcome::Closed => {
                h2 = H2::connect(app.addr()).await;
                stream = 1;
            }
            other => panic!("{other:?}"),
        }
    }
    let grown = app.process().resident_bytes().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes");
    assert!(upstream.received().iter().all(|seen| seen.target() == "/v1/fine"));
    others_are_served(&app).await;
    app.finish().await;
}

#[tokio::test]
async fn callers_that_take_nothing_cost_a_bounded_amount() {
    let upstream = RawUpstream::start(|mut conn| async move {
        while let Some(request) = conn.request().await {
            if request.target() == "/v1/fine" {
                conn.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                continue;
            }
            conn.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            let piece = [&b"10000\r\n"[..], &[b'x'; 0x10000], b"\r\n"].concat();
            while conn.send(&piece).await {}
        }
    })
    .await;
    let app = relay().config(|c| c["system"]["log_level"] = "info".into()).upstream(&upstream).start().await;
    let bearer = bearer();
    others_are_served(&app).await;
    let before = app.process().resident_bytes();
    let mut stalled = Vec::new();
    // No window at all for a stream; none for the connection; a window of one byte at a time.
    for window in [0, 65_535, 1] {
        let mut h2 = H2::over(aiproxy_testkit::Wire::Plain(aiproxy_testkit::Wire::tcp(app.addr()).await));
        h2.begin(&[(4, window)]).await;
        for stream in 0..50 {
            h2.send(h2::headers(2 * stream + 1, true, &fields("GET", "/v1/endless", &bearer))).await;
        }
        stalled.push(h2);
    }
    until("all of them at the platform", || (upstream.connections() >= 150).then_some(())).await;
    let grown = app.process().resident_bytes().saturating_sub(before);
    assert!(grown < 128 << 20, "{grown} bytes for 150 answers that nobody takes");
    others_are_served(&app).await;
    drop(stalled);
    app.metric_is("aiproxy_live_requests", 0.0).await;
    app.finish().await;
}

#[tokio::test]
async fn malformed_requests_are_reset_and_never_relayed() {
    let (app, upstream) = start().await;
    let bearer = bearer();
    let good = fields("POST", "/v1/hostile", &bearer);
    let without = |name: &str| good.iter().copied().filter(|(have, _)| *have != name).collect::<Vec<_>>();
    let and = |more: &[(&'static str, &'static str)]| {
        let mut request = good.clone();
        request.extend(more);
        request
    };
    let swapped = |name: &str, value: &'static str| {
        good.iter().map(|(have, old)| (*have, if *have == name { value } else { *old })).collect::<Vec<_>>()
    };
    let rows: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("an empty path", swapped(":path", "")),
        ("a path that is no path", swapped(":path", "v1/hostile")),
        ("two methods", and(&[(":method", "GET")])),
        ("two paths", and(&[(":path", "/v1/hostile")])),
        ("two schemes", and(&[(":scheme", "http")])),
        ("two authorities", and(&[(":authority", "relay")])),
        ("a pseudo-field after others", {
            let mut request = without(":path");
            request.push((":path", "/v1/hostile"));
            request
        }),
        ("an unknown pseudo-field", [&[(":hostile", "1")], &good[..]].concat()),
        ("a pseudo-field of answers", [&[(":status", "200")], &good[..]].concat()),
        (
            "a protocol that was not offered",
            [&[(":protocol", "websocket")], &swapped(":method", "CONNECT")[..]].concat(),
        ),
        ("capitals in a name", and(&[("X-Upper", "1")])),
        ("an empty name", and(&[("", "1")])),
        ("a space in a name", and(&[("x a", "1")])),
        ("a colon in a name", and(&[("x:a", "1")])),
        ("a NUL in a value", and(&[("x-a", "b\0c")])),
        ("a line in a value", and(&[("x-a", "b\r\nx-b: c")])),
        ("connection", and(&[("connection", "close")])),
        ("keep-alive", and(&[("keep-alive", "1")])),
        ("proxy-connection", and(&[("proxy-connection", "close")])),
        ("transfer-encoding", and(&[("transfer-encoding", "chunked")])),
        ("upgrade", and(&[("upgrade", "websocket")])),
        ("te other than trailers", and(&[("te", "gzip")])),
        ("a length that is no number", and(&[("content-length", "x")])),
        ("two lengths", and(&[("content-length", "4"), ("content-length", "5")])),
        ("a length without a body", and(&[("content-length", "4")])),
        ("a control character in the method", swapped(":method", "G\rET")),
        ("a control character in the path", swapped(":path", "/v1/hos\r\ntile")),
        ("a space in the path", swapped(":path", "/v1/hostile HTTP/1.1")),
        ("an authority with a user", swapped(":authority", "user@relay")),
    ];
    for (name, request) in rows {
        let mut h2 = H2::connect(app.addr()).await;
        h2.send(h2::headers(1, true, &request)).await;
        let outcome = h2.outcome(1).await;
        let fate = match &outcome {
            Outcome::Answer(400 | 405, _) | Outcome::Reset(1) | Outcome::GoAway(1) => true,
            Outcome::Answer(..) | Outcome::Reset(_) | Outcome::GoAway(_) | Outcome::Closed => false,
        };
        assert!(fate, "{name}: {outcome:?}");
        assert_eq!(upstream.received().len(), 0, "{name}");
    }
    // More and less than was announced: the platform may have seen a beginning, and no whole request.
    for (length, body) in [("4", &b"body and more"[..]), ("40", b"body")] {
        let mut h2 = H2::connect(app.addr()).await;
        let mut request = good.clone();
        request.push(("content-length", length));
        h2.send(h2::headers(1, false, &request)).await;
        h2.send(h2::frame(kind::DATA, flag::END_STREAM, 1, body)).await;
        let outcome = h2.outcome(1).await;
        assert!(matches!(outcome, Outcome::Reset(1) | Outcome::Answer(400, _)), "{length}: {outcome:?}");
    }
    others_are_served(&app).await;
    assert!(upstream.received().iter().all(|seen| seen.target() == "/v1/fine"));
    app.metric_is("aiproxy_live_requests", 0.0).await;
    app.finish().await;
}
