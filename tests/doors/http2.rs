//! HTTP/2 goes through the same phases: what it says in other places, what it must not say, and how
//! it ends.

use aiproxy_testkit::h2::{self, H2, Outcome, kind};
use aiproxy_testkit::{Authority, Gate, RawUpstream, Tls, Wire, until};
use serde_json::{Value, json};

use super::{bearer, behind, fields, secure};
use crate::{chat, relay};

#[tokio::test]
async fn a_request_arrives_as_it_would_over_http_1() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    let (bearer, body) = (bearer(), chat("gpt-4o", "hi").to_string());
    let mut h2 = H2::connect(app.addr()).await;
    let mut request = fields("POST", "/v1/chat/completions?a=b", &bearer);
    request.extend([("content-type", "application/json"), ("te", "trailers"), ("cookie", "a=b")]);
    h2.send(h2::headers(1, false, &request)).await;
    let (first, rest) = body.as_bytes().split_at(9);
    h2.send(h2::frame(kind::DATA, 0, 1, first)).await;
    h2.send(h2::frame(kind::DATA, h2::flag::END_STREAM, 1, rest)).await;
    assert_eq!(h2.outcome(1).await, Outcome::Answer(200, "{\"ok\":true}".into()));
    let seen = upstream.request(0).await;
    assert_eq!(seen.head.start, "POST /v1/chat/completions?a=b HTTP/1.1");
    assert_eq!(seen.header("host"), Some(app.platform().addr().to_string()));
    assert_eq!(seen.body, body);
    assert_eq!(seen.header("te").as_deref(), Some("trailers"));
    for absent in ["cookie", "connection"] {
        assert_eq!(seen.header(absent), None, "{absent}");
    }
    let line = app.logged("the request", |line| line["protocol"] == "http2").await;
    assert_eq!(
        (&line["user"], &line["status"], &line["bytes_out"]),
        (&json!("user1"), &json!(200), &json!(11))
    );
    app.finish().await;
}

#[tokio::test]
async fn refusals_have_their_bodies_and_the_connection_goes_on() {
    let app = relay().start().await;
    let bearer = bearer();
    let mut h2 = H2::connect(app.addr()).await;
    let mut stream = 1;
    let mut cases = Vec::new();
    for (method, path, key, status, code) in [
        ("GET", "/v1/models", "Bearer pk_nobody_0", 401, "invalid_key"),
        ("TRACE", "/v1/models", &*bearer, 405, "method_not_allowed"),
        ("GET", "//host/v1/models", &*bearer, 400, "bad_request"),
        ("GET", "/v1/../admin", &*bearer, 400, "bad_request"),
        ("GET", "/v1/%2e%2e/admin", &*bearer, 400, "bad_request"),
        ("GET", "/nothing/serves/%2fthis", &*bearer, 400, "bad_request"),
    ] {
        cases.push((fields(method, path, key), status, code));
    }
    let mut two = fields("GET", "/v1/models", &bearer);
    two.push(("host", "elsewhere"));
    cases.push((two, 400, "bad_request"));
    for (request, status, code) in cases {
        h2.send(h2::headers(stream, true, &request)).await;
        let outcome = h2.outcome(stream).await;
        let Outcome::Answer(have, body) = outcome else { panic!("{request:?}: {outcome:?}") };
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((have, &body["error"]["code"]), (status, &json!(code)), "{request:?}");
        stream += 2;
    }
    // A hundred fields are well within the bytes, and not within the number.
    let many: Vec<String> = (0..200).map(|number| format!("x-{number}")).collect();
    let mut request = fields("GET", "/v1/models", &bearer);
    request.extend(many.iter().map(|name| (name.as_str(), "")));
    h2.send(h2::headers(stream, true, &request)).await;
    let outcome = h2.outcome(stream).await;
    assert!(matches!(outcome, Outcome::Answer(431, _)), "{outcome:?}");
    h2.send(h2::headers(stream + 2, true, &fields("GET", "/v1/models", &bearer))).await;
    let outcome = h2.outcome(stream + 2).await;
    assert!(matches!(outcome, Outcome::Answer(200, _)), "{outcome:?}");
    app.finish().await;
}

