//! Consumed segments that are kept, and reading all segments from outside.
//!
//! A segment that every reader has released is renamed from `….journal` to `….done` and cut to the
//! length of its records. A [`History`] reads both, without the folder's lock and without changing
//! anything: for another program than the one that writes.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use crate::header::{self, Found};
use crate::record::{Remains, Unreadable};
use crate::segment::{EXTENSION, Segment};

/// Ends the names of consumed segments.
const DONE: &str = "done";
/// How much later than its last record a segment's time of change may be looked at: it changes when
/// the segment is synced.
const MARGIN: Duration = Duration::from_secs(5);

/// All records of a journal's folder, consumed or not.
#[derive(Debug)]
pub struct History {
    folder: PathBuf,
    /// By name without extension, which is in the order of making.
    files: BTreeMap<String, Progress>,
    torn: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// Read up to here.
    offset: u64,
    /// Nothing more will come.
    finished: bool,
}

impl History {
    /// Reads this folder.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::read_dir(folder)?;
        Ok(Self { folder: folder.to_owned(), files: BTreeMap::new(), torn: 0 })
    }

    /// Hands out every record that has not been handed out yet: of each thread in the order of
    /// writing. Segments without a record since `since` are passed over.
    ///
    /// # Errors
    /// When the folder cannot be listed or a segment not read.
    pub fn read(&mut self, since: Option<SystemTime>, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            if let Some((stem, _)) = name(&entry?.path()) {
                self.files.entry(stem).or_default();
            }
        }
        for (stem, progress) in &mut self.files {
            if !progress.finished {
                read_one(&self.folder, stem, progress, since, &mut self.torn, &mut take)?;
            }
        }
        Ok(())
    }

    /// Records that could not be read.
    #[must_use]
    pub fn torn(&self) -> u64 {
        self.torn
    }
}

fn read_one(
    folder: &Path,
    stem: &str,
    progress: &mut Progress,
    since: Option<SystemTime>,
    torn: &mut u64,
    take: &mut impl FnMut(&[u8]),
) -> io::Result<()> {
    // It may be renamed in between.
    let names = [EXTENSION, DONE, DONE];
    let opened = names.iter().find_map(|extension| {
        let path = folder.join(format!("{stem}.{extension}"));
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            other => Some(other.map(|file| (file, *extension == DONE))),
        }
    });
    let Some(opened) = opened else {
        // Deleted as too old.
        progress.finished = true;
        return Ok(());
    };
    let (mut file, done) = opened?;
    let metadata = file.metadata()?;
    if since.is_some_and(|since| metadata.modified().is_ok_and(|at| at + MARGIN < since)) {
        progress.finished = done;
        return Ok(());
    }
    let mut head = Vec::with_capacity(header::LENGTH);
    file.by_ref().take(header::LENGTH as u64).read_to_end(&mut head)?;
    let Found::Segment { seed, owner: Some(_), .. } = header::read(&head) else {
        progress.finished = done;
        return Ok(());
    };
    let start = progress.offset.max(header::LENGTH as u64);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().saturating_sub(start)).unwrap_or(0));
    file.read_to_end(&mut bytes)?;
    let mut remains = Remains::behind(start as usize, bytes, seed);
    loop {
        let at = remains.next();
        match remains.read() {
            Some(Ok(record)) => take(record),
            Some(Err(Unreadable::Sum)) => *torn += 1,
            // In a segment that is written, this is the record that is being written.
            Some(Err(Unreadable::Unpublished | Unreadable::PastEnd)) if !done => {
                progress.offset = at as u64;
                return Ok(());
            }
            Some(Err(_)) => *torn += 1,
            None => {
                progress.offset = at as u64;
                progress.finished = done;
                return Ok(());
            }
        }
    }
}

/// Keeps a consumed segment, or deletes it. Whether it is out of the readers' way.
pub(crate) fn retire(segment: &Segment, keep: bool) -> bool {
    let outcome = if keep {
        // Its unused end goes back to the disk; nobody reads or writes there any more.
        let end = segment.end.load(Ordering::Relaxed).max(header::LENGTH as u64);
        if end < segment.length
            && let Ok(file) = OpenOptions::new().write(true).open(&segment.path)
        {
            let _ = file.set_len(end);
        }
        fs::rename(&segment.path, segment.path.with_extension(DONE))
    } else {
        fs::remove_file(&segment.path)
    };
    outcome.is_ok() || outcome.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Deletes kept segments that are too old, and the oldest ones beyond `bytes`.
pub(crate) fn prune(folder: &Path, bytes: u64, age: Duration) -> io::Result<()> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Some((stem, true)) = name(&entry.path()) {
            let metadata = entry.metadata()?;
            kept.push((stem, metadata.len(), metadata.modified().ok()));
        }
    }
    // Youngest first.
    kept.sort_by(|(a, ..), (b, ..)| b.cmp(a));
    let mut sum = 0;
    for (stem, length, changed) in kept {
        sum += length;
        let old = changed.and_then(|at| at.elapsed().ok()).is_some_and(|since| since >= age);
        if sum > bytes || old {
            let path = folder.join(format!("{stem}.{DONE}"));
            if let Err(error) = fs::remove_file(&path) {
                tracing::debug!(path = %path.display(), %error, "a kept segment cannot be deleted");
            }
        }
    }
    Ok(())
}

/// The name of a segment without its extension, and whether it is consumed.
fn name(path: &Path) -> Option<(String, bool)> {
    let stem = path.file_stem()?.to_str()?;
    match path.extension()?.to_str()? {
        EXTENSION => Some((stem.to_owned(), false)),
        DONE => Some((stem.to_owned(), true)),
        _ => None,
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
