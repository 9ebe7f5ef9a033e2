//! Consumed segments that are kept, and reading all segments from outside.
//!
//! A segment that every reader has released is renamed from `….journal` to `….done` and cut to the
//! length of its records. A [`History`] reads both, without the folder's lock and without changing
//! anything: for another program than the one that writes.

use std::collections::{BTreeMap, BTreeSet};
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
/// How often the folder is listed at most, until it is the same twice.
const LISTINGS: usize = 10;
/// What is read of a segment at once; no record is longer.
const CHUNK: usize = 256 << 10;

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
        // A file that is renamed while the folder is listed may be seen under neither name.
        let mut listed = self.list()?;
        for _ in 0..LISTINGS {
            let again = self.list()?;
            let same = again == listed;
            listed.extend(again);
            if same {
                break;
            }
        }
        for stem in listed {
            self.files.entry(stem).or_default();
        }
        for (stem, progress) in &mut self.files {
            if !progress.finished {
                read_one(&self.folder, stem, progress, since, &mut self.torn, &mut take)?;
            }
        }
        Ok(())
    }

    /// When the youngest segment was changed; none where there is none.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn latest(&self) -> io::Result<Option<SystemTime>> {
        let mut latest = None;
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if name(&entry.path()).is_some() {
                latest = latest.max(entry.metadata()?.modified().ok());
            }
        }
        Ok(latest)
    }

    fn list(&self) -> io::Result<BTreeSet<String>> {
        let mut stems = BTreeSet::new();
        for entry in fs::read_dir(&self.folder)? {
            stems.extend(name(&entry?.path()).map(|(stem, _)| stem));
        }
        Ok(stems)
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
    // Of one that is still written, the time of change says nothing: memory is written, not the file.
    if done && since.is_some_and(|since| metadata.modified().is_ok_and(|at| at < since)) {
        progress.finished = true;
        return Ok(());
    }
    let mut head = Vec::with_capacity(header::LENGTH);
    file.by_ref().take(header::LENGTH as u64).read_to_end(&mut head)?;
    let Found::Segment { seed, owner: Some(_), .. } = header::read(&head) else {
        progress.finished = done;
        return Ok(());
    };
    progress.offset = progress.offset.max(header::LENGTH as u64);
    let mut bytes = Vec::with_capacity(CHUNK);
    loop {
        let start = progress.offset;
        file.seek(SeekFrom::Start(start))?;
        bytes.clear();
        file.by_ref().take(CHUNK as u64).read_to_end(&mut bytes)?;
        // Most of a segment that is written is empty yet.
        let more = bytes.len() == CHUNK && bytes.iter().take(4).any(|byte| *byte != 0);
        let mut remains = Remains::behind(start as usize, std::mem::take(&mut bytes), seed);
        let ended = loop {
            let at = remains.next() as u64;
            match remains.read() {
                Some(Ok(record)) => take(record),
                Some(Err(Unreadable::Sum)) => *torn += 1,
                // The record goes on behind this piece, or is being written.
                Some(Err(_)) if more && at > start || !done => {
                    progress.offset = at;
                    break !more || at == start;
                }
                Some(Err(_)) => {
                    *torn += 1;
                    progress.finished = true;
                    return Ok(());
                }
                None => {
                    progress.offset = at;
                    break !more || at == start;
                }
            }
        };
        if ended {
            progress.finished = done;
            return Ok(());
        }
        bytes = remains.into_bytes();
    }
}

/// Keeps a consumed segment, or deletes it. Whether it is out of the readers' way.
pub(crate) fn retire(segment: &Segment, keep: bool) -> bool {
    let outcome = if keep {
        if let Ok(file) = OpenOptions::new().write(true).open(&segment.path) {
            // Its unused end goes back to the disk; nobody reads or writes there any more. The time
            // of change becomes that of its last record or later: memory that is written does not
            // move it on every file system.
            // Where the checkpoint knew it as consumed it was not opened, and its end is not known.
            let end = segment.end.load(Ordering::Relaxed);
            let known = end >= header::LENGTH as u64 && end < segment.length;
            let _ = if known { file.set_len(end) } else { Ok(()) };
            let _ = file.set_modified(SystemTime::now());
        }
        fs::rename(&segment.path, segment.path.with_extension(DONE))
    } else {
        fs::remove_file(&segment.path)
    };
    outcome.is_ok() || outcome.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Keeps a copy of a segment that is known already, and not to be read again.
pub(crate) fn set_aside(segment: &Segment) {
    if let Err(error) = fs::rename(&segment.path, segment.path.with_extension(DONE)) {
        tracing::warn!(path = %segment.path.display(), %error, "a copy of a segment cannot be set aside");
    }
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
