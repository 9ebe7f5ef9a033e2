//! When a file is moved aside, and how long it is kept.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::log_file::folder;

const STAMP: &str = "%Y%m%dT%H%M%SZ";

/// When the access log is moved aside (`access.log` → `access-20261123T154600Z.log`), and which of
/// the moved files are deleted. Only files whose names have exactly this shape are ever deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// Moved aside once it is this long; none for never.
    pub bytes: Option<u64>,
    /// Moved aside once its first line is this old; none for never.
    pub age: Option<Duration>,
    /// Keep at most this many moved files.
    pub keep_files: Option<usize>,
    /// Delete moved files once they are this old.
    pub keep_age: Option<Duration>,
    /// Delete the oldest moved files until they take no more than this together.
    pub keep_bytes: Option<u64>,
}

impl Default for Rotation {
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Self {
            bytes: Some(256 << 20),
            age: Some(Duration::from_secs(DAY)),
            keep_files: None,
            keep_age: Some(Duration::from_secs(90 * DAY)),
            keep_bytes: Some(10 << 30),
        }
    }
}

impl Rotation {
    /// Nothing is moved and nothing deleted: for logrotate and its kind.
    #[must_use]
    pub fn off() -> Self {
        Self { bytes: None, age: None, keep_files: None, keep_age: None, keep_bytes: None }
    }

    pub(crate) fn is_due(&self, length: u64, began: SystemTime, now: SystemTime) -> bool {
        let age = now.duration_since(began).unwrap_or_default();
        length > 0
            && (self.bytes.is_some_and(|bytes| length >= bytes) || self.age.is_some_and(|most| age >= most))
    }

    /// Deletes moved files of the log `path` that need not be kept; gives how many.
    pub(crate) fn prune(&self, path: &Path, now: SystemTime) -> usize {
        let mut files: Vec<_> = moved_files(path);
        // Youngest first.
        files.sort_by_key(|(moved, _)| std::cmp::Reverse(*moved));
        let (mut deleted, mut bytes) = (0, 0u64);
        for (count, ((moved, _), file)) in files.into_iter().enumerate() {
            bytes = bytes.saturating_add(file.metadata().map_or(0, |metadata| metadata.len()));
            let age = now.duration_since(SystemTime::from(moved)).unwrap_or_default();
            let too_much = self.keep_files.is_some_and(|most| count >= most)
                || self.keep_age.is_some_and(|most| age > most)
                || self.keep_bytes.is_some_and(|most| bytes > most);
            if too_much {
                match std::fs::remove_file(&file) {
                    Ok(()) => deleted += 1,
                    Err(error) => {
                        tracing::warn!(file = %file.display(), %error, "an old access log cannot be deleted");
                    }
                }
            }
        }
        deleted
    }
}

/// A name for the file that is moved aside now, which nothing has yet.
pub(crate) fn moved_name(path: &Path, now: SystemTime) -> PathBuf {
    let stamp = Timestamp::try_from(now).unwrap_or_default().strftime(STAMP).to_string();
    let (stem, extension) = parts(path);
    let mut name = path.with_file_name(format!("{stem}-{stamp}{extension}"));
    for number in 1.. {
        if !name.exists() {
            break;
        }
        name = path.with_file_name(format!("{stem}-{stamp}-{number}{extension}"));
    }
    name
}

/// `access.log` → `access`, `.log`.
fn parts(path: &Path) -> (String, String) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let extension =
        path.extension().map_or(String::new(), |extension| format!(".{}", extension.to_string_lossy()));
    (stem, extension)
}

/// The moved files of a log, with the moment and number in their names.
fn moved_files(path: &Path) -> Vec<((Timestamp, u32), PathBuf)> {
    let (stem, extension) = parts(path);
    let Ok(entries) = std::fs::read_dir(folder(path)) else { return Vec::new() };
    let files = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let middle = name.strip_prefix(&stem)?.strip_prefix('-')?.strip_suffix(&extension)?;
        let (stamp, number) = match middle.split_once('-') {
            Some((stamp, number)) => (stamp, number.parse().ok()?),
            None => (middle, 0),
        };
        let moment = DateTime::strptime(STAMP, stamp).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
        // `strptime` is lenient about digits; the shape is not.
        (moment.strftime(STAMP).to_string() == stamp).then(|| ((moment, number), entry.path()))
    });
    files.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_448_760 + seconds)
    }

    #[test]
    fn a_name_tells_the_moment_and_is_never_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let first = moved_name(&path, at(0));
        assert_eq!(first.file_name().unwrap(), "access-20261123T154600Z.log");
        std::fs::write(&first, b"").unwrap();
        let second = moved_name(&path, at(0));
        assert_eq!(second.file_name().unwrap(), "access-20261123T154600Z-1.log");
        assert_eq!(moved_name(Path::new("日志"), at(0)), Path::new("日志-20261123T154600Z"));
    }

    #[test]
    fn files_leave_by_count_age_and_bytes_and_no_others() {
        let rule = Rotation::off();
        let by_count = Rotation { keep_files: Some(2), ..rule.clone() };
        let by_age = Rotation { keep_age: Some(Duration::from_secs(25)), ..rule.clone() };
        let by_bytes = Rotation { keep_bytes: Some(35), ..rule.clone() };
        for (rule, left) in [(rule, 5), (by_count, 2), (by_age, 2), (by_bytes, 3)] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("access.log");
            for age in 0..5 {
                std::fs::write(moved_name(&path, at(age * 10)), [b'x'; 10]).unwrap();
            }
            let others = [
                "access.log",
                "access-x.log",
                "access-20261123T154600Z.log.gz",
                "access-2026.log",
                "accessory-20261123T154600Z.log",
                "access-20261123T154600Z-a.log",
            ];
            for other in others {
                std::fs::write(folder.path().join(other), [b'x'; 10]).unwrap();
            }
            assert_eq!(rule.prune(&path, at(50 + 5)), 5 - left, "{rule:?}");
            assert!(others.iter().all(|other| folder.path().join(other).exists()));
            // The youngest stay.
            assert_eq!(
                moved_files(&path)
                    .iter()
                    .filter(|(moment, _)| SystemTime::from(moment.0) >= at(10 * (5 - left as u64)))
                    .count(),
                left
            );
        }
    }

    #[test]
    fn size_and_age_make_it_due_but_never_when_empty() {
        let rule = Rotation { bytes: Some(100), age: Some(Duration::from_secs(60)), ..Rotation::off() };
        assert!(!rule.is_due(0, at(0), at(1000)));
        assert!(!rule.is_due(99, at(0), at(59)));
        assert!(rule.is_due(100, at(0), at(0)));
        assert!(rule.is_due(1, at(0), at(60)));
        assert!(!Rotation::off().is_due(u64::MAX, at(0), at(u64::from(u32::MAX))));
    }
}
