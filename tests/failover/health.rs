//! Channels that are asked how they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aiproxy_testkit::{App, CHANNEL_KEY, RawUpstream};
use serde_json::{Value, json};

use super::{answer, pair, well};
use crate::{chat, relay};

const UNHEALTHY: &str = "aiproxy_channel_unhealthy{channel=\"a\"}";

/// A platform that serves always, and whose health is a switch: the status of unhealth is given.
async fn ailing(healthy: &Arc<AtomicBool>, status: &'static str) -> RawUpstream {
    let healthy = Arc::clone(healthy);
    RawUpstream::start(move |mut conn| {
        let healthy = Arc::clone(&healthy);
        async move {
            while let Some(request) = conn.request().await {
                if request.target() != "/health?deep=1" {
                    conn.send(answer("200 OK", "", "{\"from\":\"a\"}")).await;
                } else if healthy.load(Ordering::SeqCst) {
                    conn.send(answer("404 Nothing", "", "{}")).await;
                } else if status.is_empty() {
                    return conn.reset();
                } else {
                    conn.send(answer(status, "", "{}")).await;
                }
            }
        }
    })
    .await
}

fn checked(c: &mut Value) {
    c["channels"]["a"]["health"] = json!({"path": "/health?deep=1", "interval": "1s", "threshold": 2});
}

async fn served_by(app: &App) -> String {
    let mut answer = app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send().await;
    assert_eq!(answer.status, 200);
    answer.json().await["from"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_channel_whose_check_fails_is_a_last_resort_until_it_succeeds() {
    for status in ["500 Oops", "401 Who", ""] {
        let healthy = Arc::new(AtomicBool::new(true));
        let (a, b) = (ailing(&healthy, status).await, well().await);
        let app = pair(&a, &b, checked).await;
        let check = a.request(0).await;
        assert_eq!((check.head.word(0), check.target()), ("GET", "/health?deep=1"));
        assert_eq!(check.header("authorization"), Some(format!("Bearer {CHANNEL_KEY}")));
        assert_eq!(served_by(&app).await, "a", "any answer below 500 but 401 is healthy");

        healthy.store(false, Ordering::SeqCst);
        app.metric_is(UNHEALTHY, 1.0).await;
        assert_eq!(served_by(&app).await, "b");
        let ready = app.admin("/readyz").await.json().await;
        assert_eq!(
            (&ready["ready"], &ready["details"]["channels"][0]["unhealthy"]),
            (&json!(true), &json!(true))
        );
        assert_eq!(app.metric("aiproxy_breaker_state{channel=\"a\",state=\"closed\"}").await, 1.0);
        // A last resort is still one.
        assert_eq!(app.get("/@a/v1/things").send().await.json().await["from"], "a");

        healthy.store(true, Ordering::SeqCst);
        app.metric_is(UNHEALTHY, 0.0).await;
        assert_eq!(served_by(&app).await, "a");
        app.finish().await;
    }
}

#[tokio::test]
async fn checks_are_nobodys_requests() {
    let healthy = Arc::new(AtomicBool::new(false));
    let a = ailing(&healthy, "500 Oops").await;
    let app = relay()
        .upstream(&a)
        .config(|c| {
            c["channels"]["main"]["health"] =
                json!({"path": "/health?deep=1", "interval": "1s", "threshold": 1});
        })
        .start()
        .await;
    app.metric_is("aiproxy_channel_unhealthy{channel=\"main\"}", 1.0).await;
    assert_eq!(app.process().stdout(), "");
    assert_eq!(app.metric("aiproxy_live_requests").await, 0.0);
    app.finish().await;
}

#[tokio::test]
async fn a_check_that_is_taken_out_of_the_configuration_condemns_nobody_any_more() {
    let healthy = Arc::new(AtomicBool::new(false));
    let (a, b) = (ailing(&healthy, "500 Oops").await, well().await);
    let mut app = pair(&a, &b, checked).await;
    app.metric_is(UNHEALTHY, 1.0).await;
    assert_eq!(served_by(&app).await, "b");
    assert!(app.change(|c| drop(c["channels"]["a"].as_object_mut().unwrap().remove("health"))).await);
    app.metric_is(UNHEALTHY, 0.0).await;
    assert_eq!(served_by(&app).await, "a");
    app.finish().await;
}
