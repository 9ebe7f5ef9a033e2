use std::sync::Arc;

use aiproxy_config::model::{BaseUrl, Breaker, Ownership, PoolLimits, Reach, Retry, Status, Timeouts};
use aiproxy_core::Secret;
use aiproxy_platform::by_id;

use super::*;

const PROXY_KEY: &str = "pk_caller_0123456789";
const CHANNEL_KEY: &str = "sk-channel+/=0123456789";

fn channel(platform: &str, placement: Vec<Placement>) -> Arc<Channel> {
    Arc::new(Channel {
        id: "c1".into(),
        name: "渠道".into(),
        platform: by_id(platform).unwrap(),
        status: Status::Active,
        api_key: Secret::new(CHANNEL_KEY.into()),
        base: BaseUrl {
            tls: true,
            host: "api.example".into(),
            port: 443,
            path: String::new(),
            authority: "api.example".into(),
        },
        socket_placement: placement.clone(),
        placement,
        models: None,
        default_model: None,
        allow_paths: Vec::new(),
        deny_paths: Vec::new(),
        path_rewrite: Vec::new(),
        set_headers: vec![("x-team".parse().unwrap(), "研发".parse().unwrap())],
        pass_headers: vec!["openai-project".parse().unwrap()],
        timeouts: Timeouts::default(),
        ca_pem: None,
        retry: Retry::default(),
        breaker: Breaker::default(),
        health: None,
        ownership: Ownership::Enforce,
        prices: None,
        stream_usage: aiproxy_config::model::StreamUsage::default(),
        reach: Reach::default(),
        pool: PoolLimits::default(),
        websocket: aiproxy_config::model::WebSocket::default(),
        realtime: aiproxy_config::model::Realtime::default(),
    })
}

fn swapped(placement: Vec<Placement>, pairs: &[(&'static str, &str)]) -> Vec<(String, String)> {
    let prepared = Prepared::of(&channel("openai", placement));
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, value.parse().unwrap());
    }
    prepared.swap_headers(&mut headers, PROXY_KEY, false);
    let mut out: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    out.sort();
    out
}

fn has(headers: &[(String, String)], name: &str, value: &str) -> bool {
    headers.iter().any(|(n, v)| n == name && v == value)
}

#[test]
fn the_channel_key_comes_in_every_placement_and_the_callers_goes() {
    let bearer = format!("Bearer {PROXY_KEY}");
    for (placement, name, value) in [
        (Placement::BEARER, "authorization", format!("Bearer {CHANNEL_KEY}")),
        (Placement::scheme("authorization", "Token"), "authorization", format!("Token {CHANNEL_KEY}")),
        (Placement::header("x-api-key"), "x-api-key", CHANNEL_KEY.to_owned()),
        (Placement::header("x-goog-api-key"), "x-goog-api-key", CHANNEL_KEY.to_owned()),
    ] {
        let headers = swapped(
            vec![placement],
            &[("authorization", &bearer), ("x-api-key", PROXY_KEY), ("api-key", PROXY_KEY)],
        );
        assert!(has(&headers, name, &value), "{headers:?}");
        assert!(has(&headers, "host", "api.example"));
        assert!(has(&headers, "x-team", "研发"));
        assert!(!headers.iter().any(|(_, v)| v.contains(PROXY_KEY)), "{headers:?}");
        assert_eq!(headers.len(), 3, "{headers:?}");
    }
    let both = swapped(vec![Placement::BEARER, Placement::header("api-key")], &[("authorization", &bearer)]);
    assert!(
        has(&both, "authorization", &format!("Bearer {CHANNEL_KEY}")) && has(&both, "api-key", CHANNEL_KEY)
    );
}

#[test]
fn what_ends_at_this_hop_or_is_private_goes() {
    let headers = swapped(
        vec![],
        &[
            ("connection", "keep-alive, x-hop, Content-Type"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("cookie", "a=b"),
            ("origin", "https://app.example"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=10.0.0.1"),
            ("x-aiproxy-channel", "c1"),
            ("openai-organization", "org-other"),
            ("openai_organization", "org-other"),
            ("x_forwarded_for", "10.0.0.1"),
            ("openai-project", "proj_1"),
            ("x-note", "my key is pk_caller_0123456789!"),
            ("content-type", "application/json"),
            ("x-stainless-lang", "python"),
        ],
    );
    let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["content-type", "host", "openai-project", "te", "x-stainless-lang", "x-team"]);
}

#[test]
fn the_query_loses_the_callers_key_and_gains_the_channels() {
    let prepared = Prepared::of(&channel("gemini", vec![Placement::query("key")]));
    let target =
        |path: &str, query: Option<&str>| prepared.target(path, query, PROXY_KEY).map(|uri| uri.to_string());
    let key = "key=sk-channel%2B%2F%3D0123456789";
    assert_eq!(target("/v1beta/models", None), Ok(format!("/v1beta/models?{key}")));
    assert_eq!(
        target("/v1beta/models", Some("alt=sse&key=pk_caller_0123456789&a=%20b&empty")),
        Ok(format!("/v1beta/models?alt=sse&a=%20b&empty&{key}"))
    );
    assert_eq!(target("/x", Some("%6Bey=pk_caller_0123456789")), Ok(format!("/x?{key}")));
    for (path, query) in [
        ("/v1/pk_caller_0123456789", None),
        ("/v1/%70k_caller_0123456789", None),
        ("/v1", Some("note=pk_caller_0123456789")),
        ("/v1", Some("note=%70k_caller_0123456789")),
        ("/v1", Some("pk_caller_0123456789=1")),
    ] {
        assert_eq!(target(path, query), Err(SwapError::KeyInTarget), "{path} {query:?}");
    }
}
