//! The scripts in `examples/`, as their users run them. The page there is tested by `sdk`, in a browser;
//! the configurations by the crate that reads them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aiproxy_testkit::{App, Ask, Authority, PROXY_KEY, Process, run};
use serde_json::json;

use crate::{doors, relay, sdk};

/// Python takes its time to load the SDK.
const LONG: Duration = Duration::from_secs(60);

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// What it printed.
async fn tries(app: &App, dir: &Path, mut script: Command) -> String {
    script.current_dir(dir).env("AIPROXY_URL", app.url()).env("AIPROXY_KEY", PROXY_KEY);
    let finished = run(script, LONG).await;
    assert_eq!(finished.code, Some(0), "{}\n{}", finished.stdout, finished.stderr);
    finished.stdout
}

#[tokio::test]
async fn the_python_script_hears_what_it_says() {
    let app = relay().start().await;
    let dir = tempfile::tempdir().unwrap();
    let python = |arguments: &[&str]| {
        let mut command = Command::new(sdk::interpreter());
        command.arg(example("realtime.py")).args(arguments);
        command
    };
    let said = tries(&app, dir.path(), python(&["--text", "one two"])).await;
    assert!(said.starts_with("one two\n") && said.ends_with("1.0 s of sound in answer.wav\n"), "{said}");
    let tone = std::fs::read(dir.path().join("answer.wav")).unwrap();
    assert_eq!((&tone[..4], tone.len()), (&b"RIFF"[..], 44 + 48_000));
    // A file in place of the tone; the sandbox says back what it hears.
    tries(&app, dir.path(), python(&["--wav", "answer.wav", "--out", "again.wav"])).await;
    assert!(std::fs::read(dir.path().join("again.wav")).unwrap() == tone);
    app.finish().await;
}

#[tokio::test]
async fn the_node_script_hears_what_it_says() {
    let app = relay().start().await;
    // Beside the packages that it says have to be installed.
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(example("realtime.mjs"), dir.path().join("realtime.mjs")).unwrap();
    std::os::unix::fs::symlink(sdk::node_modules(), dir.path().join("node_modules")).unwrap();
    let mut node = Command::new("node");
    node.args(["realtime.mjs", "你好 there"]);
    let said = tries(&app, dir.path(), node).await;
    assert!(said.starts_with("你好 there\n") && said.ends_with("1 s of sound\n"), "{said}");
    app.finish().await;
}

#[tokio::test]
async fn the_http3_script_streams_its_answers() {
    let authority = Authority::default();
    let app = doors::secure(&authority, &["127.0.0.1"]).file("ca.pem", &authority.pem()).start().await;
    let url = format!("https://{}", app.quic_addr());
    let mut script = Command::new(sdk::interpreter());
    script
        .arg(example("http3_client.py"))
        .args(["one two", "你好", "three", "--url", &url, "--ca", "ca.pem"]);
    let said = tries(&app, app.dir(), script).await;
    assert_eq!(said, "You said: one two\nYou said: 你好\nYou said: three\n");
    app.logged("a record", |line| line["protocol"] == "http3").await;
    app.finish().await;
}

#[tokio::test]
async fn the_backend_mints_secrets_for_its_page_alone() {
    let mut app = relay().start().await;
    let mut command = Command::new(sdk::interpreter());
    command.arg(example("secret_backend.py"));
    command.env("AIPROXY_URL", app.url()).env("AIPROXY_KEY", PROXY_KEY).env("PORT", "0");
    let backend = Process::start(command);
    let origin =
        backend.printed("its origin", |line| line.starts_with("http://").then(|| line.to_owned())).await;
    let addr = origin.strip_prefix("http://").unwrap().parse().unwrap();
    assert!(app.change(|c| c["system"]["cors"] = json!({"origins": [origin]})).await);
    let ask = |method, path| Ask::new(addr, "", method, path).no_key();
    let page = ask("GET", "/").send().await.text().await;
    assert!(page.contains("openai-insecure-api-key.") && !page.contains(PROXY_KEY));
    assert_eq!(ask("POST", "/secret").send().await.status, 403);
    let mut answer = ask("POST", "/secret").header("origin", &origin).send().await;
    assert_eq!(answer.status, 200);
    let said = answer.json().await;
    let value = said["value"].as_str().unwrap();
    app.hide_from_platform("a client secret", value);
    assert_eq!(said["url"], format!("{}/v1/realtime", app.url().replace("http", "ws")));
    let protocols = format!("realtime, openai-insecure-api-key.{value}");
    let open = || app.socket("/v1/realtime").no_key().protocols(&protocols);
    assert_eq!(open().refusal().await, (403, "secret_origin_not_allowed".into()));
    let mut socket = open().header("origin", &origin).open().await;
    assert_eq!(socket.event().await["type"], "session.created");
    assert_eq!(open().header("origin", &origin).refusal().await, (403, "secret_used".into()));
    drop(socket);
    // What AIProxy says reaches the page.
    assert!(app.change(|c| c["users"]["user1"]["models"] = json!(["o3"])).await);
    let mut answer = ask("POST", "/secret").header("origin", &origin).send().await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json().await["error"]["code"]),
        (502, &json!("model_not_allowed"))
    );
    backend.signal("TERM");
    backend.end().await;
    app.finish().await;
}
