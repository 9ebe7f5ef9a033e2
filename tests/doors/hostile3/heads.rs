//! Heads, and bodies against what heads say of them.

use std::collections::BTreeMap;

use aiproxy_testkit::quic::{self, Outcome, code};
use aiproxy_testkit::{Gate, RawUpstream};

use super::{Scene, bearer, data, fate, fields, post, served};

type Row<'a> = (&'a str, Vec<(&'a str, &'a str)>);

/// Everything that must not be in a head.
fn rows(bearer: &str) -> Vec<Row<'_>> {
    let good = fields("POST", "/v1/hostile", bearer);
    let without = |name: &str| good.iter().copied().filter(|(have, _)| *have != name).collect::<Vec<_>>();
    let and = |more: &[(&'static str, &'static str)]| [&good[..], more].concat();
    let before = |more: &[(&'static str, &'static str)]| [more, &good[..]].concat();
    let swapped = |name: &str, value: &'static str| {
        good.iter().map(|(have, old)| (*have, if *have == name { value } else { *old })).collect::<Vec<_>>()
    };
    vec![
        ("nothing at all", Vec::new()),
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("no host", without(":authority")),
        ("an empty method", swapped(":method", "")),
        ("an empty scheme", swapped(":scheme", "")),
        ("another scheme", swapped(":scheme", "file")),
        ("an empty path", swapped(":path", "")),
        ("an empty authority", swapped(":authority", "")),
        ("a path that is no path", swapped(":path", "v1/hostile")),
        ("a whole URL as the path", swapped(":path", "https://elsewhere/v1/hostile")),
        ("an asterisk", swapped(":path", "*")),
        ("a fragment", swapped(":path", "/v1/hostile#a")),
        ("two methods", before(&[(":method", "GET")])),
        ("two paths", before(&[(":path", "/v1/hostile")])),
        ("two schemes", before(&[(":scheme", "https")])),
        ("two authorities", before(&[(":authority", "relay.test")])),
        ("a pseudo-field after others", [&without(":path")[..], &[(":path", "/v1/hostile")]].concat()),
        ("a pseudo-field after a cookie", {
            let cookie = [("cookie", "a=b"), (":path", "/v1/hostile")];
            [&without(":path")[..3], &cookie[..]].concat()
        }),
        ("an unknown pseudo-field", before(&[(":hostile", "1")])),
        ("a pseudo-field without a name", before(&[(":", "1")])),
        ("a pseudo-field of answers", before(&[(":status", "200")])),
        ("a protocol that was not offered", {
            let connect = swapped(":method", "CONNECT");
            [&[(":protocol", "websocket")], &connect[..]].concat()
        }),
        ("CONNECT of a path", swapped(":method", "CONNECT")),
        ("an authority with a user", swapped(":authority", "user@relay.test")),
        ("an authority with a path", swapped(":authority", "relay.test/v1")),
        ("another host", and(&[("host", "elsewhere")])),
        ("two hosts", and(&[("host", "relay.test"), ("host", "relay.test")])),
        ("capitals in a name", and(&[("X-Upper", "1")])),
        ("capitals in a pseudo-field", before(&[(":Path", "/v1/hostile")])),
        ("an empty name", and(&[("", "1")])),
        ("a space in a name", and(&[("x a", "1")])),
        ("a colon in a name", and(&[("x:a", "1")])),
        ("a NUL in a name", and(&[("x\0a", "1")])),
        ("a line in a name", and(&[("x\r\na", "1")])),
        ("a NUL in a value", and(&[("x-a", "b\0c")])),
        ("a line in a value", and(&[("x-a", "b\r\nx-b: c")])),
        ("a line feed in a value", and(&[("x-a", "b\nc")])),
        ("a space before a value", and(&[("x-a", " b")])),
        ("a tab behind a value", and(&[("x-a", "b\t")])),
        ("connection", and(&[("connection", "close")])),
        ("keep-alive", and(&[("keep-alive", "1")])),
        ("proxy-connection", and(&[("proxy-connection", "close")])),
        ("transfer-encoding", and(&[("transfer-encoding", "chunked")])),
        ("upgrade", and(&[("upgrade", "websocket")])),
        ("te other than trailers", and(&[("te", "gzip")])),
        ("a length that is no number", and(&[("content-length", "x")])),
        ("a signed length", and(&[("content-length", "+4")])),
        ("an empty length", and(&[("content-length", "")])),
        ("an endless length", and(&[("content-length", "99999999999999999999")])),
        ("two lengths", and(&[("content-length", "4"), ("content-length", "5")])),
        ("a list of lengths", and(&[("content-length", "4, 4")])),
        ("a control character in the method", swapped(":method", "G\rET")),
        ("a space in the method", swapped(":method", "GET /v1/hostile")),
        ("a control character in the path", swapped(":path", "/v1/hos\r\ntile")),
        ("a space in the path", swapped(":path", "/v1/hostile HTTP/1.1")),
        ("a NUL in the path", swapped(":path", "/v1/hostile\0")),
    ]
}

