//! Arguments and exit codes: 0 done, 1 failed while running, 2 bad configuration or usage.

use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use aiproxy_config::Problem;
use aiproxy_config::model::Certificates;
use aiproxy_core::KeyDigest;
use aiproxy_core::ids::random_key;
use aiproxy_gateway::tls::Loader;
use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::control::{self, Task};
use crate::{demo, init, migrate, sandbox, serve, transfer, usage};

/// Characters of a Proxy-Key behind its prefix: 238 bits.
const KEY_LENGTH: usize = 40;

/// A relay between your people and realtime AI platforms: callers hold a Proxy-Key, the
/// platforms' API keys stay inside.
#[derive(Debug, Parser)]
#[command(name = "aiproxy", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the relay
    Serve {
        /// Configuration file; without one, aiproxy.yaml if there is one, else defaults
        #[arg(short, long, value_name = "FILE", env = "AIPROXY_CONFIG")]
        config: Option<PathBuf>,
    },
    /// Check a configuration file and report every problem with its place
    Check {
        /// Configuration file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print the JSON Schema of the configuration file, for editors
    Schema {
        /// Print the reference page (Markdown) instead
        #[arg(long)]
        reference: bool,
    },
    /// Write a commented first configuration with a fresh Proxy-Key, which is shown once
    Init {
        /// Folder for aiproxy.yaml
        #[arg(value_name = "DIR", default_value = ".")]
        dir: PathBuf,
    },
    /// Users, by a relay's admin API
    User {
        #[command(subcommand)]
        command: control::UserCommand,
        #[command(flatten)]
        target: control::Target,
    },
    /// Groups of users, by a relay's admin API
    Group {
        #[command(subcommand)]
        command: control::GroupCommand,
        #[command(flatten)]
        target: control::Target,
    },
    /// Proxy-Keys
    Key {
        #[command(subcommand)]
        command: control::KeyCommand,
        #[command(flatten)]
        target: control::Target,
    },
    /// Channels, by a relay's admin API
    Channel {
        #[command(subcommand)]
        command: control::ChannelCommand,
        #[command(flatten)]
        target: control::Target,
    },
    /// What is under way, by a relay's admin API
    Session {
        #[command(subcommand)]
        command: control::SessionCommand,
        #[command(flatten)]
        target: control::Target,
    },
    /// Who is refused whatever file or database say, by a relay's admin API
    Denial {
        #[command(subcommand)]
        command: control::DenialCommand,
        #[command(flatten)]
        target: control::Target,
    },
    /// Who administered what, by a relay's admin API
    Audit {
        #[command(flatten)]
        arguments: control::AuditArguments,
        #[command(flatten)]
        target: control::Target,
    },
    /// Administrators, and signing in
    Admin {
        #[command(subcommand)]
        command: control::AdminCommand,
        #[command(flatten)]
        target: control::Target,
    },
    /// Admin tokens for programs
    Token {
        #[command(subcommand)]
        command: control::TokenCommand,
        #[command(flatten)]
        target: control::Target,
    },
    /// Why a call is, or would be, allowed or refused
    Explain {
        #[command(flatten)]
        arguments: control::ExplainArguments,
        #[command(flatten)]
        target: control::Target,
    },
    /// Have a relay read its configuration file again
    Reload {
        #[command(flatten)]
        target: control::Target,
    },
    /// How a relay is doing
    Status {
        #[command(flatten)]
        target: control::Target,
    },
    /// Move users, groups and channels from a file into the database
    Import(transfer::Import),
    /// Write users, groups and channels as a file
    Export(transfer::Export),
    /// Look at the database's schema, or bring it up to date
    Migrate(migrate::Arguments),
    /// Show who used what, from the usage journal
    Usage {
        #[command(subcommand)]
        command: Box<usage::Command>,
    },
    /// Run the relay in front of a sandbox platform, to try it without any account
    Demo(demo::Arguments),
    /// Run the sandbox platform alone, to point a channel at without any account
    Sandbox(sandbox::Arguments),
    /// Print shell completions
    Completions {
        /// Shell to complete for
        shell: Shell,
    },
}

