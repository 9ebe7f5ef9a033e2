//! The last good state on disk: what serves when the database is away at the start.
//!
//! It holds channels' keys, as the database does: its mode is 0600.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;

use aiproxy_config::entity::Document;
use aiproxy_core::{EntityKind, Fields, KeyDigest, Record};
use aiproxy_store::{Denial, DenialSubject};
use serde_json::{Value, json};

use super::Control;

/// Its name in the data folder.
pub(super) const FILE_NAME: &str = "last-good.json";

/// A state that once was in effect.
#[derive(Debug)]
pub(super) struct LastGood {
    pub(super) revision: i64,
    pub(super) documents: Vec<Document>,
    pub(super) denials: Vec<Denial>,
}

impl LastGood {
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let value: Value = serde_json::from_slice(&fs::read(path)?).map_err(|error| broken(error.line()))?;
        let list = |name: &str| value[name].as_array().cloned().unwrap_or_default();
        let documents = list("documents").into_iter().map(|it| document(it).ok_or_else(|| broken(0)));
        let denials = list("denials").into_iter().map(|it| denial(&it).ok_or_else(|| broken(0)));
        Ok(Self {
            revision: value["revision"].as_i64().ok_or_else(|| broken(0))?,
            documents: documents.collect::<io::Result<_>>()?,
            denials: denials.collect::<io::Result<_>>()?,
        })
    }

    pub(super) fn has_users(&self) -> bool {
        self.documents.iter().any(|document| document.kind == EntityKind::User)
    }
}

/// Never what it holds.
fn broken(line: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the last good state is damaged (line {line})"))
}

fn document(value: Value) -> Option<Document> {
    let Value::Object(mut value) = value else { return None };
    let kind = EntityKind::parse(value.get("kind")?.as_str()?)?;
    let id = value.get("id")?.as_str()?.to_owned();
    let Some(Value::Object(fields)) = value.remove("fields") else { return None };
    Some(Document { kind, id, fields: Fields(fields) })
}

fn denial(value: &Value) -> Option<Denial> {
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    let subject = match (text("user"), text("key")) {
        (Some(user), None) => DenialSubject::User(user),
        (None, Some(digest)) => DenialSubject::Key(KeyDigest::from_hex(&digest)?),
        _ => return None,
    };
    Some(Denial { subject, reason: text("reason")?, by: text("by")?, at: value["at"].as_i64()? })
}

fn write(path: &Path, revision: i64, records: Vec<Record>, denials: &[Denial]) -> io::Result<()> {
    let documents: Vec<Value> = records
        .into_iter()
        .map(|it| json!({ "kind": it.kind.as_str(), "id": it.id, "fields": Value::Object(it.fields.0) }))
        .collect();
    let denials: Vec<Value> = denials
        .iter()
        .map(|it| {
            let (kind, subject) = match &it.subject {
                DenialSubject::User(id) => ("user", id.clone()),
                DenialSubject::Key(digest) => ("key", digest.hex()),
            };
            json!({ kind: subject, "reason": it.reason, "by": it.by, "at": it.at })
        })
        .collect();
    let value = json!({ "revision": revision, "documents": documents, "denials": denials });
    let fresh = path.with_extension("json.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(&serde_json::to_vec(&value)?)?;
    file.sync_all()?;
    fs::rename(fresh, path)
}

impl Control {
    /// Writes the last good state, if it is not what is in effect.
    pub(super) async fn keep(&self) {
        if !self.dirty.swap(false, Ordering::SeqCst) {
            return;
        }
        let Ok(store) = self.store() else { return };
        let (path, manages) = {
            let inner = self.inner.lock().await;
            (inner.last_good.clone(), inner.file.manages)
        };
        let outcome = async {
            let (revision, records) = match manages {
                true => (store.revision().await.map_err(|error| error.to_string())?, Vec::new()),
                false => store.all().await.map_err(|error| error.to_string())?,
            };
            let denials = store.denials().await.map_err(|error| error.to_string())?;
            let task = tokio::task::spawn_blocking(move || write(&path, revision, records, &denials));
            task.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
        };
        if let Err(error) = outcome.await {
            tracing::warn!(%error, "the last good state could not be written");
            self.dirty.store(true, Ordering::SeqCst);
        }
    }

    /// Writes the last good state before the process ends.
    pub async fn close(&self) {
        self.keep().await;
        self.note_use().await;
        let store = self.seen().store.clone();
        if let Some(store) = store {
            store.close().await;
        }
    }
}
