//! What is counted, and the page that Prometheus reads (`docs/metrics.md` is the table).
//!
//! Counting is a handful of relaxed additions to cells that belong to a few threads; adding up,
//! naming and writing is left to the scrape. There is no label per user or key, and a bounded
//! number of channels: those of the configuration, `none` for requests that never got to one, and
//! `other` for everything else.
//!
//! - `cells`: the counters
//! - `shards`: one copy of the counters per few threads
//! - `histogram`: durations by magnitude
//! - `page`: the names and their exposition
//! - `process`: what the operating system knows of us

mod cells;
mod histogram;
mod page;
mod process;
mod shards;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use aiproxy_core::ports::UsageSink;
use aiproxy_core::{Outcome, UsageEvent};
use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;

use cells::{ChannelCells, ProcessCells, Tried};
use histogram::{ADDED_BOUNDS, REQUEST_BOUNDS};
use shards::Shards;

/// Media type of [`Metrics::page`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The most channels that have labels of their own; the rest count as [`OTHER`].
pub const MAX_CHANNELS: usize = 1000;

/// The `channel` of requests that never got to one.
pub const NONE: &str = "none";

/// The `channel` of those that are not configured, or no longer, or beyond [`MAX_CHANNELS`].
pub const OTHER: &str = "other";

/// What is so at this moment and kept by others: read once per scrape.
#[derive(Debug, Clone, Default)]
pub struct Mirror {
    /// Caller connections open.
    pub connections: usize,
    /// Requests and sessions under way.
    pub live_requests: usize,
    /// Changed configurations that were applied.
    pub reloads_applied: u64,
    /// Changed configurations that were refused.
    pub reloads_refused: u64,
    /// What becomes of records.
    pub records: Records,
    /// WebRTC calls.
    pub calls: Calls,
    /// Connections turned away, by reason.
    pub turned_away: Vec<(&'static str, u64)>,
    /// How often certificates were loaded.
    pub tls_loaded: u64,
    /// How often certificates were refused.
    pub tls_refused: u64,
    /// Certificates in use, each once.
    pub certificates: Vec<CertificateMirror>,
    /// The configured channels, each id once.
    pub channels: Vec<ChannelMirror>,
}

/// WebRTC calls and their media.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Under way, those that are being set up among them.
    pub open: usize,
    /// Being set up.
    pub setups: usize,
    /// Whose media passes through.
    pub relayed: usize,
    /// Addresses of callers from which media is taken.
    pub addresses: usize,
    /// Packets of nobody's at the media port.
    pub unknown_packets: u64,
    /// Packets for which a call's queue had no place.
    pub dropped_packets: u64,
}

/// What becomes of the records of requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Records {
    /// Access log lines that were written.
    pub lines: u64,
    /// Access log lines that were dropped.
    pub lines_dropped: u64,
    /// How often the access log could not be written.
    pub log_failures: u64,
    /// Records that the journal took.
    pub journal_written: u64,
    /// Records that it did not keep.
    pub journal_dropped: u64,
    /// Records of earlier processes that could not be read.
    pub journal_torn: u64,
    /// Bytes of the journal that are yet to be written to the access log.
    pub journal_lag_bytes: u64,
    /// Bytes that the journal takes on disk, without what it keeps for its retention.
    pub journal_disk_bytes: u64,
}

/// One certificate in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateMirror {
    /// The first name that it is for; may be empty.
    pub name: String,
    /// Beginning of its SHA-256.
    pub fingerprint: String,
    /// Moment (Unix time, seconds) until which it is valid.
    pub expires: i64,
}

/// How one channel is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelMirror {
    /// Its id.
    pub id: Arc<str>,
    /// What its breaker does.
    pub breaker: Breaker,
    /// Whether the platform refuses its key or account.
    pub rejected: bool,
    /// Whether its health check fails.
    pub unhealthy: bool,
}

/// What a breaker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breaker {
    /// Everything goes through.
    Closed,
    /// Nothing goes through.
    Open,
    /// One probe at a time goes through.
    HalfOpen,
}

