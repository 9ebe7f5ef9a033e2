//! The admin API under `/api/v1` (`docs/admin-api.md`), and its page.
//!
//! - [`access`]: who may do what, one table of every route
//! - [`administrators`]: those who may sign in
//! - [`audit`]: who did what
//! - [`auth`]: before every route: who asks, whether they may
//! - [`caller`]: who makes a request
//! - [`error`]: what a refused request is answered
//! - [`extract`]: bodies, parameters
//! - [`first`]: the first administrator
//! - [`mod@openapi`]: the document that describes all of it
//! - [`page`]: the API's page for browsers
//! - [`settings`]: what is set for the control plane
//! - [`status`]: how the process is doing
//! - [`tag`]: entity tags
//! - [`tidy`]: what is over is deleted
//! - [`tokens`]: admin tokens of programs

pub(crate) mod access;
pub(crate) mod administrators;
pub(crate) mod audit;
pub(crate) mod auth;
pub(crate) mod caller;
pub(crate) mod error;
pub(crate) mod extract;
pub mod first;
pub(crate) mod openapi;
pub(crate) mod page;
pub(crate) mod settings;
pub(crate) mod status;
pub(crate) mod tag;
pub(crate) mod tidy;
pub(crate) mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;

use crate::State;

/// Every operation with its description.
fn routers() -> OpenApiRouter<Arc<State>> {
    openapi::base()
        .merge(auth::login::router())
        .merge(administrators::router())
        .merge(tokens::router())
        .merge(audit::router())
        .merge(settings::router())
        .merge(status::router())
        .merge(openapi::router())
}

/// The API and its page, with the guard before them.
pub(crate) fn router(state: &Arc<State>) -> Router<Arc<State>> {
    let (router, _) = routers().split_for_parts();
    router
        .route("/api", get(page::show))
        // The guard has read the body already, within the route's bound.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(Arc::clone(state), auth::guard))
}
