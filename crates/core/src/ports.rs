//! The traits through which sibling crates meet; `src/` wires the two ends together.

use crate::usage::UsageEvent;

/// Where usage events go. The meter implements it; the gateway and signaling call it.
pub trait UsageSink: Send + Sync + 'static {
    /// Takes the event. Never blocks and never fails: an implementation that cannot keep the
    /// event counts the loss where operators see it.
    fn record(&self, event: UsageEvent);
}
