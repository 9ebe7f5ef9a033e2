//! A segment file, being made and in use.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::header::{self, Header, Owner};
use crate::map::{Appender, Region, Tape};

/// Ends the names of segment files.
pub(crate) const EXTENSION: &str = "journal";

/// Reserves the disk space of a new file, so that a full disk is an error here and not a fault in
/// a later write. Tests stand in for the disk with it.
pub trait Allocate: fmt::Debug + Send + Sync {
    /// Makes the empty file `bytes` long, all zeros, all reserved.
    ///
    /// # Errors
    /// When the disk is full or the file system refuses.
    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()>;
}

/// `fallocate(2)`; zeros are written where the file system does not know it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fallocate;

impl Allocate for Fallocate {
    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let zeros = [0u8; 64 * 1024];
                let (mut file, mut left) = (file, bytes);
                while left > 0 {
                    let part = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
                    file.write_all(&zeros[..part])?;
                    left -= part as u64;
                }
                Ok(())
            }
            other => Ok(other?),
        }
    }
}

/// A segment that no writer has taken yet. Its file goes with it.
#[derive(Debug)]
pub(crate) struct Spare {
    path: PathBuf,
    header: Header,
    seed: u32,
    region: Option<Region>,
}

impl Spare {
    /// Makes and reserves the file.
    pub(crate) fn create(folder: &Path, header: Header, allocate: &dyn Allocate) -> io::Result<Self> {
        let path = folder.join(format!("{:016x}-{:08x}.{EXTENSION}", header.epoch, header.serial));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
        let file = options.open(&path)?;
        // From here on the file goes when this does.
        let mut spare = Self { path, header, seed: 0, region: None };
        allocate.allocate(&file, u64::from(header.length))?;
        let mut region = Region::map(&file, header.length as usize)?;
        // Not synced here: that happens with the first records.
        spare.seed = header.write(region.bytes_mut());
        spare.region = Some(region);
        Ok(spare)
    }

    /// Gives the segment to a writer.
    pub(crate) fn take(mut self, owner: Owner, readers: usize) -> Option<(Appender, Arc<Segment>)> {
        let mut region = self.region.take()?;
        owner.write(region.bytes_mut());
        let (appender, tape) = region.split(header::LENGTH, self.seed);
        let length = u64::from(self.header.length);
        let path = std::mem::take(&mut self.path);
        let segment = Segment {
            written: AtomicU64::new(appender.tail() as u64),
            tape: Some(tape),
            sealed: AtomicBool::new(false),
            ..Segment::remains(path, length, self.header.epoch, owner, self.seed, readers)
        };
        Some((appender, Arc::new(segment)))
    }
}

impl Spare {
    /// Leaves the file to whoever has the folder now.
    pub(crate) fn abandon(mut self) {
        self.path = PathBuf::new();
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A segment that holds records.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    /// Bytes on disk.
    pub(crate) length: u64,
    pub(crate) epoch: u64,
    pub(crate) owner: Owner,
    pub(crate) seed: u32,
    /// The memory, when this process writes it.
    pub(crate) tape: Option<Tape>,
    /// Published up to here; the whole length when an earlier process wrote it.
    pub(crate) written: AtomicU64,
    /// Synced up to here.
    synced: AtomicU64,
    /// Nothing more will be written.
    pub(crate) sealed: AtomicBool,
    /// Where the last record that was read ends; 0 when none was.
    pub(crate) end: AtomicU64,
    /// How far each reader has come.
    pub(crate) consumed: Box<[AtomicU64]>,
    /// Readers that need it no more.
    pub(crate) releases: AtomicUsize,
    /// The file has been deleted.
    pub(crate) gone: AtomicBool,
}

impl Segment {
    /// What an earlier process left.
    pub(crate) fn remains(
        path: PathBuf,
        length: u64,
        epoch: u64,
        owner: Owner,
        seed: u32,
        readers: usize,
    ) -> Self {
        Self {
            path,
            length,
            epoch,
            owner,
            seed,
            tape: None,
            written: AtomicU64::new(length),
            synced: AtomicU64::new(0),
            sealed: AtomicBool::new(true),
            end: AtomicU64::new(0),
            consumed: (0..readers).map(|_| AtomicU64::new(header::LENGTH as u64)).collect(),
            releases: AtomicUsize::new(0),
            gone: AtomicBool::new(false),
        }
    }

    /// Writes to disk what was published since the last time.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let Some(tape) = &self.tape else { return Ok(()) };
        let (from, to) = (self.synced.load(Ordering::Relaxed), self.written.load(Ordering::Acquire));
        if to > from {
            tape.flush(from as usize..to as usize)?;
            self.synced.store(to, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Bytes that the slowest reader has yet to read.
    pub(crate) fn lag(&self) -> u64 {
        let written = self.written.load(Ordering::Relaxed);
        let least = self.consumed.iter().map(|at| at.load(Ordering::Relaxed)).min();
        written.saturating_sub(least.unwrap_or(written))
    }
}
