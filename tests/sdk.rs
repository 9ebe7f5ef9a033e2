//! Vendors' own SDKs as callers: `tests/peers` says what they check.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aiproxy_testkit::{App, Authority, Builder, PROXY_KEY, RawUpstream, run};
use serde_json::json;

use crate::relay;

/// Four scripts move 64 MiB each way through an unoptimised build.
const BOUND: Duration = Duration::from_secs(240);

const MISSING: &str = "run `make deps` first";

fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers")
}

/// The interpreter that has the packages.
pub(crate) fn interpreter() -> PathBuf {
    let interpreter = std::env::var_os("AIPROXY_TEST_PYTHON")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python"), PathBuf::from);
    assert!(interpreter.exists(), "{} is missing: {MISSING}", interpreter.display());
    interpreter
}

/// Where Node's packages are.
pub(crate) fn node_modules() -> PathBuf {
    let modules = peers().join("node/node_modules");
    assert!(modules.exists(), "{} is missing: {MISSING}", modules.display());
    modules
}

pub(crate) fn python(script: &str) -> Command {
    let mut command = Command::new(interpreter());
    command.arg(peers().join("python").join(script));
    command
}

pub(crate) fn node(script: &str) -> Command {
    node_modules();
    let mut command = Command::new("node");
    command.arg(peers().join("node").join(script));
    command
}

/// Runs a script against a relay of its own: it watches the relay's memory.
async fn passes(script: Command) {
    let app = quiet(relay()).start().await;
    let url = app.url();
    passes_at(app, url, script).await;
}

/// The same over TLS, where the SDK is told which authority to trust.
async fn passes_over_tls(mut script: Command) {
    let authority = Authority::default();
    let app = quiet(crate::doors::secure(&authority, &["127.0.0.1"]))
        .file("ca.pem", &authority.pem())
        .start()
        .await;
    for variable in ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"] {
        script.env(variable, app.dir().join("ca.pem"));
    }
    let url = format!("https://{}", app.https_addr());
    passes_at(app, url, script).await;
}

pub(crate) fn quiet(builder: Builder) -> Builder {
    builder.config(|c| {
        c["system"]["log_level"] = "info".into();
        c["channels"]["main"]["ownership"] = "enforce".into();
    })
}

async fn passes_at(app: App, url: String, script: Command) {
    succeeds(&app, url, script).await;
    app.finish().await;
}

/// Runs a script whose checks have to succeed.
pub(crate) async fn succeeds(app: &App, url: String, mut script: Command) {
    let work = tempfile::tempdir().expect("a temporary folder");
    script
        .env("AIPROXY_URL", url)
        .env("AIPROXY_KEY", PROXY_KEY)
        .env("SANDBOX_URL", app.sandbox().base_url())
        .env("RELAY_PID", app.process().pid().to_string())
        .env("WORK_DIR", work.path());
    let finished = run(script, BOUND).await;
    assert_eq!(finished.code, Some(0), "{}\n{}", finished.stdout, finished.stderr);
    assert!(finished.stdout.contains(", 0 failed"), "{}", finished.stdout);
}

#[tokio::test]
async fn the_python_sdk_of_openai_works() {
    passes(python("openai_sdk.py")).await;
}

#[tokio::test]
async fn the_python_sdk_of_anthropic_works() {
    passes(python("anthropic_sdk.py")).await;
}

#[tokio::test]
async fn the_python_sdk_of_dashscope_works() {
    passes(python("dashscope_sdk.py")).await;
}

#[tokio::test]
async fn the_node_sdk_of_openai_works() {
    passes(node("openai_sdk.mjs")).await;
}

#[tokio::test]
async fn the_python_sdk_of_openai_works_over_tls() {
    passes_over_tls(python("openai_sdk.py")).await;
}

#[tokio::test]
async fn the_node_sdk_of_openai_works_over_tls() {
    passes_over_tls(node("openai_sdk.mjs")).await;
}

#[tokio::test]
async fn realtime_sockets_work_in_python() {
    passes(python("realtime.py")).await;
}

#[tokio::test]
async fn realtime_sockets_work_in_python_over_tls() {
    passes_over_tls(python("realtime.py")).await;
}

#[tokio::test]
async fn the_python_sdk_of_openai_mints_client_secrets_and_uses_them() {
    let app = quiet(relay()).config(|c| c["channels"]["main"]["platform"] = "openai".into()).start().await;
    let url = app.url();
    passes_at(app, url, python("client_secrets.py")).await;
}

#[tokio::test]
async fn realtime_sockets_work_in_node_over_tls() {
    passes_over_tls(node("realtime.mjs")).await;
}

#[tokio::test]
async fn the_agents_sdk_speaks_realtime() {
    passes(node("agents.mjs")).await;
}

/// The realtime page of the examples, at an origin of its own.
pub(crate) async fn page() -> (RawUpstream, String) {
    let page = include_str!("../examples/realtime.html");
    let head = format!("content-type: text/html\r\ncontent-length: {}", page.len());
    let server = RawUpstream::answering(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{page}")).await;
    let origin = format!("http://{}", server.addr());
    (server, origin)
}

#[tokio::test]
async fn a_browser_speaks_through_subprotocols_from_the_origins_that_are_allowed() {
    let (_allowed_server, allowed) = page().await;
    let (_other_server, other) = page().await;
    let app = quiet(relay()).config(|c| c["system"]["cors"] = json!({"origins": [allowed]})).start().await;
    let mut script = node("browser.mjs");
    script.env("PAGE_URL", &allowed).env("OTHER_PAGE_URL", other);
    succeeds(&app, app.url(), script).await;
    app.logged("the page of another origin", |line| line["error"] == "origin_not_allowed").await;
    let line =
        app.logged("a session", |line| line["status"] == 101 && line["usage"]["audio_input"] != 0).await;
    assert_eq!((&line["model"], &line["close_code"]), (&json!("gpt-realtime"), &json!(1000)), "{line}");
    app.finish().await;
}
