//! Data channels and messages.

use aiproxy_testkit::{App, CHANNEL_KEY, PROXY_KEY};
use serde_json::{Value, json};

use super::super::{Upstream, chromium, python, texts};
use super::{calling, url};

/// A relay in front of a platform on aiortc.
async fn before(upstream: &Upstream, change: impl FnOnce(&mut Value)) -> App {
    let addr = upstream.addr;
    let lead = |c: &mut Value| {
        c["channels"]["main"]["base_url"] = "@aiortc".into();
        change(c);
    };
    calling().also("aiortc", addr).config(lead).start().await
}

#[tokio::test]
async fn b22_channels_arrive_as_they_were_opened_and_messages_as_they_were_sent() {
    let upstream = Upstream::start(CHANNEL_KEY, &[]).await;
    let app = before(&upstream, |_| ()).await;
    let channels = [
        "--channel",
        "oai-events",
        "--channel",
        "b,protocol=json",
        "--channel",
        "c,ordered=0",
        "--channel",
        "d,ordered=0,maxRetransmits=3",
        "--messages",
        "20",
        "--seconds",
        "0.5",
        "--echoes",
        "20",
    ];
    let report = python(&url(&app), PROXY_KEY, &channels).await;
    let stat = upstream.stat().await;
    let call = &stat["calls"][0];
    let mut there: Vec<_> = call["channels"].as_array().unwrap().iter().collect();
    there.sort_by_key(|channel| channel["label"].as_str());
    let told: Vec<_> = there.iter().map(|it| (&it["label"], &it["protocol"], &it["ordered"])).collect();
    let expected = [("b", "json", true), ("c", "", false), ("d", "", false), ("oai-events", "", true)]
        .map(|(label, protocol, ordered)| (json!(label), json!(protocol), json!(ordered)));
    assert_eq!(told, expected.iter().map(|(a, b, c)| (a, b, c)).collect::<Vec<_>>());
    // How often to try again is not told to who is called by the library that relays: such channels
    // arrive as reliable ones, which lose nothing.
    assert!(there.iter().all(|channel| channel["maxRetransmits"].is_null()), "{there:?}");
    for channel in report["channels"].as_array().unwrap() {
        let same = if channel["ordered"] == true { "same" } else { "same_in_any_order" };
        assert_eq!((&channel[same], &channel["received"]), (&json!(true), &json!(20)), "{channel}");
        let kinds = call["messages"].as_array().unwrap().iter().filter(|it| it[0] == channel["label"]);
        let kinds: Vec<_> = kinds.map(|it| it[2].as_bool().unwrap()).collect();
        assert_eq!(kinds.iter().filter(|text| **text).count(), 10, "half of them texts");
    }
    app.finish().await;

    // A label that is not in ASCII, which aiortc cannot read.
    let app = calling().start().await;
    let report =
        chromium(&url(&app), PROXY_KEY, &["--channel", "事件,protocol=格式,ordered=0", "--seconds", "2"])
            .await;
    assert_eq!(super::ended(app.sandbox()).await.channels, [("事件".to_owned(), "格式".to_owned(), false)]);
    assert_eq!(
        (&report["connected"], &report["channels"][0]["received"]),
        (&json!(true), &json!(10)),
        "{report}"
    );
    app.finish().await;
}

#[tokio::test]
async fn b23_a_channel_that_the_platform_opens_is_there_for_the_caller() {
    let upstream = Upstream::start(CHANNEL_KEY, &["--opens", "txt"]).await;
    let app = before(&upstream, |_| ()).await;
    let report = python(
        &url(&app),
        PROXY_KEY,
        &["--channel", "mine", "--seconds", "1", "--echoes", "20", "--greetings", "1"],
    )
    .await;
    let txt = &report["opened_there"][0];
    assert_eq!(
        (&txt["label"], &txt["ordered"], &txt["sent"]),
        (&json!("txt"), &json!(true), &json!(10)),
        "{report}"
    );
    let texts = texts(&txt["texts"]);
    assert_eq!((texts[0], texts[1], &txt["received"]), ("hello from upstream", "txt 0 你好", &json!(11)));
    assert_eq!(report["channels"][0]["same"], true);
    app.finish().await;

    // Aliyun's platform speaks its events there.
    let app = calling().start().await;
    let target = format!("{}/api/v1/webrtc/realtime?model=qwen3-omni", app.url());
    let report = python(
        &target,
        PROXY_KEY,
        &["--channel", "mine", "--say", "one two", "--seconds", "1", "--echoes", "20"],
    )
    .await;
    let txt = &report["opened_there"][0];
    assert_eq!(
        (&txt["label"], &txt["said"], &txt["same"]),
        (&json!("txt"), &json!("one two"), &json!(true)),
        "{report}"
    );
    app.finish().await;
}

