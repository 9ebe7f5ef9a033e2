//! The database's schema.

use std::path::PathBuf;

use aiproxy_admin::control::DATABASE;
use aiproxy_store::Store;
use clap::{Args, Subcommand};
use tokio::runtime::Builder;

use crate::cli::{Failure, say};
use crate::serve;

/// `aiproxy migrate`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The relay's configuration file, which says where the database is
    #[arg(short, long, value_name = "FILE", env = "AIPROXY_CONFIG", global = true)]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say which steps of the schema the database has; changes nothing
    Status,
    /// Bring the database up to date, as the relay does when it starts
    Up,
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Usage`] for a bad configuration, [`Failure::Runtime`] when the database cannot be used or is
/// of a later version.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (_, loaded, _) = serve::load(arguments.config.clone())?;
    let database = loaded.snapshot.system.data_dir.join(DATABASE);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let steps = runtime.block_on(async {
        if matches!(arguments.command, Command::Up) {
            Store::open(&database).await?.close().await;
        }
        Store::migrations(&database).await
    })?;
    let mut lines = vec![database.display().to_string()];
    lines.extend(steps.iter().map(|step| {
        let mark = if step.applied { "applied" } else { "pending" };
        format!("{:>4}  {mark}  {}", step.version, step.description)
    }));
    say(&lines.join("\n"))
}
