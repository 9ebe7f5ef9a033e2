//! The API's page for browsers: signs in, lists every operation, sends requests.

use aiproxy_core::ids::random_key;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_FRAME_OPTIONS};

/// One file without anything from elsewhere.
const PAGE: &str = include_str!("page.html");
/// What the page has in place of a fresh nonce.
const NONCE: &str = "{{nonce}}";

/// The page. Its scripts and styles run by a nonce that no one else knows.
pub(crate) async fn show() -> Response {
    let nonce = random_key("", 22);
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, &policy),
        (REFERRER_POLICY, "no-referrer"),
        (X_FRAME_OPTIONS, "DENY"),
    ];
    (headers, PAGE.replace(NONCE, &nonce)).into_response()
}
