//! Requests in the very moment of a change.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use aiproxy_testkit::{Ask, Client, PROXY_KEY, RawUpstream, within};
use serde_json::{Value, json};

use crate::relay;

/// How often access is taken away and given back.
const TURNS: usize = 15;
/// Callers who ask all the time.
const CALLERS: usize = 6;

/// What callers have seen of one turn: even while access is given, odd once it is taken away.
struct Seen {
    turn: AtomicU64,
    /// The last turn in which somebody was refused.
    refused: AtomicU64,
    /// Of the present turn.
    count: AtomicU64,
    served: AtomicU64,
    done: AtomicBool,
    /// Marks of requests that were sent, from the first byte to the last, while access was known to
    /// be taken away: no platform may have heard of them.
    withheld: Mutex<HashSet<String>>,
}

/// Asks until the end. Once anybody was refused in a turn, nobody who asks afterwards is served.
async fn keep_asking(addr: std::net::SocketAddr, path: &'static str, seen: Arc<Seen>, caller: usize) {
    let mut client = Client::connect(addr).await;
    for number in 0.. {
        if seen.done.load(Ordering::SeqCst) {
            break;
        }
        let mark = format!("{caller}-{number}");
        let turn = seen.turn.load(Ordering::SeqCst);
        let refused = seen.refused.load(Ordering::SeqCst) == turn;
        let ask = Ask::new(addr, PROXY_KEY, "POST", path).header("x-mark", &mark).body("x");
        let Ok(mut answer) = client.try_send(ask).await else {
            // Cut before a byte of the answer was on its way.
            client = Client::connect(addr).await;
            continue;
        };
        let status = answer.status;
        let whole = answer.try_bytes().await.is_ok();
        if client.is_closed() {
            client = Client::connect(addr).await;
        }
        let same = turn == seen.turn.load(Ordering::SeqCst);
        if refused && same && turn % 2 == 1 {
            seen.withheld.lock().unwrap().insert(mark);
        }
        if status == 200 && whole {
            seen.served.fetch_add(1, Ordering::SeqCst);
            assert!(!(refused && same && turn % 2 == 1), "served after the refusal had been seen");
        } else if status != 200 && same && turn % 2 == 1 {
            seen.refused.fetch_max(turn, Ordering::SeqCst);
            seen.count.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn toggle(path: &'static str, take: fn(&mut Value), give: fn(&mut Value)) {
    let upstream = RawUpstream::recording().await;
    let mut app =
        relay().upstream(&upstream).config(|c| c["system"]["log_level"] = "info".into()).start().await;
    let seen = Arc::new(Seen {
        turn: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        count: AtomicU64::new(0),
        served: AtomicU64::new(0),
        done: AtomicBool::new(false),
        withheld: Mutex::default(),
    });
    let asking: Vec<_> = (0..CALLERS)
        .map(|caller| tokio::spawn(keep_asking(app.addr(), path, Arc::clone(&seen), caller)))
        .collect();
    for _ in 0..TURNS {
        let served = seen.served.load(Ordering::SeqCst);
        seen.count.store(0, Ordering::SeqCst);
        seen.turn.fetch_add(1, Ordering::SeqCst);
        assert!(app.change(take).await);
        at_least(&seen.count, CALLERS as u64 * 6).await;
        seen.turn.fetch_add(1, Ordering::SeqCst);
        assert!(app.change(give).await);
        at_least(&seen.served, served + CALLERS as u64 * 3).await;
    }
    seen.done.store(true, Ordering::SeqCst);
    for caller in asking {
        within("a caller", caller).await.expect("nobody is served after a refusal");
    }
    let withheld = std::mem::take(&mut *seen.withheld.lock().unwrap());
    assert!(withheld.len() > TURNS, "{}", withheld.len());
    for request in upstream.received() {
        let mark = request.header("x-mark").unwrap();
        assert!(!withheld.contains(&mark), "a platform heard of {mark}, sent after a refusal had been seen");
    }
    app.finish().await;
}

async fn at_least(count: &AtomicU64, least: u64) {
    within("enough requests", async {
        while count.load(Ordering::SeqCst) < least {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn nobody_is_served_once_the_users_refusal_was_seen() {
    let take = |c: &mut Value| c["users"]["user1"]["status"] = "disabled".into();
    toggle("/v1/things", take, |c| c["users"]["user1"]["status"] = "active".into()).await;
}

#[tokio::test]
async fn nobody_is_served_once_the_keys_refusal_was_seen() {
    let take = |c: &mut Value| c["users"]["user1"]["proxy_key"] = super::FRESH.into();
    toggle("/v1/things", take, |c| c["users"]["user1"]["proxy_key"] = PROXY_KEY.into()).await;
}

#[tokio::test]
async fn nobody_is_served_once_the_channels_refusal_was_seen() {
    let take = |c: &mut Value| c["users"]["user1"]["channels"] = json!([]);
    toggle("/@main/v1/things", take, |c| c["users"]["user1"]["channels"] = json!(["main"])).await;
}
