//! The process is killed under load, again and again: nothing that a caller saw complete is missing
//! from the access log, and nothing is in it twice.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aiproxy_testkit::{Ask, Client, PROXY_KEY};
use serde_json::json;

use super::lines;
use crate::{chat, chat_stream, relay};

const ROUNDS: u64 = 20;

type Ids = Arc<Mutex<Vec<String>>>;

/// Asks until the relay is gone; notes the ids of answers that came whole.
async fn keep_asking(addr: SocketAddr, complete: Ids, kind: usize) {
    let mut client = Client::connect(addr).await;
    loop {
        let ask = Ask::new(addr, PROXY_KEY, "POST", "/v1/chat/completions");
        let ask = match kind {
            0 => ask.json(&chat("gpt-4o", "hello")),
            1 => ask.json(&chat_stream("gpt-4o", "one two three")),
            // Refused by the relay itself.
            2 => ask.key("pk_nobody_000000").json(&chat("gpt-4o", "hello")),
            // An answer of unknown length that nothing is taken out of.
            _ => Ask::new(addr, PROXY_KEY, "POST", "/v1/messages")
                .header("anthropic-version", "2023-06-01")
                .json(&json!({"model": "claude-sandbox", "max_tokens": 9, "stream": true,
                              "messages": [{"role": "user", "content": "hi"}]})),
        };
        let Ok(mut answer) = client.try_send(ask).await else { return };
        let id = answer.header("x-aiproxy-request-id").unwrap().to_owned();
        if answer.try_bytes().await.is_err() {
            return;
        }
        complete.lock().unwrap().push(id);
    }
}

#[tokio::test]
async fn every_request_seen_complete_is_in_the_access_log_exactly_once() {
    let mut app = relay()
        .config(|c| {
            c["system"]["log"]["access"] = "access.log".into();
            c["system"]["log"]["rotate"] = json!({"bytes": "64KiB"});
            c["system"]["log_level"] = "info".into();
            c["system"]["journal"] = json!({"segment_bytes": "128KiB"});
        })
        .start()
        .await;
    let complete = Ids::default();
    for round in 0..ROUNDS {
        let callers: Vec<_> = (0..8)
            .map(|caller| tokio::spawn(keep_asking(app.addr(), Arc::clone(&complete), caller % 4)))
            .collect();
        // Some are killed at once, some after checkpoints and rotations.
        tokio::time::sleep(Duration::from_millis(50 + round * 97 % 1300)).await;
        app.restart_after("KILL").await;
        for caller in callers {
            caller.await.unwrap();
        }
    }
    // What the last process left is written when the next one has started.
    app.restart_after("TERM").await;
    let mut counts: HashMap<String, u32> = HashMap::new();
    for line in lines(app.dir()) {
        *counts.entry(line["request_id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let complete = std::mem::take(&mut *complete.lock().unwrap());
    let lost: Vec<_> = complete.iter().filter(|id| !counts.contains_key(*id)).collect();
    assert!(
        lost.is_empty(),
        "{} of {} are missing: {:?}",
        lost.len(),
        complete.len(),
        &lost[..lost.len().min(3)]
    );
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert!(complete.len() > 1000, "{}", complete.len());
    // The journal's own history says the same.
    let sum: serde_json::Value = super::sum(&app, "outcome", &[]).await;
    assert_eq!(sum["total"]["requests"], counts.len(), "{sum}");
    app.finish().await;
}
