//! How the process itself is doing: for `/readyz`, metrics and the log.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Flags and counts that any thread may read.
#[derive(Debug, Default)]
pub struct Status {
    draining: AtomicBool,
    reloads_applied: AtomicU64,
    reloads_refused: AtomicU64,
    /// Why the last reload was refused; none once one was applied.
    reload_error: Mutex<Option<String>>,
    /// Caller connections open at the moment.
    pub connections: AtomicUsize,
}

impl Status {
    /// Whether the process has been told to end.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// From now on `/readyz` fails and answers ask callers to close their connections.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// A changed configuration was applied.
    pub fn reload_applied(&self) {
        self.reloads_applied.fetch_add(1, Ordering::Relaxed);
        *self.reload_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A changed configuration was refused; the last good one stays.
    pub fn reload_refused(&self, why: String) {
        self.reloads_refused.fetch_add(1, Ordering::Relaxed);
        *self.reload_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    /// Reloads applied and refused so far.
    #[must_use]
    pub fn reloads(&self) -> (u64, u64) {
        (self.reloads_applied.load(Ordering::Relaxed), self.reloads_refused.load(Ordering::Relaxed))
    }

    /// Why the last reload was refused, if it was.
    #[must_use]
    pub fn reload_error(&self) -> Option<String> {
        self.reload_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
