use super::*;
use serde_json::json;
use tokio::time::{Instant, timeout};

fn chat(stream: bool) -> Value {
    json!({"model": "sandbox-chat", "stream": stream,
        "messages": [{"role": "user", "content": "one two three"}]})
}

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn a_status_comes_in_the_paths_shape() {
    let sandbox = sandbox().await;
    let ask = async |path: &str, scenario: &str| post(&sandbox, path, scenario, json!({})).await;

    let limited = ask(CHAT, "status=429; retry-after=7").await;
    assert_eq!((limited.status.as_u16(), &limited.headers["retry-after"]), (429, &"7".parse().unwrap()));
    let error = &limited.json()["error"];
    assert_eq!((&error["code"], &error["type"]), (&json!("rate_limit_exceeded"), &json!("requests")));
    let quota = ask(CHAT, "status=429;code=insufficient_quota").await.json();
    assert_eq!(quota["error"]["type"], "insufficient_quota");
    assert_eq!(ask(CHAT, "status=500").await.json()["error"]["type"], "server_error");
    assert_eq!(ask(CHAT, "status=400").await.json()["error"]["type"], "invalid_request_error");
    let anthropic = ask("/v1/messages", "status=529").await;
    assert_eq!(
        (anthropic.status.as_u16(), &anthropic.json()["error"]["type"]),
        (529, &json!("overloaded_error"))
    );
    assert_eq!(ask("/api/v1/tokens", "status=429").await.json()["code"], "Throttling.RateQuota");
    assert_eq!(ask("/api/v1/tokens", "status=400;code=Arrearage").await.json()["code"], "Arrearage");
    assert_eq!(ask("/v1/unknown", "boom").await.status, 400);
}

#[tokio::test]
async fn other_statuses_and_headers() {
    let sandbox = sandbox().await;
    let created =
        post(&sandbox, CHAT, "status=201;location=/v1/x?a=b;operation-location=https://h/o", chat(false))
            .await;
    assert_eq!((created.status.as_u16(), &created.headers["location"]), (201, &"/v1/x?a=b".parse().unwrap()));
    assert_eq!(created.headers["operation-location"], "https://h/o");
    assert_eq!(created.json()["choices"][0]["finish_reason"], "stop");
    let moved = post(&sandbox, CHAT, "status=307;location=http://h/", chat(false)).await;
    assert_eq!((moved.status.as_u16(), moved.body.len()), (307, 0));
    let leaky = post(&sandbox, CHAT, "leak;upload-url=http://h/u", chat(false)).await;
    assert_eq!(leaky.headers["openai-organization"], "org-sandbox");
    assert_eq!(leaky.headers["x-goog-upload-url"], "http://h/u");
}

#[tokio::test]
async fn chunks_are_counted_and_paced() {
    let sandbox = sandbox().await;
    for count in [1, 2, 40] {
        let started = Instant::now();
        let reply = post(&sandbox, CHAT, &format!("chunks={count};delay=2"), chat(true)).await;
        let content = reply
            .events()
            .iter()
            .filter(|event| {
                event["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty())
            })
            .count();
        assert_eq!(content, count);
        assert!(started.elapsed() >= Duration::from_millis(2 * (count as u64 - 1)));
    }
}

#[tokio::test]
async fn a_held_stream_waits_behind_its_first_chunk() {
    let sandbox = sandbox().await;
    let mut stream = TcpStream::connect(sandbox.addr()).await.unwrap();
    stream.write_all(chat_bytes("hold=gate", true).as_bytes()).await.unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while !seen.contains("\"You\"") {
        let n = stream.read(&mut buffer).await.unwrap();
        seen.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
    }
    let early = timeout(Duration::from_millis(100), stream.read(&mut buffer)).await;
    assert!(early.is_err() && !seen.contains(" said:"));
    keyless(&sandbox, "POST", "/sandbox/release/gate", &[], "").await;
    while !seen.contains("[DONE]") {
        let n = stream.read(&mut buffer).await.unwrap();
        seen.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
    }
    // An open gate stays open.
    let later = post(&sandbox, CHAT, "hold=gate", chat(true)).await;
    assert_eq!(later.events().last().unwrap(), "[DONE]");
}

#[tokio::test]
async fn a_held_plain_answer_waits_before_its_head() {
    let sandbox = sandbox().await;
    let held = post(&sandbox, CHAT, "hold=x", chat(false));
    tokio::pin!(held);
    assert!(timeout(Duration::from_millis(100), &mut held).await.is_err());
    sandbox.release("x");
    assert_eq!(held.await.status, 200);
}

#[tokio::test]
async fn cuts_are_resets() {
    let sandbox = sandbox().await;
    for (scenario, stream, chunks) in
        [("cut=0", true, None), ("cut=0", false, None), ("cut=2", true, Some(2)), ("cut=3", false, Some(0))]
    {
        let (answer, end) = raw(&sandbox, &chat_bytes(scenario, stream)).await;
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        match chunks {
            None => assert_eq!(answer, ""),
            Some(chunks) => {
                assert!(answer.starts_with("HTTP/1.1 200 OK"));
                let content = answer.matches("\"delta\":{").count();
                // The role's event comes first.
                assert_eq!(content, if stream { chunks + 1 } else { 0 });
                assert!(!answer.contains("[DONE]") && !answer.ends_with('}'));
            }
        }
        let seen = seen_when(&sandbox, |seen| seen.outcome == crate::Outcome::Cut).await;
        assert_eq!(seen.status, chunks.map(|_| 200));
        assert!(seen.request_sha256.is_some());
    }
}

#[tokio::test]
async fn trailers_follow_for_who_takes_them() {
    let sandbox = sandbox().await;
    for stream in [true, false] {
        let headers = [("x-sandbox", "trailers"), ("te", "trailers")];
        let reply = call(&sandbox, "POST", CHAT, &headers, chat(stream).to_string()).await;
        assert_eq!(reply.headers["transfer-encoding"], "chunked");
        assert_eq!(reply.trailers.unwrap()["x-sandbox-trailer"], "done");
        // Hyper, as RFC 9110 has it, keeps them from a caller who does not ask.
        let reply = post(&sandbox, CHAT, "trailers", chat(stream)).await;
        assert!(reply.trailers.is_none() && reply.status == 200);
    }
}
