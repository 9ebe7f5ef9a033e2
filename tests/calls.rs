//! Calls over WebRTC: the peers that place and take them (`tests/peers`), as programs.

mod behaviours;
mod direct;
mod limits;
mod many;
mod peers;
mod relayed;
mod secrets;

use std::process::Command;
use std::time::Duration;

use aiproxy_testkit::{Ask, Process, run};
use serde_json::Value;

use crate::sdk;

/// A browser takes its time to start where many tests run.
const BOUND: Duration = Duration::from_secs(120);

/// A caller on aiortc, as `call.py` says: what it tells of its call. It is refused with exit code 3.
pub(crate) async fn python(url: &str, key: &str, arguments: &[&str]) -> Value {
    let mut script = sdk::python("call.py");
    script.arg(url).args(["--key", key]).args(arguments);
    told(script, &[0, 3]).await
}

/// A caller in Chromium, as `call.mjs` says.
pub(crate) async fn chromium(url: &str, key: &str, arguments: &[&str]) -> Value {
    let mut script = sdk::node("call.mjs");
    script.arg(url).args(["--key", key]).args(arguments);
    told(script, &[0, 3]).await
}

/// The Agents SDK in Chromium, as `agents_call.mjs` says.
pub(crate) async fn agents(url: &str, key: &str, arguments: &[&str]) -> Value {
    let mut script = sdk::node("agents_call.mjs");
    script.args([url, key]).args(arguments);
    told(script, &[0, 1]).await
}

/// A page of the examples in Chromium, as `call_pages.mjs` says.
pub(crate) async fn page(which: &str, url: &str, key: &str, arguments: &[&str]) -> Value {
    let mut script = sdk::node("call_pages.mjs");
    script.args([which, url, key]).args(arguments);
    told(script, &[0, 3]).await
}

/// Runs a script that prints one JSON object.
async fn told(mut script: Command, codes: &[i32]) -> Value {
    let work = tempfile::tempdir().expect("a temporary folder");
    script.env("WORK_DIR", work.path());
    let finished = run(script, BOUND).await;
    assert!(
        finished.code.is_some_and(|code| codes.contains(&code)),
        "{:?}\n{}\n{}",
        finished.code,
        finished.stdout,
        finished.stderr
    );
    serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", finished.stdout, finished.stderr))
}

/// A platform on aiortc, as `call_upstream.py` says.
pub(crate) struct Upstream {
    _process: Process,
    pub(crate) addr: std::net::SocketAddr,
}

impl Upstream {
    pub(crate) async fn start(key: &str, arguments: &[&str]) -> Upstream {
        let mut script = sdk::python("call_upstream.py");
        script.args(["--key", key]).args(arguments);
        let process = Process::start(script);
        let port = process
            .printed("its port", |line| serde_json::from_str::<Value>(line).ok()?["port"].as_u64())
            .await;
        let port = u16::try_from(port).expect("a port");
        Upstream { _process: process, addr: ([127, 0, 0, 1], port).into() }
    }

    /// What it saw.
    pub(crate) async fn stat(&self) -> Value {
        Ask::new(self.addr, "none", "GET", "/stat").no_key().send().await.json().await
    }
}

/// Texts of a JSON array.
pub(crate) fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
