//! What may be and what is.
//!
//! Owns: the current [`Snapshot`] behind one pointer that a reload swaps in one step, and maps by
//! id of what lives: requests under way, the health of channels.
//! Never does: I/O, decisions about one request, rebuilding what lives because the snapshot
//! changed.
//!
//! - [`live`]: what is under way, and how it is cut
//! - [`health`]: how each channel is doing
//! - [`denials`]: what an administrator has cut off, whatever the configuration says
//! - [`breaker`]: when to leave a channel alone
//! - [`owned`]: who made what at the platforms
//! - [`calls`]: WebRTC calls: how many there are, and which of ours is which of a platform's
//! - [`minted`]: client secrets that count: those that live, and those that are used up
//! - [`status`]: how the process itself is doing

pub mod breaker;
pub mod calls;
pub mod denials;
pub mod health;
pub mod live;
pub mod minted;
pub mod owned;
pub mod status;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aiproxy_config::model::Snapshot;
use arc_swap::ArcSwap;

use crate::calls::Calls;
use crate::denials::{Denials, Subject};
use crate::health::HealthMap;
use crate::live::{Live, LiveMap, Registration};
use crate::status::Status;

/// Shared by all threads for the life of the process.
#[derive(Debug)]
pub struct Registry {
    snapshot: ArcSwap<Snapshot>,
    epoch: AtomicU64,
    /// What is under way.
    pub live: LiveMap,
    /// How each channel is doing.
    pub health: HealthMap,
    /// How the process is doing.
    pub status: Status,
    /// What has been cut off by hand.
    pub denials: Denials,
    /// WebRTC calls.
    pub calls: Arc<Calls>,
}

impl Registry {
    /// Begins with the first valid configuration.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            epoch: AtomicU64::new(0),
            live: LiveMap::default(),
            health: HealthMap::default(),
            status: Status::default(),
            denials: Denials::default(),
            calls: Arc::default(),
        }
    }

    /// The snapshot of this moment. Load it once per request and decide everything on it, so that
    /// a reload in between cannot mix two configurations.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Counts the snapshots. A request loads it before its snapshot and compares it once it is
    /// [registered](Self::register): if it has moved on, the request decides again. So a
    /// revocation is either seen by the request, or finds it registered and cuts it.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Makes another configuration the current one. What is under way has to be looked at
    /// afterwards: see [`LiveMap::cut_where`].
    pub fn replace(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Cuts a user or a key off, from this moment and until [`allow`](Self::allow): new requests are
    /// refused, what is under way ends. Returns how many requests were cut.
    pub fn deny(&self, subject: Subject) -> usize {
        self.denials.add(subject);
        // A request that was admitted before decides again once it is registered.
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.live.cut_where(|live| self.denials.of_ids(&live.user, &live.digest))
    }

    /// Takes a denial back; returns whether there was one.
    pub fn allow(&self, subject: &Subject) -> bool {
        self.denials.remove(subject)
    }

    /// Enters a request before its upstream is dialled.
    #[must_use]
    pub fn register(self: &Arc<Self>, live: Live) -> Registration {
        LiveMap::enter(self, live)
    }
}

#[cfg(test)]
#[path = "denials_tests.rs"]
mod tests;
