//! Those who may sign in.

use std::sync::Arc;

use aiproxy_core::Secret;
use aiproxy_core::ids::random_key;
use aiproxy_store::{Administrator, Store, Tx};
use axum::Json;
use axum::extract::State as Shared;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::login::NAME;
use super::auth::password::{self, Password};
use super::caller::{Caller, Role, now, rfc3339};
use super::error::{ApiError, ApiResult, Body, ErrorBody, Id};
use super::tag::{etag, if_match};
use crate::State;

/// Base-62 characters of an id, and of a one-time password.
const ID_LENGTH: usize = 16;
pub(crate) const ONE_TIME_LENGTH: usize = 24;
/// Characters of a name for people.
const DISPLAY_NAME: usize = 128;
/// Administrators at most: their list is one answer.
const MOST: usize = 1000;

pub(crate) fn router() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change, delete))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AdministratorStatus)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Active,
    /// Cannot sign in; their tokens do not work.
    Disabled,
}

impl Status {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
        }
    }

    fn parse(text: &str) -> Self {
        if text == "active" { Self::Active } else { Self::Disabled }
    }
}

/// An administrator or auditor.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Administrator)]
pub(crate) struct Shown {
    id: String,
    /// To sign in with.
    name: String,
    display_name: String,
    role: Role,
    status: Status,
    /// The password has to be changed at the next login.
    must_change_password: bool,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
    #[schema(format = DateTime)]
    last_login_at: Option<String>,
    /// The entity tag.
    revision: i64,
}

impl From<&Administrator> for Shown {
    fn from(of: &Administrator) -> Self {
        Self {
            id: of.id.clone(),
            name: of.name.clone(),
            display_name: of.display_name.clone(),
            role: Role::parse(&of.role),
            status: Status::parse(&of.status),
            must_change_password: of.must_change,
            created_at: rfc3339(of.created_at),
            updated_at: rfc3339(of.updated_at),
            last_login_at: of.last_login_at.map(rfc3339),
            revision: of.revision,
        }
    }
}

/// Every administrator.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdministratorList)]
pub(crate) struct List {
    items: Vec<Shown>,
    total: usize,
}

/// Administrators
///
/// All of them: there are few.
#[utoipa::path(get, path = "/api/v1/administrators", tag = "administrators", operation_id = "list_administrators", responses(
    (status = 200, description = "All administrators", body = List),
))]
pub(crate) async fn list(Shared(state): Shared<Arc<State>>) -> ApiResult<Json<List>> {
    let all = state.control.store()?.administrators().await?;
    Ok(Json(List { items: all.iter().map(Shown::from).collect(), total: all.len() }))
}

/// One administrator
#[utoipa::path(get, path = "/api/v1/administrators/{id}", tag = "administrators", operation_id = "get_administrator",
    params(("id" = String, Path, description = "The id")), responses(
    (status = 200, description = "The administrator", body = Shown, headers(("etag" = String, description = "For `if-match`"))),
))]
pub(crate) async fn show(Shared(state): Shared<Arc<State>>, Id(id): Id) -> ApiResult<Tagged> {
    let known = known(&state.control.store()?, &id).await?;
    Ok(tagged(&known))
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewAdministrator)]
#[serde(deny_unknown_fields)]
pub(crate) struct New {
    /// To sign in with: letters, digits and `.`, `_`, `-`, `@`. Case does not matter.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._@-]+$")]
    name: String,
    #[schema(max_length = 128)]
    display_name: Option<String>,
    role: Role,
    /// Has to be changed at the first login. Without one, the answer has a password that is made.
    #[schema(value_type = Option<String>, format = Password, min_length = 12, max_length = 256)]
    password: Option<Password>,
}

/// A new administrator.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CreatedAdministrator)]
pub(crate) struct Created {
    administrator: Shown,
    /// To hand over: shown this once. None when the request brought a password.
    one_time_password: Option<String>,
}

