//! Platforms behind egress proxies.

use aiproxy_testkit::{
    App, CHANNEL_KEY, Hosts, Needles, PROXY_KEY, Platform, Proxy, RawUpstream, TestCa, TlsFront, Wiretap,
    until,
};
use serde_json::{Value, json};

use super::{lead, secure};
use crate::{chat, relay};

const USER: &str = "relay";
const PASSWORD: &str = "Wq7-xK2zLm9";

/// A platform that only the proxies can name, and the keys that they must not see.
struct Scene {
    ca: TestCa,
    platform: Platform,
    hosts: Hosts,
    keys: Needles,
}

impl Scene {
    async fn new() -> Self {
        let ca = TestCa::new();
        let platform = Platform::start(secure(&ca), |mut exchange| async move {
            let body = exchange.body().await;
            exchange.answer(200, body).await;
        })
        .await;
        let keys = Needles::default();
        keys.add("the Proxy-Key", PROXY_KEY);
        keys.add("the channel's key", CHANNEL_KEY);
        Self { ca, platform, hosts: Hosts::new("127.0.0.1 platform.test"), keys }
    }

    /// A tap that looks for all keys in what passes to and from the proxy.
    async fn tap(&self, proxy: &Proxy) -> Wiretap {
        Wiretap::of_admins(proxy.addr(), [&self.keys, &Needles::default()]).await
    }

    /// A relay whose channel goes through this proxy.
    async fn relay(&self, proxy: &str, change: impl FnOnce(&mut Value)) -> App {
        let app = relay()
            .recorded(&self.platform)
            .env("EGRESS", proxy)
            .config(lead(&self.platform, &self.ca))
            .config(|c| {
                c["channels"]["main"]["resolve"] = json!({});
                c["channels"]["main"]["egress_proxy"] = "${EGRESS}".into();
            })
            .config(change)
            .start()
            .await;
        app.hide_from_platform("the proxy's password", PASSWORD);
        app
    }
}

async fn is_served(app: &App) {
    for _ in 0..3 {
        let mut answer = app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send().await;
        assert_eq!((answer.status.as_u16(), answer.json().await), (200, chat("gpt-4o", "hi")));
    }
}

async fn is_unreachable(app: &App) {
    let mut answer = app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send().await;
    let code = answer.json().await["error"]["code"].clone();
    assert_eq!((answer.status.as_u16(), code), (502, json!("upstream_unreachable")));
}

async fn said(app: &App, text: &str) {
    until(text, || app.process().stderr().contains(text).then_some(())).await;
}

#[tokio::test]
async fn proxies_with_credentials_carry_what_they_cannot_read() {
    let scene = Scene::new().await;
    let http = Proxy::http(Some([USER, PASSWORD]), &scene.hosts).await;
    let socks = Proxy::socks(Some([USER, PASSWORD]), &scene.hosts).await;
    for (scheme, proxy) in [("http", &http), ("socks5h", &socks)] {
        let tap = scene.tap(proxy).await;
        let before = scene.platform.connections();
        let app = scene.relay(&format!("{scheme}://{USER}:{PASSWORD}@{}", tap.addr()), |_| ()).await;
        is_served(&app).await;
        assert_eq!(scene.platform.connections(), before + 1, "one tunnel for all");
        assert!(tap.upward() > 0);
        assert_eq!(tap.sightings(), Vec::<String>::new(), "{scheme}");
        app.finish().await;
        assert_eq!(tap.sightings(), Vec::<String>::new(), "{scheme}");
    }
}

#[tokio::test]
async fn a_proxy_may_be_spoken_to_over_tls() {
    let scene = Scene::new().await;
    let proxy = Proxy::http(Some([USER, PASSWORD]), &scene.hosts).await;
    let front = TlsFront::start(proxy.addr(), scene.ca.server(&["http/1.1"])).await;
    let url = format!("https://{USER}:{PASSWORD}@{}", front.addr());
    let app = scene.relay(&url, |_| ()).await;
    is_served(&app).await;
    app.finish().await;
    // A proxy that nobody vouches for gets no credentials.
    let stranger = TlsFront::start(proxy.addr(), TestCa::new().server(&[])).await;
    let app = scene.relay(&format!("https://{USER}:{PASSWORD}@{}", stranger.addr()), |_| ()).await;
    is_unreachable(&app).await;
    said(&app, "the egress proxy cannot be reached").await;
    app.finish().await;
}

#[tokio::test]
async fn proxies_without_credentials_work_too() {
    let scene = Scene::new().await;
    let http = Proxy::http(None, &scene.hosts).await;
    let socks = Proxy::socks(None, &scene.hosts).await;
    for url in [
        format!("http://{}", http.addr()),
        format!("http://user:{PASSWORD}@{}", http.addr()),
        format!("socks5h://{}", socks.addr()),
    ] {
        let app = scene.relay(&url, |_| ()).await;
        is_served(&app).await;
        app.finish().await;
    }
}

#[tokio::test]
async fn names_are_resolved_where_the_scheme_says() {
    let scene = Scene::new().await;
    let nowhere = Hosts::new("127.0.0.1 other.test");
    let blind = Proxy::socks(None, &nowhere).await;
    let here = json!({"platform.test": ["127.0.0.1"]});
    for (scheme, resolve) in [("socks5", here.clone()), ("socks5h", here)] {
        let url = format!("{scheme}://{}", blind.addr());
        let app = scene.relay(&url, |c| c["channels"]["main"]["resolve"] = resolve).await;
        is_served(&app).await;
        app.finish().await;
    }
    let app = scene.relay(&format!("socks5h://{}", blind.addr()), |_| ()).await;
    is_unreachable(&app).await;
    said(&app, "the egress proxy did not connect to the platform").await;
    app.finish().await;
    let app = scene.relay(&format!("socks5://{}", blind.addr()), |_| ()).await;
    is_unreachable(&app).await;
    said(&app, "the host name cannot be resolved").await;
    app.finish().await;
}

