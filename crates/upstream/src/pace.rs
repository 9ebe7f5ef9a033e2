//! Whether a body comes fast enough. Pure: the clock is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// The time over which a rate is taken. Only time in which nothing but the caller was waited for
/// counts, so that a slow platform is nobody's fault.
const WINDOW: Duration = Duration::from_secs(10);

/// Follows one body.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    /// Bytes that a window must bring; `None` asks nothing.
    least: Option<u64>,
    since: Option<Instant>,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// At least so many bytes a second.
    #[must_use]
    pub fn at_least(rate: Option<u64>) -> Self {
        Self { least: rate.map(|rate| rate.saturating_mul(WINDOW.as_secs())), ..Self::default() }
    }

    /// The caller is waited for from now on.
    pub fn waiting(&mut self, now: impl FnOnce() -> Instant) {
        if self.least.is_some() && self.since.is_none() {
            self.since = Some(now());
        }
    }

    /// Bytes have come; returns whether they still come fast enough.
    #[must_use]
    pub fn came(&mut self, bytes: usize, now: impl FnOnce() -> Instant) -> bool {
        let Some(least) = self.least else { return true };
        if let Some(since) = self.since.take() {
            self.waited += now().saturating_duration_since(since);
        }
        self.bytes += bytes as u64;
        if self.waited < WINDOW {
            return true;
        }
        let fast = self.bytes >= least;
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        fast
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_spent_waiting_for_the_caller_counts() {
        let begin = Instant::now();
        let at = |seconds: u64| move || begin + Duration::from_secs(seconds);
        let mut pace = Pace::at_least(Some(10));
        // A hundred bytes in ten seconds of waiting, in pieces.
        for step in 0..10 {
            pace.waiting(at(step * 100));
            pace.waiting(at(step * 100 + 50));
            // The second call changes nothing: the wait has begun.
            let fast = pace.came(if step == 0 { 1000 } else { 1 }, at(step * 100 + 1));
            assert!(fast, "{step}");
        }
        // The first window's bytes do not count for the next one.
        pace.waiting(at(2000));
        assert!(pace.came(50, at(2009)));
        pace.waiting(at(2100));
        assert!(!pace.came(49, at(2101)));
        pace.waiting(at(2200));
        assert!(pace.came(100, at(2210)));
    }

    #[test]
    fn without_a_rate_everything_is_fast_enough() {
        let begin = Instant::now();
        let mut pace = Pace::at_least(None);
        pace.waiting(|| begin);
        assert!(pace.came(0, || begin + Duration::from_secs(1000)));
    }
}
