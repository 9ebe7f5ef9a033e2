//! SIGTERM lets requests in flight finish.

use aiproxy_testkit::BOUND;
use tokio::net::TcpStream;

use crate::{chat_stream, relay};

#[tokio::test]
async fn requests_in_flight_finish_and_new_connections_are_not_taken() {
    let app = relay().start().await;
    let ask = app.post("/v1/chat/completions", &chat_stream("gpt-4o", "one two three")).sandbox("hold=g1");
    let mut stream = ask.send().await;
    stream.piece().await.unwrap().unwrap();
    app.process().signal("TERM");
    app.process().said("the end beginning", |line| line.contains("finishing requests").then_some(())).await;
    aiproxy_testkit::within("the listener closing", async {
        while TcpStream::connect(app.relay_addr()).await.is_ok() {}
    })
    .await;
    app.sandbox().release("g1");
    assert!(stream.text().await.contains("[DONE]"));
    let status = app.process().ended_within(BOUND).await.expect("an end");
    assert_eq!(status.code(), Some(0));
    assert!(app.process().stdout().contains("\"outcome\":\"complete\""), "its line was written");
    app.finish().await;
}

#[tokio::test]
async fn a_second_signal_ends_the_relay_at_once() {
    let app = relay().start().await;
    let ask = app.post("/v1/chat/completions", &chat_stream("gpt-4o", "one two three")).sandbox("hold=never");
    let mut stream = ask.send().await;
    stream.piece().await.unwrap().unwrap();
    app.process().signal("INT");
    app.process().said("the end beginning", |line| line.contains("finishing requests").then_some(())).await;
    app.process().signal("INT");
    assert_eq!(app.process().ended_within(BOUND).await.expect("an end").code(), Some(0));
    assert!(stream.try_bytes().await.is_err());
    app.finish().await;
}
