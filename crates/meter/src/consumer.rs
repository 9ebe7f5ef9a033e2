//! The thread that turns the journal into the access log, exactly once.
//!
//! Two rules carry it. Nothing is written to a file before a checkpoint on disk names that file at
//! the length it has. And a checkpoint is only made when all that was read from the journal has
//! been written. So at every moment the file, cut to the checkpoint's length, together with the
//! journal behind the checkpoint's positions, is every record once.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use aiproxy_journal::{Checkpoint, Journal, Reader};

use crate::access_log::Target;
use crate::log_file::{FileState, LogFile};
use crate::rotation::{self, Rotation};
use crate::{codec, line};

/// How often the journal is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How often a checkpoint is made, and the file synced.
const SAVE: Duration = Duration::from_secs(1);
/// How soon a target that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How often a lasting trouble is reported.
const REPORT: Duration = Duration::from_secs(60);
/// Record bytes that are turned into lines at once.
const BATCH: usize = 256 * 1024;
/// Name of the checkpoint, and number of the reader, in the journal.
const NAME: (&str, usize) = ("access-log", 0);

/// Writes the access log from the journal, on a thread of its own.
#[derive(Debug)]
pub struct Consumer {
    journal: Arc<Journal>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    asked: Mutex<Asked>,
    wake: Condvar,
    lines: AtomicU64,
    skipped: AtomicU64,
    failures: AtomicU64,
}

#[derive(Debug, Default)]
struct Asked {
    reopen: bool,
    close: bool,
}

#[derive(Debug)]
enum Out {
    /// Records are only let go of.
    Nowhere,
    Stdout(io::Stdout),
    File(LogFile),
}

/// What the thread works on.
#[derive(Debug)]
struct Work {
    journal: Arc<Journal>,
    shared: Arc<Shared>,
    reader: Reader,
    checkpoint: Checkpoint,
    out: Out,
    rotation: Rotation,
    lines: Vec<u8>,
    /// How much of `lines` has been written.
    sent: usize,
    /// A checkpoint names the present file.
    anchored: bool,
    /// Of the folder that the checkpoint is in.
    generation: u64,
    /// There is something that no checkpoint knows.
    dirty: bool,
    saved: Instant,
    failed: Option<Instant>,
    reported: Option<Instant>,
}

impl Consumer {
    /// Resumes the target behind the last checkpoint and starts the thread. The journal's folder
    /// is `folder`; as long as it cannot be used, nothing is written.
    ///
    /// # Errors
    /// When the file cannot be opened or cut, the checkpoint cannot be read, the journal has a
    /// consumer already, or the thread cannot be started.
    pub fn start(
        journal: Arc<Journal>,
        folder: &Path,
        target: &Target,
        rotation: Rotation,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let plan = Plan {
            journal: Arc::clone(&journal),
            shared: Arc::clone(&shared),
            folder: folder.to_owned(),
            target: target.clone(),
            rotation,
        };
        let work = if journal.is_home() { Some(plan.begin()?) } else { None };
        let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || {
            if let Some(work) = work.or_else(|| plan.wait()) {
                work.run();
            }
        })?;
        Ok(Self { journal, shared, thread: Mutex::new(Some(thread)) })
    }

    /// Opens the file's path again soon: after it has been moved away, a new one is made.
    pub fn reopen(&self) {
        self.ask().reopen = true;
        self.shared.wake.notify_one();
    }

    /// Lines written.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.shared.lines.load(Ordering::Relaxed)
    }

    /// Records that were no usage events of a known version, and are not in the log.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.shared.skipped.load(Ordering::Relaxed)
    }

    /// How often the target or the checkpoint could not be written. Nothing is lost by it: the
    /// journal keeps what the log does not have.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.shared.failures.load(Ordering::Relaxed)
    }

    /// Closes the journal, writes everything published and ends the thread. What a failing target
    /// does not take stays in the journal for the next start.
    pub fn close(&self) {
        self.journal.close();
        self.ask().close = true;
        self.shared.wake.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    fn ask(&self) -> MutexGuard<'_, Asked> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.close();
    }
}

/// What the thread will work on once the journal can be used.
#[derive(Debug)]
struct Plan {
    journal: Arc<Journal>,
    shared: Arc<Shared>,
    folder: PathBuf,
    target: Target,
    rotation: Rotation,
}

impl Plan {
    fn begin(&self) -> io::Result<Work> {
        let (checkpoint, saved) = Checkpoint::open(&self.folder, NAME.0)?;
        let saved = saved.unwrap_or_default();
        let state: Option<FileState> = serde_json::from_slice(&saved.state).ok();
        let out = match &self.target {
            Target::Nowhere => Out::Nowhere,
            Target::Stdout => Out::Stdout(io::stdout()),
            Target::File(path) => Out::File(LogFile::resume(path, state.as_ref())?),
        };
        let Some(reader) = self.journal.reader(NAME.1, &saved.positions) else {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "the journal has a consumer already"));
        };
        Ok(Work {
            journal: Arc::clone(&self.journal),
            shared: Arc::clone(&self.shared),
            reader,
            checkpoint,
            out,
            rotation: self.rotation.clone(),
            lines: Vec::new(),
            sent: 0,
            anchored: false,
            generation: self.journal.generation(),
            dirty: false,
            saved: Instant::now(),
            failed: None,
            reported: None,
        })
    }

    /// Begins when the journal can be used; nothing when it is closed before.
    fn wait(&self) -> Option<Work> {
        let mut reported = None;
        loop {
            if self.journal.is_home() {
                match self.begin() {
                    Ok(work) => return Some(work),
                    Err(error) => self.shared.report(&error, &mut reported),
                }
            }
            let asked = self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner);
            if asked.close {
                return None;
            }
            let waited = self.shared.wake.wait_timeout(asked, RETRY);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Shared {
    /// At most once a minute.
    fn report(&self, error: &io::Error, reported: &mut Option<Instant>) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        if reported.is_none_or(|at| at.elapsed() >= REPORT) {
            tracing::error!(%error, "the access log cannot be written: the journal keeps what it lacks");
            *reported = Some(Instant::now());
        }
    }
}

