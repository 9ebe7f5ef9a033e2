//! `aiproxy check`.

use std::path::Path;

use aiproxy_testkit::Finished;

use super::{aiproxy, finished};

const GOOD: &str = "\
users:
  user1: {name: 张三, department: 技术部, proxy_key: pk_user1_xxx, status: active, channels: [aliyun, openai]}
channels:
  aliyun: {name: 阿里云百炼, api_key: sk_aliyun_xxx, base_url: https://dashscope.aliyuncs.com, status: active}
  openai: {name: OpenAI, api_key: sk_openai_xxx, base_url: https://api.openai.com, status: active}
system: {config_reload_interval: 300, log_level: info, max_connections: 1000}
";

async fn check(text: &str) -> Finished {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f.yaml"), text).unwrap();
    finished(aiproxy(dir.path(), &["check", "f.yaml"])).await
}

#[tokio::test]
async fn a_good_file_is_fine() {
    let checked = check(GOOD).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert_eq!(checked.stdout, "f.yaml: ok (1 users, 2 channels)\n");
    assert_eq!(checked.stderr, "");
}

#[tokio::test]
async fn a_warning_is_shown_and_the_file_is_fine() {
    let checked = check(&GOOD.replace("https://api.openai.com,", "https://api.openai.com/v1,")).await;
    assert_eq!(checked.code, Some(0));
    assert!(checked.stdout.contains("ok (1 users, 2 channels)"));
    assert!(
        checked.stderr.contains("f.yaml:5:") && checked.stderr.contains("base_url"),
        "{}",
        checked.stderr
    );
    assert!(!checked.stderr.contains("sk_openai_xxx"), "{}", checked.stderr);
}

#[tokio::test]
async fn every_problem_is_shown_at_once_with_its_place() {
    let bad = GOOD
        .replace("department:", "departmnt:")
        .replace("[aliyun, openai]", "[aliyun, opnai]")
        .replace("max_connections: 1000", "max_connections: many");
    let checked = check(&bad).await;
    assert_eq!(checked.code, Some(2));
    assert_eq!(checked.stdout, "");
    for expected in
        ["f.yaml:2:", "f.yaml:6:", "did you mean `department`?", "did you mean `openai`?", "max_connections"]
    {
        assert!(checked.stderr.contains(expected), "{expected} in\n{}", checked.stderr);
    }
    for key in ["pk_user1_xxx", "sk_aliyun_xxx", "sk_openai_xxx"] {
        assert!(!checked.stderr.contains(key), "{key} in\n{}", checked.stderr);
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_a_problem_too() {
    let dir = tempfile::tempdir().unwrap();
    let missing = finished(aiproxy(dir.path(), &["check", "nothing.yaml"])).await;
    assert_eq!(missing.code, Some(2));
    assert!(missing.stderr.contains("nothing.yaml"), "{}", missing.stderr);
    for text in ["", "users: [", "\u{0}", "a: b: c", "- 1"] {
        assert_eq!(check(text).await.code, Some(2), "{text:?}");
    }
}

#[tokio::test]
async fn secrets_come_from_the_environment_and_from_files() {
    let dir = tempfile::tempdir().unwrap();
    let text =
        GOOD.replace("sk_openai_xxx", "\"${OPENAI_API_KEY}\"").replace("sk_aliyun_xxx", "file:aliyun.key");
    std::fs::write(dir.path().join("f.yaml"), text).unwrap();
    let unset = finished(aiproxy(dir.path(), &["check", "f.yaml"])).await;
    assert_eq!(unset.code, Some(2));
    assert!(
        unset.stderr.contains("OPENAI_API_KEY") && unset.stderr.contains("aliyun.key"),
        "{}",
        unset.stderr
    );
    std::fs::write(dir.path().join("aliyun.key"), "sk-from-file\n").unwrap();
    let mut command = aiproxy(dir.path(), &["check", "f.yaml"]);
    command.env("OPENAI_API_KEY", "sk-from-env");
    let set = finished(command).await;
    assert_eq!(set.code, Some(0), "{}", set.stderr);
}

#[tokio::test]
async fn every_example_is_fine() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut seen = 0;
    for file in std::fs::read_dir(&examples).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let mut command = aiproxy(&examples, &["check", file.to_str().unwrap()]);
        for name in text.split("${").skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name) {
            command.env(name, format!("value-of-{name}"));
        }
        let checked = finished(command).await;
        assert_eq!(checked.code, Some(0), "{}: {}", file.display(), checked.stderr);
        seen += 1;
    }
    assert!(seen > 0);
}
