//! What a connection costs against what it is good for.
//!
//! A peer may open and reset streams, and send frames that say nothing, as fast as it likes; each
//! costs work. A connection has credit, which these use up and which time and served requests bring
//! back; who runs out of it is flooding.

use std::cell::Cell;
use std::time::Instant;

/// Credit of a connection, at first and at most.
const MOST: i64 = 2000;
/// What each second brings back.
const A_SECOND: i64 = 200;

/// A stream that begins, or a frame that says nothing.
pub(crate) const LITTLE: i64 = 1;
/// A stream of a kind that is not known, a frame on the control stream.
pub(crate) const SOME: i64 = 4;
/// A request that is given up.
pub(crate) const RESET: i64 = 10;
/// What a request that was answered to its end brings back.
pub(crate) const ANSWERED: i64 = 12;

/// Credit of one connection.
#[derive(Debug)]
pub(crate) struct Flood {
    credit: Cell<i64>,
    since: Cell<Instant>,
}

impl Flood {
    /// A connection that begins.
    pub(crate) fn new(now: Instant) -> Self {
        Self { credit: Cell::new(MOST), since: Cell::new(now) }
    }

    /// Pays; false when there is no credit left.
    pub(crate) fn pay(&self, cost: i64, now: impl FnOnce() -> Instant) -> bool {
        if self.credit.get() < cost {
            let now = now();
            let seconds = now.duration_since(self.since.get()).as_secs();
            if seconds > 0 {
                self.since.set(now);
                self.earn(i64::try_from(seconds).unwrap_or(MOST).saturating_mul(A_SECOND));
            }
        }
        self.credit.set(self.credit.get() - cost);
        self.credit.get() >= 0
    }

    /// What it was good for.
    pub(crate) fn earn(&self, credit: i64) {
        self.credit.set(self.credit.get().saturating_add(credit).min(MOST));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_costs_more_than_it_is_good_for_runs_out() {
        let begin = Instant::now();
        let flood = Flood::new(begin);
        let paid = (0..1000).take_while(|_| flood.pay(RESET, || begin)).count();
        assert_eq!(paid, 200);
        let later = begin + Duration::from_secs(5);
        assert!(flood.pay(RESET, || later), "time brings credit back");
        for _ in 0..10_000 {
            assert!(flood.pay(LITTLE, || later), "and so do requests");
            flood.earn(ANSWERED);
        }
    }

    #[test]
    fn credit_ends_at_its_bound() {
        let begin = Instant::now();
        let flood = Flood::new(begin);
        flood.earn(1_000_000);
        let later = begin + Duration::from_secs(1_000_000);
        assert!(flood.pay(MOST, || later));
        assert!(flood.pay(MOST, || later), "what had come by time meanwhile");
        assert!(!flood.pay(MOST, || later));
    }
}
