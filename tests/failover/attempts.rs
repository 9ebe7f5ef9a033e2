//! What leads to the next channel and what does not.

use aiproxy_testkit::{App, RawUpstream, refusing};
use serde_json::{Value, json};

use super::{answer, line_of, pair, platform, two_channels, well};
use crate::{chat, relay};

const BUSY: &str = "{\"error\":{\"message\":\"later\",\"code\":\"rate_limit_exceeded\"}}";

/// Asks and says by which channel and how the caller was answered.
async fn ask(app: &App) -> (u16, String, Value) {
    let mut answer = app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send().await;
    let text = answer.text().await;
    let line = line_of(app, &answer).await;
    (answer.status.as_u16(), text, line)
}

#[tokio::test]
async fn a_channel_that_refuses_connections_is_passed_over_whatever_is_asked() {
    let (addr, _socket) = refusing();
    let (a, b) = (well().await, well().await);
    let app = pair(&a, &b, |c| {
        c["channels"]["a"]["base_url"] = format!("http://{addr}").into();
        c["channels"]["a"]["breaker"] = json!({"failures": 100});
        c["system"]["limits"] = json!({"replay_bytes": "1KiB"});
    })
    .await;
    for (number, (method, path, size)) in [
        ("GET", "/v1/models/gpt-4o", 0),
        ("POST", "/v1/chat/completions", 100),
        // Nothing was sent: neither what it creates nor its size matters.
        ("POST", "/v1/files", 100),
        ("POST", "/v1/things", 100_000),
        ("DELETE", "/v1/files/file-1", 0),
    ]
    .into_iter()
    .enumerate()
    {
        let body = "x".repeat(size);
        let answer = app
            .ask(method, path)
            .header("content-type", "application/octet-stream")
            .body(body.clone())
            .send()
            .await;
        assert_eq!(answer.status, 200, "{method} {path}");
        assert_eq!(b.request(number).await.body, body, "{method} {path}");
        let line = line_of(&app, &answer).await;
        assert_eq!(line["channel"], "b");
        assert_eq!(line["passed_over"], json!(["a: upstream_unreachable"]));
        assert_eq!(line["outcome"], "complete");
        assert_eq!(line["error"], Value::Null);
    }
    app.finish().await;
}

#[tokio::test]
async fn a_busy_channel_is_passed_over_and_left_alone_for_as_long_as_it_asks() {
    for (status, code) in [("503 Service Unavailable", 503), ("429 Too Many Requests", 429)] {
        let a = platform(status, "retry-after: 50\r\n", BUSY).await;
        let b = well().await;
        let app = pair(&a, &b, |_| ()).await;
        let (given, text, line) = ask(&app).await;
        assert_eq!((given, text.as_str()), (200, "{\"from\":\"b\"}"));
        assert_eq!(line["passed_over"], json!([format!("a: {code}")]));
        assert_eq!(line["channel"], "b");
        // It asked for time.
        let (given, _, line) = ask(&app).await;
        assert_eq!(given, 200);
        assert_eq!(line.get("passed_over"), None);
        assert_eq!((a.received().len(), b.received().len()), (1, 2));
        app.finish().await;
    }
    // It asks for none: the order of the list holds.
    let a = platform("503 Service Unavailable", "retry-after: 0\r\n", BUSY).await;
    let b = well().await;
    let app = pair(&a, &b, |_| ()).await;
    for _ in 0..3 {
        assert_eq!(ask(&app).await.0, 200);
    }
    assert_eq!((a.received().len(), b.received().len()), (3, 3));
    app.finish().await;
}

#[tokio::test]
async fn when_all_are_busy_the_last_ones_answer_passes_untouched() {
    let a = platform("429 Too Many Requests", "retry-after: 0\r\n", BUSY).await;
    let theirs = "{\"error\":{\"message\":\"b is full\",\"code\":\"overloaded\"}}";
    let b = platform("503 Service Unavailable", "retry-after: 7\r\nx-their-own: yes\r\n", theirs).await;
    let app = pair(&a, &b, |_| ()).await;
    let mut got = app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send().await;
    assert_eq!(got.status, 503);
    assert_eq!(got.header("retry-after"), Some("7"));
    assert_eq!(got.header("x-their-own"), Some("yes"));
    assert_eq!(got.header("x-should-retry"), None);
    assert_eq!(got.text().await, theirs);
    let line = line_of(&app, &got).await;
    assert_eq!((&line["channel"], &line["status"]), (&json!("b"), &json!(503)));
    assert_eq!((&line["outcome"], &line["error"]), (&json!("complete"), &Value::Null));
    assert_eq!(line["passed_over"], json!(["a: 429"]));
    app.finish().await;
}

