//! Snapshot → registry, sink, gateway.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aiproxy_config::model::{AccessLog as AccessLogTarget, LogFormat, Snapshot};
use aiproxy_core::UsageEvent;
use aiproxy_core::ports::UsageSink;
use aiproxy_gateway::{Options, Server};
use aiproxy_meter::{AccessLog, Target};
use aiproxy_registry::Registry;
use aiproxy_telemetry::{Format, LevelHandle};
use anyhow::Context as _;

use crate::signals::Ending;

/// How long requests in flight may go on after a signal.
const DRAIN: Duration = Duration::from_secs(30);

/// A relay at work.
#[derive(Debug)]
pub struct Relay {
    /// What may be and what is.
    pub registry: Arc<Registry>,
    /// The listeners and their threads.
    pub server: Server,
    access_log: Option<Arc<AccessLog>>,
}

/// Drops every event.
struct Nowhere;

impl UsageSink for Nowhere {
    fn record(&self, _: UsageEvent) {}
}

/// Starts the process log as the configuration says.
///
/// # Errors
/// When the log level cannot be parsed.
pub fn start_log(snapshot: &Snapshot) -> anyhow::Result<LevelHandle> {
    let format = match snapshot.system.log.format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    Ok(aiproxy_telemetry::init(&snapshot.system.log_level, format)?)
}

/// Starts the relay that a snapshot describes.
///
/// # Errors
/// When the access log cannot be opened or a listener not bound.
pub fn start(snapshot: Snapshot) -> anyhow::Result<Relay> {
    // A second call in one process finds the provider installed: nothing to do.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let access_log = match &snapshot.system.log.access {
        AccessLogTarget::Stdout => Some(open(&Target::Stdout)?),
        AccessLogTarget::File(path) => Some(open(&Target::File(path.clone()))?),
        AccessLogTarget::Off => None,
    };
    let sink: Arc<dyn UsageSink> = match &access_log {
        Some(log) => Arc::clone(log) as Arc<dyn UsageSink>,
        None => Arc::new(Nowhere),
    };
    let (http, workers) = (snapshot.system.http.clone(), snapshot.system.workers);
    let registry = Arc::new(Registry::new(snapshot));
    let server =
        Server::start(&Options { registry: Arc::clone(&registry), sink, http, workers, drain: DRAIN })?;
    for address in server.http() {
        tracing::info!(%address, "listening on http://{address}");
    }
    Ok(Relay { registry, server, access_log })
}

impl Relay {
    /// Waits for requests in flight, then writes the last lines of the access log. A second
    /// signal ends the process at once.
    ///
    /// # Errors
    /// When the thread that waits cannot be started.
    pub async fn shutdown(self, ending: &mut Ending) -> io::Result<()> {
        let (done, finished) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name("shutdown".into()).spawn(move || {
            self.server.shutdown();
            if let Some(log) = &self.access_log {
                log.close();
            }
            let _ = done.send(());
        })?;
        tokio::select! {
            _ = finished => tracing::info!("stopped"),
            name = ending.next() => tracing::warn!("{name} again: stopping at once"),
        }
        Ok(())
    }
}

fn open(target: &Target) -> anyhow::Result<Arc<AccessLog>> {
    let log = AccessLog::open(target).with_context(|| match target {
        Target::Stdout => "cannot write the access log to standard output".to_owned(),
        Target::File(path) => format!("cannot open the access log {}", path.display()),
    })?;
    Ok(Arc::new(log))
}