#[tokio::test]
async fn malformed_heads_are_reset_and_never_relayed() {
    let scene = Scene::start().await;
    let bearer = bearer();
    let raw = scene.connect().await;
    for (name, request) in rows(&bearer) {
        // With a body, so that it is no matter of a missing one.
        let bytes = [quic::headers(&request), data(b"body")].concat();
        assert_eq!(fate(&raw, bytes).await, Outcome::Reset(code::MESSAGE_ERROR), "{name}");
        assert_eq!(scene.upstream.connections(), 0, "{name}");
    }
    // An error of a stream is one of that stream alone.
    served(&raw).await;
    scene.others_are_served().await;
    scene.finish().await;
}

#[tokio::test]
async fn what_is_well_formed_and_not_allowed_is_answered() {
    let scene = Scene::with(RawUpstream::recording().await, |c| {
        c["channels"]["main"]["deny_paths"] = serde_json::json!(["/v1/secret/**", "/v1/secret"]);
    })
    .await;
    let bearer = bearer();
    let raw = scene.connect().await;
    let statuses = BTreeMap::from([
        ("//elsewhere/v1/hostile", 400),
        ("/v1//secret", 400),
        ("/v1/a/../secret", 400),
        ("/v1/a/%2e%2E/secret", 400),
        ("/v1%2fsecret", 400),
        ("/v1/a%5c..%5csecret", 400),
        ("/v1/secret%00", 400),
        ("/v1/%73ecret", 403),
        ("/v1/SECRET", 403),
    ]);
    for (path, status) in statuses {
        let outcome = fate(&raw, quic::headers(&fields("GET", path, &bearer))).await;
        assert!(matches!(outcome, Outcome::Answer(have, _) if have == status), "{path}: {outcome:?}");
    }
    let mut rows = vec![
        ("TRACE", 405, quic::headers(&fields("TRACE", "/v1/hostile", &bearer))),
        ("no key", 401, quic::headers(&fields("GET", "/v1/hostile", "Bearer pk_nobody"))),
        ("a length that is too large", 413, post(&[("content-length", "2147483648")])),
    ];
    let connect = [(":method", "CONNECT"), (":authority", "elsewhere:443"), ("authorization", &bearer)];
    rows.push(("CONNECT", 400, quic::headers(&connect)));
    for (name, status, bytes) in rows {
        let outcome = fate(&raw, bytes).await;
        assert!(matches!(outcome, Outcome::Answer(have, _) if have == status), "{name}: {outcome:?}");
    }
    assert_eq!(scene.upstream.received().len(), 0);
    served(&raw).await;
    scene.finish().await;
}

#[tokio::test]
async fn heads_beyond_their_bounds_are_told_so() {
    let scene = Scene::start().await;
    let raw = scene.connect().await;
    let long = "x".repeat(70_000);
    let many: Vec<(&str, &str)> = vec![("x-a", "b"); 5000];
    let rows = [
        ("a long value", post(&[("x-a", &long)])),
        ("a long name", post(&[(&long, "a")])),
        ("many fields", post(&many)),
        // Announced only: nothing of it has to come.
        ("a gibibyte", quic::announced(quic::kind::HEADERS, 1 << 30)),
        ("all there can be", quic::announced(quic::kind::HEADERS, (1 << 62) - 1)),
        // A byte of the section for each line of the static table.
        ("a bomb", {
            let mut bomb = quic::section(&fields("POST", "/v1/hostile", "a"));
            bomb.extend(vec![0xc0 | 31; 60_000]);
            quic::frame(quic::kind::HEADERS, &bomb)
        }),
    ];
    for (name, bytes) in rows {
        let mut stream = raw.bidi().await.unwrap();
        stream.send(bytes).await;
        let outcome = stream.outcome().await;
        let Outcome::Answer(431, body) = outcome else { panic!("{name}: {outcome:?}") };
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["code"], "headers_too_large", "{name}");
    }
    assert_eq!(scene.upstream.connections(), 0);
    served(&raw).await;
    scene.finish().await;
}

