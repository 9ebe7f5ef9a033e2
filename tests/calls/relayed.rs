//! Calls through the relay: sound and messages from end to end.

use aiproxy_testkit::{App, PROXY_KEY};
use serde_json::{Value, json};

use super::{chromium, python};
use crate::BINARY;

/// A relay that takes calls.
pub(crate) async fn relay() -> App {
    with(|_| ()).await
}

/// One whose configuration is changed besides.
pub(crate) async fn with(change: impl FnOnce(&mut Value)) -> App {
    let media = |config: &mut Value| config["system"]["listen"]["media"] = json!("127.0.0.1:0");
    App::builder(BINARY).config(media).config(change).start().await
}

const PATH: &str = "/v1/realtime/calls?model=gpt-realtime";

#[tokio::test]
async fn aiortc_calls_the_sandbox_through_the_relay() {
    let app = relay().await;
    let url = format!("{}{PATH}", app.url());
    let channels = ["--channel", "oai-events", "--channel", "q,ordered=0,protocol=p"];
    let more = ["--say", "one two", "--big", "200000"];
    let report = python(&url, PROXY_KEY, &[&channels[..], &more].concat()).await;
    println!("{report:#}");
    app.finish().await;
}

#[tokio::test]
async fn chromium_calls_the_sandbox_through_the_relay() {
    let app = relay().await;
    let url = format!("{}{PATH}", app.url());
    let report = chromium(&url, PROXY_KEY, &[]).await;
    println!("{report:#}");
    app.finish().await;
}
