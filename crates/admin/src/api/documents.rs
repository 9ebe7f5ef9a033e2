//! What the routes of users, groups, keys and channels share: how a document is shown, made, changed
//! and deleted.

use aiproxy_config::entity;
use aiproxy_core::{EntityKind, Fields, KeyDigest, Record};
use aiproxy_store::{Field, PAGE_LIMIT, Query, Sort};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::caller::{now, rfc3339};
use super::desk::{Desk, Told, cuts};
use super::error::{ApiError, ApiResult};
use crate::State;
use crate::control::{Edit, Source};

/// What the API adds to the fields of a document; nobody changes it by hand.
const ADDED: [&str; 4] = ["id", "revision", "created_at", "updated_at"];
/// Ids that would hide behind paths of their own.
const RESERVED: [&str; 2] = ["bulk", "import"];

/// Where the routes of a kind begin.
pub(crate) const fn collection(kind: EntityKind) -> &'static str {
    match kind {
        EntityKind::User => "/api/v1/users",
        EntityKind::Group => "/api/v1/groups",
        EntityKind::Channel => "/api/v1/channels",
        EntityKind::Key => "/api/v1/keys",
    }
}

/// A document as answers show it: secrets masked.
pub(crate) fn document(record: &Record) -> Map<String, Value> {
    let time = |seconds: i64| if seconds == 0 { Value::Null } else { rfc3339(seconds).into() };
    let mut map = Map::new();
    map.insert("id".into(), record.id.clone().into());
    map.insert("revision".into(), record.revision.into());
    map.insert("created_at".into(), time(record.created_at));
    map.insert("updated_at".into(), time(record.updated_at));
    let mut shown = entity::mask(record.kind, &record.fields);
    if record.kind == EntityKind::Key {
        shown.shift_remove("sha256");
        shown.shift_remove("prefix");
        map.insert("tag".into(), tag(record).into());
    }
    if record.kind != EntityKind::Group {
        shown.entry("status").or_insert_with(|| "active".into());
    }
    for (name, value) in shown {
        map.entry(name).or_insert(value);
    }
    map
}

/// How people know a key: `pk_abcd…3f2a91bc`.
pub(crate) fn tag(key: &Record) -> String {
    let prefix = key.fields.text("prefix").unwrap_or_default();
    let digest = digest(key).map_or_else(String::new, |digest| digest.short());
    format!("{prefix}…{digest}")
}

/// The digest of a key's document.
pub(crate) fn digest(key: &Record) -> Option<KeyDigest> {
    key.fields.text("sha256").and_then(KeyDigest::from_hex)
}

/// A document by id, wherever documents are.
pub(crate) async fn find(state: &State, kind: EntityKind, id: &str) -> ApiResult<Record> {
    let found = match state.control.source() {
        Source::Database => state.control.store()?.record(kind, id).await?,
        Source::File => state.control.documents(kind).await?.into_iter().find(|record| record.id == id),
    };
    found.ok_or_else(|| ApiError::not_found(kind.as_str(), id))
}

/// The keys of a user, wherever documents are.
pub(crate) async fn keys_of(state: &State, user: &str) -> ApiResult<Vec<Record>> {
    match state.control.source() {
        Source::Database => Ok(state.control.store()?.keys_of(user).await?),
        Source::File => {
            let mut keys = state.control.documents(EntityKind::Key).await?;
            keys.retain(|key| key.fields.text("user") == Some(user));
            Ok(keys)
        }
    }
}

/// All documents of a kind, wherever they are.
pub(crate) async fn all(state: &State, kind: EntityKind) -> ApiResult<Vec<Record>> {
    if state.control.source() == Source::File {
        return Ok(state.control.documents(kind).await?);
    }
    let (store, mut all) = (state.control.store()?, Vec::new());
    let sort = Sort { field: Field::Id, descending: false };
    loop {
        let offset = all.len() as u64;
        let query = Query { kind, search: None, filters: Vec::new(), sort, limit: PAGE_LIMIT, offset };
        let page = store.list(&query).await?;
        let last = page.records.len() < PAGE_LIMIT as usize;
        all.extend(page.records);
        if last {
            return Ok(all);
        }
    }
}

/// What becomes of a record with these fields in this edit.
pub(crate) fn changed(
    edit: &Edit,
    kind: EntityKind,
    id: &str,
    fields: Fields,
    old: Option<&Record>,
) -> Record {
    let created_at = old.map_or_else(now, |old| old.created_at);
    Record { kind, id: id.into(), fields, created_at, updated_at: now(), revision: edit.next_revision() }
}

/// A document as audit records show it: as everywhere, without its times.
pub(crate) fn audited(kind: EntityKind, fields: &Fields) -> Value {
    let mut shown = entity::mask(kind, fields);
    shown.shift_remove("sha256");
    Value::Object(shown)
}

/// Takes the fields out of a body: what the API adds is no field, and may only be said as it is.
pub(crate) fn fields_of(
    kind: EntityKind,
    mut body: Map<String, Value>,
    old: Option<&Record>,
) -> ApiResult<Map<String, Value>> {
    let shown = old.map(document);
    for name in ADDED {
        let Some(value) = body.shift_remove(name) else { continue };
        if shown.as_ref().is_none_or(|shown| shown.get(name) != Some(&value)) {
            return Err(ApiError::field(name, "it is given by AIProxy and cannot be changed"));
        }
    }
    let apart: &[&str] = match kind {
        EntityKind::User => &["proxy_key", "proxy_key_sha256", "keys"],
        EntityKind::Key => &["user", "sha256", "prefix", "status", "retires_at", "tag", "last_used_at"],
        EntityKind::Channel | EntityKind::Group => &[],
    };
    for name in apart {
        if body.contains_key(*name) {
            return Err(ApiError::field(name, "it has paths of its own: see users/{id}/keys and keys/{id}"));
        }
    }
    Ok(body)
}

