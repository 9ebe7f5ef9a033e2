//! `/v1/files`: upload, list, get, content (with ranges), delete.

use super::query_param;
use super::store::StoredFile;
use crate::http::{Answer, Payload, Piece, RequestBody};
use crate::ids::unix_now;
use crate::multipart::Multipart;
use crate::route::Call;
use crate::shape::Fault;
use http::{HeaderMap, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::ops::Range;
use std::sync::Arc;

/// Form fields other than the file are at most this long.
const FIELD_LIMIT: usize = 4 << 10;
/// Content goes out in pieces of this size, unless `chunks=` says how many.
const PIECE: u64 = 64 << 10;

pub(crate) async fn create(call: &Call<'_>, body: &mut RequestBody) -> Result<Answer, Fault> {
    let (mut purpose, mut file) = (None, None);
    let mut form = Multipart::new(&call.head.headers, body)?;
    while let Some(part) = form.next_part().await? {
        match part.name.as_str() {
            "purpose" => purpose = Some(form.text(FIELD_LIMIT).await?),
            "file" => {
                let mut content = call.state.files.begin()?;
                while let Some(chunk) = form.chunk().await? {
                    content.push(&chunk)?;
                }
                content.finish();
                file = Some((part.filename.unwrap_or_default(), content));
            }
            // Other fields are skipped by the next `next_part`.
            _ => {}
        }
    }
    let (filename, content) = file.ok_or_else(|| Fault::missing("file"))?;
    let purpose = purpose.ok_or_else(|| Fault::missing("purpose"))?;
    let file = call.state.files.put(StoredFile {
        id: call.state.ids.with_prefix("file-"),
        filename,
        purpose,
        created: unix_now(),
        content,
    });
    Ok(Answer::json(&object(&file)))
}

/// Oldest first when `order=asc`, otherwise newest first, as the platform does.
pub(crate) fn list(call: &Call<'_>) -> Result<Answer, Fault> {
    let query = call.head.uri.query();
    let mut files = call.state.files.list();
    if query_param(query, "order").as_deref() != Some("asc") {
        files.reverse();
    }
    if let Some(purpose) = query_param(query, "purpose") {
        files.retain(|file| file.purpose == purpose);
    }
    if let Some(after) = query_param(query, "after") {
        let at = files.iter().position(|file| file.id == after);
        files.drain(..at.map_or(0, |at| at + 1));
    }
    let limit = match query_param(query, "limit") {
        None => 10_000,
        Some(limit) => limit
            .parse()
            .ok()
            .filter(|n| (1..=10_000).contains(n))
            .ok_or_else(|| Fault::bad_request("'limit' must be 1 to 10000.").param("limit"))?,
    };
    let more = files.len() > limit;
    files.truncate(limit);
    let data: Vec<Value> = files.iter().map(|file| object(file)).collect();
    Ok(Answer::json(&json!({
        "object": "list",
        "first_id": files.first().map(|file| &file.id),
        "last_id": files.last().map(|file| &file.id),
        "data": data,
        "has_more": more,
    })))
}

pub(crate) fn get(call: &Call<'_>, id: &str) -> Result<Answer, Fault> {
    let file = find(call, id)?;
    Ok(Answer::json(&object(&file)))
}

pub(crate) fn delete(call: &Call<'_>, id: &str) -> Result<Answer, Fault> {
    if !call.state.files.remove(id) {
        return Err(unknown(id));
    }
    Ok(Answer::json(&json!({"id": id, "object": "file", "deleted": true})))
}

pub(crate) fn content(call: &Call<'_>, id: &str) -> Result<Answer, Fault> {
    let file = find(call, id)?;
    let total = file.content.len();
    // A file never changes: its id says it all.
    let etag = format!("\"{id}\"");
    let headers = &call.head.headers;
    let field = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if field("if-none-match").is_some_and(|list| list == "*" || list.contains(&etag)) {
        return Ok(Answer::empty(StatusCode::NOT_MODIFIED).header("etag", &etag));
    }
    let range = match range(headers, total) {
        Some(_) if field("if-range").is_some_and(|known| known != etag) => None,
        other => other.transpose()?,
    };
    let name = utf8_percent_encode(&file.filename, NON_ALPHANUMERIC).to_string();
    let disposition = format!("attachment; filename*=UTF-8''{name}");
    let (status, part) = match range {
        Some(part) => (StatusCode::PARTIAL_CONTENT, part),
        None => (StatusCode::OK, 0..total),
    };
    let mut answer = Answer::bytes("application/octet-stream", "")
        .status(status)
        .header("etag", &etag)
        .header("accept-ranges", "bytes")
        .header("content-disposition", &disposition);
    if status == StatusCode::PARTIAL_CONTENT {
        let line = format!("bytes {}-{}/{total}", part.start, part.end - 1);
        answer = answer.header("content-range", &line);
    }
    answer.payload = Payload::Stream {
        length: Some(part.end - part.start),
        pieces: Box::new(pieces(file, part, call.scenario.chunks)),
    };
    Ok(answer)
}

fn find(call: &Call<'_>, id: &str) -> Result<Arc<StoredFile>, Fault> {
    call.state.files.get(id).ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> Fault {
    Fault::not_found(format!("No such File object: {id}")).param("id")
}

fn object(file: &StoredFile) -> Value {
    json!({
        "id": file.id,
        "object": "file",
        "bytes": file.content.len(),
        "created_at": file.created,
        "expires_at": null,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": null,
    })
}

fn pieces(
    file: Arc<StoredFile>,
    part: Range<u64>,
    chunks: Option<usize>,
) -> impl Iterator<Item = Piece> + Send {
    let size = match chunks {
        Some(count) => (part.end - part.start).div_ceil(count as u64).max(1),
        None => PIECE,
    };
    let mut at = part.start;
    std::iter::from_fn(move || {
        let bytes = file.content.slice(at, size.min(part.end - at));
        at += bytes.len() as u64;
        (!bytes.is_empty()).then(|| Piece::content(bytes, 0))
    })
}

/// A single `Range: bytes=...`. Several ranges, other units and nonsense are ignored, as RFC 9110
/// allows; one that lies beyond the end is refused.
fn range(headers: &HeaderMap, total: u64) -> Option<Result<Range<u64>, Fault>> {
    let (first, last) = headers.get("range")?.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (first.trim(), last.trim()) {
        ("", suffix) => total.saturating_sub(suffix.parse().ok()?)..total,
        (first, "") => first.parse().ok()?..total,
        (first, last) => {
            let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            if last < first {
                return None;
            }
            first..total.min(last.saturating_add(1))
        }
    };
    if range.start < range.end {
        return Some(Ok(range));
    }
    let fault = Fault::new(StatusCode::RANGE_NOT_SATISFIABLE, "The range lies beyond the end.");
    Some(Err(fault.header("content-range", format!("bytes */{total}"))))
}
