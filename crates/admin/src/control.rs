//! Who manages users and channels, and how a change reaches the relay.
//!
//! There is one source at a time: the configuration file, when it has a section for users, groups or
//! channels, or the database. Denials come from the database in either case. One change is made at a
//! time: it is checked against everything else, written in one transaction, and then in effect: the
//! snapshot is replaced and what may not go on is cut, before whoever made the change hears of it.
//! Requests never wait for any of this.

mod cut;
mod edit;
mod keep;
mod start;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aiproxy_config::catalog::Edit as Change;
use aiproxy_config::diff::{Diff, diff};
use aiproxy_config::entity::{Document, Fault};
use aiproxy_config::model::{Snapshot, System};
use aiproxy_config::{Catalog, Loaded};
use aiproxy_core::{EntityKind, Record};
use aiproxy_registry::Registry;
use aiproxy_registry::denials::Subject;
use aiproxy_store::{AuditEntry, Denial, DenialSubject, Store};
use aiproxy_telemetry::metrics::Metrics;
use tokio::sync::{Notify, mpsc, oneshot};

pub use cut::{Cut, enforce};
pub use edit::{Applied, Edit};
pub use start::{DATABASE, Start, StartError};

/// How often the database is asked whether somebody else has changed it.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is written down when keys were used last.
const NOTE: Duration = Duration::from_secs(30);
/// How often a database that could not be opened is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Who manages users and channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The configuration file.
    File,
    /// The database.
    Database,
}

impl Source {
    /// The source's name in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Database => "database",
        }
    }
}

/// Why a change was not made.
#[derive(Debug)]
pub enum Refused {
    /// The configuration file manages users and channels.
    ManagedByFile,
    /// The database is away or did not take it.
    Unavailable(aiproxy_store::Error),
    /// It would not be sound.
    Invalid(Vec<Fault>),
}

impl From<aiproxy_store::Error> for Refused {
    fn from(error: aiproxy_store::Error) -> Self {
        Self::Unavailable(error)
    }
}

/// What the configuration file says, beside what the database does.
#[derive(Debug)]
pub struct File {
    /// Whether it manages users and channels.
    manages: bool,
    /// All of it; without users and channels where it does not manage them.
    snapshot: Snapshot,
    documents: Vec<Document>,
}

impl From<Loaded> for File {
    fn from(loaded: Loaded) -> Self {
        let Loaded { snapshot, manages, documents, .. } = loaded;
        Self { manages, snapshot, documents }
    }
}

/// The one who changes things.
#[derive(Debug)]
pub struct Control {
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    inner: Arc<tokio::sync::Mutex<Inner>>,
    /// What everybody may know at once, without waiting for a change that is under way.
    seen: Mutex<Seen>,
    /// The last good state is to be written anew.
    dirty: AtomicBool,
    wake: Notify,
    reloads: mpsc::Sender<Reload>,
    asked: Mutex<Option<mpsc::Receiver<Reload>>>,
}

/// Somebody wants the configuration file to be read again, and to know what came of it.
pub type Reload = oneshot::Sender<Result<String, String>>;

#[derive(Debug)]
struct Seen {
    store: Option<Store>,
    source: Source,
    revision: i64,
    faults: Arc<[Fault]>,
    /// Why the database is away.
    away: Option<String>,
}

#[derive(Debug)]
struct Inner {
    store: Option<Store>,
    database: PathBuf,
    last_good: PathBuf,
    file: File,
    /// Counts the file's changes, for entity tags.
    file_revision: i64,
    catalog: Catalog,
    /// The database's revision that the catalog has.
    revision: i64,
    denials: Vec<Denial>,
    /// Uses of keys up to here (Unix time, seconds) are written down.
    noted: i64,
}

impl Control {
    /// The database.
    ///
    /// # Errors
    /// [`Refused::Unavailable`] while it is away.
    pub fn store(&self) -> Result<Store, Refused> {
        let seen = self.seen();
        let away = || {
            let why = seen.away.clone().unwrap_or_else(|| "it is not open".to_owned());
            Refused::Unavailable(aiproxy_store::Error::Unavailable(why))
        };
        seen.store.clone().ok_or_else(away)
    }

    /// Who manages users and channels.
    #[must_use]
    pub fn source(&self) -> Source {
        self.seen().source
    }

