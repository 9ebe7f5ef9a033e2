//! What earlier processes left in the folder.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use crate::header::{self, Found, Header};
use crate::segment::{EXTENSION, Segment};

/// A hundred years, in microseconds.
const CENTURY: u64 = 100 * 365 * 86_400 * 1_000_000;

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
/// is renamed to `….bad`, reported, and left for people to look at. `now`: microseconds since 1970.
pub(crate) fn scan(folder: &Path, readers: usize, now: u64) -> io::Result<Remaining> {
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
            Found::Segment { header, seed, owner: Some(owner) } if is_possible(header, owner.place, now) => {
                remaining.newest_epoch = remaining.newest_epoch.max(header.epoch);
                let segment = Segment::remains(path, length, header.epoch, owner, seed, readers);
                remaining.segments.push(Arc::new(segment));
            }
            Found::Segment { header, owner: None, .. } if is_possible(header, 0, now) => {
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

/// Whether a process can have written such numbers. There have to be some behind them, for this
/// process and the reader; and the next process, whose `now` is later, has to take this one's.
fn is_possible(header: Header, place: u32, now: u64) -> bool {
    header.epoch <= now.saturating_add(CENTURY) && place < u32::MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::Owner;

    const NOW: u64 = 1_795_000_000_000_000;

    #[test]
    fn numbers_that_no_process_writes_are_set_aside() {
        let ahead = NOW + CENTURY;
        for (epoch, writer, place, kept) in [
            (ahead, 1, 7, true),
            (ahead, 1, u32::MAX - 1, true),
            (ahead, 1, u32::MAX, false),
            (ahead + 1, 1, 7, false),
            (u64::MAX, 1, 7, false),
            (u64::MAX, 0, 0, false),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let mut bytes = [0; header::LENGTH];
            Header { length: 4096, epoch, created: 0, serial: 0 }.write(&mut bytes);
            Owner { writer, place }.write(&mut bytes);
            fs::write(folder.path().join("1.journal"), bytes).unwrap();
            let found = scan(folder.path(), 1, NOW).unwrap();
            assert_eq!((found.segments.len(), found.torn), (usize::from(kept), u64::from(!kept)), "{epoch}");
            assert_eq!(found.newest_epoch, if kept { epoch } else { 0 });
            assert_ne!(folder.path().join("1.journal.bad").exists(), kept);
        }
    }
}
