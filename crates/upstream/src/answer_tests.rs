use std::sync::Arc;

use aiproxy_config::model::{BaseUrl, Breaker, Ownership, PoolLimits, Reach, Retry, Status, Timeouts};
use aiproxy_core::Secret;
use aiproxy_platform::{Placement, by_id};

use super::*;

const CHANNEL_KEY: &str = "sk-channel-0123456789";
const WAY: Way<'_> =
    Way { scheme: "http", authority: "relay.example:8080", asked: "/base/v1/realtime/calls" };

fn channel(base_path: &str) -> Arc<Channel> {
    Arc::new(Channel {
        id: "渠道1".into(),
        name: String::new(),
        platform: by_id("openai").unwrap(),
        status: Status::Active,
        api_key: Secret::new(CHANNEL_KEY.into()),
        base: BaseUrl {
            tls: true,
            host: "api.example".into(),
            port: 443,
            path: base_path.into(),
            authority: "api.example".into(),
        },
        placement: vec![Placement::BEARER],
        socket_placement: vec![Placement::BEARER],
        models: None,
        default_model: None,
        allow_paths: Vec::new(),
        deny_paths: Vec::new(),
        path_rewrite: Vec::new(),
        set_headers: Vec::new(),
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

fn cleaned(base_path: &str, pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, value.parse().unwrap());
    }
    clean(&mut headers, &channel(base_path), &["key".to_owned()], WAY);
    headers
}

#[test]
fn what_leaks_the_account_or_the_platforms_host_goes() {
    let headers = cleaned(
        "",
        &[
            ("openai-organization", "org-1"),
            ("openai-project", "proj_1"),
            ("set-cookie", "__cf_bm=1"),
            ("alt-svc", "h3=\":443\""),
            ("strict-transport-security", "max-age=1"),
            ("access-control-allow-origin", "*"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("x-debug", "key sk-channel-0123456789 used"),
            ("link", "</v1?key=sk%2Dchannel%2D0123456789>"),
            ("x-request-id", "req_1"),
            ("retry-after", "7"),
            ("content-type", "text/event-stream"),
        ],
    );
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-type", "openai-project", "retry-after", "x-request-id"]);
}

#[test]
fn urls_come_back_through_us_or_go() {
    let ours = "/@%E6%B8%A0%E9%81%931";
    let absolute = format!("http://relay.example:8080{ours}");
    for (base, name, value, expected) in [
        ("", "location", "rtc_1", Some(format!("{ours}/base/v1/realtime/rtc_1"))),
        ("/base", "location", "calls/rtc_1", Some(format!("{ours}/v1/realtime/calls/rtc_1"))),
        ("/base", "location", "../../../v1/x", None),
        ("", "location", "/v1/files/f1", Some(format!("{ours}/v1/files/f1"))),
        ("", "location", "https://api.example/v1/files/f1?a=b", Some(format!("{ours}/v1/files/f1?a=b"))),
        ("", "location", "https://api.example:443/v1/x", Some(format!("{ours}/v1/x"))),
        ("/base", "location", "/base/v1/x", Some(format!("{ours}/v1/x"))),
        ("/base", "location", "/other/v1/x", None),
        ("/base", "location", "/based/v1/x", None),
        ("", "location", "http://api.example/v1/x", None),
        ("", "location", "https://blob.example/signed?sig=1", None),
        ("", "location", "//blob.example/signed", None),
        ("", "operation-location", "https://api.example/op/1", Some(format!("{absolute}/op/1"))),
        (
            "",
            "x-goog-upload-url",
            "https://api.example/up?upload_id=1&key=sk-channel-0123456789",
            Some(format!("{absolute}/up?upload_id=1")),
        ),
        ("", "x-goog-upload-url", "https://api.example/up?other=sk-channel-0123456789", None),
        ("", "location", "https://api.example/%73k-channel-0123456789", None),
    ] {
        let headers = cleaned(base, &[(name, value)]);
        let got = headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(got, expected, "{name}: {value}");
    }
}