#[tokio::test]
async fn wrong_credentials_are_said_to_be_wrong() {
    let scene = Scene::new().await;
    let http = Proxy::http(Some([USER, "another"]), &scene.hosts).await;
    let socks = Proxy::socks(Some([USER, "another"]), &scene.hosts).await;
    for url in [
        format!("http://{USER}:{PASSWORD}@{}", http.addr()),
        format!("http://{}", http.addr()),
        format!("socks5h://{USER}:{PASSWORD}@{}", socks.addr()),
        format!("socks5h://{}", socks.addr()),
    ] {
        let app = scene.relay(&url, |_| ()).await;
        is_unreachable(&app).await;
        said(&app, "the egress proxy refused our credentials").await;
        app.finish().await;
    }
    assert_eq!(scene.platform.connections(), 0);
}

#[tokio::test]
async fn a_proxy_that_is_away_hands_over_to_the_next_channel() {
    let scene = Scene::new().await;
    let (addr, _socket) = aiproxy_testkit::refusing();
    let other = RawUpstream::recording().await;
    let second = other.addr();
    let app = scene
        .relay(&format!("http://{addr}"), |c| {
            c["channels"]["b"] = json!({
                "platform": "custom", "api_key": "sk-second/+=7Pq1Xs9Wd3Ef5Rg2Th6Yj", "base_url": format!("http://{second}"),
            });
            c["users"]["user1"]["channels"] = json!(["main", "b"]);
        })
        .await;
    let mut answer = app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send().await;
    assert_eq!((answer.status.as_u16(), answer.json().await), (200, json!({"ok": true})));
    said(&app, "the egress proxy cannot be reached").await;
    app.finish().await;
}

#[tokio::test]
async fn platforms_without_tls_are_reached_through_a_tunnel_too() {
    let scene = Scene::new().await;
    let proxy = Proxy::http(Some([USER, PASSWORD]), &scene.hosts).await;
    let upstream = RawUpstream::recording().await;
    let port = upstream.addr().port();
    let app = scene
        .relay(&format!("http://{USER}:{PASSWORD}@{}", proxy.addr()), |c| {
            c["channels"]["main"] = json!({
                "platform": "custom", "api_key": CHANNEL_KEY, "egress_proxy": "${EGRESS}",
                "base_url": format!("http://platform.test:{port}"),
            });
        })
        .await;
    for _ in 0..2 {
        assert_eq!(app.get("/v1/a").send().await.json().await, json!({"ok": true}));
    }
    let received = upstream.received();
    assert_eq!(received[1].target(), "/v1/a", "no absolute form");
    assert_eq!(received[1].header("proxy-authorization"), None);
    assert_eq!(received[1].header("host"), Some(format!("platform.test:{port}")));
    assert_eq!(upstream.connections(), 1);
    app.finish().await;
}

#[tokio::test]
async fn the_environment_names_a_proxy_for_channels_that_name_none() {
    let scene = Scene::new().await;
    let proxy = Proxy::http(Some([USER, PASSWORD]), &scene.hosts).await;
    let url = format!("http://{USER}:{PASSWORD}@{}", proxy.addr());
    let here = json!({"platform.test": ["127.0.0.1"]});
    // What the environment says, what the channel says, whether the proxy is passed.
    for (environment, change, through) in [
        (vec![("HTTPS_PROXY", &*url)], json!({}), true),
        (vec![("all_proxy", &*url)], json!({}), true),
        (vec![("http_proxy", &*url)], json!({"resolve": here}), false),
        (vec![("HTTPS_PROXY", &*url)], json!({"egress_proxy": "off", "resolve": here}), false),
        (vec![("HTTPS_PROXY", &*url), ("NO_PROXY", "a.example, .test")], json!({"resolve": here}), false),
        (vec![("HTTPS_PROXY", &*url), ("NO_PROXY", "a.example")], json!({}), true),
        (
            vec![("HTTPS_PROXY", &*url)],
            json!({"base_url": format!("https://127.0.0.1:{}", scene.platform.addr().port())}),
            false,
        ),
    ] {
        let tap = scene.tap(&proxy).await;
        let tapped = |value: &str| value.replace(&proxy.addr().to_string(), &tap.addr().to_string());
        let mut builder = relay().recorded(&scene.platform).config(lead(&scene.platform, &scene.ca));
        for (name, value) in &environment {
            builder = builder.env(name, &tapped(value));
        }
        let app = builder
            .config(|c| {
                let main = &mut c["channels"]["main"];
                main["resolve"] = json!({});
                for (name, value) in change.as_object().unwrap() {
                    main[name] = value.clone();
                }
            })
            .start()
            .await;
        app.hide_from_platform("the proxy's password", PASSWORD);
        is_served(&app).await;
        assert_eq!(tap.upward() > 0, through, "{environment:?} {change}");
        app.finish().await;
    }
}

#[tokio::test]
async fn a_reload_takes_another_proxy() {
    let scene = Scene::new().await;
    let (one, two) = (Proxy::http(None, &scene.hosts).await, Proxy::socks(None, &scene.hosts).await);
    let (first, second) = (scene.tap(&one).await, scene.tap(&two).await);
    let mut app = scene.relay(&format!("http://{}", first.addr()), |_| ()).await;
    is_served(&app).await;
    assert_eq!(second.upward(), 0);
    let url = format!("socks5h://{}", second.addr());
    assert!(app.change(|c| c["channels"]["main"]["egress_proxy"] = url.into()).await);
    is_served(&app).await;
    assert!(second.upward() > 0);
    app.finish().await;
}
