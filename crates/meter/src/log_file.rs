//! The access log's file: resumed, appended to, moved aside.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aiproxy_journal::checksum;
use serde::{Deserialize, Serialize};

/// Bytes before the checkpointed length by which a file is known again.
const TAIL_BYTES: usize = 256;

/// What a checkpoint says of the file: which one it is, and how long it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileState {
    path: PathBuf,
    device: u64,
    inode: u64,
    length: u64,
    /// Length and CRC-32 of the last bytes before `length`.
    tail: (u64, u32),
    /// When its first line was written, in seconds since 1970.
    began: u64,
    /// When the file was made, in nanoseconds since 1970, where the file system knows. With the inode
    /// it is a name that no other file has.
    #[serde(default)]
    made: Option<u64>,
}

fn made(metadata: &fs::Metadata) -> Option<u64> {
    let since = metadata.created().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

/// The access log's file, at its end.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    length: u64,
    tail: Vec<u8>,
    began: SystemTime,
}

impl LogFile {
    /// Opens the file (mode 0640 when new). A file that the state knows and that is longer is cut
    /// to the length of the state, wherever it has been moved to within its folder: what is behind
    /// that will be written again.
    pub(crate) fn resume(path: &Path, state: Option<&FileState>) -> io::Result<Self> {
        let known = match state {
            Some(state) => state.find(path)?,
            None => None,
        };
        if let (Some(state), Some(found)) = (state, &known) {
            let file = OpenOptions::new().write(true).open(found)?;
            let surplus = file.metadata()?.len().saturating_sub(state.length);
            if surplus > 0 {
                tracing::info!(file = %found.display(), bytes = surplus, "lines behind the checkpoint are written again");
                file.set_len(state.length)?;
            }
        }
        let mut log = Self::open(path)?;
        if let Some(state) = state
            && known.as_deref() == Some(path)
        {
            log.began = SystemTime::UNIX_EPOCH + Duration::from_secs(state.began);
        } else if let (Some(state), None) = (state, known)
            && state.length > 0
        {
            tracing::warn!(file = %state.path.display(), "the access log is not the one of the checkpoint: lines of the last second may be missing or twice");
        }
        Ok(log)
    }

    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)?;
        let metadata = file.metadata()?;
        let now = SystemTime::now();
        let began = if metadata.len() == 0 { now } else { metadata.created().unwrap_or(now) };
        let mut log = Self { path: path.to_owned(), file, length: 0, tail: Vec::new(), began };
        log.look()?;
        Ok(log)
    }

    /// Takes length and tail from the file itself.
    fn look(&mut self) -> io::Result<()> {
        self.length = self.file.metadata()?.len();
        let bytes = self.length.min(TAIL_BYTES as u64);
        self.tail.resize(bytes as usize, 0);
        self.file.read_exact_at(&mut self.tail, self.length - bytes)
    }

    /// Appends as much as the disk takes; gives how much that was and why it was not all.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        if self.length == 0 {
            self.began = SystemTime::now();
        }
        let mut done = 0;
        while done < bytes.len() {
            match self.file.write(&bytes[done..]) {
                Ok(0) => return (done, Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.note(&bytes[done..done + count]);
                    done += count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (done, Err(error)),
            }
        }
        (done, Ok(()))
    }

    fn note(&mut self, written: &[u8]) {
        self.length += written.len() as u64;
        self.tail.extend_from_slice(&written[written.len().saturating_sub(TAIL_BYTES)..]);
        let surplus = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus);
    }

    /// Syncs, and gives what the checkpoint is to say.
    pub(crate) fn settle(&mut self) -> io::Result<FileState> {
        self.file.sync_data()?;
        let metadata = self.file.metadata()?;
        if metadata.len() != self.length {
            tracing::warn!(file = %self.path.display(), "somebody else has written to or shortened the access log");
            self.look()?;
        }
        Ok(FileState {
            path: self.path.clone(),
            device: metadata.dev(),
            inode: metadata.ino(),
            length: self.length,
            tail: (self.tail.len() as u64, checksum(&self.tail)),
            began: self.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
            made: made(&metadata),
        })
    }

    /// Moves the file to `aside` and begins a new one. The checkpoint must be that of this moment.
    pub(crate) fn move_aside(&mut self, aside: &Path) -> io::Result<()> {
        match fs::rename(&self.path, aside) {
            // An earlier attempt got no further than this.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        *self = Self::open(&self.path)?;
        File::open(folder(&self.path))?.sync_all()
    }

    /// Opens the path again, if there is another file now or none; says whether that was so. The
    /// checkpoint must be that of this moment.
    pub(crate) fn reopen(&mut self) -> io::Result<bool> {
        let mine = self.file.metadata()?;
        if fs::metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == (mine.dev(), mine.ino()))
        {
            return Ok(false);
        }
        *self = Self::open(&self.path)?;
        Ok(true)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn began(&self) -> SystemTime {
        self.began
    }
}

impl FileState {
    /// The file that this is about: where the log is now, where it was, or moved within its folder.
    fn find(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        for place in [path, &self.path] {
            if self.is(place)? {
                return Ok(Some(place.to_owned()));
            }
        }
        let Ok(entries) = fs::read_dir(folder(&self.path)) else { return Ok(None) };
        for entry in entries.flatten() {
            let Ok(there) = entry.metadata() else { continue };
            let same = (there.dev(), there.ino()) == (self.device, self.inode);
            // One that was empty has nothing to be known by but when it was made.
            let known = self.length > 0 || self.made.is_some() && self.made == made(&there);
            if same && known && self.is(&entry.path())? {
                return Ok(Some(entry.path()));
            }
        }
        Ok(None)
    }

    /// Whether it holds what was last written before the checkpoint, in its place. One that was empty
    /// is known by its inode and when it was made. (An inode alone says little: file systems use them
    /// again at once.)
    fn is(&self, path: &Path) -> io::Result<bool> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        if metadata.len() < self.length || !metadata.is_file() {
            return Ok(false);
        }
        if self.length == 0 {
            let another = self.made.is_some() && self.made != made(&metadata);
            return Ok((metadata.dev(), metadata.ino()) == (self.device, self.inode) && !another);
        }
        let bytes = self.tail.0.min(self.length);
        let mut tail = vec![0; usize::try_from(bytes).unwrap_or(0).min(TAIL_BYTES)];
        file.read_exact_at(&mut tail, self.length - bytes)?;
        Ok(checksum(&tail) == self.tail.1)
    }
}

/// The folder that a file is in.
pub(crate) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
#[path = "log_file_tests.rs"]
mod tests;
