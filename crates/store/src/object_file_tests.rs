use super::*;

use proptest::prelude::*;
use tempfile::TempDir;

const LIMIT: usize = 1000;

fn record(id: &str, owner: &str) -> ObjectRecord {
    ObjectRecord {
        id: id.into(),
        kind: "file".into(),
        owner: owner.into(),
        channel: "openai".into(),
        created: 1_790_000_000,
    }
}

fn wait(future: PortFuture<'static, bool>) -> bool {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn made(file: &ObjectFile, id: &str, owner: &str) -> bool {
    wait(file.record(ObjectChange::Made(record(id, owner))))
}

fn gone(file: &ObjectFile, id: &str) -> bool {
    wait(file.record(ObjectChange::Gone(id.into())))
}

fn ids(loaded: &Loaded) -> Vec<String> {
    loaded.records.iter().map(|record| record.id.to_string()).collect()
}

fn start(folder: &TempDir) -> (ObjectFile, Loaded) {
    ObjectFile::start(folder.path(), LIMIT).unwrap()
}

#[test]
fn what_was_kept_is_there_again() {
    let folder = TempDir::new().unwrap();
    let (file, loaded) = start(&folder);
    assert!(loaded.records.is_empty());
    assert!(made(&file, "file-1", "a"));
    assert!(made(&file, "文件-2", "b"));
    assert!(made(&file, "file-3", "b"));
    assert!(gone(&file, "file-1"));
    // Nothing was closed: this is what a killed process leaves.
    let (again, loaded) = start(&folder);
    assert_eq!(loaded.records, [record("文件-2", "b"), record("file-3", "b")]);
    assert_eq!((loaded.lines, loaded.bad), (4, 0));
    drop((file, again));
}

#[test]
fn a_change_is_kept_by_a_process_that_is_killed_right_after() {
    const ROLE: &str = "AIPROXY_TEST_KILLED_IN";
    if let Some(folder) = std::env::var_os(ROLE) {
        let (file, _) = ObjectFile::start(Path::new(&folder), LIMIT).unwrap();
        assert!(made(&file, "file-1", "a"));
        std::process::abort();
    }
    let folder = TempDir::new().unwrap();
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "object_file::tests::a_change_is_kept_by_a_process_that_is_killed_right_after",
            "--nocapture",
        ])
        .env(ROLE, folder.path())
        .output()
        .unwrap()
        .status;
    assert!(!status.success());
    assert_eq!(ids(&start(&folder).1), ["file-1"]);
}

#[test]
fn a_file_torn_anywhere_gives_its_whole_lines_and_takes_more() {
    let folder = TempDir::new().unwrap();
    let (file, _) = start(&folder);
    for id in ["file-1", "file-2", "file-3"] {
        assert!(made(&file, id, "a"));
    }
    file.close();
    let path = folder.path().join(FILE_NAME);
    let whole = fs::read(&path).unwrap();
    for cut in 0..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let ends = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
        // A last line that lacks nothing but its end counts.
        let complete = ends + usize::from(whole.get(cut) == Some(&b'\n'));
        let (file, loaded) = start(&folder);
        assert_eq!(loaded.records.len(), complete, "cut at {cut}");
        assert!(made(&file, "file-new", "b"));
        file.close();
        let loaded = load::read(&path, LIMIT).unwrap();
        assert_eq!(loaded.records.len(), complete + 1, "cut at {cut}");
        assert_eq!(ids(&loaded).last().map(String::as_str), Some("file-new"));
    }
}

