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
    /// Requests that have a place among `limits.requests`.
    pub requests: AtomicUsize,
    turned_away: [AtomicU64; TurnedAway::ALL.len()],
    tls: Mutex<Tls>,
    tls_loaded: AtomicU64,
    tls_refused: AtomicU64,
}

/// Why a connection was ended before a request, or in spite of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnedAway {
    /// `max_connections` is reached.
    Connections,
    /// `limits.connections_per_ip` is reached.
    PerIp,
    /// `limits.handshakes` is reached.
    Handshakes,
    /// The TLS handshake failed or did not end in time.
    Handshake,
    /// No PROXY protocol header, or not from a trusted proxy.
    ProxyHeader,
    /// More HTTP/2 control frames than the work done explains.
    Flood,
}

impl TurnedAway {
    /// Every one, in order: `ALL[x as usize]` is `x`.
    pub const ALL: [Self; 6] =
        [Self::Connections, Self::PerIp, Self::Handshakes, Self::Handshake, Self::ProxyHeader, Self::Flood];

    /// The name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::PerIp => "connections_per_ip",
            Self::Handshakes => "handshakes",
            Self::Handshake => "handshake",
            Self::ProxyHeader => "proxy_header",
            Self::Flood => "flood",
        }
    }
}

/// The certificates of the HTTPS listeners.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Those in use.
    pub certificates: Vec<Certificate>,
    /// Why the files that are there now are not.
    pub error: Option<String>,
}

/// What may be told of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The DNS names that it is for.
    pub names: Vec<String>,
    /// SHA-256 of its DER, in hexadecimal.
    pub fingerprint: String,
    /// Moment (Unix time, seconds) until which it is valid.
    pub expires: i64,
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

    /// A connection was turned away.
    pub fn turn_away(&self, why: TurnedAway) {
        self.turned_away[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Connections turned away so far.
    #[must_use]
    pub fn turned_away(&self, why: TurnedAway) -> u64 {
        self.turned_away[why as usize].load(Ordering::Relaxed)
    }

    /// These certificates are in use from now on.
    pub fn tls_loaded(&self, certificates: Vec<Certificate>) {
        self.tls_loaded.fetch_add(1, Ordering::Relaxed);
        *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = Tls { certificates, error: None };
    }

    /// There are no certificates any more.
    pub fn tls_gone(&self) {
        *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = Tls::default();
    }

    /// Certificates were not taken; the last good ones stay.
    pub fn tls_refused(&self, why: String) {
        self.tls_refused.fetch_add(1, Ordering::Relaxed);
        self.tls.lock().unwrap_or_else(PoisonError::into_inner).error = Some(why);
    }

    /// How often certificates were loaded and refused so far.
    #[must_use]
    pub fn tls_loads(&self) -> (u64, u64) {
        (self.tls_loaded.load(Ordering::Relaxed), self.tls_refused.load(Ordering::Relaxed))
    }

    /// The certificates in use.
    #[must_use]
    pub fn tls(&self) -> Tls {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
