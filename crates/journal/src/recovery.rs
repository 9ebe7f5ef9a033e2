//! What earlier processes left in the folder.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use crate::header::{self, Found};
use crate::segment::{EXTENSION, Segment};

/// The segments of earlier processes.
#[derive(Debug, Default)]
pub(crate) struct Remaining {
    /// Oldest process first, then by writer, then in the order of writing.
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) newest_epoch: u64,
    /// Segments whose header could not be read.
    pub(crate) torn: u64,
}

/// Looks at every segment's header. Segments that were never used are deleted; what cannot be read
/// is renamed to `….bad`, reported, and left for people to look at.
pub(crate) fn scan(folder: &Path, readers: usize) -> io::Result<Remaining> {
    let mut remaining = Remaining::default();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != EXTENSION) {
            continue;
        }
        let mut head = Vec::with_capacity(header::LENGTH);
        let file = File::open(&path)?;
        let length = file.metadata()?.len();
        file.take(header::LENGTH as u64).read_to_end(&mut head)?;
        match header::read(&head) {
            Found::Segment { header, seed, owner: Some(owner) } => {
                remaining.newest_epoch = remaining.newest_epoch.max(header.epoch);
                let segment = Segment::remains(path, length, header.epoch, owner, seed, readers);
                remaining.segments.push(Arc::new(segment));
            }
            Found::Segment { header, owner: None, .. } => {
                remaining.newest_epoch = remaining.newest_epoch.max(header.epoch);
                let _ = fs::remove_file(&path);
            }
            Found::Blank if fs::read(&path)?.iter().all(|byte| *byte == 0) => {
                let _ = fs::remove_file(&path);
            }
            // The crash came while it was being made.
            Found::Foreign if length == 0 => {
                let _ = fs::remove_file(&path);
            }
            found => {
                remaining.torn += 1;
                tracing::error!(path = %path.display(), ?found, "a journal segment cannot be read and is set aside");
                fs::rename(&path, path.with_extension("journal.bad"))?;
            }
        }
    }
    remaining.segments.sort_by_key(|segment| (segment.epoch, segment.owner));
    Ok(remaining)
}
