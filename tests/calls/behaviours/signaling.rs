//! Offers in all their shapes, answers, models, and who is asked how often.

use aiproxy_testkit::{PROXY_KEY, RawUpstream, refusing};
use serde_json::{Value, json};

use super::{CALLS, calling, ended, hang_up, id_of, offer, offering, refusal};

const BOUNDARY: &str = "----aiproxy-test";

/// A form of these parts: name, further lines of its head, content.
fn form(parts: &[(&str, &str, &str)]) -> String {
    let mut body = String::new();
    for (name, lines, content) in parts {
        body += &format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{lines}\r\n\r\n{content}\r\n"
        );
    }
    body + &format!("--{BOUNDARY}--\r\n")
}

#[tokio::test]
async fn b13_offers_come_raw_as_a_form_in_any_order_or_as_live_json() {
    let app = calling().start().await;
    let session =
        json!({"type": "realtime", "model": "gpt-realtime", "instructions": "Be brief."}).to_string();
    let sdp = offer(111);
    let multipart = format!("multipart/form-data; boundary={BOUNDARY}");
    let plain = form(&[("sdp", "", &sdp), ("session", "", &session)]);
    let reversed = form(&[
        ("session", "\r\nContent-Type: application/json", &session),
        ("sdp", "\r\nContent-Type: application/sdp", &sdp),
    ]);
    let named = form(&[
        ("sdp", "; filename=\"blob\"\r\nContent-Type: application/octet-stream", &sdp),
        ("session", "; filename=\"session.json\"", &session),
    ]);
    let calls = "/v1/realtime/calls";
    for (target, kind, body, sent_to) in [
        (CALLS, "application/sdp", &sdp, calls),
        (calls, &multipart, &plain, calls),
        (calls, &multipart, &reversed, calls),
        (calls, &multipart, &named, calls),
        ("/v1/realtime?model=gpt-realtime", "application/sdp", &sdp, "/v1/realtime"),
        (
            "/openai/v1/realtime/calls?model=gpt-realtime",
            "application/sdp; charset=utf-8",
            &sdp,
            "/openai/v1/realtime/calls",
        ),
        ("/api/v1/webrtc/realtime?model=gpt-realtime", "application/sdp", &sdp, "/api/v1/webrtc/realtime"),
    ] {
        let mut answer = app.ask("POST", target).header("content-type", kind).body(body.clone()).send().await;
        let text = answer.text().await;
        assert!(
            answer.status.is_success() && text.starts_with("v=0"),
            "{target} {kind}: {} {text}",
            answer.status
        );
        let call = app.sandbox().calls().pop().unwrap();
        assert_eq!((&*call.path, &*call.model), (sent_to, "gpt-realtime"), "{target} {kind}");
        assert!(!call.offer.contains("9hJ2mQ4rT6vX8zB1dF3gK5nP"), "the offer is ours");
        assert_eq!(hang_up(&app, &id_of(&answer)).await, 200);
        // Aliyun names no call that could be hung up: it notices that nobody is there.
        if !sent_to.starts_with("/api/") {
            assert_eq!(ended(app.sandbox()).await.ended, Some("hangup"), "{target}");
        }
    }

    let body = json!({"session": {"model": "gpt-live-1"}, "transport": {"type": "webrtc", "sdp": sdp}});
    let mut answer = app.post("/v1/live/sessions", &body).send().await;
    let told: Value = answer.json().await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(told["transport"]["sdp"].as_str().unwrap().starts_with("v=0"), "{told}");
    assert_eq!(told["session"]["id"], *id_of(&answer));
    assert_eq!(app.sandbox().calls().pop().unwrap().model, "gpt-live-1");
    assert_eq!(hang_up(&app, &id_of(&answer)).await, 200);
    app.finish().await;
}