#[tokio::test]
async fn a_channel_whose_account_is_refused_is_passed_over_and_marked() {
    for (status, body) in [
        ("401 Unauthorized", "{\"error\":{\"code\":\"invalid_api_key\"}}"),
        ("429 Too Many Requests", "{\"error\":{\"code\":\"insufficient_quota\"}}"),
    ] {
        let (a, b) = (platform(status, "", body).await, well().await);
        let app = pair(&a, &b, |_| ()).await;
        let (given, _, line) = ask(&app).await;
        assert_eq!(given, 200);
        assert_eq!(line["passed_over"], json!(["a: channel_key_rejected"]));
        assert_eq!(app.metric("aiproxy_channel_rejected{channel=\"a\"}").await, 1.0);
        assert_eq!(app.metric("aiproxy_channel_rejected{channel=\"b\"}").await, 0.0);
        assert_eq!(app.metric("aiproxy_breaker_state{channel=\"a\",state=\"closed\"}").await, 1.0);
        let ready = app.admin("/readyz").await.json().await;
        assert_eq!(ready["ready"], true, "elsewhere the channel fails as well");
        assert_eq!(ready["details"]["channels"][0]["rejected"], true);
        // It is a last resort now.
        assert_eq!(ask(&app).await.2.get("passed_over"), None);
        assert_eq!(a.received().len(), 1);
        app.finish().await;
    }
}

#[tokio::test]
async fn when_all_accounts_are_refused_the_caller_hears_that_its_key_is_fine() {
    let theirs = "{\"error\":{\"code\":\"invalid_api_key\",\"message\":\"their words\"}}";
    let (a, b) = (platform("401 Unauthorized", "", theirs).await, platform("401 No", "", theirs).await);
    let app = pair(&a, &b, |_| ()).await;
    for _ in 0..2 {
        let (status, text, line) = ask(&app).await;
        assert_eq!(status, 502);
        assert!(text.contains("channel_key_rejected") && !text.contains("their words"), "{text}");
        assert_eq!(line["error"], "channel_key_rejected");
    }
    // One line in the log for each channel, not for each request.
    assert_eq!(app.process().stderr().matches("refused the channel's key or account").count(), 2);
    app.finish().await;
}

#[tokio::test]
async fn a_model_that_the_account_may_not_use_is_the_callers_business() {
    let theirs = "{\"error\":{\"message\":\"no access\",\"type\":\"invalid_request_error\",\"code\":\"model_not_found\"}}";
    let (a, b) = (platform("403 Forbidden", "", theirs).await, well().await);
    let app = pair(&a, &b, |c| c["channels"]["a"]["platform"] = "openai".into()).await;
    for _ in 0..10 {
        let (status, text, line) = ask(&app).await;
        assert_eq!((status, text.as_str()), (403, theirs));
        assert_eq!(line["channel"], "a");
    }
    assert_eq!(app.metric("aiproxy_breaker_state{channel=\"a\",state=\"closed\"}").await, 1.0);
    assert_eq!(app.metric("aiproxy_channel_rejected{channel=\"a\"}").await, 0.0);
    assert_eq!((a.received().len(), b.received().len()), (10, 0));
    app.finish().await;
}

#[tokio::test]
async fn a_server_error_may_have_been_billed_and_is_passed_on_unless_the_channel_says_otherwise() {
    let theirs = "{\"error\":{\"message\":\"broken\"}}";
    for (status, code) in [("500 Oops", 500), ("502 Bad Gateway", 502), ("504 Late", 504), ("529 Full", 529)]
    {
        let (a, b) = (platform(status, "", theirs).await, well().await);
        let app = pair(&a, &b, |_| ()).await;
        let (given, text, _) = ask(&app).await;
        assert_eq!((given, text.as_str()), (code, theirs));
        assert!(b.received().is_empty());
        app.finish().await;

        let app = pair(&a, &b, |c| c["channels"]["a"]["retry"] = json!({"on": [code]})).await;
        let (given, _, line) = ask(&app).await;
        assert_eq!(given, 200);
        assert_eq!(line["passed_over"], json!([format!("a: {code}")]));
        app.finish().await;
    }
}

/// Reads requests whole and breaks the connection.
async fn breaking() -> RawUpstream {
    RawUpstream::start(|mut conn| async move {
        conn.request().await;
        conn.reset();
    })
    .await
}

