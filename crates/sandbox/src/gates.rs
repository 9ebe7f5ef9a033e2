//! Named gates: `hold=NAME` waits at one, `POST /sandbox/release/NAME` opens it for good.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Nobody waits longer than this.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest name, in bytes.
pub(crate) const NAME_LIMIT: usize = 128;
/// Names are the caller's; beyond this many, gates where nobody waits are forgotten.
const LIMIT: usize = 4096;

/// A gate is a semaphore without permits: closing it wakes everyone, now and later.
#[derive(Default)]
pub(crate) struct Gates(Mutex<HashMap<String, Arc<Semaphore>>>);

impl Gates {
    pub(crate) fn release(&self, name: &str) {
        self.gate(name).close();
    }

    pub(crate) async fn wait(&self, name: &str) {
        let gate = self.gate(name);
        // Either the gate was closed (opened, that is), or patience ran out: both mean "go on".
        let _ = tokio::time::timeout(PATIENCE, gate.acquire()).await;
    }

    fn gate(&self, name: &str) -> Arc<Semaphore> {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if gates.len() >= LIMIT && !gates.contains_key(name) {
            // A count above one is a request that waits there.
            gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        }
        Arc::clone(gates.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(0))))
    }
}
