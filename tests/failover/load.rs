//! A platform that dies under load.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aiproxy_testkit::{App, Ask, sandbox, within};
use serde_json::json;

use super::{SECOND_KEY, two_channels};
use crate::{chat, chat_stream, relay};

/// Requests of each caller.
const ROUNDS: usize = 60;
/// Callers of each kind.
const CALLERS: usize = 4;

/// What became of one request.
struct Failed {
    mark: String,
    status: u16,
    text: String,
}

/// Asks again and again; what failed before its answer began.
async fn keep_asking(
    make: impl Fn(&str) -> Ask,
    name: String,
    done: Arc<AtomicUsize>,
    until: usize,
) -> Vec<Failed> {
    let mut failed = Vec::new();
    for round in 0..until {
        let mark = format!("{name}-{round}");
        let mut answer = make(&mark).header("x-mark", &mark).send().await;
        let status = answer.status.as_u16();
        // An answer that has begun can break off.
        let text = answer.try_bytes().await.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        if status != 200 {
            failed.push(Failed { mark, status, text: text.unwrap_or_default() });
        }
        done.fetch_add(1, Ordering::SeqCst);
    }
    failed
}

fn state(name: &str) -> String {
    format!("aiproxy_breaker_state{{channel=\"a\",state=\"{name}\"}}")
}

async fn start(b: &aiproxy_testkit::Sandbox) -> App {
    relay()
        .also("b", b.addr())
        .config(two_channels)
        .config(|c| {
            c["channels"]["a"]["breaker"] =
                json!({"failures": 3, "cooldown": "1s", "max_cooldown": "1s", "min_requests": 1000});
            c["system"]["log_level"] = "info".into();
        })
        .start()
        .await
}

#[tokio::test]
async fn a_platform_that_dies_under_load_costs_nobody_a_request_that_could_be_sent_again() {
    let b = sandbox(SECOND_KEY).await;
    let app = start(&b).await;
    // An answer that has begun, to see it break off.
    let ask = app.post("/v1/chat/completions", &chat_stream("gpt-4o", "one two three")).sandbox("hold=never");
    let mut stream = ask.send().await;
    stream.piece().await.unwrap().unwrap();

    let done = Arc::new(AtomicUsize::new(0));
    let addr = app.addr();
    let mut reads = Vec::new();
    let mut posts = Vec::new();
    for caller in 0..CALLERS {
        let get = move |_: &str| Ask::new(addr, aiproxy_testkit::PROXY_KEY, "GET", "/v1/models/gpt-4o");
        reads.push(tokio::spawn(keep_asking(get, format!("get-{caller}"), Arc::clone(&done), ROUNDS)));
        let post = move |mark: &str| {
            Ask::new(addr, aiproxy_testkit::PROXY_KEY, "POST", "/v1/chat/completions")
                .json(&chat("gpt-4o", mark))
        };
        posts.push(tokio::spawn(keep_asking(post, format!("post-{caller}"), Arc::clone(&done), ROUNDS)));
    }
    within("some requests", async {
        while done.load(Ordering::SeqCst) < CALLERS * ROUNDS / 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    app.platform().unplug().await;

    for caller in reads {
        let failed = within("a caller", caller).await.unwrap();
        let failed: Vec<_> =
            failed.iter().map(|failed| (&failed.mark, failed.status, &failed.text)).collect();
        assert!(failed.is_empty(), "reading can be done twice: {failed:?}");
    }
    let seen: HashSet<String> =
        b.requests().iter().filter_map(|request| request.headers.get("x-mark").cloned()).collect();
    assert!(b.requests().len() > CALLERS, "the load went on at the other platform");
    for caller in posts {
        for failed in within("a caller", caller).await.unwrap() {
            assert_eq!(failed.status, 502, "{}: {}", failed.mark, failed.text);
            assert!(failed.text.contains("upstream_unreachable"), "{}", failed.text);
            assert!(!seen.contains(&failed.mark), "{} was sent twice", failed.mark);
        }
    }
    assert!(stream.try_bytes().await.is_err(), "what had begun ends visibly");

    app.metric_is(&state("closed"), 0.0).await;
    app.metric_is(&state("half_open"), 1.0).await;
    app.platform().plug().await;
    within("the breaker closing", async {
        while app.metric(&state("closed")).await < 1.0 {
            assert_eq!(app.get("/v1/models/gpt-4o").send().await.status, 200);
        }
    })
    .await;
    let before = app.sandbox().requests().len();
    assert_eq!(app.get("/v1/models/gpt-4o").send().await.status, 200);
    assert_eq!(app.sandbox().requests().len(), before + 1, "the first channel serves again");
    app.finish().await;
}
