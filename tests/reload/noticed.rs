//! However the file is changed, the change is noticed.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use aiproxy_testkit::{App, until};
use serde_json::{Value, json};

use crate::relay;

/// Waits for one more of the relay's words on a changed file: whether it was taken.
async fn outcome(app: &App, (applied, refused): (usize, usize)) -> bool {
    until("the relay noticing the changed file", || {
        let now = app.reloads();
        (now != (applied, refused)).then_some(now.0 > applied)
    })
    .await
}

async fn status(app: &App) -> u16 {
    app.get("/v1/models").send().await.status.as_u16()
}

fn file(app: &App) -> PathBuf {
    app.dir().join("aiproxy.yaml")
}

fn switch(on: bool) -> impl Fn(&mut Value) {
    move |c| c["users"]["user1"]["status"] = if on { "active" } else { "disabled" }.into()
}

/// Changes the file three times with `write` and looks whether each change took effect.
async fn followed(app: &mut App, write: impl Fn(&Path, &str)) {
    for on in [false, true, false] {
        let (text, before) = (app.configure(switch(on)), app.reloads());
        assert_ne!(text, fs::read_to_string(file(app)).unwrap(), "a change");
        write(&file(app), &text);
        assert!(outcome(app, before).await);
        assert_eq!(status(app).await, if on { 200 } else { 403 });
    }
}

#[tokio::test]
async fn a_file_written_in_place() {
    let mut app = relay().start().await;
    followed(&mut app, |file, text| fs::write(file, text).unwrap()).await;
    app.finish().await;
}

#[tokio::test]
async fn a_file_replaced_by_rename_as_editors_do() {
    let mut app = relay().start().await;
    followed(&mut app, |file, text| {
        // With a backup, as vim makes one: for a moment there is no file.
        let (fresh, backup) = (file.with_extension("swp"), file.with_extension("yaml~"));
        fs::write(&fresh, text).unwrap();
        fs::rename(file, &backup).unwrap();
        fs::rename(&fresh, file).unwrap();
    })
    .await;
    app.finish().await;
}

#[tokio::test]
async fn a_mounted_config_map() {
    let mut app = relay().start().await;
    // File → ..data → folder with the time in its name: Kubernetes swaps the middle link.
    let dir = app.dir().to_owned();
    let lay = move |file: &Path, text: &str| {
        let number = fs::read_dir(&dir).unwrap().count();
        let folder = format!("..2026_01_01_00_00_00.{number}");
        fs::create_dir(dir.join(&folder)).unwrap();
        fs::write(dir.join(&folder).join("aiproxy.yaml"), text).unwrap();
        symlink(&folder, dir.join("..data_tmp")).unwrap();
        fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
        if !file.is_symlink() {
            symlink("..data/aiproxy.yaml", dir.join("link")).unwrap();
            fs::rename(dir.join("link"), file).unwrap();
        }
    };
    followed(&mut app, &lay).await;
    // The same size, and the same times, as images and volumes have them.
    let old = FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    app.change(switch(true)).await;
    lay(&file(&app), &app.configure(|_| ()));
    followed(&mut app, |file, text| {
        lay(file, text);
        File::open(file).unwrap().set_times(old).unwrap();
    })
    .await;
    app.finish().await;
}

#[tokio::test]
async fn a_file_whose_metadata_look_the_same() {
    let mut app = relay().config(|c| c["system"]["config_reload_interval"] = 1.into()).start().await;
    let path = file(&app);
    let before = fs::metadata(&path).unwrap();
    // Two values of one length.
    for (key, status_after) in
        [("pk_user1_0000000000000000000000001", 401), (aiproxy_testkit::PROXY_KEY, 200)]
    {
        assert!(key.len() >= aiproxy_testkit::PROXY_KEY.len());
        let key = &key[..aiproxy_testkit::PROXY_KEY.len()];
        let (text, said) = (app.configure(|c| c["users"]["user1"]["proxy_key"] = key.into()), app.reloads());
        fs::write(&path, text).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_times(FileTimes::new().set_modified(before.modified().unwrap()))
            .unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!((after.len(), after.modified().unwrap()), (before.len(), before.modified().unwrap()));
        assert!(outcome(&app, said).await);
        assert_eq!(status(&app).await, status_after);
    }
    app.finish().await;
}

#[tokio::test]
async fn sighup_reads_the_file_even_when_it_is_the_same() {
    let app = relay().start().await;
    for _ in 0..3 {
        let before = app.reloads();
        app.process().signal("HUP");
        assert!(outcome(&app, before).await);
    }
    assert_eq!(status(&app).await, 200);
    assert_eq!(app.metric("aiproxy_reloads_total{result=\"applied\"}").await, 3.0);
    app.finish().await;
}

#[tokio::test]
async fn sighup_picks_up_a_secret_that_lies_in_a_file_of_its_own() {
    let dir = tempfile();
    let secret = dir.join("proxy-key");
    fs::write(&secret, aiproxy_testkit::PROXY_KEY).unwrap();
    let path = format!("file:{}", secret.display());
    let app = relay().config(|c| c["users"]["user1"]["proxy_key"] = path.into()).start().await;
    assert_eq!(status(&app).await, 200);
    fs::write(&secret, "pk_rotated_4Gk8Wm2Zx6").unwrap();
    let before = app.reloads();
    app.process().signal("HUP");
    assert!(outcome(&app, before).await);
    assert_eq!(status(&app).await, 401);
    assert_eq!(app.get("/v1/models").key("pk_rotated_4Gk8Wm2Zx6").send().await.status, 200);
    app.finish().await;
    fs::remove_dir_all(dir).unwrap();
}

/// A folder for what must not lie beside the configuration.
fn tempfile() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("secret-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    dir
}

#[tokio::test]
async fn a_file_that_grows_slowly_is_taken_once_it_is_whole() {
    let mut app = relay().start().await;
    let text = app.configure(|c| {
        switch(false)(c);
        for user in 0..50 {
            let key = format!("pk_many_{user:04}_{}", "x".repeat(20));
            c["users"][format!("u{user}")] = json!({"proxy_key": key, "channels": ["main"]});
        }
    });
    let path = file(&app);
    let mut written = File::create(&path).unwrap();
    for piece in text.as_bytes().chunks(2000) {
        std::io::Write::write_all(&mut written, piece).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    drop(written);
    until("the new configuration", || (app.reloads().0 == 1).then_some(())).await;
    assert_eq!(status(&app).await, 403);
    app.finish().await;
}

#[tokio::test]
async fn a_refused_file_says_where_and_the_next_good_one_is_taken() {
    let mut app = relay().start().await;
    assert!(!app.change(|c| c["users"]["user1"]["channels"] = json!(["nowhere"])).await);
    assert_eq!(status(&app).await, 200);
    assert_eq!(app.metric("aiproxy_reloads_total{result=\"refused\"}").await, 1.0);
    let error = app.admin("/readyz").await.json().await["details"]["reload"]["error"].clone();
    let error = error.as_str().unwrap();
    assert!(error.contains("aiproxy.yaml:1:"), "{error}");
    assert!(error.contains("nowhere"), "{error}");
    assert!(app.change(|c| c["users"]["user1"]["channels"] = json!(["main"])).await);
    let reload = app.admin("/readyz").await.json().await["details"]["reload"].clone();
    assert_eq!(reload, json!({"applied": 1, "refused": 1, "error": null}));
    app.finish().await;
}
