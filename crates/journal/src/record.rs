//! The bytes of a record.
//!
//! ```text
//! 0..4   length of the payload, u32 little-endian, stored last; 0 = nothing here yet
//! 4..8   CRC-32 (IEEE) of the payload, seeded with segment and offset, u32 little-endian
//! 8..    payload, then zeros up to the next multiple of 8
//! ```
//!
//! The seed keeps a record from being valid anywhere but where it was written.

/// Bytes before the payload.
pub(crate) const HEAD: usize = 8;

/// Why a record cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// The sum does not fit: the record was written in part. The next one may be whole.
    Sum,
    /// The length leads beyond the end: nothing behind it can be found.
    PastEnd,
    /// Bytes without a length in front of them: nothing behind them can be found.
    Unpublished,
}

/// A segment of a process that is gone, as plain bytes.
#[derive(Debug)]
pub(crate) struct Remains {
    /// The segment from `base` on.
    bytes: Vec<u8>,
    base: usize,
    next: usize,
    seed: u32,
}

/// CRC-32 (IEEE) of some bytes.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// Bytes that a record of this payload takes.
pub(crate) const fn size(payload: usize) -> usize {
    (HEAD + payload).next_multiple_of(8)
}

/// The sum that stands in front of the payload at `at`.
pub(crate) fn sum(seed: u32, at: usize, payload: &[u8]) -> u32 {
    // Segments are shorter than 4 GiB: the options see to it.
    let mut hasher = crc32fast::Hasher::new_with_initial(seed ^ (at as u32).rotate_left(16));
    hasher.update(payload);
    hasher.finalize()
}

/// The payload behind its sum, if they fit.
pub(crate) fn verify(seed: u32, at: usize, body: &[u8]) -> Result<&[u8], Unreadable> {
    let Some((stored, payload)) = body.split_first_chunk::<4>() else { return Err(Unreadable::Sum) };
    if sum(seed, at, payload) == u32::from_le_bytes(*stored) { Ok(payload) } else { Err(Unreadable::Sum) }
}

impl Remains {
    /// Reads `bytes` from `start` on, an offset that a follower or earlier remains gave.
    pub(crate) fn new(bytes: Vec<u8>, start: usize, seed: u32) -> Self {
        let start = start.min(bytes.len());
        Self { bytes, base: 0, next: start, seed }
    }

    /// Reads what stands in the segment from `start` on, without what is before.
    pub(crate) fn behind(start: usize, bytes: Vec<u8>, seed: u32) -> Self {
        Self { bytes, base: start, next: start, seed }
    }

    /// The memory, to be used again.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Where the next record would be.
    pub(crate) fn next(&self) -> usize {
        self.next
    }

    /// The next record; none at the end.
    pub(crate) fn read(&mut self) -> Option<Result<&[u8], Unreadable>> {
        let at = self.next;
        let from = at - self.base;
        let rest = self.bytes.get(from..).unwrap_or_default();
        let Some((word, body)) = rest.split_first_chunk::<4>() else {
            return self.stop(!rest.is_empty(), Unreadable::PastEnd);
        };
        let length = u32::from_le_bytes(*word) as usize;
        if length == 0 {
            // A writer that died in mid-copy leaves bytes without a length.
            let dirty = body.iter().any(|byte| *byte != 0);
            return self.stop(dirty, Unreadable::Unpublished);
        }
        if length > body.len().saturating_sub(4) {
            return self.stop(true, Unreadable::PastEnd);
        }
        self.next = (at + size(length)).min(self.base + self.bytes.len());
        let body = &self.bytes[from + 4..from + HEAD + length];
        Some(verify(self.seed, at, body))
    }

    fn stop(&mut self, torn: bool, why: Unreadable) -> Option<Result<&[u8], Unreadable>> {
        self.next = self.base + self.bytes.len();
        torn.then_some(Err(why))
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
