//! The journal from outside: writers, readers, restarts, full disks.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests wait for other threads")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aiproxy_journal::{Allocate, Checkpoint, Dropped, Fallocate, Journal, Options, Reader};

const SEGMENT: u32 = 128 << 10;

fn options(folder: &Path) -> Options {
    Options { segment_bytes: SEGMENT, max_bytes: 64 << 20, spares: 8, ..Options::new(folder) }
}

fn journal(folder: &Path) -> Journal {
    Journal::open(options(folder)).unwrap()
}

/// Writer and number, with a filling that depends on both.
fn payload(writer: u64, number: u64) -> Vec<u8> {
    let mut bytes = writer.to_le_bytes().to_vec();
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.resize(16 + ((writer + number) % 300) as usize, number as u8);
    bytes
}

/// Appends, waiting where the journal has no segment ready.
fn append(writer: &mut aiproxy_journal::Writer, bytes: &[u8]) {
    while writer.append(bytes).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Reads until nothing is left; gives each writer's numbers in the order they came.
fn read_all(reader: &mut Reader, seen: &mut HashMap<u64, Vec<u64>>) {
    while reader.poll(1 << 20, |bytes| {
        let writer = u64::from_le_bytes(*bytes.first_chunk().unwrap());
        let number = u64::from_le_bytes(*bytes[8..].first_chunk().unwrap());
        assert_eq!(bytes, payload(writer, number));
        seen.entry(writer).or_default().push(number);
    }) > 0
    {}
}

fn segments(folder: &Path) -> usize {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "journal")).count()
}

#[test]
fn writers_are_read_while_they_write_each_in_order() {
    const RECORDS: u64 = 30_000;
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    let mut reader = journal.reader(0, &[]).unwrap();
    assert!(journal.reader(0, &[]).is_none() && journal.reader(1, &[]).is_none());
    let mut seen = HashMap::new();
    std::thread::scope(|scope| {
        for id in 0..4 {
            let mut writer = journal.writer();
            scope.spawn(move || (0..RECORDS).for_each(|number| append(&mut writer, &payload(id, number))));
        }
        while seen.values().map(Vec::len).sum::<usize>() < 4 * RECORDS as usize {
            read_all(&mut reader, &mut seen);
            let positions = reader.positions();
            reader.release(&positions);
        }
    });
    for id in 0..4 {
        assert!(seen[&id].iter().copied().eq(0..RECORDS), "writer {id}");
    }
    let counters = journal.counters();
    assert_eq!((counters.written, counters.refused, counters.torn), (4 * RECORDS, 0, 0));
    assert_eq!(counters.lag_bytes, 0);
    journal.close();
    read_all(&mut reader, &mut seen);
    reader.release(&reader.positions());
    assert_eq!(segments(folder.path()), 0, "nothing stays behind");
}

#[test]
fn what_was_not_consumed_is_read_by_the_next_process_and_only_that() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = HashMap::new();
    let mut number = 0;
    for _ in 0..10 {
        let journal = journal(folder.path());
        let (mut checkpoint, saved) = Checkpoint::open(folder.path(), "test").unwrap();
        let mut reader = journal.reader(0, &saved.unwrap_or_default().positions).unwrap();
        let mut writer = journal.writer();
        for step in 0..3000 {
            append(&mut writer, &payload(1, number));
            number += 1;
            if step % 700 == 0 {
                read_all(&mut reader, &mut seen);
                checkpoint.save(&reader.positions(), b"").unwrap();
                reader.release(&reader.positions());
            }
        }
        // The writer outlives the journal, as a thread that is killed does.
        journal.close();
        assert_eq!(writer.append(b"x"), Err(Dropped::Closed));
    }
    let journal = journal(folder.path());
    let saved = Checkpoint::open(folder.path(), "test").unwrap().1.unwrap();
    let mut reader = journal.reader(0, &saved.positions).unwrap();
    read_all(&mut reader, &mut seen);
    assert!(seen[&1].iter().copied().eq(0..number));
    reader.release(&reader.positions());
    assert!(reader.positions().is_empty(), "dead writers leave the checkpoint");
}

