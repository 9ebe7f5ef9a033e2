//! The usage of streams: asked for where callers do not, and taken out of the answer again.

use aiproxy_testkit::{RawUpstream, StatusCode};
use serde_json::{Value, json};

use crate::{chat, chat_stream, relay};

/// The data of a stream's events.
fn events(text: &str) -> Vec<Value> {
    text.split("\n\n")
        .filter_map(|event| event.strip_prefix("data: "))
        .filter_map(|data| serde_json::from_str(data).ok())
        .collect()
}

#[tokio::test]
async fn usage_is_asked_for_on_the_callers_behalf_and_the_caller_does_not_see_it() {
    let app = relay().start().await;
    let body = chat_stream("gpt-4o", "one two three");
    let mut answer = app.post("/v1/chat/completions", &body).send().await;
    assert_eq!(answer.status, 200);
    let id = answer.header("x-aiproxy-request-id").unwrap().to_owned();
    let text = answer.text().await;
    let line = app.logged("the line", |line| line["request_id"] == id.as_str()).await;
    assert_eq!((&line["usage"]["input"], &line["usage"]["output"]), (&json!(3), &json!(5)));
    assert_eq!((&line["usage"]["estimated"], &line["usage"]["finish"]), (&json!(false), &json!("stop")));
    assert_eq!(line["bytes_in"], body.to_string().len(), "what the caller sent");
    assert_eq!(line["bytes_out"], text.len(), "what the caller got");
    // The platform was asked for it, and the caller's own stream without it looks the same.
    let mut direct = aiproxy_testkit::Ask::new(
        app.sandbox().addr(),
        aiproxy_testkit::CHANNEL_KEY,
        "POST",
        "/v1/chat/completions",
    )
    .json(&body)
    .send()
    .await;
    let direct = direct.text().await;
    let same = |text: &str| {
        let mut all = events(text);
        for event in &mut all {
            let fields = event.as_object_mut().unwrap();
            fields.remove("id");
            fields.remove("created");
        }
        all
    };
    assert_eq!(same(&text), same(&direct));
    assert!(text.ends_with("data: [DONE]\n\n") && !text.contains("usage"), "{text}");
    app.finish().await;
}

#[tokio::test]
async fn a_caller_who_asks_for_usage_gets_every_byte_of_it() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 132\r\n\r\n\
                  data: {\"choices\":[],\"usage\":null}\n\n\
                  data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n\
                  data: [DONE]\n\n: the end   \n\n";
    let (head, stream) = answer.split_once("\r\n\r\n").unwrap();
    let answer = format!("{}\r\n\r\n{stream}", head.replace("132", &stream.len().to_string()));
    let upstream = RawUpstream::answering(&answer).await;
    let app = relay().upstream(&upstream).start().await;
    let mut body = chat_stream("gpt-4o", "hi");
    body["stream_options"] = json!({"include_usage": true});
    assert_eq!(app.post("/v1/chat/completions", &body).send().await.text().await, stream);
    assert_eq!(upstream.request(0).await.body, body.to_string());
    let line = app.logged("the line", |line| line["usage"]["input"] == 7).await;
    assert_eq!(line["usage"]["output"], 2);
    // One who does not, does not get it; the rest passes byte for byte.
    body["stream_options"] = json!({"include_usage": false, "x": [1.0e2]});
    let text = app.post("/v1/chat/completions", &body).send().await.text().await;
    assert_eq!(text, "data: {\"choices\":[]}\n\ndata: [DONE]\n\n: the end   \n\n");
    let sent = upstream.request(1).await.body;
    assert_eq!(sent, body.to_string().replace("\"include_usage\":false", "\"include_usage\":true"));
    app.finish().await;
}