    /// The revision of the database that is in effect.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.seen().revision
    }

    /// Documents of the database that cannot be used.
    #[must_use]
    pub fn faults(&self) -> Arc<[Fault]> {
        Arc::clone(&self.seen().faults)
    }

    /// Why the database is away, if it is.
    #[must_use]
    pub fn away(&self) -> Option<String> {
        self.seen().away.clone()
    }

    /// What may be and what is.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file's documents of a kind. Where the database manages them there are none.
    ///
    /// # Errors
    /// None at present.
    pub async fn documents(&self, kind: EntityKind) -> Result<Vec<Record>, Refused> {
        let inner = self.inner.lock().await;
        let records =
            inner.file.documents.iter().filter(|document| document.kind == kind).map(|document| Record {
                kind,
                id: document.id.clone(),
                fields: document.fields.clone(),
                created_at: 0,
                updated_at: 0,
                revision: inner.file_revision,
            });
        Ok(records.collect())
    }

    /// Groups and users that refer to a document of the database.
    pub async fn referring(&self, kind: EntityKind, id: &str) -> Vec<(EntityKind, Arc<str>)> {
        self.inner.lock().await.catalog.referring(kind, id)
    }

    /// Begins a change; the next one waits.
    ///
    /// # Errors
    /// [`Refused::ManagedByFile`], [`Refused::Unavailable`].
    pub async fn begin(self: &Arc<Self>) -> Result<Edit, Refused> {
        let mut inner = Arc::clone(&self.inner).lock_owned().await;
        if inner.file.manages {
            return Err(Refused::ManagedByFile);
        }
        let store = self.store()?;
        let tx = store.write().await?;
        // Nobody else can write now: what another process wrote before is read first.
        if tx.revision() != inner.revision {
            self.catch_up(&mut inner, &store).await?;
        }
        Ok(Edit::new(Arc::clone(self), inner, tx))
    }

    /// Refuses a user or a key from now on, whoever manages them, and cuts what is under way.
    ///
    /// # Errors
    /// [`Refused::Unavailable`]: nothing was denied.
    pub async fn deny(self: &Arc<Self>, denial: Denial, audit: AuditEntry) -> Result<Applied, Refused> {
        self.deny_all(vec![denial], audit).await
    }

    /// As [`deny`](Self::deny), several at once or none.
    ///
    /// # Errors
    /// [`Refused::Unavailable`]: nothing was denied.
    pub async fn deny_all(
        self: &Arc<Self>,
        denials: Vec<Denial>,
        audit: AuditEntry,
    ) -> Result<Applied, Refused> {
        let this = Arc::clone(self);
        // Whoever asked may go away in the middle: what was written has to take effect.
        let task = tokio::spawn(async move {
            let mut inner = this.inner.lock().await;
            let store = this.store()?;
            let mut tx = store.write().await?;
            if tx.revision() != inner.revision {
                this.catch_up(&mut inner, &store).await?;
            }
            for denial in &denials {
                tx.deny(denial).await?;
            }
            tx.audit(&audit).await?;
            let revision = tx.commit().await?;
            let watch = cut::Watch::new(&this.registry);
            for denial in denials {
                this.registry.deny(subject(&denial.subject));
                inner.denials.retain(|have| have.subject != denial.subject);
                inner.denials.push(denial);
            }
            inner.revision = revision;
            this.written(revision);
            Ok(Applied { revision, cut: watch.cut() })
        });
        task.await.unwrap_or_else(|_| Err(failed()))
    }

    /// Takes a denial back; whether there was one.
    ///
    /// # Errors
    /// [`Refused::Unavailable`].
    pub async fn allow(self: &Arc<Self>, denied: DenialSubject, audit: AuditEntry) -> Result<bool, Refused> {
        let this = Arc::clone(self);
        let task = tokio::spawn(async move {
            let mut inner = this.inner.lock().await;
            let store = this.store()?;
            let mut tx = store.write().await?;
            if tx.revision() != inner.revision {
                this.catch_up(&mut inner, &store).await?;
            }
            if !tx.allow(&denied).await? {
                return Ok(false);
            }
            tx.audit(&audit).await?;
            let revision = tx.commit().await?;
            this.registry.allow(&subject(&denied));
            inner.denials.retain(|have| have.subject != denied);
            inner.revision = revision;
            this.written(revision);
            Ok(true)
        });
        task.await.unwrap_or_else(|_| Err(failed()))
    }

    /// Has the configuration file read again now. Says what changed, or everything that is wrong with it.
    ///
    /// # Errors
    /// The report of problems; nothing has changed then.
    pub async fn reload(&self) -> Result<String, String> {
        let (tell, told) = oneshot::channel();
        let nobody = || "nobody follows the configuration file".to_owned();
        self.reloads.send(tell).await.map_err(|_| nobody())?;
        told.await.map_err(|_| nobody())?
    }

    /// Where [`reload`](Self::reload) is heard; once.
    #[must_use]
    pub fn reloads(&self) -> Option<mpsc::Receiver<Reload>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Makes a changed configuration file the current one. Returns what changed and how many requests
    /// were cut.
    pub async fn adopt(&self, file: File) -> (Diff, usize) {
        let mut inner = self.inner.lock().await;
        let old = self.registry.snapshot();
        inner.file = file;
        inner.file_revision += 1;
        let new = if inner.file.manages {
            inner.file.snapshot.clone()
        } else {
            let mut same = (*old).clone();
            same.system = inner.file.snapshot.system.clone();
            match self.source() {
                Source::Database => same,
                Source::File => self.read_all(&mut inner).await.unwrap_or_else(|refused| {
                    tracing::error!(
                        ?refused,
                        "the database cannot be read: who was served by the file still is"
                    );
                    // It is read as soon as it can be.
                    inner.revision = -1;
                    self.seen().revision = -1;
                    same
                }),
            }
        };
        let source = if inner.file.manages { Source::File } else { Source::Database };
        self.seen().source = source;
        let changes = diff(&old, &new);
        let cut = self.publish(new, &changes);
        self.mark();
        (changes, cut)
    }

    /// All of the database, with the file's settings.
    ///
    /// # Errors
    /// [`Refused::Unavailable`]: nothing has changed then, and what served before may go on.
    async fn read_all(&self, inner: &mut Inner) -> Result<Snapshot, Refused> {
        let store = self.store()?;
        let (revision, records) = store.all().await?;
        let mut snapshot = empty(inner.file.snapshot.system.clone());
        let documents = records.iter().map(|it| (it.kind, it.id.as_str(), &it.fields));
        let (mut catalog, prepared, faults) = Catalog::load(documents);
        catalog.install(prepared, &mut snapshot);
        inner.catalog = catalog;
        inner.revision = revision;
        let mut seen = self.seen();
        report(faults.iter().filter(|fault| !seen.faults.contains(fault)));
        seen.revision = revision;
        seen.faults = faults.into();
        Ok(snapshot)
    }

    /// Reads what somebody else has written since.
    async fn catch_up(&self, inner: &mut Inner, store: &Store) -> Result<(), Refused> {
        let changes = store.changes_since(inner.revision).await?;
        self.hold_against(inner, &changes.denials);
        if inner.file.manages {
            inner.revision = changes.revision;
            self.written(changes.revision);
            return Ok(());
        }
        let puts = changes.changed.iter().map(|it| Change::Put(it.kind, &it.id, &it.fields));
        let edits: Vec<_> =
            puts.chain(changes.deleted.iter().map(|(kind, id)| Change::Delete(*kind, id))).collect();
        let old = self.registry.snapshot();
        // What depends on a document that cannot be used is not in the catalog either.
        let known = changes.revision >= inner.revision && inner.revision >= 0 && self.faults().is_empty();
        match inner.catalog.prepare(&edits) {
            Ok(prepared) if known => {
                let mut new = (*old).clone();
                inner.catalog.install(prepared, &mut new);
                inner.revision = changes.revision;
                self.publish_edit(&old, new);
            }
            _ => {
                let new = self.read_all(inner).await?;
                let changes = diff(&old, &new);
                self.publish(new, &changes);
            }
        }
        self.written(inner.revision);
        Ok(())
    }

    /// Denials that stand now, in place of those that did.
    fn hold_against(&self, inner: &mut Inner, now: &[Denial]) {
        for denial in &inner.denials {
            if !now.iter().any(|have| have.subject == denial.subject) {
                self.registry.allow(&subject(&denial.subject));
            }
        }
        for denial in now {
            if !inner.denials.iter().any(|have| have.subject == denial.subject) {
                self.registry.deny(subject(&denial.subject));
            }
        }
        inner.denials = now.to_vec();
    }

    fn written(&self, revision: i64) {
        self.seen().revision = revision;
        self.mark();
    }

    /// Has the last good state written anew.
    fn mark(&self) {
        self.dirty.store(true, Ordering::SeqCst);
        self.wake.notify_one();
    }

    /// Makes a snapshot of which only users and channels differ the current one.
    fn publish_edit(&self, old: &Snapshot, new: Snapshot) -> usize {
        let channels = aiproxy_config::diff::channels(&old.channels, &new.channels);
        let changes = Diff { channels, ..Diff::default() };
        self.publish(new, &changes)
    }

    /// Makes a snapshot the current one, and cuts what may not go on.
    fn publish(&self, new: Snapshot, changes: &Diff) -> usize {
        let registry = &self.registry;
        registry.replace(new);
        if !changes.channels.is_empty() {
            let snapshot = registry.snapshot();
            registry.health.retain(|id| snapshot.channel(id).is_some());
            let renewed =
                |fields: &[&str]| fields.iter().any(|field| matches!(*field, "api_key" | "base_url"));
            for (id, _) in changes.channels.changed.iter().filter(|(_, fields)| renewed(fields)) {
                registry.health.forget(id);
            }
            self.metrics.refresh();
        }
        enforce(registry)
    }
}

/// A snapshot of nothing but settings.
fn empty(system: System) -> Snapshot {
    Snapshot::new([], Vec::new(), system)
}

fn subject(denied: &DenialSubject) -> Subject {
    match denied {
        DenialSubject::User(id) => Subject::User(Arc::from(id.as_str())),
        DenialSubject::Key(digest) => Subject::Key(*digest),
    }
}

fn report<'a>(faults: impl IntoIterator<Item = &'a Fault>) {
    for fault in faults {
        tracing::error!(kind = %fault.kind, id = %fault.id, "a document of the database cannot be used: {fault}");
    }
}

fn failed() -> Refused {
    Refused::Unavailable(aiproxy_store::Error::Unavailable("the change was broken off".to_owned()))
}
