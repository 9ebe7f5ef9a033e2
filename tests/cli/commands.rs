//! The smaller commands, and mistakes.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::{aiproxy, finished};

#[tokio::test]
async fn the_schema_is_json() {
    let dir = tempfile::tempdir().unwrap();
    let schema = finished(aiproxy(dir.path(), &["schema"])).await;
    assert_eq!(schema.code, Some(0));
    let schema: Value = serde_json::from_str(&schema.stdout).unwrap();
    assert!(schema["$schema"].is_string());
    assert!(schema["properties"]["users"].is_object());
    let reference = finished(aiproxy(dir.path(), &["schema", "--reference"])).await;
    assert!(reference.stdout.starts_with('#'), "{}", reference.stdout.lines().next().unwrap_or_default());
}

#[tokio::test]
async fn init_writes_a_file_that_check_takes_and_never_overwrites_one() {
    let dir = tempfile::tempdir().unwrap();
    let written = finished(aiproxy(dir.path(), &["init", "new"])).await;
    assert_eq!(written.code, Some(0), "{}", written.stderr);
    let file = dir.path().join("new/aiproxy.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let key = written.stdout.split_whitespace().find(|word| word.starts_with("pk_")).expect("a Proxy-Key");
    assert!(key.len() >= 40 && !text.contains(key), "the file holds only the digest");

    let mut command = aiproxy(dir.path(), &["check", "new/aiproxy.yaml"]);
    command
        .env("OPENAI_API_KEY", "sk-from-env")
        .env("DASHSCOPE_API_KEY", "sk-from-env-2")
        .env("ANTHROPIC_API_KEY", "sk-3");
    let checked = finished(command).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);

    let again = finished(aiproxy(dir.path(), &["init", "new"])).await;
    assert_eq!(again.code, Some(2));
    assert!(again.stderr.contains("exists already"), "{}", again.stderr);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[tokio::test]
async fn a_new_key_comes_with_its_digest_and_is_new_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut keys = Vec::new();
    for _ in 0..2 {
        let made = finished(aiproxy(dir.path(), &["key", "new"])).await;
        assert_eq!(made.code, Some(0));
        let field = |name: &str| {
            made.stdout.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
        };
        let (key, digest) = (field("proxy_key:"), field("proxy_key_sha256:"));
        assert!(key.starts_with("pk_") && digest.len() == 64);
        keys.push(key);
    }
    assert_ne!(keys[0], keys[1]);
}

#[tokio::test]
async fn completions_version_and_help_are_printed() {
    let dir = tempfile::tempdir().unwrap();
    let bash = finished(aiproxy(dir.path(), &["completions", "bash"])).await;
    assert!(bash.code == Some(0) && bash.stdout.contains("complete -F _aiproxy"));
    let version = finished(aiproxy(dir.path(), &["--version"])).await;
    assert_eq!(
        (version.code, version.stdout.as_str()),
        (Some(0), concat!("aiproxy ", env!("CARGO_PKG_VERSION"), "\n"))
    );
    let help = finished(aiproxy(dir.path(), &["--help"])).await;
    for command in ["serve", "check", "schema", "init", "key", "demo", "completions"] {
        assert!(help.stdout.contains(command), "{command}");
    }
}

#[tokio::test]
async fn mistakes_in_the_usage_exit_with_2() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in
        [&["--nothing"][..], &["serve", "--nothing"], &["nothing"], &["check"], &["completions", "cmd"], &[]]
    {
        let refused = finished(aiproxy(dir.path(), arguments)).await;
        assert_eq!(refused.code, Some(2), "{arguments:?}");
        assert!(!refused.stderr.is_empty(), "{arguments:?}");
    }
    let missing = finished(aiproxy(dir.path(), &["serve", "--config", "nothing.yaml"])).await;
    assert_eq!(missing.code, Some(2));
    assert!(missing.stderr.contains("nothing.yaml"), "{}", missing.stderr);
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let addr = taken.local_addr().unwrap();
    let text = format!(
        "users: {{u: {{proxy_key: pk_12345678, channels: [c]}}}}\n\
         channels: {{c: {{api_key: sk-1, base_url: \"https://api.openai.com\"}}}}\n\
         system: {{listen: {{http: \"{addr}\"}}}}\n"
    );
    std::fs::write(dir.path().join("aiproxy.yaml"), text).unwrap();
    let failed = finished(aiproxy(dir.path(), &["serve"])).await;
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    assert!(failed.stderr.contains(&addr.to_string()), "{}", failed.stderr);
}
