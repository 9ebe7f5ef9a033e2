//! The process log and the metrics.
//!
//! Owns: set-up of `tracing`: where lines go, their shape, their level, and changing the level
//! while running; counters of what passes, and the page that shows them.
//! Never does: the access log (that is `meter`), serving the metrics (that is `admin`), a label
//! per user or key, or printing of keys: those are types that cannot print.
//!
//! - [`metrics`]: what is counted, and the page that Prometheus reads

pub mod metrics;

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

/// Shape of the lines on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people; coloured on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// Changes the level of the running process log.
#[derive(Debug, Clone)]
pub struct LevelHandle(reload::Handle<EnvFilter, Registry>);

/// A level directive that `tracing` does not understand.
#[derive(Debug)]
pub struct BadLevel(String);

impl std::fmt::Display for BadLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "log level not understood: {}", self.0)
    }
}

impl std::error::Error for BadLevel {}

impl LevelHandle {
    /// Sets the level (`info`, or directives such as `info,aiproxy_gateway=debug`).
    ///
    /// # Errors
    /// When the directive cannot be parsed; the old level stays.
    pub fn set(&self, level: &str) -> Result<(), BadLevel> {
        let filter = parse(level)?;
        self.0.reload(filter).map_err(|error| BadLevel(error.to_string()))
    }
}

/// Starts the process log on standard error. `RUST_LOG`, where set, wins over `level`. A second
/// call in one process changes nothing and still returns a handle.
///
/// # Errors
/// When the level cannot be parsed.
pub fn init(level: &str, format: Format) -> Result<LevelHandle, BadLevel> {
    let wanted = std::env::var("RUST_LOG").unwrap_or_else(|_| level.to_owned());
    let (filter, handle) = reload::Layer::new(parse(&wanted)?);
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(true);
    let lines: Box<dyn Layer<_> + Send + Sync> = match format {
        Format::Text => Box::new(lines.with_ansi(std::io::stderr().is_terminal())),
        Format::Json => Box::new(lines.json().flatten_event(true)),
    };
    let _ = tracing_subscriber::registry().with(filter.and_then(lines)).try_init();
    Ok(LevelHandle(handle))
}

/// What a peer of a call or a QUIC connection sends is no reason to write a line for each of its packets:
/// the libraries are silent, unless the level names them.
const QUIET: &str = "rtc=off,webrtc=off,quinn=off,quinn_proto=off,quinn_udp=warn";

fn parse(level: &str) -> Result<EnvFilter, BadLevel> {
    EnvFilter::try_new(format!("{QUIET},{level}")).map_err(|error| BadLevel(error.to_string()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn levels_are_checked() {
        assert!(super::parse("info").is_ok());
        assert!(super::parse("info,aiproxy_gateway=trace").is_ok());
        assert!(super::parse("a=b=c").is_err());
    }
}
