//! Bodies, their framing, their limits.

use aiproxy_testkit::{Gate, HeaderMap, PROXY_KEY, RawUpstream};

use crate::relay;

const HEAD: &str = "host: relay\r\ncontent-type: text/plain\r\n";

#[tokio::test]
async fn the_body_of_a_get_arrives_though_its_length_is_unknown() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    let mut raw = app.raw().await;
    raw.send(format!(
        "GET /v1/a HTTP/1.1\r\n{HEAD}authorization: Bearer {PROXY_KEY}\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n"
    ))
    .await;
    raw.send("0\r\n\r\n").await;
    assert_eq!(raw.answer().await.status, 200);
    let request = upstream.request(0).await;
    assert_eq!(request.header("transfer-encoding").as_deref(), Some("chunked"));
    assert_eq!(request.body, "body");
    app.finish().await;
}

#[tokio::test]
async fn bodies_keep_their_framing_on_the_way_up() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;

    app.ask("POST", "/v1/a").body("with a length").send().await;
    let request = upstream.request(0).await;
    assert_eq!(request.header("content-length").as_deref(), Some("13"));
    assert_eq!(request.header("transfer-encoding"), None);
    assert_eq!(request.body, "with a length");

    let (ask, upload) = app.ask("POST", "/v1/b").upload();
    let sending = tokio::spawn(ask.send());
    for piece in ["in ", "several ", "pieces"] {
        assert!(upload.send(piece).await);
    }
    drop(upload);
    assert_eq!(sending.await.unwrap().status, 200);
    let request = upstream.request(1).await;
    assert_eq!(request.header("content-length"), None);
    assert_eq!(request.header("transfer-encoding").as_deref(), Some("chunked"));
    assert_eq!(request.body, "in several pieces");

    app.ask("POST", "/v1/c").send().await;
    let request = upstream.request(2).await;
    assert!(request.body.is_empty());
    assert_eq!(request.header("transfer-encoding"), None);
    app.finish().await;
}

#[tokio::test]
async fn json_that_was_read_for_its_model_arrives_byte_for_byte() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    let text = "{ \"messages\" : [ \"你好\" ],\n\t\"n\":1.50, \"model\" : \"gpt-4o\", \"model_x\":null }\r\n";
    app.ask("POST", "/v1/chat/completions")
        .header("content-type", "application/json")
        .body(text)
        .send()
        .await;
    let request = upstream.request(0).await;
    assert_eq!(request.body, text);
    assert_eq!(request.header("content-length"), Some(text.len().to_string()));
    app.finish().await;
}

#[tokio::test]
async fn trailers_pass_up() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    let (ask, upload) = app.ask("POST", "/v1/a").header("trailer", "x-checksum").upload();
    let sending = tokio::spawn(ask.send());
    upload.send("body").await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "abc".parse().unwrap());
    upload.trailers(trailers).await;
    assert_eq!(sending.await.unwrap().status, 200);
    let request = upstream.request(0).await;
    assert_eq!(request.body, "body");
    assert_eq!(request.trailers.get("x-checksum").as_deref(), Some("abc"));
    app.finish().await;
}

#[tokio::test]
async fn trailers_pass_down_to_a_caller_that_asks_for_them() {
    let app = relay().start().await;
    let mut answer = app.get("/v1/models").header("te", "trailers").sandbox("trailers").send().await;
    answer.bytes().await;
    let trailers = answer.trailers().expect("trailers");
    assert_eq!(trailers["x-sandbox-trailer"], "done");
    // Who does not ask gets none, and the body all the same.
    let mut answer = app.get("/v1/models").sandbox("trailers").send().await;
    assert!(!answer.bytes().await.is_empty());
    assert_eq!(answer.trailers(), None);
    app.finish().await;
}

#[tokio::test]
async fn an_expected_100_comes_only_when_the_body_is_wanted() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    let head = format!("POST /v1/a HTTP/1.1\r\n{HEAD}content-length: 4\r\nexpect: 100-continue\r\n");

    let mut refused = app.raw().await;
    refused.send(format!("{head}authorization: Bearer pk_nobody_0000\r\n\r\n")).await;
    assert_eq!(refused.answer().await.status, 401);

    let mut taken = app.raw().await;
    taken.send(format!("{head}authorization: Bearer {PROXY_KEY}\r\n\r\n")).await;
    assert_eq!(taken.answer().await.status, 100);
    taken.send("body").await;
    assert_eq!(taken.answer().await.status, 200);
    let request = upstream.request(0).await;
    assert_eq!(request.body, "body");
    assert_eq!(request.header("expect"), None, "the expectation ends at this hop");
    app.finish().await;
}

