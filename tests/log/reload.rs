//! A changed file is taken when it is valid, and changes nothing when it is not.

use aiproxy_testkit::{Outcome, PROXY_KEY, until};
use serde_json::json;

use crate::{chat_stream, relay};

const SECOND: &str = "pk_second_3Jf8Ld0Qw5";

#[tokio::test]
async fn sighup_applies_a_changed_file() {
    let mut app = relay().start().await;
    assert_eq!(app.get("/v1/models").key(SECOND).send().await.status, 401);
    app.reconfigure(|c| {
        c["users"]["second"] = json!({"proxy_key": SECOND, "channels": ["main"]});
        c["users"]["user1"]["status"] = "disabled".into();
    });
    assert!(app.reload().await);
    assert_eq!(app.get("/v1/models").key(SECOND).send().await.status, 200);
    let mut answer = app.get("/v1/models").send().await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.json().await["error"]["code"], "user_disabled");

    app.reconfigure(|c| drop(c["users"].as_object_mut().unwrap().remove("second")));
    assert!(app.reload().await);
    assert_eq!(app.get("/v1/models").key(SECOND).send().await.status, 401);
    app.finish().await;
}

#[tokio::test]
async fn sighup_in_the_moment_of_the_start_does_not_end_the_relay() {
    for _ in 0..10 {
        let app = relay().start().await;
        assert!(app.reload().await);
        app.finish().await;
    }
}

#[tokio::test]
async fn the_interval_applies_a_changed_file() {
    let mut app = relay().config(|c| c["system"]["config_reload_interval"] = 1.into()).start().await;
    app.reconfigure(|c| c["users"]["user1"]["status"] = "disabled".into());
    app.process().said("the reload", |line| line.contains("configuration reloaded").then_some(())).await;
    assert_eq!(app.get("/v1/models").send().await.status, 403);
    app.finish().await;
}

#[tokio::test]
async fn a_reload_keeps_connections_and_streams() {
    let mut app = relay().start().await;
    let mut client = app.client().await;
    client.send(app.get("/v1/models")).await.bytes().await;
    let ask = app.post("/v1/chat/completions", &chat_stream("gpt-4o", "one two three")).sandbox("hold=g1");
    let mut stream = ask.send().await;
    stream.piece().await.unwrap().unwrap();
    app.reconfigure(|c| c["users"]["second"] = json!({"proxy_key": SECOND, "channels": ["main"]}));
    assert!(app.reload().await);
    app.sandbox().release("g1");
    assert!(stream.text().await.contains("[DONE]"));
    assert_eq!(client.send(app.get("/v1/models")).await.status, 200);
    app.finish().await;
}

#[tokio::test]
async fn whoever_is_disabled_or_removed_loses_what_is_under_way() {
    for withdraw in [
        |c: &mut serde_json::Value| c["users"]["user1"]["status"] = "disabled".into(),
        |c: &mut serde_json::Value| c["users"]["user1"]["proxy_key"] = SECOND.into(),
        |c: &mut serde_json::Value| c["channels"]["main"]["status"] = "disabled".into(),
    ] {
        let mut app = relay().start().await;
        let ask =
            app.post("/v1/chat/completions", &chat_stream("gpt-4o", "one two three")).sandbox("hold=never");
        let mut stream = ask.send().await;
        stream.piece().await.unwrap().unwrap();
        app.reconfigure(withdraw);
        assert!(app.reload().await);
        assert!(stream.try_bytes().await.is_err(), "it is not a clean end");
        app.seen("the platform losing its peer", |request| request.outcome == Outcome::Cut).await;
        let line = app.logged("the line", |line| line["outcome"] == "cut").await;
        assert_eq!(line["status"], 200);
        assert!(line["error"].is_string(), "{line}");
        app.finish().await;
    }
}

#[tokio::test]
async fn an_invalid_file_keeps_the_last_good_one() {
    let mut app = relay().start().await;
    for spoil in [
        |c: &mut serde_json::Value| c["users"]["user1"]["channels"] = json!(["nothing"]),
        |c: &mut serde_json::Value| c["users"]["user1"]["chanels"] = json!(["main"]),
        |c: &mut serde_json::Value| c["channels"] = json!("sk-channel/+=5Hs0Jg7Kp2Md9Nf4Qb8Rv1Xz"),
    ] {
        let mut good = json!(null);
        app.reconfigure(|c| {
            good = c.clone();
            spoil(c);
        });
        assert!(!app.reload().await);
        assert_eq!(app.get("/v1/models").send().await.status, 200);
        app.reconfigure(|c| *c = good);
        assert!(app.reload().await);
    }
    app.finish().await;
}

#[tokio::test]
async fn a_file_that_is_gone_or_half_written_keeps_the_last_good_one() {
    let app = relay().start().await;
    let file = app.dir().join("aiproxy.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    for broken in [Some(&text[..text.len() / 2]), Some(""), Some("\u{0}\u{1}"), None] {
        match broken {
            Some(broken) => std::fs::write(&file, broken).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        assert!(!app.reload().await, "{broken:?}");
        assert_eq!(app.get("/v1/models").key(PROXY_KEY).send().await.status, 200);
    }
    app.finish().await;
}

#[tokio::test]
async fn a_channel_that_moves_is_dialled_at_its_new_place() {
    let other = aiproxy_testkit::RawUpstream::recording().await;
    let mut app = relay().start().await;
    assert_eq!(app.get("/v1/models").send().await.status, 200);
    app.reconfigure(|c| c["channels"]["main"]["base_url"] = format!("http://{}/moved", other.addr()).into());
    assert!(app.reload().await);
    assert_eq!(app.get("/v1/models").send().await.text().await, "{\"ok\":true}");
    assert_eq!(other.request(0).await.target(), "/moved/v1/models");
    app.finish().await;
}

#[tokio::test]
async fn the_log_level_follows_the_file() {
    let mut app = relay().config(|c| c["system"]["log_level"] = "info".into()).start().await;
    app.get("/v1/models").key("pk_nobody_000000").send().await;
    assert!(!app.process().stderr().contains("DEBUG"));
    app.reconfigure(|c| c["system"]["log_level"] = "debug".into());
    assert!(app.reload().await);
    app.get("/v1/models").key("pk_nobody_000000").send().await;
    until("a debug line", || app.process().stderr().contains("DEBUG").then_some(())).await;
    app.finish().await;
}
