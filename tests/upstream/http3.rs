//! HTTP/3 towards a platform. Another relay stands for it: it speaks all versions, and says which.

use std::net::UdpSocket;
use std::time::Duration;

use aiproxy_testkit::{App, Authority, Builder};
use serde_json::{Value, json};

use crate::doors::secure;
use crate::{chat, chat_stream, relay, sdk};

/// What the relay in front holds for the one behind.
const SECOND: &str = "pk_second_2Wd8Kf5Jh1Lp7Zx4Nq6Tb3";
const NAME: &str = "relay.test";
/// The page of which `h3_client.py` speaks.
const PAGE: &str = "http://localhost:8000";

/// The relay that stands for a platform.
async fn far(authority: &Authority, change: impl FnOnce(&mut Value)) -> App {
    secure(authority, &[NAME])
        .config(|c| {
            c["users"]["second"] = json!({"name": "前面的", "proxy_key": SECOND, "channels": ["main"]});
            // A record of each request, whoever the caller is.
            c["system"]["workers"] = 1.into();
        })
        .config(change)
        .start()
        .await
}

/// A relay in front of it, which leads to this port.
fn near(builder: Builder, authority: &Authority, port: u16, versions: &Value) -> Builder {
    let versions = versions.clone();
    builder.file("far.pem", &authority.pem()).config(move |c| {
        c["system"]["workers"] = 2.into();
        let main = &mut c["channels"]["main"];
        main["base_url"] = format!("https://{NAME}:{port}").into();
        main["ca"] = "far.pem".into();
        main["api_key"] = SECOND.into();
        main["resolve"] = json!({NAME: ["127.0.0.1"]});
        main["http_versions"] = versions;
        main["timeouts"] = json!({"connect": "1s"});
    })
}

/// What counts the requests that came so.
fn sample(protocol: &str) -> String {
    format!(
        "aiproxy_requests_total{{channel=\"main\",protocol=\"{protocol}\",outcome=\"complete\",status_class=\"2xx\"}}"
    )
}

/// How many there are.
async fn came(far: &App, protocol: &str) -> f64 {
    far.metric(&sample(protocol)).await
}

async fn asks(near: &App) {
    let mut answer = near.post("/v1/chat/completions", &chat("gpt-4o", "你好")).send().await;
    let text = answer.text().await;
    assert_eq!(answer.status, 200, "{text}");
    assert!(text.contains("你好"));
}

#[tokio::test]
async fn requests_go_over_http3_where_it_comes_first() {
    let authority = Authority::default();
    let far = far(&authority, |_| {}).await;
    let versions = json!(["h3", "h2", "h1"]);
    let near = near(relay(), &authority, far.quic_addr().port(), &versions).start().await;
    for _ in 0..4 {
        asks(&near).await;
    }
    let mut stream = near.post("/v1/chat/completions", &chat_stream("gpt-4o", "流")).send().await;
    assert!(stream.text().await.ends_with("data: [DONE]\n\n"));
    near.metric_is(&sample("http1"), 5.0).await;
    far.metric_is(&sample("http3"), 5.0).await;
    assert!(came(&far, "http2").await == 0.0);
    near.finish().await;
    far.finish().await;
}

#[tokio::test]
async fn bodies_trailers_and_cancellations_pass_over_http3_on_both_sides() {
    let authority = Authority::default();
    let far = far(&authority, |_| {}).await;
    let front = secure(&authority, &["127.0.0.1"]).file("ca.pem", &authority.pem());
    let near = near(front, &authority, far.quic_addr().port(), &json!(["h3"]))
        .config(|c| {
            c["system"]["cors"] = json!({"origins": [PAGE]});
            // What the far one is in a hurry about is not the matter here.
            c["channels"]["main"]["timeouts"] = json!({"connect": "10s"});
        })
        .start()
        .await;
    let mut script = sdk::python("h3_client.py");
    script.env("SSL_CERT_FILE", near.dir().join("ca.pem"));
    // What the platform saw is to be asked of the far one's.
    sdk::succeeds(&far, format!("https://{}", near.quic_addr()), script).await;
    assert!(came(&far, "http3").await > 20.0);
    assert!(came(&far, "http2").await == 0.0);
    near.finish().await;
    far.finish().await;
}