impl Work {
    fn run(mut self) {
        let mut more = true;
        loop {
            let Asked { reopen, close } = self.wait(more);
            more = match self.step(reopen, close) {
                Ok(more) => more,
                Err(error) => {
                    self.failed = Some(Instant::now());
                    self.shared.report(&error, &mut self.reported);
                    // A last attempt has been made.
                    if close {
                        return;
                    }
                    false
                }
            };
            if close && !more {
                return;
            }
        }
    }

    /// Until the journal should be looked at again.
    fn wait(&self, more: bool) -> Asked {
        let mut asked = self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = if self.failed.is_some() { RETRY } else { LOOK };
        if !more && !asked.close && !asked.reopen {
            asked = self.shared.wake.wait_timeout(asked, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
        Asked { reopen: std::mem::take(&mut asked.reopen), close: asked.close }
    }

    /// Writes a batch, and whatever else is due; says whether there may be more.
    fn step(&mut self, reopen: bool, close: bool) -> io::Result<bool> {
        self.write_rest()?;
        if reopen && let Err(error) = self.reopen() {
            // Not forgotten.
            self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).reopen = true;
            return Err(error);
        }
        if self.journal.is_home() && self.generation != self.journal.generation() {
            // Another folder, without a checkpoint.
            self.generation = self.journal.generation();
            self.anchored = false;
        }
        if !self.anchored {
            self.save()?;
        }
        let read = self.read_batch();
        self.write_rest()?;
        let more = read >= BATCH;
        if self.dirty && (self.saved.elapsed() >= SAVE || close && !more) {
            self.save()?;
        }
        self.rotate(SystemTime::now())?;
        if self.failed.take().is_some() {
            tracing::info!("the access log is written again");
            self.reported = None;
        }
        Ok(more)
    }

    fn read_batch(&mut self) -> usize {
        let (lines, mut count, mut skipped) = (&mut self.lines, 0, 0);
        let nowhere = matches!(self.out, Out::Nowhere);
        let read = self.reader.poll(BATCH, |record| match codec::decode(record) {
            Some(_) if nowhere => {}
            // One line for each, when it ends.
            Some(event) if event.is_open() => {}
            Some(event) => {
                line::append_decoded(lines, &event);
                count += 1;
            }
            None => skipped += 1,
        });
        self.dirty |= read > 0;
        self.shared.lines.fetch_add(count, Ordering::Relaxed);
        if skipped > 0 {
            self.shared.skipped.fetch_add(skipped, Ordering::Relaxed);
            tracing::error!(records = skipped, "records of the journal are of an unknown version");
        }
        read
    }

    /// Writes what was read from the journal and has not been written.
    fn write_rest(&mut self) -> io::Result<()> {
        let rest = &self.lines[self.sent..];
        if rest.is_empty() {
            return Ok(());
        }
        let (sent, result) = match &mut self.out {
            Out::File(log) => log.write(rest),
            Out::Nowhere => (rest.len(), Ok(())),
            Out::Stdout(out) => match out.write_all(rest).and_then(|()| out.flush()) {
                Ok(()) => (rest.len(), Ok(())),
                Err(error) => (0, Err(error)),
            },
        };
        self.sent += sent;
        result?;
        self.lines.clear();
        self.lines.shrink_to(4 * BATCH);
        self.sent = 0;
        Ok(())
    }

    /// Makes a checkpoint of this moment and lets go of what is behind it.
    fn save(&mut self) -> io::Result<()> {
        let state = match &mut self.out {
            Out::Nowhere | Out::Stdout(_) => Vec::new(),
            Out::File(log) => serde_json::to_vec(&log.settle()?)?,
        };
        if !self.journal.is_home() {
            return Err(io::Error::other("the journal's folder is not there, or another process has it"));
        }
        let positions = self.reader.positions();
        self.checkpoint.save(&positions, &state)?;
        self.reader.release(&positions);
        self.anchored = true;
        self.dirty = false;
        self.saved = Instant::now();
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.save()?;
        if let Out::File(log) = &mut self.out
            && log.reopen()?
        {
            self.anchored = false;
            tracing::info!(file = %log.path().display(), "the access log was opened anew");
        }
        Ok(())
    }

    fn rotate(&mut self, now: SystemTime) -> io::Result<()> {
        let Out::File(log) = &mut self.out else { return Ok(()) };
        if !self.rotation.is_due(log.length(), log.began(), now) {
            return Ok(());
        }
        self.save()?;
        let Out::File(log) = &mut self.out else { return Ok(()) };
        let aside = rotation::moved_name(log.path(), now);
        log.move_aside(&aside)?;
        self.anchored = false;
        let deleted = self.rotation.prune(log.path(), now);
        tracing::debug!(aside = %aside.display(), deleted, "the access log was moved aside");
        self.save()
    }
}

#[cfg(test)]
#[path = "consumer_tests.rs"]
mod tests;
