//! The file of owned objects and its writer thread.
//!
//! The file is a log: one JSON line a change, appended. A change counts as kept once `write(2)`
//! has taken it: the kernel then has it, and nothing that happens to the process can undo that. A
//! power loss can take what the kernel had not yet written to the disk; the writer asks for that
//! whenever it has been idle for a second.
//!
//! Lines that say nothing any more are dropped by writing the file anew: at the start, and when
//! it has grown to twice what it may hold.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aiproxy_core::ports::{ObjectChange, ObjectJournal, ObjectRecord, PortFuture};
use tokio::sync::oneshot;

use crate::line;
use crate::load::{self, Loaded};

/// The file's name in the data folder.
pub const FILE_NAME: &str = "owned-objects.jsonl";

/// Changes that wait for the writer.
const QUEUE: usize = 64 * 1024;
/// Changes that go out in one write.
const BATCH: usize = 1024;
/// Lines kept for later while the file cannot be written.
const BACKLOG_BYTES: usize = 8 << 20;
/// How long the writer waits before it tries again, or asks the kernel to write.
const IDLE: Duration = Duration::from_secs(1);
/// How often it complains.
pub(crate) const COMPLAIN: Duration = Duration::from_secs(60);

/// The journal of owned objects.
#[derive(Debug)]
pub struct ObjectFile {
    queue: SyncSender<Job>,
    counts: Arc<Counts>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Counts {
    dropped: AtomicU64,
    failures: AtomicU64,
}

#[derive(Debug)]
enum Job {
    Write(ObjectChange, oneshot::Sender<bool>),
    Close,
}

impl ObjectFile {
    /// Reads the file in this folder and starts the writer. A folder that cannot be read or
    /// written is logged and counted, and tried again: it keeps nobody from working.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(folder: &Path, limit: usize) -> io::Result<(Self, Loaded)> {
        let mut writer = Writer::new(folder, limit);
        let loaded = writer.load();
        let counts = Arc::clone(&writer.counts);
        let (queue, jobs) = sync_channel(QUEUE);
        let thread =
            std::thread::Builder::new().name("owned-objects".into()).spawn(move || writer.run(&jobs))?;
        Ok((Self { queue, counts, writer: Mutex::new(Some(thread)) }, loaded))
    }

    /// Changes that were given up: the queue or the backlog was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// Writes that failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.counts.failures.load(Ordering::Relaxed)
    }

    /// Writes what waits and ends the writer. Changes recorded afterwards are dropped.
    pub fn close(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let _ = self.queue.send(Job::Close);
            let _ = writer.join();
        }
    }
}

impl Drop for ObjectFile {
    fn drop(&mut self) {
        self.close();
    }
}

impl ObjectJournal for ObjectFile {
    fn record(&self, change: ObjectChange) -> PortFuture<'static, bool> {
        let (done, kept) = oneshot::channel();
        if self.queue.try_send(Job::Write(change, done)).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Box::pin(async move { kept.await.unwrap_or(false) })
    }
}

struct Writer {
    path: PathBuf,
    limit: usize,
    file: Option<File>,
    /// Held as long as the process lives: only its holder may write the file anew.
    lock: Option<File>,
    /// The file may end within a line.
    torn: bool,
    /// Lines in the file, as far as this process knows.
    lines: u64,
    /// Lines to be written.
    backlog: Vec<u8>,
    backlog_lines: u64,
    unsynced: bool,
    complained: Option<Instant>,
    counts: Arc<Counts>,
}

impl Writer {
    fn new(folder: &Path, limit: usize) -> Self {
        Self {
            path: folder.join(FILE_NAME),
            limit: limit.max(1),
            file: None,
            lock: None,
            torn: false,
            lines: 0,
            backlog: Vec::new(),
            backlog_lines: 0,
            unsynced: false,
            complained: None,
            counts: Arc::default(),
        }
    }

