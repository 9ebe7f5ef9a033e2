//! The documents say what the program does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use aiproxy_core::{ErrorKind, Fault};
use aiproxy_testkit::{BOUND, Process, run};
use serde_json::Value;

use crate::BINARY;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Markdown files but those of packages.
fn pages() -> Vec<PathBuf> {
    let folder = |name: &str| fs::read_dir(root().join(name)).expect("a folder");
    ["", "docs", "examples", "tests/peers"]
        .into_iter()
        .flat_map(folder)
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect()
}

/// Fenced blocks of one language.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    text.split(&format!("```{language}\n")).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn the_table_of_status_codes_is_the_one_in_the_code() {
    let page = read("docs/status-codes.md");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains("| `"))
        .map(|line| line.split('|').map(str::trim).skip(1).take(4).collect())
        .collect();
    for kind in ErrorKind::ALL {
        let fault = match kind.fault() {
            Fault::Caller => "caller",
            Fault::Channel => "channel",
            Fault::Us => "us",
        };
        let row = vec![
            kind.status().as_str().to_owned(),
            format!("`{}`", kind.code()),
            fault.to_owned(),
            if kind.may_retry() { "yes" } else { "no" }.to_owned(),
        ];
        assert!(rows.iter().any(|have| *have == row), "docs/status-codes.md lacks the row {row:?}");
    }
    assert_eq!(rows.len(), ErrorKind::ALL.len(), "docs/status-codes.md has rows that the code has not");
}

#[test]
fn every_configuration_in_the_documents_is_accepted() {
    let mut checked = 0;
    for page in pages() {
        for block in blocks(&read(&page), "yaml").into_iter().filter(|block| block.contains("users:")) {
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join("block.yaml");
            fs::write(&file, block).expect("a file");
            let output = Command::new(BINARY).arg("check").arg(&file).output().expect("the program runs");
            assert!(
                output.status.success(),
                "{}:\n{block}\n{}",
                page.display(),
                String::from_utf8_lossy(&output.stderr)
            );
            checked += 1;
        }
    }
    assert!(checked >= 2, "the READMEs hold a configuration each");
}

#[test]
fn links_between_documents_lead_somewhere() {
    for page in pages() {
        let text = read(&page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = page.parent().expect("a folder").join(target);
            assert!(path.exists(), "{} links to {target}", page.display());
        }
    }
}

#[test]
fn both_readmes_show_the_same_commands() {
    let (english, chinese) = (read("README.md"), read("README.zh-CN.md"));
    for language in ["yaml", "python"] {
        assert_eq!(blocks(&english, language), blocks(&chinese, language));
    }
    let commands = |text: &str| -> Vec<String> {
        blocks(text, "sh").iter().flat_map(|block| block.lines()).map(without_comment).collect()
    };
    assert_eq!(commands(&english), commands(&chinese));
    let first_screen: String = english.lines().take(40).collect::<Vec<_>>().join("\n");
    for shown in ["make run", "make test", "curl "] {
        assert!(first_screen.contains(shown), "the first screen shows `{shown}`");
    }
}

fn without_comment(line: &str) -> String {
    line.split(" #").next().unwrap_or_default().trim_end().to_owned()
}

#[tokio::test]
async fn the_readmes_curl_answers_through_the_relay() {
    let readme = read("README.md");
    let curl = blocks(&readme, "sh").into_iter().find(|block| block.starts_with("curl ")).expect("a curl");
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(BINARY);
    command.current_dir(&folder).args([
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
    ]);
    let demo = Process::start(command);
    let line: Value = demo.printed("one line", |line| serde_json::from_str(line).ok()).await;
    let http = line["http"].as_str().expect("a base URL");
    let mut command = Command::new("sh");
    command.current_dir(&folder).arg("-c");
    command.arg(format!("{} -s --fail", curl.trim_end().replace("http://127.0.0.1:8080", http)));
    let answered = run(command, BOUND).await;
    assert_eq!(answered.code, Some(0), "{}", answered.stderr);
    let answer: Value = serde_json::from_str(&answered.stdout).expect("JSON");
    assert_eq!(answer["choices"][0]["message"]["content"], "You said: 你好 hello");
    demo.signal("INT");
    assert_eq!(demo.end().await.code, Some(0));
}