impl Breaker {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The value of the label `state`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Counts usage events and shows them. One per process, shared by all threads.
#[derive(Debug)]
pub struct Metrics {
    counts: Arc<Counts>,
    registry: Registry,
}

impl Metrics {
    /// Starts at zero. `mirror` is called here, by [`refresh`](Self::refresh) and once per scrape.
    #[must_use]
    pub fn new(mirror: impl Fn() -> Mirror + Send + Sync + 'static) -> Self {
        let counts = Arc::new(Counts {
            channels: ArcSwap::from_pointee(Channels::default()),
            changing: Mutex::new(()),
            process: Shards::default(),
            mirror: Box::new(mirror),
            started: SystemTime::now(),
        });
        counts.look();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(&counts)));
        Self { counts, registry }
    }

    /// Learns which channels there are: to be called after each reload. A removed channel loses its
    /// counts, a new one has a label from here on instead of from the next scrape.
    pub fn refresh(&self) {
        self.counts.look();
    }

    /// The page in the OpenMetrics text format.
    ///
    /// # Errors
    /// None that is known: writing goes to memory.
    pub fn page(&self) -> Result<String, fmt::Error> {
        let mut page = String::with_capacity(16 * 1024);
        prometheus_client::encoding::text::encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

impl UsageSink for Metrics {
    fn record(&self, event: UsageEvent) {
        self.observe(&event);
    }

    fn observe(&self, event: &UsageEvent) {
        self.counts.count(event);
    }
}

/// What the threads add to and the page shows.
struct Counts {
    channels: ArcSwap<Channels>,
    /// Held while the channels are exchanged; never while counting.
    changing: Mutex<()>,
    process: Shards<ProcessCells>,
    mirror: Box<dyn Fn() -> Mirror + Send + Sync>,
    started: SystemTime,
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counts").field("started", &self.started).finish_non_exhaustive()
    }
}

/// The counters of one channel.
type Cells = Arc<Shards<ChannelCells>>;

/// All channels that have a label.
#[derive(Default)]
struct Channels {
    by_id: HashMap<Arc<str>, Cells>,
    none: Cells,
    other: Cells,
}

impl Channels {
    fn of(&self, id: Option<&str>) -> &ChannelCells {
        let cells = match id {
            Some(id) => self.by_id.get(id).unwrap_or(&self.other),
            None => &self.none,
        };
        cells.mine()
    }

    /// The same counters under the ids of now.
    fn among(&self, mirror: &Mirror) -> Self {
        let cells = |id: &Arc<str>| match &**id {
            // Ids that a configuration may use as well: one label, one series.
            NONE => Arc::clone(&self.none),
            OTHER => Arc::clone(&self.other),
            id => self.by_id.get(id).map(Arc::clone).unwrap_or_default(),
        };
        let by_id = shown(mirror).map(|channel| (Arc::clone(&channel.id), cells(&channel.id))).collect();
        Self { by_id, none: Arc::clone(&self.none), other: Arc::clone(&self.other) }
    }

    fn are_those_of(&self, mirror: &Mirror) -> bool {
        let count = mirror.channels.len().min(MAX_CHANNELS);
        self.by_id.len() == count && shown(mirror).all(|channel| self.by_id.contains_key(&channel.id))
    }
}

/// The channels that have labels of their own.
fn shown(mirror: &Mirror) -> impl Iterator<Item = &ChannelMirror> {
    mirror.channels.iter().take(MAX_CHANNELS)
}

impl Counts {
    /// Reads what others keep, and follows their channels.
    fn look(&self) -> Mirror {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mirror = (self.mirror)();
        let channels = self.channels.load();
        if !channels.are_those_of(&mirror) {
            self.channels.store(Arc::new(channels.among(&mirror)));
        }
        mirror
    }

    fn count(&self, event: &UsageEvent) {
        // What goes on is counted when it ends.
        if event.outcome == Outcome::Open {
            return;
        }
        let channels = self.channels.load();
        let cells = channels.of(event.channel.as_deref());
        cells.request(event.protocol, event.outcome, event.status).fetch_add(1, Relaxed);
        cells.duration.observe(&REQUEST_BOUNDS, event.total);
        if let Some(time) = event.first_byte {
            cells.first_byte.observe(&REQUEST_BOUNDS, time);
        }
        if let Some(usage) = &event.usage {
            cells.used(usage);
        }
        if let Some(tried) = Tried::last(event) {
            cells.tried[tried as usize].fetch_add(1, Relaxed);
        }
        for attempt in &event.passed_over {
            let tried = Tried::passed_over(attempt.why);
            channels.of(Some(&attempt.channel)).tried[tried as usize].fetch_add(1, Relaxed);
        }
        let process = self.process.mine();
        if let (Outcome::Refused, Some(kind)) = (event.outcome, event.error) {
            process.refusal(kind).fetch_add(1, Relaxed);
        }
        if let Some(time) = event.own {
            process.added.observe(&ADDED_BOUNDS, time);
        }
        process.bytes_in.fetch_add(event.bytes_in, Relaxed);
        process.bytes_out.fetch_add(event.bytes_out, Relaxed);
    }
}
