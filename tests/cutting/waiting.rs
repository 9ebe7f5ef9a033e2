//! Requests whose platform has not answered yet.

use aiproxy_testkit::{App, Ask, Gate, Hanging, PROXY_KEY, RawUpstream, until, within};
use serde_json::{Value, json};

use super::{OTHER, silent};
use crate::{chat, relay};

const DISABLE: fn(&mut Value) = |c| c["users"]["user1"]["status"] = "disabled".into();

async fn expect_refusal(app: &App, asking: tokio::task::JoinHandle<aiproxy_testkit::Answer>) {
    let mut answer = within("the refusal", asking).await.unwrap();
    assert_eq!(answer.status, 403);
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    let id = answer.header("x-aiproxy-request-id").unwrap().to_owned();
    assert_eq!(answer.json().await["error"]["code"], "user_disabled");
    let line = app.logged("the line", |line| line["request_id"] == id.as_str()).await;
    assert_eq!((&line["outcome"], &line["error"]), (&json!("refused"), &json!("user_disabled")));
    assert_eq!((&line["status"], &line["first_byte_us"]), (&json!(403), &Value::Null));
}

#[tokio::test]
async fn a_request_whose_platform_stalls_before_its_answer_gets_the_refusal() {
    let gone = Gate::new("the platform losing its peer");
    let upstream = silent(&gone).await;
    let mut app = relay().upstream(&upstream).start().await;
    let asking = tokio::spawn(app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send());
    upstream.request(0).await;
    assert!(app.change(DISABLE).await);
    expect_refusal(&app, asking).await;
    gone.passed().await;
    app.metric_is("aiproxy_live_requests", 0.0).await;
    app.finish().await;
}

#[tokio::test]
async fn every_reason_reaches_who_waits() {
    for (change, status, code) in [
        (
            (|c| drop(c["users"].as_object_mut().unwrap().remove("user1"))) as fn(&mut Value),
            401,
            "invalid_key",
        ),
        (|c| c["users"]["user1"]["expires_at"] = "2020-01-01".into(), 403, "key_expired"),
        (|c| c["channels"]["main"]["status"] = "disabled".into(), 503, "channel_unavailable"),
        (|c| c["users"]["user1"]["channels"] = json!([]), 403, "channel_not_allowed"),
    ] {
        let gone = Gate::new("the platform losing its peer");
        let upstream = silent(&gone).await;
        let mut app = relay().upstream(&upstream).start().await;
        let asking = tokio::spawn(app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send());
        upstream.request(0).await;
        assert!(app.change(change).await);
        let mut answer = within("the refusal", asking).await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.json().await["error"]["code"].clone()),
            (status, json!(code))
        );
        gone.passed().await;
        app.finish().await;
    }
}

#[tokio::test]
async fn a_request_whose_connection_hangs_gets_the_refusal_and_nothing_through() {
    let hanging = Hanging::start().await;
    let mut app = relay()
        .config(|c| c["channels"]["main"]["base_url"] = format!("http://{}", hanging.addr()).into())
        .start()
        .await;
    let asking = tokio::spawn(app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send());
    until("the relay dialling", || hanging.is_knocked_at().then_some(())).await;
    assert!(app.change(DISABLE).await);
    expect_refusal(&app, asking).await;
    until("the relay giving up", || (!hanging.is_knocked_at()).then_some(())).await;
    let taken = hanging.taken().await;
    assert!(taken.iter().all(aiproxy_testkit::Bytes::is_empty), "{taken:?}");
    app.finish().await;
}

#[tokio::test]
async fn a_connection_that_nobody_accepts_is_closed_with_the_refusal() {
    // The system shakes hands by itself; nobody reads.
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mut app = relay()
        .config(|c| {
            c["channels"]["main"]["base_url"] = format!("http://{}", listener.local_addr().unwrap()).into();
        })
        .start()
        .await;
    let asking = tokio::spawn(app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send());
    app.metric_is("aiproxy_live_requests", 1.0).await;
    assert!(app.change(DISABLE).await);
    expect_refusal(&app, asking).await;
    let (mut stream, _) = within("the relay's connection", listener.accept()).await.unwrap();
    let mut sent = Vec::new();
    // Its end comes with it: the relay holds it no longer.
    let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut sent);
    let _ = within("the end of the connection", read).await;
    app.finish().await;
}