#[tokio::test]
async fn bodies_that_are_not_as_long_as_they_say_never_look_whole() {
    let scene = Scene::start().await;
    let raw = scene.connect().await;
    let trailers = quic::headers(&[("x-trailer", "1")]);
    let rows: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("none", vec![post(&[("content-length", "4")])]),
        ("more", vec![post(&[("content-length", "4")]), data(b"body and more")]),
        ("more, in two frames", vec![post(&[("content-length", "4")]), data(b"body"), data(b" and more")]),
        ("less", vec![post(&[("content-length", "40")]), data(b"body")]),
        ("less, before trailers", vec![post(&[("content-length", "40")]), data(b"body"), trailers.clone()]),
        ("pseudo-fields in trailers", vec![post(&[]), data(b"body"), quic::headers(&[(":path", "/")])]),
        ("capitals in trailers", vec![post(&[]), data(b"body"), quic::headers(&[("X-Upper", "1")])]),
    ];
    for (name, pieces) in rows {
        for at_once in [true, false] {
            let mut stream = raw.bidi().await.unwrap();
            for piece in &pieces {
                stream.send(piece).await;
                if !at_once {
                    // The relay has it before it sees the rest.
                    served(&raw).await;
                }
            }
            let _ = stream.send.finish();
            let outcome = stream.outcome().await;
            let fate = matches!(outcome, Outcome::Reset(code::MESSAGE_ERROR) | Outcome::Answer(400, _));
            assert!(fate, "{name}: {outcome:?}");
            assert_eq!(scene.hostile(), 0, "{name}");
        }
    }
    // And those that are.
    for bytes in [
        [post(&[("content-length", "4")]), data(b"bo"), data(b""), data(b"dy")].concat(),
        [post(&[("content-length", "4"), ("content-length", "4")]), data(b"body"), trailers].concat(),
    ] {
        let outcome = fate(&raw, bytes).await;
        assert!(matches!(outcome, Outcome::Answer(200, _)), "{outcome:?}");
    }
    let received = scene.upstream.received();
    assert!(received.iter().filter(|seen| seen.target() == "/v1/hostile").all(|seen| seen.body == "body"));
    scene.others_are_served().await;
    scene.finish().await;
}

#[tokio::test]
async fn a_body_that_is_given_up_never_looks_whole() {
    let gate = Gate::new("the platform reads on");
    let theirs = gate.clone();
    let upstream = RawUpstream::start(move |mut conn| {
        let gate = theirs.clone();
        async move {
            gate.passed().await;
            while conn.request().await.is_some() {
                conn.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    let scene = Scene::with(upstream, |_| {}).await;
    let raw = scene.connect().await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = raw.bidi().await.unwrap();
        stream.send(post(&[])).await;
        // Frames that the relay finds many at a time, until it takes no more of them: the platform does
        // not read.
        let pieces = data(&[b'x'; 500]).repeat(100);
        let full = std::time::Duration::from_millis(300);
        while tokio::time::timeout(full, stream.send.write_all(&pieces)).await.is_ok() {}
        stream.reset(code::REQUEST_CANCELLED);
        held.push(stream);
    }
    gate.open();
    for mut stream in held {
        let outcome = stream.outcome().await;
        assert!(!matches!(outcome, Outcome::Answer(200, _)), "{outcome:?}");
    }
    assert_eq!(scene.hostile(), 0, "nothing whole at the platform");
    scene.others_are_served().await;
    scene.app.metric_is("aiproxy_live_requests", 0.0).await;
    assert_eq!(scene.hostile(), 0, "nothing whole at the platform");
    scene.finish().await;
}