#[tokio::test]
async fn b14_the_answer_is_a_201_with_a_relative_location_and_an_id_of_ours() {
    let app = calling().start().await;
    for path in ["/v1/realtime/calls", "/openai/v1/realtime/calls", "/v1/realtime"] {
        let mut answer = offering(&app, &format!("{path}?model=gpt-realtime")).send().await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (201, Some("application/sdp")));
        let id = id_of(&answer);
        let base = if path.ends_with("calls") { path } else { "/v1/realtime/calls" };
        assert_eq!(answer.header("location"), Some(&*format!("{base}/{id}")));
        let call = app.sandbox().calls().pop().unwrap();
        let body = answer.text().await;
        let all = format!("{:?}{body}", answer.headers);
        assert!(!all.contains(&call.id), "{all}");
        for secret in
            call.answer.lines().filter(|line| line.starts_with("a=ice-") || line.starts_with("a=fingerprint"))
        {
            assert!(secret.starts_with("a=ice-options") || !all.contains(secret), "{secret}");
        }
        assert_eq!(hang_up(&app, &id).await, 200);
    }
    app.finish().await;
}

#[tokio::test]
async fn b16_the_model_is_the_secrets_else_the_sessions_else_the_querys_else_the_channels() {
    let mut app = calling().config(|c| c["channels"]["main"]["platform"] = "openai".into()).start().await;
    let (status, code, message) = refusal(offering(&app, "/v1/realtime/calls")).await;
    assert_eq!((status, &*code), (400, "bad_request"));
    assert!(message.contains("model"), "{message}");
    assert!(app.sandbox().requests().is_empty());

    app.reconfigure(|c| c["channels"]["main"]["default_model"] = "gpt-usual".into());
    assert!(app.reload().await);
    let session =
        form(&[("session", "", r#"{"type":"realtime","model":"gpt-session"}"#), ("sdp", "", &offer(111))]);
    let multipart = format!("multipart/form-data; boundary={BOUNDARY}");
    let in_session =
        |target: &str| app.ask("POST", target).header("content-type", &multipart).body(session.clone());
    let mint = json!({"session": {"type": "realtime", "model": "gpt-secret", "instructions": "Be brief."}});
    let secret = app.post("/v1/realtime/client_secrets", &mint).send().await.json().await;
    let secret = secret["value"].as_str().unwrap().to_owned();
    app.hide_from_platform("the client secret", &secret);
    for (ask, model) in [
        (offering(&app, "/v1/realtime/calls"), "gpt-usual"),
        (offering(&app, "/v1/realtime/calls?model=gpt-query"), "gpt-query"),
        (offering(&app, "/v1/realtime?model=gpt-query"), "gpt-query"),
        (offering(&app, "/v1/realtime"), "gpt-usual"),
        (in_session("/v1/realtime/calls?model=gpt-query"), "gpt-session"),
        (in_session("/v1/realtime/calls"), "gpt-session"),
        (offering(&app, "/v1/realtime/calls").key(&secret), "gpt-secret"),
        (offering(&app, "/v1/realtime/calls?model=gpt-secret").key(&secret), "gpt-secret"),
    ] {
        let answer = ask.send().await;
        assert_eq!(answer.status, 201, "{model}");
        assert_eq!(app.sandbox().calls().pop().unwrap().model, model);
        assert_eq!(hang_up(&app, &id_of(&answer)).await, 200);
    }
    app.finish().await;
}

#[tokio::test]
async fn b28_client_secrets_begin_calls_as_often_as_they_like_and_nothing_else() {
    let app = calling().start().await;
    let mint = json!({"session": {"type": "realtime", "model": "gpt-realtime"}});
    let minted = app.post("/v1/realtime/client_secrets", &mint).send().await.json().await;
    let secret = minted["value"].as_str().unwrap();
    assert!(secret.starts_with("ek_"));
    app.hide_from_platform("the client secret", secret);
    let (status, code, _) = refusal(offering(&app, "/v1/realtime/calls?model=gpt-other").key(secret)).await;
    assert_eq!((status, &*code), (403, "secret_model"));
    let (first, second) = (
        offering(&app, "/v1/realtime/calls").key(secret).send().await,
        offering(&app, "/v1/realtime/calls").key(secret).send().await,
    );
    for answer in [&first, &second] {
        let id = id_of(answer);
        // Whoever holds another secret of the same user would reach the call as well.
        let hangup = app.ask("POST", &format!("/v1/realtime/calls/{id}/hangup")).key(secret);
        let (status, code, _) = refusal(hangup).await;
        assert_eq!((status, &*code), (403, "secret_scope"));
        let sideband = app.socket(&format!("/v1/realtime?call_id={id}")).key(secret);
        assert_eq!(sideband.refusal().await, (403, "secret_scope".to_owned()));
        assert_eq!(hang_up(&app, &id).await, 200);
    }
    // One that was minted for a single session.
    let single =
        json!({"session": {"type": "realtime", "model": "gpt-realtime"}, "aiproxy": {"single_use": true}});
    let minted = app.post("/v1/realtime/client_secrets", &single).send().await.json().await;
    let once = minted["value"].as_str().unwrap();
    app.hide_from_platform("the secret for one session", once);
    let answer = offering(&app, "/v1/realtime/calls").key(once).send().await;
    assert_eq!((answer.status.as_u16(), hang_up(&app, &id_of(&answer)).await), (201, 200));
    let (status, code, _) = refusal(offering(&app, "/v1/realtime/calls").key(once)).await;
    assert_eq!((status, &*code), (403, "secret_used"));
    assert_eq!(app.sandbox().calls().len(), 3);
    app.finish().await;
}

#[tokio::test]
async fn b30_an_offer_that_was_sent_is_never_sent_again() {
    // It takes the offer and goes.
    let dropping = RawUpstream::start(|mut conn| async move {
        conn.request().await;
    })
    .await;
    let second = |c: &mut Value| {
        c["channels"]["second"] = c["channels"]["main"].clone();
        c["users"]["user1"]["channels"] = json!(["main", "second"]);
    };
    let app = calling().upstream(&dropping).config(second).start().await;
    for target in [CALLS, "/v1/realtime?model=gpt-realtime"] {
        let before = dropping.received().len();
        let (status, code, _) = refusal(offering(&app, target)).await;
        assert_eq!((status, &*code), (502, "upstream_unreachable"), "{target}");
        assert_eq!(dropping.received().len(), before + 1, "{target}");
    }
    let live = json!({"session": {"model": "m"}, "transport": {"type": "webrtc", "sdp": offer(111)}});
    assert_eq!(refusal(app.post("/v1/live/sessions", &live)).await.0, 502);
    assert_eq!(dropping.received().len(), 3);
    app.finish().await;

    // Refused with a status that others are asked after: it may have been counted.
    let busy = RawUpstream::answering("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await;
    let app = calling().upstream(&busy).config(second).start().await;
    assert_eq!(offering(&app, CALLS).send().await.status, 503);
    assert_eq!(busy.received().len(), 1);
    app.finish().await;

    // Nobody heard it: another may be asked.
    let (nobody, _socket) = refusing();
    let app = calling()
        .config(|c| {
            c["channels"]["second"] = c["channels"]["main"].clone();
            c["channels"]["main"]["base_url"] = format!("http://{nobody}").into();
            c["users"]["user1"]["channels"] = json!(["main", "second"]);
        })
        .start()
        .await;
    let answer = offering(&app, CALLS).key(PROXY_KEY).send().await;
    assert_eq!((answer.status.as_u16(), app.sandbox().calls().len()), (201, 1));
    assert_eq!(hang_up(&app, &id_of(&answer)).await, 200);
    let line = app.logged("the line", |line| line["protocol"] == "webrtc").await;
    assert_eq!(line["channel"], "second", "{line}");
    app.finish().await;
}
