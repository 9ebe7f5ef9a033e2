//! A first configuration.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

use aiproxy_core::KeyDigest;
use anyhow::Context as _;

use crate::cli::{Failure, new_key, say};

const TEMPLATE: &str = include_str!("init.yaml");

/// Writes `aiproxy.yaml` with a fresh Proxy-Key, of which the file holds only the digest.
///
/// # Errors
/// [`Failure::Usage`] when there is such a file already: it may hold keys that exist nowhere else.
pub fn run(dir: &Path) -> Result<(), Failure> {
    let key = new_key();
    let text = TEMPLATE.replace("{{sha256}}", &KeyDigest::of(key.as_bytes()).hex());
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    let path = dir.join("aiproxy.yaml");
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = match options.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Failure::Usage(format!(
                "{} exists already; it is left as it is. Give another folder, or move it away first.",
                path.display()
            )));
        }
        opened => opened.with_context(|| format!("cannot write {}", path.display()))?,
    };
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    let shown = path.display();
    say(&format!(
        "Wrote {shown}

Your Proxy-Key, shown this once (the file holds only its SHA-256):

  {key}

Next:
  export OPENAI_API_KEY=...        # the platform's key; the file refers to it
  aiproxy check {shown}
  aiproxy serve --config {shown}
  curl http://127.0.0.1:8080/v1/models -H 'Authorization: Bearer {key}'"
    ))
}
