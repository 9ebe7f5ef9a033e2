//! Following the configuration file, and holding what is under way against it.

use std::convert::Infallible;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aiproxy_admin::Control;
use aiproxy_admin::control::{File, enforce};
use aiproxy_config::model::System;
use aiproxy_config::{Loaded, Problems};
use aiproxy_gateway::Server;
use aiproxy_registry::Registry;
use aiproxy_telemetry::LevelHandle;
use aiproxy_telemetry::metrics::Metrics;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::certificates::Certificates;
use crate::wiring;

/// How often the file's metadata is looked at: one `stat`, which follows symbolic links, so that
/// editors that rename and mounted ConfigMaps are noticed without watching folders.
const LOOK: Duration = Duration::from_millis(50);
/// How often requests under way are held against expiry times.
const ENFORCE: Duration = Duration::from_millis(500);

/// Follows the file: a change is noticed at once, on SIGHUP, and at the latest after
/// `config_reload_interval`, when the file is read and compared whatever its metadata say.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    hangup: Signal,
    level: LevelHandle,
    stamp: Option<Stamp>,
    /// A change was seen that is not read yet: the writer may still be at it.
    settling: bool,
    content: Option<Vec<u8>>,
    read: Instant,
}

/// What a changed configuration is applied to.
#[derive(Debug, Clone)]
pub struct Running {
    /// What may be and what is.
    pub registry: Arc<Registry>,
    /// What is counted, by channel.
    pub metrics: Arc<Metrics>,
    /// The listeners.
    pub server: Arc<Server>,
    /// What the HTTPS listeners show.
    pub certificates: Arc<Certificates>,
    /// Who manages users and channels.
    pub control: Arc<Control>,
}

impl Running {
    /// Listens where the configuration says.
    fn listen(&self, system: &System) {
        // Without a certificate there is nothing to listen with.
        let https = if self.server.has_tls() { &system.https[..] } else { &[] };
        let mut quic = wiring::quic_listeners(system);
        if !self.server.has_tls() {
            quic.at.clear();
        }
        match self.server.relisten(&system.http, https, &quic) {
            Ok(opened) => opened.iter().for_each(|(address, kind)| wiring::listening(address, *kind)),
            Err(error) => tracing::error!(%error, "the listeners stay as they were"),
        }
    }

    fn look_at_certificates(&self, asked: bool) {
        if self.certificates.look(asked, &self.registry, &self.server) {
            self.listen(&self.registry.snapshot().system);
        }
    }
}

/// The file before it is loaded: what changes while it is, is noticed afterwards.
#[derive(Debug)]
pub struct Before {
    stamp: Option<Stamp>,
    content: Option<Vec<u8>>,
}

impl Before {
    /// Looks at the file.
    #[must_use]
    pub fn loading(path: &Path) -> Self {
        Self { stamp: std::fs::metadata(path).ok().map(Stamp::from), content: std::fs::read(path).ok() }
    }
}

