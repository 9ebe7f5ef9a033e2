//! A platform that cannot be reached, breaks off, stalls or talks nonsense.

use aiproxy_testkit::{Answer, App, Gate, RawUpstream, refusing};
use serde_json::{Value, json};

use crate::{chat, chat_stream, relay};

async fn expect(mut answer: Answer, status: u16, code: &str) {
    let error = answer.json().await["error"].clone();
    assert_eq!(answer.status, status, "{error}");
    assert_eq!(error["code"], code);
    assert_eq!(error["type"], "upstream_error");
    assert_eq!(answer.header("x-should-retry"), None, "another try may help");
}

/// A relay in front of a platform that does this with every connection's first request.
async fn answering(bytes: &'static [u8]) -> (App, RawUpstream) {
    let upstream = RawUpstream::start(move |mut conn| async move {
        conn.request().await;
        conn.send(bytes).await;
    })
    .await;
    let app = relay().upstream(&upstream).start().await;
    (app, upstream)
}

fn timeouts(value: Value) -> impl FnOnce(&mut Value) {
    move |c| c["channels"]["main"]["timeouts"] = value
}

#[tokio::test]
async fn a_platform_that_refuses_connections_is_unreachable() {
    let (addr, _socket) = refusing();
    let app =
        relay().config(|c| c["channels"]["main"]["base_url"] = format!("http://{addr}").into()).start().await;
    expect(app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send().await, 502, "upstream_unreachable")
        .await;
    let line = app.logged("the line", |line| line["error"] == "upstream_unreachable").await;
    assert_eq!(
        (&line["status"], &line["channel"], &line["outcome"]),
        (&json!(502), &json!("main"), &json!("refused"))
    );
    app.finish().await;
}

#[tokio::test]
async fn a_platform_that_resets_or_closes_before_its_answer_is_asked_once() {
    for reset in [false, true] {
        let upstream = RawUpstream::start(move |mut conn| async move {
            conn.request().await;
            if reset {
                conn.reset();
            }
        })
        .await;
        let app = relay().upstream(&upstream).start().await;
        expect(
            app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send().await,
            502,
            "upstream_unreachable",
        )
        .await;
        assert_eq!(upstream.received().len(), 1, "it may have acted on the request");
        app.finish().await;
    }
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_not_understood() {
    for bytes in [
        &b"SSH-2.0-OpenSSH_9.6\r\n\r\n"[..],
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ] {
        let (app, _upstream) = answering(bytes).await;
        expect(app.get("/v1/a").send().await, 502, "upstream_protocol").await;
        app.finish().await;
    }
}

#[tokio::test]
async fn a_head_that_breaks_off_is_no_answer() {
    let (app, _upstream) = answering(b"HTTP/1.1 200 OK\r\ncontent-le").await;
    expect(app.get("/v1/a").send().await, 502, "upstream_unreachable").await;
    app.finish().await;
}

#[tokio::test]
async fn a_platform_that_does_not_answer_in_time_is_given_up() {
    let given_up = Gate::new("the relay closed its connection");
    let closed = given_up.clone();
    let upstream = RawUpstream::start(move |mut conn| {
        let closed = closed.clone();
        async move {
            conn.request().await;
            conn.closed().await;
            closed.open();
        }
    })
    .await;
    let app = relay().config(timeouts(json!({"first_byte": "200ms"}))).upstream(&upstream).start().await;
    expect(app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send().await, 504, "upstream_timeout")
        .await;
    given_up.passed().await;
    assert_eq!(upstream.received().len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn a_platform_that_stops_reading_the_upload_is_given_up() {
    let upstream = RawUpstream::start(|mut conn| async move {
        conn.head().await;
        std::future::pending::<()>().await;
    })
    .await;
    let app = relay().config(timeouts(json!({"idle": "300ms"}))).upstream(&upstream).start().await;
    let ask = app.ask("POST", "/v1/a").body(vec![b'x'; 64 << 20]);
    expect(ask.send().await, 504, "upstream_timeout").await;
    app.finish().await;
}

#[tokio::test]
async fn an_answer_cut_off_in_its_body_looks_cut_off() {
    for bytes in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n8\r\nha",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\nhalf\r\n0\r\n\r\n",
    ] {
        let (app, _upstream) = answering(bytes).await;
        let mut answer = app.get("/v1/a").send().await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.piece().await.unwrap().unwrap(), "half");
        assert!(answer.try_bytes().await.is_err(), "{}", String::from_utf8_lossy(bytes));
        app.logged("the line", |line| line["outcome"] == "upstream_failed").await;
        app.finish().await;
    }
}

#[tokio::test]
async fn a_stream_reset_by_the_platform_looks_cut_off() {
    let app = relay().start().await;
    let ask = app.post("/v1/chat/completions", &chat_stream("gpt-4o", "one two three four")).sandbox("cut=2");
    let mut answer = ask.send().await;
    assert_eq!(answer.status, 200);
    assert!(answer.try_bytes().await.is_err());
    let line = app.logged("the line", |line| line["outcome"] == "upstream_failed").await;
    assert_eq!(line["status"], 200);
    assert!(line["bytes_out"].as_u64().unwrap() > 0);
    app.finish().await;
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_broken_off() {
    for limits in [json!({"idle": "300ms"}), json!({"total": "300ms"})] {
        let app = relay().config(timeouts(limits)).start().await;
        let ask =
            app.post("/v1/chat/completions", &chat_stream("gpt-4o", "one two three")).sandbox("hold=never");
        let mut answer = ask.send().await;
        assert_eq!(answer.status, 200);
        assert!(answer.try_bytes().await.is_err());
        app.seen("the platform losing its peer", |request| request.outcome == aiproxy_testkit::Outcome::Cut)
            .await;
        app.finish().await;
    }
}

#[tokio::test]
async fn a_failure_does_not_hurt_the_next_request() {
    let upstream = RawUpstream::start(|mut conn| async move {
        while let Some(request) = conn.request().await {
            match request.target() {
                "/v1/reset" => return conn.reset(),
                "/v1/half" => {
                    conn.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
                    return;
                }
                _ => drop(conn.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await),
            }
        }
    })
    .await;
    let app = relay().config(|c| c["system"]["workers"] = 1.into()).upstream(&upstream).start().await;
    for _ in 0..3 {
        assert_eq!(app.ask("POST", "/v1/reset").body("x").send().await.status, 502);
        assert!(app.get("/v1/half").send().await.try_bytes().await.is_err());
        assert_eq!(app.get("/v1/fine").send().await.text().await, "ok");
    }
    app.finish().await;
}
