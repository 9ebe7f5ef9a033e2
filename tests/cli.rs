//! The command line.

mod check;
mod commands;
mod demo;

use std::path::Path;
use std::process::Command;

use aiproxy_testkit::{BOUND, Finished, run};

use crate::BINARY;

/// The program with an empty environment, in this folder.
fn aiproxy(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.env_clear().current_dir(dir).args(arguments);
    command
}

/// Runs it to its end.
async fn finished(command: Command) -> Finished {
    let finished = run(command, BOUND).await;
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
    finished
}
