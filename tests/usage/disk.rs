//! A full disk and a folder that cannot be written: requests go on, what is not kept is counted, and
//! all is well again afterwards.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use aiproxy_testkit::{App, until};
use serde_json::json;

use crate::{BINARY, chat, relay};

/// Asks so often; every request is answered.
async fn ask(app: &App, times: usize) {
    let mut client = app.client().await;
    for _ in 0..times {
        let mut answer = client.send(app.post("/v1/chat/completions", &chat("gpt-4o", "hello"))).await;
        assert_eq!(answer.status, 200);
        assert!(answer.text().await.contains("hello"));
    }
}

/// Asks until records are dropped.
async fn until_dropped(app: &App) -> f64 {
    loop {
        ask(app, 100).await;
        let dropped = app.metric("aiproxy_journal_dropped_total").await;
        if dropped > 0.0 {
            return dropped;
        }
    }
}

/// Waits until records are kept again, and all of a request's traces are there.
async fn is_well_again(app: &App) {
    until("records being kept", || {
        let said = app.process().stderr();
        said.contains("usage records were not kept").then_some(())
    })
    .await;
    loop {
        let before = app.metric("aiproxy_journal_records_total").await;
        ask(app, 1).await;
        if app.metric("aiproxy_journal_records_total").await > before {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let dropped = app.metric("aiproxy_journal_dropped_total").await;
    let mut answer = app.get("/v1/models/gpt-4o").header("user-agent", "afterwards").send().await;
    answer.bytes().await;
    app.logged("a line afterwards", |line| line["user_agent"] == "afterwards").await;
    assert_eq!(
        app.metric("aiproxy_journal_dropped_total").await.total_cmp(&dropped),
        std::cmp::Ordering::Equal
    );
}

fn mount(arguments: &[&str], folder: &Path) -> bool {
    Command::new("mount").args(arguments).arg(folder).output().is_ok_and(|out| out.status.success())
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A small file system of its own; nothing where this user may not mount.
#[expect(clippy::print_stderr, reason = "who reads the test's output should know")]
fn small_disk(options: &str) -> Option<(tempfile::TempDir, Mounted)> {
    let folder = tempfile::tempdir().unwrap();
    if !mount(&["-t", "tmpfs", "-o", options, "tmpfs"], folder.path()) {
        eprintln!("skipped: this user may not mount");
        return None;
    }
    let mounted = Mounted(folder.path().to_owned());
    Some((folder, mounted))
}

async fn start(binary: &Path, journal: &Path) -> App {
    let journal = journal.to_str().unwrap().to_owned();
    App::builder(binary)
        .config(|c| {
            c["system"]["journal"] = json!({"dir": journal, "segment_bytes": "128KiB", "max_bytes": "4MiB"});
            c["system"]["log_level"] = "info".into();
            c["system"]["workers"] = 1.into();
        })
        .start()
        .await
}

#[tokio::test]
async fn a_full_disk_costs_records_that_are_counted_and_no_request() {
    let Some((disk, _mounted)) = small_disk("size=3m") else { return };
    let journal = disk.path().join("journal");
    let app = start(Path::new(BINARY), &journal).await;
    ask(&app, 10).await;
    // Somebody else fills the disk to the last byte.
    let filler = disk.path().join("filler");
    assert!(fs::write(&filler, vec![1; 8 << 20]).is_err());
    until_dropped(&app).await;
    fs::remove_file(&filler).unwrap();
    is_well_again(&app).await;
    app.finish().await;
}

#[tokio::test]
async fn a_disk_that_is_full_or_read_only_at_the_start_keeps_nobody_from_working() {
    let Some((disk, _mounted)) = small_disk("size=3m,ro") else { return };
    let app = start(Path::new(BINARY), &disk.path().join("journal")).await;
    ask(&app, 10).await;
    assert!(app.metric("aiproxy_journal_dropped_total").await >= 10.0);
    assert!(mount(&["-o", "remount,rw"], disk.path()));
    is_well_again(&app).await;
    app.finish().await;

    let filler = disk.path().join("filler");
    assert!(fs::write(&filler, vec![1; 8 << 20]).is_err());
    let app = start(Path::new(BINARY), &disk.path().join("another")).await;
    ask(&app, 10).await;
    assert!(app.metric("aiproxy_journal_dropped_total").await >= 10.0);
    fs::remove_file(&filler).unwrap();
    is_well_again(&app).await;
    app.finish().await;
}

/// A program that runs the relay as a user who has to keep to permissions: root does not.
fn as_somebody(folder: &Path) -> PathBuf {
    let wrapper = folder.join("relay");
    // The program may stand in a folder that others do not see into.
    let script = format!(
        "#!/bin/sh\n[ \"$(/usr/bin/id -u)\" = 0 ] || exec '{BINARY}' \"$@\"\n\
         /bin/chown -R 65534:65534 .\nexec 3<'{BINARY}'\n\
         exec /usr/bin/setpriv --reuid 65534 --regid 65534 --clear-groups /proc/self/fd/3 \"$@\"\n"
    );
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, Permissions::from_mode(0o755)).unwrap();
    wrapper
}

#[tokio::test]
async fn a_folder_that_becomes_read_only_costs_records_that_are_counted_and_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let app = relay_of_somebody(folder.path()).await;
    let journal = app.dir().join("data/journal");
    ask(&app, 10).await;
    fs::set_permissions(&journal, Permissions::from_mode(0o555)).unwrap();
    until_dropped(&app).await;
    fs::set_permissions(&journal, Permissions::from_mode(0o755)).unwrap();
    is_well_again(&app).await;
    app.finish().await;
}

async fn relay_of_somebody(folder: &Path) -> App {
    let wrapper = as_somebody(folder);
    App::builder(wrapper)
        .config(|c| {
            c["system"]["journal"] = json!({"segment_bytes": "128KiB", "max_bytes": "4MiB"});
            c["system"]["log_level"] = "info".into();
            c["system"]["workers"] = 1.into();
        })
        .start()
        .await
}

#[tokio::test]
async fn a_folder_that_is_removed_or_moved_away_is_made_anew_and_nobody_else_gets_in() {
    for moved in [false, true] {
        let mut app = relay()
            .config(|c| {
                c["system"]["log"]["access"] = "access.log".into();
                c["system"]["log_level"] = "info".into();
            })
            .start()
            .await;
        let journal = app.dir().join("data/journal");
        ask(&app, 20).await;
        // What nobody has read yet goes with the folder.
        until("the log being written", || (super::lines(app.dir()).len() == 20).then_some(())).await;
        if moved {
            fs::rename(&journal, app.dir().join("moved")).unwrap();
        } else {
            fs::remove_dir_all(&journal).unwrap();
        }
        until("the folder being made anew", || {
            let said = app.process().stderr().contains("was removed or replaced");
            (said && journal.join("lock").exists()).then_some(())
        })
        .await;
        ask(&app, 20).await;
        // A second relay on the same folder is refused, and so is one on what was moved away.
        for folder in [&journal, &app.dir().join("moved")] {
            if folder.exists() {
                let config = app.dir().join("second.yaml");
                let text = format!(
                    "system: {{listen: {{http: '127.0.0.1:0', admin: off}}, data_dir: second, journal: {{dir: '{}'}}}}\n",
                    folder.display()
                );
                fs::write(&config, text).unwrap();
                let mut command = Command::new(BINARY);
                command.args(["serve", "--config"]).arg(&config);
                let second = aiproxy_testkit::run(command, aiproxy_testkit::BOUND).await;
                assert_eq!(second.code, Some(1), "{}", second.stderr);
                assert!(second.stderr.contains("in use by another process"), "{}", second.stderr);
            }
        }
        // Records that came before there was a segment to keep them are counted.
        let dropped = app.metric("aiproxy_journal_dropped_total").await as usize;
        assert!(dropped < 20, "{dropped}");
        app.restart_after("KILL").await;
        ask(&app, 20).await;
        app.restart_after("TERM").await;
        let mut ids: Vec<_> = super::lines(app.dir())
            .iter()
            .map(|line| line["request_id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(ids.len(), 60 - dropped);
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 60 - dropped, "none twice");
        assert_eq!(super::sum(&app, "user", &[]).await["total"]["requests"], 40 - dropped);
        app.finish().await;
    }
}

#[tokio::test]
async fn without_a_journal_requests_are_logged_all_the_same() {
    let app = relay().config(|c| c["system"]["journal"] = json!({"enabled": false})).start().await;
    ask(&app, 3).await;
    app.logged("a line", |line| line["usage"]["input"] == 1).await;
    assert!(!app.dir().join("data/journal").exists());
    app.finish().await;
}
