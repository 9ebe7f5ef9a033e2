//! The first administrator: somebody has to be able to sign in.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::{error, fmt, fs};

use aiproxy_core::Secret;
use aiproxy_core::ids::random_key;
use aiproxy_store::{Actor, Administrator, AuditEntry, Store};

use super::administrators::ONE_TIME_LENGTH;
use super::auth::password;
use super::caller::{now, now_ms};

/// The first administrator's name.
pub const NAME: &str = "admin";
/// The environment variable that holds the first administrator's password.
pub const ENVIRONMENT: &str = "AIPROXY_ADMIN_PASSWORD";
/// The one-time password's file in the data folder.
const FILE: &str = "first-admin-password";

/// What [`ensure`] found or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum First {
    /// There are administrators.
    Known,
    /// Made, with the password of the environment.
    FromEnvironment,
    /// Made; the one-time password was printed to the terminal.
    Printed,
    /// Made; the one-time password is in this file.
    Written(PathBuf),
}

/// Why nobody can sign in.
#[derive(Debug)]
pub enum FirstError {
    /// The password of the environment will not do; the text says why.
    Password(&'static str),
    /// The one-time password's file cannot be written.
    File(PathBuf, io::Error),
    /// The database.
    Store(aiproxy_store::Error),
    /// No memory or randomness.
    Hash,
}

impl fmt::Display for FirstError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password(why) => write!(f, "{ENVIRONMENT}: {why}"),
            Self::File(path, error) => {
                write!(
                    f,
                    "the first administrator's password cannot be written to {}: {error}",
                    path.display()
                )
            }
            Self::Store(error) => write!(f, "the first administrator cannot be made: {error}"),
            Self::Hash => f.write_str("the first administrator's password cannot be hashed"),
        }
    }
}

impl error::Error for FirstError {}

impl From<aiproxy_store::Error> for FirstError {
    fn from(error: aiproxy_store::Error) -> Self {
        Self::Store(error)
    }
}

/// Makes the administrator `admin` if there is none at all. Its password is the one given (what the
/// environment's [`ENVIRONMENT`] holds), else a one-time password: printed if standard error is a
/// terminal, else left in a file of mode 0600 in the data folder; never logged.
///
/// # Errors
/// When the given password will not do, or file or database cannot be written: then nobody was made.
pub async fn ensure(store: &Store, data_dir: &Path, given: Option<Secret>) -> Result<First, FirstError> {
    ensure_at(store, data_dir, given, io::stderr().is_terminal()).await
}

pub(crate) async fn ensure_at(
    store: &Store,
    data_dir: &Path,
    given: Option<Secret>,
    terminal: bool,
) -> Result<First, FirstError> {
    if !store.administrators().await?.is_empty() {
        return Ok(First::Known);
    }
    let given = given.filter(|given| !given.is_empty());
    if let Some(given) = &given {
        password::check(given, NAME).map_err(FirstError::Password)?;
    }
    let must_change = given.is_none();
    let password = given.unwrap_or_else(|| Secret::new(random_key("", ONE_TIME_LENGTH)));
    let hashed = password.clone();
    let hash = tokio::task::spawn_blocking(move || password::hash(&hashed)).await.ok().flatten();
    let password_hash = hash.ok_or(FirstError::Hash)?;
    let mut tx = store.write().await?;
    // Another process may have been faster.
    if !store.administrators().await?.is_empty() {
        return Ok(First::Known);
    }
    let (administrator, entry) = made(password_hash, must_change);
    tx.put_administrator(&administrator).await?;
    tx.audit(&entry).await?;
    let path = data_dir.join(FILE);
    let first = match (must_change, terminal) {
        (false, _) => First::FromEnvironment,
        (true, true) => First::Printed,
        (true, false) => {
            write(&path, &password).map_err(|error| FirstError::File(path.clone(), error))?;
            First::Written(path.clone())
        }
    };
    if let Err(error) = tx.commit().await {
        if matches!(first, First::Written(_)) {
            let _ = fs::remove_file(&path);
        }
        return Err(error.into());
    }
    tell(&first, &password);
    Ok(first)
}

fn made(password_hash: Secret, must_change: bool) -> (Administrator, AuditEntry) {
    let now = now();
    let administrator = Administrator {
        id: random_key("", 16),
        name: NAME.into(),
        display_name: String::new(),
        role: "administrator".into(),
        password_hash,
        status: "active".into(),
        must_change,
        created_at: now,
        updated_at: now,
        last_login_at: None,
        revision: 0,
    };
    let entry = AuditEntry {
        at: now_ms(),
        actor: Actor { kind: "system".into(), ..Actor::default() },
        action: "administrator.create".into(),
        object_kind: "administrator".into(),
        object_id: administrator.id.clone(),
        outcome: "ok".into(),
        after: Some(
            serde_json::json!({"name": NAME, "role": "administrator", "must_change_password": must_change}),
        ),
        ..AuditEntry::default()
    };
    (administrator, entry)
}

/// Nobody else can have opened the file before: what lies there is of a database that is gone.
fn write(path: &Path, password: &Secret) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{}", password.expose())?;
    file.sync_all()
}

/// The terminal is where it was asked for. Whoever called may log what was done; the log never has it.
fn tell(first: &First, password: &Secret) {
    if *first == First::Printed {
        let password = password.expose();
        let text = format!(
            "\nAdministrator: {NAME}\nOne-time password: {password}\nChange it at the first login.\n\n"
        );
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

/// Removes the one-time password's file: the password was changed.
pub(crate) fn forget(data_dir: &Path) {
    let path = data_dir.join(FILE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, file = %path.display(), "the file of the used one-time password cannot be removed");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    async fn store(folder: &Path) -> Store {
        Store::open(&folder.join("aiproxy.db")).await.unwrap()
    }

    #[tokio::test]
    async fn the_one_time_password_is_in_a_file_for_its_owner_alone_and_in_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        fs::write(folder.path().join(FILE), "of another database").unwrap();
        let First::Written(path) = ensure_at(&store, folder.path(), None, false).await.unwrap() else {
            panic!()
        };
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let password = Secret::new(fs::read_to_string(&path).unwrap().trim().to_owned());
        assert_eq!(password.expose().len(), 24);
        let admin = store.administrator_by_name("Admin").await.unwrap().unwrap();
        assert!(admin.must_change && admin.role == "administrator");
        let hasher = password::Hasher::default();
        assert!(hasher.verify(&password, Some(admin.password_hash)).await.unwrap());
        assert_eq!(ensure_at(&store, folder.path(), None, false).await.unwrap(), First::Known);
        forget(folder.path());
        assert!(!path.exists());
        forget(folder.path());
    }

    #[tokio::test]
    async fn the_environments_password_is_kept_as_it_is_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let short =
            ensure_at(&store, folder.path(), Some(Secret::new("short".into())), true).await.unwrap_err();
        assert!(short.to_string().starts_with("AIPROXY_ADMIN_PASSWORD: a password has 12"), "{short}");
        assert!(store.administrators().await.unwrap().is_empty());
        let given = Secret::new("correct horse battery".into());
        assert_eq!(
            ensure_at(&store, folder.path(), Some(given), true).await.unwrap(),
            First::FromEnvironment
        );
        assert!(!store.administrators().await.unwrap()[0].must_change);
        assert!(!folder.path().join(FILE).exists());
    }

    #[tokio::test]
    async fn without_a_place_for_the_password_nobody_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let missing = folder.path().join("missing");
        assert!(matches!(ensure_at(&store, &missing, None, false).await, Err(FirstError::File(..))));
        assert!(store.administrators().await.unwrap().is_empty());
    }
}
