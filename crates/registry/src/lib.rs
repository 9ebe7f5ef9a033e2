//! What may be and what is.
//!
//! Owns: the current [`Snapshot`] behind one pointer that a reload swaps in one step.
//! Never does: I/O, decisions about one request, rebuilding what lives because the snapshot
//! changed.

use std::sync::Arc;

use aiproxy_config::model::Snapshot;
use arc_swap::ArcSwap;

/// Shared by all threads for the life of the process.
#[derive(Debug)]
pub struct Registry {
    snapshot: ArcSwap<Snapshot>,
}

impl Registry {
    /// Begins with the first valid configuration.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self { snapshot: ArcSwap::from_pointee(snapshot) }
    }

    /// The snapshot of this moment. Load it once per request and decide everything on it, so that
    /// a reload in between cannot mix two configurations.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Makes another configuration the current one.
    pub fn replace(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }
}
