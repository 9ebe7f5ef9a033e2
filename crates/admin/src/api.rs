//! The admin API under `/api/v1` (`docs/admin-api.md`), and its page.
//!
//! - [`access`]: who may do what, one table of every route
//! - [`administrators`]: those who may sign in
//! - [`audit`]: who did what
//! - [`auth`]: before every route: who asks, whether they may
//! - [`bulk`]: many users or channels at once
//! - [`caller`]: who makes a request
//! - [`channels`]: accounts at platforms
//! - [`denials`]: who is refused, whatever the documents say
//! - [`desk`]: what handlers of documents are given, and how they answer
//! - [`documents`]: how a document is shown, made, changed and deleted
//! - [`error`]: what a refused request is answered
//! - [`explain`]: why a request is served or refused
//! - [`extract`]: bodies, parameters
//! - [`first`]: the first administrator
//! - [`groups`]: groups of users
//! - [`idempotency`]: requests that may come twice
//! - [`import`]: users from a table
//! - [`mod@keys`]: Proxy-Keys of users
//! - [`listing`]: pages of documents
//! - [`live`]: what is under way
//! - [`offboard`]: somebody leaves
//! - [`mod@openapi`]: the document that describes all of it
//! - [`page`]: the API's page for browsers
//! - [`probe`]: a real request to a platform
//! - [`reload`]: the configuration file is read again
//! - [`rotate`]: Proxy-Keys are replaced, switched and revoked
//! - [`schema`]: documents in the OpenAPI document
//! - [`settings`]: what is set for the control plane
//! - [`status`]: how the process is doing
//! - [`table`]: tables of users as CSV
//! - [`tag`]: entity tags
//! - [`tidy`]: what is over is deleted
//! - [`tokens`]: admin tokens of programs
//! - [`users`]: people and product lines
//! - [`verdict`]: what a platform's answer says about a channel

pub(crate) mod access;
pub(crate) mod administrators;
pub(crate) mod audit;
pub(crate) mod auth;
pub(crate) mod bulk;
pub(crate) mod caller;
pub(crate) mod channels;
pub(crate) mod denials;
pub(crate) mod desk;
pub(crate) mod documents;
pub(crate) mod error;
pub(crate) mod explain;
pub(crate) mod extract;
pub mod first;
pub(crate) mod groups;
pub(crate) mod idempotency;
pub(crate) mod import;
pub(crate) mod keys;
pub(crate) mod listing;
pub(crate) mod live;
pub(crate) mod offboard;
pub(crate) mod openapi;
pub(crate) mod page;
pub(crate) mod probe;
pub(crate) mod reload;
pub(crate) mod rotate;
pub(crate) mod schema;
pub(crate) mod settings;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod tag;
pub(crate) mod tidy;
pub(crate) mod tokens;
pub(crate) mod users;
pub(crate) mod verdict;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;

use crate::State;

/// Every operation with its description.
fn routers() -> OpenApiRouter<Arc<State>> {
    own().merge(administered())
}

/// What is administered.
fn administered() -> OpenApiRouter<Arc<State>> {
    let router = OpenApiRouter::new()
        .merge(users::router())
        .merge(bulk::router())
        .merge(import::router())
        .merge(offboard::router())
        .merge(groups::router())
        .merge(keys::router())
        .merge(rotate::router())
        .merge(channels::router())
        .merge(probe::router())
        .merge(live::router())
        .merge(denials::router())
        .merge(explain::router())
        .merge(reload::router());
    idempotency::describe(router)
}

/// Those who administer.
fn own() -> OpenApiRouter<Arc<State>> {
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
    let (router, _) = own().split_for_parts();
    let (administered, _) = administered().split_for_parts();
    let keeper = idempotency::Keeper::new(Arc::clone(state));
    router
        .merge(administered.layer(middleware::from_fn_with_state(keeper, idempotency::layer)))
        .route("/api", get(page::show))
        // The guard has read the body already, within the route's bound.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(Arc::clone(state), auth::guard))
}
