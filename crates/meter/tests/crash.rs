//! Crashes: `kill -9`, and copies of what is on disk at any moment.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests wait for other processes")]

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aiproxy_core::ports::UsageSink;
use aiproxy_core::{Outcome, UsageEvent};
use aiproxy_journal::{Journal, Options};
use aiproxy_meter::{Consumer, JournalSink, Rotation, Target};

const THREADS: u64 = 3;
/// Names the folder for the process that is going to be killed.
const CHILD: &str = "AIPROXY_CRASH_TEST_FOLDER";

fn event(round: u64, thread: u64, number: u64) -> UsageEvent {
    UsageEvent {
        endpoint: format!("/{round}/{thread}/{number}").into(),
        status: 200,
        outcome: Outcome::Complete,
        ..UsageEvent::begin(http::Method::GET, IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

fn start(folder: &Path, rotation: Rotation) -> (Arc<Journal>, Consumer) {
    let path = folder.join("journal");
    let options = Options { segment_bytes: 128 << 10, max_bytes: 64 << 20, spares: 8, ..Options::new(&path) };
    let journal = Arc::new(Journal::open(options).unwrap());
    let target = Target::File(folder.join("access.log"));
    let consumer = Consumer::start(Arc::clone(&journal), &path, &target, rotation).unwrap();
    (journal, consumer)
}

fn small_files() -> Rotation {
    Rotation { bytes: Some(200_000), ..Rotation::off() }
}

/// How often each endpoint is in the log's files; every line is whole.
fn lines(folder: &Path) -> HashMap<String, u32> {
    let mut counts = HashMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_file() {
            for line in fs::read_to_string(entry.path()).unwrap().lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                *counts.entry(line["endpoint"].as_str().unwrap().to_owned()).or_default() += 1;
            }
        }
    }
    counts
}

/// Not a test by itself: what [`a_process_that_is_killed_loses_and_repeats_nothing`] kills.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let round = std::env::var("ROUND").unwrap().parse().unwrap();
    let (journal, consumer) = start(&folder, small_files());
    let sink = JournalSink::new(Arc::clone(&journal));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (sink, journal, consumer) = (&sink, &journal, &consumer);
            scope.spawn(move || {
                for number in 0.. {
                    let gaps = journal.gaps();
                    let event = event(round, thread, number);
                    let name = event.endpoint.clone();
                    sink.record(event);
                    // One that was dropped is counted, and not promised.
                    if journal.gaps() == gaps {
                        let _ = writeln!(io::stdout(), "\n{name}!");
                    }
                    if number % 20 == 0 {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    if number % 500 == 499 {
                        consumer.reopen();
                    }
                }
            });
        }
    });
}

#[test]
fn a_process_that_is_killed_loses_and_repeats_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut promised: Vec<String> = Vec::new();
    for round in 0..20u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, folder.path())
            .env("ROUND", round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut printed = output.lines().map_while(Result::ok).filter(|line| line.starts_with('/'));
        promised.push(printed.next().unwrap());
        let reading = std::thread::spawn(move || printed.collect::<Vec<_>>());
        // Some are killed at once, some after checkpoints and rotations.
        std::thread::sleep(Duration::from_millis(round * 97 % 1500));
        if round % 3 == 2 {
            // As logrotate does, and the process is killed before it hears of it, or after.
            let _ = fs::rename(
                folder.path().join("access.log"),
                folder.path().join(format!("access.log.{round}")),
            );
            std::thread::sleep(Duration::from_millis(round * 31 % 200));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        promised.extend(reading.join().unwrap());
    }
    let (_journal, consumer) = start(folder.path(), small_files());
    consumer.close();
    let counts = lines(folder.path());
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).take(5).collect();
    assert!(twice.is_empty(), "{twice:?}");
    // The last line of a process may have been cut by the kill.
    let promised: Vec<_> = promised.iter().filter_map(|line| line.strip_suffix('!')).collect();
    let lost: Vec<_> = promised.iter().filter(|name| !counts.contains_key(**name)).take(5).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert!(promised.len() > 1000, "{}", promised.len());
    let left = fs::read_dir(folder.path().join("journal")).unwrap().flatten();
    let segments =
        left.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "journal"));
    assert_eq!(segments.count(), 0, "all is consumed and deleted");
}

/// Copies a folder's journal while the checkpoint stays the same, then the log: so the log is as
/// old as the checkpoint, or younger.
fn copy(from: &Path, to: &Path) {
    let checkpoint = from.join("journal/access-log.checkpoint");
    loop {
        let _ = fs::remove_dir_all(to);
        fs::create_dir_all(to.join("journal")).unwrap();
        let before = fs::read(&checkpoint).unwrap();
        let whole = fs::read_dir(from.join("journal"))
            .unwrap()
            .flatten()
            .all(|entry| fs::copy(entry.path(), to.join("journal").join(entry.file_name())).is_ok());
        fs::copy(from.join("access.log"), to.join("access.log")).unwrap();
        if whole && before == fs::read(&checkpoint).unwrap() {
            fs::write(to.join("journal/access-log.checkpoint"), before).unwrap();
            return;
        }
    }
}

#[test]
fn a_copy_of_journal_and_log_resumes_with_every_record_once() {
    let parent = tempfile::tempdir().unwrap();
    let live = parent.path().join("live");
    fs::create_dir(&live).unwrap();
    let (journal, consumer) = start(&live, Rotation::off());
    let sink = JournalSink::new(Arc::clone(&journal));
    let published: [AtomicU64; THREADS as usize] = Default::default();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (thread, published) in (0..).zip(&published) {
            let (sink, stop) = (&sink, &stop);
            scope.spawn(move || {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    sink.record(event(0, thread, number));
                    published.store(number + 1, Ordering::Release);
                    if number % 5 == 0 {
                        std::thread::sleep(Duration::from_millis(3));
                    }
                }
            });
        }
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // The first checkpoint that names a log with lines in it: an empty file is known by
            // its inode, which a copy does not have.
            std::thread::sleep(Duration::from_millis(1500));
            for round in 0..15 {
                std::thread::sleep(Duration::from_millis(round * 53 % 400));
                let before = published.each_ref().map(|number| number.load(Ordering::Acquire));
                let to = parent.path().join("copy");
                copy(&live, &to);
                assert_eq!(journal.gaps(), 0);
                let (_journal, consumer) = start(&to, Rotation::off());
                consumer.close();
                let counts = lines(&to);
                assert!(counts.values().all(|count| *count == 1), "round {round}: none twice");
                for (thread, least) in before.into_iter().enumerate() {
                    let lost =
                        (0..least).find(|number| !counts.contains_key(&format!("/0/{thread}/{number}")));
                    assert_eq!(lost, None, "round {round}, thread {thread}");
                }
            }
        }));
        stop.store(true, Ordering::Relaxed);
        checked.unwrap();
    });
    assert_eq!(journal.gaps(), 0);
    consumer.close();
}
