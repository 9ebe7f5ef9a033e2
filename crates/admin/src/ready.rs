//! Whether to send callers here, and what is known besides.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use aiproxy_config::model::Status;
use aiproxy_registry::{Registry, status};
use serde::Serialize;

use crate::control::Control;

/// Longest report on a refused configuration that is shown; the process log has all of it.
const REPORT_BYTES: usize = 16 * 1024;

/// The answer of `/readyz`.
#[derive(Debug, Serialize)]
pub(crate) struct Readiness {
    /// Whether callers should be sent here.
    pub(crate) ready: bool,
    /// Why not.
    reasons: Vec<&'static str>,
    details: Details,
}

#[derive(Debug, Serialize)]
struct Details {
    draining: bool,
    connections: usize,
    live_requests: usize,
    reload: Reload,
    tls: Tls,
    database: Database,
    channels: Vec<Channel>,
}

/// What holds denials, administrators and, unless the file does, users and channels.
#[derive(Debug, Serialize)]
struct Database {
    /// Who manages users and channels: `file` or `database`.
    source: &'static str,
    /// `available` or `away`.
    state: &'static str,
    /// Why it is away.
    error: Option<String>,
    /// Documents of it that cannot be used.
    unusable: usize,
}

impl Database {
    fn of(control: &Control) -> Self {
        let error = control.away();
        Self {
            source: control.source().as_str(),
            state: if error.is_none() { "available" } else { "away" },
            error: error.map(bounded),
            unusable: control.faults().len(),
        }
    }
}

/// What became of changed configurations.
#[derive(Debug, Serialize)]
struct Reload {
    applied: u64,
    refused: u64,
    /// Why the last one was refused; none once one was applied.
    error: Option<String>,
}

/// The certificates of the HTTPS listeners.
#[derive(Debug, Serialize)]
struct Tls {
    certificates: Vec<Certificate>,
    /// Why the files that are there now are not in use.
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Certificate {
    names: Vec<String>,
    fingerprint: String,
    /// Unix time, seconds.
    expires: i64,
}

impl Tls {
    fn of(registry: &Registry) -> Self {
        let status::Tls { certificates, error } = registry.status.tls();
        let certificates = certificates.into_iter().map(|certificate| {
            let status::Certificate { names, fingerprint, expires } = certificate;
            Certificate { names, fingerprint, expires }
        });
        Self { certificates: certificates.collect(), error: error.map(bounded) }
    }
}

#[derive(Debug, Serialize)]
struct Channel {
    id: Arc<str>,
    status: &'static str,
    breaker: &'static str,
    rejected: bool,
    unhealthy: bool,
}

impl Readiness {
    /// A configuration that was refused, or a channel that fails, is no reason to send callers
    /// elsewhere: the last good one serves, and elsewhere the channel fails as well.
    pub(crate) fn of(registry: &Registry, control: &Control) -> Self {
        let now = Instant::now();
        let snapshot = registry.snapshot();
        let channels = snapshot.channels.iter().map(|channel| {
            let view = registry.health.get(&channel.id).view(now);
            Channel {
                id: Arc::clone(&channel.id),
                status: match channel.status {
                    Status::Active => "active",
                    Status::Draining => "draining",
                    Status::Disabled => "disabled",
                },
                breaker: view.breaker.as_str(),
                rejected: view.rejected,
                unhealthy: view.unhealthy,
            }
        });
        let (applied, refused) = registry.status.reloads();
        let details = Details {
            draining: registry.status.draining(),
            connections: registry.status.connections.load(Ordering::Relaxed),
            live_requests: registry.live.len(),
            reload: Reload { applied, refused, error: registry.status.reload_error().map(bounded) },
            tls: Tls::of(registry),
            database: Database::of(control),
            channels: channels.collect(),
        };
        let no_channel = snapshot.channels.iter().all(|channel| channel.status != Status::Active);
        let reasons: Vec<_> = [("draining", details.draining), ("no_active_channel", no_channel)]
            .into_iter()
            .filter_map(|(reason, holds)| holds.then_some(reason))
            .collect();
        Self { ready: reasons.is_empty(), reasons, details }
    }
}

pub(crate) fn bounded(mut report: String) -> String {
    if report.len() > REPORT_BYTES {
        report.truncate(report.floor_char_boundary(REPORT_BYTES));
        report.push('…');
    }
    report
}
