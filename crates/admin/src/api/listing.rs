//! Lists of documents: pages, order, search, filters; from the database, or from the file.

use aiproxy_core::{EntityKind, Record};
use aiproxy_store::{Field, Query, Sort};
use axum::Json;
use axum::extract::{FromRequestParts, OriginalUri};
use axum::response::{IntoResponse, Response};
use http::header::LINK;
use http::request::Parts;
use http::{HeaderValue, Uri};
use serde_json::{Value, json};

use super::documents::document;
use super::error::{ApiError, ApiResult};
use crate::State;
use crate::control::Source;

/// Items of a page where nobody says how many.
const ITEMS: u32 = 50;
/// The most items of a page.
pub(crate) const ITEMS_MAX: u32 = 500;
/// The most items that may be passed over.
const OFFSET_MAX: u64 = 1_000_000_000;
/// Characters of a search or a filter.
const TEXT_MAX: usize = 200;

/// Which page of a list is wanted, as the query says it.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) limit: Option<u32>,
    pub(crate) offset: Option<u64>,
    pub(crate) sort: Option<String>,
    pub(crate) search: Option<String>,
    /// Fields and what they equal.
    pub(crate) filters: Vec<(&'static str, Option<String>)>,
}

/// A part of a list, within bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) limit: u32,
    pub(crate) offset: u64,
}

impl Part {
    pub(crate) fn of(limit: Option<u32>, offset: Option<u64>) -> ApiResult<Self> {
        let limit = limit.unwrap_or(ITEMS);
        if limit == 0 || limit > ITEMS_MAX {
            return Err(ApiError::bad_request(format!("`limit` is 1 to {ITEMS_MAX}.")));
        }
        let offset = offset.unwrap_or(0);
        if offset > OFFSET_MAX {
            return Err(ApiError::bad_request(format!("`offset` is 0 to {OFFSET_MAX}.")));
        }
        Ok(Self { limit, offset })
    }

    /// This part of what is in memory.
    pub(crate) fn cut<T>(self, all: Vec<T>) -> Vec<T> {
        let offset = usize::try_from(self.offset).unwrap_or(usize::MAX);
        all.into_iter().skip(offset).take(self.limit as usize).collect()
    }
}

/// Where a list was asked for: its next page is asked for at the same place.
#[derive(Debug)]
pub(crate) struct Place(Uri);

impl<S: Send + Sync> FromRequestParts<S> for Place {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        OriginalUri::from_request_parts(parts, state).await.map(|OriginalUri(uri)| Self(uri))
    }
}

impl Place {
    /// A page with the way to the next one, if there is one.
    pub(crate) fn page(&self, items: &[Value], total: u64, part: Part) -> Response {
        let next = part.offset + u64::from(part.limit);
        let more = next < total && !items.is_empty();
        let mut response = Json(json!({ "items": items, "total": total })).into_response();
        if more && let Some(link) = self.at(next) {
            response.headers_mut().insert(LINK, link);
        }
        response
    }

    fn at(&self, offset: u64) -> Option<HeaderValue> {
        let query = self.0.query().unwrap_or_default();
        let kept =
            query.split('&').filter(|pair| !pair.is_empty() && pair.split('=').next() != Some("offset"));
        let mut query: Vec<&str> = kept.collect();
        let offset = format!("offset={offset}");
        query.push(&offset);
        HeaderValue::try_from(format!("<{}?{}>; rel=\"next\"", self.0.path(), query.join("&"))).ok()
    }
}

