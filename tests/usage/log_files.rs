//! The access log's files: moved aside by size, and opened anew when somebody else moved them.

use aiproxy_testkit::{App, until};
use serde_json::json;

use super::lines;
use crate::relay;

async fn ask(app: &App, times: usize) {
    let mut client = app.client().await;
    for _ in 0..times {
        client.send(app.get("/v1/models/gpt-4o")).await.bytes().await;
    }
}

#[tokio::test]
async fn sigusr1_opens_the_file_anew() {
    for journal in [true, false] {
        let app = relay()
            .config(|c| {
                c["system"]["log"]["access"] = "logs/access.log".into();
                c["system"]["journal"] = json!({"enabled": journal});
            })
            .start()
            .await;
        let folder = app.dir().join("logs");
        ask(&app, 3).await;
        until("three lines", || (lines(&folder).len() == 3).then_some(())).await;
        let file = folder.join("access.log");
        let aside = folder.join("access.log.1");
        std::fs::rename(&file, &aside).unwrap();
        app.process().signal("USR1");
        until("a new file", || file.exists().then_some(())).await;
        ask(&app, 2).await;
        until("five lines", || (lines(&folder).len() == 5).then_some(())).await;
        assert_eq!(std::fs::read_to_string(&aside).unwrap().lines().count(), 3);
        app.finish().await;
    }
}

#[tokio::test]
async fn files_are_moved_aside_by_size_and_only_so_many_are_kept() {
    let app = relay()
        .config(|c| {
            c["system"]["log"]["access"] = "logs/access.log".into();
            c["system"]["log"]["rotate"] = json!({"bytes": "64KiB", "keep_files": 2});
            c["system"]["log_level"] = "info".into();
        })
        .start()
        .await;
    let folder = app.dir().join("logs");
    let files = || std::fs::read_dir(&folder).unwrap().count();
    let mut asked = 0;
    while asked < 1500 || files() < 3 {
        ask(&app, 100).await;
        asked += 100;
        assert!(asked < 50_000, "no rotation");
    }
    assert!(files() <= 3, "the log and two that were moved aside");
    app.finish().await;
}