#[test]
fn a_second_reader_keeps_the_segments_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(Options { readers: 2, ..options(folder.path()) }).unwrap();
    let (mut fast, mut slow) = (journal.reader(0, &[]).unwrap(), journal.reader(1, &[]).unwrap());
    let mut writer = journal.writer();
    (0..5000).for_each(|number| append(&mut writer, &payload(0, number)));
    let (mut by_fast, mut by_slow) = (HashMap::new(), HashMap::new());
    read_all(&mut fast, &mut by_fast);
    fast.release(&fast.positions());
    assert!(journal.counters().lag_bytes > u64::from(SEGMENT));
    let before = segments(folder.path());
    read_all(&mut slow, &mut by_slow);
    slow.release(&slow.positions());
    assert!(segments(folder.path()) < before);
    assert_eq!(by_fast, by_slow);
    assert_eq!(journal.counters().lag_bytes, 0);
}

#[test]
fn a_thread_that_ends_leaves_its_segment_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    for number in 0..100 {
        append(&mut journal.writer(), &payload(0, number));
    }
    let mut seen = HashMap::new();
    read_all(&mut journal.reader(0, &[]).unwrap(), &mut seen);
    assert!(seen[&0].iter().copied().eq(0..100));
    assert!(segments(folder.path()) <= 9);
}

#[test]
fn records_of_impossible_length_are_refused_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    let mut writer = journal.writer();
    assert_eq!(writer.append(&[]), Err(Dropped::Length));
    assert_eq!(writer.append(&vec![1; (64 << 10) + 1]), Err(Dropped::Length));
    assert_eq!(writer.append(&vec![1; 64 << 10]), Ok(()));
    assert_eq!((journal.counters().refused, journal.gaps(), journal.counters().written), (2, 2, 1));
}

