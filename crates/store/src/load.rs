//! Reading the file back, whatever a crash left in it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use aiproxy_core::ports::ObjectRecord;

use crate::line;

/// What a file holds.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The objects that live, oldest first.
    pub records: Vec<ObjectRecord>,
    /// Lines read.
    pub lines: u64,
    /// Lines that say nothing: torn by a crash, or not ours.
    pub bad: u64,
    /// Whether the last line has no end.
    pub(crate) torn: bool,
}

impl Loaded {
    /// Lines that a shorter file would not have.
    pub(crate) fn dead(&self) -> u64 {
        self.lines.saturating_sub(self.records.len() as u64)
    }
}

/// Reads the file; one that is not there holds nothing. Where there are more than `limit` objects
/// the oldest are left out.
pub(crate) fn read(path: &Path, limit: usize) -> io::Result<Loaded> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::default()),
        Err(error) => return Err(error),
    };
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut loaded = Loaded::default();
    let mut names = HashSet::new();
    let mut live: HashMap<Arc<str>, (u64, ObjectRecord)> = HashMap::new();
    let mut bytes = Vec::new();
    while let Some(ended) = next_line(&mut reader, &mut bytes)? {
        loaded.torn = !ended;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        loaded.lines += 1;
        let Some(line) = line::parse(&bytes) else {
            loaded.bad += 1;
            continue;
        };
        if !line.gone.is_empty() {
            live.remove(&*line.gone);
            continue;
        }
        let record = ObjectRecord {
            id: Arc::from(&*line.id),
            kind: shared(&mut names, &line.kind),
            owner: shared(&mut names, &line.owner),
            channel: shared(&mut names, &line.channel),
            created: line.at.unwrap_or_default(),
        };
        live.insert(Arc::clone(&record.id), (loaded.lines, record));
        if live.len() > limit.saturating_mul(2) {
            forget_oldest(&mut live, limit);
        }
    }
    forget_oldest(&mut live, limit);
    let mut kept: Vec<_> = live.into_values().collect();
    kept.sort_unstable_by_key(|(line, _)| *line);
    loaded.records = kept.into_iter().map(|(_, record)| record).collect();
    Ok(loaded)
}

/// The next line without its end into `line`, overlong ones cut; whether it had an end.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    let mut any = false;
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(any.then_some(false));
        }
        any = true;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        // One byte too many makes the line no JSON.
        let room = (line::LONGEST + 1).saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            return Ok(Some(true));
        }
    }
}

/// Users, channels and kinds are few: one copy each.
fn shared(names: &mut HashSet<Arc<str>>, name: &str) -> Arc<str> {
    if let Some(known) = names.get(name) {
        return Arc::clone(known);
    }
    let name: Arc<str> = Arc::from(name);
    names.insert(Arc::clone(&name));
    name
}

fn forget_oldest(live: &mut HashMap<Arc<str>, (u64, ObjectRecord)>, limit: usize) {
    let excess = live.len().saturating_sub(limit);
    if excess == 0 {
        return;
    }
    let mut ages: Vec<u64> = live.values().map(|(line, _)| *line).collect();
    let (_, last, _) = ages.select_nth_unstable(excess - 1);
    let last = *last;
    live.retain(|_, (line, _)| *line > last);
}
