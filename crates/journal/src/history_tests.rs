use std::time::Duration;

use crate::{Checkpoint, History, Journal, Options};

fn options(folder: &std::path::Path) -> Options {
    Options { segment_bytes: 128 << 10, max_bytes: 2 << 20, keep_bytes: 64 << 20, ..Options::new(folder) }
}

fn numbers(history: &mut History) -> Vec<u64> {
    let mut found = Vec::new();
    history.read(None, |record| found.push(u64::from_le_bytes(record[..8].try_into().unwrap()))).unwrap();
    found
}

fn append(journal: &Journal, numbers: std::ops::Range<u64>) {
    let mut writer = journal.writer();
    for number in numbers {
        let mut record = vec![7u8; 1000];
        record[..8].copy_from_slice(&number.to_le_bytes());
        while writer.append(&record).is_err() {
            std::thread::yield_now();
        }
    }
}

/// Reads all and makes a checkpoint, as a consumer does.
fn consume(journal: &Journal, folder: &std::path::Path) {
    let (mut checkpoint, saved) = Checkpoint::open(folder, "test").unwrap();
    let mut reader = journal.reader(0, &saved.unwrap_or_default().positions).unwrap();
    while reader.poll(1 << 20, |_| ()) > 0 {}
    let positions = reader.positions();
    checkpoint.save(&positions, &[]).unwrap();
    reader.release(&positions);
}

fn files(folder: &std::path::Path, extension: &str) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries.filter(|entry| entry.path().extension().is_some_and(|found| found == extension)).count()
}

#[test]
fn everything_is_read_once_while_it_is_written_consumed_and_after_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(options(folder.path())).unwrap();
    let mut history = History::open(folder.path()).unwrap();
    append(&journal, 0..300);
    assert_eq!(numbers(&mut history), (0..300).collect::<Vec<_>>());
    append(&journal, 300..310);
    assert_eq!(numbers(&mut history), (300..310).collect::<Vec<_>>());
    consume(&journal, folder.path());
    assert!(files(folder.path(), "done") >= 2);
    assert_eq!(numbers(&mut history), [0; 0]);
    append(&journal, 310..320);
    journal.close();
    drop(journal);
    assert_eq!(numbers(&mut history), (310..320).collect::<Vec<_>>());

    let journal = Journal::open(options(folder.path())).unwrap();
    consume(&journal, folder.path());
    let all = numbers(&mut History::open(folder.path()).unwrap());
    assert_eq!(all, (0..320).collect::<Vec<_>>());
    assert_eq!(history.torn(), 0);
    // What has been consumed is not read again, and takes no more room than it needs.
    let (_, saved) = Checkpoint::open(folder.path(), "test").unwrap();
    let journal = {
        drop(journal);
        Journal::open(options(folder.path())).unwrap()
    };
    let mut reader = journal.reader(0, &saved.unwrap().positions).unwrap();
    assert_eq!(reader.poll(1 << 20, |_| ()), 0);
    let kept = std::fs::read_dir(folder.path()).unwrap().flatten();
    let bytes: u64 = kept
        .filter(|entry| entry.path().extension().is_some_and(|found| found == "done"))
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert!((320_000..340_000).contains(&bytes), "{bytes}");
}

#[test]
fn what_a_checkpoint_knew_as_consumed_when_the_process_was_killed_is_kept_whole() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(options(folder.path())).unwrap();
    append(&journal, 0..300);
    journal.close();
    let (mut checkpoint, _) = Checkpoint::open(folder.path(), "test").unwrap();
    let mut reader = journal.reader(0, &[]).unwrap();
    while reader.poll(1 << 20, |_| ()) > 0 {}
    // Killed before it could let go of them.
    checkpoint.save(&reader.positions(), &[]).unwrap();
    drop((checkpoint, reader, journal));
    assert_eq!(files(folder.path(), "done"), 0);

    let journal = Journal::open(options(folder.path())).unwrap();
    consume(&journal, folder.path());
    assert!(files(folder.path(), "done") >= 2);
    assert_eq!(numbers(&mut History::open(folder.path()).unwrap()), (0..300).collect::<Vec<_>>());
}

#[test]
fn the_oldest_go_first_and_all_in_time() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..10 {
        let journal = Journal::open(options(folder.path())).unwrap();
        append(&journal, round * 200..round * 200 + 200);
        journal.close();
        consume(&journal, folder.path());
    }
    super::prune(folder.path(), 450_000, Duration::MAX).unwrap();
    let left = numbers(&mut History::open(folder.path()).unwrap());
    assert!((200..=450).contains(&left.len()) && left.last() == Some(&1999), "{}", left.len());
    assert!(left.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    super::prune(folder.path(), u64::MAX, Duration::ZERO).unwrap();
    assert_eq!(files(folder.path(), "done"), 0);
}

#[test]
fn a_folder_that_is_not_there_is_an_error_and_strange_files_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    assert!(History::open(&folder.path().join("nothing")).is_err());
    std::fs::write(folder.path().join("0-0.journal"), b"something else").unwrap();
    std::fs::write(folder.path().join("0-1.done"), vec![0; 4096]).unwrap();
    std::fs::write(folder.path().join("0-2.journal.bad"), b"x").unwrap();
    std::fs::write(folder.path().join("lock"), b"").unwrap();
    assert_eq!(numbers(&mut History::open(folder.path()).unwrap()), [0; 0]);
}