/// Makes a document.
pub(crate) async fn create(
    desk: &Desk,
    kind: EntityKind,
    id: String,
    body: Map<String, Value>,
) -> ApiResult<Told> {
    if RESERVED.contains(&&*id) || id.is_empty() {
        return Err(ApiError::field("id", "this cannot be an id"));
    }
    let mut edit = desk.edit().await?;
    if edit.record(kind, &id).await?.is_some() {
        return Err(ApiError::conflict("exists", format!("There is a {kind} `{id}` already.")));
    }
    let body = fields_of(kind, body, None)?;
    let masked = match kind {
        EntityKind::Channel => entity::secrets_kept(&Fields(body.clone()), &body),
        EntityKind::User | EntityKind::Group | EntityKind::Key => Vec::new(),
    };
    if !masked.is_empty() {
        return Err(key_required(
            "`***` stands for a secret that is there already. Give the secret itself.",
            masked,
        ));
    }
    let fields = entity::merge(kind, &Fields::default(), &body);
    let mut entry = desk.caller.audit(&format!("{kind}.create"), kind.as_str(), &id);
    entry.after = Some(audited(kind, &fields));
    edit.put(kind, &id, fields.clone());
    edit.audit(entry);
    let record = changed(&edit, kind, &id, fields, None);
    let body = Value::Object(document(&record));
    desk.once.keep(&mut edit, StatusCode::CREATED, &body);
    edit.commit().await?;
    Ok(Told::created(body, format!("{}/{}", collection(kind), encoded(&id))).tagged(record.revision))
}

/// Changes a document by a merge patch (RFC 7396); `check` sees it as it was, the patch, and as it will be.
pub(crate) async fn update(
    desk: &Desk,
    kind: EntityKind,
    id: &str,
    body: Map<String, Value>,
    check: impl FnOnce(&Record, &Map<String, Value>, &Fields) -> ApiResult<()>,
) -> ApiResult<Told> {
    let mut edit = desk.edit().await?;
    let old = desk.record(&mut edit, kind, id).await?;
    desk.matches(&old)?;
    let patch = fields_of(kind, body, Some(&old))?;
    let fields = entity::merge(kind, &old.fields, &patch);
    check(&old, &patch, &fields)?;
    put(desk, edit, &old, fields, "update", None).await
}

/// Puts other fields in place of a record's, with the audit record of `verb`; nothing happens where they
/// are the same. What was cut is told where it is asked for.
pub(crate) async fn put(
    desk: &Desk,
    mut edit: Edit,
    old: &Record,
    fields: Fields,
    verb: &str,
    detail: Option<Value>,
) -> ApiResult<Told> {
    if fields == old.fields {
        return Ok(Told::ok(Value::Object(document(old))).tagged(old.revision));
    }
    let (kind, id) = (old.kind, &*old.id);
    let mut entry = desk.caller.audit(&format!("{kind}.{verb}"), kind.as_str(), id);
    entry.before = Some(audited(kind, &old.fields));
    entry.after = Some(audited(kind, &fields));
    entry.detail = detail;
    edit.put(kind, id, fields.clone());
    edit.audit(entry);
    let record = changed(&edit, kind, id, fields, Some(old));
    let body = Value::Object(document(&record));
    desk.once.keep(&mut edit, StatusCode::OK, &body);
    edit.commit().await?;
    Ok(Told::ok(body).tagged(record.revision))
}

/// Sets the status of a document.
pub(crate) async fn set_status(
    desk: &Desk,
    kind: EntityKind,
    id: &str,
    status: &str,
    verb: &str,
) -> ApiResult<Told> {
    let mut edit = desk.edit().await?;
    let old = desk.record(&mut edit, kind, id).await?;
    desk.matches_if_said(&old)?;
    if old.fields.text("status").unwrap_or("active") == status {
        return Ok(Told::ok(Value::Object(document(&old))).tagged(old.revision));
    }
    let mut fields = old.fields.clone();
    fields.0.insert("status".into(), status.into());
    put(desk, edit, &old, fields, verb, None).await
}

/// Deletes a document that nothing refers to.
pub(crate) async fn delete(desk: &Desk, mut edit: Edit, old: &Record) -> ApiResult<Told> {
    let kind = old.kind;
    let mut entry = desk.caller.audit(&format!("{kind}.delete"), kind.as_str(), &old.id);
    entry.before = Some(audited(kind, &old.fields));
    edit.delete(kind, &old.id);
    edit.audit(entry);
    let applied = edit.commit().await?;
    Ok(Told::ok(json!({ "id": old.id, "deleted": true, "cut": cuts(&applied.cut) })))
}

/// Answers a document.
pub(crate) async fn get(state: &State, kind: EntityKind, id: &str) -> ApiResult<Response> {
    use axum::response::IntoResponse as _;
    let record = find(state, kind, id).await?;
    Ok(Told::ok(Value::Object(document(&record))).tagged(record.revision).into_response())
}

/// The channel's secrets have to be given anew.
pub(crate) fn key_required(message: &str, fields: Vec<String>) -> ApiError {
    let problem =
        |path| super::error::FieldProblem { path, message: "give it anew".into(), suggestion: None };
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "key_required", message)
        .with(fields.into_iter().map(problem).collect())
}

/// An id as a segment of a path.
fn encoded(id: &str) -> String {
    percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC).to_string()
}
