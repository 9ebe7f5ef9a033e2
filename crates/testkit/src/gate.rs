//! A gate between a test and what it scripted.

use std::sync::Arc;

use tokio::sync::watch;

use crate::wait::within;

/// Opens once and stays open; clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate {
    name: Arc<str>,
    open: Arc<watch::Sender<bool>>,
}

impl Gate {
    /// A closed gate; the name appears when it is waited for in vain.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), open: Arc::new(watch::channel(false).0) }
    }

    /// Lets everybody pass, now and later.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Whether it has been opened.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    /// Waits until it opens.
    ///
    /// # Panics
    /// After [`crate::BOUND`].
    pub async fn passed(&self) {
        let mut open = self.open.subscribe();
        let _ = within(&format!("the gate '{}'", self.name), open.wait_for(|open| *open)).await;
    }
}
