//! SIGTERM: nobody who is served notices, and nobody new is served.

use aiproxy_testkit::{Answer, App, BOUND, PROXY_KEY, Raw, until, within};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::{chat_stream, relay};

fn drain(value: Value) -> impl FnOnce(&mut Value) {
    move |c| c["system"]["drain"] = value
}

async fn open_stream(app: &App) -> Answer {
    let ask = app.post("/v1/chat/completions", &chat_stream("gpt-4o", "one two three")).sandbox("hold=end");
    let mut stream = ask.send().await;
    stream.piece().await.unwrap().unwrap();
    stream
}

/// Sends SIGTERM and waits until the relay has taken it up.
async fn terminate(app: &App) {
    app.process().signal("TERM");
    app.process().said("the end beginning", |line| line.contains("finishing requests").then_some(())).await;
}

async fn refuses_connections(app: &App) {
    within("the listener closing", async {
        while TcpStream::connect(app.relay_addr()).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn ended_well(app: &App) {
    let status = app.process().ended_within(BOUND).await.expect("an end");
    assert_eq!(status.code(), Some(0));
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {PROXY_KEY}\r\n\r\n")
}

#[tokio::test]
async fn everybody_in_flight_is_served_to_the_end() {
    let app = relay().start().await;
    let mut streams = Vec::new();
    for _ in 0..50 {
        streams.push(open_stream(&app).await);
    }
    terminate(&app).await;
    refuses_connections(&app).await;
    assert_eq!(app.admin("/healthz").await.status, 200, "it lives");
    let ready = app.admin("/readyz").await.json().await;
    assert_eq!((&ready["reasons"], &ready["details"]["live_requests"]), (&json!(["draining"]), &json!(50)));
    app.sandbox().release("end");
    for stream in &mut streams {
        assert!(stream.text().await.ends_with("data: [DONE]\n\n"));
    }
    ended_well(&app).await;
    assert_eq!(
        app.process().stdout().matches("\"outcome\":\"complete\"").count(),
        50,
        "every line is written"
    );
    app.finish().await;
}

#[tokio::test]
async fn during_the_delay_everything_is_served_and_everybody_is_told() {
    let app = relay().config(drain(json!({"delay": "3s"}))).start().await;
    let (mut first, mut second) = (app.raw().await, app.raw().await);
    for raw in [&mut first, &mut second] {
        raw.send(request("/v1/models/gpt-4o")).await;
        let answer = raw.answer().await;
        assert_eq!((answer.status, answer.head.get("connection")), (200, None));
    }
    assert_eq!(app.admin("/readyz").await.status, 200);
    terminate(&app).await;
    until_draining(&app).await;
    let mut ready = app.admin("/readyz").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json().await["reasons"], json!(["draining"]));
    assert_eq!(app.admin("/healthz").await.status, 200);
    // On connections that were there, refusals too, and then they are closed.
    for (raw, path, status) in
        [(&mut first, "/v1/models/gpt-4o", 200), (&mut second, "/@none/v1/models", 403)]
    {
        raw.send(request(path)).await;
        let answer = raw.answer().await;
        assert_eq!(
            (answer.status, answer.head.get("connection").as_deref()),
            (status, Some("close")),
            "{path}"
        );
        assert_eq!(raw.rest().await, "");
    }
    // On new ones, since load balancers have not noticed yet.
    let mut raw = Raw::connect(app.relay_addr()).await;
    raw.send(request("/v1/models/gpt-4o")).await;
    let answer = raw.answer().await;
    assert_eq!((answer.status, answer.head.get("connection").as_deref()), (200, Some("close")));
    refuses_connections(&app).await;
    ended_well(&app).await;
    app.finish().await;
}

async fn until_draining(app: &App) {
    within("/readyz failing", async { while app.admin("/readyz").await.status != 503 {} }).await;
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    for (settings, signals) in [
        (json!({"delay": "60s", "timeout": "60s"}), ["TERM", "TERM"]),
        (json!({"delay": "60s", "timeout": "60s"}), ["INT", "TERM"]),
        (json!({"timeout": "60s"}), ["TERM", "INT"]),
    ] {
        let app = relay().config(drain(settings)).start().await;
        let mut stream = open_stream(&app).await;
        app.process().signal(signals[0]);
        app.process()
            .said("the end beginning", |line| line.contains("finishing requests").then_some(()))
            .await;
        app.process().signal(signals[1]);
        ended_well(&app).await;
        assert!(stream.try_bytes().await.is_err());
        app.finish().await;
    }
}

#[tokio::test]
async fn what_is_left_after_the_timeout_is_cut() {
    let app = relay().config(drain(json!({"timeout": "1s"}))).start().await;
    let mut stream = open_stream(&app).await;
    let mut idle = app.raw().await;
    idle.send(request("/v1/models/gpt-4o")).await;
    assert_eq!(idle.answer().await.status, 200);
    terminate(&app).await;
    assert_eq!(idle.rest().await, "", "who is idle is let go first");
    assert!(stream.try_bytes().await.is_err(), "it is not a clean end");
    ended_well(&app).await;
    app.process().said("why", |line| line.contains("the drain time is over").then_some(())).await;
    let log = app.process().stdout();
    assert_eq!(log.lines().count(), 2, "{log}");
    app.finish().await;
}

#[tokio::test]
async fn without_anybody_it_ends_as_soon_as_the_delay_is_over() {
    let app = relay().config(drain(json!({"timeout": "1h"}))).start().await;
    let mut idle = app.raw().await;
    idle.send(request("/v1/models/gpt-4o")).await;
    idle.answer().await;
    // Nothing was ever asked here.
    let mut fresh = app.raw().await;
    terminate(&app).await;
    assert_eq!((idle.rest().await, fresh.rest().await), (Default::default(), Default::default()));
    ended_well(&app).await;
    app.finish().await;
}

#[tokio::test]
async fn access_can_be_taken_away_meanwhile() {
    for settings in [json!({"delay": "60s"}), json!({"timeout": "60s"})] {
        let mut app = relay().config(drain(settings)).start().await;
        let mut stream = open_stream(&app).await;
        terminate(&app).await;
        until_draining(&app).await;
        app.reconfigure(|c| c["users"]["user1"]["status"] = "disabled".into());
        assert!(stream.try_bytes().await.is_err());
        let line = app.logged("the line", |line| line["outcome"] == "cut").await;
        assert_eq!(line["error"], "user_disabled");
        // A second signal spares the test the delay.
        app.process().signal("TERM");
        ended_well(&app).await;
        app.finish().await;
    }
}

#[tokio::test]
async fn a_reload_sets_the_times() {
    let mut app = relay().config(drain(json!({"timeout": "1h"}))).start().await;
    let mut stream = open_stream(&app).await;
    assert!(app.change(drain(json!({"timeout": "1s"}))).await);
    terminate(&app).await;
    assert!(stream.try_bytes().await.is_err());
    ended_well(&app).await;
    app.finish().await;
}

#[tokio::test]
async fn the_last_answer_of_a_caller_who_is_still_sending_is_read_in_peace() {
    let app = relay().start().await;
    let (ask, upload) = app.ask("POST", "/v1/embeddings").header("content-type", "application/json").upload();
    let sending = tokio::spawn(ask.send());
    assert!(upload.send("{\"model\":\"text-embedding-3-small\",").await);
    until("the request being read", || (app.callers().upward() > 100).then_some(())).await;
    app.metric_is("aiproxy_connections", 1.0).await;
    terminate(&app).await;
    until_draining(&app).await;
    assert!(upload.send("\"input\":\"hello\"}").await);
    drop(upload);
    let answer = within("the answer", sending).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), Some("close"));
    drop(answer);
    ended_well(&app).await;
    app.finish().await;
}
