//! The registry as the metrics show it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use aiproxy_registry::Registry;
use aiproxy_registry::breaker::State;
use aiproxy_registry::health::View;
use aiproxy_registry::status::{Certificate, TurnedAway};
use aiproxy_telemetry::metrics::{Breaker, Calls, CertificateMirror, ChannelMirror, Mirror, Records};

/// Characters of a fingerprint that tell certificates apart.
const FINGERPRINT: usize = 16;

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
    let (tls_loaded, tls_refused) = registry.status.tls_loads();
    let mut certificates: Vec<CertificateMirror> = Vec::new();
    for Certificate { names, mut fingerprint, expires } in registry.status.tls().certificates {
        fingerprint.truncate(FINGERPRINT);
        let name = names.into_iter().next().unwrap_or_default();
        let certificate = CertificateMirror { name, fingerprint, expires };
        if !certificates.contains(&certificate) {
            certificates.push(certificate);
        }
    }
    Mirror {
        connections: registry.status.connections.load(Ordering::Relaxed),
        live_requests: registry.live.len(),
        reloads_applied,
        reloads_refused,
        records: Records::default(),
        calls: Calls { open: registry.calls.len(), setups: registry.calls.setups(), ..Calls::default() },
        turned_away: TurnedAway::ALL.map(|why| (why.as_str(), registry.status.turned_away(why))).to_vec(),
        tls_loaded,
        tls_refused,
        certificates,
        channels: channels.collect(),
    }
}
