//! The key that an installation makes for itself.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use aiproxy_core::Secret;
use aiproxy_core::ids::random_key;

use crate::keyring::SHORTEST_KEY;

/// The file's name in the data folder.
pub const FILE_NAME: &str = "client-secrets.key";

/// Longest file that can hold one.
const LONGEST: u64 = 4096;

/// The key in this folder, which is made if there is none. It appears there in one step and whole: of
/// two processes that begin at once, both have the same.
///
/// # Errors
/// When the file is there but cannot be read or holds no key, or cannot be made.
pub fn load_or_create(folder: &Path) -> io::Result<Secret> {
    let path = folder.join(FILE_NAME);
    match read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    fs::create_dir_all(folder)?;
    let fresh = folder.join(random_key(&format!(".{FILE_NAME}."), 12));
    let made = write(&fresh).and_then(|()| fs::hard_link(&fresh, &path));
    let _ = fs::remove_file(&fresh);
    match made {
        // Somebody else was faster.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // The name has to last too.
    File::open(folder)?.sync_all()?;
    read(&path)
}

/// Whether others than its owner may read the file.
#[must_use]
pub fn is_exposed(folder: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        fs::metadata(folder.join(FILE_NAME)).is_ok_and(|meta| meta.mode() & 0o077 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        false
    }
}

fn read(path: &Path) -> io::Result<Secret> {
    let broken =
        |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the file holds no key: {why}"));
    if fs::metadata(path)?.len() > LONGEST {
        return Err(broken("it is too long"));
    }
    let text = Secret::new(fs::read_to_string(path)?);
    let key = text.expose().trim();
    if key.len() < SHORTEST_KEY {
        return Err(broken("it is too short"));
    }
    Ok(Secret::new(key.to_owned()))
}

fn write(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.write(true).create_new(true).open(path)?;
    // 43 characters of base 62 are 256 bits.
    let text = Secret::new(random_key("csk_", 43));
    file.write_all(text.expose().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn it_is_made_once_and_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data");
        let first = load_or_create(&folder).unwrap();
        assert_eq!(load_or_create(&folder).unwrap().expose(), first.expose());
        assert!(first.expose().len() >= SHORTEST_KEY);
        assert_eq!(names(&folder), [FILE_NAME], "nothing else is left there");
        assert!(!is_exposed(&folder));
        let other = tempfile::tempdir().unwrap();
        assert_ne!(load_or_create(other.path()).unwrap().expose(), first.expose());
    }

    #[test]
    fn all_who_begin_at_once_have_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let folder = dir.path().to_owned();
                std::thread::spawn(move || load_or_create(&folder).unwrap().expose().to_owned())
            })
            .collect();
        let keys: Vec<String> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(names(dir.path()), [FILE_NAME]);
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_key_is_not_replaced() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        for text in ["", "short\n", &"x".repeat(5000)] {
            fs::write(&path, text).unwrap();
            assert_eq!(load_or_create(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
            assert_eq!(fs::read_to_string(&path).unwrap(), *text);
        }
        fs::write(&path, format!(" {}\r\n", "k".repeat(SHORTEST_KEY))).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(load_or_create(dir.path()).unwrap().expose(), "k".repeat(SHORTEST_KEY));
        assert!(is_exposed(dir.path()));
    }
}