/// Why a command failed; decides the exit code.
#[derive(Debug)]
pub enum Failure {
    /// The configuration or the usage is wrong: exit code 2. The text is printed as it is.
    Usage(String),
    /// Something failed while running: exit code 1.
    Runtime(anyhow::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) => f.write_str(text),
            Self::Runtime(error) => write!(f, "aiproxy: {error:#}"),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Runtime(error.into())
    }
}

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "{failure}");
            ExitCode::from(match failure {
                Failure::Usage(_) => 2,
                Failure::Runtime(_) => 1,
            })
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve { config } => serve::run(config),
        Command::Check { file } => check(&file),
        Command::Schema { reference: false } => say(aiproxy_config::schema()),
        Command::Schema { reference: true } => say(&aiproxy_config::reference()),
        Command::Init { dir } => init::run(&dir),
        Command::Key { command: control::KeyCommand::New, .. } => print_new_key(),
        Command::User { command, target } => control::run(&Task::User(command), &target),
        Command::Group { command, target } => control::run(&Task::Group(command), &target),
        Command::Key { command, target } => control::run(&Task::Key(command), &target),
        Command::Channel { command, target } => control::run(&Task::Channel(command), &target),
        Command::Session { command, target } => control::run(&Task::Session(command), &target),
        Command::Denial { command, target } => control::run(&Task::Denial(command), &target),
        Command::Audit { arguments, target } => control::run(&Task::Audit(arguments), &target),
        Command::Admin { command, target } => control::run(&Task::Admin(command), &target),
        Command::Token { command, target } => control::run(&Task::Token(command), &target),
        Command::Explain { arguments, target } => control::run(&Task::Explain(arguments), &target),
        Command::Reload { target } => control::run(&Task::Reload, &target),
        Command::Status { target } => control::run(&Task::Status, &target),
        Command::Import(arguments) => transfer::import(&arguments),
        Command::Export(arguments) => transfer::export(&arguments),
        Command::Migrate(arguments) => migrate::run(&arguments),
        Command::Usage { command } => usage::run(&command),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Sandbox(arguments) => sandbox::run(&arguments),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "aiproxy", &mut script);
            say(&String::from_utf8_lossy(&script))
        }
    }
}

/// Prints a fresh Proxy-Key and its digest.
///
/// # Errors
/// When standard output cannot be written.
pub fn print_new_key() -> Result<(), Failure> {
    let key = new_key();
    let digest = KeyDigest::of(key.as_bytes()).hex();
    say(&format!("proxy_key: {key}\nproxy_key_sha256: {digest}"))
}

/// A fresh Proxy-Key.
#[must_use]
pub fn new_key() -> String {
    random_key("pk_", KEY_LENGTH)
}

/// Prints to standard output. A reader that has gone away (`aiproxy schema | head`) is no failure.
///
/// # Errors
/// When standard output cannot be written.
pub fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints what is probably not as meant.
pub fn warn(warnings: &[Problem]) {
    for warning in warnings {
        let _ = writeln!(io::stderr(), "{warning}");
    }
}

fn check(file: &std::path::Path) -> Result<(), Failure> {
    let loaded = aiproxy_config::load_file(file).map_err(|problems| Failure::Usage(problems.to_string()))?;
    warn(&loaded.warnings);
    let system = &loaded.snapshot.system;
    // Where nothing is made for the purpose, the certificates are looked at as well.
    if let Some(tls) = system.tls.as_ref().filter(|tls| tls.certificates != Certificates::SelfSigned) {
        let checked = Loader::new()?.load(tls, &system.data_dir);
        checked.map_err(|error| Failure::Usage(format!("{}: system.tls: {error}", file.display())))?;
    }
    let (users, channels) = (loaded.users, loaded.snapshot.channels.len());
    say(&format!("{}: ok ({users} users, {channels} channels)", file.display()))
}