#[tokio::test]
async fn a_channel_that_is_only_observed_sees_the_body_as_it_is_and_is_estimated() {
    let app = relay().config(|c| c["channels"]["main"]["stream_usage"] = "observe".into()).start().await;
    let body = chat_stream("gpt-4o", "ab abc abc");
    let text = app.post("/v1/chat/completions", &body).send().await.text().await;
    assert!(text.ends_with("data: [DONE]\n\n"));
    let line = app.logged("the line", |line| line["endpoint"] == "/v1/chat/completions").await;
    assert_eq!(line["usage"]["estimated"], true);
    // "You said: ab abc abc" is twenty bytes.
    assert_eq!((&line["usage"]["input"], &line["usage"]["output"]), (&json!(3), &json!(5)));
    let seen = app.seen("the request", |request| request.path == "/v1/chat/completions").await;
    assert_eq!(seen.request_bytes, body.to_string().len() as u64);
    app.finish().await;
}

#[tokio::test]
async fn what_cannot_be_edited_passes_as_it_is() {
    let upstream = RawUpstream::recording().await;
    let app = relay()
        .upstream(&upstream)
        .config(|c| c["system"]["limits"] = json!({"peek_bytes": 4096}))
        .start()
        .await;
    let long = chat_stream("gpt-4o", &"x".repeat(20_000)).to_string();
    let twice = r#"{"model":"gpt-4o","stream":true,"stream":true,"messages":[]}"#.to_owned();
    for (index, body) in
        [long, twice, r#"{"model":"gpt-4o","stream":"#.to_owned(), "[1]".to_owned()].into_iter().enumerate()
    {
        let ask = app.ask("POST", "/v1/chat/completions").header("content-type", "application/json");
        let ask = ask.body(body.clone());
        assert_eq!(ask.send().await.status, StatusCode::OK);
        assert_eq!(upstream.request(index).await.body, body);
    }
    // Whoever signs the body would be told off for the edit.
    let body = chat_stream("gpt-4o", "hi");
    let ask = app.post("/v1/chat/completions", &body).header("content-digest", "sha-256=:x:");
    assert_eq!(ask.send().await.status, StatusCode::OK);
    assert_eq!(upstream.request(4).await.body, body.to_string());
    app.finish().await;
}

#[tokio::test]
async fn a_body_that_comes_in_pieces_is_edited_whole() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    let body = chat_stream("gpt-4o", "你好").to_string();
    let (ask, upload) =
        app.ask("POST", "/v1/chat/completions").header("content-type", "application/json").upload();
    let answer = tokio::spawn(ask.send());
    for piece in body.as_bytes().chunks(7) {
        upload.send(piece.to_vec()).await;
    }
    drop(upload);
    assert_eq!(answer.await.unwrap().status, 200);
    let sent: Value = serde_json::from_slice(&upstream.request(0).await.body).unwrap();
    let mut expected: Value = serde_json::from_str(&body).unwrap();
    expected["stream_options"] = json!({"include_usage": true});
    assert_eq!(sent, expected);
    app.finish().await;
}

#[tokio::test]
async fn an_answer_is_asked_for_uncompressed_only_where_it_is_read() {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    for (method, path, expected) in [
        ("POST", "/v1/chat/completions", Some("identity")),
        ("POST", "/v1/embeddings", Some("identity")),
        ("POST", "/v1/messages", Some("identity")),
        ("POST", "/v1/messages/count_tokens", Some("br, gzip")),
        ("GET", "/v1/models/gpt-4o", Some("br, gzip")),
        ("POST", "/v1/text-to-speech/x", Some("br, gzip")),
    ] {
        let before = upstream.received().len();
        let mut ask = app.ask(method, path).header("accept-encoding", "br, gzip");
        if method == "POST" {
            ask = ask.json(&json!({"model": "m"}));
        }
        ask.send().await;
        assert_eq!(upstream.request(before).await.header("accept-encoding").as_deref(), expected, "{path}");
    }
    app.finish().await;
}

#[tokio::test]
async fn streams_are_handed_on_event_by_event_though_usage_is_taken_out() {
    let app = relay().start().await;
    let ask = app.post("/v1/chat/completions", &chat_stream("gpt-4o", "one two")).sandbox("hold=gate");
    let mut stream = ask.send().await;
    let mut text = String::new();
    // The platform holds back everything behind the first word.
    while !text.contains("\"You\"") {
        text += std::str::from_utf8(&stream.piece().await.unwrap().unwrap()).unwrap();
    }
    assert!(text.ends_with("\n\n"), "a whole event: {text}");
    app.sandbox().release("gate");
    assert!(stream.text().await.ends_with("data: [DONE]\n\n"));
    app.finish().await;
}