/// A page of documents.
pub(crate) async fn list(
    state: &State,
    kind: EntityKind,
    place: &Place,
    wanted: Wanted,
) -> ApiResult<Response> {
    let part = Part::of(wanted.limit, wanted.offset)?;
    let sort = sort(kind, wanted.sort.as_deref())?;
    let search = wanted.search.filter(|text| !text.is_empty());
    bounded(search.as_deref())?;
    let mut filters = Vec::new();
    for (name, value) in wanted.filters {
        let Some(value) = value else { continue };
        bounded(Some(&value))?;
        let field = Field::parse(kind, name)
            .ok_or_else(|| ApiError::bad_request(format!("A {kind} has no `{name}` to filter by.")))?;
        filters.push((field, value));
    }
    let query = Query { kind, search, filters, sort, limit: part.limit, offset: part.offset };
    let (records, total) = match state.control.source() {
        Source::Database => {
            let page = state.control.store()?.list(&query).await?;
            (page.records, page.total)
        }
        Source::File => {
            let all = in_memory(state.control.documents(kind).await?, &query);
            let total = all.len() as u64;
            (part.cut(all), total)
        }
    };
    let items: Vec<Value> = records.iter().map(|record| Value::Object(document(record))).collect();
    Ok(place.page(&items, total, part))
}

fn bounded(text: Option<&str>) -> ApiResult<()> {
    match text {
        Some(text) if text.chars().count() > TEXT_MAX => {
            Err(ApiError::bad_request(format!("A search or filter has at most {TEXT_MAX} characters.")))
        }
        Some(text) if text.contains('\0') => {
            Err(ApiError::bad_request("A search or filter holds no character U+0000."))
        }
        _ => Ok(()),
    }
}

/// `name`, or `-name` for the greatest first.
fn sort(kind: EntityKind, wanted: Option<&str>) -> ApiResult<Sort> {
    let wanted = wanted.unwrap_or("id");
    let (name, descending) = wanted.strip_prefix('-').map_or((wanted, false), |name| (name, true));
    let field = Field::parse(kind, name).filter(|field| field.sorts()).ok_or_else(|| {
        let known = Field::ALL.into_iter().filter(|field| field.belongs_to(kind) && field.sorts());
        let known: Vec<_> = known.map(Field::as_str).collect();
        ApiError::bad_request(format!(
            "`sort` is one of {}, with `-` before it for the greatest first.",
            known.join(", ")
        ))
    })?;
    Ok(Sort { field, descending })
}

/// What the database would find, among documents of the file.
fn in_memory(mut records: Vec<Record>, query: &Query) -> Vec<Record> {
    records.retain(|record| {
        query.search.as_deref().is_none_or(|text| found(record, text))
            && query.filters.iter().all(|(field, value)| equals(record, *field, value))
    });
    let Sort { field, descending } = query.sort;
    match field {
        Field::CreatedAt => records.sort_by_key(|record| record.created_at),
        Field::UpdatedAt => records.sort_by_key(|record| record.updated_at),
        field => records.sort_by_cached_key(|record| text(record, field).to_lowercase()),
    }
    if descending {
        records.reverse();
    }
    records
}

fn found(record: &Record, wanted: &str) -> bool {
    let wanted = wanted.to_ascii_lowercase();
    [
        Field::Id,
        Field::Name,
        Field::Department,
        Field::Email,
        Field::Phone,
        Field::EmployeeNumber,
        Field::Platform,
        Field::BaseUrl,
        Field::Prefix,
    ]
    .into_iter()
    .filter(|field| field.belongs_to(record.kind))
    .any(|field| text(record, field).to_ascii_lowercase().contains(&wanted))
}

fn equals(record: &Record, field: Field, value: &str) -> bool {
    match field {
        Field::Group => lists(record, "groups", value),
        Field::Channel => lists(record, "channels", value),
        Field::Name | Field::Department | Field::Email | Field::Phone | Field::EmployeeNumber => {
            text(record, field).eq_ignore_ascii_case(value)
        }
        field => text(record, field) == value,
    }
}

/// The field as text; what is absent is empty, and a status that is absent is `active`.
fn text(record: &Record, field: Field) -> &str {
    match field {
        Field::Id => &record.id,
        Field::Status => record.fields.text("status").unwrap_or("active"),
        field => record.fields.text(field.as_str()).unwrap_or_default(),
    }
}

/// Whether a list of ids, or of ids with their places, names this one.
fn lists(record: &Record, field: &str, id: &str) -> bool {
    let Some(Value::Array(items)) = record.fields.0.get(field) else { return false };
    items.iter().any(|item| item.as_str().or_else(|| item.get("id")?.as_str()) == Some(id))
}
