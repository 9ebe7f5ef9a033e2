//! Following the configuration file.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aiproxy_registry::Registry;
use aiproxy_telemetry::LevelHandle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

/// Looks at the file on the configured interval and on SIGHUP. A valid change becomes the current
/// snapshot; an invalid one changes nothing and says so in the log.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    level: LevelHandle,
    seen: Option<Vec<u8>>,
}

impl Follower {
    /// Follows a file that has just been loaded.
    #[must_use]
    pub fn new(path: &Path, level: LevelHandle) -> Self {
        Self { path: path.to_owned(), level, seen: std::fs::read(path).ok() }
    }

    /// Never returns, unless SIGHUP cannot be watched.
    ///
    /// # Errors
    /// When the operating system refuses the signal.
    pub async fn follow(mut self, registry: &Registry) -> io::Result<Infallible> {
        let mut hangup = signal(SignalKind::hangup())?;
        loop {
            let interval = registry.snapshot().system.config_reload_interval.max(Duration::from_secs(1));
            tokio::select! {
                _ = hangup.recv() => self.look(registry, true),
                () = sleep(interval) => self.look(registry, false),
            }
        }
    }

    fn look(&mut self, registry: &Registry, asked: bool) {
        let content = match std::fs::read(&self.path) {
            Ok(content) => content,
            Err(error) => {
                tracing::error!(file = %self.path.display(), %error, "the configuration cannot be read; the last good one stays");
                return;
            }
        };
        if !asked && self.seen.as_ref() == Some(&content) {
            return;
        }
        self.seen = Some(content);
        match aiproxy_config::load_file(&self.path) {
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    tracing::warn!("{warning}");
                }
                if let Err(error) = self.level.set(&loaded.snapshot.system.log_level) {
                    tracing::warn!(%error, "the log level stays");
                }
                let (users, channels) = (loaded.snapshot.users.len(), loaded.snapshot.channels.len());
                if loaded.snapshot.system.http != registry.snapshot().system.http {
                    tracing::warn!("system.listen has changed: restart to use the new addresses");
                }
                registry.replace(loaded.snapshot);
                tracing::info!(users, channels, "configuration reloaded");
            }
            Err(problems) => {
                tracing::error!("the new configuration is invalid; the last good one stays\n{problems}");
            }
        }
    }
}