#[tokio::test]
async fn an_answer_without_usage_that_broke_off_is_estimated_and_priced() {
    let app = relay()
        .config(|c| {
            c["channels"]["main"]["prices"] =
                json!({"currency": "CNY", "models": {"gpt-*": {"input": 1_000_000, "output": 2_000_000}}});
        })
        .start()
        .await;
    let ask = app.post("/v1/chat/completions", &chat_stream("gpt-4o", "ab abc abc abc")).sandbox("cut=4");
    assert!(ask.send().await.try_bytes().await.is_err());
    let line = app.logged("the line", |line| line["outcome"] == "upstream_failed").await;
    assert_eq!(line["usage"]["estimated"], true);
    assert_eq!((&line["usage"]["input"], &line["usage"]["output"]), (&json!(4), &json!(4)));
    assert_eq!((&line["cost"], &line["currency"]), (&json!(12.0), &json!("CNY")));
    assert_eq!(line["error_class"], "channel");

    let mut answer = app.post("/v1/chat/completions", &chat("gpt-4o", "hi you")).send().await;
    answer.bytes().await;
    let line = app.logged("the line", |line| line["outcome"] == "complete").await;
    assert_eq!((&line["usage"]["input"], &line["usage"]["output"]), (&json!(2), &json!(4)));
    assert_eq!((&line["cost"], &line["usage"]["estimated"]), (&json!(10.0), &json!(false)));
    app.finish().await;
}

#[tokio::test]
async fn speech_is_counted_by_the_characters_of_its_text() {
    let app = relay()
        .config(|c| {
            c["channels"]["main"]["prices"] =
                json!({"currency": "USD", "models": {"tts-*": {"characters": 1_000_000}}});
        })
        .start()
        .await;
    let body = json!({"model": "tts-1", "input": "你好, hi", "voice": "alloy"});
    let mut answer = app.post("/v1/audio/speech", &body).send().await;
    assert_eq!(answer.status, 200);
    answer.bytes().await;
    let line = app.logged("the line", |line| line["endpoint"] == "/v1/audio/speech").await;
    assert_eq!((&line["usage"]["characters"], &line["cost"]), (&json!(6), &json!(6.0)));
    assert_eq!(line["usage"]["estimated"], false);
    app.finish().await;
}

#[tokio::test]
async fn what_the_caller_says_it_is_is_recorded_unless_it_holds_the_key() {
    let app = relay().start().await;
    for (agent, recorded) in [
        ("OpenAI/Python 3.54".to_owned(), json!("OpenAI/Python 3.54")),
        (format!("x/{}", aiproxy_testkit::PROXY_KEY), Value::Null),
        (format!("x/{}", aiproxy_testkit::PROXY_KEY.replace('_', "%5f")), Value::Null),
        ("长".repeat(100), json!("长".repeat(53))),
    ] {
        let mut answer = app.get("/v1/models").header("user-agent", &agent).send().await;
        let id = answer.header("x-aiproxy-request-id").unwrap().to_owned();
        answer.bytes().await;
        let line = app.logged("the line", |line| line["request_id"] == id.as_str()).await;
        assert_eq!(line["user_agent"], recorded);
    }
    app.finish().await;
}

#[tokio::test]
async fn an_answer_with_trailers_is_complete_and_its_connection_used_again() {
    let body = r#"{"model":"m","usage":{"prompt_tokens":7,"completion_tokens":2}}"#;
    let upstream = RawUpstream::answering(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n\
         {:x}\r\n{body}\r\n0\r\nx-t: 1\r\n\r\n",
        body.len()
    ))
    .await;
    // Of the workers, each has its own connections.
    let app = relay().upstream(&upstream).config(|c| c["system"]["workers"] = 1.into()).start().await;
    for _ in 0..3 {
        let ask = app.post("/v1/chat/completions", &chat("m", "hi")).header("te", "trailers");
        let mut answer = ask.send().await;
        let id = answer.header("x-aiproxy-request-id").unwrap().to_owned();
        answer.bytes().await;
        assert_eq!(answer.trailers().unwrap()["x-t"], "1");
        let line = app.logged("the line", |line| line["request_id"] == id.as_str()).await;
        assert_eq!((&line["outcome"], &line["usage"]["input"]), (&json!("complete"), &json!(7)));
        assert_eq!(line["usage"]["estimated"], false);
    }
    assert_eq!(upstream.connections(), 1);
    app.finish().await;
}

