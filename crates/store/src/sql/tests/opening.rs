use std::fs;
use std::os::unix::fs::PermissionsExt;

use sqlx::{ConnectOptions, Connection, Executor};

use super::super::{Error, OpenError};
use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn the_file_is_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/deep/aiproxy.db");
    let store = Store::open(&path).await.unwrap();
    put(&store, EntityKind::User, "u", json!({})).await;
    assert_eq!(mode(&folder.path().join("data")), 0o700);
    assert_eq!(mode(&folder.path().join("data/deep")), 0o700);
    for entry in fs::read_dir(path.parent().unwrap()).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    store.close().await;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let store = Store::open(&path).await.unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(store.revision().await.unwrap(), 1);
}

#[tokio::test]
async fn a_closed_database_is_one_file_and_answers_nothing() {
    let fresh = fresh().await;
    put(&fresh.store, EntityKind::User, "u", json!({})).await;
    fresh.store.close().await;
    assert_eq!(fs::read_dir(fresh.folder.path()).unwrap().count(), 1);
    assert!(matches!(fresh.store.revision().await, Err(Error::Unavailable(_))));
    assert!(matches!(fresh.store.write().await, Err(Error::Unavailable(_))));
    assert_eq!(Store::open(&fresh.path).await.unwrap().revision().await.unwrap(), 1);
}

#[tokio::test]
async fn the_state_of_the_schema_is_told_without_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("not-yet/aiproxy.db");
    let steps = Store::migrations(&path).await.unwrap();
    assert!(!steps.is_empty() && steps.iter().all(|step| !step.applied));
    assert!(!path.parent().unwrap().exists());

    let store = Store::open(&path).await.unwrap();
    let while_open = Store::migrations(&path).await.unwrap();
    assert!(while_open.iter().all(|step| step.applied));
    store.close().await;
    let before = fs::read(&path).unwrap();
    assert_eq!(Store::migrations(&path).await.unwrap(), while_open);
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);

    fs::write(&path, "").unwrap();
    assert!(Store::migrations(&path).await.unwrap().iter().all(|step| !step.applied));
}

#[test]
fn every_step_is_in_the_program() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite");
    let files = fs::read_dir(folder).unwrap().count();
    assert_eq!(open::MIGRATOR.iter().count(), files);
}

#[tokio::test]
async fn a_newer_database_is_refused_and_left_alone() {
    let fresh = fresh().await;
    let mut link = fresh.store.pool.write().await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9000, 'later', 1, x'00', 0)";
    link.execute(link.sql(newer)).await.unwrap();
    link.commit().await.unwrap();
    fresh.store.close().await;
    let before = fs::read(&fresh.path).unwrap();
    let known = open::MIGRATOR.iter().last().unwrap().version;
    for _ in 0..2 {
        let error = Store::open(&fresh.path).await.unwrap_err();
        assert!(matches!(error, OpenError::Newer { found: 9000, known: last } if last == known), "{error}");
        assert!(error.to_string().contains("a newer AIProxy"));
    }
    assert!(matches!(Store::migrations(&fresh.path).await, Err(OpenError::Newer { .. })));
    assert_eq!(fs::read(&fresh.path).unwrap(), before);
}

#[tokio::test]
async fn a_schema_that_was_changed_is_refused() {
    let fresh = fresh().await;
    let mut link = fresh.store.pool.write().await.unwrap();
    link.execute(link.sql("UPDATE _sqlx_migrations SET checksum = x'00'")).await.unwrap();
    link.commit().await.unwrap();
    fresh.store.close().await;
    let error = Store::open(&fresh.path).await.unwrap_err();
    assert!(matches!(&error, OpenError::Migration(_)), "{error}");
}

#[tokio::test]
async fn files_of_others_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aiproxy.db");
    for text in ["users:\n  user1: {}\n", "short"] {
        fs::write(&path, text).unwrap();
        let error = Store::open(&path).await.unwrap_err();
        assert!(matches!(error, OpenError::NotADatabase), "{error}");
        assert!(error.to_string().contains("not an SQLite database"));
        assert!(matches!(Store::migrations(&path).await, Err(OpenError::NotADatabase)));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    fs::remove_file(&path).unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut other = options.connect().await.unwrap();
    other.execute("CREATE TABLE songs (id INTEGER)").await.unwrap();
    other.close().await.unwrap();
    let error = Store::open(&path).await.unwrap_err();
    assert!(matches!(error, OpenError::Foreign), "{error}");
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let fresh = fresh().await;
    fresh.store.close().await;
    let mut bytes = fs::read(&fresh.path).unwrap();
    bytes[100..].fill(0xa5);
    fs::write(&fresh.path, bytes).unwrap();
    let error = Store::open(&fresh.path).await.unwrap_err();
    assert!(matches!(error, OpenError::Database(Error::Damaged(_))), "{error}");
    assert!(error.to_string().contains("backup"));
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let error = Store::open(&folder.path().join("file/aiproxy.db")).await.unwrap_err();
    assert!(matches!(error, OpenError::Io(_)), "{error}");
    let error = Store::open(folder.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::Io(_)), "{error}");
}

#[tokio::test]
async fn connections_that_read_cannot_write() {
    let fresh = fresh().await;
    let mut link = fresh.store.pool.read().await.unwrap();
    let error = link.execute(link.sql("DELETE FROM users")).await.unwrap_err();
    assert!(matches!(error, Error::ReadOnly), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_told_and_leaves_what_was_there() {
    let fresh = fresh().await;
    put(&fresh.store, EntityKind::User, "u", json!({})).await;
    let mut tx = fresh.store.write().await.unwrap();
    tx.link.rows(tx.link.sql("PRAGMA max_page_count = 80")).await.unwrap();
    let large = fields(json!({"notes": "x".repeat(400_000)}));
    let error = tx.put(EntityKind::User, "large", &large).await.unwrap_err();
    assert!(matches!(error, Error::Full), "{error}");
    assert!(error.to_string().contains("make room"));
    // SQLite has rolled back by itself: what follows would count alone.
    tx.put(EntityKind::User, "alone", &fields(json!({}))).await.unwrap_err();
    tx.commit().await.unwrap_err();
    assert_eq!(ids(&fresh.store.all().await.unwrap().1), ["u"]);
    assert_eq!(put(&fresh.store, EntityKind::User, "v", json!({})).await, 2);
}

#[tokio::test]
async fn a_crash_within_an_import_leaves_what_was_there() {
    let fresh = fresh().await;
    put(&fresh.store, EntityKind::User, "before", json!({"name": "kept"})).await;
    let mut tx = fresh.store.write().await.unwrap();
    tx.clear().await.unwrap();
    // More than SQLite keeps in memory: much of it is in the log by now.
    for index in 0..400 {
        let user = fields(json!({"notes": "x".repeat(16_000)}));
        tx.put(EntityKind::User, &format!("u{index}"), &user).await.unwrap();
    }
    let crashed = fresh.folder.path().join("crashed.db");
    let log = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
    assert!(fs::metadata(log(&fresh.path)).unwrap().len() > 1 << 20);
    fs::copy(&fresh.path, &crashed).unwrap();
    fs::copy(log(&fresh.path), log(&crashed)).unwrap();
    let after = Store::open(&crashed).await.unwrap();
    let (revision, all) = after.all().await.unwrap();
    assert_eq!((revision, ids(&all)), (1, vec!["before"]));
    assert_eq!(tx.commit().await.unwrap(), 2);
    assert_eq!(fresh.store.all().await.unwrap().1.len(), 400);
}
