//! Chance, where nothing secret depends on it.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// A number from 0 up to 1, which it is not.
pub(crate) fn chance() -> f64 {
    // Each state is keyed anew.
    let random = RandomState::new().build_hasher().finish();
    (random >> 11) as f64 / (1_u64 << 53) as f64
}
