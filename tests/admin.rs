//! The second listener of the running relay.

use aiproxy_testkit::{App, CHANNEL_KEY, PROXY_KEY, Raw, StatusCode};
use serde_json::{Value, json};

use crate::{chat, chat_stream, relay};

#[tokio::test]
async fn it_says_that_the_relay_lives_and_is_ready() {
    let app = relay().start().await;
    let mut alive = app.admin("/healthz").await;
    assert_eq!((alive.status, alive.text().await.as_str()), (StatusCode::OK, "ok\n"));
    let mut ready = app.admin("/readyz").await;
    assert_eq!(ready.status, 200);
    assert_eq!(ready.header("content-type"), Some("application/json"));
    assert_eq!(ready.header("cache-control"), Some("no-store"));
    assert_eq!(
        ready.json().await,
        json!({
            "ready": true,
            "reasons": [],
            "details": {
                "draining": false,
                "connections": 0,
                "live_requests": 0,
                "reload": {"applied": 0, "refused": 0, "error": null},
                "tls": {"certificates": [], "error": null},
                "database": {"source": "file", "state": "available", "error": null, "unusable": 0},
                "channels": [
                    {"id": "main", "status": "active", "breaker": "closed", "rejected": false, "unhealthy": false},
                ],
            },
        })
    );
    app.finish().await;
}

#[tokio::test]
async fn it_counts_who_is_served() {
    let app = relay().start().await;
    let ask = app.post("/v1/chat/completions", &chat_stream("gpt-4o", "one two")).sandbox("hold=g1");
    let mut stream = ask.send().await;
    stream.piece().await.unwrap().unwrap();
    let details = app.admin("/readyz").await.json().await["details"].clone();
    assert_eq!((&details["connections"], &details["live_requests"]), (&json!(1), &json!(1)));
    assert_eq!(app.metric("aiproxy_live_requests").await, 1.0);
    app.sandbox().release("g1");
    stream.text().await;
    drop(stream);
    app.metric_is("aiproxy_live_requests", 0.0).await;
    app.metric_is("aiproxy_connections", 0.0).await;
    app.finish().await;
}

#[tokio::test]
async fn without_a_channel_in_service_it_is_not_ready() {
    let mut app = relay().start().await;
    assert!(app.change(|c| c["channels"]["main"]["status"] = "disabled".into()).await);
    let mut ready = app.admin("/readyz").await;
    assert_eq!(ready.status, 503);
    let ready = ready.json().await;
    assert_eq!((&ready["ready"], &ready["reasons"]), (&json!(false), &json!(["no_active_channel"])));
    assert_eq!(ready["details"]["channels"][0]["status"], "disabled");
    assert_eq!(app.admin("/healthz").await.status, 200);
    app.finish().await;
}

#[tokio::test]
async fn a_refused_configuration_is_explained_without_its_secrets() {
    let mut app = relay().start().await;
    let mut good = Value::Null;
    // Keys in places where a report would quote them.
    for spoil in [
        (|c| c["users"]["user1"]["channels"] = json!([PROXY_KEY])) as fn(&mut Value),
        |c| c["channels"]["main"]["status"] = CHANNEL_KEY.into(),
        |c| c["channels"]["main"]["base_url"] = format!("http://user:{CHANNEL_KEY}@host").into(),
        |c| c["users"][PROXY_KEY] = json!({"channels": ["main"]}),
        |c| c["channels"]["main"]["api_key"] = json!([CHANNEL_KEY]),
        |c| c["users"]["twin"] = json!({"proxy_key": PROXY_KEY, "channels": ["main"]}),
        |c| c["channels"]["main"]["api_key"] = format!("{CHANNEL_KEY}${{NOWHERE}}").into(),
    ] {
        assert!(
            !app.change(|c| {
                good = c.clone();
                spoil(c);
            })
            .await
        );
        let mut ready = app.admin("/readyz").await;
        assert_eq!(ready.status, 200, "the last good one serves");
        let text = ready.text().await;
        let ready: Value = serde_json::from_str(&text).unwrap();
        let error = ready["details"]["reload"]["error"].as_str().unwrap();
        let place = error.split("aiproxy.yaml:1:").nth(1).unwrap_or_else(|| panic!("no place in {error}"));
        assert!(place.starts_with(|first: char| first.is_ascii_digit()), "{error}");
        for secret in [PROXY_KEY, CHANNEL_KEY, &PROXY_KEY[12..], &CHANNEL_KEY[14..]] {
            assert!(!text.contains(secret), "{text}");
        }
        assert!(app.change(|c| *c = good.clone()).await);
        assert_eq!(app.admin("/readyz").await.json().await["details"]["reload"]["error"], Value::Null);
    }
    app.finish().await;
}

/// A line of the page: name, labels, value.
fn sample(line: &str) -> (String, String, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
    let (name, labels) = series.split_once('{').map_or((series, ""), |(name, rest)| {
        (name, rest.strip_suffix('}').unwrap_or_else(|| panic!("open labels: {line}")))
    });
    assert!(
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
        "{line}"
    );
    (name.to_owned(), labels.to_owned(), value)
}

