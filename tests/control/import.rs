//! Moving a file into the database, broken off at any point.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use super::{BINARY, Command, aiproxy, text};

/// A file with this many users.
fn file(folder: &Path, users: usize) -> std::path::PathBuf {
    let users: serde_json::Map<String, Value> = (0..users)
        .map(|n| {
            let user = json!({"name": format!("用户{n}"), "proxy_key": format!("pk_import_{n:08}"), "channels": ["main"]});
            (format!("u{n:05}"), user)
        })
        .collect();
    let config = json!({
        "users": users,
        "channels": {"main": {"platform": "custom", "base_url": "http://127.0.0.1:1", "api_key": "sk-import"}},
        "system": {"log_level": "warn"},
    });
    let path = folder.join("aiproxy.yaml");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// Users in the database, by what `export` says.
fn exported(folder: &Path) -> usize {
    let empty = folder.join("settings.yaml");
    std::fs::write(&empty, "system: {log_level: warn}\n").unwrap();
    let output = aiproxy(folder, &["export", "--config", "settings.yaml"]);
    match output.status.success() {
        true => text(&output).matches("sha256:").count(),
        false => {
            assert!(text(&output).contains("there is no database"), "{}", text(&output));
            0
        }
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "figures for whoever runs it")]
fn killed_at_any_moment_it_leaves_all_or_nothing() {
    const USERS: usize = 2000;
    let rounds = if std::env::var_os("AIPROXY_SOAK").is_some() { 150 } else { 15 };
    let (mut none, mut all) = (0, 0);
    for round in 0..rounds {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), USERS);
        let whole = std::fs::read_to_string(&path).unwrap();
        let mut child = Command::new(BINARY)
            .args(["import", "aiproxy.yaml"])
            .current_dir(folder.path())
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        #[expect(clippy::disallowed_methods, reason = "the process is to be hit at some moment of its work")]
        std::thread::sleep(Duration::from_millis(100 * round % 1900));
        let _ = child.kill();
        child.wait().unwrap();
        match exported(folder.path()) {
            0 => none += 1,
            USERS => all += 1,
            some => panic!("round {round}: {some} users"),
        }
        // The file is the old one or the new one.
        let left = std::fs::read_to_string(&path).unwrap();
        assert!(left == whole || left.contains("log_level") && !left.contains("pk_import"), "{left}");
        if left == whole {
            let again = aiproxy(folder.path(), &["import", "aiproxy.yaml"]);
            assert!(again.status.success(), "{}", text(&again));
        }
        assert_eq!(exported(folder.path()), USERS, "round {round}");
    }
    println!("{rounds} rounds: {none} found nothing, {all} everything");
}

#[test]
fn what_the_database_holds_is_not_overwritten_by_chance() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), 3);
    let dry = aiproxy(folder.path(), &["import", "aiproxy.yaml", "--dry-run"]);
    assert!(dry.status.success() && text(&dry).contains("nothing was written"), "{}", text(&dry));
    assert_eq!(exported(folder.path()), 0);
    let first = aiproxy(folder.path(), &["import", "aiproxy.yaml"]);
    assert!(first.status.success(), "{}", text(&first));
    let left = std::fs::read_to_string(&path).unwrap();
    assert_eq!(left.trim(), "system:\n  log_level: warn");
    let backup = std::fs::read_dir(folder.path()).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        path.extension().is_some_and(|it| it == "bak").then_some(path)
    });
    let backup: Vec<_> = backup.collect();
    assert_eq!(backup.len(), 1);
    assert!(std::fs::read_to_string(&backup[0]).unwrap().contains("pk_import_00000001"));

    let mut other: Value = serde_json::from_str(&std::fs::read_to_string(&backup[0]).unwrap()).unwrap();
    other["users"] = json!({"neu": {"proxy_key": "pk_import_neu", "channels": ["main"]}});
    std::fs::write(folder.path().join("other.yaml"), other.to_string()).unwrap();
    let import = |more: &[&str]| {
        let mut arguments = vec!["import", "other.yaml", "--config", "aiproxy.yaml"];
        arguments.extend(more);
        aiproxy(folder.path(), &arguments)
    };
    let refused = import(&[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused).contains("--replace") && text(&refused).contains("--merge"), "{}", text(&refused));
    assert_eq!(exported(folder.path()), 3);
    assert!(import(&["--merge"]).status.success());
    assert_eq!(exported(folder.path()), 4);
    assert!(import(&["--replace"]).status.success());
    assert_eq!(exported(folder.path()), 1);
}

#[test]
fn a_newer_schema_and_a_strange_file_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), 2);
    let status = aiproxy(folder.path(), &["migrate", "status"]);
    assert!(status.status.success() && text(&status).contains("pending"), "{}", text(&status));
    assert!(!folder.path().join("data/aiproxy.db").exists(), "looking makes nothing");
    let up = aiproxy(folder.path(), &["migrate", "up"]);
    assert!(
        up.status.success() && text(&up).contains("applied") && !text(&up).contains("pending"),
        "{}",
        text(&up)
    );
    let newer = "import sqlite3; db = sqlite3.connect('data/aiproxy.db'); db.execute(\"insert into _sqlx_migrations (version, description, installed_on, success, checksum, execution_time) values (9999, 'later', datetime('now'), 1, x'00', 0)\"); db.commit()";
    let python =
        std::process::Command::new("python3").args(["-c", newer]).current_dir(folder.path()).output();
    let python = python.unwrap();
    assert!(python.status.success(), "{}", text(&python));
    for command in
        [&["serve", "--config", "aiproxy.yaml"][..], &["import", "aiproxy.yaml"], &["migrate", "up"]]
    {
        let output = aiproxy(folder.path(), command);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {}", text(&output));
        assert!(
            text(&output).contains("9999") || text(&output).contains("newer"),
            "{command:?}: {}",
            text(&output)
        );
    }
    std::fs::write(
        folder.path().join("data/aiproxy.db"),
        "this is no database, it is a text file, long enough to be one of those",
    )
    .unwrap();
    for name in ["aiproxy.db-wal", "aiproxy.db-shm"] {
        let _ = std::fs::remove_file(folder.path().join("data").join(name));
    }
    let output = aiproxy(folder.path(), &["import", "aiproxy.yaml"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("database"), "{}", text(&output));
}
