//! What serves at the start, and watching the database from then on.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use std::{error, fmt};

use aiproxy_config::Catalog;
use aiproxy_config::entity::Fault;
use aiproxy_config::model::Snapshot;
use aiproxy_registry::Registry;
use aiproxy_store::{OpenError, Store};
use aiproxy_telemetry::metrics::Metrics;
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval};

use super::keep::{self, LastGood};
use super::{Control, File, Inner, LOOK, NOTE, Seen, Source, TRY_AGAIN, empty, report, subject};

/// The database's file in the data folder.
pub const DATABASE: &str = "aiproxy.db";

/// Why the relay cannot start.
#[derive(Debug)]
pub enum StartError {
    /// A later version has changed the database.
    Newer(OpenError),
    /// The database cannot be opened, and there is no last good state either.
    Away(String, PathBuf),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newer(error) => write!(f, "{error}"),
            Self::Away(why, path) => write!(
                f,
                "the database {} cannot be used: {why}. Users and channels come from it, since the configuration file has none",
                path.display()
            ),
        }
    }
}

impl error::Error for StartError {}

/// What serves at the start.
#[derive(Debug)]
pub struct Start {
    /// Users and channels from their source, and the file's settings.
    pub snapshot: Snapshot,
    inner: Inner,
    faults: Vec<Fault>,
    away: Option<String>,
}

impl Start {
    /// Opens the database in the data folder and reads what it holds. Where it is away, the last good
    /// state serves.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn load(file: File) -> Result<Self, StartError> {
        let folder = file.snapshot.system.data_dir.clone();
        let (database, last_good) = (folder.join(DATABASE), folder.join(keep::FILE_NAME));
        let mut start = Self {
            snapshot: empty(file.snapshot.system.clone()),
            inner: Inner {
                store: None,
                database: database.clone(),
                last_good: last_good.clone(),
                file,
                file_revision: 1,
                catalog: Catalog::default(),
                revision: -1,
                denials: Vec::new(),
                noted: 0,
            },
            faults: Vec::new(),
            away: None,
        };
        if start.inner.file.manages {
            start.snapshot = start.inner.file.snapshot.clone();
        }
        let read = match open(&database, &last_good).await? {
            Ok(store) => start.read(store).await,
            Err(why) => Err(why),
        };
        if let Err(why) = read {
            start.fall_back(why)?;
        }
        Ok(start)
    }

    async fn read(&mut self, store: Store) -> Result<(), String> {
        let denials = store.denials().await.map_err(|error| error.to_string())?;
        if self.inner.file.manages {
            self.inner.revision = store.revision().await.map_err(|error| error.to_string())?;
        } else {
            let (revision, records) = store.all().await.map_err(|error| error.to_string())?;
            self.inner.revision = revision;
            let documents = records.iter().map(|it| (it.kind, it.id.as_str(), &it.fields));
            self.install(Catalog::load(documents));
        }
        self.inner.denials = denials;
        self.inner.store = Some(store);
        Ok(())
    }

    fn install(
        &mut self,
        (mut catalog, prepared, faults): (Catalog, aiproxy_config::catalog::Prepared, Vec<Fault>),
    ) {
        catalog.install(prepared, &mut self.snapshot);
        self.inner.catalog = catalog;
        self.faults = faults;
    }

    /// What served last serves again.
    fn fall_back(&mut self, why: String) -> Result<(), StartError> {
        let good = match LastGood::read(&self.inner.last_good) {
            Ok(good) => good,
            Err(error) if self.inner.file.manages => {
                tracing::error!(database = %self.inner.database.display(), %why, last_good = %error, "the database is away: denials are not known, and nothing can be administered");
                self.away = Some(why);
                return Ok(());
            }
            Err(error) => {
                let why = format!("{why}; nor is there a last good state ({error})");
                return Err(StartError::Away(why, self.inner.database.clone()));
            }
        };
        tracing::error!(database = %self.inner.database.display(), %why, revision = good.revision, "the database is away: the last good state serves");
        if !self.inner.file.manages {
            let documents = good.documents.iter().map(|it| (it.kind, it.id.as_str(), &it.fields));
            self.install(Catalog::load(documents));
        }
        self.inner.denials = good.denials;
        self.away = Some(why);
        Ok(())
    }

    /// Takes the relay's registry under control. Denials hold from here on.
    #[must_use]
    pub fn attach(self, registry: Arc<Registry>, metrics: Arc<Metrics>) -> Arc<Control> {
        let Self { snapshot: _, inner, faults, away } = self;
        report(&faults);
        for denial in &inner.denials {
            registry.deny(subject(&denial.subject));
        }
        let seen = Seen {
            store: inner.store.clone(),
            source: if inner.file.manages { Source::File } else { Source::Database },
            revision: inner.revision,
            faults: faults.into(),
            away,
        };
        let (reloads, asked) = mpsc::channel(4);
        let dirty = AtomicBool::new(inner.store.is_some());
        Arc::new(Control {
            registry,
            metrics,
            inner: Arc::new(tokio::sync::Mutex::new(inner)),
            seen: Mutex::new(seen),
            dirty,
            wake: Notify::new(),
            reloads,
            asked: Mutex::new(Some(asked)),
        })
    }
}

