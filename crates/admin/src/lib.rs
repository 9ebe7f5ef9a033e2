//! The second listener: what operators and their monitoring ask (`docs/admin.md`).
//!
//! Owns: `/healthz`, `/readyz`, `/metrics`, their bounds, and the guard against hostile host names.
//! Never does: changes, secrets, waiting on anything but its own sockets. There is no
//! authentication yet, so everything here may be known to whoever reaches the listener.
//!
//! - [`control`]: who manages users and channels, and how a change reaches the relay
//! - [`server`]: sockets, bounds, shutdown
//! - `routes`: paths and answers
//! - `ready`: whether to send callers here, and what is known besides
//! - `host`: which names the listener answers to
//! - [`mod@mirror`]: the registry as the metrics show it

pub mod control;
mod host;
pub mod mirror;
mod ready;
mod routes;
pub mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use aiproxy_registry::Registry;
use aiproxy_telemetry::metrics::Metrics;

pub use control::Control;
pub use mirror::mirror;
pub use server::Admin;

/// What the listener speaks about.
#[derive(Debug, Clone)]
pub struct State {
    /// What may be and what is.
    pub registry: Arc<Registry>,
    /// What has been counted.
    pub metrics: Arc<Metrics>,
    /// Host names, without port, that the listener answers to besides `localhost` and addresses.
    pub hosts: Vec<String>,
}
