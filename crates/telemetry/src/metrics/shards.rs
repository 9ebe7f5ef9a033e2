//! One copy of some counters per few threads, so that threads do not fight over a cache line.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Copies beyond this cost memory and bring little.
const MOST: usize = 8;

/// Two cache lines: what x86 fetches together, and what one line is on some ARM cores.
#[repr(align(128))]
#[derive(Default)]
struct Padded<T>(T);

/// Copies of `T`, to be added up by whoever reads.
pub(super) struct Shards<T>(Box<[Padded<T>]>);

impl<T: Default> Default for Shards<T> {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self((0..cores.min(MOST)).map(|_| Padded::default()).collect())
    }
}

impl<T> Shards<T> {
    /// The copy that this thread adds to.
    pub(super) fn mine(&self) -> &T {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static THREAD: usize = NEXT.fetch_add(1, Ordering::Relaxed);
        }
        &self.0[THREAD.with(|thread| *thread) % self.0.len()].0
    }

    /// What the copies make together.
    pub(super) fn sum(&self, count: impl Fn(&T) -> u64) -> u64 {
        self.all().map(count).fold(0, u64::wrapping_add)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &padded.0)
    }
}
