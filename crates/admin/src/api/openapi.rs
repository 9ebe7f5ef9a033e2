//! The OpenAPI document: what the handlers say of themselves, and what holds for all of them.

use std::sync::{Arc, LazyLock};

use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{self, Access};
use super::error::ErrorBody;
use crate::State;

/// What the tags stand for, in the order in which people need them.
const TAGS: &[(&str, &str)] = &[
    ("login", "Sign in and out."),
    ("users", "People and product lines."),
    ("groups", "Users who share channels and limits."),
    ("keys", "Proxy-Keys of users."),
    ("channels", "Accounts at the platforms."),
    ("sessions", "What is under way: streams, sockets, calls."),
    ("denials", "Who is refused, whatever file or database say."),
    ("explain", "Why a request is allowed or refused."),
    ("administrators", "Those who may sign in."),
    ("tokens", "Admin tokens of programs."),
    ("audit", "Who did what."),
    ("settings", "What is set for the control plane."),
    ("process", "How the process is doing."),
];

#[derive(OpenApi)]
#[openapi(components(schemas(ErrorBody)))]
struct Base;

/// An empty router whose document has what all operations share.
pub(crate) fn base() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::with_openapi(Base::openapi())
}

pub(crate) fn router() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(show))
}

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let (_, document) = super::routers().split_for_parts();
    let document = complete(serde_json::to_value(document).unwrap_or_default());
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
});

/// The document as it is answered and as `docs/openapi.json` has it.
#[must_use]
pub fn openapi() -> String {
    TEXT.clone()
}

/// OpenAPI document
///
/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "process", operation_id = "openapi", responses(
    (status = 200, description = "OpenAPI 3.1", body = Object),
))]
pub(crate) async fn show() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], TEXT.as_str())
}

/// Adds what the handlers do not say each: who they are for, and refusals that any request may meet.
fn complete(mut document: Value) -> Value {
    document["info"] = json!({
        "title": "AIProxy admin API",
        "version": "1",
        "description": "Users, Proxy-Keys, channels and what they do at the moment. docs/admin-api.md is its guide.",
    });
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        schemas.extend(super::schema::components());
        schemas.sort_keys();
    }
    document["tags"] =
        TAGS.iter().map(|(name, description)| json!({"name": name, "description": description})).collect();
    document["components"]["securitySchemes"] = json!({
        "session": {
            "type": "apiKey", "in": "cookie", "name": super::auth::session::NAME,
            "description": "From /api/v1/login. Changes need its `csrf_token` in `x-csrf-token` as well.",
        },
        "token": {"type": "http", "scheme": "bearer", "description": "An admin token: `at_…`."},
    });
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        for (name, schema) in aiproxy_config::entity::schemas() {
            schemas.entry(name).or_insert(schema);
        }
    }
    if let Some(paths) = document["paths"].as_object_mut() {
        for (path, operations) in paths {
            for (method, operation) in operations.as_object_mut().into_iter().flatten() {
                let method = method.to_uppercase();
                let access = access::routes().find(|route| route.method == method && route.path == path);
                if let Some(operation) = operation.as_object_mut() {
                    finish(operation, path, access.map(|route| route.access));
                }
            }
        }
    }
    document
}

/// One operation.
fn finish(operation: &mut Map<String, Value>, path: &str, access: Option<Access>) {
    let access = access.unwrap_or(Access::Any);
    operation.insert("x-aiproxy-access".into(), access.to_string().into());
    let security = if access == Access::Open { json!([]) } else { json!([{"session": []}, {"token": []}]) };
    operation.insert("security".into(), security);
    let mut refusals = vec![
        ("400", "The request cannot be read, or a parameter is unknown or out of bounds"),
        ("403", "Not from this host name or page, or not with this role, scope or token"),
        ("408", "The body did not arrive in time"),
        ("413", "The body is too large"),
        ("503", "The database is busy or away; see `retry-after`"),
    ];
    if access != Access::Open {
        refusals.push(("401", "Not signed in, or the token does not work"));
    }
    if path.contains('{') {
        refusals.push(("404", "There is nothing with this id"));
    }
    if operation.contains_key("requestBody") {
        refusals.push(("415", "The body is of another type"));
        refusals.push(("422", "A field is not valid; `problems` says which and why"));
    }
    let parameters = operation.get("parameters").and_then(Value::as_array);
    let conditional = parameters.into_iter().flatten().any(|parameter| {
        parameter["name"].as_str().is_some_and(|name| name.eq_ignore_ascii_case("if-match"))
    });
    if conditional {
        refusals.push(("412", "It was changed since it was read"));
        refusals.push(("428", "`if-match` is missing"));
    }
    let Some(responses) = operation.entry("responses").or_insert_with(|| json!({})).as_object_mut() else {
        return;
    };
    for (status, description) in refusals {
        responses.entry(status).or_insert_with(|| {
            let schema = json!({"$ref": "#/components/schemas/ErrorBody"});
            json!({"description": description, "content": {"application/json": {"schema": schema}}})
        });
    }
    responses.sort_keys();
}
