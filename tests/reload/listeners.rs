//! Listeners follow the file; connections stay.

use std::net::SocketAddr;

use aiproxy_testkit::{App, Ask, PROXY_KEY, until};
use serde_json::Value;

use crate::{chat_stream, relay};

/// Where the relay has said that it listens, in order.
fn listeners(app: &App) -> Vec<SocketAddr> {
    let stderr = app.process().stderr();
    let lines = stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter_map(|line| line.get("address")?.as_str()?.parse().ok()).collect()
}

#[tokio::test]
async fn a_new_listener_opens_and_an_old_one_closes_without_a_stream_noticing() {
    let mut app = relay().start().await;
    let old = app.relay_addr();
    let mut stream = app
        .post("/v1/chat/completions", &chat_stream("gpt-4o", "one two three"))
        .sandbox("hold=later")
        .send()
        .await;
    stream.piece().await.unwrap().expect("a first piece");

    assert!(app.change(|c| c["system"]["listen"]["http"] = "127.0.0.2:0".into()).await);
    let new = until("the new listener", || listeners(&app).into_iter().find(|found| *found != old)).await;
    assert_eq!(Ask::new(new, PROXY_KEY, "GET", "/v1/models").send().await.status, 200);
    until("the old listener closing", || std::net::TcpStream::connect(old).is_err().then_some(())).await;

    app.sandbox().release("later");
    assert!(stream.text().await.contains("[DONE]"));
    app.finish().await;
}

#[tokio::test]
async fn an_address_that_is_taken_changes_nothing() {
    let mut app = relay().start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    app.change(|c| c["system"]["listen"]["http"] = address.as_str().into()).await;
    until("the complaint", || {
        let said = app.process().stderr();
        (said.contains("the listeners stay as they were") && said.contains(&address)).then_some(())
    })
    .await;
    assert_eq!(app.get("/v1/models").send().await.status, 200);
    app.finish().await;
}
