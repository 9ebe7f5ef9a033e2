//! Connections: kept, reused, pipelined, closed; and what is no HTTP at all.

use aiproxy_testkit::{PROXY_KEY, RawUpstream};

use crate::{chat, relay};

fn get(target: &str, more: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {PROXY_KEY}\r\n{more}\r\n")
}

#[tokio::test]
async fn one_callers_connection_and_one_platform_connection_serve_many_requests() {
    let upstream = RawUpstream::recording().await;
    let app = relay().config(|c| c["system"]["workers"] = 1.into()).upstream(&upstream).start().await;
    let mut client = app.client().await;
    for number in 0..5 {
        let mut answer = client.send(app.post("/v1/chat/completions", &chat("gpt-4o", "hi"))).await;
        assert_eq!(answer.status, 200);
        answer.bytes().await;
        assert_eq!(upstream.request(number).await.connection, 0);
    }
    assert_eq!(upstream.connections(), 1);
    assert!(!client.is_closed());
    app.finish().await;
}

#[tokio::test]
async fn a_refusal_keeps_the_callers_connection() {
    let app = relay().start().await;
    let mut client = app.client().await;
    for _ in 0..3 {
        let mut answer =
            client.send(app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).key("pk_nobody_0")).await;
        assert_eq!(answer.status, 401);
        answer.bytes().await;
        let mut answer = client.send(app.get("/v1/models/gpt-4o")).await;
        assert_eq!(answer.status, 200);
        answer.bytes().await;
    }
    app.finish().await;
}

#[tokio::test]
async fn a_platform_that_closes_after_each_answer_is_dialled_again() {
    let upstream = RawUpstream::start(|mut conn| async move {
        conn.request().await;
        conn.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
    })
    .await;
    let app = relay().config(|c| c["system"]["workers"] = 1.into()).upstream(&upstream).start().await;
    let mut client = app.client().await;
    for number in 0..3 {
        let mut answer = client.send(app.get("/v1/a")).await;
        assert_eq!(answer.text().await, "ok");
        assert_eq!(answer.header("connection"), None, "that is between the platform and the relay");
        assert_eq!(upstream.request(number).await.connection, number);
    }
    app.finish().await;
}

#[tokio::test]
async fn a_body_that_only_the_end_of_the_connection_ends_is_whole_for_the_caller() {
    let upstream = RawUpstream::start(|mut conn| async move {
        conn.request().await;
        conn.send("HTTP/1.1 200 OK\r\n\r\nuntil the end").await;
    })
    .await;
    let app = relay().upstream(&upstream).start().await;
    let mut client = app.client().await;
    for _ in 0..2 {
        let mut answer = client.send(app.get("/v1/a")).await;
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        assert_eq!(answer.text().await, "until the end");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_caller_of_http_1_0_gets_a_body_that_ends_with_the_connection() {
    let upstream = RawUpstream::answering(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    )
    .await;
    let app = relay().upstream(&upstream).start().await;
    let mut raw = app.raw().await;
    raw.send(format!("GET /v1/a HTTP/1.0\r\nauthorization: Bearer {PROXY_KEY}\r\n\r\n")).await;
    let answer = raw.answer().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.head.get("transfer-encoding"), None);
    assert_eq!(answer.text(), "hello world");
    let request = upstream.request(0).await;
    assert_eq!(request.head.word(2), "HTTP/1.1");
    assert_eq!(request.header("host"), Some(app.platform().addr().to_string()));
    app.finish().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let app = relay().start().await;
    let mut raw = app.raw().await;
    let body = chat("gpt-4o", "second").to_string();
    raw.send(format!(
        "{}POST /v1/chat/completions HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {PROXY_KEY}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}{}",
        get("/v1/models/gpt-4o", ""),
        body.len(),
        get("/v1/models/nothing", "connection: close\r\n"),
    ))
    .await;
    let first = raw.answer().await;
    assert!(first.status == 200 && first.text().contains("\"object\":\"model\""), "{}", first.text());
    let second = raw.answer().await;
    assert!(second.status == 200 && second.text().contains("You said: second"), "{}", second.text());
    assert_eq!(raw.answer().await.status, 404);
    assert_eq!(raw.rest().await, "");
    app.finish().await;
}

#[tokio::test]
async fn large_heads_pass_up_to_the_bound() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    let large = "x".repeat(48 * 1024);
    assert_eq!(app.get("/v1/a").header("x-large", &large).send().await.status, 200);
    assert_eq!(upstream.request(0).await.header("x-large"), Some(large));

    let mut raw = app.raw().await;
    raw.send(get("/v1/a", &format!("x-large: {}\r\n", "x".repeat(256 * 1024)))).await;
    assert_eq!(raw.answer().await.status, 431);

    let mut raw = app.raw().await;
    raw.send(get("/v1/a", &"x-many: 1\r\n".repeat(200))).await;
    assert_eq!(raw.answer().await.status, 431);
    assert_eq!(upstream.received().len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn requests_that_two_readers_could_frame_differently_are_refused() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    let smuggled = get("/v1/smuggled", "");
    for framing in [
        "content-length: 4\r\ncontent-length: 5",
        "content-length: 4, 5",
        "content-length: +4",
        "content-length: -1",
        "content-length: 0x4",
        "content-length: 99999999999999999999",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: xchunked",
        "transfer-encoding: gzip",
        "transfer-encoding : chunked",
        " content-length: 4",
        "x-a: b\0c",
        "x-a: b\rc",
        "x a: b",
        ": b",
    ] {
        let mut raw = app.raw().await;
        raw.send(format!(
            "POST /v1/a HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {PROXY_KEY}\r\n{framing}\r\n\r\n0\r\n\r\n{smuggled}"
        ))
        .await;
        let answer = raw.answer().await;
        assert_eq!(answer.status, 400, "{framing}");
        assert_eq!(raw.rest().await, "", "{framing}: the connection ends");
    }
    assert_eq!(upstream.connections(), 0);
    app.finish().await;
}

#[tokio::test]
async fn a_length_beside_chunks_never_frames_the_request() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    let mut raw = app.raw().await;
    // RFC 9112, section 6.3: refuse it, or let the chunks decide and remove the length.
    raw.send(format!(
        "POST /v1/a HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {PROXY_KEY}\r\ncontent-length: 3\r\n\
         transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
    ))
    .await;
    let answer = raw.answer().await;
    if answer.status == 200 {
        let request = upstream.request(0).await;
        assert_eq!(request.header("content-length"), None);
        assert_eq!(request.body, "body");
    } else {
        assert_eq!(answer.status, 400);
        assert_eq!(upstream.connections(), 0);
    }
    app.finish().await;
}

