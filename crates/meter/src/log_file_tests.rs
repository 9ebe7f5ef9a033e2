use super::*;

/// A log of two lines whose checkpoint knows the first; its folder, path and that checkpoint.
fn ahead() -> (tempfile::TempDir, PathBuf, FileState) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let mut log = LogFile::resume(&path, None).unwrap();
    log.write(b"one\n").1.unwrap();
    let state = log.settle().unwrap();
    log.write(b"two\n").1.unwrap();
    (folder, path, state)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn what_is_behind_the_checkpoint_is_cut() {
    let (_folder, path, state) = ahead();
    let mut log = LogFile::resume(&path, Some(&state)).unwrap();
    assert_eq!(read(&path), "one\n");
    log.write(b"2\n").1.unwrap();
    assert_eq!(read(&path), "one\n2\n");
    assert_eq!(log.length(), 6);
}

#[test]
fn a_copy_is_known_by_what_it_holds() {
    let (folder, path, state) = ahead();
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    fs::rename(&copy, &path).unwrap();
    LogFile::resume(&path, Some(&state)).unwrap();
    assert_eq!(read(&path), "one\n");
}

#[test]
fn a_file_that_was_moved_is_cut_where_it_is() {
    let (folder, path, state) = ahead();
    let moved = folder.path().join("access.log.1");
    fs::rename(&path, &moved).unwrap();
    let log = LogFile::resume(&path, Some(&state)).unwrap();
    assert_eq!((read(&moved).as_str(), log.length()), ("one\n", 0));
}

#[test]
fn a_file_that_was_moved_when_the_checkpoint_knew_it_empty_is_cut_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let mut log = LogFile::resume(&path, None).unwrap();
    let state = log.settle().unwrap();
    assert!(state.made.is_some(), "this file system does not know when files were made");
    log.write(b"one\n").1.unwrap();
    let moved = folder.path().join("access.log.1");
    fs::rename(&path, &moved).unwrap();
    LogFile::resume(&path, Some(&state)).unwrap();
    assert_eq!((read(&moved).as_str(), read(&path).as_str()), ("", ""));
    // One that only has the inode of the empty one is another.
    fs::write(&moved, "other").unwrap();
    let other = FileState { made: state.made.map(|made| made + 1), ..state };
    LogFile::resume(&path, Some(&other)).unwrap();
    assert_eq!(read(&moved), "other");
}

#[test]
fn another_file_is_never_cut() {
    let (_folder, path, state) = ahead();
    for other in ["uno\ntwo\n", "on", ""] {
        fs::write(&path, other).unwrap();
        let log = LogFile::resume(&path, Some(&state)).unwrap();
        assert_eq!((read(&path).as_str(), log.length()), (other, other.len() as u64));
    }
}

#[test]
fn the_path_of_the_configuration_may_change() {
    let (folder, path, state) = ahead();
    let new = folder.path().join("new.log");
    LogFile::resume(&new, Some(&state)).unwrap();
    assert_eq!((read(&path).as_str(), read(&new).as_str()), ("one\n", ""));
}

#[test]
fn reopening_is_for_files_that_were_moved() {
    let (folder, path, _) = ahead();
    let mut log = LogFile::resume(&path, None).unwrap();
    assert!(!log.reopen().unwrap());
    fs::rename(&path, folder.path().join("access.log.1")).unwrap();
    assert!(log.reopen().unwrap());
    log.write(b"three\n").1.unwrap();
    assert_eq!(read(&path), "three\n");
}

#[test]
fn a_file_cut_by_others_is_taken_as_it_is() {
    let (_folder, path, _) = ahead();
    let mut log = LogFile::resume(&path, None).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    log.write(b"three\n").1.unwrap();
    let state = log.settle().unwrap();
    assert_eq!(state.length, 6);
    log.write(b"four\n").1.unwrap();
    LogFile::resume(&path, Some(&state)).unwrap();
    assert_eq!(read(&path), "three\n");
}