/// Creates an administrator
///
/// Its password has to be changed at the first login.
#[utoipa::path(post, path = "/api/v1/administrators", tag = "administrators", operation_id = "create_administrator", request_body = New, responses(
    (status = 201, description = "Created", body = Created, headers(("etag" = String, description = "For `if-match`"))),
    (status = 409, description = "`name_taken`: another administrator has this name; `too_many`: a thousand are enough", body = ErrorBody),
))]
pub(crate) async fn create(
    Shared(state): Shared<Arc<State>>,
    caller: Caller,
    Body(new): Body<New>,
) -> ApiResult<(StatusCode, [(HeaderName, HeaderValue); 1], Json<Created>)> {
    check_name(&new.name)?;
    let display_name = new.display_name.unwrap_or_default();
    check_display_name(&display_name)?;
    let made = new.password.is_none().then(|| random_key("", ONE_TIME_LENGTH));
    let password = match (&new.password, &made) {
        (Some(Password(given)), _) => given.clone(),
        (None, made) => Secret::new(made.clone().unwrap_or_default()),
    };
    password::check(&password, &new.name).map_err(|why| ApiError::field("password", why))?;
    let password_hash = state.auth.hasher.hash(&password).await?;
    let store = state.control.store()?;
    let mut tx = store.write().await?;
    if store.administrator_by_name(&new.name).await?.is_some() {
        return Err(ApiError::conflict("name_taken", "Another administrator has this name."));
    }
    if store.administrators().await?.len() >= MOST {
        return Err(ApiError::conflict("too_many", "There are a thousand administrators already."));
    }
    let now = now();
    let administrator = Administrator {
        id: random_key("", ID_LENGTH),
        name: new.name,
        display_name,
        role: new.role.as_str().into(),
        password_hash,
        status: Status::Active.as_str().into(),
        must_change: true,
        created_at: now,
        updated_at: now,
        last_login_at: None,
        revision: 0,
    };
    tx.put_administrator(&administrator).await?;
    let mut entry = caller.audit("administrator.create", "administrator", &administrator.id);
    entry.after = Some(audited(&administrator));
    tx.audit(&entry).await?;
    tx.commit().await?;
    let administrator = known(&store, &administrator.id).await?;
    let created = Created { administrator: Shown::from(&administrator), one_time_password: made };
    Ok((StatusCode::CREATED, [etag(administrator.revision)], Json(created)))
}

/// What to change; `null` and what is absent stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = AdministratorPatch)]
#[serde(deny_unknown_fields)]
pub(crate) struct Patch {
    #[schema(max_length = 128)]
    display_name: Option<String>,
    role: Option<Role>,
    /// Disabling ends their sessions and stops their tokens.
    status: Option<Status>,
    /// Ends their sessions; has to be changed at the next login. For one's own: `/api/v1/password`.
    #[schema(value_type = Option<String>, format = Password, min_length = 12, max_length = 256)]
    password: Option<Password>,
}

/// Changes an administrator
#[utoipa::path(patch, path = "/api/v1/administrators/{id}", tag = "administrators", operation_id = "change_administrator",
    params(("id" = String, Path, description = "The id"), ("if-match" = String, Header, description = "The ETag that was read, or `*`")),
    request_body = Patch, responses(
    (status = 200, description = "As it is now", body = Shown, headers(("etag" = String, description = "For `if-match`"))),
    (status = 409, description = "`last_administrator`: nobody could administer any more", body = ErrorBody),
))]
pub(crate) async fn change(
    Shared(state): Shared<Arc<State>>,
    caller: Caller,
    Id(id): Id,
    headers: HeaderMap,
    Body(patch): Body<Patch>,
) -> ApiResult<Tagged> {
    let store = state.control.store()?;
    if_match(&headers, known(&store, &id).await?.revision)?;
    let hash = match &patch.password {
        Some(_) if id == caller.administrator => {
            return Err(ApiError::field("password", "change your own at /api/v1/password"));
        }
        Some(Password(new)) => {
            let name = known(&store, &id).await?.name;
            password::check(new, &name).map_err(|why| ApiError::field("password", why))?;
            Some(state.auth.hasher.hash(new).await?)
        }
        None => None,
    };
    let mut tx = store.write().await?;
    let before = known(&store, &id).await?;
    if_match(&headers, before.revision)?;
    let mut after = before.clone();
    if let Some(display_name) = patch.display_name {
        check_display_name(&display_name)?;
        after.display_name = display_name;
    }
    after.role = patch.role.map_or(after.role, |role| role.as_str().into());
    after.status = patch.status.map_or(after.status, |status| status.as_str().into());
    let changes_password = hash.is_some();
    if let Some(hash) = hash {
        after.password_hash = hash;
        after.must_change = true;
    }
    after.updated_at = now();
    tx.put_administrator(&after).await?;
    if changes_password || after.status != "active" {
        tx.delete_sessions_of(&id).await?;
    }
    let mut entry = caller.audit("administrator.change", "administrator", &id);
    (entry.before, entry.after) = (Some(audited(&before)), Some(audited(&after)));
    entry.detail = changes_password.then(|| json!({"password": "changed"}));
    tx.audit(&entry).await?;
    somebody_left(&mut tx, administers(&before)).await?;
    tx.commit().await?;
    Ok(tagged(&known(&store, &id).await?))
}