#[tokio::test]
async fn chunks_that_are_malformed_break_the_request_off() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    for chunks in ["zz\r\nbody\r\n0\r\n\r\n", "4\r\nbodyX\r\n0\r\n\r\n", "ffffffffffffffffff\r\nbody"] {
        let mut raw = app.raw().await;
        raw.send(format!(
            "POST /v1/a HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {PROXY_KEY}\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"
        ))
        .await;
        assert_eq!(raw.answer().await.status, 400, "{chunks:?}");
    }
    assert!(upstream.received().is_empty());
    app.finish().await;
}

#[tokio::test]
async fn an_upgrade_that_is_no_handshake_is_refused_and_other_upgrades_are_ignored() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    let mut answer = app
        .get("/v1/realtime?model=m")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .send()
        .await;
    assert_eq!(answer.status, 426);
    assert_eq!(answer.header("sec-websocket-version"), Some("13"));
    assert_eq!(answer.json().await["error"]["code"], "websocket_version");
    assert_eq!(upstream.connections(), 0);
    let answer = app
        .get("/v1/a")
        .header("connection", "Upgrade, HTTP2-Settings")
        .header("upgrade", "h2c")
        .header("http2-settings", "AAMAAABkAAQAAP__")
        .send()
        .await;
    assert_eq!(answer.status, 200);
    let request = upstream.request(0).await;
    assert_eq!(request.header("upgrade"), None);
    assert_eq!(request.header("http2-settings"), None);
    app.finish().await;
}

#[tokio::test]
async fn interim_answers_of_the_platform_do_not_disturb_the_final_one() {
    let upstream = RawUpstream::answering(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfinal",
    )
    .await;
    let app = relay().upstream(&upstream).start().await;
    let mut client = app.client().await;
    for _ in 0..2 {
        let mut answer = client.send(app.ask("POST", "/v1/a").body("x")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.text().await, "final");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_platform_that_switches_protocols_unasked_is_not_understood() {
    let upstream = RawUpstream::answering(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    )
    .await;
    let app = relay().upstream(&upstream).start().await;
    let mut answer = app.get("/v1/a").send().await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.json().await["error"]["code"], "upstream_protocol");
    app.finish().await;
}

#[tokio::test]
async fn a_platform_connection_that_may_be_out_of_step_carries_nothing_else() {
    // Some platforms do not read the body of a GET, and would take it for the next request.
    for (method, body) in [("GET", "POST /v1/minted HTTP/1.1"), ("DELETE", "x"), ("HEAD", "")] {
        let upstream = RawUpstream::recording().await;
        let app = relay().upstream(&upstream).start().await;
        let ask = app.ask(method, "/v1/a");
        let ask = if body.is_empty() { ask } else { ask.body(body) };
        assert_eq!(ask.send().await.status, 200);
        assert_eq!(app.get("/v1/b").send().await.status, 200);
        assert_eq!(upstream.connections(), 2, "{method}");
        app.finish().await;
    }
}
