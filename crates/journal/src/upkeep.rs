//! The threads that prepare segments and sync.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::header::Header;
use crate::history;
use crate::home::Home;
use crate::journal::{Shared, micros};
use crate::segment::{Segment, Spare};

/// How soon making a segment is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// How soon it is looked for records that were dropped.
const LOOK: Duration = Duration::from_secs(1);
/// How often a lasting trouble is reported.
const REPORT: Duration = Duration::from_secs(60);

/// Writes to disk what was published, each [`Options::sync_interval`](crate::Options).
pub(crate) struct Syncer {
    shared: Arc<Shared>,
    reported: Option<Instant>,
}

/// How often kept segments are looked at for their age.
const PRUNE: Duration = Duration::from_secs(60);

/// Prepares segments, deletes kept ones in time, and reports what goes wrong.
pub(crate) struct Upkeep {
    shared: Arc<Shared>,
    home: Arc<Home>,
    reported: Option<Instant>,
    /// Gaps when last reported.
    gaps: u64,
    /// Why there is no segment to be had.
    trouble: Option<String>,
    /// When the kept segments were last looked at.
    pruned: Option<Instant>,
}

impl Upkeep {
    pub(crate) fn new(shared: Arc<Shared>, home: Arc<Home>) -> Self {
        Self { shared, home, reported: None, gaps: 0, trouble: None, pruned: None }
    }

    /// Until the journal closes.
    pub(crate) fn run(mut self) {
        loop {
            self.prepare();
            self.prune();
            self.report();
            let state = self.shared.lock();
            if self.shared.closed.load(Ordering::Acquire) {
                break;
            }
            let missing = state.spares.len() < self.shared.options.spares;
            if missing && self.trouble.is_none() {
                continue;
            }
            let pause = if missing { RETRY } else { LOOK };
            drop(self.shared.wake.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner));
        }
        self.reported = None;
        self.report();
    }

    /// Makes segments until enough are ready.
    pub(crate) fn prepare(&mut self) {
        if self.home.is_lost(&self.shared.options.folder) {
            self.shared.move_out();
            let folder = self.shared.options.folder.display();
            tracing::error!(%folder, "the journal's folder was removed or replaced; what was recorded there is in the access log only");
        }
        if self.home.lock().is_none() && !self.move_in() {
            return;
        }
        while let Some(header) = self.wanted() {
            let options = &self.shared.options;
            let made = Spare::create(&options.folder, header, &*options.allocate);
            self.shared.fresh.store(true, Ordering::Release);
            let mut state = self.shared.lock();
            match made {
                Ok(spare) if !self.shared.closed.load(Ordering::Acquire) => {
                    state.spares.push_back(spare);
                    self.shared.ready.store(true, Ordering::Relaxed);
                    drop(state);
                    if let Some(trouble) = self.trouble.take() {
                        tracing::info!(trouble, "the journal has room again");
                        self.reported = None;
                    }
                }
                other => {
                    state.bytes -= u64::from(header.length);
                    drop(state);
                    if let Err(error) = other {
                        self.trouble = Some(error.to_string());
                    }
                    return;
                }
            }
        }
    }

    /// Whether the folder can be used by now.
    fn move_in(&mut self) -> bool {
        match self.shared.move_in() {
            Ok(lock) => {
                self.home.enter(lock);
                true
            }
            Err(error) => {
                self.trouble = Some(error.to_string());
                false
            }
        }
    }

    /// Deletes what need not be kept any longer.
    fn prune(&mut self) {
        let retired = self.shared.retired.swap(false, Ordering::AcqRel);
        if !retired && self.pruned.is_some_and(|at| at.elapsed() < PRUNE) {
            return;
        }
        self.pruned = Some(Instant::now());
        let options = &self.shared.options;
        if let Err(error) = history::prune(&options.folder, options.keep_bytes, options.keep_age) {
            tracing::debug!(%error, "kept segments of the journal cannot be looked at");
        }
    }

    /// The next segment to make, its disk space taken from the bound.
    fn wanted(&mut self) -> Option<Header> {
        let options = &self.shared.options;
        let mut state = self.shared.lock();
        if state.spares.len() >= options.spares || self.shared.closed.load(Ordering::Acquire) {
            return None;
        }
        if state.bytes + u64::from(options.segment_bytes) > options.max_bytes {
            // Not worth a word while others are ready.
            self.trouble = Some("its bound is reached: the reader cannot follow".into());
            return None;
        }
        state.bytes += u64::from(options.segment_bytes);
        state.serial += 1;
        Some(Header {
            length: options.segment_bytes,
            epoch: self.shared.epoch(),
            created: micros(),
            serial: state.serial,
        })
    }

    /// At most once a minute.
    fn report(&mut self) {
        let (gaps, ready) = (self.shared.gaps(), self.shared.ready.load(Ordering::Relaxed));
        let stuck = self.trouble.is_some() && !ready && !self.shared.closed.load(Ordering::Relaxed);
        if gaps <= self.gaps && !stuck || self.reported.is_some_and(|at| at.elapsed() < REPORT) {
            return;
        }
        let reason = self.trouble.as_deref().unwrap_or("records were too long, or came faster than segments");
        if gaps > self.gaps {
            tracing::error!(lost = gaps - self.gaps, total = gaps, reason, "usage records were not kept");
        } else if stuck {
            tracing::error!(reason, "the journal cannot make a segment");
        }
        self.gaps = gaps;
        self.reported = Some(Instant::now());
    }
}

impl Syncer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, reported: None }
    }

    /// Until the journal closes.
    pub(crate) fn run(mut self) {
        let interval = self.shared.options.sync_interval;
        let mut last = Instant::now();
        loop {
            let state = self.shared.lock();
            let closed = self.shared.closed.load(Ordering::Acquire);
            let rest = interval.saturating_sub(last.elapsed());
            if !closed && !rest.is_zero() {
                drop(self.shared.wake.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner));
                continue;
            }
            let segments = state.catalogue.clone();
            drop(state);
            last = Instant::now();
            if let Err(error) = self.sync(&segments)
                && self.reported.is_none_or(|at| at.elapsed() >= REPORT)
            {
                tracing::error!(%error, "the journal cannot be synced: a power loss may take more than it should");
                self.reported = Some(Instant::now());
            }
            if closed {
                return;
            }
        }
    }

    fn sync(&self, segments: &[Arc<Segment>]) -> io::Result<()> {
        if self.shared.fresh.swap(false, Ordering::AcqRel)
            && let Err(error) = self.shared.sync_folder()
        {
            self.shared.fresh.store(true, Ordering::Release);
            return Err(error);
        }
        segments.iter().try_for_each(|segment| segment.sync())
    }
}
