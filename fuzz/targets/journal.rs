//! A folder whose segments and checkpoint mean ill: it opens, what is whole is read in order and
//! once, and what is written then is read after a restart.

#![no_main]

use std::fs;
use std::path::Path;

use aiproxy_fuzz::segments;
use aiproxy_journal::{Checkpoint, Journal, Options, Position, Reader, Saved};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

/// Memory, where the system has it: a disk is of no interest here.
const MEMORY: &str = "/dev/shm";

#[derive(Debug)]
struct Case {
    files: Vec<Vec<u8>>,
    checkpoint: Option<(Vec<u8>, Option<Saved>)>,
    /// Read this much before a restart; none: everything, and then write.
    budget: Option<usize>,
    release: bool,
}

fuzz_target!(|data: &[u8]| {
    let Ok(case) = case(&mut Unstructured::new(data)) else { return };
    let place = if Path::new(MEMORY).is_dir() { MEMORY.into() } else { std::env::temp_dir() };
    let folder = tempfile::Builder::new().prefix("aiproxy-fuzz-").tempdir_in(place).expect("a folder");
    run(folder.path(), &case);
});

fn case(u: &mut Unstructured<'_>) -> Result<Case> {
    let budget = if u.arbitrary()? { Some(u.int_in_range(0..=200)?) } else { None };
    let release = u.arbitrary()?;
    let mut files = Vec::new();
    for _ in 0..u.int_in_range(0..=6)? {
        files.push(segments::segment(u)?);
    }
    segments::without_doubles(&mut files);
    let checkpoint = match u.int_in_range(0..=5)? {
        1 => None,
        2 => {
            let length = u.int_in_range(0..=60)?.min(u.len());
            Some((u.bytes(length)?.to_vec(), None))
        }
        _ => Some(segments::checkpoint(u, &files)?),
    };
    Ok(Case { files, checkpoint, budget, release })
}

fn run(folder: &Path, case: &Case) {
    for (number, bytes) in case.files.iter().enumerate() {
        fs::write(folder.join(format!("{number}.journal")), bytes).expect("written");
    }
    if let Some((bytes, _)) = &case.checkpoint {
        fs::write(folder.join("log.checkpoint"), bytes).expect("written");
    }
    let (mut checkpoint, saved) = Checkpoint::open(folder, "log").expect("opens whatever it holds");
    if let Some((_, Some(expected))) = &case.checkpoint {
        assert_eq!(saved.as_ref(), Some(expected));
    }
    let consumed = saved.unwrap_or_default().positions;
    let expected = segments::folder(&case.files, &consumed);

    let (journal, mut reader) = open(folder, &consumed);
    let mut seen = Vec::new();
    if let Some(budget) = case.budget {
        reader.poll(budget, |payload| seen.push(payload.to_vec()));
    } else {
        seen = rest(&mut reader);
        assert_eq!((&seen, journal.counters().torn), (&expected.payloads, expected.torn));
        assert_eq!(journal.counters().lag_bytes, 0);
        let mut writer = journal.writer();
        let ours: [&[u8]; 2] = [b"one", b"and another"];
        ours.iter().for_each(|payload| writer.append(payload).expect("there is a segment"));
        assert_eq!(rest(&mut reader), ours);
        writer.append(b"unread").expect("there is a segment");
    }
    let positions = reader.positions();
    checkpoint.save(&positions, b"state").expect("saved");
    if case.release {
        reader.release(&positions);
    }
    drop((reader, journal));

    let (_, saved) = Checkpoint::open(folder, "log").expect("opens");
    assert_eq!(saved, Some(Saved { positions: positions.clone(), state: b"state".to_vec() }));
    let (journal, mut reader) = open(folder, &positions);
    let last = rest(&mut reader);
    if case.budget.is_some() {
        // Writers take turns, so their records may come in another order than without a restart.
        seen.extend(last);
        let mut all = expected.payloads;
        [&mut all, &mut seen].into_iter().for_each(|payloads| payloads.sort());
        assert_eq!(seen, all, "each record once");
    } else {
        assert_eq!((last, journal.counters().torn), (vec![b"unread".to_vec()], 0));
    }
    reader.release(&reader.positions());
    assert!(reader.positions().is_empty(), "nothing stays behind");
    drop((reader, journal));
    let left = fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    assert_eq!(left.filter(|path| path.extension().is_some_and(|end| end == "journal")).count(), 0);
}

fn open(folder: &Path, consumed: &[Position]) -> (Journal, Reader) {
    let options = Options { segment_bytes: 128 << 10, max_bytes: 4 << 20, spares: 1, ..Options::new(folder) };
    let journal = Journal::open(options).expect("opens whatever the folder holds");
    let reader = journal.reader(0, consumed).expect("the first reader");
    (journal, reader)
}

/// All that is left to read.
fn rest(reader: &mut Reader) -> Vec<Vec<u8>> {
    let mut seen = Vec::new();
    reader.poll(usize::MAX, |payload| seen.push(payload.to_vec()));
    assert_eq!(reader.poll(usize::MAX, |_| ()), 0, "the end stays the end");
    seen
}
