//! Sessions that were open when their process ended without a word.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aiproxy_journal::{History, Journal};

use crate::codec;
use crate::sums::Open;

/// Every session that is open is recorded at least this often, in intervals of
/// `system.journal.session_interval`; a little more, since nobody is punctual.
const INTERVALS: u32 = 13;

/// Closes, in the journal, what no process works on any more: to be called before anybody records. What
/// came last of each is among the last records of the folder, where an open session is recorded every
/// `interval` or, while nothing passes, every tenth of them. Gives how many there were.
///
/// # Errors
/// When the folder cannot be read.
pub fn close(folder: &Path, journal: &Arc<Journal>, interval: Duration) -> io::Result<usize> {
    let mut history = History::open(folder)?;
    let since = history.latest()?.and_then(|latest| latest.checked_sub(interval * INTERVALS));
    let mut open = Open::default();
    history.read(since, |record| {
        if let Some(event) = codec::decode(record) {
            open.stands(record, &event);
        }
    })?;
    let mut writer = journal.writer();
    let closing: Vec<_> = open.records().filter_map(codec::aborted).collect();
    for record in &closing {
        // The journal has counted what it did not keep.
        let _ = writer.append(record);
    }
    Ok(closing.len())
}
