//! Who made what at the platforms: owned objects by id.
//!
//! An id belongs to whoever made it first; only a create that the platform itself has accepted
//! under a name of the caller's choosing may take it over. The map is bounded: the oldest objects
//! go first, and are then as unknown as if AIProxy had never seen them.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, mem};

use aiproxy_core::ports::{ObjectChange, ObjectJournal, ObjectRecord, PortFuture};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

/// Objects that are remembered unless configured otherwise: some 250 MB at the most.
pub const LIMIT: usize = 1_000_000;

/// What is known of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// What it is: `file`, `batch`, …
    pub kind: Arc<str>,
    /// Id of the user who made it.
    pub owner: Arc<str>,
    /// Id of the channel that it lives on.
    pub channel: Arc<str>,
    /// When it was first seen, Unix time in seconds.
    pub created: u64,
}

/// An object that was just seen.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The platform's id.
    pub id: &'a str,
    /// What it is.
    pub kind: &'a str,
    /// Id of the user.
    pub owner: &'a str,
    /// Id of the channel.
    pub channel: &'a str,
    /// Unix time in seconds.
    pub now: u64,
    /// Whether it takes the id over from an object of somebody else on the same channel: the platform
    /// has just made it, so the other is gone.
    pub replace: bool,
}

/// What became of an object that was seen.
pub enum Outcome {
    /// It is the owner's from now on; the future says whether that survives the process.
    New(PortFuture<'static, bool>),
    /// It was the owner's already.
    Known,
    /// It is somebody else's, and stays so.
    Taken,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New(_) => "New",
            Self::Known => "Known",
            Self::Taken => "Taken",
        })
    }
}

/// All owned objects, shared by all threads.
pub struct OwnedObjects {
    entries: DashMap<Arc<str>, Entered>,
    /// Ids in the order in which they came; an id whose number is no longer that of its entry
    /// is left over from an earlier one.
    order: Mutex<VecDeque<(u64, Arc<str>)>>,
    /// Users, channels and kinds are few: one copy of each name.
    names: Mutex<HashSet<Arc<str>>>,
    count: AtomicUsize,
    next: AtomicU64,
    limit: usize,
    forgotten: AtomicU64,
    taken: AtomicU64,
    journal: Option<Arc<dyn ObjectJournal>>,
}

struct Entered {
    number: u64,
    owned: Owned,
}

impl fmt::Debug for OwnedObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedObjects").field("len", &self.len()).field("limit", &self.limit).finish()
    }
}

impl Default for OwnedObjects {
    fn default() -> Self {
        Self::new(LIMIT)
    }
}

impl OwnedObjects {
    /// Remembers at most `limit` objects, as long as the process lives.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            entries: DashMap::new(),
            order: Mutex::default(),
            names: Mutex::default(),
            count: AtomicUsize::new(0),
            next: AtomicU64::new(0),
            limit: limit.max(1),
            forgotten: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            journal: None,
        }
    }

    /// Begins with the objects that the journal held, oldest first, and tells it of every change.
    #[must_use]
    pub fn kept(
        limit: usize,
        journal: Arc<dyn ObjectJournal>,
        records: impl IntoIterator<Item = ObjectRecord>,
    ) -> Self {
        let mut objects = Self::new(limit);
        for record in records {
            let seen = Seen {
                id: &record.id,
                kind: &record.kind,
                owner: &record.owner,
                channel: &record.channel,
                now: record.created,
                replace: true,
            };
            // The journal is not there yet: nothing is written twice.
            let _ = objects.insert(seen);
        }
        objects.journal = Some(journal);
        objects
    }

    /// Whose the object is, and where.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Owned> {
        self.entries.get(id).map(|entry| entry.owned.clone())
    }

    /// Notes an object. Never blocks for long: the journal's write is in the outcome.
    pub fn insert(&self, seen: Seen<'_>) -> Outcome {
        let id: Arc<str> = Arc::from(seen.id);
        let owned = Owned {
            kind: self.name(seen.kind),
            owner: self.name(seen.owner),
            channel: self.name(seen.channel),
            created: seen.now,
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let saved = match self.entries.entry(Arc::clone(&id)) {
            Entry::Occupied(mut entry) => {
                let there = &entry.get().owned;
                if there.owner == owned.owner && there.channel == owned.channel {
                    return Outcome::Known;
                }
                // On another channel it is another object of the same name: the first stays.
                if !seen.replace || there.channel != owned.channel {
                    self.taken.fetch_add(1, Ordering::Relaxed);
                    return Outcome::Taken;
                }
                let saved = self.journal(&id, &owned);
                entry.insert(Entered { number, owned });
                saved
            }
            Entry::Vacant(entry) => {
                // Told to the journal while the entry is locked: both see one order.
                let saved = self.journal(&id, &owned);
                entry.insert(Entered { number, owned });
                self.count.fetch_add(1, Ordering::Relaxed);
                saved
            }
        };
        self.enter(number, id);
        Outcome::New(saved)
    }

    /// Forgets an object that is gone; whether it was known.
    pub fn remove(&self, id: &str) -> bool {
        let Entry::Occupied(entry) = self.entries.entry(Arc::from(id)) else { return false };
        if let Some(journal) = &self.journal {
            drop(journal.record(ObjectChange::Gone(Arc::clone(entry.key()))));
        }
        entry.remove();
        self.count.fetch_sub(1, Ordering::Relaxed);
        true
    }

    /// How many objects are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Objects that had to go because there were too many.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// Attempts to note an object that is somebody else's.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    fn journal(&self, id: &Arc<str>, owned: &Owned) -> PortFuture<'static, bool> {
        match &self.journal {
            Some(journal) => journal.record(ObjectChange::Made(ObjectRecord {
                id: Arc::clone(id),
                kind: Arc::clone(&owned.kind),
                owner: Arc::clone(&owned.owner),
                channel: Arc::clone(&owned.channel),
                created: owned.created,
            })),
            None => Box::pin(std::future::ready(true)),
        }
    }

    /// Queues the id and makes room. No entry is locked here.
    fn enter(&self, number: u64, id: Arc<str>) {
        let mut order = lock(&self.order);
        order.push_back((number, id));
        while self.count.load(Ordering::Relaxed) > self.limit {
            let Some((number, id)) = order.pop_front() else { break };
            if self.entries.remove_if(&id, |_, entry| entry.number == number).is_some() {
                self.count.fetch_sub(1, Ordering::Relaxed);
                self.forgotten.fetch_add(1, Ordering::Relaxed);
            }
        }
        // Objects that were removed leave their ids behind.
        if order.len() > self.limit.saturating_mul(2).max(64) {
            let queued = mem::take(&mut *order);
            let lives = |(number, id): &(u64, Arc<str>)| {
                self.entries.get(id).is_some_and(|entry| entry.number == *number)
            };
            order.extend(queued.into_iter().filter(lives));
        }
    }

    fn name(&self, name: &str) -> Arc<str> {
        let mut names = lock(&self.names);
        if let Some(known) = names.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = Arc::from(name);
        names.insert(Arc::clone(&name));
        name
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "owned_tests.rs"]
mod tests;