/// Users `user1` and `other` at channel `main`, `spare` behind it for `user1`.
async fn with_spare(upstream: &RawUpstream, spare: &RawUpstream) -> App {
    relay()
        .upstream(upstream)
        .also("spare", spare.addr())
        .config(|c| {
            c["channels"]["spare"] =
                json!({"platform": "custom", "api_key": "sk-spare/+=6Tg2Hy9Nb4Mj", "base_url": "@spare"});
            c["users"]["user1"]["channels"] = json!(["main", "spare"]);
            c["users"]["other"] = json!({"proxy_key": OTHER, "channels": ["main", "spare"]});
        })
        .start()
        .await
}

/// Begins a request whose body, which names the model, is still to come.
async fn begun(app: &App, path: &str) -> (aiproxy_testkit::Raw, &'static str) {
    const BODY: &str = "{\"model\":\"gpt-4o\",\"messages\":[]}";
    let (beginning, rest) = BODY.split_at(5);
    let mut raw = app.raw().await;
    raw.send(format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {PROXY_KEY}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{beginning}",
        BODY.len()
    ))
    .await;
    (raw, rest)
}

/// Waits until the relay has taken up what `begun` sent: a request on the same thread after it
/// has been answered.
async fn taken_up(app: &App) {
    assert_eq!(app.get("/v1/things").key(OTHER).send().await.status, 200);
}

#[tokio::test]
async fn who_is_disabled_while_the_body_is_read_ahead_reaches_no_platform() {
    let (upstream, spare) = (RawUpstream::recording().await, RawUpstream::recording().await);
    let mut app = with_spare(&upstream, &spare).await;
    let (mut raw, rest) = begun(&app, "/v1/chat/completions").await;
    taken_up(&app).await;
    assert!(app.change(DISABLE).await);
    raw.send(rest).await;
    let answer = raw.answer().await;
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("user_disabled"), "{}", answer.text());
    assert_eq!((upstream.received().len(), spare.received().len()), (1, 0));
    app.finish().await;
}

#[tokio::test]
async fn a_channel_withdrawn_while_the_body_is_read_ahead_gets_nothing() {
    for (what, change) in [
        ("disabled", (|c| c["channels"]["main"]["status"] = "disabled".into()) as fn(&mut Value)),
        ("taken away", |c| c["users"]["user1"]["channels"] = json!(["spare"])),
    ] {
        for (path, expected) in [("/v1/chat/completions", 200), ("/@main/v1/chat/completions", 0)] {
            let (upstream, spare) = (RawUpstream::recording().await, RawUpstream::recording().await);
            let mut app = with_spare(&upstream, &spare).await;
            let (mut raw, rest) = begun(&app, path).await;
            taken_up(&app).await;
            assert!(app.change(change).await);
            raw.send(rest).await;
            let answer = raw.answer().await;
            assert_eq!(upstream.received().len(), 1, "{what}, {path}: only the other user's");
            match expected {
                200 => assert_eq!((answer.status, spare.received().len()), (200, 1), "{what}, {path}"),
                _ => assert!([403, 503].contains(&answer.status), "{what}, {path}: {}", answer.text()),
            }
            app.finish().await;
        }
    }
}

#[tokio::test]
async fn a_channel_withdrawn_while_another_is_tried_gets_nothing() {
    for change in [(|c| c["channels"]["spare"]["status"] = "disabled".into()) as fn(&mut Value), |c| {
        c["users"]["user1"]["channels"] = json!(["main"]);
    }] {
        let gate = Gate::new("the first platform's refusal");
        let opens = gate.clone();
        let upstream = RawUpstream::start(move |mut conn| {
            let gate = opens.clone();
            async move {
                while conn.request().await.is_some() {
                    gate.passed().await;
                    conn.send("HTTP/1.1 503 No\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n").await;
                }
            }
        })
        .await;
        let spare = RawUpstream::recording().await;
        let mut app = with_spare(&upstream, &spare).await;
        let asking = tokio::spawn(Ask::send(app.post("/v1/chat/completions", &chat("gpt-4o", "hi"))));
        upstream.request(0).await;
        assert!(app.change(change).await);
        gate.open();
        let answer = within("the answer", asking).await.unwrap();
        assert!(spare.received().is_empty(), "the channel is no longer there to be used");
        assert!([403, 503].contains(&answer.status.as_u16()), "{}", answer.status);
        app.finish().await;
    }
}
