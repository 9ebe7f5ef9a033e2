//! Where callers may put their Proxy-Key, and what happens to it elsewhere.

use aiproxy_testkit::{Answer, CHANNEL_KEY, HeaderMap, PROXY_KEY, RawUpstream};

use super::recorded;
use crate::relay;

async fn code(mut answer: Answer) -> String {
    answer.json().await["error"]["code"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_key_is_taken_from_every_accepted_header() {
    let (app, upstream) = recorded().await;
    let places = [
        ("authorization", format!("Bearer {PROXY_KEY}")),
        ("authorization", format!("bEARER   {PROXY_KEY}")),
        ("authorization", format!("Token {PROXY_KEY}")),
        ("authorization", format!("Key {PROXY_KEY}")),
        ("authorization", PROXY_KEY.to_owned()),
        ("api-key", PROXY_KEY.to_owned()),
        ("x-api-key", PROXY_KEY.to_owned()),
        ("x-goog-api-key", PROXY_KEY.to_owned()),
        ("xi-api-key", PROXY_KEY.to_owned()),
        ("x-api-access-key", PROXY_KEY.to_owned()),
        ("x-aiproxy-key", PROXY_KEY.to_owned()),
    ];
    for (number, (name, value)) in places.iter().enumerate() {
        let answer = app.get("/v1/a?b=1").no_key().header(name, value).send().await;
        assert_eq!(answer.status, 200, "{name}");
        let request = upstream.request(number).await;
        assert_eq!(request.header("authorization"), Some(format!("Bearer {CHANNEL_KEY}")), "{name}");
        assert_eq!(request.target(), "/v1/a?b=1");
        if *name != "authorization" {
            assert_eq!(request.header(name), None, "{name}");
        }
    }
    app.finish().await;
}

#[tokio::test]
async fn a_key_is_taken_from_every_accepted_query_parameter() {
    let (app, upstream) = recorded().await;
    let encoded: String = PROXY_KEY.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let queries = [
        format!("key={PROXY_KEY}"),
        format!("api-key={PROXY_KEY}"),
        format!("api_key={PROXY_KEY}"),
        format!("access_token={PROXY_KEY}"),
        format!("token={PROXY_KEY}"),
        format!("%6Bey={PROXY_KEY}"),
        format!("api%2Dkey={PROXY_KEY}"),
        format!("key={encoded}"),
        format!("key={PROXY_KEY}&key={PROXY_KEY}"),
        format!("key=&token={PROXY_KEY}"),
    ];
    for (number, query) in queries.iter().enumerate() {
        let answer = app.get(&format!("/v1/a?x=%20&{query}&y=2")).no_key().send().await;
        assert_eq!(answer.status, 200, "{query}");
        assert_eq!(upstream.request(number).await.target(), "/v1/a?x=%20&y=2", "{query}");
    }
    app.finish().await;
}

#[tokio::test]
async fn the_same_key_in_several_places_is_one_key() {
    let (app, upstream) = recorded().await;
    let answer = app.get(&format!("/v1/a?key={PROXY_KEY}")).header("x-api-key", PROXY_KEY).send().await;
    assert_eq!(answer.status, 200);
    assert_eq!(upstream.request(0).await.target(), "/v1/a");
    app.finish().await;
}

#[tokio::test]
async fn two_different_keys_are_refused_wherever_they_stand() {
    let (app, upstream) = recorded().await;
    for ask in [
        app.get("/v1/a").header("x-api-key", "pk_other_000000"),
        app.get("/v1/a?key=pk_other_000000"),
        app.get(&format!("/v1/a?key={PROXY_KEY}&token=pk_other_000000")).no_key(),
        app.get("/v1/a")
            .header("authorization", &format!("Bearer {PROXY_KEY}"))
            .header("authorization", "Bearer pk_other"),
        app.get("/v1/a").header("x-aiproxy-key", &PROXY_KEY.to_uppercase()),
    ] {
        let answer = ask.send().await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        assert_eq!(code(answer).await, "conflicting_keys");
    }
    assert_eq!(upstream.connections(), 0);
    app.finish().await;
}

#[tokio::test]
async fn a_missing_or_unknown_key_is_refused() {
    let (app, upstream) = recorded().await;
    for (ask, expected) in [
        (app.get("/v1/a").no_key(), "missing_key"),
        (app.get("/v1/a?key=").no_key(), "missing_key"),
        (app.get("/v1/a").no_key().header("authorization", "Bearer"), "missing_key"),
        (app.get("/v1/a").no_key().header("authorization", "Bearer "), "missing_key"),
        (app.get("/v1/a").key("pk_nobody_000000"), "invalid_key"),
        (app.get("/v1/a").key(&PROXY_KEY[..PROXY_KEY.len() - 1]), "invalid_key"),
        (app.get("/v1/a").key(&PROXY_KEY.to_lowercase()), "invalid_key"),
        (app.get("/v1/a").no_key().header("authorization", &format!("Basic {PROXY_KEY}")), "invalid_key"),
        (app.get("/v1/a").key("钥匙"), "invalid_key"),
        (app.get("/v1/a?key=%FF%FE").no_key(), "invalid_key"),
    ] {
        let answer = ask.send().await;
        assert_eq!(answer.status, 401);
        assert!(answer.header("www-authenticate").is_some());
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        assert_eq!(code(answer).await, expected);
    }
    assert_eq!(upstream.connections(), 0);
    app.finish().await;
}

#[tokio::test]
async fn the_channels_own_key_opens_nothing() {
    let (app, upstream) = recorded().await;
    // Sent past the tap: a caller who holds it is no leak of ours.
    let mut raw = aiproxy_testkit::Raw::connect(app.relay_addr()).await;
    raw.send(format!("GET /v1/a HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {CHANNEL_KEY}\r\n\r\n")).await;
    assert_eq!(raw.answer().await.status, 401);
    assert_eq!(upstream.connections(), 0);
    app.finish().await;
}

#[tokio::test]
async fn a_key_in_the_path_or_in_another_parameter_is_not_passed_on() {
    let (app, upstream) = recorded().await;
    let encoded = PROXY_KEY.replacen('p', "%70", 1);
    for target in [
        format!("/v1/{PROXY_KEY}/a"),
        format!("/v1/{encoded}/a"),
        format!("/v1/a?api_token={PROXY_KEY}"),
        format!("/v1/a?x=1&y={encoded}"),
        format!("/v1/a?{PROXY_KEY}"),
        format!("/v1/a?{PROXY_KEY}=1"),
        format!("/v1/a?KEY={PROXY_KEY}"),
    ] {
        let answer = app.get(&target).send().await;
        assert_eq!(answer.status, 400, "{target}");
        assert_eq!(code(answer).await, "bad_request");
    }
    assert_eq!(upstream.connections(), 0);
    app.finish().await;
}

#[tokio::test]
async fn a_key_in_a_trailer_is_not_passed_on() {
    let (app, upstream) = recorded().await;
    let (ask, upload) = app.ask("POST", "/v1/a").header("trailer", "x-debug, x-kept").upload();
    let sending = tokio::spawn(ask.send());
    upload.send("body").await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-debug", PROXY_KEY.parse().unwrap());
    trailers.insert("x-kept", "1".parse().unwrap());
    upload.trailers(trailers).await;
    assert_eq!(sending.await.unwrap().status, 200);
    let request = upstream.request(0).await;
    assert_eq!(request.body, "body");
    assert_eq!(request.trailers.get("x-debug"), None);
    app.finish().await;
}

#[tokio::test]
async fn a_proxy_key_given_as_a_digest_works_like_any_other() {
    let upstream = RawUpstream::recording().await;
    let key = "pk_digest_9f8e7d6c5b4a";
    let app = relay()
        .config(|c| {
            // printf %s pk_digest_9f8e7d6c5b4a | sha256sum
            let digest = "8072805a7e468e9b157b79e74424321cbb7ca9926a0c1ed846fdf9e4a4e05353";
            c["users"]["hashed"] = serde_json::json!({"proxy_key_sha256": digest, "channels": ["main"]});
        })
        .upstream(&upstream)
        .start()
        .await;
    assert_eq!(app.get("/v1/a").key(key).send().await.status, 200);
    app.finish().await;
}
