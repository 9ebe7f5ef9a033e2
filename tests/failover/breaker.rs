//! A channel that keeps failing is left alone for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aiproxy_testkit::{App, Gate, RawUpstream, within};
use serde_json::{Value, json};

use super::{answer, pair, platform, well};
use crate::{chat, relay};

/// The sample that is 1 while the breaker of `a` is in this state.
fn state(name: &str) -> String {
    format!("aiproxy_breaker_state{{channel=\"a\",state=\"{name}\"}}")
}

/// A platform that works only while the switch is on.
async fn switched(works: &Arc<AtomicBool>) -> RawUpstream {
    let works = Arc::clone(works);
    RawUpstream::start(move |mut conn| {
        let works = Arc::clone(&works);
        async move {
            while conn.request().await.is_some() {
                let status = if works.load(Ordering::SeqCst) { "200 OK" } else { "500 Oops" };
                conn.send(answer(status, "", "{\"from\":\"a\"}")).await;
            }
        }
    })
    .await
}

fn eager(c: &mut Value) {
    c["channels"]["a"]["retry"] = json!({"on": [500]});
    c["channels"]["a"]["breaker"] = json!({"failures": 3, "cooldown": "1s", "max_cooldown": "1s"});
}

async fn served_by(app: &App) -> String {
    let mut answer = app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).send().await;
    assert_eq!(answer.status, 200);
    answer.json().await["from"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_breaker_opens_half_opens_and_closes_as_the_metrics_show() {
    let works = Arc::new(AtomicBool::new(false));
    let (a, b) = (switched(&works).await, well().await);
    let app = pair(&a, &b, eager).await;
    assert_eq!(app.metric(&state("closed")).await, 1.0);
    for _ in 0..3 {
        assert_eq!(served_by(&app).await, "b");
    }
    assert_eq!(app.metric(&state("open")).await, 1.0);
    assert_eq!(app.metric(&state("closed")).await, 0.0);
    let ready = app.admin("/readyz").await.json().await;
    assert_eq!(ready["details"]["channels"][0]["breaker"], "open");
    assert_eq!((&ready["ready"], &ready["reasons"]), (&json!(true), &json!([])));

    // A probe that fails opens it again.
    app.metric_is(&state("half_open"), 1.0).await;
    let before = a.received().len();
    assert_eq!(served_by(&app).await, "b");
    assert_eq!(a.received().len(), before + 1);
    assert_eq!(app.metric(&state("open")).await, 1.0);

    // One that succeeds closes it.
    app.metric_is(&state("half_open"), 1.0).await;
    works.store(true, Ordering::SeqCst);
    assert_eq!(served_by(&app).await, "a");
    assert_eq!(app.metric(&state("closed")).await, 1.0);
    assert_eq!(served_by(&app).await, "a");
    app.finish().await;
}

#[tokio::test]
async fn nothing_goes_through_an_open_breaker() {
    let works = Arc::new(AtomicBool::new(false));
    let (a, b) = (switched(&works).await, well().await);
    let app = pair(&a, &b, |c| {
        eager(c);
        c["channels"]["a"]["breaker"]["cooldown"] = "60s".into();
        c["channels"]["a"]["breaker"]["max_cooldown"] = "60s".into();
    })
    .await;
    for _ in 0..10 {
        assert_eq!(served_by(&app).await, "b");
    }
    assert_eq!(a.received().len(), 3);
    // Not by its name either.
    let mut named = app.get("/@a/v1/things").send().await;
    assert_eq!(named.status, 503);
    assert!(named.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
    assert_eq!(named.json().await["error"]["code"], "channel_unavailable");
    assert_eq!(a.received().len(), 3);
    app.finish().await;
}

#[tokio::test]
async fn when_every_breaker_is_open_the_caller_hears_when_to_come_back() {
    let (a, b) = (platform("500 Oops", "", "{}").await, platform("500 Oops", "", "{}").await);
    let app = pair(&a, &b, |c| {
        for id in ["a", "b"] {
            c["channels"][id]["retry"] = json!({"on": [500]});
            c["channels"][id]["breaker"] = json!({"failures": 2, "cooldown": "60s"});
        }
    })
    .await;
    for _ in 0..2 {
        assert_eq!(app.get("/v1/things").send().await.status, 500);
    }
    for path in ["/v1/things", "/v1/models"] {
        let mut refused = app.get(path).send().await;
        assert_eq!(refused.status, 503, "{path}");
        assert!(refused.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1, "{path}");
        assert_eq!(refused.header("x-should-retry"), None, "{path}");
        assert_eq!(refused.json().await["error"]["code"], "channel_unavailable", "{path}");
    }
    assert_eq!((a.received().len(), b.received().len()), (2, 2));
    app.finish().await;
}

#[tokio::test]
async fn nothing_that_a_caller_asks_for_opens_it() {
    let number = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&number);
    let a = RawUpstream::start(move |mut conn| {
        let number = Arc::clone(&counted);
        async move {
            while conn.request().await.is_some() {
                let statuses = ["400 No", "403 No", "404 No", "409 No", "413 No", "422 No", "429 No"];
                let status = statuses[number.fetch_add(1, Ordering::SeqCst) % statuses.len()];
                conn.send(answer(status, "retry-after: 0\r\n", "{}")).await;
            }
        }
    })
    .await;
    let app = relay()
        .upstream(&a)
        .config(|c| c["channels"]["main"]["breaker"] = json!({"failures": 2, "min_requests": 2}))
        .start()
        .await;
    for _ in 0..30 {
        assert!(app.get("/v1/things").send().await.status.is_client_error());
    }
    assert_eq!(a.received().len(), 30);
    assert_eq!(app.metric("aiproxy_breaker_state{channel=\"main\",state=\"closed\"}").await, 1.0);
    app.finish().await;
}

/// Fails until its breaker must be open, then holds what comes until the gate opens.
async fn holding(fails: usize, gate: &Gate) -> RawUpstream {
    let (gate, number) = (gate.clone(), Arc::new(AtomicUsize::new(0)));
    RawUpstream::start(move |mut conn| {
        let (gate, number) = (gate.clone(), Arc::clone(&number));
        async move {
            while conn.request().await.is_some() {
                if number.fetch_add(1, Ordering::SeqCst) < fails {
                    conn.send(answer("500 Oops", "", "{}")).await;
                    continue;
                }
                gate.passed().await;
                conn.send(answer("200 OK", "", "{\"from\":\"a\"}")).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn one_probe_at_a_time_and_the_others_go_to_the_next_channel() {
    // However few channels the first one lets be tried: a channel that is left alone is not tried.
    for attempts in [3, 1] {
        let gate = Gate::new("the probe");
        let (a, b) = (holding(3, &gate).await, well().await);
        let app = pair(&a, &b, |c| {
            eager(c);
            c["channels"]["a"]["retry"]["attempts"] = attempts.into();
        })
        .await;
        for _ in 0..3 {
            app.get("/v1/things").send().await;
        }
        app.metric_is(&state("half_open"), 1.0).await;
        let probe = tokio::spawn(app.get("/v1/probe").send());
        a.request(3).await;
        for _ in 0..5 {
            assert_eq!(served_by(&app).await, "b", "{attempts} attempts");
        }
        assert_eq!(a.received().len(), 4);
        assert_eq!(app.metric(&state("half_open")).await, 1.0);
        gate.open();
        assert_eq!(within("the probe", probe).await.unwrap().json().await["from"], "a");
        assert_eq!(app.metric(&state("closed")).await, 1.0);
        assert_eq!(served_by(&app).await, "a");
        app.finish().await;
    }
}

#[tokio::test]
async fn a_probe_whose_caller_leaves_gives_way_to_the_next() {
    let gate = Gate::new("the next probe");
    let (a, b) = (holding(3, &gate).await, well().await);
    let app = pair(&a, &b, eager).await;
    for _ in 0..3 {
        app.get("/v1/things").send().await;
    }
    app.metric_is(&state("half_open"), 1.0).await;
    let probe = tokio::spawn(app.get("/v1/probe").send());
    a.request(3).await;
    probe.abort();
    app.logged("the probe's line", |line| line["outcome"] == "caller_left").await;
    gate.open();
    assert_eq!(served_by(&app).await, "a");
    assert_eq!(app.metric(&state("closed")).await, 1.0);
    app.finish().await;
}

#[tokio::test]
async fn answers_that_break_off_count_as_failures() {
    let a = RawUpstream::start(|mut conn| async move {
        conn.request().await;
        conn.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
    })
    .await;
    let b = well().await;
    let app = pair(&a, &b, |c| {
        c["channels"]["a"]["breaker"] = json!({"failures": 3, "min_requests": 4, "cooldown": "60s"});
    })
    .await;
    // Each is an answer and then a failure: half of all, which is the rate.
    for _ in 0..4 {
        let _ = app.get("/v1/things").send().await.try_bytes().await;
    }
    assert_eq!(app.metric(&state("open")).await, 1.0);
    assert_eq!(served_by(&app).await, "b");
    app.finish().await;
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_of_a_channel() {
    let works = Arc::new(AtomicBool::new(false));
    let (a, b) = (switched(&works).await, well().await);
    let mut app = pair(&a, &b, |c| {
        eager(c);
        c["channels"]["a"]["breaker"]["cooldown"] = "60s".into();
        c["channels"]["a"]["breaker"]["max_cooldown"] = "60s".into();
    })
    .await;
    for _ in 0..3 {
        assert_eq!(served_by(&app).await, "b");
    }
    assert!(app.change(|c| c["users"]["user1"]["name"] = "李四".into()).await);
    assert_eq!(app.metric(&state("open")).await, 1.0);
    assert_eq!(served_by(&app).await, "b");
    assert_eq!(a.received().len(), 3);
    app.finish().await;
}

#[tokio::test]
async fn neither_an_odd_method_nor_an_upload_that_stalls_opens_it() {
    let platform = RawUpstream::start(|mut conn| async move {
        let Some(head) = conn.head().await else { return };
        if conn.body_of(head).await.is_some() {
            conn.send(answer("501 Not Implemented", "", "{}")).await;
        }
    })
    .await;
    let app = relay()
        .config(|c| {
            c["channels"]["main"]["breaker"] = json!({"failures": 2});
            c["channels"]["main"]["timeouts"] = json!({"idle": "200ms"});
        })
        .upstream(&platform)
        .start()
        .await;
    for _ in 0..4 {
        assert_eq!(app.ask("FOO", "/v1/a").send().await.status, 501);
    }
    for _ in 0..4 {
        let (ask, upload) = app.ask("POST", "/v1/a").header("content-type", "text/plain").upload();
        let sending = tokio::spawn(ask.try_send());
        upload.send("x").await;
        within("the relay giving the caller up", sending).await.unwrap().ok();
    }
    app.metric_is("aiproxy_breaker_state{channel=\"main\",state=\"closed\"}", 1.0).await;
    app.finish().await;
}