#[tokio::test]
async fn its_metrics_can_be_read_and_add_up() {
    let app = relay().start().await;
    for _ in 0..3 {
        app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send().await.bytes().await;
    }
    app.get("/v1/models").key("pk_nobody_000000").send().await;
    app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).sandbox("status=503").send().await.bytes().await;
    // Lines are written when all is over.
    app.logged("the last line", |line| line["status"] == 503).await;
    let mut page = app.admin("/metrics").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let page = page.text().await;
    assert!(page.ends_with("# EOF\n"));
    let samples: Vec<_> = page.lines().filter(|line| !line.starts_with('#')).map(sample).collect();
    let sum = |name: &str, label: &str| -> f64 {
        samples
            .iter()
            .filter(|(have, labels, _)| have == name && labels.contains(label))
            .map(|(_, _, value)| value)
            .sum()
    };
    assert_eq!(sum("aiproxy_requests_total", ""), 5.0);
    assert_eq!(sum("aiproxy_requests_total", "status_class=\"5xx\""), 1.0);
    assert_eq!(sum("aiproxy_requests_total", "outcome=\"refused\""), 1.0);
    assert_eq!(sum("aiproxy_refusals_total", "code=\"invalid_key\""), 1.0);
    assert_eq!(sum("aiproxy_upstream_attempts_total", "result=\"answered\""), 3.0);
    assert_eq!(sum("aiproxy_upstream_attempts_total", "result=\"busy\""), 1.0);
    assert_eq!(sum("aiproxy_request_duration_seconds_count", "channel=\"main\""), 4.0);
    assert_eq!(sum("aiproxy_first_byte_seconds_count", "channel=\"main\""), 4.0);
    assert_eq!(sum("aiproxy_build_info", ""), 1.0);
    for name in ["user1", "gpt-4o", "/v1/", "pk_"] {
        assert!(!page.contains(name), "{name} is nobody's business here");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_channel_that_goes_takes_its_series_with_it() {
    let mut app = relay().start().await;
    app.get("/v1/models").send().await.bytes().await;
    assert!(app.metric("aiproxy_request_duration_seconds_count{channel=\"main\"}").await >= 0.0);
    assert!(
        app.change(|c| {
            c["channels"]["fresh"] = c["channels"]["main"].clone();
            c["channels"].as_object_mut().unwrap().remove("main");
            c["users"]["user1"]["channels"] = json!(["fresh"]);
        })
        .await
    );
    let page = app.admin("/metrics").await.text().await;
    assert!(!page.contains("channel=\"main\""), "{page}");
    assert!(page.contains("aiproxy_breaker_state{channel=\"fresh\",state=\"closed\"} 1"), "{page}");
    app.finish().await;
}

async fn raw(app: &App, request: &str) -> (u16, String) {
    let mut raw = Raw::connect(app.admin_addr()).await;
    raw.send(request).await;
    let answer = raw.answer().await;
    (answer.status, answer.text())
}

#[tokio::test]
async fn a_name_that_is_not_its_own_is_refused() {
    let app = relay().start().await;
    for (host, status) in [
        ("localhost", 200),
        ("127.0.0.1:1", 200),
        ("[::1]", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example:8081", 403),
        ("localhost.evil.example", 403),
    ] {
        for path in ["/readyz", "/metrics", "/healthz"] {
            let (given, text) = raw(&app, &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
            assert_eq!(given, status, "{host} {path}");
            if status == 403 {
                let error: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(error["error"]["code"], "host_not_allowed");
                assert!(!text.contains("channels"), "{text}");
            }
        }
    }
    let (status, _) = raw(&app, "GET http://evil.example/readyz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(status, 403);
    app.finish().await;
}

#[tokio::test]
async fn it_relays_nothing_and_changes_nothing() {
    let app = relay().start().await;
    let key = format!("authorization: Bearer {}", "pk_of_nobody_here");
    for (line, status) in [
        ("GET /v1/models", 404),
        ("GET /", 404),
        ("POST /readyz", 405),
        ("DELETE /metrics", 405),
        ("GET /@main/v1/models", 404),
    ] {
        let request = format!("{line} HTTP/1.1\r\nhost: localhost\r\n{key}\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(raw(&app, &request).await.0, status, "{line}");
    }
    assert!(app.sandbox().requests().is_empty());
    // Nor does the callers' listener show what is here.
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(app.get(path).no_key().send().await.status, 401, "{path}");
    }
    app.finish().await;
}

#[tokio::test]
async fn it_can_be_off() {
    let app = relay().config(|c| c["system"]["listen"]["admin"] = "off".into()).start().await;
    assert_eq!(app.get("/v1/models").send().await.status, 200);
    assert!(!app.process().stderr().contains("admin listening"));
    app.finish().await;
}

#[tokio::test]
async fn the_guard_watches_it() {
    let app = relay().start().await;
    app.hide_from_callers("a channel's id", "\"id\":\"main\"");
    app.admin("/readyz").await.text().await;
    let found = app.end().await;
    assert_eq!(found, ["the admins' side: a channel's id coming down"]);
}
