//! The file of used client secrets.
//!
//! One line each, `expires id`, appended when a secret for one session begins one. Lines of secrets
//! that have expired are dropped by writing the file anew: at the start, and when it has grown. The
//! kernel has a line before the session begins; a power loss can take the last ones.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use aiproxy_core::ports::UsedSecrets;

use crate::object_file::{COMPLAIN, private};

/// The file's name in the data folder.
pub const USED_FILE_NAME: &str = "used-client-secrets";

/// Lines after which the file is looked through.
const LINES: usize = 64 * 1024;
/// What is longer is no id of ours.
const LONGEST: usize = 128;
/// What is longer is no file of ours.
const LONGEST_FILE: u64 = 64 << 20;

/// The file of used client secrets.
#[derive(Debug)]
pub struct UsedFile {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: Option<File>,
    lines: usize,
    /// When it is looked through.
    shorten: usize,
    complained: Option<Instant>,
}

impl UsedFile {
    /// Reads the file in this folder: the ids that have not expired at `now`, and when they do. A folder
    /// that cannot be read or written is logged and tried again: it keeps nobody from working.
    #[must_use]
    pub fn start(folder: &Path, now: i64) -> (Self, Vec<(String, i64)>) {
        let path = folder.join(USED_FILE_NAME);
        let mut inner = Inner { path, file: None, lines: 0, shorten: LINES, complained: None };
        let used = inner.shorten(now);
        (Self { inner: Mutex::new(inner) }, used)
    }
}

impl UsedSecrets for UsedFile {
    fn keep(&self, id: &str, expires: i64) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = inner.append(id, expires) {
            inner.file = None;
            inner.complain(
                &error,
                "a used client secret cannot be noted: after a restart it could be used again",
            );
        }
        if inner.lines >= inner.shorten {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            inner.shorten(i64::try_from(now).unwrap_or(i64::MAX));
        }
    }
}

impl Inner {
    fn append(&mut self, id: &str, expires: i64) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                if let Some(folder) = self.path.parent() {
                    fs::create_dir_all(folder)?;
                }
                self.file.insert(private().append(true).create(true).open(&self.path)?)
            }
        };
        // A torn line before it must not swallow this one.
        let before = if self.lines == 0 { "\n" } else { "" };
        file.write_all(format!("{before}{expires} {id}\n").as_bytes())?;
        self.lines += 1;
        Ok(())
    }

    /// Writes the file anew without what has expired; what is left.
    fn shorten(&mut self, now: i64) -> Vec<(String, i64)> {
        let used = match read(&self.path, now) {
            Ok(used) => used,
            Err(error) => {
                self.complain(&error, "the file of used client secrets cannot be read");
                Vec::new()
            }
        };
        if let Err(error) = self.rewrite(&used) {
            self.complain(&error, "the file of used client secrets cannot be written anew");
        }
        self.lines = used.len();
        self.shorten = LINES.max(2 * used.len());
        used
    }

    fn rewrite(&mut self, used: &[(String, i64)]) -> io::Result<()> {
        if !self.path.try_exists()? {
            return Ok(());
        }
        let fresh = self.path.with_extension("new");
        let text: String = used.iter().map(|(id, expires)| format!("{expires} {id}\n")).collect();
        let mut file = private().write(true).create(true).truncate(true).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        self.file = None;
        Ok(())
    }

    fn complain(&mut self, error: &io::Error, what: &str) {
        if self.complained.is_none_or(|last| last.elapsed() >= COMPLAIN) {
            self.complained = Some(Instant::now());
            tracing::error!(path = %self.path.display(), %error, "{what}");
        }
    }
}

/// The lines that have not expired; others than ours are passed over.
fn read(path: &Path, now: i64) -> io::Result<Vec<(String, i64)>> {
    let bytes = match fs::metadata(path) {
        Ok(meta) if meta.len() <= LONGEST_FILE => fs::read(path)?,
        Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too long")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let line = |line: &[u8]| {
        let (expires, id) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        let ours = !id.is_empty() && id.len() <= LONGEST && id.bytes().all(|byte| byte.is_ascii_graphic());
        let expires: i64 = expires.parse().ok()?;
        (ours && expires > now).then(|| (id.to_owned(), expires))
    };
    Ok(bytes.split(|byte| *byte == b'\n').filter_map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: i64 = 4_000_000_000;

    #[test]
    fn what_was_noted_is_there_after_a_restart_until_it_expires() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data");
        let (file, used) = UsedFile::start(&folder, 100);
        assert!(used.is_empty());
        file.keep("cs_a", 200);
        file.keep("cs_b", FAR);
        // A process that was killed in the middle of a line.
        fs::OpenOptions::new()
            .append(true)
            .open(folder.join(USED_FILE_NAME))
            .unwrap()
            .write_all(b"4000000000 c")
            .unwrap();
        let (file, used) = UsedFile::start(&folder, 150);
        assert_eq!(used, [("cs_a".into(), 200), ("cs_b".into(), FAR), ("c".into(), FAR)]);
        file.keep("cs_d", FAR);
        let (_, used) = UsedFile::start(&folder, 250);
        assert_eq!(used, [("cs_b".into(), FAR), ("c".into(), FAR), ("cs_d".into(), FAR)]);
        assert!(!fs::read_to_string(folder.join(USED_FILE_NAME)).unwrap().contains("cs_a"));
    }

    #[test]
    fn lines_that_are_not_ours_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let long = format!("{FAR} {}", "x".repeat(LONGEST + 1));
        let text = [b"\xff\xfe\n\nx y\n5\n".as_slice(), long.as_bytes(), b"\n4000000000 cs_a\n"].concat();
        fs::write(dir.path().join(USED_FILE_NAME), text).unwrap();
        assert_eq!(UsedFile::start(dir.path(), 0).1, [("cs_a".into(), FAR)]);
    }

    #[test]
    fn the_file_does_not_grow_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let (file, _) = UsedFile::start(dir.path(), 0);
        for index in 0..LINES + 10 {
            // All of them have expired.
            file.keep(&format!("cs_{index}"), 100);
        }
        assert!(fs::metadata(dir.path().join(USED_FILE_NAME)).unwrap().len() < 1000);
        file.keep("cs_last", FAR);
        assert_eq!(UsedFile::start(dir.path(), 0).1.len(), 1 + 10);
    }

    #[test]
    fn a_folder_that_cannot_be_written_keeps_nobody_from_working() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let (file, used) = UsedFile::start(&dir.path().join("file"), 0);
        assert!(used.is_empty());
        file.keep("cs_a", FAR);
    }
}