/// What changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<Metadata> for Stamp {
    fn from(meta: Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

impl Follower {
    /// Follows a file that has just been loaded. From here on SIGHUP does not end the process.
    ///
    /// # Errors
    /// When the operating system refuses the signal.
    pub fn new(path: &Path, before: Before, level: LevelHandle) -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            path: path.to_owned(),
            level,
            stamp: before.stamp,
            settling: false,
            content: before.content,
            read: Instant::now(),
        })
    }

    /// Follows until dropped.
    pub async fn follow(mut self, relay: &Running) -> Infallible {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Who asks for a reload first follows it, however often the relay is followed.
        let (_kept, silent) = mpsc::channel(1);
        let mut asked = relay.control.reloads().unwrap_or(silent);
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    // First: what is said last is about the configuration.
                    relay.look_at_certificates(true);
                    let _ = self.reload(relay, true).await;
                }
                Some(tell) = asked.recv() => {
                    relay.look_at_certificates(true);
                    let _ = tell.send(self.reload(relay, true).await);
                }
                _ = look.tick() => {
                    relay.look_at_certificates(false);
                    let interval = relay.registry.snapshot().system.config_reload_interval;
                    if self.has_changed() || self.read.elapsed() >= interval {
                        let _ = self.reload(relay, false).await;
                    }
                }
            }
        }
    }

    /// Whether the file has changed and then stayed the same for one look.
    fn has_changed(&mut self) -> bool {
        let stamp = std::fs::metadata(&self.path).ok().map(Stamp::from);
        if stamp != self.stamp {
            self.stamp = stamp;
            self.settling = true;
            return false;
        }
        std::mem::take(&mut self.settling)
    }

    /// Reads the file, and applies it. Says what changed, or what is wrong.
    async fn reload(&mut self, relay: &Running, asked: bool) -> Result<String, String> {
        self.read = Instant::now();
        let path = self.path.clone();
        let before = self.content.take();
        // Reading and checking thousands of users takes a while: not on this thread.
        let task = tokio::task::spawn_blocking(move || read(&path, before, asked));
        let Ok((content, outcome)) = task.await else { return Err("reading broke off".to_owned()) };
        self.content = content;
        match outcome {
            Outcome::Same => Ok("no changes".to_owned()),
            Outcome::Unreadable(error) => {
                let file = self.path.display();
                tracing::error!(%file, %error, "the configuration cannot be read; the last good one stays");
                let report = format!("{file}: cannot be read: {error}");
                relay.registry.status.reload_refused(report.clone());
                Err(report)
            }
            Outcome::Invalid(problems) => {
                tracing::error!("the new configuration is invalid; the last good one stays\n{problems}");
                relay.registry.status.reload_refused(problems.to_string());
                Err(problems.to_string())
            }
            Outcome::Loaded(loaded) => Ok(self.apply(*loaded, relay).await),
        }
    }

    async fn apply(&self, loaded: Loaded, relay: &Running) -> String {
        let registry = &relay.registry;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let old = registry.snapshot();
        let system = loaded.snapshot.system.clone();
        let restart = System::needs_restart(&old.system, &system);
        if !restart.is_empty() {
            tracing::warn!(settings = restart.join(", "), "these settings take effect at the next start");
        }
        relay.certificates.apply(&system, registry, &relay.server);
        relay.listen(&system);
        if let Err(error) = self.level.set(&system.log_level) {
            tracing::warn!(%error, "the log level stays");
        }
        let (changes, cut) = relay.control.adopt(File::from(loaded)).await;
        registry.status.reload_applied();
        relay.metrics.refresh();
        tracing::info!(%changes, cut, "configuration reloaded");
        changes.to_string()
    }
}

enum Outcome {
    Same,
    Unreadable(io::Error),
    Invalid(Problems),
    Loaded(Box<Loaded>),
}

fn read(path: &Path, before: Option<Vec<u8>>, asked: bool) -> (Option<Vec<u8>>, Outcome) {
    let content = match std::fs::read(path) {
        Ok(content) => content,
        // There is no file, and there was none: the relay runs on its defaults.
        Err(error) if error.kind() == io::ErrorKind::NotFound && before.is_none() => {
            return (None, Outcome::Same);
        }
        Err(error) => return (before, Outcome::Unreadable(error)),
    };
    if !asked && before.as_ref() == Some(&content) {
        return (Some(content), Outcome::Same);
    }
    let outcome = match aiproxy_config::load_file(path) {
        Ok(loaded) => Outcome::Loaded(Box::new(loaded)),
        Err(problems) => Outcome::Invalid(problems),
    };
    (Some(content), outcome)
}

/// Cuts what has expired, as it expires. Never returns.
pub async fn watch_expiry(registry: Arc<Registry>) {
    let mut tick = interval(ENFORCE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let cut = enforce(&registry);
        if cut > 0 {
            tracing::info!(cut, "keys have expired");
        }
    }
}
