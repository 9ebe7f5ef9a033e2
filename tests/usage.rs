//! Who used what: the journal, the access log behind it, and `aiproxy usage`.

mod cli;
mod counted;
mod disk;
mod kills;
mod log_files;
mod sessions;
mod streams;

use std::path::Path;
use std::process::Command;

use aiproxy_testkit::{App, BOUND, run};
use serde_json::Value;

use crate::BINARY;

/// Where the journal is unless the test says otherwise.
fn journal(app: &App) -> std::path::PathBuf {
    app.dir().join("data/journal")
}

/// What `aiproxy usage` prints, of the journal in this folder.
async fn usage(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(BINARY);
    command.arg("usage").args(arguments).arg("--dir").arg(folder);
    let finished = run(command, BOUND).await;
    assert_eq!(finished.code, Some(0), "{}{}", finished.stdout, finished.stderr);
    finished.stdout
}

/// What `aiproxy usage sum --json` says.
async fn sum(app: &App, by: &str, more: &[&str]) -> Value {
    let mut arguments = vec!["sum", "--json", "--by", by];
    arguments.extend(more);
    serde_json::from_str(&usage(&journal(app), &arguments).await).unwrap()
}

/// The one row of a sum that has this value.
fn row<'v>(sum: &'v Value, by: &str, value: &str) -> &'v Value {
    let rows = sum["rows"].as_array().unwrap();
    rows.iter().find(|row| row[by] == value).unwrap_or_else(|| panic!("no row {value} in {sum}"))
}

/// The records of the access log's files in this folder, and of nothing else.
fn lines(folder: &Path) -> Vec<Value> {
    let files = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    let logs = files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("access"));
    let mut all = Vec::new();
    for log in logs {
        let text = std::fs::read_to_string(log).unwrap();
        all.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    }
    all
}
