//! The scripts in `examples/`, as their users run them. The page there is tested by `sdk`, in a browser;
//! the configurations by the crate that reads them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aiproxy_testkit::{App, PROXY_KEY, run};

use crate::{relay, sdk};

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
