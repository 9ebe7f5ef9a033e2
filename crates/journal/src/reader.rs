//! Follows all segments in order.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::header;
use crate::history;
use crate::journal::Shared;
use crate::map::Follower;
use crate::record::{Remains, Unreadable};
use crate::segment::Segment;

/// How far one writer's records have been consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The process.
    pub epoch: u64,
    /// The writer within the process.
    pub writer: u32,
    /// The segment among the writer's segments; those before it are consumed.
    pub place: u32,
    /// Offset of the next record in it.
    pub offset: u32,
}

/// One position for each writer that has records left or may have more.
pub type Positions = Vec<Position>;

/// Follows all segments: a writer's records come in the order of writing.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    number: usize,
    streams: Vec<Stream>,
    arrivals: u64,
    /// Where the next poll begins, so that no stream starves.
    turn: usize,
    _lock: Arc<File>,
}

#[derive(Debug)]
struct Stream {
    at: Position,
    waiting: VecDeque<Arc<Segment>>,
    open: Option<(Arc<Segment>, Cursor)>,
    /// Read to the end; whether this reader has released it.
    done: Vec<(Arc<Segment>, bool)>,
    /// The next segment could not be opened, and that has been reported.
    stuck: bool,
}

#[derive(Debug)]
enum Cursor {
    Live(Follower),
    Remains(Remains),
}

impl Reader {
    pub(crate) fn new(
        shared: Arc<Shared>,
        lock: Arc<File>,
        number: usize,
        consumed: &[Position],
    ) -> Option<Self> {
        if std::mem::replace(shared.lock().taken.get_mut(number)?, true) {
            return None;
        }
        let mut reader = Self { shared, number, streams: Vec::new(), arrivals: 0, turn: 0, _lock: lock };
        reader.look_for_news();
        for stream in &mut reader.streams {
            let same = |at: &&Position| (at.epoch, at.writer) == (stream.at.epoch, stream.at.writer);
            if let Some(position) = consumed.iter().find(same) {
                stream.at = *position;
            }
        }
        Some(reader)
    }

    /// Hands out what has been published, up to about `budget` bytes; gives how many. Less than
    /// the budget means that nothing is left for now.
    pub fn poll(&mut self, budget: usize, mut take: impl FnMut(&[u8])) -> usize {
        self.look_for_news();
        let (mut bytes, count) = (0, self.streams.len());
        for turn in 0..count {
            let stream = &mut self.streams[(self.turn + turn) % count];
            while bytes < budget {
                match stream.read(&self.shared, self.number, &mut take) {
                    Some(read) => bytes += read,
                    None => break,
                }
            }
        }
        self.turn = self.turn.wrapping_add(1) % count.max(1);
        bytes
    }

    /// What has been handed out so far, for the checkpoint.
    #[must_use]
    pub fn positions(&self) -> Positions {
        self.streams.iter().map(|stream| stream.at).collect()
    }

    /// Retires segments that are behind these positions, which a checkpoint on disk holds, unless
    /// other readers need them: they are deleted, or kept as history.
    pub fn release(&mut self, saved: &[Position]) {
        let mut deleted = Vec::new();
        for stream in &mut self.streams {
            let same = |at: &&Position| (at.epoch, at.writer) == (stream.at.epoch, stream.at.writer);
            let Some(position) = saved.iter().find(same) else { continue };
            for (segment, released) in &mut stream.done {
                if segment.owner.place >= position.place {
                    continue;
                }
                if !*released {
                    *released = true;
                    segment.releases.fetch_add(1, Ordering::AcqRel);
                }
                let all = segment.releases.load(Ordering::Acquire) >= self.shared.options.readers;
                let keep = self.shared.options.keep_bytes > 0;
                if all && !segment.gone.load(Ordering::Acquire) && history::retire(segment, keep) {
                    deleted.push(Arc::clone(segment));
                }
            }
        }
        // A stream leaves the checkpoint only once its files are surely gone: else they would be
        // read again after a power loss.
        if !deleted.is_empty() && self.shared.sync_folder().is_ok() {
            let mut state = self.shared.lock();
            for segment in &deleted {
                if !segment.gone.swap(true, Ordering::AcqRel) {
                    state.bytes = state.bytes.saturating_sub(segment.length);
                    state.catalogue.retain(|other| !Arc::ptr_eq(other, segment));
                }
            }
            drop(state);
            self.shared.retired.store(true, Ordering::Release);
            self.shared.wake.notify_all();
        }
        let epoch = self.shared.epoch();
        self.streams.retain_mut(|stream| {
            stream.done.retain(|(segment, _)| !segment.gone.load(Ordering::Acquire));
            stream.at.epoch == epoch || !stream.is_finished()
        });
    }

