//! Browsers' access: only what the configuration allows, whatever the platform says.

use aiproxy_config::model::Cors;
use aiproxy_core::ErrorKind;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};

/// What pages may read of an answer, besides the headers that every page may.
const EXPOSED: &str = "Location, Retry-After, x-request-id, request-id, x-aiproxy-request-id, x-should-retry, \
                       openai-processing-ms, x-ratelimit-limit-requests, x-ratelimit-limit-tokens, \
                       x-ratelimit-remaining-requests, x-ratelimit-remaining-tokens, \
                       x-ratelimit-reset-requests, x-ratelimit-reset-tokens";

/// Whether the request is a browser asking in advance.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The headers of the answer to a preflight.
///
/// # Errors
/// [`ErrorKind::OriginNotAllowed`].
pub(crate) fn preflight(cors: Option<&Cors>, request: &HeaderMap) -> Result<HeaderMap, ErrorKind> {
    let mut headers = HeaderMap::new();
    let cors = cors.ok_or(ErrorKind::OriginNotAllowed)?;
    if !allow(cors, request.get(ORIGIN), &mut headers) {
        return Err(ErrorKind::OriginNotAllowed);
    }
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    );
    // SDKs send headers of their own (x-stainless-…, X-OpenAI-Agents-SDK): what is asked for is
    // allowed, since the Proxy-Key decides and not the header.
    if let Some(wanted) = request.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(cors.max_age.as_secs()));
    Ok(headers)
}

/// Adds to an answer what lets the page that asked read it.
pub(crate) fn expose(cors: Option<&Cors>, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    if let Some(cors) = cors
        && allow(cors, origin, headers)
    {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
}

/// Whether a page of this origin may open a WebSocket: browsers ask nobody in advance there. Programs
/// have no origin, or name the host that they call.
///
/// # Errors
/// [`ErrorKind::OriginNotAllowed`].
pub(crate) fn check_socket(cors: Option<&Cors>, request: &HeaderMap) -> Result<(), ErrorKind> {
    let Some(origin) = request.get(ORIGIN) else { return Ok(()) };
    let own = |host: &HeaderValue| {
        let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        authority.is_some_and(|(_, authority)| authority.as_bytes().eq_ignore_ascii_case(host.as_bytes()))
    };
    if cors.is_some_and(|cors| allow(cors, Some(origin), &mut HeaderMap::new()))
        || request.get(HOST).is_some_and(own)
    {
        return Ok(());
    }
    Err(ErrorKind::OriginNotAllowed)
}

/// Allows the origin if the configuration does. Says `Vary: Origin` either way, so that no cache
/// hands one origin's answer to another.
fn allow(cors: &Cors, origin: Option<&HeaderValue>, headers: &mut HeaderMap) -> bool {
    headers.append(VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = origin else { return false };
    if !cors.origins.iter().any(|allowed| allowed == "*" || allowed.as_bytes() == origin.as_bytes()) {
        return false;
    }
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ask(origin: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, origin.parse().unwrap());
        headers.insert(ACCESS_CONTROL_REQUEST_METHOD, "POST".parse().unwrap());
        headers.insert(ACCESS_CONTROL_REQUEST_HEADERS, "authorization, x-openai-agents-sdk".parse().unwrap());
        headers
    }

    #[test]
    fn only_configured_origins_may_read() {
        let cors = Cors { origins: vec!["https://app.example".into()], max_age: Duration::from_secs(600) };
        let headers = preflight(Some(&cors), &ask("https://app.example")).unwrap();
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_HEADERS], "authorization, x-openai-agents-sdk");
        assert_eq!(headers[ACCESS_CONTROL_MAX_AGE], "600");
        for (cors, origin) in [
            (Some(&cors), "https://app.example.evil"),
            (Some(&cors), "http://app.example"),
            (Some(&cors), "null"),
            (None, "https://app.example"),
        ] {
            assert_eq!(preflight(cors, &ask(origin)), Err(ErrorKind::OriginNotAllowed), "{origin}");
            let mut answer = HeaderMap::new();
            expose(cors, ask(origin).get(ORIGIN), &mut answer);
            assert!(!answer.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN), "{origin}");
        }
    }
}
