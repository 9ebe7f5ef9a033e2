//! Ids that look like the platforms' own, and the wall clock.

use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Ids are a hash of a per-instance salt and a counter: two sandboxes (two channels of one relay)
/// never hand out the same id.
pub(crate) struct Ids {
    salt: [u8; 16],
    next: AtomicU64,
}

impl Ids {
    pub(crate) fn new() -> std::io::Result<Ids> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(Ids { salt, next: AtomicU64::new(1) })
    }

    /// `prefix` and 24 hexadecimal digits.
    pub(crate) fn with_prefix(&self, prefix: &str) -> String {
        format!("{prefix}{}", &self.digits()[..24])
    }

    /// The form of DashScope's request ids.
    pub(crate) fn uuid(&self) -> String {
        let d = self.digits();
        format!("{}-{}-4{}-a{}-{}", &d[..8], &d[8..12], &d[13..16], &d[17..20], &d[20..32])
    }

    fn digits(&self) -> String {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let mut hash = Sha256::new();
        hash.update(self.salt);
        hash.update(n.to_be_bytes());
        hex(&hash.finalize())
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Seconds since 1970, as `created` fields want them.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
