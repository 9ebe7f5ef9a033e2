//! Calls of pages in Chromium.

use aiproxy_testkit::{PROXY_KEY, RawUpstream};
use serde_json::json;

use super::super::{chromium, python, texts, told};
use super::{CALLS, all_gone, calling, ended, url};
use crate::sdk;

/// A page at an origin of its own.
async fn page() -> (RawUpstream, String) {
    let text = "<!doctype html><title>call</title>";
    let head = format!("content-type: text/html\r\ncontent-length: {}", text.len());
    let server = RawUpstream::answering(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{text}")).await;
    let origin = format!("http://{}", server.addr());
    (server, origin)
}

#[tokio::test]
async fn b15_pages_of_allowed_origins_may_call_and_see_where_the_call_is() {
    let (_allowed_server, allowed) = page().await;
    let (_other_server, other) = page().await;
    let app = calling().config(|c| c["system"]["cors"] = json!({"origins": [allowed]})).start().await;
    let preflight = app
        .ask("OPTIONS", CALLS)
        .no_key()
        .header("origin", &allowed)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type,x-openai-agents-sdk");
    let answer = preflight.send().await;
    let headers = answer.header("access-control-allow-headers").unwrap().to_ascii_lowercase();
    assert!(
        ["authorization", "content-type", "x-openai-agents-sdk"].iter().all(|name| headers.contains(name))
    );

    let from = ["--page", &allowed, "--header", "X-OpenAI-Agents-SDK: 1", "--seconds", "1", "--channel", "a"];
    let report = chromium(&url(&app), PROXY_KEY, &[&from[..], &["--end", "hangup"]].concat()).await;
    assert_eq!((&report["connected"], &report["errors"]), (&json!(true), &json!([])), "{report}");
    assert!(report["location"].as_str().unwrap().starts_with("/v1/realtime/calls/rtc_aiproxy_"), "{report}");
    assert_eq!((&report["hangup"], &report["channels"][0]["same"]), (&json!(200), &json!(true)), "{report}");
    ended(app.sandbox()).await;

    let mut script = sdk::node("call.mjs");
    script.arg(url(&app)).args(["--key", PROXY_KEY, "--page", &other]);
    let report = told(script, &[1]).await;
    assert!(report["error"].as_str().unwrap().contains("Failed to fetch"), "{report}");
    assert_eq!(app.sandbox().calls().len(), 1);
    all_gone(&app).await;
    app.finish().await;
}

#[tokio::test]
async fn b17_a_page_that_hides_its_addresses_and_one_that_tells_none_connect() {
    let app = calling().start().await;
    for (arguments, hidden) in [(&["--mdns"][..], true), (&["--mdns", "--early"], false)] {
        let report =
            chromium(&url(&app), PROXY_KEY, &[arguments, &["--seconds", "1.5", "--channel", "a"]].concat())
                .await;
        assert_eq!((&report["connected"], &report["errors"]), (&json!(true), &json!([])), "{report}");
        let candidates = texts(&report["candidates"]);
        assert_eq!(!candidates.is_empty(), hidden, "{report}");
        assert!(candidates.iter().all(|line| line.contains(".local ")), "{report}");
        let heard = report["frequency"].as_f64().unwrap();
        assert!((heard - 440.0).abs() < 5.0, "{heard} Hz");
        assert_eq!(report["channels"][0]["same"], true, "{report}");
    }
    app.finish().await;
}

#[tokio::test]
async fn b21_a_camera_is_refused_and_the_call_goes_on_with_sound() {
    let app = calling().start().await;
    let arguments = ["--video", "--sdp", "--seconds", "2", "--channel", "a"];
    let report = chromium(&url(&app), PROXY_KEY, &arguments).await;
    assert_eq!((&report["connected"], &report["errors"]), (&json!(true), &json!([])), "{report}");
    let lines = |sdp: &str| {
        let media = sdp.lines().filter_map(|line| line.strip_prefix("m="));
        media.map(|line| line.split(' ').take(2).map(str::to_owned).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let (offer, answer) =
        (lines(report["offer"].as_str().unwrap()), lines(report["answer"].as_str().unwrap()));
    assert_eq!(offer.len(), answer.len());
    for (wanted, given) in offer.iter().zip(&answer) {
        assert_eq!(wanted[0], given[0], "in the same order");
        assert_eq!(given[1] == "0", given[0] == "video", "{answer:?}");
    }
    let heard = report["frequency"].as_f64().unwrap();
    assert!((heard - 440.0).abs() < 5.0, "{heard} Hz");
    assert_eq!(report["directions"], json!([["audio", "sendrecv"]]), "{report}");
    assert_eq!(report["channels"][0]["same"], true, "{report}");
    let call = ended(app.sandbox()).await;
    assert!(call.packets_in > 50);
    app.finish().await;

    // Nothing else is offered: there is no call then.
    let app = calling().start().await;
    let video =
        super::offer(111).replace("m=audio", "m=video").split("m=application").next().unwrap().to_owned();
    let refused = super::refusal(super::offering(&app, CALLS).body(video)).await;
    assert_eq!((refused.0, &*refused.1), (400, "bad_request"), "{refused:?}");
    assert!(app.sandbox().requests().is_empty());
    let report = python(&url(&app), PROXY_KEY, &["--seconds", "1.5"]).await;
    super::sounds(&report, 440.0);
    app.finish().await;
}
