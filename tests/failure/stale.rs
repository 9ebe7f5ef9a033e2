//! Pooled connections that the platform closes in the very moment of the next request.

use aiproxy_testkit::{App, RawUpstream};

use crate::{chat, relay};

/// Keeps its first connection after one answer, and breaks it when the next request comes.
async fn stale() -> (App, RawUpstream) {
    let upstream = RawUpstream::start(|mut conn| async move {
        while let Some(request) = conn.request().await {
            if conn.index() == 0 && request.target() != "/v1/first" {
                return;
            }
            conn.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let app = relay().config(|c| c["system"]["workers"] = 1.into()).upstream(&upstream).start().await;
    assert_eq!(app.get("/v1/first").send().await.text().await, "ok");
    (app, upstream)
}

#[tokio::test]
async fn a_get_goes_to_another_connection() {
    for method in ["GET", "HEAD", "OPTIONS"] {
        let (app, upstream) = stale().await;
        let answer = app.ask(method, "/v1/second").send().await;
        assert_eq!(answer.status, 200, "{method}");
        let connections: Vec<usize> = upstream.received().iter().map(|request| request.connection).collect();
        assert_eq!(connections, [0, 0, 1], "{method}");
        drop(answer);
        app.finish().await;
    }
}

#[tokio::test]
async fn a_request_that_may_have_been_acted_upon_is_not_sent_twice() {
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let (app, upstream) = stale().await;
        let answer = app.ask(method, "/v1/chat/completions").json(&chat("gpt-4o", "hi")).send().await;
        assert_eq!(answer.status, 502, "{method}");
        assert_eq!(upstream.received().len(), 2, "{method}: once, after the first");
        // The next one gets a new connection.
        assert_eq!(app.ask(method, "/v1/third").json(&chat("gpt-4o", "hi")).send().await.status, 200);
        app.finish().await;
    }
}