#[test]
fn bad_lines_are_skipped_and_counted() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(FILE_NAME);
    let long = format!(
        "{{\"id\":\"{}\",\"kind\":\"f\",\"owner\":\"a\",\"channel\":\"c\",\"at\":1}}",
        "x".repeat(10_000)
    );
    let text = [
        r#"{"id":"file-1","kind":"file","owner":"a","channel":"c","at":1}"#,
        "",
        "not json",
        r#"{"id":"file-2"}"#,
        r#"{"id":"file-1","owner":"a","channel":"c","gone":"file-1"}"#,
        r#"{"gone":7}"#,
        &long,
        "\u{0}\u{0}\u{0}",
        r#"{"id":"file-3","kind":"file","owner":"b","channel":"c","at":1,"later":"fields"}"#,
        r#"{"id":"file-4","kind":"file","owner":"b","channel":"c"}"#,
    ]
    .join("\n");
    fs::write(&path, [text.as_bytes(), b"\n\xff\xfe\n"].concat()).unwrap();
    let loaded = load::read(&path, LIMIT).unwrap();
    assert_eq!(ids(&loaded), ["file-1", "file-3", "file-4"]);
    assert_eq!((loaded.lines, loaded.bad), (10, 7));
}

#[test]
fn more_dead_lines_than_live_ones_are_dropped_at_the_start() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(FILE_NAME);
    let (file, _) = start(&folder);
    for n in 0..10 {
        assert!(made(&file, &format!("file-{n}"), "a"));
    }
    for n in 0..6 {
        assert!(gone(&file, &format!("file-{n}")));
    }
    file.close();
    drop(file);
    let lines = || fs::read_to_string(&path).unwrap().lines().count();
    assert_eq!(lines(), 16);
    let (file, loaded) = start(&folder);
    assert_eq!(loaded.records.len(), 4);
    assert_eq!(lines(), 4);
    assert!(made(&file, "file-x", "b"));
    file.close();
    assert_eq!(ids(&load::read(&path, LIMIT).unwrap()), ["file-6", "file-7", "file-8", "file-9", "file-x"]);
    assert!(!path.with_extension("jsonl.new").exists());
}

#[test]
fn an_unfinished_rewrite_is_of_no_consequence() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(FILE_NAME);
    let (file, _) = start(&folder);
    assert!(made(&file, "file-1", "a"));
    file.close();
    fs::write(path.with_extension("jsonl.new"), "half a li").unwrap();
    assert_eq!(ids(&start(&folder).1), ["file-1"]);
}

#[test]
fn a_file_that_grows_too_long_is_shortened_while_it_is_written() {
    let folder = TempDir::new().unwrap();
    let (file, _) = ObjectFile::start(folder.path(), 10).unwrap();
    for n in 0..3000 {
        assert!(made(&file, &format!("file-{n}"), "a"));
    }
    file.close();
    let path = folder.path().join(FILE_NAME);
    let lines = fs::read_to_string(&path).unwrap().lines().count();
    assert!(lines < 2000, "{lines}");
    let loaded = load::read(&path, 10).unwrap();
    assert_eq!(loaded.records.len(), 10);
    assert_eq!(&*loaded.records[9].id, "file-2999");
    assert_eq!(&*loaded.records[0].id, "file-2990");
}

#[test]
fn a_process_does_not_write_anew_what_another_still_appends_to() {
    let folder = TempDir::new().unwrap();
    let mut first = Writer::new(folder.path(), LIMIT);
    assert!(first.alone().unwrap());
    let mut second = Writer::new(folder.path(), LIMIT);
    assert!(!second.alone().unwrap());
    drop(first);
    assert!(second.alone().unwrap());
}

#[test]
fn a_replaced_file_is_written_where_it_is_now() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(FILE_NAME);
    let (file, _) = start(&folder);
    assert!(made(&file, "file-1", "a"));
    fs::rename(&path, folder.path().join("moved")).unwrap();
    assert!(made(&file, "file-2", "a"));
    assert_eq!(ids(&load::read(&path, LIMIT).unwrap()), ["file-2"]);
}

