//! Keys and passwords, which never stand on the command line.

use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use aiproxy_core::Secret;
use anyhow::Context as _;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::cli::Failure;

/// A secret from a file (`-` is standard input), else from the environment, else typed without an echo.
pub(super) fn read(file: Option<&Path>, variable: &str, prompt: &str) -> Result<Secret, Failure> {
    let text = match file {
        Some(path) if path == Path::new("-") => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            text
        }
        Some(path) => fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => match std::env::var(variable) {
            Ok(text) => text,
            Err(_) if io::stdin().is_terminal() => typed(prompt)?,
            Err(_) => {
                return Err(Failure::Usage(format!(
                    "{prompt}: give it in a file (`-` is standard input), or in {variable}; never on the command line, where others see it"
                )));
            }
        },
    };
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(Failure::Usage(format!("{prompt}: it is empty")));
    }
    Ok(Secret::new(text.to_owned()))
}

fn typed(prompt: &str) -> anyhow::Result<String> {
    let mut out = io::stderr();
    write!(out, "{prompt}: ")?;
    out.flush()?;
    let stdin = io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &silent)?;
    let mut text = String::new();
    let read = stdin.lock().read_line(&mut text);
    tcsetattr(&stdin, OptionalActions::Flush, &before)?;
    writeln!(out)?;
    read?;
    Ok(text)
}