#[test]
fn one_process_at_a_time_and_no_sense_no_journal() {
    let folder = tempfile::tempdir().unwrap();
    let first = journal(folder.path());
    assert_eq!(Journal::open(options(folder.path())).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    drop(first);
    drop(journal(folder.path()));
    for wrong in [
        Options { segment_bytes: 1 << 16, ..options(folder.path()) },
        Options { max_bytes: u64::from(SEGMENT), ..options(folder.path()) },
        Options { readers: 0, ..options(folder.path()) },
        Options { max_record: 1 << 20, ..options(folder.path()) },
    ] {
        assert_eq!(Journal::open(wrong).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}

#[test]
fn a_folder_that_cannot_be_used_yet_costs_counted_records_and_heals() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    // What an earlier process left is not lost by it.
    let earlier = Journal::open(options(&path)).unwrap();
    append(&mut earlier.writer(), &payload(9, 0));
    drop(earlier);
    let aside = folder.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    fs::write(&path, b"").unwrap();

    let journal = Journal::open(options(&path)).unwrap();
    assert!(!journal.is_home() && journal.reader(0, &[]).is_none());
    let mut writer = journal.writer();
    assert!(writer.append(&payload(0, 0)).is_err());
    assert_eq!(journal.gaps(), 1);
    fs::remove_file(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    append(&mut writer, &payload(0, 1));
    let mut reader = journal.reader(0, &[]).unwrap();
    let mut seen = HashMap::new();
    read_all(&mut reader, &mut seen);
    assert_eq!((seen.remove(&9), seen.remove(&0)), (Some(vec![0]), Some(vec![1])));
}

/// A journal at its bound, or on a disk that fails as told.
#[derive(Debug, Default)]
struct Disk(AtomicBool);

impl Allocate for Disk {
    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Fallocate.allocate(file, bytes)
    }
}

#[test]
fn a_full_disk_costs_counted_records_and_heals() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::default());
    disk.0.store(true, Ordering::Relaxed);
    // Full from the start: no reason not to start.
    let journal =
        Journal::open(Options { allocate: Arc::clone(&disk) as _, ..options(folder.path()) }).unwrap();
    let mut reader = journal.reader(0, &[]).unwrap();
    let mut writer = journal.writer();
    let mut kept = Vec::new();
    let mut number = 0;
    for _ in 0..3 {
        let mut refused = 0;
        while refused < 100 {
            match writer.append(&payload(0, number)) {
                Ok(()) => kept.push(number),
                Err(why) => {
                    assert_eq!(why, Dropped::Full);
                    refused += 1;
                }
            }
            number += 1;
        }
        assert_eq!(journal.gaps() + kept.len() as u64, number);
        disk.0.store(false, Ordering::Relaxed);
        while writer.append(&payload(0, number)).is_err() {
            number += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
        kept.push(number);
        number += 1;
        disk.0.store(true, Ordering::Relaxed);
    }
    let mut seen = HashMap::new();
    read_all(&mut reader, &mut seen);
    assert_eq!(seen[&0], kept);
}

#[test]
fn the_bound_holds_and_consuming_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let bound = 6 * u64::from(SEGMENT);
    let journal = Journal::open(Options { max_bytes: bound, ..options(folder.path()) }).unwrap();
    let mut reader = journal.reader(0, &[]).unwrap();
    let mut writer = journal.writer();
    let mut gone = 0;
    for number in 0..20_000 {
        if writer.append(&payload(0, number)).is_err() {
            gone += 1;
        }
        if number % 100 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert!(gone > 0);
    assert_eq!(journal.gaps(), gone);
    assert!(journal.counters().disk_bytes <= bound);
    let on_disk: u64 =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(on_disk <= bound);
    let mut seen = HashMap::new();
    read_all(&mut reader, &mut seen);
    assert_eq!(seen[&0].len() as u64 + gone, 20_000);
    reader.release(&reader.positions());
    append(&mut writer, &payload(0, 20_000));
    read_all(&mut reader, &mut seen);
    assert_eq!(seen[&0].last(), Some(&20_000));
}

#[test]
fn a_folder_that_vanishes_comes_back() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("journal");
    let journal = Journal::open(Options { spares: 1, ..options(&folder) }).unwrap();
    let mut writer = journal.writer();
    append(&mut writer, &payload(0, 0));
    // A file in its place: nothing can be made there. The journal may make the folder again first.
    for round in 0.. {
        let _ = fs::rename(&folder, parent.path().join(format!("gone-{round}")));
        if fs::write(&folder, b"").is_ok() {
            break;
        }
    }
    while journal.gaps() == 0 {
        let _ = writer.append(&vec![1; 60_000]);
    }
    fs::remove_file(&folder).unwrap();
    // The first segment may still be one that was being made where the folder was.
    while !folder.is_dir() || segments(&folder) == 0 {
        let _ = writer.append(&vec![1; 60_000]);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_real_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mount = |arguments: &[&str]| {
        std::process::Command::new("mount")
            .args(arguments)
            .arg(folder.path())
            .output()
            .is_ok_and(|out| out.status.success())
    };
    if !mount(&["-t", "tmpfs", "-o", "size=2m", "tmpfs"]) {
        eprintln!("skipped: this user may not mount");
        return;
    }
    let result = std::panic::catch_unwind(|| full_tmpfs(folder.path()));
    let _ = std::process::Command::new("umount").arg("-l").arg(folder.path()).status();
    result.unwrap();
}

fn full_tmpfs(folder: &Path) {
    let journal = journal(folder);
    let (mut checkpoint, _) = Checkpoint::open(folder, "test").unwrap();
    let mut reader = journal.reader(0, &[]).unwrap();
    checkpoint.save(&reader.positions(), b"").unwrap();
    let mut writer = journal.writer();
    let (mut number, mut seen, mut kept) = (0, HashMap::new(), 0);
    for _ in 0..3 {
        let gaps = journal.gaps();
        while journal.gaps() < gaps + 1000 {
            kept += u64::from(writer.append(&payload(0, number)).is_ok());
            number += 1;
            if number % 100 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        // On the full disk the checkpoint can be written, and that makes room.
        read_all(&mut reader, &mut seen);
        checkpoint.save(&reader.positions(), b"").unwrap();
        reader.release(&reader.positions());
        append(&mut writer, &payload(0, number));
        kept += 1;
        number += 1;
    }
    read_all(&mut reader, &mut seen);
    assert_eq!(seen[&0].len() as u64, kept);
    assert!(seen[&0].is_sorted());
}

/// Copies checkpoint, then segments, as long as no other checkpoint was written meanwhile.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    loop {
        let _ = fs::remove_dir_all(to);
        fs::create_dir(to)?;
        let before = fs::read(from.join("test.checkpoint")).unwrap_or_default();
        if before.iter().all(|byte| *byte == 0) {
            continue;
        }
        let mut vanished = false;
        for entry in fs::read_dir(from)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "journal") {
                let copied = fs::copy(&path, to.join(path.file_name().unwrap()));
                vanished |= copied.is_err();
            }
        }
        if !vanished && before == fs::read(from.join("test.checkpoint")).unwrap_or_default() {
            return fs::write(to.join("test.checkpoint"), before);
        }
    }
}

