//! Many calls, one after the other and at a time.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use aiproxy_testkit::{App, Caller, PROXY_KEY, until};
use serde_json::json;

use super::relayed::with;
use crate::sockets::many::soaking;

const PATH: &str = "/v1/realtime/calls?model=gpt-realtime";

async fn place(app: &App, count: usize) -> Vec<Caller> {
    let placing = (0..count).map(|_| Caller::place(app.addr(), PATH, PROXY_KEY));
    let mut callers = futures_util::future::join_all(placing).await;
    let done = Cell::new(0);
    let connecting = callers.iter_mut().map(|caller| async {
        assert_eq!(caller.status, 201, "{}", caller.answer);
        caller.connected().await;
        caller.talk(5).await;
        done.set(done.get() + 1);
        // A caller who is silent for long is taken to have left.
        while done.get() < count {
            caller.pass(Duration::from_millis(50)).await;
        }
    });
    futures_util::future::join_all(connecting).await;
    callers
}

fn descriptors(app: &App) -> usize {
    let path = format!("/proc/{}/fd", app.process().pid());
    std::fs::read_dir(Path::new(&path)).unwrap().count()
}

async fn nothing_left(app: &App) {
    for metric in ["aiproxy_calls", "aiproxy_call_setups", "aiproxy_calls_relayed", "aiproxy_media_addresses"]
    {
        app.metric_is(metric, 0.0).await;
    }
    app.metric_is("aiproxy_live_requests", 0.0).await;
}

/// `AIPROXY_SOAK=1` (`make soak`) opens a thousand calls.
#[tokio::test]
async fn calls_leave_nothing_behind() {
    let batches = if soaking() { 40 } else { 7 };
    let app = with(|config| config["system"]["limits"] = json!({"call_setups": 200})).await;
    let mut after = Vec::new();
    let mut before = 0;
    for batch in 0..batches {
        let callers = place(&app, 25).await;
        app.metric_is("aiproxy_calls_relayed", 25.0).await;
        for mut caller in callers {
            caller.close().await;
        }
        nothing_left(&app).await;
        // What threads and pools keep comes with the first batch.
        let open = descriptors(&app);
        match batch {
            0 => before = open,
            _ => assert!(
                open <= before + 4,
                "{before} descriptors after the first batch, {open} after another"
            ),
        }
        after.push(app.process().resident_bytes());
    }
    // The allocator gives pages back when it likes; what is kept shows in the least that was seen.
    let least = |batches: &[u64]| batches.iter().copied().min().unwrap_or_default();
    let (early, late) = after[1..].split_at((after.len() - 1) / 2);
    let (early, late) = (least(early), least(late));
    let grown = 100.0 * (late as f64 - early as f64) / early as f64;
    println!(
        "{} calls, 25 at a time: from the second batch on at least {} KiB in the first half and {} KiB in the second ({grown:+.1} %), {before} descriptors after the first batch, {} after the last",
        25 * batches,
        early / 1024,
        late / 1024,
        descriptors(&app)
    );
    println!("KiB after each batch: {:?}", after.iter().map(|bytes| bytes / 1024).collect::<Vec<_>>());
    // A few batches say little.
    let most = if soaking() { 5.0 } else { 25.0 };
    assert!(grown <= most, "{after:?}");
    app.finish().await;
}

#[tokio::test]
async fn reloads_leave_calls_alone_and_revocation_ends_them() {
    let reloads = if soaking() { 100 } else { 10 };
    let mut app = with(|config| {
        config["users"]["user2"] =
            json!({"name": "李四", "proxy_key": "pk_user2_0123456789abcdef", "channels": ["main"]});
    })
    .await;
    let mut stays = Caller::place(app.addr(), PATH, "pk_user2_0123456789abcdef").await;
    let mut goes = Caller::place(app.addr(), PATH, PROXY_KEY).await;
    stays.connected().await;
    goes.connected().await;
    for number in 0..reloads {
        assert!(
            app.change(|config| config["users"]["user1"]["name"] = format!("用户 {number}").into()).await
        );
        stays.talk(2).await;
        goes.talk(2).await;
    }
    println!("2 calls stood {reloads} reloads");
    assert!(app.change(|config| config["users"]["user1"]["status"] = "disabled".into()).await);
    goes.ended().await;
    stays.talk(5).await;
    app.metric_is("aiproxy_calls", 1.0).await;
    let seen = until("the platform's end of the call", || {
        app.sandbox().calls().into_iter().find(|call| call.state == "ended")
    });
    // The platform is told over HTTP, and by the connection's end.
    assert!(matches!(seen.await.ended, Some("hangup" | "peer")));
    stays.close().await;
    nothing_left(&app).await;
    app.finish().await;
}
