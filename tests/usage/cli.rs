//! `aiproxy usage` as people use it.

use std::process::Command;

use aiproxy_testkit::{App, BOUND, Process, run, until};
use serde_json::{Value, json};

use super::{journal, sum, usage};
use crate::{BINARY, chat, relay};

const LISI: &str = "pk_lisi_8Hs0Jg7Kp2Md9Nf4";

async fn some_requests() -> App {
    let app = relay()
        .config(|c| {
            c["users"]["lisi"] = json!({"name": "李四", "proxy_key": LISI, "channels": ["main"]});
            c["channels"]["main"]["prices"] =
                json!({"currency": "CNY", "models": {"gpt-4o": {"input": 100_000, "output": 200_000}}});
        })
        .start()
        .await;
    for (key, model, text) in [
        (aiproxy_testkit::PROXY_KEY, "gpt-4o", "hi"),
        (LISI, "gpt-4o", "你好"),
        (LISI, "qwen-plus", "你好 世界"),
    ] {
        app.post("/v1/chat/completions", &chat(model, text)).key(key).send().await.bytes().await;
    }
    app.get("/v1/files/file-1").key("pk_nobody_000000").send().await.bytes().await;
    let lines = || app.process().stdout().lines().count();
    until("four lines", || (lines() == 4).then_some(())).await;
    app
}

#[tokio::test]
async fn requests_are_added_up_for_people() {
    let app = some_requests().await;
    let mut command = Command::new(BINARY);
    command.args(["usage", "sum", "--by", "user", "--config"]).arg(app.dir().join("aiproxy.yaml"));
    let finished = run(command, BOUND).await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(
        finished.stdout,
        "USER   NAME  REQUESTS  FAILED  INPUT  OUTPUT      COST\n\
         -                   1       1      0       0\n\
         lisi   李四         2       0      6      10  1.00 CNY\n\
         user1  张三         1       0      1       3  0.70 CNY\n\
         TOTAL               4       1      7      13  1.70 CNY\n"
    );
    let text = usage(&journal(&app), &["sum", "--by", "endpoint,outcome", "--user", "*"]).await;
    assert!(text.starts_with("ENDPOINT              OUTCOME   REQUESTS"), "{text}");
    assert!(!text.contains("/v1/files"), "{text}");
    app.finish().await;
}

#[tokio::test]
async fn requests_are_added_up_for_programs() {
    let app = some_requests().await;
    let by = sum(&app, "model,day", &["--since", "1h", "--tz", "Asia/Shanghai"]).await;
    assert_eq!(by["by"], json!(["model", "day"]));
    let names: Vec<_> =
        by["rows"].as_array().unwrap().iter().map(|row| row["model"].as_str().unwrap()).collect();
    assert_eq!(names, ["-", "gpt-4o", "qwen-plus"]);
    assert_eq!(by["total"]["tokens"]["input"], 7);
    let none = sum(&app, "user", &["--until", "2020-01-01"]).await;
    assert_eq!((&none["rows"], &none["total"]["requests"]), (&json!([]), &json!(0)));
    let one = sum(&app, "key", &["--model", "gpt-*", "--user", "lisi"]).await;
    assert_eq!(one["total"]["requests"], 1);
    app.finish().await;
}

#[tokio::test]
async fn the_last_requests_are_shown_and_followed() {
    let app = some_requests().await;
    let text = usage(&journal(&app), &["tail", "-n", "2"]).await;
    let shown: Vec<&str> = text.lines().collect();
    assert_eq!(shown.len(), 3, "{text}");
    assert!(shown[1].contains("lisi") && shown[1].contains("qwen-plus"), "{text}");
    assert!(shown[2].contains("/v1/files/{id}") && shown[2].contains("invalid_key"), "{text}");
    let text = usage(&journal(&app), &["tail", "--json", "--user", "user1"]).await;
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&line["user"], &line["cost"]), (&json!("user1"), &json!(0.7)));

    let mut command = Command::new(BINARY);
    command.args(["usage", "tail", "--follow", "--json", "-n", "1", "--dir"]).arg(journal(&app));
    let following = Process::start(command);
    let find = |model: &'static str| move |line: &str| line.contains(model).then_some(());
    following.printed("the last line", find("invalid_key")).await;
    app.post("/v1/chat/completions", &chat("gpt-4.1", "hi")).send().await.bytes().await;
    following.printed("the next line", find("gpt-4.1")).await;
    app.finish().await;
}

#[tokio::test]
async fn what_cannot_be_told_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    let nowhere = folder.path().join("nothing");
    for (arguments, code, said) in [
        (vec!["sum", "--dir", nowhere.to_str().unwrap()], 1, "cannot read the usage journal"),
        (vec!["sum", "--dir", place, "--by", "department"], 2, "write one or several of user, key, channel"),
        (vec!["sum", "--dir", place, "--since", "yesterday"], 2, "is no moment"),
        (vec!["sum", "--dir", place, "--tz", "Mars/Phobos"], 2, "there is no time zone"),
        (vec!["sum", "--config", nowhere.to_str().unwrap()], 2, "With --dir DIR"),
    ] {
        let mut command = Command::new(BINARY);
        command.arg("usage").args(&arguments);
        let finished = run(command, BOUND).await;
        assert_eq!(finished.code, Some(code), "{arguments:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(said), "{}", finished.stderr);
    }
    let empty = usage(folder.path(), &["sum"]).await;
    assert!(empty.starts_with("USER"), "{empty}");
}