#[test]
fn a_folder_that_cannot_be_written_keeps_nobody_from_working_and_is_tried_again() {
    let place = TempDir::new().unwrap();
    let folder = place.path().join("data");
    fs::write(&folder, "a file stands where the folder should be").unwrap();
    let (file, loaded) = ObjectFile::start(&folder, LIMIT).unwrap();
    assert!(loaded.records.is_empty());
    assert!(!made(&file, "file-1", "a"));
    assert!(!made(&file, "file-2", "a"));
    assert!(file.failures() >= 2);
    fs::remove_file(&folder).unwrap();
    assert!(made(&file, "file-3", "a"));
    // What had to wait has been written as well.
    assert_eq!(ids(&load::read(&folder.join(FILE_NAME), LIMIT).unwrap()), ["file-1", "file-2", "file-3"]);
    assert_eq!(file.dropped(), 0);
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_keeps_nobody_from_working() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(FILE_NAME);
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    // Reading /dev/full never ends: this file is only written.
    let writer = Writer::new(folder.path(), LIMIT);
    let counts = Arc::clone(&writer.counts);
    let (queue, jobs) = sync_channel(QUEUE);
    let thread = std::thread::spawn(move || writer.run(&jobs));
    let file = ObjectFile { queue, counts, writer: Mutex::new(Some(thread)) };
    assert!(!made(&file, "file-1", "a"));
    assert!(file.failures() >= 1);
    fs::remove_file(&path).unwrap();
    assert!(made(&file, "file-2", "a"));
    assert_eq!(ids(&load::read(&path, LIMIT).unwrap()), ["file-1", "file-2"]);
}

#[test]
fn a_full_queue_drops_and_counts_and_never_blocks() {
    let (queue, jobs) = sync_channel(2);
    let file = ObjectFile { queue, counts: Arc::default(), writer: Mutex::new(None) };
    let first = file.record(ObjectChange::Gone("1".into()));
    let _second = file.record(ObjectChange::Gone("2".into()));
    assert!(!wait(file.record(ObjectChange::Gone("3".into()))));
    assert_eq!(file.dropped(), 1);
    drop(jobs);
    assert!(!wait(first));
}

#[test]
fn what_is_recorded_after_the_end_is_dropped() {
    let folder = TempDir::new().unwrap();
    let (file, _) = start(&folder);
    file.close();
    assert!(!made(&file, "file-1", "a"));
    assert_eq!(file.dropped(), 1);
}

#[test]
fn an_id_that_is_too_long_is_dropped_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let (file, _) = start(&folder);
    assert!(!made(&file, &"x".repeat(5000), "a"));
    assert!(made(&file, "file-1", "a"));
    assert_eq!(file.dropped(), 1);
    assert_eq!(ids(&load::read(&folder.path().join(FILE_NAME), LIMIT).unwrap()), ["file-1"]);
}

#[test]
fn the_newest_objects_are_kept() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(FILE_NAME);
    let (file, _) = start(&folder);
    for n in 0..20 {
        assert!(made(&file, &format!("file-{n}"), "a"));
    }
    assert!(made(&file, "file-0", "b"));
    file.close();
    for limit in 1..20 {
        let loaded = load::read(&path, limit).unwrap();
        assert_eq!(loaded.records.len(), limit);
        assert_eq!(&*loaded.records[limit - 1].id, "file-0");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(FILE_NAME);
        fs::write(&path, &bytes).unwrap();
        let loaded = load::read(&path, LIMIT).unwrap();
        prop_assert!(loaded.bad <= loaded.lines);
    }

    #[test]
    fn the_last_word_on_each_id_counts(changes in proptest::collection::vec((0u8..6, 0u8..3), 0..60)) {
        let mut bytes = Vec::new();
        let mut expected = std::collections::BTreeMap::new();
        for (id, owner) in &changes {
            let name = format!("file-{id}");
            if *owner == 0 {
                expected.remove(&name);
                line::append(&mut bytes, &ObjectChange::Gone(name.as_str().into()));
            } else {
                let record = record(&name, &owner.to_string());
                line::append(&mut bytes, &ObjectChange::Made(record.clone()));
                expected.insert(name, record);
            }
        }
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(FILE_NAME);
        fs::write(&path, &bytes).unwrap();
        let mut loaded = load::read(&path, LIMIT).unwrap().records;
        loaded.sort_by(|a, b| a.id.cmp(&b.id));
        prop_assert_eq!(loaded, expected.into_values().collect::<Vec<_>>());
    }
}