#[tokio::test]
async fn what_may_have_been_acted_upon_is_sent_once_over_all_platforms() {
    let (a, b) = (breaking().await, well().await);
    let app = pair(&a, &b, |c| c["channels"]["a"]["breaker"] = json!({"failures": 100})).await;
    for (number, (method, body)) in
        [("POST", "{\"model\":\"gpt-4o\"}"), ("PUT", "x"), ("PATCH", "x"), ("DELETE", ""), ("GET", "x")]
            .into_iter()
            .enumerate()
    {
        let mut answer = app.ask(method, "/v1/chat/completions").body(body).send().await;
        assert_eq!(answer.status, 502, "{method}");
        assert_eq!(answer.json().await["error"]["code"], "upstream_unreachable", "{method}");
        assert_eq!((a.received().len(), b.received().len()), (number + 1, 0), "{method}");
    }
    for method in ["GET", "OPTIONS"] {
        let answer = app.ask(method, "/v1/things").send().await;
        assert_eq!(answer.status, 200, "{method}");
        assert_eq!(line_of(&app, &answer).await["passed_over"], json!(["a: upstream_unreachable"]));
    }
    app.finish().await;
}

#[tokio::test]
async fn a_channel_that_does_not_answer_in_time_is_passed_over_for_safe_requests_only() {
    let a = RawUpstream::start(|mut conn| async move {
        conn.request().await;
        conn.closed().await;
    })
    .await;
    let b = well().await;
    let app = pair(&a, &b, |c| c["channels"]["a"]["timeouts"] = json!({"first_byte": "200ms"})).await;
    let (status, text, _) = ask(&app).await;
    assert_eq!(status, 504);
    assert!(text.contains("upstream_timeout"), "{text}");
    assert!(b.received().is_empty());
    let answer = app.get("/v1/things").send().await;
    assert_eq!(answer.status, 200);
    assert_eq!(line_of(&app, &answer).await["passed_over"], json!(["a: upstream_timeout"]));
    app.finish().await;
}

#[tokio::test]
async fn what_creates_something_is_never_sent_twice() {
    let busy = || platform("503 Service Unavailable", "retry-after: 0\r\n", BUSY);
    for (kind, path, asynchronous) in [
        ("custom", "/v1/files", false),
        ("custom", "/v1/batches", false),
        ("custom", "/v1/uploads/upload_1/parts", false),
        ("custom", "/v1/vector_stores", false),
        ("custom", "/v1/fine_tuning/jobs", false),
        ("custom", "/v1/conversations", false),
        ("dashscope", "/api/v1/services/aigc/text2image/image-synthesis", true),
        ("dashscope", "/api/v1/services/audio/asr/transcription", true),
    ] {
        let (a, b) = (busy().await, well().await);
        let app = pair(&a, &b, |c| {
            for id in ["a", "b"] {
                c["channels"][id]["platform"] = kind.into();
            }
        })
        .await;
        let mut ask = app.post(path, &json!({"model": "wanx-v1", "input": {}}));
        if asynchronous {
            ask = ask.header("x-dashscope-async", "enable");
        }
        let mut got = ask.send().await;
        assert_eq!((got.status.as_u16(), got.text().await.as_str()), (503, BUSY), "{path}");
        assert_eq!((a.received().len(), b.received().len()), (1, 0), "{path}");
        app.finish().await;
    }
    // Reading the same things is harmless, and so is what makes a model work.
    let (a, b) = (busy().await, well().await);
    let app = pair(&a, &b, |_| ()).await;
    for (method, path) in [("GET", "/v1/files"), ("POST", "/v1/embeddings")] {
        let body = if method == "GET" { "" } else { "{\"model\":\"m\"}" };
        assert_eq!(app.ask(method, path).body(body).send().await.status, 200, "{path}");
    }
    app.finish().await;
}

