//! Channels: their keys go in and never come out; where a key goes; tests of the platform.

use std::io::Write as _;

use serde_json::json;

use super::api::is;
use super::documents::KEY;
use super::*;

#[tokio::test]
async fn no_answer_shows_a_key() {
    let (bed, admin) = Bed::peopled().await;
    let channel = json!({
        "id": "x", "api_key": "${HOME}hunter2", "base_url": "https://x.example", "egress_proxy": "http://u:hunter2@p.example:3128",
        "headers": {"set": {"x-org": "hunter2-org"}}
    });
    let made = bed.post(&admin, "channels", channel).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let patched = bed.patch(&admin, "channels/x", "*", json!({"name": "x", "api_key": "***"})).await;
    assert_eq!((patched.status, &patched.json()["api_key"]), (200, &json!("***")));
    let mut answers = vec![made, patched];
    for path in
        ["channels", "channels/x", "channels/openai", "audit", "users", "openapi.json", "channels?q=hunter2"]
    {
        answers.push(bed.call(&admin, "GET", &format!("/api/v1/{path}"), None).await);
    }
    answers.push(bed.post(&admin, "channels", json!({"id": "y", "api_key": "hunter2", "base_url": 7})).await);
    for answer in answers {
        assert!(!answer.body.contains("hunter2") && !answer.head.contains("hunter2"), "{}", answer.body);
    }
    let snapshot = bed.state.registry.snapshot();
    assert_eq!(snapshot.channel("x").unwrap().api_key.expose(), "${HOME}hunter2");
}

#[tokio::test]
async fn a_key_is_not_sent_elsewhere_by_who_does_not_know_it() {
    let (bed, admin) = Bed::peopled().await;
    for change in [
        json!({"base_url": "https://evil.example"}),
        json!({"egress_proxy": "http://evil.example:3128"}),
        json!({"platform": "custom"}),
        json!({"resolve": {"api.openai.com": ["127.0.0.1"]}}),
        json!({"base_url": "https://evil.example", "api_key": "***"}),
        json!({"key_placement": {"query": "key"}}),
    ] {
        let answer = bed.patch(&admin, "channels/openai", "*", change.clone()).await;
        is(&answer, 422, "key_required");
        assert_eq!(answer.json()["error"]["problems"][0]["path"], "api_key", "{change}");
    }
    let change = json!({"base_url": "https://new.example", "api_key": "sk_another_0123456789"});
    assert_eq!(bed.patch(&admin, "channels/openai", "*", change).await.status, 200);
    is(
        &bed.post(&admin, "channels", json!({"id": "z", "api_key": "***", "base_url": "https://z.example"}))
            .await,
        422,
        "key_required",
    );
}

#[tokio::test]
async fn a_channel_is_drained_and_switched_off_and_on() {
    let (bed, admin) = Bed::peopled().await;
    for (verb, status) in [("drain", "draining"), ("disable", "disabled"), ("enable", "active")] {
        assert_eq!(bed.make(&admin, &format!("channels/openai/{verb}"), json!({})).await["status"], status);
    }
    let health = bed.read(&admin, "channels/openai/health").await;
    assert_eq!((&health["breaker"], &health["live"]), (&json!("closed"), &json!(0)));
    is(&bed.call(&admin, "GET", "/api/v1/channels/nowhere/health", None).await, 404, "not_found");
}

/// A platform that answers one request so.
fn platform(answer: &'static str) -> (u16, std::thread::JoinHandle<String>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            std::io::Read::read_exact(&mut stream, &mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(head).unwrap()
    });
    (port, thread)
}

#[tokio::test]
async fn a_test_asks_the_platform_and_says_what_to_do() {
    let (bed, admin) = Bed::peopled().await;
    for (n, (answer, verdict)) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "ok"),
        ("HTTP/1.1 401 Unauthorized\r\ncontent-length: 30\r\n\r\n{\"error\":\"sk_hunter2_01234567\"}", "key_rejected"),
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "http_error"),
        ("HTTP/1.1 429 Too Many\r\ncontent-length: 45\r\n\r\n{\"error\":{\"code\":\"insufficient_quota\",\"x\":1}} ", "account"),
        ("nonsense\r\n\r\n", "http_error"),
    ]
    .into_iter()
    .enumerate()
    {
        let (port, thread) = platform(answer);
        let id = format!("p{n}");
        let channel = json!({"id": id, "api_key": KEY, "platform": "openai", "base_url": format!("http://127.0.0.1:{port}")});
        bed.make(&admin, "channels", channel).await;
        let answer = bed.post(&admin, &format!("channels/{id}/test"), json!({})).await;
        let tested = answer.json();
        assert_eq!(tested["verdict"], verdict, "{}", answer.body);
        assert_eq!(tested["target"], format!("GET http://127.0.0.1:{port}/v1/models"));
        assert!(!answer.body.contains("hunter2") && !tested["advice"].as_str().unwrap().is_empty());
        assert!(thread.join().unwrap().contains(&format!("Bearer {KEY}")));
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (id, base, verdict) in [
        ("closed", format!("http://127.0.0.1:{closed}"), "unreachable"),
        ("nameless", "http://nothing.invalid".to_owned(), "dns"),
    ] {
        bed.make(&admin, "channels", json!({"id": id, "api_key": KEY, "base_url": base})).await;
        let tested = bed.make(&admin, &format!("channels/{id}/test"), json!({})).await;
        assert_eq!((&tested["verdict"], &tested["status"]), (&json!(verdict), &Value::Null));
    }
    assert_eq!(bed.audit(&admin, "action=channel.test").await.len(), 7);
    is(&bed.post(&admin, "channels/nowhere/test", json!({})).await, 404, "not_found");
}
