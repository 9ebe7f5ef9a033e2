//! The bytes of uploaded files, in memory and bounded.

use crate::shape::Fault;
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes are kept in blocks of this size: a growing vector would copy itself again and again.
const BLOCK: usize = 256 << 10;
/// What a file costs besides its bytes, so that empty ones are bounded too.
const OVERHEAD: u64 = 4096;

/// A stored file; immutable.
pub(crate) struct StoredFile {
    pub(crate) id: String,
    pub(crate) filename: String,
    pub(crate) purpose: String,
    pub(crate) created: u64,
    pub(crate) content: Content,
}

/// All files, oldest first, and the budget they share.
pub(crate) struct FileStore {
    files: Mutex<Files>,
    used: Arc<Mutex<u64>>,
    limit: u64,
}

#[derive(Default)]
struct Files {
    last: u64,
    by_number: BTreeMap<u64, Arc<StoredFile>>,
}

impl FileStore {
    pub(crate) fn new(limit: u64) -> FileStore {
        FileStore { files: Mutex::default(), used: Arc::default(), limit }
    }

    /// Room for a file that is about to arrive.
    pub(crate) fn begin(&self) -> Result<Content, Fault> {
        let mut content = Content {
            blocks: Vec::new(),
            tail: BytesMut::new(),
            length: 0,
            used: Arc::clone(&self.used),
            limit: self.limit,
            reserved: 0,
        };
        content.reserve(OVERHEAD)?;
        Ok(content)
    }

    pub(crate) fn put(&self, file: StoredFile) -> Arc<StoredFile> {
        let file = Arc::new(file);
        let mut files = lock(&self.files);
        files.last += 1;
        let number = files.last;
        files.by_number.insert(number, Arc::clone(&file));
        file
    }

    pub(crate) fn list(&self) -> Vec<Arc<StoredFile>> {
        lock(&self.files).by_number.values().cloned().collect()
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<StoredFile>> {
        let files = lock(&self.files);
        files.by_number.values().find(|file| file.id == id).cloned()
    }

    pub(crate) fn remove(&self, id: &str) -> bool {
        let mut files = lock(&self.files);
        let before = files.by_number.len();
        files.by_number.retain(|_, file| file.id != id);
        files.by_number.len() < before
    }
}

/// A file's bytes. They count against the store's budget until the last reader drops them.
pub(crate) struct Content {
    blocks: Vec<Bytes>,
    tail: BytesMut,
    length: u64,
    used: Arc<Mutex<u64>>,
    limit: u64,
    reserved: u64,
}

impl Content {
    pub(crate) fn push(&mut self, mut data: &[u8]) -> Result<(), Fault> {
        self.reserve(data.len() as u64)?;
        self.length += data.len() as u64;
        while !data.is_empty() {
            let room = BLOCK - self.tail.len();
            let (now, later) = data.split_at(room.min(data.len()));
            self.tail.extend_from_slice(now);
            data = later;
            if self.tail.len() == BLOCK {
                self.blocks.push(self.tail.split().freeze());
            }
        }
        Ok(())
    }

    pub(crate) fn finish(&mut self) {
        if !self.tail.is_empty() {
            self.blocks.push(self.tail.split().freeze());
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// Up to `most` bytes from `offset`, without a copy; empty at the end.
    pub(crate) fn slice(&self, offset: u64, most: u64) -> Bytes {
        let (block, at) = (offset / BLOCK as u64, (offset % BLOCK as u64) as usize);
        let Some(block) = self.blocks.get(block as usize) else {
            return Bytes::new();
        };
        let at = at.min(block.len());
        let end = block.len().min(at.saturating_add(usize::try_from(most).unwrap_or(usize::MAX)));
        block.slice(at..end)
    }

    fn reserve(&mut self, bytes: u64) -> Result<(), Fault> {
        let mut used = lock(&self.used);
        if *used + bytes > self.limit {
            return Err(Fault::too_large(format!(
                "The sandbox keeps at most {} bytes of files.",
                self.limit
            )));
        }
        *used += bytes;
        self.reserved += bytes;
        Ok(())
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        *lock(&self.used) -= self.reserved;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
