//! The way to the platforms: HTTP/2, egress proxies, addresses that change, connections kept open.

mod addresses;
mod frames;
mod goaway;
mod http3;
mod kept;
mod multiplexed;
mod pressure;
mod proxies;
mod versions;

use aiproxy_testkit::{App, Manner, Platform, TestCa};
use serde_json::{Value, json};

use crate::relay;

/// A platform over TLS that offers HTTP/2.
fn secure(ca: &TestCa) -> Manner {
    Manner { tls: Some(ca.server(&["h2", "http/1.1"])), ..Manner::default() }
}

/// Has the channel `main` lead there, by its name, and one thread serve.
fn lead(platform: &Platform, ca: &TestCa) -> impl FnOnce(&mut Value) {
    let (addr, ca) = (platform.addr(), ca.path());
    move |c: &mut Value| {
        c["system"]["workers"] = 1.into();
        let main = &mut c["channels"]["main"];
        main["base_url"] = format!("https://platform.test:{}", addr.port()).into();
        main["ca"] = ca.to_str().expect("a path in UTF-8").into();
        main["resolve"] = json!({"platform.test": [addr.ip().to_string()]});
    }
}

/// A relay in front of this platform.
async fn before(platform: &Platform, ca: &TestCa, change: impl FnOnce(&mut Value)) -> App {
    relay().recorded(platform).config(lead(platform, ca)).config(change).start().await
}
