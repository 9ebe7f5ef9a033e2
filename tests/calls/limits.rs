//! How many calls there may be, what no offer is, and which models may be called.

use aiproxy_testkit::{App, Ask, PROXY_KEY};
use serde_json::{Value, json};

use super::behaviours::{CALLS, all_gone, calling, hang_up, id_of, offer, offering, refusal, sounds, url};
use super::python;
use crate::relay;

const SECOND: &str = "pk_user2_4Tn8Vb3Wc6Yd1F7Qk2mZx9Lr";

/// A relay with these limits and two users.
async fn limited(change: impl FnOnce(&mut Value)) -> App {
    calling()
        .config(|c| {
            c["users"]["user2"] = json!({"name": "李四", "proxy_key": SECOND, "channels": ["main"]});
            change(c);
        })
        .start()
        .await
}

/// The offer is refused for a while.
async fn full(ask: Ask, status: u16, code: &str) {
    let mut answer = ask.send().await;
    assert!(
        answer.header("retry-after").is_some_and(|wait| wait.parse::<u32>().is_ok()),
        "{:?}",
        answer.headers
    );
    assert_eq!((answer.status.as_u16(), answer.json().await["error"]["code"].as_str()), (status, Some(code)));
}

#[tokio::test]
async fn calls_are_bounded_in_all_by_key_by_channel_and_while_they_are_set_up() {
    let limit = |name: &'static str| move |c: &mut Value| c["system"]["limits"] = json!({name: 1});
    let of_channel = |c: &mut Value| c["channels"]["main"]["realtime"] = json!({"calls": 1});
    type Bound = (&'static str, Box<dyn Fn(&mut Value)>, bool, u16, &'static str);
    let bounds: [Bound; 4] = [
        ("in all", Box::new(limit("calls")), false, 503, "overloaded"),
        ("being set up", Box::new(limit("call_setups")), false, 503, "overloaded"),
        ("of the channel", Box::new(of_channel), false, 503, "overloaded"),
        ("of the key", Box::new(limit("calls_per_key")), true, 429, "call_limit"),
    ];
    for (bound, change, other, status, code) in bounds {
        let app = limited(change).await;
        let first = offering(&app, CALLS).send().await;
        assert_eq!(first.status, 201, "{bound}");
        full(offering(&app, CALLS), status, code).await;
        if other {
            let theirs = offering(&app, CALLS).key(SECOND).send().await;
            assert_eq!(theirs.status, 201);
            let hangup = app.ask("POST", &format!("/v1/realtime/calls/{}/hangup", id_of(&theirs)));
            assert_eq!(hangup.key(SECOND).send().await.status, 200);
        } else {
            full(offering(&app, CALLS).key(SECOND), status, code).await;
        }
        let calls = app.sandbox().calls().len();
        assert_eq!(calls, if other { 2 } else { 1 }, "a refused offer reaches no platform");
        // The place is given back.
        assert_eq!(hang_up(&app, &id_of(&first)).await, 200);
        all_gone(&app).await;
        let again = offering(&app, CALLS).send().await;
        assert_eq!(again.status, 201, "{bound}");
        assert_eq!(hang_up(&app, &id_of(&again)).await, 200);
        app.finish().await;
    }
}

#[tokio::test]
async fn a_call_that_stands_is_not_being_set_up_any_more() {
    let app = limited(|c| c["system"]["limits"] = json!({"call_setups": 1})).await;
    let caller = super::behaviours::Caller::connected(&app, &[]).await;
    let second = offering(&app, CALLS).send().await;
    assert_eq!(second.status, 201);
    full(offering(&app, CALLS), 503, "overloaded").await;
    for id in [id_of(&second), caller.id.clone()] {
        assert_eq!(hang_up(&app, &id).await, 200);
    }
    caller.report().await;
    app.finish().await;
}

#[tokio::test]
async fn a_key_has_a_quarter_of_the_places_for_setting_up() {
    let app = limited(|c| c["system"]["limits"] = json!({"call_setups": 8})).await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(id_of(&offering(&app, CALLS).send().await));
    }
    full(offering(&app, CALLS), 429, "call_limit").await;
    assert_eq!(offering(&app, CALLS).key(SECOND).send().await.status, 201);
    assert_eq!(hang_up(&app, &ids[0]).await, 200);
    assert_eq!(offering(&app, CALLS).send().await.status, 201);
    app.finish().await;
}

#[tokio::test]
async fn calls_are_off_where_they_are_switched_off() {
    let app = relay().start().await;
    let (status, code, message) = refusal(offering(&app, CALLS)).await;
    assert_eq!((status, &*code), (501, "calls_off"));
    assert!(message.contains("system.listen.media"), "{message}");
    assert!(app.sandbox().requests().is_empty());
    app.finish().await;
    let app = limited(|c| c["channels"]["main"]["realtime"] = json!({"webrtc": "off"})).await;
    assert_eq!(refusal(offering(&app, CALLS)).await.1, "calls_off");
    assert!(app.sandbox().requests().is_empty());
    app.finish().await;
}