/// Opens the database. A file that is gone while there is a last good state was not left out on purpose:
/// an empty one in its place would lock everybody out.
async fn open(database: &Path, last_good: &Path) -> Result<Result<Store, String>, StartError> {
    if !database.exists() && LastGood::read(last_good).is_ok_and(|good| good.has_users()) {
        return Ok(Err(format!(
            "the file is gone; put it back, or remove {} to begin anew",
            last_good.display()
        )));
    }
    match Store::open(database).await {
        Ok(store) => Ok(Ok(store)),
        Err(error @ OpenError::Newer { .. }) => Err(StartError::Newer(error)),
        Err(error) => Ok(Err(error.to_string())),
    }
}

impl Control {
    /// Follows what others write to the database, keeps the last good state, and tries a database that is
    /// away again. Never returns.
    pub async fn watch(self: Arc<Self>) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tried = Instant::now();
        let mut noted = Instant::now();
        loop {
            tokio::select! {
                _ = look.tick() => {}
                () = self.wake.notified() => {}
            }
            let store = self.seen().store.clone();
            match store {
                Some(store) => self.follow(&store).await,
                None if tried.elapsed() >= TRY_AGAIN => {
                    self.try_again().await;
                    tried = Instant::now();
                }
                None => {}
            }
            self.keep().await;
            if noted.elapsed() >= NOTE {
                self.note_use().await;
                noted = Instant::now();
            }
        }
    }

    /// Writes down when keys were used last.
    pub(super) async fn note_use(&self) {
        let Ok(store) = self.store() else { return };
        let used: Vec<(String, i64)> = {
            let mut inner = self.inner.lock().await;
            if inner.file.manages {
                return;
            }
            let since = inner.noted;
            let snapshot = self.registry.snapshot();
            let recent = snapshot.users().filter(|user| user.key.used.last() > since);
            let used = recent.filter_map(|user| {
                Some((inner.catalog.key(&user.key.digest)?.to_owned(), user.key.used.last()))
            });
            let used: Vec<_> = used.collect();
            inner.noted = used.iter().map(|(_, at)| *at).max().unwrap_or(since);
            used
        };
        if used.is_empty() {
            return;
        }
        let outcome = async {
            let mut tx = store.write().await?;
            tx.touch_keys(&used).await?;
            tx.commit().await
        };
        if let Err(error) = outcome.await {
            tracing::debug!(%error, "the last uses of keys could not be written down");
        }
    }

    async fn follow(&self, store: &Store) {
        let outcome = match store.revision().await {
            Ok(revision) if revision == self.revision() => Ok(()),
            Ok(_) => {
                let mut inner = self.inner.lock().await;
                self.catch_up(&mut inner, store).await
            }
            Err(error) => Err(error.into()),
        };
        if let Err(refused) = outcome {
            tracing::debug!(?refused, "the database could not be followed");
        }
    }

    async fn try_again(&self) {
        let mut inner = self.inner.lock().await;
        let opened = open(&inner.database, &inner.last_good).await;
        let store = match opened {
            Ok(Ok(store)) => store,
            Ok(Err(why)) => return self.seen().away = Some(why),
            Err(error) => return self.seen().away = Some(error.to_string()),
        };
        {
            let mut seen = self.seen();
            seen.store = Some(store.clone());
            seen.away = None;
        }
        inner.store = Some(store.clone());
        inner.revision = -1;
        tracing::info!(database = %inner.database.display(), "the database is back");
        if let Err(refused) = self.catch_up(&mut inner, &store).await {
            tracing::error!(?refused, "the database cannot be read");
        }
    }
}
