//! The registry as the metrics show it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use aiproxy_registry::Registry;
use aiproxy_registry::breaker::State;
use aiproxy_registry::health::View;
use aiproxy_telemetry::metrics::{Breaker, ChannelMirror, Mirror, Records};

/// All that the registry knows; what it does not know is zero.
#[must_use]
pub fn mirror(registry: &Registry) -> Mirror {
    let now = Instant::now();
    let (reloads_applied, reloads_refused) = registry.status.reloads();
    let snapshot = registry.snapshot();
    let channels = snapshot.channels.iter().map(|channel| {
        let View { breaker, rejected, unhealthy } = registry.health.get(&channel.id).view(now);
        let breaker = match breaker {
            State::Closed => Breaker::Closed,
            State::Open(_) => Breaker::Open,
            State::HalfOpen => Breaker::HalfOpen,
        };
        ChannelMirror { id: Arc::clone(&channel.id), breaker, rejected, unhealthy }
    });
    Mirror {
        connections: registry.status.connections.load(Ordering::Relaxed),
        live_requests: registry.live.len(),
        reloads_applied,
        reloads_refused,
        records: Records::default(),
        channels: channels.collect(),
    }
}
