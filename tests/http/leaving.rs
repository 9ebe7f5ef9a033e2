//! A caller that leaves cancels the exchange with the platform.

use aiproxy_testkit::{Gate, Outcome, RawUpstream, until};

use crate::{chat, chat_stream, relay};

#[tokio::test]
async fn leaving_in_mid_answer_cancels_it() {
    let app = relay().start().await;
    let mut answer = app
        .post("/v1/chat/completions", &chat_stream("gpt-4o", "one two three"))
        .sandbox("hold=never")
        .send()
        .await;
    answer.piece().await.unwrap().expect("a first piece");
    drop(answer);
    let seen = app.seen("the platform losing its peer", |request| request.outcome == Outcome::Cut).await;
    assert_eq!(seen.path, "/v1/chat/completions");
    let line = app.logged("the line", |line| line["outcome"] == "caller_left").await;
    assert_eq!(line["status"], 200);
    app.finish().await;
}

#[tokio::test]
async fn leaving_while_the_answer_is_awaited_cancels_it() {
    let app = relay().start().await;
    let ask = app.post("/v1/chat/completions", &chat("gpt-4o", "hi")).sandbox("hold=never");
    let waiting = tokio::spawn(ask.try_send());
    app.seen("the request", |request| request.request_sha256.is_some()).await;
    waiting.abort();
    app.seen("the platform losing its peer", |request| request.outcome == Outcome::Cut).await;
    let line = app.logged("the line", |line| line["outcome"] == "caller_left").await;
    assert_eq!(line["status"], 0);
    assert_eq!(line["model"], "gpt-4o");
    app.finish().await;
}

#[tokio::test]
async fn leaving_in_mid_upload_cancels_it() {
    let (begun, gone) = (Gate::new("the upload began"), Gate::new("the relay closed"));
    let (has_begun, is_gone) = (begun.clone(), gone.clone());
    let upstream = RawUpstream::start(move |mut conn| {
        let (has_begun, is_gone) = (has_begun.clone(), is_gone.clone());
        async move {
            let Some(head) = conn.head().await else { return };
            conn.exact(8).await;
            has_begun.open();
            assert!(conn.body_of(head).await.is_none(), "a body that was broken off must not look whole");
            is_gone.open();
        }
    })
    .await;
    let app = relay().upstream(&upstream).start().await;
    let (ask, upload) = app.ask("POST", "/v1/files").header("content-type", "text/plain").upload();
    let sending = tokio::spawn(ask.try_send());
    upload.send("abc").await;
    begun.passed().await;
    sending.abort();
    gone.passed().await;
    assert_eq!(upstream.received().len(), 0);
    let bytes = String::from_utf8_lossy(&upstream.bytes(0)).into_owned();
    assert!(!bytes.ends_with("0\r\n\r\n"), "{bytes}");
    app.logged("the line", |line| line["outcome"] == "caller_left").await;
    app.finish().await;
}

#[tokio::test]
async fn leaving_before_the_body_that_names_the_model_is_whole_reaches_no_platform() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    let (ask, upload) =
        app.ask("POST", "/v1/chat/completions").header("content-type", "application/json").upload();
    let sending = tokio::spawn(ask.try_send());
    upload.send(format!("{{\"messages\":[\"{}", "x".repeat(1000))).await;
    until("the beginning of the body reaching the relay", || (app.callers().upward() > 1000).then_some(()))
        .await;
    sending.abort();
    app.logged("the line", |line| line["endpoint"] == "/v1/chat/completions").await;
    assert_eq!(upstream.connections(), 0);
    app.finish().await;
}

#[tokio::test]
async fn a_caller_that_resets_instead_of_closing_cancels_too() {
    let app = relay().start().await;
    let mut raw = app.raw().await;
    let body = chat_stream("gpt-4o", "one two three").to_string();
    raw.send(format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {}\r\nx-sandbox: hold=never\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        aiproxy_testkit::PROXY_KEY,
        body.len()
    ))
    .await;
    raw.until(b"data: ").await;
    raw.reset();
    app.seen("the platform losing its peer", |request| request.outcome == Outcome::Cut).await;
    app.finish().await;
}