/// Deletes an administrator
///
/// Their sessions end and their tokens stop working. What they did stays in the audit.
#[utoipa::path(delete, path = "/api/v1/administrators/{id}", tag = "administrators", operation_id = "delete_administrator",
    params(("id" = String, Path, description = "The id"), ("if-match" = String, Header, description = "The ETag that was read, or `*`")), responses(
    (status = 204, description = "Deleted"),
    (status = 409, description = "`last_administrator`: nobody could administer any more", body = ErrorBody),
))]
pub(crate) async fn delete(
    Shared(state): Shared<Arc<State>>,
    caller: Caller,
    Id(id): Id,
    headers: HeaderMap,
) -> ApiResult<StatusCode> {
    let store = state.control.store()?;
    let mut tx = store.write().await?;
    let before = known(&store, &id).await?;
    if_match(&headers, before.revision)?;
    tx.delete_sessions_of(&id).await?;
    tx.delete_administrator(&id).await?;
    let mut entry = caller.audit("administrator.delete", "administrator", &id);
    entry.before = Some(audited(&before));
    tx.audit(&entry).await?;
    somebody_left(&mut tx, administers(&before)).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

type Tagged = ([(HeaderName, HeaderValue); 1], Json<Shown>);

fn tagged(administrator: &Administrator) -> Tagged {
    ([etag(administrator.revision)], Json(Shown::from(administrator)))
}

async fn known(store: &Store, id: &str) -> ApiResult<Administrator> {
    store.administrator(id).await?.ok_or_else(|| ApiError::not_found("administrator", id))
}

fn administers(administrator: &Administrator) -> bool {
    administrator.status == "active" && Role::parse(&administrator.role) == Role::Administrator
}

/// Refuses a change, as the transaction has it so far, after which nobody administers.
async fn somebody_left(tx: &mut Tx, administered: bool) -> ApiResult<()> {
    if administered && tx.active_administrators().await? == 0 {
        return Err(ApiError::conflict(
            "last_administrator",
            "This is the last active administrator. Make another one first.",
        ));
    }
    Ok(())
}

fn check_name(name: &str) -> ApiResult<()> {
    let fits = (1..=NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte));
    if fits {
        return Ok(());
    }
    Err(ApiError::field("name", "a name has 1 to 64 letters, digits, `.`, `_`, `@` or `-`"))
}

fn check_display_name(name: &str) -> ApiResult<()> {
    if name.chars().count() <= DISPLAY_NAME && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(ApiError::field(
        "display_name",
        "a name for people has at most 128 characters, none of them a control character",
    ))
}

/// As audit records show it: without the password's hash.
fn audited(administrator: &Administrator) -> Value {
    json!({
        "name": administrator.name,
        "display_name": administrator.display_name,
        "role": administrator.role,
        "status": administrator.status,
        "must_change_password": administrator.must_change,
    })
}