#[test]
fn a_copy_made_at_any_moment_holds_what_was_published_before() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("live");
    let journal = journal(&folder);
    let published: [AtomicU64; 3] = Default::default();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (id, published) in published.iter().enumerate() {
            let (mut writer, stop) = (journal.writer(), &stop);
            scope.spawn(move || {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    append(&mut writer, &payload(id as u64, number));
                    number += 1;
                    published.store(number, Ordering::Release);
                    if number % 20 == 0 {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        }
        let mut reader = journal.reader(0, &[]).unwrap();
        let (mut checkpoint, _) = Checkpoint::open(&folder, "test").unwrap();
        let stop_reader = &stop;
        scope.spawn(move || {
            let mut next = [0u64; 3];
            while !stop_reader.load(Ordering::Relaxed) {
                reader.poll(2_000_000, |bytes| next[usize::from(bytes[0])] += 1);
                let state: Vec<u8> = next.iter().flat_map(|number| number.to_le_bytes()).collect();
                checkpoint.save(&reader.positions(), &state).unwrap();
                reader.release(&reader.positions());
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..20 {
                std::thread::sleep(Duration::from_millis(round * 7 % 31));
                let before = published.each_ref().map(|number| number.load(Ordering::Acquire));
                let copy = parent.path().join("copy");
                copy_folder(&folder, &copy).unwrap();
                check_copy(&copy, before);
            }
        }));
        stop.store(true, Ordering::Relaxed);
        checked.unwrap();
    });
}

/// What was consumed before the copy and what the copy gives follow each other without a gap, up
/// to what was published before. Behind that there may be gaps: files are not copied at one moment.
fn check_copy(copy: &Path, published: [u64; 3]) {
    let restarted = Journal::open(options(copy)).unwrap();
    let saved = Checkpoint::open(copy, "test").unwrap().1.unwrap_or_default();
    let mut seen = HashMap::new();
    read_all(&mut restarted.reader(0, &saved.positions).unwrap(), &mut seen);
    for (id, published) in published.into_iter().enumerate() {
        let consumed = saved.state[id * 8..].first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk));
        let numbers = seen.remove(&(id as u64)).unwrap_or_default();
        assert!(numbers.is_sorted_by(|one, next| one < next), "none twice, all in order");
        assert!(numbers.first().is_none_or(|first| *first >= consumed));
        let whole = numbers.iter().copied().take_while(|number| *number < published);
        assert!(whole.eq(consumed..published.max(consumed)));
    }
}