    fn look_for_news(&mut self) {
        let arrivals = self.shared.arrivals.load(Ordering::Acquire);
        if arrivals == self.arrivals {
            return;
        }
        self.arrivals = arrivals;
        let news = match self.shared.lock().inboxes.get_mut(self.number) {
            Some(inbox) => std::mem::take(inbox),
            None => return,
        };
        for segment in news {
            self.add(segment);
        }
    }

    fn add(&mut self, segment: Arc<Segment>) {
        let key = (segment.epoch, segment.owner.writer);
        let known = self.streams.iter_mut().find(|stream| (stream.at.epoch, stream.at.writer) == key);
        if let Some(stream) = known {
            stream.waiting.push_back(segment);
            return;
        }
        self.streams.push(Stream {
            at: Position { epoch: key.0, writer: key.1, place: 0, offset: header::LENGTH as u32 },
            waiting: VecDeque::from([segment]),
            open: None,
            done: Vec::new(),
            stuck: false,
        });
    }
}

impl Stream {
    /// Hands out one record; gives its length.
    fn read(&mut self, shared: &Shared, number: usize, take: &mut impl FnMut(&[u8])) -> Option<usize> {
        loop {
            if self.open.is_none() {
                let segment = self.waiting.pop_front()?;
                if segment.owner.place < self.at.place {
                    self.finish(segment, number);
                    continue;
                }
                if segment.owner.place > self.at.place {
                    self.at.place = segment.owner.place;
                    self.at.offset = header::LENGTH as u32;
                }
                let Some(cursor) = Cursor::open(&segment, self.at.offset) else {
                    if !std::mem::replace(&mut self.stuck, true) {
                        tracing::error!(segment = %segment.path.display(), "a journal segment cannot be read; trying again and again");
                    }
                    self.waiting.push_front(segment);
                    return None;
                };
                self.stuck = false;
                segment.end.fetch_max(u64::from(self.at.offset), Ordering::Relaxed);
                self.open = Some((segment, cursor));
            }
            let (segment, cursor) = self.open.as_mut()?;
            // Asked first: a record may be published, and the segment sealed, in between.
            let sealed = segment.sealed.load(Ordering::Acquire);
            let read = match cursor.read() {
                Some(Ok(payload)) => {
                    take(payload);
                    Some(Ok(payload.len()))
                }
                Some(Err(why)) => Some(Err(why)),
                None if sealed => None,
                None => return None,
            };
            let next = cursor.next();
            if matches!(read, Some(Ok(_) | Err(Unreadable::Sum))) {
                segment.end.store(next as u64, Ordering::Relaxed);
            }
            self.at.offset = next as u32;
            segment.consumed[number].store(next as u64, Ordering::Relaxed);
            let ended = match read {
                Some(Ok(length)) => return Some(length),
                Some(Err(why)) => {
                    shared.torn.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(segment = %segment.path.display(), offset = next, ?why, "a torn record was skipped");
                    why != Unreadable::Sum
                }
                None => true,
            };
            if ended && let Some((segment, _)) = self.open.take() {
                self.finish(segment, number);
            }
        }
    }

    fn finish(&mut self, segment: Arc<Segment>, number: usize) {
        segment.consumed[number].store(u64::MAX, Ordering::Relaxed);
        if self.at.place <= segment.owner.place {
            self.at.place = segment.owner.place + 1;
            self.at.offset = header::LENGTH as u32;
        }
        self.done.push((segment, false));
    }

    fn is_finished(&self) -> bool {
        self.waiting.is_empty() && self.open.is_none() && self.done.is_empty()
    }
}

impl Cursor {
    /// None when the file cannot be read for now.
    fn open(segment: &Segment, offset: u32) -> Option<Self> {
        if let Some(tape) = &segment.tape {
            return Some(Self::Live(tape.follow()));
        }
        let bytes = match std::fs::read(&segment.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            other => other.ok()?,
        };
        Some(Self::Remains(Remains::new(bytes, offset as usize, segment.seed)))
    }

    fn read(&mut self) -> Option<Result<&[u8], Unreadable>> {
        match self {
            Self::Live(follower) => follower.read(),
            Self::Remains(remains) => remains.read(),
        }
    }

    fn next(&self) -> usize {
        match self {
            Self::Live(follower) => follower.next(),
            Self::Remains(remains) => remains.next(),
        }
    }
}
