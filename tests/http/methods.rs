//! Methods and what is special about some of them.

use aiproxy_testkit::RawUpstream;

use crate::{chat, relay};

#[tokio::test]
async fn every_method_arrives_unchanged_with_its_body() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    for (number, method) in
        ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "QUERY"].into_iter().enumerate()
    {
        let body = if method == "HEAD" { String::new() } else { format!("the body of {method}") };
        let mut answer = app.ask(method, "/v1/things/7?a=1&b=%20").body(body.clone()).send().await;
        assert_eq!(answer.status, 200, "{method}");
        assert_eq!(answer.text().await, if method == "HEAD" { "" } else { "{\"ok\":true}" }, "{method}");
        let request = upstream.request(number).await;
        assert_eq!(request.head.start, format!("{method} /v1/things/7?a=1&b=%20 HTTP/1.1"));
        assert_eq!(request.body, body, "{method}");
    }
    app.finish().await;
}

#[tokio::test]
async fn the_answer_to_a_head_keeps_the_length_of_the_body_it_leaves_out() {
    let upstream = RawUpstream::answering(
        "HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 123456\r\n\r\n",
    )
    .await;
    let app = relay().upstream(&upstream).start().await;
    let mut client = app.client().await;
    for _ in 0..2 {
        let mut answer = client.send(app.ask("HEAD", "/v1/files/f1/content")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-length"), Some("123456"));
        assert_eq!(answer.header("content-type"), Some("audio/mpeg"));
        assert!(answer.bytes().await.is_empty());
    }
    app.finish().await;
}

#[tokio::test]
async fn answers_without_a_body_pass() {
    let app = relay().start().await;
    for status in [204, 304] {
        let mut answer = app
            .post("/v1/chat/completions", &chat("gpt-4o", "hi"))
            .sandbox(&format!("status={status}"))
            .send()
            .await;
        assert_eq!(answer.status, status);
        assert!(answer.bytes().await.is_empty());
        assert!(answer.header("transfer-encoding").is_none());
    }
    app.finish().await;
}

#[tokio::test]
async fn what_is_no_request_to_a_path_is_refused_before_the_platform_hears_of_it() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    let key = aiproxy_testkit::PROXY_KEY;
    for (line, status, code) in [
        ("CONNECT api.openai.com:443", 400, "bad_request"),
        ("TRACE /v1/models", 405, "method_not_allowed"),
        ("GET http://api.openai.com/v1/models", 400, "bad_request"),
        ("OPTIONS *", 400, "bad_request"),
    ] {
        let mut raw = app.raw().await;
        raw.send(format!("{line} HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {key}\r\n\r\n")).await;
        let answer = raw.answer().await;
        assert_eq!(answer.status, status, "{line}");
        assert!(answer.text().contains(&format!("\"code\":\"{code}\"")), "{line}: {}", answer.text());
        if status == 405 {
            assert_eq!(
                answer.head.get("allow").as_deref(),
                Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
            );
        }
    }
    assert_eq!(upstream.connections(), 0);
    app.finish().await;
}
