//! Moving a file into the database, broken off at any point.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use super::{BINARY, aiproxy, python, text};
use crate::sockets::many;

const USERS: usize = 2000;

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

/// Starts an import that is to be killed.
fn started(folder: &Path) -> Child {
    let mut command = Command::new(BINARY);
    command.args(["import", "aiproxy.yaml"]).current_dir(folder).env_clear();
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Waits until this much of the database's log is written, or the import is over.
fn written(folder: &Path, bytes: u64, child: &mut Child) {
    let log = folder.join("data/aiproxy.db-wal");
    while child.try_wait().unwrap().is_none() && std::fs::metadata(&log).map_or(0, |it| it.len()) < bytes {
        std::thread::yield_now();
    }
}

/// The database has all of the file or nothing of it, and the file is the old one or the new one: which.
fn whole(folder: &Path, before: &str, round: u64) -> (usize, bool) {
    let users = exported(folder);
    assert!(users == 0 || users == USERS, "round {round}: {users} users");
    let left = std::fs::read_to_string(folder.join("aiproxy.yaml")).unwrap();
    let old = left == before;
    assert!(old || left.trim() == "system:\n  log_level: warn", "round {round}: {} bytes", left.len());
    assert!(old || users == USERS, "round {round}: the file gave up what the database does not have");
    (users, old)
}

/// A third of the rounds are spread over the whole time that it takes, the others over what it writes.
#[test]
fn killed_at_any_moment_it_leaves_all_or_nothing() {
    let rounds: u64 = if many::soaking() { 150 } else { 15 };
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), USERS);
    let began = Instant::now();
    let undisturbed = aiproxy(folder.path(), &["import", "aiproxy.yaml"]);
    assert!(undisturbed.status.success(), "{}", text(&undisturbed));
    let time = began.elapsed();
    let (mut nothing, mut all, mut moved, mut killed) = (0, 0, 0, 0);
    for round in 0..rounds {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        file(folder, USERS);
        let before = std::fs::read_to_string(folder.join("aiproxy.yaml")).unwrap();
        let mut child = started(folder);
        if round % 3 == 0 {
            #[expect(
                clippy::disallowed_methods,
                reason = "the process is to be hit at some moment of its work"
            )]
            std::thread::sleep(time * u32::try_from(round).unwrap() / u32::try_from(rounds).unwrap());
        } else {
            // What 2,000 users take is some two megabytes.
            written(folder, round * 2_200_000 / rounds, &mut child);
        }
        let _ = child.kill();
        killed += usize::from(child.wait().unwrap().code().is_none());
        let (users, old) = whole(folder, &before, round);
        nothing += usize::from(users == 0);
        all += usize::from(users == USERS);
        moved += usize::from(!old);
        if old {
            let again = aiproxy(folder, &["import", "aiproxy.yaml"]);
            assert!(again.status.success(), "round {round}: {}", text(&again));
        }
        assert_eq!(whole(folder, &before, round), (USERS, false));
    }
    println!(
        "an import takes {time:?}; of {rounds}, {killed} were killed under way: {nothing} left nothing, {all} everything, {moved} of these the new file"
    );
}

/// Files may grow to this size and no further, as on a disk that is full.
#[test]
fn a_full_disk_leaves_what_was_there() {
    let (mut nothing, mut all) = (0, 0);
    for (round, kilobytes) in [0, 4, 40, 100, 250, 400, 800, 1600, 4000].into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        file(folder, USERS);
        let before = std::fs::read_to_string(folder.join("aiproxy.yaml")).unwrap();
        // In units of 512 bytes; without the signal, writing fails as it does without space.
        let line = format!("trap '' XFSZ; ulimit -f {}; exec {BINARY} import aiproxy.yaml", kilobytes * 2);
        let output = Command::new("sh").args(["-c", &line]).current_dir(folder).output().unwrap();
        let (users, old) = whole(folder, &before, round as u64);
        if users == 0 || old {
            assert_eq!(output.status.code(), Some(1), "{kilobytes} KiB: {}", text(&output));
            assert!(text(&output).starts_with("aiproxy: "), "{kilobytes} KiB: {}", text(&output));
        }
        nothing += usize::from(users == 0);
        all += usize::from(users == USERS);
        if old {
            let again = aiproxy(folder, &["import", "aiproxy.yaml"]);
            assert!(again.status.success(), "{kilobytes} KiB: {}", text(&again));
        }
        assert_eq!(whole(folder, &before, round as u64), (USERS, false));
    }
    println!("without space: {nothing} left nothing, {all} everything");
    assert!(nothing > 1 && all > 0);
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
fn the_schema_is_told_and_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), 2);
    let run = |what: &str| {
        let output = aiproxy(folder.path(), &["migrate", what]);
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    // Of a database that there is not.
    assert!(run("status").contains("pending"));
    assert!(!folder.path().join("data/aiproxy.db").exists(), "looking makes nothing");
    let up = run("up");
    assert!(up.contains("applied") && !up.contains("pending"), "{up}");
    assert_eq!(run("status"), up);
    assert_eq!(run("up"), up, "twice does no harm");
    // Of one that is older: before the first step there is an empty file.
    let database = folder.path().join("data/aiproxy.db");
    for name in ["data/aiproxy.db-wal", "data/aiproxy.db-shm"] {
        let _ = std::fs::remove_file(folder.path().join(name));
    }
    std::fs::write(&database, "").unwrap();
    assert!(run("status").contains("pending"));
    assert_eq!(std::fs::metadata(&database).unwrap().len(), 0, "looking changes nothing");
    assert_eq!(run("up"), up);
}

#[test]
fn a_newer_schema_and_a_strange_file_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), 2);
    let before = std::fs::read_to_string(&path).unwrap();
    assert!(aiproxy(folder.path(), &["migrate", "up"]).status.success());
    python(
        folder.path(),
        "import sqlite3; db = sqlite3.connect('data/aiproxy.db'); db.execute(\"insert into _sqlx_migrations (version, description, installed_on, success, checksum, execution_time) values (9999, 'later', datetime('now'), 1, x'00', 0)\"); db.commit()",
    );
    std::fs::write(folder.path().join("settings.yaml"), "system: {log_level: warn}\n").unwrap();
    for command in [
        &["serve", "--config", "settings.yaml"][..],
        &["serve", "--config", "aiproxy.yaml"],
        &["import", "aiproxy.yaml"],
        &["export", "--config", "settings.yaml"],
        &["migrate", "up"],
    ] {
        let output = aiproxy(folder.path(), command);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {}", text(&output));
        assert!(text(&output).contains("9999"), "{command:?}: {}", text(&output));
    }
    // A file of somebody else, and none of SQLite's.
    for name in ["aiproxy.db", "aiproxy.db-wal", "aiproxy.db-shm"] {
        let _ = std::fs::remove_file(folder.path().join("data").join(name));
    }
    python(
        folder.path(),
        "import sqlite3; db = sqlite3.connect('data/aiproxy.db'); db.execute('create table theirs (a)'); db.commit()",
    );
    for _ in 0..2 {
        let output = aiproxy(folder.path(), &["import", "aiproxy.yaml"]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains("database"), "{}", text(&output));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
        std::fs::write(
            folder.path().join("data/aiproxy.db"),
            "this is no database, but a text of some length",
        )
        .unwrap();
    }
}