    fn load(&mut self) -> Loaded {
        let loaded = match load::read(&self.path, self.limit) {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "the file of owned objects cannot be read: objects made before are unknown");
                return Loaded::default();
            }
        };
        if loaded.bad > 0 {
            tracing::warn!(path = %self.path.display(), lines = loaded.bad, "lines of the file of owned objects were skipped");
        }
        self.lines = loaded.lines;
        self.torn = loaded.torn;
        if loaded.dead() > loaded.records.len() as u64 {
            self.compact(&loaded.records);
        }
        loaded
    }

    fn run(mut self, jobs: &Receiver<Job>) {
        let mut waiting = Vec::new();
        loop {
            let first = if self.backlog.is_empty() && !self.unsynced {
                jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                jobs.recv_timeout(IDLE)
            };
            let mut open = match first {
                Ok(job) => self.take(job, &mut waiting),
                Err(RecvTimeoutError::Timeout) => {
                    if self.backlog.is_empty() {
                        self.sync();
                    }
                    true
                }
                Err(RecvTimeoutError::Disconnected) => false,
            };
            while open && waiting.len() < BATCH {
                match jobs.try_recv() {
                    Ok(job) => open = self.take(job, &mut waiting),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => open = false,
                }
            }
            let kept = self.flush();
            for done in waiting.drain(..) {
                let _ = done.send(kept);
            }
            if !open {
                self.sync();
                return;
            }
            if self.lines > (self.limit as u64).saturating_mul(2).saturating_add(BATCH as u64) {
                self.shorten();
            }
        }
    }

    /// Whether there will be more.
    fn take(&mut self, job: Job, waiting: &mut Vec<oneshot::Sender<bool>>) -> bool {
        let Job::Write(change, done) = job else { return false };
        if self.backlog.len() < BACKLOG_BYTES && line::append(&mut self.backlog, &change) {
            self.backlog_lines += 1;
            waiting.push(done);
        } else {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            let _ = done.send(false);
        }
        true
    }

    /// Writes the backlog; whether nothing is left of it.
    fn flush(&mut self) -> bool {
        if self.backlog.is_empty() {
            return true;
        }
        match self.write() {
            Ok(()) => {
                self.lines += self.backlog_lines;
                self.backlog.clear();
                self.backlog_lines = 0;
                self.backlog.shrink_to(1 << 16);
                self.torn = false;
                self.unsynced = true;
                true
            }
            Err(error) => {
                // How much of it went out is unknown. Lines that stand twice do no harm.
                self.torn = true;
                self.file = None;
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
                self.complain(&error, "the file of owned objects cannot be written: what is made now is lost to its owner at the next start");
                false
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if !self.file.as_ref().is_some_and(|file| is_at(file, &self.path)) {
            if let Some(folder) = self.path.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut options = private();
            self.file = Some(options.append(true).create(true).open(&self.path)?);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        if self.torn {
            file.write_all(b"\n")?;
        }
        file.write_all(&self.backlog)
    }

    fn sync(&mut self) {
        if let Some(file) = self.file.as_ref().filter(|_| self.unsynced)
            && let Err(error) = file.sync_data()
        {
            self.complain(&error, "the file of owned objects cannot be synced");
        }
        self.unsynced = false;
    }

    /// Writes the file anew without lines that say nothing any more.
    fn shorten(&mut self) {
        match load::read(&self.path, self.limit) {
            Ok(loaded) => {
                self.lines = loaded.lines;
                self.compact(&loaded.records);
            }
            Err(error) => self.complain(&error, "the file of owned objects cannot be read"),
        }
        // What cannot be shortened now is not tried again with each write.
        self.lines = self.lines.min(self.limit as u64);
    }

    fn compact(&mut self, records: &[ObjectRecord]) {
        let outcome = self.alone().and_then(|alone| {
            if alone {
                self.rewrite(records)?;
            }
            Ok(alone)
        });
        match outcome {
            Ok(true) => {
                self.file = None;
                self.torn = false;
                self.lines = records.len() as u64;
            }
            // Another process, most likely the one that this one replaces, still appends.
            Ok(false) => {}
            Err(error) => self.complain(&error, "the file of owned objects cannot be written anew"),
        }
    }

    fn rewrite(&self, records: &[ObjectRecord]) -> io::Result<()> {
        let fresh = self.path.with_extension("jsonl.new");
        let mut options = private();
        let mut out =
            BufWriter::with_capacity(1 << 16, options.write(true).create(true).truncate(true).open(&fresh)?);
        let mut bytes = Vec::new();
        for record in records {
            bytes.clear();
            line::append(&mut bytes, &ObjectChange::Made(record.clone()));
            out.write_all(&bytes)?;
        }
        out.into_inner()?.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        // The rename itself has to last too.
        self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }

    /// Whether no other process has the file.
    fn alone(&mut self) -> io::Result<bool> {
        if self.lock.is_none() {
            let mut options = private();
            let lock = options.write(true).create(true).open(self.path.with_extension("lock"))?;
            match lock.try_lock() {
                Ok(()) => self.lock = Some(lock),
                Err(fs::TryLockError::WouldBlock) => return Ok(false),
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(true)
    }

    fn complain(&mut self, error: &io::Error, what: &str) {
        if self.complained.is_none_or(|last| last.elapsed() >= COMPLAIN) {
            self.complained = Some(Instant::now());
            let dropped = self.counts.dropped.load(Ordering::Relaxed);
            let failures = self.counts.failures.load(Ordering::Relaxed);
            tracing::error!(path = %self.path.display(), %error, failures, dropped, "{what}");
        }
    }
}

/// Whether the path still leads to this file: somebody may have moved or replaced it.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

/// Who uses which objects, and which sessions there were, is not for everybody to read.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(test)]
#[path = "object_file_tests.rs"]
mod tests;
