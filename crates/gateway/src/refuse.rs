//! Causes as answers, in the shape that the caller's SDK parses. The one place that maps them.

use aiproxy_core::{ErrorKind, Fault};
use aiproxy_platform::ErrorShape;
use aiproxy_routing::Refusal;
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, WWW_AUTHENTICATE,
};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::record::Record;
use crate::relayed::AnswerBody;

/// Tells OpenAI's SDKs that sending the same request again is of no use.
const SHOULD_RETRY: &str = "x-should-retry";

/// Names the request in every answer that a request got.
pub(crate) const OUR_ID: &str = "x-aiproxy-request-id";

/// A whole HTTP/1.1 answer to what is no request yet: nobody has asked for a shape.
pub(crate) fn bare(kind: ErrorKind) -> Vec<u8> {
    let body = body_of(kind);
    let status = kind.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let more = match (kind.may_retry(), status) {
        (_, StatusCode::SERVICE_UNAVAILABLE) => "retry-after: 1\r\n",
        (false, _) => "x-should-retry: false\r\n",
        (true, _) => "",
    };
    format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/json; charset=utf-8\r\ncache-control: no-store\r\n\
         content-length: {}\r\n{more}connection: close\r\n\r\n{body}",
        status.as_u16(),
        body.len()
    )
    .into_bytes()
}

/// The body of an answer to what is no request yet.
pub(crate) fn body_of(kind: ErrorKind) -> String {
    body(kind, kind.message(), ErrorShape::OpenAi, "")
}

/// The answer to a refused request; its record ends with it.
pub(crate) fn answer(refusal: &Refusal, shape: ErrorShape, mut record: Record) -> Response<AnswerBody> {
    let kind = refusal.kind;
    record.refused(kind);
    let body = body(kind, refusal.message(), shape, record.request_id().as_str());
    let mut response = Response::new(AnswerBody::own(Some(Bytes::from(body)), record));
    *response.status_mut() = kind.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !kind.may_retry() {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    match kind.status() {
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"aiproxy\""));
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            headers.insert(RETRY_AFTER, HeaderValue::from(refusal.retry_after.unwrap_or(1)));
        }
        StatusCode::UPGRADE_REQUIRED => {
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        }
        _ => {}
    }
    response
}

/// The body in one of the platforms' error shapes.
fn body(kind: ErrorKind, message: &str, shape: ErrorShape, request_id: &str) -> String {
    let status = kind.status();
    let code = kind.code();
    match shape {
        ErrorShape::OpenAi => {
            json!({ "error": { "message": message, "type": openai_type(kind), "param": null, "code": code } })
        }
        ErrorShape::Anthropic => json!({
            "type": "error",
            "error": { "type": anthropic_type(kind), "message": message, "code": code },
            "request_id": request_id,
        }),
        ErrorShape::Google => json!({
            "error": {
                "code": status.as_u16(),
                "message": message,
                "status": google_status(status),
                "details": [{
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": code,
                    "domain": "aiproxy",
                }],
            }
        }),
        ErrorShape::DashScope => json!({ "code": code, "message": message, "request_id": request_id }),
        ErrorShape::Deepgram => json!({ "err_code": code, "err_msg": message, "request_id": request_id }),
        ErrorShape::ElevenLabs => json!({ "detail": { "status": code, "message": message } }),
    }
    .to_string()
}

fn openai_type(kind: ErrorKind) -> &'static str {
    match (kind.status().as_u16(), kind.fault()) {
        (401, _) => "authentication_error",
        (403, _) => "permission_error",
        (429, _) => "rate_limit_error",
        (_, Fault::Caller) => "invalid_request_error",
        (_, Fault::Channel) => "upstream_error",
        (_, Fault::Us) => "server_error",
    }
}

fn anthropic_type(kind: ErrorKind) -> &'static str {
    match kind.status().as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        500..=599 => "api_error",
        _ => "invalid_request_error",
    }
}

fn google_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        408 | 504 => "DEADLINE_EXCEEDED",
        429 => "RESOURCE_EXHAUSTED",
        501 => "UNIMPLEMENTED",
        500 => "INTERNAL",
        502 | 503 => "UNAVAILABLE",
        _ => "INVALID_ARGUMENT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_answers_are_whole() {
        for kind in [ErrorKind::Overloaded, ErrorKind::RequestTimeout, ErrorKind::BadRequest] {
            let text = String::from_utf8(bare(kind)).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {}", kind.status())), "{head}");
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["error"]["code"], kind.code());
            assert_eq!(body["error"]["message"], kind.message());
        }
        assert!(String::from_utf8(bare(ErrorKind::Overloaded)).unwrap().contains("retry-after: 1\r\n"));
    }

    #[test]
    fn every_kind_has_a_body_in_every_shape() {
        let at = |shape, pointer: &str, kind| {
            let text = body(kind, "说明", shape, "req_1");
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            value.pointer(pointer).cloned().unwrap_or_else(|| panic!("{pointer} in {text}"))
        };
        for kind in ErrorKind::ALL.iter().copied() {
            assert_eq!(at(ErrorShape::OpenAi, "/error/code", kind), kind.code());
            assert_eq!(at(ErrorShape::OpenAi, "/error/message", kind), "说明");
            assert_eq!(at(ErrorShape::OpenAi, "/error/param", kind), serde_json::Value::Null);
            assert_eq!(at(ErrorShape::Anthropic, "/type", kind), "error");
            assert_eq!(at(ErrorShape::Anthropic, "/error/message", kind), "说明");
            assert_eq!(at(ErrorShape::Google, "/error/code", kind), kind.status().as_u16());
            assert_eq!(at(ErrorShape::DashScope, "/code", kind), kind.code());
            assert_eq!(at(ErrorShape::Deepgram, "/err_code", kind), kind.code());
            assert_eq!(at(ErrorShape::ElevenLabs, "/detail/status", kind), kind.code());
        }
    }
}
