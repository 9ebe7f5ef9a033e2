//! Entity tags: so that of two editors, the second learns of the first.

use http::header::{ETAG, IF_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::error::{ApiError, ApiResult};

/// The header that tells a revision.
pub(crate) fn etag(revision: i64) -> (HeaderName, HeaderValue) {
    let value = HeaderValue::try_from(format!("\"{revision}\""));
    (ETAG, value.unwrap_or_else(|_| HeaderValue::from_static("\"0\"")))
}

/// Whether the caller has read the revision that is there now.
///
/// # Errors
/// 428 without `If-Match`, 412 when it names other revisions.
pub(crate) fn if_match(headers: &HeaderMap, revision: i64) -> ApiResult<()> {
    let mut given = headers.get_all(IF_MATCH).iter().peekable();
    if given.peek().is_none() {
        return Err(ApiError::precondition_required());
    }
    let ours = format!("\"{revision}\"");
    let mut tags =
        given.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim);
    if tags.any(|tag| tag == "*" || tag == ours) { Ok(()) } else { Err(ApiError::precondition()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    #[test]
    fn the_revision_that_was_read_or_any_will_do() {
        let told = |value: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(IF_MATCH, value.parse().unwrap());
            }
            if_match(&headers, 17).map_err(|error| error.status())
        };
        assert_eq!(told(Some("\"17\"")), Ok(()));
        assert_eq!(told(Some("\"16\", \"17\"")), Ok(()));
        assert_eq!(told(Some("*")), Ok(()));
        assert_eq!(told(Some("\"1\"")), Err(StatusCode::PRECONDITION_FAILED));
        assert_eq!(told(Some("W/\"17\"")), Err(StatusCode::PRECONDITION_FAILED));
        assert_eq!(told(None), Err(StatusCode::PRECONDITION_REQUIRED));
    }
}
