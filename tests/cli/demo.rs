//! `aiproxy demo`.

use std::net::SocketAddr;

use aiproxy_testkit::{Ask, BOUND, Opening, Process, run};
use serde_json::Value;

use super::{aiproxy, finished};
use crate::chat;

fn addr(url: &Value) -> SocketAddr {
    url.as_str().and_then(|url| url.strip_prefix("http://")).unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_demo_says_one_line_of_json_serves_and_ends_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let demo = Process::start(aiproxy(dir.path(), &["demo", "--json", "--ephemeral"]));
    let line: Value = demo.printed("one line", |line| serde_json::from_str(line).ok()).await;
    let (relay, sandbox) = (addr(&line["http"]), addr(&line["sandbox"]));
    let key = line["proxy_key"].as_str().unwrap();

    let ask = Ask::new(relay, key, "POST", "/v1/chat/completions").json(&chat("gpt-4o-mini", "你好"));
    let mut answer = ask.send().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json().await["choices"][0]["message"]["content"], "You said: 你好");
    assert_eq!(
        Ask::new(sandbox, key, "GET", "/v1/models").send().await.status,
        401,
        "only the relay knows the key"
    );

    // The example page is served on a port that anyone can guess, and only from there it may call.
    let page =
        |origin| Opening::new(relay, "/v1/realtime?model=gpt-realtime").key(key).header("origin", origin);
    drop(page("http://127.0.0.1:8000").open().await);
    drop(page("http://localhost:8000").open().await);
    assert_eq!(page("http://127.0.0.1:8001").refusal().await, (403, "origin_not_allowed".to_owned()));

    let https = line["https"].as_str().unwrap();
    let mut curl = std::process::Command::new("curl");
    curl.args(["-skf", "--http2", "--noproxy", "*", "-w", "%{http_version}", "-H"]);
    curl.arg(format!("Authorization: Bearer {key}")).arg(format!("{https}/v1/models"));
    let answered = run(curl, BOUND).await;
    assert!(answered.code == Some(0) && answered.stdout.ends_with('2'), "{}", answered.stdout);

    demo.signal("INT");
    let ended = demo.end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout.lines().count(), 1, "{}", ended.stdout);
    assert_eq!(ended.stderr, "");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
}

#[tokio::test]
async fn the_demo_keeps_its_proxy_key_for_the_next_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut keys = Vec::new();
    for _ in 0..2 {
        let arguments = [
            "demo",
            "--json",
            "--port",
            "0",
            "--https-port",
            "0",
            "--sandbox-port",
            "0",
            "--admin-port",
            "0",
            "--data",
            "d",
        ];
        let demo = Process::start(aiproxy(dir.path(), &arguments));
        let line: Value = demo.printed("one line", |line| serde_json::from_str(line).ok()).await;
        keys.push(line["proxy_key"].clone());
        demo.signal("TERM");
        assert_eq!(demo.end().await.code, Some(0));
    }
    assert_eq!(keys[0], keys[1]);
}

#[tokio::test]
async fn the_demo_explains_itself_to_people() {
    let dir = tempfile::tempdir().unwrap();
    let demo = Process::start(aiproxy(dir.path(), &["demo", "--ephemeral"]));
    let fingerprint = |line: &str| line.split("SHA-256 ").nth(1).map(str::to_owned);
    let fingerprint = demo.printed("a fingerprint", fingerprint).await;
    assert_eq!(fingerprint.trim_end_matches(')').len(), 64);
    demo.printed("a curl command", |line| line.contains("curl http://127.0.0.1:").then_some(())).await;
    demo.printed("the script", |line| line.ends_with(" python examples/realtime.py").then_some(())).await;
    demo.printed("the page", |line| line.contains("http://127.0.0.1:8000/realtime.html").then_some(())).await;
    demo.printed("the call", |line| line.contains("http://127.0.0.1:8000/call.html").then_some(())).await;
    demo.printed("one for TLS", |line| line.contains("--cacert ").then_some(())).await;
    demo.signal("INT");
    assert_eq!(demo.end().await.code, Some(0));
}

#[tokio::test]
async fn real_channels_need_a_key_in_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let refused = finished(aiproxy(dir.path(), &["demo", "--ephemeral", "--use-env-keys"])).await;
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("OPENAI_API_KEY"), "{}", refused.stderr);
    let clash = finished(aiproxy(dir.path(), &["demo", "--ephemeral", "--port", "1"])).await;
    assert_eq!(clash.code, Some(2));
}