#[tokio::test]
async fn what_no_offer_is_is_refused_with_a_sentence_and_reaches_no_platform() {
    let app = calling().start().await;
    let good = offer(111);
    let sections = good.split("m=application").next().unwrap().to_owned()
        + &"m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n".repeat(20);
    let long = good.clone() + &"a=x-padding:0123456789\r\n".repeat(3000);
    let huge = good.clone() + &"a=x-padding:0123456789\r\n".repeat(20_000);
    let insecure = good
        .lines()
        .filter(|line| !line.starts_with("a=fingerprint"))
        .fold(String::new(), |all, line| all + line + "\r\n");
    let form = |inner: &str| {
        format!("--x\r\nContent-Disposition: form-data; name=\"{inner}\"\r\n\r\nv=0\r\n--x--\r\n")
    };
    for (what, kind, body, status, word) in [
        ("nothing", "application/sdp", String::new(), 400, "empty"),
        ("garbage", "application/sdp", "hello, is this the platform?".to_owned(), 400, "v=0"),
        ("half of it", "application/sdp", "v=0\r\nthis is not a line\r\n".to_owned(), 400, "line 2"),
        ("no media", "application/sdp", "v=0\r\ns=-\r\n".to_owned(), 400, "media section"),
        ("no DTLS", "application/sdp", insecure, 400, "fingerprint"),
        ("20 sections", "application/sdp", sections, 400, "media section 17"),
        ("more than 64 KiB", "application/sdp", long, 400, "65536"),
        ("more than a body may have", "application/sdp", huge, 413, "262144"),
        ("another type", "application/xml", good.clone(), 400, "application/xml"),
        ("JSON without an offer", "application/json", "{}".to_owned(), 400, "transport.sdp"),
        ("no JSON", "application/json", good.clone(), 400, "JSON"),
        ("a form without boundary", "multipart/form-data", form("sdp"), 400, "boundary"),
        ("a form without offer", "multipart/form-data; boundary=x", form("other"), 400, "'sdp'"),
        (
            "a form that ends early",
            "multipart/form-data; boundary=x",
            "--x\r\nContent-".to_owned(),
            400,
            "multipart",
        ),
    ] {
        let ask = app.ask("POST", CALLS).header("content-type", kind).body(body);
        let (got, code, message) = refusal(ask).await;
        assert_eq!(got, status, "{what}: {code} {message}");
        assert!(message.contains(word) && message.ends_with('.'), "{what}: {message}");
    }
    let compressed = offering(&app, CALLS).header("content-encoding", "gzip");
    let (status, _, message) = refusal(compressed).await;
    assert_eq!(status, 400);
    assert!(message.contains("compressed"), "{message}");
    assert!(app.sandbox().requests().is_empty());
    // Nothing is held for any of them.
    all_gone(&app).await;
    let report = python(&url(&app), PROXY_KEY, &["--seconds", "1.5"]).await;
    sounds(&report, 440.0);
    app.finish().await;
}

fn form(session: &Value) -> String {
    let part = |name: &str, text: &str| {
        format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n")
    };
    format!("{}{}--x--\r\n", part("sdp", &offer(111)), part("session", &session.to_string()))
}

#[tokio::test]
async fn models_are_limited_wherever_a_call_names_them() {
    let app = limited(|c| c["users"]["user1"]["models"] = json!(["gpt-realtime"])).await;
    let in_form = |session: Value| {
        let ask =
            app.ask("POST", "/v1/realtime/calls").header("content-type", "multipart/form-data; boundary=x");
        ask.body(form(&session))
    };
    let transcribing = json!({"input": {"transcription": {"model": "whisper-1"}}});
    for ask in [
        offering(&app, "/v1/realtime/calls?model=gpt-other"),
        offering(&app, "/v1/realtime/calls?model=gpt-realtime&model=gpt-other"),
        in_form(json!({"type": "realtime", "model": "gpt-other"})),
        in_form(json!({"type": "realtime", "model": "gpt-realtime", "audio": transcribing})),
        app.post(
            "/v1/live/sessions",
            &json!({"session": {"model": "gpt-live-1"}, "transport": {"type": "webrtc", "sdp": offer(111)}}),
        ),
    ] {
        let (status, code, message) = refusal(ask).await;
        assert_eq!((status, &*code), (403, "model_not_allowed"), "{message}");
    }
    assert!(app.sandbox().requests().is_empty());

    // In the call, an event that names another model goes no further; the others do.
    let update = |model: &str| {
        let input = json!({"transcription": {"model": model}});
        json!({"type": "session.update", "session": {"type": "realtime", "audio": {"input": input}}})
            .to_string()
    };
    let (forbidden, fine) = (update("whisper-1"), update("gpt-realtime"));
    let arguments = [
        "--channel",
        "oai-events",
        "--send",
        &forbidden,
        "--send",
        &fine,
        "--seconds",
        "1.5",
        "--messages",
        "0",
    ];
    let report = python(&url(&app), PROXY_KEY, &arguments).await;
    let channel = &report["channels"][0];
    assert_eq!(
        (&channel["errors"], &channel["same"]),
        (&json!(["model_not_allowed"]), &json!(true)),
        "{report}"
    );
    let updates =
        super::texts(&channel["events"]).iter().filter(|event| **event == "session.updated").count();
    assert_eq!(updates, 1, "{report}");
    app.finish().await;
}
