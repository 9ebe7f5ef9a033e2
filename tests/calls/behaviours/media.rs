//! Sound: candidates, payload types, payloads.

use aiproxy_testkit::{App, CHANNEL_KEY, PROXY_KEY};
use serde_json::{Value, json};

use super::super::{Upstream, chromium, python, texts};
use super::{
    CALLS, Caller, all_gone, calling, ended, hang_up, id_of, offer, offering, platform_hangs_up, sounds, url,
};

/// A relay in front of a platform on aiortc.
async fn before(upstream: &Upstream) -> App {
    let addr = upstream.addr;
    calling()
        .also("aiortc", addr)
        .config(|c| c["channels"]["main"]["base_url"] = "@aiortc".into())
        .start()
        .await
}

fn candidates(sdp: &str) -> Vec<(String, String)> {
    let lines = sdp.lines().filter_map(|line| line.strip_prefix("a=candidate:"));
    let place = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!((words[2].to_ascii_lowercase().as_str(), words[7]), ("udp", "host"), "{line}");
        (words[4].to_owned(), words[5].to_owned())
    };
    let mut found: Vec<_> = lines.map(place).collect();
    found.dedup();
    found
}

#[tokio::test]
async fn b17_an_offer_without_candidates_connects() {
    let app = calling().start().await;
    let arguments = ["--strip-candidates", "--sdp", "--seconds", "1.5", "--channel", "a", "--echoes", "20"];
    let report = python(&url(&app), PROXY_KEY, &arguments).await;
    assert!(!report["offer"].as_str().unwrap().contains("a=candidate"));
    sounds(&report, 440.0);
    assert_eq!(report["channels"][0]["same"], true, "{report}");
    app.finish().await;
}

#[tokio::test]
async fn b18_all_callers_are_told_one_port_and_the_configured_address() {
    let told = |address: &'static str| {
        move |c: &mut Value| {
            c["system"]["listen"]["media"] = "0.0.0.0:0".into();
            c["system"]["public_ip"] = address.into();
        }
    };
    let app = calling().config(told("127.0.0.1")).start().await;
    let callers = [Caller::connected(&app, &["--sdp"]).await, Caller::connected(&app, &["--sdp"]).await];
    let calls = app.sandbox().calls();
    assert!(calls.iter().all(|call| call.state == "connected"), "both at once");
    let mut places = Vec::new();
    for caller in callers {
        assert_eq!(hang_up(&app, &caller.id).await, 200);
        let report = caller.report().await;
        let [place] = &*candidates(report["answer"].as_str().unwrap()) else { panic!("{report}") };
        places.push(place.clone());
    }
    assert_eq!(places[0], places[1]);
    assert_eq!(places[0].0, "127.0.0.1");
    // Towards platforms, each call has a port of its own.
    let upwards: Vec<_> = calls.iter().flat_map(|call| candidates(&call.offer)).collect();
    assert_eq!(upwards.len(), 2);
    assert!(upwards[0] != upwards[1] && upwards.iter().all(|it| it.0 == "127.0.0.1" && it.1 != places[0].1));
    all_gone(&app).await;
    app.finish().await;

    // Nobody is there, but that is what they are told.
    let app = calling().config(told("203.0.113.7")).start().await;
    let mut answer = offering(&app, CALLS).send().await;
    let sdp = answer.text().await;
    assert!(
        candidates(&sdp).iter().all(|place| place.0 == "203.0.113.7") && sdp.contains("a=candidate"),
        "{sdp}"
    );
    assert_eq!(candidates(&app.sandbox().calls()[0].offer)[0].0, "203.0.113.7");
    assert_eq!(hang_up(&app, &id_of(&answer)).await, 200);
    app.finish().await;
}

/// The one call that a platform on aiortc saw.
async fn stat(upstream: &Upstream) -> Value {
    let stat = upstream.stat().await;
    stat["calls"].as_array().unwrap().last().expect("a call").clone()
}

