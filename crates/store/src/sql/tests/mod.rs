//! Tests of the database, each with a file of its own.

mod accounts;
mod audit;
mod changes;
mod documents;
mod opening;
mod queries;
mod scale;

use std::path::{Path, PathBuf};
use std::time::Duration;

use aiproxy_core::{EntityKind, Fields, Record};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Store, open};

/// A database in a folder that goes with it.
struct Fresh {
    store: Store,
    path: PathBuf,
    folder: TempDir,
}

async fn fresh() -> Fresh {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aiproxy.db");
    Fresh { store: Store::open(&path).await.unwrap(), path, folder }
}

/// Patient enough to open a connection where much else goes on.
async fn impatient(path: &Path) -> Store {
    Store { pool: open::open(path, Duration::from_secs(1)).await.unwrap() }
}

fn fields(value: Value) -> Fields {
    match value {
        Value::Object(map) => Fields(map),
        _ => panic!("an object is needed"),
    }
}

/// The fields as text: unlike `==`, it knows of order.
fn text(fields: &Fields) -> String {
    Value::Object(fields.0.clone()).to_string()
}

async fn put(store: &Store, kind: EntityKind, id: &str, value: Value) -> i64 {
    let mut tx = store.write().await.unwrap();
    tx.put(kind, id, &fields(value)).await.unwrap();
    tx.commit().await.unwrap()
}

async fn put_key(store: &Store, id: &str, user: &str, digit: char) -> i64 {
    put(store, EntityKind::Key, id, json!({"user": user, "sha256": String::from(digit).repeat(64)})).await
}

fn ids(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.id.as_str()).collect()
}
