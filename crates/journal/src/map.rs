//! Memory that one thread appends to while others read.
//!
//! The only unsafe code of the workspace. What makes it sound:
//!
//! 1. A [`Region`] that is not yet [split](Region::split) has one owner.
//! 2. Afterwards the one [`Appender`] is alone in writing, and only at and behind its `tail`.
//! 3. A [`Follower`] begins where the appender began and steps over published records only, so
//!    `next <= tail`. At `next` it does nothing but an atomic load of the length word, which the
//!    appender in turn only ever stores atomically.
//! 4. The appender stores the length word, with release, after everything else of the record; a
//!    follower that loads it with acquire therefore sees the whole record, and nobody writes there
//!    again.
//! 5. The file belongs to this process: the folder is locked, and files of earlier processes are
//!    read as plain bytes, never mapped. That nobody else writes to or shortens the file is a
//!    condition of use, as it is for a database's files.
#![expect(unsafe_code, reason = "shared memory cannot be written and read otherwise")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::record::{self, HEAD, Unreadable};

/// Mapped memory with one owner.
#[derive(Debug)]
pub(crate) struct Region {
    map: MmapRaw,
}

/// Mapped memory in common use.
#[derive(Debug, Clone)]
pub(crate) struct Tape {
    region: Arc<Region>,
    start: usize,
    seed: u32,
}

/// The end that writes.
#[derive(Debug)]
pub(crate) struct Appender {
    region: Arc<Region>,
    tail: usize,
    seed: u32,
}

/// An end that reads.
#[derive(Debug)]
pub(crate) struct Follower {
    region: Arc<Region>,
    next: usize,
    seed: u32,
}

impl Region {
    /// Maps the first `length` bytes of a file and makes them present, so that the first store to a
    /// page does not stop at the file system.
    pub(crate) fn map(file: &File, length: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(length).map_raw(file)?;
        // Only a matter of speed, and unknown to Linux before 5.14.
        #[cfg(target_os = "linux")]
        let _ = map.advise(Advice::PopulateWrite);
        Ok(Self { map })
    }

    /// Memory without a file.
    #[cfg(test)]
    pub(crate) fn anonymous(length: usize) -> io::Result<Self> {
        Ok(Self { map: memmap2::MmapMut::map_anon(length)?.into() })
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the map is `len` bytes long, and `&mut self` before the split means that nobody
        // else has a view of it (1, 5).
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr(), self.map.len()) }
    }

    /// Records go to `start` (8-aligned) and behind; the memory there is all zeros.
    pub(crate) fn split(self, start: usize, seed: u32) -> (Appender, Tape) {
        assert!(start.is_multiple_of(8) && start <= self.map.len(), "records are 8-aligned");
        let region = Arc::new(self);
        let tape = Tape { region: Arc::clone(&region), start, seed };
        (Appender { region, tail: start, seed }, tape)
    }

    pub(crate) fn flush(&self, range: Range<usize>) -> io::Result<()> {
        self.map.flush_range(range.start, range.len())
    }

    /// The length word at `at`: 8-aligned, with room for a head behind it.
    fn word(&self, at: usize) -> &AtomicU32 {
        debug_assert!(at.is_multiple_of(8) && at + HEAD <= self.map.len());
        // SAFETY: in bounds and aligned (mappings begin at a page); no non-atomic access to this
        // word happens after the split (3).
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().add(at).cast()) }
    }
}

impl Tape {
    /// Reads from the first record on.
    pub(crate) fn follow(&self) -> Follower {
        Follower { region: Arc::clone(&self.region), next: self.start, seed: self.seed }
    }

    pub(crate) fn flush(&self, range: Range<usize>) -> io::Result<()> {
        self.region.flush(range)
    }
}

impl Appender {
    /// Where the next record goes.
    pub(crate) fn tail(&self) -> usize {
        self.tail
    }

    /// Publishes a record; false when there is no room for it. The payload is not empty.
    pub(crate) fn append(&mut self, payload: &[u8]) -> bool {
        let (at, end) = (self.tail, self.tail + record::size(payload.len()));
        let Ok(length) = u32::try_from(payload.len()) else { return false };
        if end > self.region.map.len() || length == 0 {
            return false;
        }
        let sum = record::sum(self.seed, at, payload).to_le_bytes();
        // SAFETY: `[at + 4, at + HEAD + payload.len())` is in bounds, unpublished, and written by
        // nobody else (2); the sources cannot overlap it, since a follower hands out published
        // bytes only.
        unsafe {
            let base = self.region.map.as_mut_ptr();
            std::ptr::copy_nonoverlapping(sum.as_ptr(), base.add(at + 4), sum.len());
            std::ptr::copy_nonoverlapping(payload.as_ptr(), base.add(at + HEAD), payload.len());
        }
        self.region.word(at).store(length.to_le(), Ordering::Release);
        self.tail = end;
        true
    }
}

impl Follower {
    /// Where the next record will be.
    pub(crate) fn next(&self) -> usize {
        self.next
    }

    /// The next record, once there is one.
    pub(crate) fn read(&mut self) -> Option<Result<&[u8], Unreadable>> {
        let at = self.next;
        if at + HEAD > self.region.map.len() {
            return None;
        }
        let length = u32::from_le(self.region.word(at).load(Ordering::Acquire)) as usize;
        if length == 0 {
            return None;
        }
        if length > self.region.map.len() - at - HEAD {
            return Some(Err(Unreadable::PastEnd));
        }
        // SAFETY: in bounds by the check above; published, so never written again (4). The region
        // outlives the borrow of `self`.
        let body =
            unsafe { std::slice::from_raw_parts(self.region.map.as_ptr().add(at + 4), HEAD - 4 + length) };
        self.next = (at + record::size(length)).min(self.region.map.len());
        Some(record::verify(self.seed, at, body))
    }
}

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
