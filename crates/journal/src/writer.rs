//! One thread's end of the journal.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::header::Owner;
use crate::journal::{Journal, Shared, State};
use crate::map::Appender;
use crate::segment::Segment;

/// Why a record was not kept. It has been counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// No segment is to be had: the disk or the journal's bound is full.
    Full,
    /// Empty, or longer than [`Options::max_record`](crate::Options::max_record).
    Length,
    /// The journal is closed.
    Closed,
}

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => "the journal is full",
            Self::Length => "the record is empty or too long",
            Self::Closed => "the journal is closed",
        })
    }
}

impl std::error::Error for Dropped {}

/// One thread's end of the journal. When it drops, the next writer goes on in its segment.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    seat: Option<Seat>,
    _one_thread: PhantomData<Cell<()>>,
}

/// A writer's number and segment, which outlive the thread.
#[derive(Debug)]
pub(crate) struct Seat {
    writer: u32,
    /// Place of the next segment.
    place: u32,
    current: Option<(Appender, Arc<Segment>)>,
    written: u64,
    tally: Arc<AtomicU64>,
    /// Of the folder that the segment is in.
    generation: u64,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let mut state = shared.lock();
        let seat = state.idle.pop().unwrap_or_else(|| Seat::new(&mut state));
        drop(state);
        Self { shared, seat: Some(seat), _one_thread: PhantomData }
    }

    /// Publishes a record: from here on `kill -9` cannot take it. Never waits for the disk.
    ///
    /// # Errors
    /// When the record is not kept; it has been counted then.
    pub fn append(&mut self, payload: &[u8]) -> Result<(), Dropped> {
        if payload.is_empty() || payload.len() > self.shared.options.max_record {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Dropped::Length);
        }
        let kept = if self.is_closed() { Err(Dropped::Closed) } else { self.publish(payload) };
        if kept.is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        kept
    }

    /// The journal takes no more records.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Relaxed)
    }

    /// Whether this is an end of that journal.
    #[must_use]
    pub fn is_of(&self, journal: &Journal) -> bool {
        Arc::ptr_eq(&self.shared, &journal.shared)
    }

    fn publish(&mut self, payload: &[u8]) -> Result<(), Dropped> {
        let Some(seat) = &mut self.seat else { return Err(Dropped::Closed) };
        seat.follow(self.shared.generation.load(Ordering::Acquire));
        if seat.append(payload) || (seat.next_segment(&self.shared) && seat.append(payload)) {
            Ok(())
        } else {
            Err(Dropped::Full)
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Some(seat) = self.seat.take() else { return };
        let mut state = self.shared.lock();
        if self.is_closed() {
            seat.seal();
        }
        state.idle.push(seat);
    }
}

impl Seat {
    fn new(state: &mut State) -> Self {
        state.seats += 1;
        let tally = Arc::new(AtomicU64::new(0));
        state.tallies.push(Arc::clone(&tally));
        Self { writer: state.seats, place: 0, current: None, written: 0, tally, generation: 0 }
    }

    /// Leaves a segment whose folder is lost.
    fn follow(&mut self, generation: u64) {
        if self.generation != generation {
            self.generation = generation;
            self.seal();
            self.current = None;
        }
    }

    /// Nothing more will be written.
    pub(crate) fn seal(&self) {
        if let Some((_, segment)) = &self.current {
            segment.sealed.store(true, Ordering::Release);
        }
    }

    fn append(&mut self, payload: &[u8]) -> bool {
        let Some((appender, segment)) = &mut self.current else { return false };
        if !appender.append(payload) {
            return false;
        }
        segment.written.store(appender.tail() as u64, Ordering::Release);
        self.written += 1;
        self.tally.store(self.written, Ordering::Relaxed);
        true
    }

    /// Takes a segment that is ready. The lock is held for moments only, by everybody.
    fn next_segment(&mut self, shared: &Shared) -> bool {
        if !shared.ready.load(Ordering::Relaxed) {
            return false;
        }
        let mut state = shared.lock();
        let Some(spare) = state.spares.pop_front() else { return false };
        shared.ready.store(!state.spares.is_empty(), Ordering::Relaxed);
        let owner = Owner { writer: self.writer, place: self.place };
        let Some((appender, segment)) = spare.take(owner, shared.options.readers) else { return false };
        // Before anybody hears of the next one.
        self.seal();
        for inbox in &mut state.inboxes {
            inbox.push(Arc::clone(&segment));
        }
        state.catalogue.push(Arc::clone(&segment));
        drop(state);
        shared.arrivals.fetch_add(1, Ordering::Release);
        shared.wake.notify_all();
        self.place += 1;
        self.current = Some((appender, segment));
        true
    }
}
