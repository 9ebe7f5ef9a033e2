//! The access log's sink and its writer thread.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use aiproxy_core::ports::UsageSink;
use aiproxy_core::{Outcome, UsageEvent};

use crate::line;

/// Lines that wait for the writer; at 400 bytes a line some 20,000 of them.
const BUFFER_BYTES: usize = 8 << 20;
/// How long the writer lets lines gather after the first, instead of waking for each.
const GATHER: Duration = Duration::from_millis(50);

/// Where the lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file, appended to, created with mode 0640.
    File(PathBuf),
    /// No log at all.
    Nowhere,
}

/// Writes one JSON line a usage event.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    wake: Condvar,
    dropped: AtomicU64,
    written: AtomicU64,
}

#[derive(Debug, Default)]
struct Pending {
    lines: Vec<u8>,
    closed: bool,
    reopen: bool,
}

impl AccessLog {
    /// Opens the target and starts the writer thread.
    ///
    /// # Errors
    /// When the file cannot be opened for appending or the thread cannot be started.
    pub fn open(target: &Target) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match target {
            Target::Stdout => Box::new(io::stdout()),
            Target::File(path) => Box::new(append_to(path)?),
            Target::Nowhere => Box::new(io::sink()),
        };
        let path = if let Target::File(path) = target { Some(path.clone()) } else { None };
        Self::to_writer(out, path)
    }

    fn to_writer(out: Box<dyn Write + Send>, path: Option<PathBuf>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let writer = std::thread::Builder::new().name("access-log".into()).spawn(move || {
            write_lines(&theirs, out, path.as_deref());
        })?;
        Ok(Self { shared, writer: Mutex::new(Some(writer)) })
    }

    /// Lines that were dropped because the target could not follow or refused them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Lines that were written.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Opens the file's path again: after it has been moved away, a new one is made.
    pub fn reopen(&self) {
        lock(&self.shared.pending).reopen = true;
        self.shared.wake.notify_one();
    }

    /// Writes what waits and ends the writer. Events recorded afterwards are dropped.
    pub fn close(&self) {
        lock(&self.shared.pending).closed = true;
        self.shared.wake.notify_one();
        let writer = lock(&self.writer).take();
        if let Some(writer) = writer {
            let _ = writer.join();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl UsageSink for AccessLog {
    fn record(&self, event: UsageEvent) {
        // The log has one line for each, when it ends.
        if event.outcome == Outcome::Open {
            return;
        }
        let mut pending = lock(&self.shared.pending);
        if pending.closed || pending.lines.len() >= BUFFER_BYTES {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let first = pending.lines.is_empty();
        line::append(&mut pending.lines, &event);
        drop(pending);
        if first {
            self.shared.wake.notify_one();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the writer is a thread of its own and serves no caller")]
fn write_lines(shared: &Shared, mut out: Box<dyn Write + Send>, path: Option<&Path>) {
    let mut lines = Vec::new();
    let mut reported = 0;
    loop {
        let mut pending = lock(&shared.pending);
        while pending.lines.is_empty() && !pending.closed && !pending.reopen {
            pending = shared.wake.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        let closed = pending.closed;
        let reopen = std::mem::take(&mut pending.reopen);
        drop(pending);
        if let (true, Some(path)) = (reopen, path) {
            match append_to(path) {
                Ok(file) => out = Box::new(file),
                Err(error) => {
                    tracing::error!(%error, "the access log cannot be opened anew; the old file is kept");
                }
            }
        }
        if !closed {
            std::thread::sleep(GATHER);
        }
        std::mem::swap(&mut lock(&shared.pending).lines, &mut lines);
        let count = memchr::memchr_iter(b'\n', &lines).count() as u64;
        match out.write_all(&lines).and_then(|()| out.flush()) {
            Ok(()) => shared.written.fetch_add(count, Ordering::Relaxed),
            Err(error) => {
                tracing::error!(%error, "the access log cannot be written");
                shared.dropped.fetch_add(count, Ordering::Relaxed)
            }
        };
        lines.clear();
        let dropped = shared.dropped.load(Ordering::Relaxed);
        if dropped > reported {
            tracing::error!(lines = dropped - reported, total = dropped, "access log lines were dropped");
            reported = dropped;
        }
        if closed {
            return;
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    options.open(path)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "access_log_tests.rs"]
mod tests;
