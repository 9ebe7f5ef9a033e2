//! The folder: options, the state that threads share, counters.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crate::history;
use crate::home::{Home, lock_folder};
use crate::reader::{Position, Reader};
use crate::recovery;
use crate::segment::{Allocate, Fallocate, Segment, Spare};
use crate::upkeep;
use crate::writer::{Seat, Writer};

/// How a journal is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the segments are. Made if absent; one process at a time.
    pub folder: PathBuf,
    /// Length of a segment in bytes: between 128 KiB and 1 GiB.
    pub segment_bytes: u32,
    /// Most bytes that segments may take together; at least four segments. Two segments for each
    /// thread that records are used at any time.
    pub max_bytes: u64,
    /// The longest record, in bytes; at most 64 KiB.
    pub max_record: usize,
    /// Segments to hold ready. One for each thread that records lets none of them wait at start.
    pub spares: usize,
    /// Readers that follow; a segment is deleted when all of them have released it.
    pub readers: usize,
    /// How often what was written goes to disk: the most that a power loss takes.
    pub sync_interval: Duration,
    /// Bytes that consumed segments may take; the oldest are deleted first. 0 keeps none.
    pub keep_bytes: u64,
    /// Consumed segments are deleted once they are this old.
    pub keep_age: Duration,
    /// Reserves disk space.
    pub allocate: Arc<dyn Allocate>,
}

impl Options {
    /// The defaults: segments of 4 MiB, 1 GiB altogether, one reader; nothing consumed is kept.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            segment_bytes: 4 << 20,
            max_bytes: 1 << 30,
            max_record: 64 * 1024,
            spares: std::thread::available_parallelism().map_or(2, |cores| cores.get().min(15) + 1),
            readers: 1,
            sync_interval: Duration::from_secs(1),
            keep_bytes: 0,
            keep_age: Duration::MAX,
            allocate: Arc::new(Fallocate),
        }
    }

    fn checked(mut self) -> io::Result<Self> {
        let bad = |text| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        if !(128 << 10..=1 << 30).contains(&self.segment_bytes) || !self.segment_bytes.is_multiple_of(4096) {
            return bad("the journal's segments are between 128 KiB and 1 GiB, in pages of 4 KiB");
        }
        if self.max_bytes < 4 * u64::from(self.segment_bytes) {
            return bad("the journal's bound is at least four segments");
        }
        if self.readers == 0 || self.max_record > 64 << 10 {
            return bad("the journal has a reader and records of at most 64 KiB");
        }
        let most = self.max_bytes / u64::from(self.segment_bytes) / 4;
        self.spares = self.spares.clamp(1, usize::try_from(most).unwrap_or(usize::MAX));
        Ok(self)
    }
}

/// What a journal has done since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records published.
    pub written: u64,
    /// Records lost because there was no segment: disk or bound full, or the journal closed.
    pub dropped: u64,
    /// Records refused because they were empty or too long.
    pub refused: u64,
    /// Records and tails of earlier processes that could not be read.
    pub torn: u64,
    /// Bytes that the slowest reader has yet to read; segments of earlier processes count whole
    /// until they are read.
    pub lag_bytes: u64,
    /// Bytes that segments take on disk.
    pub disk_bytes: u64,
}

/// A journal at work. Closes when it drops.
#[derive(Debug)]
pub struct Journal {
    pub(crate) shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Holds the folder's lock as long as the journal or a reader lives.
    home: Arc<Home>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    epoch: AtomicU64,
    pub(crate) state: Mutex<State>,
    /// Wakes the threads of upkeep: a spare was taken, a segment deleted, the journal closed.
    pub(crate) wake: Condvar,
    /// There are spares: looked at before the lock is taken.
    pub(crate) ready: AtomicBool,
    pub(crate) closed: AtomicBool,
    /// Counts segments that readers have yet to hear of.
    pub(crate) arrivals: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) torn: AtomicU64,
    /// Files were made that a power loss would take.
    pub(crate) fresh: AtomicBool,
    /// Counts the folders that were lost: writers leave their segments then.
    pub(crate) generation: AtomicU64,
    /// Segments were retired since the kept ones were last looked at.
    pub(crate) retired: AtomicBool,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) spares: VecDeque<Spare>,
    /// Seats whose threads have ended, for the next threads.
    pub(crate) idle: Vec<Seat>,
    pub(crate) seats: u32,
    pub(crate) tallies: Vec<Arc<AtomicU64>>,
    /// Every segment on disk that holds records.
    pub(crate) catalogue: Vec<Arc<Segment>>,
    /// Segments that each reader has yet to hear of.
    pub(crate) inboxes: Vec<Vec<Arc<Segment>>>,
    /// Which readers have been had.
    pub(crate) taken: Vec<bool>,
    /// Disk space of catalogue, spares, and what is being made.
    pub(crate) bytes: u64,
    pub(crate) serial: u64,
    /// Those of this process.
    epochs: Vec<u64>,
}