#[tokio::test]
async fn ranges_pass_both_ways() {
    let upstream = RawUpstream::answering(
        "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 2-5/10\r\naccept-ranges: bytes\r\netag: \"x\"\r\ncontent-length: 4\r\n\r\n2345",
    )
    .await;
    let app = relay().upstream(&upstream).start().await;
    let mut answer =
        app.get("/v1/files/f1/content").header("range", "bytes=2-5").header("if-range", "\"x\"").send().await;
    assert_eq!(answer.status, 206);
    assert_eq!(answer.header("content-range"), Some("bytes 2-5/10"));
    assert_eq!(answer.header("etag"), Some("\"x\""));
    assert_eq!(answer.text().await, "2345");
    let request = upstream.request(0).await;
    assert_eq!(request.header("range").as_deref(), Some("bytes=2-5"));
    assert_eq!(request.header("if-range").as_deref(), Some("\"x\""));
    app.finish().await;
}

#[tokio::test]
async fn compressed_answers_pass_untouched() {
    let upstream = RawUpstream::answering(
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 6\r\n\r\n\x1f\x8b\x08\x00\xff\x00",
    )
    .await;
    let app = relay().upstream(&upstream).start().await;
    // A path that reports no usage: what encoding the caller takes is its own business.
    let mut answer = app.get("/files/f1").header("accept-encoding", "gzip, br").send().await;
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert_eq!(answer.bytes().await, &b"\x1f\x8b\x08\x00\xff\x00"[..]);
    assert_eq!(upstream.request(0).await.header("accept-encoding").as_deref(), Some("gzip, br"));
    // On one that does, the relay has to be able to read it.
    app.get("/v1/chat/completions").header("accept-encoding", "gzip, br").send().await;
    assert_eq!(upstream.request(1).await.header("accept-encoding").as_deref(), Some("identity"));
    app.finish().await;
}

#[tokio::test]
async fn a_body_announced_as_too_large_is_refused_at_once() {
    let upstream = RawUpstream::recording().await;
    let app = relay()
        .config(|c| c["system"]["limits"]["body_bytes"] = 1000.into())
        .upstream(&upstream)
        .start()
        .await;
    let mut raw = app.raw().await;
    let head = format!("POST /v1/a HTTP/1.1\r\n{HEAD}authorization: Bearer {PROXY_KEY}\r\n");
    raw.send(format!("{head}content-length: 1001\r\n\r\n")).await;
    let answer = raw.answer().await;
    assert_eq!(answer.status, 413);
    assert!(answer.text().contains("body_too_large"));
    assert_eq!(answer.head.get("x-should-retry").as_deref(), Some("false"));
    assert_eq!(upstream.connections(), 0);
    // The bound itself is allowed.
    assert_eq!(app.ask("POST", "/v1/a").body(vec![b'x'; 1000]).send().await.status, 200);
    app.finish().await;
}

#[tokio::test]
async fn a_chunked_body_is_cut_off_at_the_bound() {
    let app_config = |c: &mut serde_json::Value| c["system"]["limits"]["body_bytes"] = 100_000.into();
    let upstream = RawUpstream::recording().await;
    let app = relay().config(app_config).upstream(&upstream).start().await;
    for kind in ["application/octet-stream", "application/json"] {
        let (ask, upload) = app.ask("POST", "/v1/a").header("content-type", kind).upload();
        let sending = tokio::spawn(ask.send());
        while upload.send(vec![b' '; 10_000]).await && !sending.is_finished() {}
        let mut answer = sending.await.unwrap();
        assert_eq!(answer.status, 413, "{kind}");
        assert_eq!(answer.json().await["error"]["code"], "body_too_large", "{kind}");
    }
    assert!(upstream.received().is_empty(), "the platform never got a whole request");
    app.finish().await;
}

#[tokio::test]
async fn an_early_answer_reaches_the_caller_while_its_upload_goes_on() {
    let whole = Gate::new("the whole upload arrived");
    let arrived = whole.clone();
    let upstream = RawUpstream::start(move |mut conn| {
        let arrived = arrived.clone();
        async move {
            let Some(head) = conn.head().await else { return };
            conn.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nearly\r\n").await;
            conn.body_of(head).await;
            arrived.open();
            conn.send("4\r\nlate\r\n0\r\n\r\n").await;
        }
    })
    .await;
    let app = relay().upstream(&upstream).start().await;
    let (ask, upload) = app.ask("POST", "/v1/a").upload();
    let sending = tokio::spawn(ask.send());
    upload.send("first ").await;
    let mut answer = sending.await.unwrap();
    assert_eq!(answer.piece().await.unwrap().unwrap(), "early");
    upload.send("second").await;
    drop(upload);
    whole.passed().await;
    assert_eq!(answer.text().await, "late");
    assert_eq!(upstream.request(0).await.body, "first second");
    app.finish().await;
}

#[tokio::test]
async fn an_early_refusal_of_the_platform_reaches_a_caller_that_is_still_sending() {
    let upstream = RawUpstream::start(|mut conn| async move {
        conn.head().await;
        conn.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 7\r\nconnection: close\r\n\r\nrefused").await;
    })
    .await;
    let app = relay().upstream(&upstream).start().await;
    let (ask, upload) = app.ask("POST", "/v1/a").upload();
    let sending = tokio::spawn(ask.send());
    upload.send("first").await;
    let mut answer = sending.await.unwrap();
    assert_eq!(answer.status, 400);
    assert_eq!(answer.text().await, "refused");
    drop(upload);
    app.finish().await;
}
