//! Users, groups and channels from a file into the database, and out of it again.
//!
//! Both speak to the database itself, not to the relay: they work while it is stopped, and a relay that
//! runs notices within a second.

use std::collections::{HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aiproxy_admin::control::DATABASE;
use aiproxy_config::Catalog;
use aiproxy_config::entity::{self, Document};
use aiproxy_core::{EntityKind, Record};
use aiproxy_store::{Actor, AuditEntry, Put, Store};
use anyhow::{Context as _, anyhow};
use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use tokio::runtime::Builder;

use crate::cli::{Failure, say};
use crate::serve;

/// `aiproxy import`.
#[derive(Debug, Args)]
pub struct Import {
    /// File with users, groups and channels
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The relay's configuration file, which says where the database is; FILE itself unless given
    #[arg(short, long, value_name = "FILE", env = "AIPROXY_CONFIG")]
    config: Option<PathBuf>,
    /// Delete what the database holds and FILE does not
    #[arg(long)]
    replace: bool,
    /// Keep what the database holds and FILE does not; what both hold becomes as FILE says
    #[arg(long, conflicts_with = "replace")]
    merge: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// `aiproxy export`.
#[derive(Debug, Args)]
pub struct Export {
    /// The relay's configuration file, which says where the database is
    #[arg(short, long, value_name = "FILE", env = "AIPROXY_CONFIG")]
    config: Option<PathBuf>,
    /// Write the channels' keys as well; without them the file cannot be imported
    #[arg(long)]
    with_secrets: bool,
    /// File to write, readable by its owner alone; standard output unless given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Moves a file's users, groups and channels into the database, then out of the file.
///
/// # Errors
/// [`Failure::Usage`] for a bad file or a database that holds other things, [`Failure::Runtime`] for
/// everything else. The database has all of the file then, or nothing of it.
pub fn import(arguments: &Import) -> Result<(), Failure> {
    let loaded = aiproxy_config::load_file(&arguments.file)
        .map_err(|problems| Failure::Usage(problems.to_string()))?;
    if !loaded.manages {
        return Err(Failure::Usage(format!(
            "{} has no users, groups or channels: there is nothing to import",
            arguments.file.display()
        )));
    }
    let config = arguments.config.clone().unwrap_or_else(|| arguments.file.clone());
    let same = same_file(&config, &arguments.file);
    let settings = match same {
        true => &loaded,
        false => &serve::load(Some(config.clone()))?.1,
    };
    let database = settings.snapshot.system.data_dir.join(DATABASE);
    let (_, _, faults) =
        Catalog::load(loaded.documents.iter().map(|it| (it.kind, it.id.as_str(), &it.fields)));
    if !faults.is_empty() {
        let list: Vec<String> = faults.iter().map(ToString::to_string).collect();
        return Err(Failure::Usage(format!("{}:\n{}", arguments.file.display(), list.join("\n"))));
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(store(arguments, &loaded.documents, &database))?;
    if arguments.dry_run {
        return say(&format!("{done}; nothing was written"));
    }
    let mut lines = vec![done];
    if same {
        let backup = retire(&arguments.file)?;
        lines.push(format!(
            "{} no longer has users, groups and channels; as it was, it is kept as {}",
            arguments.file.display(),
            backup.display()
        ));
    } else if settings.manages {
        lines.push(format!(
            "{} still has users or channels of its own, which win over the database: take them out",
            config.display()
        ));
    }
    say(&lines.join("\n"))
}

/// Writes all documents in one transaction. Says what was done.
async fn store(arguments: &Import, documents: &[Document], database: &Path) -> Result<String, Failure> {
    let store = Store::open(database).await?;
    let outcome = write(&store, arguments, documents, database).await;
    store.close().await;
    outcome
}

async fn write(
    store: &Store,
    arguments: &Import,
    documents: &[Document],
    database: &Path,
) -> Result<String, Failure> {
    let mut tx = store.write().await?;
    let (_, records) = store.all().await?;
    let count = |kind: EntityKind| documents.iter().filter(|document| document.kind == kind).count();
    let what = format!(
        "{} users, {} keys, {} groups and {} channels",
        count(EntityKind::User),
        count(EntityKind::Key),
        count(EntityKind::Group),
        count(EntityKind::Channel)
    );
    if holds(&records, documents) {
        return Ok(format!("{} already holds these {what}", database.display()));
    }
    if !records.is_empty() && !arguments.replace && !arguments.merge {
        return Err(Failure::Usage(format!(
            "{} holds {} documents already: --replace puts the file in their place, --merge adds the file to them",
            database.display(),
            records.len()
        )));
    }
    if arguments.dry_run {
        return Ok(format!("{what} would go into {}", database.display()));
    }
    if arguments.merge {
        check_merged(&records, documents)?;
    } else {
        tx.clear().await?;
    }
    let puts: Vec<Put> = documents
        .iter()
        .map(|it| Put { kind: it.kind, id: it.id.clone(), fields: it.fields.clone() })
        .collect();
    tx.put_all(&puts).await?;
    let counts = json!({
        "users": count(EntityKind::User), "keys": count(EntityKind::Key),
        "groups": count(EntityKind::Group), "channels": count(EntityKind::Channel),
        "file": arguments.file.display().to_string(), "replace": arguments.replace, "merge": arguments.merge,
    });
    tx.audit(&AuditEntry { detail: Some(counts), ..entry("import") }).await?;
    tx.commit().await?;
    Ok(format!("{what} are in {}", database.display()))
}

/// Whether the database holds the same, but for the order.
fn holds(records: &[Record], documents: &[Document]) -> bool {
    let by_place: HashMap<_, _> =
        records.iter().map(|record| ((record.kind, record.id.as_str()), &record.fields)).collect();
    records.len() == documents.len()
        && documents
            .iter()
            .all(|document| by_place.get(&(document.kind, document.id.as_str())) == Some(&&document.fields))
}

/// Whether old and new go together.
fn check_merged(records: &[Record], documents: &[Document]) -> Result<(), Failure> {
    let places: HashSet<_> = documents.iter().map(|it| (it.kind, it.id.as_str())).collect();
    let replaced = |record: &&Record| !places.contains(&(record.kind, record.id.as_str()));
    let old = records.iter().filter(replaced).map(|it| (it.kind, it.id.as_str(), &it.fields));
    let new = documents.iter().map(|it| (it.kind, it.id.as_str(), &it.fields));
    let (_, _, faults) = Catalog::load(old.chain(new));
    if faults.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = faults.iter().map(ToString::to_string).collect();
    Err(Failure::Usage(format!("file and database do not go together:\n{}", list.join("\n"))))
}

/// An audit record of what the command line did.
fn entry(action: &str) -> AuditEntry {
    let name = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_default();
    AuditEntry {
        at: Timestamp::now().as_millisecond(),
        actor: Actor { kind: "cli".to_owned(), id: String::new(), name },
        action: action.to_owned(),
        outcome: "ok".to_owned(),
        ..AuditEntry::default()
    }
}

/// Takes users, groups and channels out of a file, which is kept under another name. Says under which.
fn retire(file: &Path) -> Result<PathBuf, Failure> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let rest = aiproxy_config::without_documents(&text)
        .ok_or_else(|| anyhow!("{} cannot be read as YAML", file.display()))?;
    let mode = fs::metadata(file)?.permissions().mode() & 0o777;
    let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let mut backup = file.as_os_str().to_owned();
    backup.push(format!(".{stamp}.bak"));
    let backup = PathBuf::from(backup);
    put(&backup, &text, 0o600).with_context(|| format!("cannot write {}", backup.display()))?;
    let mut fresh = file.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    put(&fresh, &rest, mode).with_context(|| format!("cannot write {}", fresh.display()))?;
    // A symbolic link stays one.
    let target = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    fs::rename(&fresh, &target).with_context(|| format!("cannot replace {}", target.display()))?;
    Ok(backup)
}

fn put(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Writes what the relay manages as a file.
///
/// # Errors
/// [`Failure::Usage`] for a bad configuration, [`Failure::Runtime`] when the database cannot be read or
/// the file not be written.
pub fn export(arguments: &Export) -> Result<(), Failure> {
    let (_, loaded, _) = serve::load(arguments.config.clone())?;
    let documents = match loaded.manages {
        true => loaded.documents,
        false => of_database(&loaded.snapshot.system.data_dir)?,
    };
    let text = entity::yaml(&documents, arguments.with_secrets).map_err(|error| anyhow!(error))?;
    match &arguments.output {
        None => say(&text),
        Some(path) => {
            put(path, &text, 0o600).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(())
        }
    }
}

/// The documents of the database in a data folder.
///
/// # Errors
/// [`Failure::Usage`] where there is none, [`Failure::Runtime`] where it cannot be read.
pub fn of_database(data_dir: &Path) -> Result<Vec<Document>, Failure> {
    let database = data_dir.join(DATABASE);
    if !database.exists() {
        return Err(Failure::Usage(format!(
            "there is no database {}: --config names the relay's configuration file",
            database.display()
        )));
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (_, records) = runtime.block_on(async {
        let store = Store::open(&database).await?;
        let records = store.all().await;
        store.close().await;
        Ok::<_, anyhow::Error>(records?)
    })?;
    Ok(records.into_iter().map(|Record { kind, id, fields, .. }| Document { kind, id, fields }).collect())
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (fs::canonicalize(a), fs::canonicalize(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}
