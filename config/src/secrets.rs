//! `${NAME}` and `file:PATH`, in secret fields only.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::complaint::{Complaint, shown};
use crate::source::Source;

/// Longest file that can hold a key.
const LONGEST: u64 = 64 * 1024;

/// Gives the values of environment variables.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The value of a secret field with what it refers to put in place. What is put in place is not
/// looked at again.
pub(crate) fn expand(text: &str, source: &Source, env: Env<'_>) -> Result<String, Complaint> {
    match text.strip_prefix("file:") {
        Some(path) => read(&variables(path.trim(), env)?, source),
        None => variables(text, env),
    }
}

/// Refuses a reference where none is expanded.
pub(crate) fn refuse(text: &str) -> Result<(), Complaint> {
    let found = if text.contains("${") {
        "`${…}`"
    } else if text.starts_with("file:") {
        "`file:`"
    } else {
        return Ok(());
    };
    Err(Complaint::new(
        format!("{found} is not expanded in this field"),
        "write the value itself; only `proxy_key`, `proxy_key_sha256`, `api_key`, `egress_proxy`, `private_key`, `client_secrets.keys` and the values of `headers.set` are read from the environment or a file",
    ))
}

fn variables(text: &str, env: Env<'_>) -> Result<String, Complaint> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let before = &rest[..at];
        let inside = &rest[at + 2..];
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = inside;
            continue;
        }
        out.push_str(before);
        let Some((name, after)) = inside.split_once('}') else {
            return Err(Complaint::new(
                "`${` is not closed",
                "write `${NAME}`, or `$${` for the characters themselves",
            ));
        };
        if !is_name(name) {
            return Err(Complaint::new(
                "`${…}` does not hold the name of an environment variable",
                "write `${NAME}` with letters, digits and `_`, or `$${` for the characters themselves",
            ));
        }
        let value = env(name).ok_or_else(|| {
            Complaint::new(
                format!("the environment variable {} is not set", shown(name)),
                "set it where AIProxy is started, or write `file:PATH`",
            )
        })?;
        if value.trim().is_empty() {
            return Err(Complaint::bare(format!("the environment variable {} is empty", shown(name))));
        }
        out.push_str(value.trim_end_matches(['\r', '\n']));
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn read(path: &str, source: &Source) -> Result<String, Complaint> {
    if path.is_empty() {
        return Err(Complaint::new("`file:` names no file", "write `file:PATH`"));
    }
    let path = source.resolve(path);
    let bytes = bounded(&path, LONGEST)?;
    let text = String::from_utf8(bytes).map_err(|_| {
        Complaint::bare(format!("the file {} does not hold text", shown(&path.display().to_string())))
    })?;
    let text = text.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']);
    if text.trim().is_empty() {
        return Err(Complaint::bare(format!("the file {} is empty", shown(&path.display().to_string()))));
    }
    Ok(text.to_owned())
}

/// Reads a file that is not larger than expected.
pub(crate) fn bounded(path: &Path, longest: u64) -> Result<Vec<u8>, Complaint> {
    let name = shown(&path.display().to_string());
    let failed = |error: std::io::Error| {
        Complaint::new(
            format!("cannot read the file {name}: {error}"),
            "relative paths start from the folder of the configuration",
        )
    };
    let mut bytes = Vec::new();
    // Opening a folder succeeds on some systems.
    if std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Err(Complaint::bare(format!("{name} is a folder, not a file")));
    }
    File::open(path).and_then(|file| file.take(longest + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > longest {
        return Err(Complaint::bare(format!("the file {name} is too large")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