#[tokio::test]
async fn b24_messages_that_come_early_wait_in_their_order() {
    // The platform speaks as soon as its end is open, the caller too, and the other ends are not yet.
    let upstream = Upstream::start(CHANNEL_KEY, &["--opens", "txt", "--greetings", "100"]).await;
    let app = before(&upstream, |_| ()).await;
    let arguments =
        ["--channel", "mine", "--messages", "100", "--seconds", "1", "--echoes", "20", "--greetings", "100"];
    let report = python(&url(&app), PROXY_KEY, &arguments).await;
    let mine = &report["channels"][0];
    assert_eq!((&mine["sent"], &mine["same"]), (&json!(100), &json!(true)), "{report}");
    let txt = &report["opened_there"][0];
    let greetings: Vec<String> = (0..100)
        .map(|i| if i == 0 { "hello from upstream".to_owned() } else { format!("hello from upstream {i}") })
        .chain((0..100).step_by(2).map(|i| format!("txt {i} 你好")))
        .collect();
    assert_eq!(texts(&txt["texts"]), greetings);
    app.finish().await;
}

#[tokio::test]
async fn b25_large_messages_pass_and_sizes_are_told_to_both_sides() {
    let app = calling().start().await;
    let large = ["--channel", "a", "--big", "204800", "--big", "229376", "--sdp"];
    let patient =
        python(&url(&app), PROXY_KEY, &[&large[..], &["--seconds", "1", "--echoes", "30"]].concat()).await;
    let page = chromium(&url(&app), PROXY_KEY, &[&large[..], &["--seconds", "5"]].concat()).await;
    for report in [patient, page] {
        let channel = &report["channels"][0];
        assert_eq!((&channel["sent"], &channel["same"]), (&json!(12), &json!(true)), "{channel}");
        let answer = report["answer"].as_str().unwrap();
        assert!(answer.contains("a=max-message-size:229376\r\n"), "{answer}");
    }
    assert!(app.sandbox().calls()[0].offer.contains("a=max-message-size:229376\r\n"));
    app.finish().await;
}

/// Callers that heed what they were told throw when they are to send more. Of one who does not, the library
/// that relays drops the message unseen.
#[tokio::test]
async fn b25_a_message_beyond_what_was_told_goes_no_further_and_the_call_goes_on() {
    let app =
        calling().config(|c| c["channels"]["main"]["realtime"] = json!({"message": "64KiB"})).start().await;
    let large = ["--channel", "a", "--big", "65536", "--oversize", "90000", "--seconds", "1", "--sdp"];
    let report = python(&url(&app), PROXY_KEY, &[&large[..], &["--echoes", "20"]].concat()).await;
    let channel = &report["channels"][0];
    assert_eq!((&channel["sent"], &channel["same"]), (&json!(11), &json!(true)), "{channel}");
    // The caller is told why.
    assert_eq!(channel["errors"], json!(["message_too_large"]), "{channel}");
    assert_eq!((&channel["closed"], &report["state"]), (&json!(false), &json!("connected")), "{channel}");
    super::sounds(&report, 440.0);
    assert!(report["answer"].as_str().unwrap().contains("a=max-message-size:65536\r\n"));
    let call = super::ended(app.sandbox()).await;
    assert!(call.offer.contains("a=max-message-size:65536\r\n"));
    assert!(call.message_bytes < 70_000, "{} bytes at the platform", call.message_bytes);
    app.finish().await;
}