#[tokio::test]
async fn a_platforms_own_offer_is_followed_where_http3_comes_later() {
    let authority = Authority::default();
    let far = far(&authority, |_| {}).await;
    // The tap in front of it passes TCP alone; what it offers is its own port.
    let versions = json!(["h2", "h3", "h1"]);
    let near = near(relay(), &authority, far.https_addr().port(), &versions).start().await;
    asks(&near).await;
    assert!(came(&far, "http2").await == 1.0);
    for _ in 0..4 {
        asks(&near).await;
    }
    far.metric_is(&sample("http3"), 4.0).await;
    near.finish().await;
    far.finish().await;
}

/// Takes the datagrams of a port and says nothing.
struct Silent(UdpSocket);

impl Silent {
    fn at(port: u16) -> Self {
        let socket = UdpSocket::bind(("127.0.0.1", port)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(socket)
    }

    /// Those that came since.
    fn taken(&self) -> usize {
        let mut datagram = [0; 2048];
        std::iter::from_fn(|| self.0.recv_from(&mut datagram).ok()).count()
    }
}

#[tokio::test]
async fn where_udp_is_blocked_requests_go_over_tcp_and_the_next_does_not_try() {
    let authority = Authority::default();
    let far = far(&authority, |c| c["system"]["listen"]["quic"] = "off".into()).await;
    let port = far.https_addr().port();
    let silent = Silent::at(port);
    let near = near(relay(), &authority, port, &json!(["h3", "h2", "h1"])).start().await;
    asks(&near).await;
    assert!(silent.taken() > 0, "it was tried");
    let refused = |line: &str| line.contains("no way to the platform over HTTP/3").then_some(());
    near.process().said("that there is no way", refused).await;
    // What was given up takes its leave.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let _ = silent.taken();
    for _ in 0..10 {
        asks(&near).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(silent.taken(), 0, "nobody waits for it again");
    far.metric_is(&sample("http2"), 11.0).await;
    near.finish().await;
    far.finish().await;
}

#[tokio::test]
async fn a_channel_that_wants_http3_alone_gets_nothing_else() {
    let authority = Authority::default();
    let far = far(&authority, |c| c["system"]["listen"]["quic"] = "off".into()).await;
    let port = far.https_addr().port();
    let silent = Silent::at(port);
    let near = near(relay(), &authority, port, &json!(["h3"])).start().await;
    let mut answer = near.post("/v1/chat/completions", &chat("gpt-4o", "x")).send().await;
    let text = answer.text().await;
    assert_eq!(answer.status, 504, "{text}");
    assert!(silent.taken() > 0);
    assert!(came(&far, "http2").await == 0.0);
    near.finish().await;
    far.finish().await;
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_ends_it_as_over_tcp() {
    let (authority, other) = (Authority::default(), Authority::default());
    let far = far(&authority, |_| {}).await;
    let near = near(relay(), &other, far.quic_addr().port(), &json!(["h3"])).start().await;
    let mut answer = near.post("/v1/chat/completions", &chat("gpt-4o", "x")).send().await;
    assert_eq!(answer.json().await["error"]["code"], "upstream_unreachable");
    near.finish().await;
    far.finish().await;
}

#[tokio::test]
async fn requests_go_on_when_the_platform_goes_and_comes_again() {
    let authority = Authority::default();
    let mut far = far(&authority, |_| {}).await;
    let versions = json!(["h3", "h2", "h1"]);
    let near = near(relay(), &authority, far.quic_addr().port(), &versions).start().await;
    asks(&near).await;
    // It takes leave, with GOAWAY and a close; its ports are others afterwards.
    far.restart_after("TERM").await;
    let mut answer = near.post("/v1/chat/completions", &chat("gpt-4o", "x")).send().await;
    assert_eq!(answer.json().await["error"]["code"], "upstream_unreachable");
    near.finish().await;
    far.finish().await;
}
