//! Calls through the relay: sound and messages from end to end.

use aiproxy_testkit::{App, Caller, PROXY_KEY};
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
    println!("aiortc, set up through the relay, in ms: {}", report["times"]);
    assert_eq!(
        (&report["status"], &report["strangers"], &report["in_order"]),
        (&json!(201), &json!(0), &json!(true))
    );
    let heard = report["frequencies"][0].as_f64().unwrap();
    assert!((heard - 440.0).abs() < 5.0, "{heard} Hz");
    let [events, other] = report["channels"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!((&events["said"], &events["same"]), (&json!("one two"), &json!(true)), "{events}");
    assert_eq!(other["same_in_any_order"], true, "{other}");
    app.finish().await;
}

/// A caller who has one kind of address only.
#[tokio::test]
async fn callers_come_over_ipv4_and_over_ipv6() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        println!("skipped: this machine has no IPv6");
        return;
    }
    let both = |config: &mut Value| config["system"]["listen"]["media"] = json!(["127.0.0.1:0", "[::1]:0"]);
    let app = with(both).await;
    for own in ["127.0.0.1", "::1"] {
        let mut caller = Caller::place_from(own.parse().unwrap(), app.addr(), PATH, PROXY_KEY).await;
        assert_eq!(caller.status, 201, "{}", caller.answer);
        assert!(
            caller.answer.contains(" 127.0.0.1 ") && caller.answer.contains(" ::1 "),
            "{}",
            caller.answer
        );
        caller.connected().await;
        caller.talk(5).await;
        caller.close().await;
    }
    app.finish().await;
}

#[tokio::test]
async fn chromium_calls_the_sandbox_through_the_relay() {
    let app = relay().await;
    let url = format!("{}{PATH}", app.url());
    let report = chromium(&url, PROXY_KEY, &[]).await;
    println!("Chromium, set up through the relay, in ms: {}", report["times"]);
    assert_eq!((&report["connected"], &report["errors"]), (&json!(true), &json!([])), "{report}");
    let heard = report["frequency"].as_f64().unwrap();
    assert!((heard - 440.0).abs() < 5.0, "{heard} Hz");
    app.finish().await;
}
