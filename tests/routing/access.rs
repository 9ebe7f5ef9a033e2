//! Who may call at all, and from where.

use aiproxy_testkit::{App, RawUpstream};
use serde_json::{Value, json};

use crate::relay;

async fn with_user(change: Value, system: Value) -> (App, RawUpstream) {
    let upstream = RawUpstream::recording().await;
    let app = relay()
        .config(|c| {
            for (section, change) in [("user1", &change), ("system", &system)] {
                let target = if section == "user1" { &mut c["users"]["user1"] } else { &mut c["system"] };
                for (field, value) in change.as_object().unwrap() {
                    target[field] = value.clone();
                }
            }
        })
        .upstream(&upstream)
        .start()
        .await;
    (app, upstream)
}

async fn refused(change: Value, code: &str) {
    let (app, upstream) = with_user(change, json!({})).await;
    let mut answer = app.get("/v1/things").send().await;
    assert_eq!(answer.status, 403, "{code}");
    assert_eq!(answer.header("x-should-retry"), Some("false"), "{code}");
    assert_eq!(answer.json().await["error"]["code"], code);
    assert_eq!(upstream.connections(), 0);
    app.finish().await;
}

#[tokio::test]
async fn a_disabled_user_is_refused() {
    refused(json!({"status": "disabled"}), "user_disabled").await;
    // The user's status comes before the key's.
    refused(json!({"status": "disabled", "expires_at": "2020-01-01"}), "user_disabled").await;
}

#[tokio::test]
async fn an_expired_key_is_refused() {
    refused(json!({"expires_at": "2020-01-01"}), "key_expired").await;
    refused(json!({"expires_at": "2020-01-01T00:00:00+08:00"}), "key_expired").await;
}

#[tokio::test]
async fn a_key_that_expires_later_works() {
    let (app, _upstream) = with_user(json!({"expires_at": "2099-12-31"}), json!({})).await;
    assert_eq!(app.get("/v1/things").send().await.status, 200);
    app.finish().await;
}

#[tokio::test]
async fn a_key_may_be_bound_to_addresses() {
    let (app, _upstream) = with_user(json!({"allow_ips": ["127.0.0.0/8"]}), json!({})).await;
    assert_eq!(app.get("/v1/things").send().await.status, 200);
    app.finish().await;

    let (app, upstream) = with_user(json!({"allow_ips": ["198.51.100.0/24"]}), json!({})).await;
    // Nobody is trusted to say where a request came from.
    let mut answer = app.get("/v1/things").header("x-forwarded-for", "198.51.100.7").send().await;
    assert_eq!(answer.status, 403);
    let error = answer.json().await["error"].clone();
    assert_eq!(error["code"], "ip_not_allowed");
    assert!(error["message"].as_str().unwrap().contains("127.0.0.1"), "{error}");
    assert_eq!(upstream.connections(), 0);
    app.finish().await;
}

#[tokio::test]
async fn forwarded_addresses_are_read_from_the_right_through_trusted_proxies() {
    let system = json!({"trusted_proxies": ["127.0.0.1", "10.0.0.0/8"]});
    let (app, upstream) = with_user(json!({"allow_ips": ["198.51.100.7", "2001:db8::/32"]}), system).await;
    for (forwarded, allowed) in [
        ("198.51.100.7", true),
        ("198.51.100.7, 10.0.0.2", true),
        ("1.2.3.4, 198.51.100.7, 10.0.0.2, 10.0.0.3", true),
        ("198.51.100.7:4711", true),
        ("[2001:db8::1]:443", true),
        // Forged by the caller at the left of what the trusted proxy saw.
        ("198.51.100.7, 203.0.113.9, 10.0.0.2", false),
        ("198.51.100.7, 203.0.113.9", false),
        ("198.51.100.7, nonsense", false),
        ("10.0.0.3", false),
        ("", false),
    ] {
        let answer = app.get("/v1/things").header("x-forwarded-for", forwarded).send().await;
        assert_eq!(answer.status, if allowed { 200 } else { 403 }, "{forwarded}");
    }
    for request in upstream.received() {
        assert_eq!(request.header("x-forwarded-for"), None);
    }
    let two_lines = app
        .get("/v1/things")
        .header("x-forwarded-for", "198.51.100.7")
        .header("x-forwarded-for", "203.0.113.9");
    assert_eq!(two_lines.send().await.status, 403);
    let line = app.logged("the line", |line| line["ip"] == "198.51.100.7").await;
    assert_eq!(line["status"], 200);
    app.finish().await;
}

#[tokio::test]
async fn groups_give_channels_addresses_and_models() {
    let upstream = RawUpstream::recording().await;
    let app = relay()
        .config(|c| {
            c["groups"] =
                json!({"g": {"channels": ["main"], "models": ["gpt-*"], "allow_ips": ["127.0.0.1"]}});
            c["users"]["user1"] = json!({"proxy_key": c["users"]["user1"]["proxy_key"], "groups": ["g"]});
        })
        .upstream(&upstream)
        .start()
        .await;
    assert_eq!(app.post("/v1/chat/completions", &crate::chat("gpt-4o", "hi")).send().await.status, 200);
    assert_eq!(app.post("/v1/chat/completions", &crate::chat("o3", "hi")).send().await.status, 403);
    app.finish().await;
}

#[tokio::test]
async fn an_unreadable_forwarded_address_is_nobodys() {
    let system = json!({"trusted_proxies": ["127.0.0.1"]});
    let (app, upstream) = with_user(json!({"allow_ips": ["127.0.0.0/8"]}), system).await;
    let mut raw = app.raw().await;
    let mut request = format!(
        "GET /v1/things HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {}\r\nx-forwarded-for: ",
        aiproxy_testkit::PROXY_KEY
    )
    .into_bytes();
    request.extend_from_slice(b"203.0.113.9, \xff\r\n\r\n");
    raw.send(request).await;
    raw.until(b"ip_not_allowed").await;
    assert_eq!(upstream.received().len(), 0);
    app.finish().await;
}
