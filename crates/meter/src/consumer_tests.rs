#![expect(clippy::disallowed_methods, reason = "tests wait for other threads")]

use std::fs;
use std::path::PathBuf;

use aiproxy_core::ports::UsageSink;
use aiproxy_journal::Options;

use super::*;
use crate::JournalSink;
use crate::testing::event;

struct Setup {
    folder: tempfile::TempDir,
    log: PathBuf,
    rotation: Rotation,
}

impl Setup {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("access.log");
        Self { folder, log, rotation: Rotation::off() }
    }

    fn start(&self) -> (Consumer, JournalSink) {
        self.try_start().unwrap()
    }

    fn try_start(&self) -> io::Result<(Consumer, JournalSink)> {
        let path = self.folder.path().join("journal");
        let options =
            Options { segment_bytes: 128 << 10, max_bytes: 16 << 20, spares: 8, ..Options::new(&path) };
        let journal = Arc::new(Journal::open(options)?);
        let target = Target::File(self.log.clone());
        let consumer = Consumer::start(Arc::clone(&journal), &path, &target, self.rotation.clone())?;
        Ok((consumer, JournalSink::new(journal)))
    }
}

fn endpoints(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.map(|line| line["endpoint"].as_str().unwrap().to_owned()).collect()
}

/// Waits for something that another thread does.
fn until(what: impl Fn() -> bool) {
    for _ in 0..2000 {
        if what() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("that never happened");
}

#[test]
fn records_become_lines_while_running_and_the_rest_at_close() {
    let setup = Setup::new();
    let (consumer, sink) = setup.start();
    sink.record(event("/one"));
    until(|| endpoints(&setup.log) == ["/one"]);
    sink.observe(&event("/two"));
    sink.record(event("/three"));
    consumer.close();
    assert_eq!(endpoints(&setup.log), ["/one", "/two", "/three"]);
    assert_eq!((consumer.lines(), consumer.skipped(), consumer.failures()), (3, 0, 0));
    sink.record(event("/late"));
    assert_eq!(consumer.journal.gaps(), 1);
}

#[test]
fn every_start_goes_on_where_the_last_one_ended() {
    let setup = Setup::new();
    let mut expected = Vec::new();
    for round in 0..5 {
        let (consumer, sink) = setup.start();
        for number in 0..1000 {
            let name = format!("/{round}/{number}");
            sink.record(event(&name));
            expected.push(name);
        }
        consumer.close();
        assert_eq!(endpoints(&setup.log), expected);
    }
}

#[test]
fn a_journal_has_one_consumer() {
    let setup = Setup::new();
    let (first, _sink) = setup.start();
    let (journal, folder) = (Arc::clone(&first.journal), setup.folder.path().join("journal"));
    assert!(Consumer::start(journal, &folder, &Target::Stdout, Rotation::off()).is_err());
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error_at_start() {
    let mut setup = Setup::new();
    setup.log = setup.folder.path().join("absent/access.log");
    assert!(setup.try_start().is_err());
}

#[test]
fn reopening_makes_a_new_file_once_the_old_one_was_moved() {
    let setup = Setup::new();
    let (consumer, sink) = setup.start();
    sink.record(event("/one"));
    until(|| endpoints(&setup.log).len() == 1);
    let moved = setup.folder.path().join("access.log.1");
    fs::rename(&setup.log, &moved).unwrap();
    sink.record(event("/two"));
    until(|| endpoints(&moved).len() == 2);
    consumer.reopen();
    until(|| setup.log.exists());
    sink.record(event("/three"));
    consumer.reopen();
    consumer.close();
    assert_eq!(
        (endpoints(&moved), endpoints(&setup.log)),
        (vec!["/one".into(), "/two".into()], vec!["/three".into()])
    );
}

#[test]
fn files_are_moved_aside_by_size_and_old_ones_deleted() {
    let mut setup = Setup::new();
    setup.rotation = Rotation { bytes: Some(20_000), keep_files: Some(3), ..Rotation::off() };
    let (consumer, sink) = setup.start();
    let mut written = 0;
    let moved = || {
        fs::read_dir(setup.folder.path())
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("access-"))
            .count()
    };
    for _ in 0..8 {
        for _ in 0..100 {
            sink.record(event(&format!("/{written}")));
            written += 1;
        }
        until(|| consumer.lines() == written);
    }
    consumer.close();
    assert_eq!(moved(), 3);
    assert_eq!(consumer.failures(), 0);
}

#[test]
fn a_target_that_fails_keeps_everything_in_the_journal() {
    let setup = Setup::new();
    let disk = setup.folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=160k", "tmpfs"])
        .arg(&disk)
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this user may not mount");
        return;
    }
    let setup = Setup { log: disk.join("access.log"), ..setup };
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        fs::write(disk.join("filling"), vec![0; 110_000]).unwrap();
        let (consumer, sink) = setup.start();
        let names: Vec<String> = (0..100).map(|number| format!("/{number}")).collect();
        names.iter().for_each(|name| sink.record(event(name)));
        until(|| consumer.failures() > 1);
        // A start with the disk still full.
        consumer.close();
        drop((consumer, sink));
        let (consumer, _sink) = setup.start();
        until(|| consumer.failures() > 0);
        fs::remove_file(disk.join("filling")).unwrap();
        consumer.close();
        assert_eq!(endpoints(&setup.log), names);
    }));
    let _ = std::process::Command::new("umount").arg("-l").arg(&disk).status();
    result.unwrap();
}

#[test]
fn records_of_other_versions_are_counted_and_skipped() {
    let setup = Setup::new();
    let (consumer, sink) = setup.start();
    consumer.journal.writer().append(&[99, 1, 2, 3]).unwrap();
    sink.record(event("/known"));
    consumer.close();
    assert_eq!((endpoints(&setup.log), consumer.skipped()), (vec!["/known".to_owned()], 1));
}
