//! What handlers take from a request, refused in our own shape.

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// A JSON body.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

/// The query's parameters; unknown ones are refused if `T` refuses them.
#[derive(Debug)]
pub(crate) struct Params<T>(pub(crate) T);

/// The one parameter of the path.
#[derive(Debug)]
pub(crate) struct Id(pub(crate) String);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "The body has to be JSON: `content-type: application/json`.",
            ));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(unread)?;
        parse(&bytes).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|Query(query)| Self(query))
            .map_err(|rejection| ApiError::bad_request(rejection.body_text()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(id)| Self(id)).map_err(|_| ApiError::bad_request("The path is not readable as UTF-8."))
    }
}

/// Whether the body is said to be JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || essence.eq_ignore_ascii_case("application/merge-patch+json")
}

fn unread(rejection: BytesRejection) -> ApiError {
    match rejection.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => ApiError::bad_request("The body could not be read."),
    }
}

/// The body has more bytes than the route takes.
pub(crate) fn too_large() -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is larger than this path takes.")
}

/// Reads JSON; what it says of a mistake holds no value of the body, which may be a key.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let text = error.to_string();
        let text = text.rsplit_once(" at line ").map_or(&*text, |(text, _)| text);
        let message = without_value(text);
        ApiError::bad_request(format!(
            "The body is not as expected: {message} (line {}, column {}).",
            error.line(),
            error.column()
        ))
    })
}

/// `invalid type: string "sk-…", expected u64` without the value.
fn without_value(text: &str) -> String {
    let wrong = text.starts_with("invalid type")
        || text.starts_with("invalid value")
        || text.starts_with("invalid length");
    match text.rsplit_once(", expected ") {
        Some((_, expected)) if wrong => format!("expected {expected}"),
        _ if wrong => "a value has the wrong type".into(),
        // The name of a field or of a variant; a long one is hardly a name.
        _ if text.len() > 300 => "it has an unknown field or value".into(),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Login {
        #[expect(dead_code)]
        name: String,
        #[expect(dead_code)]
        limit: u32,
    }

    #[test]
    fn a_mistake_is_told_with_its_place_and_without_the_value() {
        let told = |body: &str| format!("{:?}", parse::<Login>(body.as_bytes()).unwrap_err());
        assert!(
            told("{\"name\":\n 1}").contains("expected a string (line 2, column 2)"),
            "{}",
            told("{\"name\":\n 1}")
        );
        assert!(!told("{\"limit\": \"sk-very-secret, expected \"}").contains("secret"));
        assert!(told("{\"nam\": 1}").contains("unknown field `nam`"));
        assert!(told("{\"name\": \"x\"").contains("line 1"));
    }
}
