//! The command line over the admin API.
//!
//! Every command is one or a few requests to a relay that runs; nothing here touches its files.

mod access;
mod audit;
mod client;
mod documents;
mod live;
mod output;
mod secret;

use std::path::PathBuf;

use clap::Args;
use tokio::runtime::Builder;

pub(crate) use access::{AdminCommand, TokenCommand};
pub(crate) use audit::AuditArguments;
pub(crate) use documents::{ChannelCommand, GroupCommand, KeyCommand, UserCommand};
pub(crate) use live::{DenialCommand, ExplainArguments, SessionCommand};

use crate::cli::Failure;
use client::Client;

/// Which relay, and with which right.
#[derive(Debug, Clone, Args)]
pub(crate) struct Target {
    /// The relay's admin listener
    #[arg(
        long,
        value_name = "URL",
        env = "AIPROXY_ADMIN_URL",
        default_value = "http://127.0.0.1:8081",
        global = true
    )]
    url: String,
    /// File with an admin token; else AIPROXY_TOKEN, else what `aiproxy admin login` left
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// Speak plain HTTP to an address that is not this machine's: the token travels in the clear
    #[arg(long, global = true)]
    insecure: bool,
    /// The API's JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
}

/// A command of the control plane.
#[derive(Debug)]
pub(crate) enum Task {
    /// `aiproxy user`.
    User(UserCommand),
    /// `aiproxy group`.
    Group(GroupCommand),
    /// `aiproxy key`.
    Key(KeyCommand),
    /// `aiproxy channel`.
    Channel(ChannelCommand),
    /// `aiproxy session`.
    Session(SessionCommand),
    /// `aiproxy denial`.
    Denial(DenialCommand),
    /// `aiproxy audit`.
    Audit(AuditArguments),
    /// `aiproxy admin`.
    Admin(AdminCommand),
    /// `aiproxy token`.
    Token(TokenCommand),
    /// `aiproxy explain`.
    Explain(ExplainArguments),
    /// `aiproxy reload`.
    Reload,
    /// `aiproxy status`.
    Status,
}

/// Runs a command.
///
/// # Errors
/// [`Failure::Usage`] where it cannot be told what is meant, [`Failure::Runtime`] where the relay cannot be
/// reached or refuses.
pub(crate) fn run(task: &Task, target: &Target) -> Result<(), Failure> {
    let client = Client::new(target)?;
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        match task {
            Task::User(command) => command.run(&client).await,
            Task::Group(command) => command.run(&client).await,
            Task::Key(command) => command.run(&client).await,
            Task::Channel(command) => command.run(&client).await,
            Task::Session(command) => command.run(&client).await,
            Task::Denial(command) => command.run(&client).await,
            Task::Audit(arguments) => arguments.run(&client).await,
            Task::Admin(command) => command.run(&client).await,
            Task::Token(command) => command.run(&client).await,
            Task::Explain(arguments) => arguments.run(&client).await,
            Task::Reload => {
                let done = client.post("/reload", None).await?;
                client.show(&done, || done["report"].as_str().unwrap_or_default().to_owned())
            }
            Task::Status => {
                let status = client.get("/status").await?;
                client.show(&status, || output::fields(&status))
            }
        }
    })
}
