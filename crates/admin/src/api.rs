//! The admin API under `/api/v1` (`docs/admin-api.md`).
//!
//! - [`access`]: who may do what, one table of every route
//! - [`caller`]: who makes a request
//! - [`error`]: what a refused request is answered
//! - [`extract`]: bodies, parameters
//! - [`tag`]: entity tags

pub(crate) mod access;
pub(crate) mod caller;
pub(crate) mod error;
pub(crate) mod extract;
pub(crate) mod tag;