impl Journal {
    /// Opens the folder, finds what earlier processes left, and starts the threads of upkeep. A full
    /// disk is no error, nor is a folder that cannot be made, read or locked for now: records are
    /// dropped and counted, and it is tried again until it [works](Self::is_home).
    ///
    /// # Errors
    /// When another process uses the folder, the options make no sense, or a thread cannot be started.
    pub fn open(options: Options) -> io::Result<Self> {
        let options = options.checked()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                inboxes: vec![Vec::new(); options.readers],
                taken: vec![false; options.readers],
                ..State::default()
            }),
            epoch: AtomicU64::new(micros()),
            wake: Condvar::new(),
            ready: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            arrivals: AtomicU64::new(1),
            dropped: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            torn: AtomicU64::new(0),
            fresh: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            retired: AtomicBool::new(true),
            options,
        });
        let home = Arc::<Home>::default();
        match shared.move_in() {
            Ok(lock) => home.enter(lock),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Err(error),
            Err(error) => {
                let folder = shared.options.folder.display();
                tracing::error!(%folder, %error, "the journal cannot be used: nothing is kept until it can");
            }
        }
        let mut upkeep = upkeep::Upkeep::new(Arc::clone(&shared), Arc::clone(&home));
        // Before the first record, so that it finds a segment.
        upkeep.prepare();
        let syncer = upkeep::Syncer::new(Arc::clone(&shared));
        let named = |name: &str| std::thread::Builder::new().name(name.into());
        let journal = Self { shared, threads: Mutex::default(), home };
        let preparing = named("journal").spawn(move || upkeep.run())?;
        journal.threads().push(preparing);
        // A thread of its own: a disk that takes seconds to sync must not keep segments from being
        // prepared.
        let syncing = named("journal-sync").spawn(move || syncer.run())?;
        journal.threads().push(syncing);
        Ok(journal)
    }

    /// Whether the folder could be opened, is still ours, and what earlier processes left in it is
    /// known.
    #[must_use]
    pub fn is_home(&self) -> bool {
        self.home.lock().is_some()
    }

    /// Counts the folders that were lost, removed or replaced.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// An end to write to. A thread makes one and keeps it.
    #[must_use]
    pub fn writer(&self) -> Writer {
        Writer::new(Arc::clone(&self.shared))
    }

    /// The reader with this number (below [`Options::readers`]), beginning behind `consumed`.
    /// Each can be had once, and not before the journal is [home](Self::is_home); another call gives
    /// none.
    #[must_use]
    pub fn reader(&self, number: usize, consumed: &[Position]) -> Option<Reader> {
        Reader::new(Arc::clone(&self.shared), self.home.lock()?, number, consumed)
    }

    /// Records that were not kept, for whatever reason.
    #[must_use]
    pub fn gaps(&self) -> u64 {
        self.shared.gaps()
    }

    /// Adds a record to the count of those dropped: for one that never came as far as a writer.
    pub fn lost(&self) {
        self.shared.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// What has been done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let state = self.shared.lock();
        Counters {
            written: state.tallies.iter().map(|tally| tally.load(Ordering::Relaxed)).sum(),
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            refused: self.shared.refused.load(Ordering::Relaxed),
            torn: self.shared.torn.load(Ordering::Relaxed),
            lag_bytes: state.catalogue.iter().map(|segment| segment.lag()).sum(),
            disk_bytes: state.bytes,
        }
    }

    /// Takes no more records, syncs, and ends the threads of upkeep. Readers can go on reading. A
    /// writer that is still held keeps its segment on disk; the next process reads it.
    pub fn close(&self) {
        let mut state = self.shared.lock();
        self.shared.closed.store(true, Ordering::Release);
        for seat in &state.idle {
            seat.seal();
        }
        let spares = std::mem::take(&mut state.spares);
        state.bytes -= spares.len() as u64 * u64::from(self.shared.options.segment_bytes);
        self.shared.ready.store(false, Ordering::Relaxed);
        drop(state);
        drop(spares);
        self.shared.wake.notify_all();
        let threads = std::mem::take(&mut *self.threads());
        for thread in threads {
            let _ = thread.join();
        }
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the folder and takes over what earlier processes left; gives the lock.
    pub(crate) fn move_in(&self) -> io::Result<File> {
        let options = &self.options;
        std::fs::create_dir_all(&options.folder)?;
        let lock = lock_folder(&options.folder)?;
        let found = recovery::scan(&options.folder, options.readers, micros())?;
        // One more than any, our own before this included: these are other segments.
        let epoch = micros().max(found.newest_epoch + 1).max(self.epoch() + 1);
        self.epoch.store(epoch, Ordering::Relaxed);
        self.torn.fetch_add(found.torn, Ordering::Relaxed);
        let mut state = self.lock();
        // A folder that came back may hold copies of what is read here already.
        let (copies, segments): (Vec<_>, Vec<_>) =
            found.segments.into_iter().partition(|segment| state.epochs.contains(&segment.epoch));
        state.epochs.push(epoch);
        state.bytes += segments.iter().map(|segment| segment.length).sum::<u64>();
        for inbox in &mut state.inboxes {
            inbox.extend(segments.iter().map(Arc::clone));
        }
        state.catalogue.extend(segments);
        drop(state);
        self.arrivals.fetch_add(1, Ordering::Release);
        copies.iter().for_each(|copy| history::set_aside(copy));
        Ok(lock)
    }

    /// The folder is not ours any more: nothing is written there from now on. What threads have
    /// published and readers have not read yet is still in memory.
    pub(crate) fn move_out(&self) {
        let mut state = self.lock();
        let spares = std::mem::take(&mut state.spares);
        state.bytes -= spares.len() as u64 * u64::from(self.options.segment_bytes);
        self.ready.store(false, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Release);
        drop(state);
        spares.into_iter().for_each(Spare::abandon);
    }

    /// Names this process in the folder: microseconds since 1970, and more than any before. Settled
    /// once the folder is open.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    pub(crate) fn gaps(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed) + self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.options.folder)?.sync_all()
    }
}

/// Microseconds since 1970.
pub(crate) fn micros() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
