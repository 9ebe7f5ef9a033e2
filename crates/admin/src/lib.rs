//! The second listener: what operators, their monitoring and administrators ask (`docs/admin.md`).
//!
//! Owns: `/healthz`, `/readyz`, `/metrics`, the admin API with its logins, roles, audit and page, and
//! the listener's bounds and guards.
//! Never does: relaying; answering with a key, a password or a token that it did not just make; a
//! change that leaves no audit record.
//!
//! - [`control`]: who manages users and channels, and how a change reaches the relay
//! - [`server`]: sockets, bounds, shutdown
//! - `routes`: paths and answers
//! - `api`: the admin API under `/api/v1`
//! - `ready`: whether to send callers here, and what is known besides
//! - `host`: which names the listener answers to
//! - `stall`: connections whose other end takes nothing
//! - [`mod@mirror`]: the registry as the metrics show it

mod api;
pub mod control;
mod host;
pub mod mirror;
mod ready;
mod routes;
pub mod server;
mod stall;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use aiproxy_registry::Registry;
use aiproxy_telemetry::metrics::Metrics;

pub use api::auth::Auth;
pub use api::first::{self, First, FirstError};
pub use api::openapi::openapi;
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
    /// Who manages users and channels.
    pub control: Arc<Control>,
    /// Host names, without port, that the listener answers to besides `localhost` and addresses.
    pub hosts: Vec<String>,
    /// What logins need between requests.
    pub auth: Arc<Auth>,
    /// When the process began.
    pub started: Instant,
}
