//! How much strangers may make us write down.

use std::sync::{Mutex, PoisonError};

/// Records a second of what people without a login do.
const A_SECOND: u32 = 10;

/// A count by second.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    /// Unix time.
    second: i64,
    granted: u32,
    refused: u64,
}

impl Budget {
    /// Whether one more record fits into this second. What did not fit is logged once, afterwards.
    pub(crate) fn grant(&self, second: i64) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.second != second {
            if used.refused > 0 {
                tracing::warn!(
                    records = used.refused,
                    "so many failed logins in a second that they were not all recorded"
                );
            }
            *used = Used { second, ..Used::default() };
        }
        if used.granted < A_SECOND {
            used.granted += 1;
            return true;
        }
        used.refused += 1;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_a_second_are_recorded() {
        let budget = Budget::default();
        assert_eq!((0..100).filter(|_| budget.grant(7)).count(), 10);
        assert!(budget.grant(8));
    }
}