/// Channels `a`, `b`, `c` before one platform that answers each as the test says.
async fn three(statuses: [&'static str; 3], change: impl FnOnce(&mut Value)) -> (App, RawUpstream) {
    let upstream = RawUpstream::start(move |mut conn| async move {
        while let Some(request) = conn.request().await {
            let channel = ["/a/", "/b/", "/c/"].iter().position(|base| request.target().starts_with(base));
            let status = statuses[channel.expect("a channel's path")];
            if status.is_empty() {
                return conn.reset();
            }
            conn.send(answer(status, "retry-after: 0\r\n", status)).await;
        }
    })
    .await;
    let app = relay()
        .config(|c| {
            for id in ["a", "b", "c"] {
                let key = format!("{}{id}", super::SECOND_KEY);
                c["channels"][id] =
                    json!({"platform": "custom", "api_key": key, "base_url": format!("/{id}")});
            }
            c["channels"].as_object_mut().unwrap().remove("main");
            c["users"]["user1"]["channels"] = json!(["a", "b", "c"]);
        })
        .config(change)
        .upstream(&upstream)
        .start()
        .await;
    (app, upstream)
}

fn asked(upstream: &RawUpstream) -> Vec<String> {
    upstream.received().iter().map(|request| request.target().get(1..2).unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_first_channels_attempts_bound_how_many_are_tried() {
    let busy = ["503 A", "503 B", "503 C"];
    for (attempts, tried) in [(1, vec!["a"]), (2, vec!["a", "b"]), (3, vec!["a", "b", "c"])] {
        let (app, upstream) = three(busy, |c| {
            c["channels"]["a"]["retry"] = json!({"attempts": attempts});
            c["channels"]["b"]["retry"] = json!({"attempts": 1});
        })
        .await;
        let (status, text, line) = ask(&app).await;
        assert_eq!(status, 503);
        assert_eq!(text, busy[attempts - 1], "the last one's answer");
        assert_eq!(asked(&upstream), tried);
        let over: Vec<String> = tried[..attempts - 1].iter().map(|id| format!("{id}: 503")).collect();
        let over = if over.is_empty() { Value::Null } else { json!(over) };
        assert_eq!(line["passed_over"], over);
        app.finish().await;
    }
}

#[tokio::test]
async fn the_log_tells_every_channel_that_was_passed_over_in_order() {
    let (app, upstream) =
        three(["429 A", "", "200 OK"], |c| c["channels"]["b"]["breaker"] = json!({"failures": 9})).await;
    let answer = app.get("/v1/things").send().await;
    assert_eq!(answer.status, 200);
    let line = line_of(&app, &answer).await;
    assert_eq!(line["passed_over"], json!(["a: 429", "b: upstream_unreachable"]));
    assert_eq!(line["channel"], "c");
    assert_eq!(asked(&upstream), ["a", "b", "c"]);
    for (channel, result) in [("a", "busy"), ("b", "unreachable"), ("c", "answered")] {
        let sample = format!("aiproxy_upstream_attempts_total{{channel=\"{channel}\",result=\"{result}\"}}");
        assert_eq!(app.metric(&sample).await, 1.0, "{sample}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_named_channel_stands_alone() {
    let (app, upstream) = three(["503 A", "200 OK", "200 OK"], |_| ()).await;
    for ask in [
        app.post("/@a/v1/chat/completions", &chat("gpt-4o", "hi")),
        app.get("/v1/things").header("x-aiproxy-channel", "a"),
    ] {
        let mut got = ask.send().await;
        assert_eq!((got.status.as_u16(), got.text().await.as_str()), (503, "503 A"));
    }
    assert_eq!(asked(&upstream), ["a", "a"]);
    app.finish().await;

    let (addr, _socket) = refusing();
    let (a, b) = (well().await, well().await);
    let app = pair(&a, &b, |c| c["channels"]["a"]["base_url"] = format!("http://{addr}").into()).await;
    assert_eq!(app.get("/@a/v1/things").send().await.status, 502);
    assert!(b.received().is_empty());
    app.finish().await;
}

#[tokio::test]
async fn a_channel_that_is_busy_is_still_used_when_it_is_the_only_one_left() {
    let a = platform("503 Service Unavailable", "retry-after: 60\r\n", BUSY).await;
    let app = relay().upstream(&a).start().await;
    for number in 1..4 {
        let (status, text, _) = ask(&app).await;
        assert_eq!((status, text.as_str()), (503, BUSY));
        assert_eq!(a.received().len(), number);
    }
    app.finish().await;
}

#[tokio::test]
async fn a_callers_own_headers_go_to_the_next_channel_with_that_channels_key() {
    let (a, b) = (platform("503 No", "", BUSY).await, well().await);
    let app = relay().upstream(&a).also("b", b.addr()).config(two_channels).start().await;
    let ask = app.post("/v1/chat/completions?trace=1", &chat("gpt-4o", "hi")).header("x-mine", "1");
    assert_eq!(ask.send().await.status, 200);
    let (first, second) = (a.request(0).await, b.request(0).await);
    assert_eq!(second.header("authorization"), Some(format!("Bearer {}", super::SECOND_KEY)));
    assert_eq!(second.header("x-mine").as_deref(), Some("1"));
    assert_eq!((second.target(), &second.body), (first.target(), &first.body));
    assert_eq!(second.header("host"), Some(app.other("b").addr().to_string()));
    app.finish().await;
}
