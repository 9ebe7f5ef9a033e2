//! The folder, and whether it is still ours.
//!
//! A lock on a file in the folder keeps other processes out. The folder may be removed, moved or
//! replaced while we run: then another process may lock what stands in its place, and nothing there is
//! ours any more.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Locks of folders that were lost are held on to, so that no other process takes what is in them for
/// the remains of a dead one while it is mapped here. So many at most; each is a file descriptor.
const LOST: usize = 16;

/// The lock, while the folder is ours.
#[derive(Debug, Default)]
pub(crate) struct Home(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    lock: Option<Arc<File>>,
    lost: Vec<Arc<File>>,
}

impl Home {
    /// The folder's lock, if it is ours.
    pub(crate) fn lock(&self) -> Option<Arc<File>> {
        self.held().lock.clone()
    }

    /// The folder is ours from now on.
    pub(crate) fn enter(&self, lock: File) {
        self.held().lock = Some(Arc::new(lock));
    }

    /// Whether the folder was ours and is not any more; said once.
    pub(crate) fn is_lost(&self, folder: &Path) -> bool {
        let mut held = self.held();
        let Some(lock) = &held.lock else { return false };
        let Ok(mine) = lock.metadata() else { return false };
        let there = match fs::metadata(folder.join(LOCK)) {
            Ok(there) => Some((there.dev(), there.ino())),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                None
            }
            // It cannot be told now.
            Err(_) => return false,
        };
        if there == Some((mine.dev(), mine.ino())) {
            return false;
        }
        let lock = held.lock.take();
        held.lost.extend(lock);
        let surplus = held.lost.len().saturating_sub(LOST);
        held.lost.drain(..surplus);
        true
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const LOCK: &str = "lock";

/// Locks the folder.
///
/// # Errors
/// [`io::ErrorKind::ResourceBusy`] when another process has it.
pub(crate) fn lock_folder(folder: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(folder.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!("the journal {} is in use by another process", folder.display()),
        )),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}
