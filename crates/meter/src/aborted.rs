//! Sessions that were open when their process ended without a word.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aiproxy_journal::{History, Journal};

use crate::codec;
use crate::sums::Open;

/// Every session that is open is recorded at least this often, in intervals of
/// `system.journal.session_interval`; a little more, since nobody is punctual.
const INTERVALS: u32 = 13;

/// What `system.journal.session_interval` is where nobody says otherwise.
const USUAL: Duration = Duration::from_secs(60);

/// When the process before recorded last; none where nobody did. To be asked before the journal is
/// opened, which makes segments of its own.
#[must_use]
pub fn last_recorded(folder: &Path) -> Option<SystemTime> {
    History::open(folder).and_then(|history| history.latest()).ok().flatten()
}

/// Closes, in the journal, what no process works on any more: to be called before anybody records. What
/// came last of each is among the last records `before`, where an open session is recorded every
/// `interval` or, while nothing passes, every tenth of them. Gives how many there were.
///
/// # Errors
/// When the folder cannot be read.
pub fn close(
    folder: &Path,
    journal: &Arc<Journal>,
    before: SystemTime,
    interval: Duration,
) -> io::Result<usize> {
    let mut history = History::open(folder)?;
    // The process before may have had another interval: most have the usual one.
    let since = before.checked_sub(interval.max(USUAL) * INTERVALS);
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

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use aiproxy_core::ports::UsageSink as _;
    use aiproxy_core::{Outcome, UsageEvent};
    use aiproxy_journal::Options;

    use super::*;
    use crate::JournalSink;
    use crate::testing::event;

    fn start(folder: &Path) -> Arc<Journal> {
        let keep = Options { keep_bytes: 1 << 20, keep_age: Duration::MAX, ..Options::new(folder) };
        let options = Options { segment_bytes: 128 << 10, max_bytes: 16 << 20, ..keep };
        Arc::new(Journal::open(options).unwrap())
    }

    /// All records, each with the end that it tells of.
    fn outcomes(folder: &Path) -> Vec<String> {
        let mut all = Vec::new();
        let mut history = History::open(folder).unwrap();
        history.read(None, |record| all.push(codec::decode(record).unwrap().outcome.to_owned())).unwrap();
        all
    }

    #[test]
    fn what_was_open_is_closed_however_long_ago_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let open = UsageEvent { outcome: Outcome::Open, error: None, part: Some(0), ..event("/v1/realtime") };
        let ended = UsageEvent { part: Some(1), ..event("/v1/realtime") };
        {
            let journal = start(folder.path());
            let sink = JournalSink::new(Arc::clone(&journal));
            sink.record(open.clone());
            sink.record(open.clone());
            sink.record(UsageEvent { request_id: ended.request_id, ..open.clone() });
            sink.record(ended);
            journal.close();
        }
        // The machine was off for a day, and all segments had been consumed.
        let yesterday = SystemTime::now() - Duration::from_secs(86_400);
        for entry in fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "journal") {
                File::options().write(true).open(&path).unwrap().set_modified(yesterday).unwrap();
                fs::rename(&path, path.with_extension("done")).unwrap();
            }
        }
        let before = last_recorded(folder.path()).unwrap();
        let journal = start(folder.path());
        let minute = Duration::from_secs(60);
        assert_eq!(close(folder.path(), &journal, before, minute).unwrap(), 1);
        let mut all = outcomes(folder.path());
        all.sort_unstable();
        assert_eq!(all, ["aborted", "open", "open", "open", "refused"]);
        assert_eq!(close(folder.path(), &journal, before, minute).unwrap(), 0, "once");
        assert_eq!(last_recorded(&folder.path().join("nowhere")), None);
    }
}
