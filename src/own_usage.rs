//! What a user has used, from the usage journal, for its own eyes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aiproxy_core::ports::{OwnUsage, PortFuture};
use aiproxy_journal::History;
use aiproxy_meter::codec;
use aiproxy_meter::filter::Filter;
use aiproxy_meter::sums::{By, Open, Sums};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// How far back it goes.
const SPAN: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long an answer stays good: the journal is read from end to end for each.
const FRESH: Duration = Duration::from_secs(30);
/// Users whose answers are kept.
const KEPT: usize = 1024;
/// Who may wait for the journal at one time; others hear no figures.
const WAITING: usize = 32;

/// Answers by user, and when they were read.
type Kept = Mutex<HashMap<Arc<str>, (Instant, Value)>>;

/// Reads the journal for one user at a time.
#[derive(Debug)]
pub struct JournalUsage {
    folder: PathBuf,
    reading: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    kept: Arc<Kept>,
}

impl JournalUsage {
    /// Of the journal in this folder.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        let (reading, waiting) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(WAITING)));
        Self { folder, reading, waiting, kept: Arc::default() }
    }
}

impl OwnUsage for JournalUsage {
    fn of(&self, user: Arc<str>) -> PortFuture<'static, Value> {
        let (folder, kept) = (self.folder.clone(), Arc::clone(&self.kept));
        let (reading, waiting) = (Arc::clone(&self.reading), Arc::clone(&self.waiting));
        Box::pin(async move {
            if let Some(value) = fresh(&kept, &user) {
                return value;
            }
            let Ok(_place) = waiting.try_acquire_owned() else { return Value::Null };
            let Ok(_turn) = reading.acquire_owned().await else { return Value::Null };
            // Somebody with the same key may have read it meanwhile.
            if let Some(value) = fresh(&kept, &user) {
                return value;
            }
            let whose = Arc::clone(&user);
            let read = tokio::task::spawn_blocking(move || read(&folder, &whose)).await;
            let value = match read {
                Ok(Ok(value)) => value,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "a user's own usage cannot be read");
                    return Value::Null;
                }
                Err(_) => return Value::Null,
            };
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() >= KEPT {
                kept.retain(|_, (read, _)| read.elapsed() < FRESH);
            }
            if kept.len() < KEPT {
                kept.insert(user, (Instant::now(), value.clone()));
            }
            value
        })
    }
}

fn fresh(kept: &Kept, user: &Arc<str>) -> Option<Value> {
    let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    kept.get(user).filter(|(read, _)| read.elapsed() < FRESH).map(|(_, value)| value.clone())
}

fn read(folder: &std::path::Path, user: &str) -> std::io::Result<Value> {
    let since = SystemTime::now().checked_sub(SPAN).unwrap_or(SystemTime::UNIX_EPOCH);
    let filter = Filter { since: Some(since), ..Filter::default() };
    let mut sums = Sums::new(vec![By::Model], TimeZone::UTC);
    let mut open = Open::default();
    History::open(folder)?.read(filter.since, |record| {
        // An id may hold what a pattern would take for a star.
        let own = |event: &codec::Decoded<'_>| event.user == Some(user) && filter.admits(event);
        if let Some(event) = codec::decode(record).filter(own)
            && open.stands(record, &event)
        {
            sums.add(&event);
        }
    })?;
    open.records().filter_map(codec::decode).for_each(|event| sums.add(&event));
    let models = sums.rows().into_iter().map(|(names, row)| {
        let mut row = json!(row);
        row["model"] = Value::from(names.first().map_or("", String::as_str));
        row
    });
    let models: Vec<Value> = models.collect();
    let since = Timestamp::try_from(since).unwrap_or_default().to_string();
    Ok(json!({ "since": since, "total": sums.total(), "models": models }))
}