#[tokio::test]
async fn only_what_is_spoken_counts_as_speech() {
    let app = relay().start().await;
    let body = json!({"model": "tts-1", "input": "hello", "voice": "alloy", "instructions": "whisper it"});
    app.post("/v1/audio/speech", &body).send().await.bytes().await;
    let line = app.logged("the line", |line| line["endpoint"] == "/v1/audio/speech").await;
    assert_eq!(line["usage"]["characters"], 5);
    app.finish().await;
}

#[tokio::test]
async fn a_key_in_place_of_a_model_is_not_recorded() {
    let app = relay().start().await;
    for model in [
        aiproxy_testkit::PROXY_KEY.to_owned(),
        aiproxy_testkit::PROXY_KEY.to_uppercase(),
        format!("x%2f{}", aiproxy_testkit::PROXY_KEY.replace('_', "%255f")),
    ] {
        // The platform is sent no such thing: the model is not one that it has.
        let ask = app.ask("GET", &format!("/v1/models?model={}", model.replace('%', "%25")));
        let mut answer = ask.send().await;
        let id = answer.header("x-aiproxy-request-id").unwrap().to_owned();
        answer.bytes().await;
        let line = app.logged("the line", |line| line["request_id"] == id.as_str()).await;
        assert_eq!(line["model"], Value::Null);
    }
    app.finish().await;
}

#[tokio::test]
async fn the_report_is_taken_out_of_streams_that_do_not_say_what_they_are() {
    let stream = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}],\"usage\":null}\n\n\
                  data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n\
                  data: [DONE]\n\n";
    for kind in ["", "content-type: text/plain\r\n"] {
        let answer = format!(
            "HTTP/1.1 200 OK\r\n{kind}etag: \"x\"\r\ncontent-length: {}\r\n\r\n{stream}",
            stream.len()
        );
        let upstream = RawUpstream::answering(&answer).await;
        let app = relay().upstream(&upstream).start().await;
        let mut answer = app.post("/v1/chat/completions", &chat_stream("m", "hi")).send().await;
        assert_eq!((answer.header("etag"), answer.header("content-length")), (None, None));
        let text = answer.text().await;
        assert_eq!(text, "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\ndata: [DONE]\n\n");
        app.logged("the line", |line| line["usage"]["input"] == 7).await;
        app.finish().await;
    }
}

#[tokio::test]
async fn an_answer_that_comes_compressed_in_spite_of_what_was_asked_is_weighed() {
    let upstream = RawUpstream::answering(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
    )
    .await;
    let app = relay().upstream(&upstream).start().await;
    app.post("/v1/chat/completions", &chat("m", "four five")).send().await.bytes().await;
    let line = app.logged("the line", |line| line["status"] == 200).await;
    assert_eq!(line["usage"], json!({"input": 3, "output": 0, "estimated": true}));
    app.finish().await;
}

#[tokio::test]
async fn whoever_is_withdrawn_while_the_body_is_read_ahead_hears_of_it() {
    let mut app = relay().start().await;
    let (ask, upload) =
        app.ask("POST", "/v1/chat/completions").header("content-type", "application/json").upload();
    let answer = tokio::spawn(ask.send());
    upload.send("{\"model\":\"m\",\"stream\":true,\"messages\":[").await;
    app.metric_is("aiproxy_live_requests", 1.0).await;
    assert!(app.change(|c| c["users"]["user1"]["status"] = "disabled".into()).await);
    let mut answer = answer.await.unwrap();
    assert_eq!(answer.status, 403);
    assert_eq!(answer.json().await["error"]["code"], "user_disabled");
    drop(upload);
    app.finish().await;
}
