//! How callers get in: TLS, HTTP/2, HTTP/3, PROXY protocol; what bounds them, and what hostile ones get.

mod certificates;
mod conformance;
mod curl;
mod hostile1;
mod hostile2;
mod hostile3;
mod http2;
mod http3;
mod limits;
mod proxy;
mod soak;
mod tls;

use aiproxy_testkit::{Authority, Builder, Gate, PROXY_KEY, RawUpstream};
use serde_json::json;

use crate::relay;

/// A relay whose HTTPS listener shows a certificate of this authority, in `relay.pem`.
pub(crate) fn secure(authority: &Authority, names: &[&str]) -> Builder {
    let issued = authority.issue(names);
    relay().file("relay.pem", &issued.cert).file("relay.key", &issued.key).config(|c| {
        c["system"]["listen"]["https"] = "127.0.0.1:0".into();
        c["system"]["tls"] = json!({"cert": "relay.pem", "key": "relay.key"});
    })
}

/// A platform that answers with this once the gate is open.
async fn behind(gate: &Gate, body: &'static str) -> RawUpstream {
    let gate = gate.clone();
    RawUpstream::start(move |mut conn| {
        let gate = gate.clone();
        async move {
            while conn.request().await.is_some() {
                gate.passed().await;
                conn.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
            }
        }
    })
    .await
}

/// A request in the words of HTTP/1.1.
fn get(target: &str, more: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {PROXY_KEY}\r\n{more}\r\n")
}

/// The Proxy-Key as callers send it.
fn bearer() -> String {
    format!("Bearer {PROXY_KEY}")
}

/// A request in the words of HTTP/2.
fn fields<'a>(method: &'a str, path: &'a str, bearer: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        (":method", method),
        (":scheme", "http"),
        (":authority", "relay"),
        (":path", path),
        ("authorization", bearer),
    ]
}
