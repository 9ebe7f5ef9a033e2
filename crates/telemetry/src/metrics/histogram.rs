//! Durations by magnitude. The client library's histogram takes a lock per observation.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::shards::Shards;

const BOUNDS: usize = 15;

/// Upper bounds in seconds, inclusive: from an answer out of a cache to a long stream.
pub(super) const REQUEST_BOUNDS: [f64; BOUNDS] =
    [0.005, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// Upper bounds in seconds, inclusive, of what AIProxy itself adds.
pub(super) const ADDED_BOUNDS: [f64; BOUNDS] = [
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5,
    1.0,
];

/// Ticks of 100 ns per second: a thousand requests at a time need decades to fill a sum.
const TICKS: f64 = 1e7;

/// One thread's observations.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// Not cumulative; the last is what exceeds every bound.
    buckets: [AtomicU64; BOUNDS + 1],
    ticks: AtomicU64,
}

impl Histogram {
    pub(super) fn observe(&self, bounds: &[f64; BOUNDS], time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = bounds.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(1, Relaxed);
        let ticks = u64::try_from(time.as_nanos() / 100).unwrap_or(u64::MAX);
        self.ticks.fetch_add(ticks, Relaxed);
    }
}

/// All threads' observations.
#[derive(Debug, PartialEq)]
pub(super) struct Totals {
    pub(super) sum: f64,
    pub(super) count: u64,
    /// Upper bound and what fell between it and the bound before.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl Totals {
    pub(super) fn of<T>(shards: &Shards<T>, bounds: &[f64; BOUNDS], pick: impl Fn(&T) -> &Histogram) -> Self {
        let counts = (0..=BOUNDS).map(|at| shards.sum(|cells| pick(cells).buckets[at].load(Relaxed)));
        let buckets: Vec<_> = bounds.iter().copied().chain([f64::INFINITY]).zip(counts).collect();
        let ticks = shards.sum(|cells| pick(cells).ticks.load(Relaxed));
        // From the buckets, so that a page never contradicts itself.
        let count = buckets.iter().map(|(_, count)| count).sum();
        #[expect(clippy::cast_precision_loss, reason = "a sum of seconds is no exact figure")]
        let sum = ticks as f64 / TICKS;
        Self { sum, count, buckets }
    }
}
