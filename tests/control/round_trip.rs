//! Out of a file, into the database, and back.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aiproxy_testkit::{App, Ask, Client, PROXY_KEY, until};
use serde_json::json;

use super::{Api, PASSWORD, aiproxy, called, text};
use crate::relay;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What secrets of the examples refer to.
fn with_secrets(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = std::process::Command::new(super::BINARY);
    command.args(arguments).current_dir(folder).env_clear();
    for (name, value) in [
        ("PK_ZHANGSAN", "pk_zhangsan_0123456789"),
        ("DASHSCOPE_API_KEY", "sk-dashscope-1"),
        ("OPENAI_API_KEY", "sk-openai-${NOT_EXPANDED}"),
        ("OPENAI_PROJECT", "proj_1"),
        ("AZURE_OPENAI_KEY", "azure-1"),
        ("INTERNAL_KEY", "internal-1"),
    ] {
        command.env(name, value);
    }
    command.output().unwrap()
}

#[test]
fn the_original_file_comes_back_equal() {
    let original = std::fs::read_to_string(format!("{ROOT}/examples/original.yaml")).unwrap();
    let export = |folder: &Path| {
        let output = aiproxy(folder, &["export", "--config", "aiproxy.yaml", "--with-secrets"]);
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let import = |folder: &Path| {
        let output = aiproxy(folder, &["import", "aiproxy.yaml"]);
        assert!(output.status.success(), "{}", text(&output));
    };
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(one.path().join("aiproxy.yaml"), &original).unwrap();
    // What the file means, before anything was imported.
    let meant = export(one.path());
    import(one.path());
    let first = export(one.path());
    assert_eq!(first, meant, "the database means what the file meant");
    for part in ["张三", "技术部", "sk_aliyun_xxx", "阿里云百炼"] {
        assert!(first.contains(part), "{first}");
    }
    assert!(!first.contains("pk_user1_xxx"), "of Proxy-Keys there are digests only");
    std::fs::write(two.path().join("aiproxy.yaml"), &first).unwrap();
    import(two.path());
    assert_eq!(export(two.path()), first);
    // The relay would serve the same from either file.
    let before = two.path().join("before.yaml");
    std::fs::write(&before, &original).unwrap();
    let loaded = |path: &Path| aiproxy_config::load_file(path).unwrap();
    std::fs::write(two.path().join("after.yaml"), &first).unwrap();
    let (old, new) = (loaded(&before), loaded(&two.path().join("after.yaml")));
    let mut same_settings = new.snapshot.clone();
    same_settings.system = old.snapshot.system.clone();
    let differences = aiproxy_config::diff(&old.snapshot, &same_settings);
    assert!(differences.is_empty(), "{differences:?}");
    assert_eq!((old.users, old.documents), (new.users, new.documents));
    // What it is not about stays in the file, and all of it in a copy.
    let left = std::fs::read_to_string(one.path().join("aiproxy.yaml")).unwrap();
    assert!(left.contains("config_reload_interval: 300"), "{left}");
    assert!(!left.contains("users:") && !left.contains("channels:") && !left.contains("pk_user1"), "{left}");
    let copies: Vec<_> = std::fs::read_dir(one.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let copy = copies.iter().find(|path| path.extension().is_some_and(|it| it == "bak")).unwrap();
    assert_eq!(std::fs::read_to_string(copy).unwrap(), original);
    assert_eq!(std::fs::metadata(copy).unwrap().permissions().mode() & 0o777, 0o600);
    // Without secrets there are none.
    let shown = aiproxy(two.path(), &["export", "--config", "aiproxy.yaml"]);
    assert!(!text(&shown).contains("sk_aliyun") && !text(&shown).contains("sk_openai"), "{}", text(&shown));
}

#[test]
fn every_field_comes_back_equal() {
    let folder = tempfile::tempdir().unwrap();
    let full = std::fs::read_to_string(format!("{ROOT}/examples/full.yaml")).unwrap();
    // The files that it names.
    let ca = aiproxy_testkit::Authority::new("ca").pem();
    let mut needed = full.clone();
    for line in full.lines() {
        for part in line.split(['"', ' ', '[', ']', ',', '{', '}']) {
            let path = part.strip_prefix("file:").unwrap_or(part);
            if path.ends_with(".pem") || part.starts_with("file:") {
                let file = folder.path().join(path);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                let content = if path.contains("key") { "-----BEGIN PRIVATE KEY-----\nx\n" } else { &ca };
                std::fs::write(file, content).unwrap();
            }
        }
    }
    // Listeners and certificates are not what this is about.
    if let Some(at) = needed.find("\nsystem:") {
        needed.truncate(at + 1);
    }
    std::fs::write(folder.path().join("aiproxy.yaml"), &needed).unwrap();
    let run = |arguments: &[&str]| {
        let output = with_secrets(folder.path(), arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let meant = run(&["export", "--config", "aiproxy.yaml", "--with-secrets"]);
    run(&["import", "aiproxy.yaml"]);
    let first = run(&["export", "--config", "aiproxy.yaml", "--with-secrets"]);
    assert_eq!(first, meant);
    for part in ["openai-project", "proj_1", "${NOT_EXPANDED}", "gpt-realtime*", "季度评审", "retires_at"]
    {
        assert!(first.contains(part), "{part}: {first}");
    }
    // Elsewhere, where none of that environment and none of those files is.
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("aiproxy.yaml"), &first).unwrap();
    let into = aiproxy(other.path(), &["import", "aiproxy.yaml"]);
    assert!(into.status.success(), "{}", text(&into));
    let second = aiproxy(other.path(), &["export", "--config", "aiproxy.yaml", "--with-secrets"]);
    assert_eq!(String::from_utf8(second.stdout).unwrap(), first);
    std::fs::write(folder.path().join("again.yaml"), &first).unwrap();
    let merged = run(&["import", "again.yaml", "--config", "aiproxy.yaml", "--merge"]);
    assert!(merged.contains("already holds these"), "{merged}");
}

#[tokio::test]
async fn a_relay_at_work_goes_over_to_the_database_without_a_gap() {
    let app = relay().env("AIPROXY_ADMIN_PASSWORD", PASSWORD).start().await;
    let api = Api::sign_in(&app).await;
    assert_eq!(api.get("/status").await["source"], "file");
    let stop = Arc::new(AtomicBool::new(false));
    let (at, stopping) = (app.addr(), Arc::clone(&stop));
    let calls = tokio::spawn(async move {
        let mut calls = 0;
        // One caller keeps its connection, the other comes anew each time.
        let mut client = Client::connect(at).await;
        while !stopping.load(Ordering::SeqCst) {
            let answer = Ask::new(at, PROXY_KEY, "GET", "/v1/models").send().await;
            assert_eq!(answer.status, 200, "call {calls}");
            let kept = client.send(Ask::new(at, PROXY_KEY, "GET", "/v1/models")).await.bytes().await;
            assert!(kept.starts_with(b"{\"object\":\"list\""), "call {calls}");
            calls += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        calls
    });
    import_live(&app).await;
    while api.get("/status").await["source"] != "database" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // From here on the API edits.
    api.done("PATCH", "/users/user1", &json!({"department": "市场部"})).await;
    assert_eq!(called(&app, PROXY_KEY, "/v1/models").await.0, 200);
    stop.store(true, Ordering::SeqCst);
    assert!(calls.await.unwrap() > 3);
    app.finish().await;
}

async fn import_live(app: &App) {
    let folder = app.dir().to_owned();
    let output =
        tokio::task::spawn_blocking(move || aiproxy(&folder, &["import", "aiproxy.yaml"])).await.unwrap();
    assert!(output.status.success(), "{}", text(&output));
    until("the relay noticing", || (app.reloads().0 > 0).then_some(())).await;
}