#[tokio::test]
async fn b19_payload_types_are_each_sides_own() {
    // aiortc's own 96 and Firefox's 109, at a platform that calls Opus 120.
    let upstream = Upstream::start(CHANNEL_KEY, &["--number", "120"]).await;
    let app = before(&upstream).await;
    for number in [96, 109] {
        let arguments = ["--number", &number.to_string(), "--seconds", "1.5", "--sdp"];
        let report = python(&url(&app), PROXY_KEY, &arguments).await;
        sounds(&report, 440.0);
        assert_eq!(report["payload_types"], json!([number]), "{report}");
        assert!(report["answer"].as_str().unwrap().contains(&format!("a=rtpmap:{number} opus/48000/2")));
        assert_eq!(stat(&upstream).await["payload_types"], json!([120]));
    }
    app.finish().await;
    // Chromium's 111.
    let upstream = Upstream::start(CHANNEL_KEY, &["--number", "100"]).await;
    let app = before(&upstream).await;
    let report = chromium(&url(&app), PROXY_KEY, &["--seconds", "2", "--sdp"]).await;
    assert_eq!(
        (&report["connected"], &report["in_audio"]["codec"]),
        (&json!(true), &json!("audio/opus")),
        "{report}"
    );
    let heard = report["frequency"].as_f64().unwrap();
    assert!((heard - 440.0).abs() < 5.0, "{heard} Hz");
    let call = stat(&upstream).await;
    assert_eq!(call["payload_types"], json!([100]));
    // What Opus was asked to do is asked of the platform as well.
    for (sdp, number) in [(&report["offer"], 111), (&call["offer"], 111)] {
        let line = format!("a=fmtp:{number} minptime=10;useinbandfec=1\r\n");
        assert!(sdp.as_str().unwrap().contains(&line), "{sdp}");
    }
    app.finish().await;
}

#[tokio::test]
async fn b19_parameters_of_opus_are_kept_and_other_formats_do_as_well() {
    let app = calling().start().await;
    let mut answer = offering(&app, CALLS).body(offer(109)).send().await;
    let sdp = answer.text().await;
    let line = "a=fmtp:109 minptime=10;useinbandfec=1";
    assert!(sdp.contains("a=rtpmap:109 opus/48000/2") && sdp.contains(line), "{sdp}");
    assert!(app.sandbox().calls()[0].offer.contains(line));
    assert_eq!(hang_up(&app, &id_of(&answer)).await, 200);
    for codecs in [&["PCMU", "PCMA"][..], &["PCMA"]] {
        let mut arguments = vec!["--seconds", "1.5", "--sdp"];
        arguments.extend(codecs.iter().flat_map(|codec| ["--codec", codec]));
        let report = python(&url(&app), PROXY_KEY, &arguments).await;
        assert!(!report["offer"].as_str().unwrap().contains("opus"));
        sounds(&report, 440.0);
        let number = if codecs[0] == "PCMU" { 0 } else { 8 };
        assert_eq!(report["payload_types"], json!([number]));
    }
    app.finish().await;
}

#[tokio::test]
async fn b20_payloads_are_equal_from_end_to_end_and_streams_consistent() {
    let app = calling().start().await;
    let arguments = ["--tracks", "2", "--seconds", "2", "--channel", "a", "--echoes", "20"];
    let report = python(&url(&app), PROXY_KEY, &arguments).await;
    sounds(&report, 440.0);
    let second = report["frequencies"][1].as_f64().unwrap();
    assert!((second - 550.0).abs() < 5.0, "{second} Hz");
    // One SSRC a track, and numbers and times as they were sent.
    assert_eq!((&report["streams"], &report["shifts"]), (&json!(2), &json!([[0, 0], [0, 0]])));
    assert_eq!(report["channels"][0]["same"], true);
    let seen = ended(app.sandbox()).await;
    let sent = texts(&report["sent"]);
    let heard: Vec<String> = seen.payloads.iter().map(|payload| format!("{payload:016x}")).collect();
    assert!(heard.len() > 60 && heard.iter().all(|payload| sent.contains(&payload.as_str())));
    app.finish().await;

    let upstream = Upstream::start(CHANNEL_KEY, &[]).await;
    let app = before(&upstream).await;
    let report = python(&url(&app), PROXY_KEY, &["--seconds", "2", "--channel", "a"]).await;
    sounds(&report, 440.0);
    assert_eq!(
        (&report["streams"], &report["shifts"], &report["in_order"]),
        (&json!(1), &json!([[0, 0]]), &json!(true))
    );
    let call = stat(&upstream).await;
    let sent = texts(&report["sent"]);
    assert!(texts(&call["received"]).len() > 60);
    assert!(texts(&call["received"]).iter().all(|payload| sent.contains(payload)));
    app.finish().await;
}

#[tokio::test]
async fn b20_a_caller_who_only_listens_or_has_no_sound_is_served_too() {
    let app = calling().start().await;
    let report = python(
        &url(&app),
        PROXY_KEY,
        &["--tracks", "0", "--channel", "a", "--seconds", "0.5", "--echoes", "20"],
    )
    .await;
    assert_eq!((&report["channels"][0]["same"], &report["sent"]), (&json!(true), &json!([])), "{report}");
    let caller = Caller::place(&url(&app), PROXY_KEY, &["--end", "stay", "--seconds", "0.5"]).await;
    aiproxy_testkit::until("sound", || app.sandbox().calls().pop().filter(|call| call.packets_in > 9)).await;
    platform_hangs_up(app.sandbox()).await;
    let report = caller.report().await;
    assert_eq!(
        (&report["state"], &report["never_ended"]),
        (&json!("closed"), &Value::Null),
        "no data channels"
    );
    app.finish().await;
}