#[tokio::test]
async fn where_tls_ends_at_the_relay_urls_come_back_with_https() {
    let authority = Authority::default();
    let upstream =
        RawUpstream::answering("HTTP/1.1 302 Found\r\nlocation: /v1/b\r\ncontent-length: 0\r\n\r\n").await;
    let app = secure(&authority, &["relay.test"]).upstream(&upstream).start().await;
    let tls = Tls::new(&authority, &["http/1.1"]);
    for (secure, forwarded, expected) in
        [(true, "", "https"), (true, "http", "https"), (false, "https", "http")]
    {
        let wire = if secure {
            tls.connect(app.https_addr(), "relay.test").await.unwrap()
        } else {
            Wire::Plain(Wire::tcp(app.addr()).await)
        };
        let mut raw = aiproxy_testkit::Raw::over(wire);
        raw.send(super::get("/v1/a", &format!("x-forwarded-proto: {forwarded}\r\n"))).await;
        let location = raw.answer().await.head.get("location").unwrap();
        let absolute = location.split_once("://").map_or(expected, |(scheme, _)| scheme);
        assert_eq!(absolute, expected, "{location}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_draining_relay_says_goaway_and_finishes_what_is_under_way() {
    let gate = Gate::new("the answer");
    let upstream = behind(&gate, "done").await;
    let app = relay().upstream(&upstream).start().await;
    let bearer = bearer();
    let mut h2 = H2::connect(app.addr()).await;
    h2.send(h2::headers(1, true, &fields("GET", "/v1/a", &bearer))).await;
    upstream.request(0).await;
    app.process().signal("TERM");
    loop {
        let frame = h2.next().await.expect("a frame");
        if frame.kind == kind::GOAWAY {
            assert_eq!(&frame.payload[4..8], [0; 4], "no error");
            break;
        }
        if frame.kind == kind::PING && frame.flags == 0 {
            h2.send(h2::frame(kind::PING, h2::flag::ACK, 0, &frame.payload)).await;
        }
    }
    gate.open();
    let mut body = Vec::new();
    while let Some(frame) = h2.next().await {
        if frame.kind == kind::PING && frame.flags == 0 {
            h2.send(h2::frame(kind::PING, h2::flag::ACK, 0, &frame.payload)).await;
        }
        if frame.kind == kind::DATA {
            body.extend_from_slice(&frame.payload);
        }
    }
    assert_eq!(body, b"done");
    app.finish().await;
}

#[tokio::test]
async fn a_stream_that_the_caller_resets_cancels_the_platform_and_nothing_else() {
    let upstream = RawUpstream::start(|mut conn| async move {
        while let Some(request) = conn.request().await {
            if request.target() == "/v1/endless" {
                conn.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
                conn.closed().await;
                return;
            }
            conn.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let app = relay().upstream(&upstream).start().await;
    let bearer = bearer();
    let mut h2 = H2::connect(app.addr()).await;
    h2.send(h2::headers(1, true, &fields("GET", "/v1/endless", &bearer))).await;
    assert_eq!(h2.piece(1).await.unwrap(), "first");
    h2.send(h2::frame(kind::RST_STREAM, 0, 1, &8_u32.to_be_bytes())).await;
    let line = app.logged("the end", |line| line["endpoint"] == "/v1/endless").await;
    assert_eq!(line["outcome"], "caller_left");
    h2.send(h2::headers(3, true, &fields("GET", "/v1/a", &bearer))).await;
    assert_eq!(h2.outcome(3).await, Outcome::Answer(200, "ok".into()));
    app.metric_is("aiproxy_live_requests", 0.0).await;
    app.finish().await;
}

#[tokio::test]
async fn a_withdrawn_key_ends_a_stream_whose_caller_takes_nothing() {
    let upstream = RawUpstream::start(|mut conn| async move {
        conn.request().await;
        conn.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let piece = [&b"4000\r\n"[..], &[b'x'; 0x4000], b"\r\n"].concat();
        while conn.send(&piece).await {}
    })
    .await;
    let mut app = relay()
        .config(|c| {
            c["users"]["user2"] = json!({"proxy_key": "pk_user2_0123456789", "channels": ["main"]});
        })
        .upstream(&upstream)
        .start()
        .await;
    let bearer = bearer();
    let mut h2 = H2::connect(app.addr()).await;
    h2.send(h2::headers(1, true, &fields("GET", "/v1/endless", &bearer))).await;
    // As much as the window holds, and no more is asked for.
    let mut taken = 0;
    while taken < 65_535 {
        taken += h2.piece(1).await.expect("a piece").len();
    }
    assert!(app.change(|c| c["users"]["user1"]["status"] = "disabled".into()).await);
    let outcome = h2.outcome(1).await;
    assert!(matches!(outcome, Outcome::Reset(_)), "{outcome:?}");
    let line = app.logged("the end", |line| line["endpoint"] == "/v1/endless").await;
    assert_eq!((&line["outcome"], &line["error"]), (&json!("cut"), &json!("user_disabled")));
    app.metric_is("aiproxy_live_requests", 0.0).await;
    // The window is the connection's: it has to be opened for anybody to go on.
    h2.send(h2::frame(kind::WINDOW_UPDATE, 0, 0, &65_535_u32.to_be_bytes())).await;
    assert!(h2.is_alive().await, "the connection is not the stream");
    drop(h2);
    app.finish().await;
}

#[tokio::test]
async fn an_idle_connection_is_told_and_then_closed() {
    let app = relay().config(|c| c["system"]["limits"] = json!({"keep_alive": "1s"})).start().await;
    // Before a request, and after one.
    for request in [false, true] {
        let mut h2 = H2::connect(app.addr()).await;
        if request {
            let bearer = bearer();
            h2.send(h2::headers(1, true, &fields("GET", "/v1/models", &bearer))).await;
            let outcome = h2.outcome(1).await;
            assert!(matches!(outcome, Outcome::Answer(200, _)), "{outcome:?}");
        }
        assert_eq!(h2.end().await, Some(0), "GOAWAY without an error");
    }
    app.finish().await;
}

#[tokio::test]
async fn streams_beyond_the_bound_are_refused_and_the_rest_is_served() {
    let gate = Gate::new("the answers");
    let upstream = behind(&gate, "ok").await;
    let app = relay()
        .config(|c| c["system"]["limits"] = json!({"streams_per_connection": 3}))
        .upstream(&upstream)
        .start()
        .await;
    let bearer = bearer();
    let mut h2 = H2::connect(app.addr()).await;
    for stream in [1, 3, 5, 7] {
        h2.send(h2::headers(stream, true, &fields("GET", "/v1/a", &bearer))).await;
    }
    assert_eq!(h2.outcome(7).await, Outcome::Reset(7), "REFUSED_STREAM: it may be sent again");
    until("the others at the platform", || (upstream.received().len() == 3).then_some(())).await;
    gate.open();
    assert_eq!(h2.outcome(5).await, Outcome::Answer(200, "ok".into()));
    h2.send(h2::headers(9, true, &fields("GET", "/v1/a", &bearer))).await;
    assert_eq!(h2.outcome(9).await, Outcome::Answer(200, "ok".into()));
    app.finish().await;
}

#[tokio::test]
async fn a_connection_has_room_for_all_its_uploads() {
    let app = relay().config(|c| c["system"]["limits"] = json!({"streams_per_connection": 40})).start().await;
    let mut h2 = H2::over(Wire::Plain(Wire::tcp(app.addr()).await));
    h2.send(h2::PREFACE).await;
    h2.send(h2::settings(&[])).await;
    let (mut stream, mut connection) = (0, 0);
    while stream == 0 || connection == 0 {
        let frame = h2.next().await.unwrap();
        match frame.kind {
            // SETTINGS_INITIAL_WINDOW_SIZE.
            kind::SETTINGS => {
                for setting in frame.payload.chunks(6).filter(|setting| setting[..2] == [0, 4]) {
                    stream = u32::from_be_bytes(*setting.last_chunk().unwrap());
                }
            }
            kind::WINDOW_UPDATE if frame.stream == 0 => {
                connection = 65_535 + u32::from_be_bytes(*frame.payload.first_chunk().unwrap());
            }
            _ => {}
        }
    }
    assert!(connection >= 40 * stream, "{connection} for uploads of {stream} each");
    app.finish().await;
}
