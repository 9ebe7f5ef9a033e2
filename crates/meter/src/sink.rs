//! A thread's events into the journal.

use std::cell::RefCell;
use std::sync::Arc;

use aiproxy_core::UsageEvent;
use aiproxy_core::ports::UsageSink;
use aiproxy_journal::{Journal, Writer};

use crate::codec;

thread_local! {
    /// One for each journal that this thread has written to: in the program, one.
    static DESKS: RefCell<Vec<Desk>> = const { RefCell::new(Vec::new()) };
}

/// A thread's writer and its scratch buffer.
struct Desk {
    writer: Writer,
    scratch: Vec<u8>,
}

/// Puts every event into the journal: no system call, no lock, no allocation once a thread's
/// buffer has grown. What the journal cannot keep, it counts.
#[derive(Debug)]
pub struct JournalSink {
    journal: Arc<Journal>,
}

impl JournalSink {
    /// A sink for all threads.
    #[must_use]
    pub fn new(journal: Arc<Journal>) -> Self {
        Self { journal }
    }

    fn keep(&self, event: &UsageEvent) {
        let kept = DESKS.try_with(|desks| {
            let Ok(mut desks) = desks.try_borrow_mut() else { return false };
            let desk = match desks.iter().position(|desk| desk.writer.is_of(&self.journal)) {
                Some(found) => &mut desks[found],
                None => {
                    desks.retain(|desk| !desk.writer.is_closed());
                    desks.push_mut(Desk { writer: self.journal.writer(), scratch: Vec::new() })
                }
            };
            desk.scratch.clear();
            codec::encode(&mut desk.scratch, event);
            // The journal has counted what it did not keep.
            let _ = desk.writer.append(&desk.scratch);
            true
        });
        if kept != Ok(true) {
            self.journal.lost();
        }
    }
}

impl UsageSink for JournalSink {
    fn record(&self, event: UsageEvent) {
        self.keep(&event);
    }

    fn observe(&self, event: &UsageEvent) {
        self.keep(event);
    }
}
