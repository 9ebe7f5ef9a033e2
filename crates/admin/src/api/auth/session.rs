//! Sessions of browsers: a cookie, and a token that other sites' pages cannot know.

use aiproxy_core::KeyDigest;
use aiproxy_core::ids::random_key;
use aiproxy_store::Session;
use http::header::{COOKIE, USER_AGENT};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::api::error::{ApiError, ApiResult};

/// The cookie's name.
pub(crate) const NAME: &str = "aiproxy_session";
/// Where the token goes that other sites' pages do not know.
pub(crate) const CSRF_HEADER: &str = "x-csrf-token";
/// Base-62 characters of a session's id: 256 bits.
const ID_LENGTH: usize = 43;
/// Bytes kept of what the browser calls itself.
const AGENT_BYTES: usize = 200;
/// Seconds of grace between uses that are written down.
pub(crate) const TOUCH: i64 = 60;

/// A session as it begins: the only time that its id is known.
pub(crate) struct Fresh {
    pub(crate) id: String,
    pub(crate) csrf: String,
    pub(crate) session: Session,
}

/// Begins a session that ends `total` seconds from now at the latest.
pub(crate) fn begin(administrator: &str, now: i64, total: i64, address: &str, headers: &HeaderMap) -> Fresh {
    let id = random_key("", ID_LENGTH);
    let csrf = csrf_of(&id);
    let agent = headers.get(USER_AGENT).map_or("", |agent| agent.to_str().unwrap_or_default());
    let session = Session {
        sha256: digest(&id),
        administrator: administrator.into(),
        csrf: digest(&csrf),
        created_at: now,
        seen_at: now,
        expires_at: now.saturating_add(total),
        address: address.into(),
        agent: agent[..agent.floor_char_boundary(AGENT_BYTES)].into(),
    };
    Fresh { id, csrf, session }
}

/// The token of a session: made of its id, so that a page that is loaded again can be told it. The
/// id cannot be made of the token.
pub(crate) fn csrf_of(id: &str) -> String {
    KeyDigest::of(format!("aiproxy csrf {id}").as_bytes()).hex()
}

/// SHA-256: what is stored of ids and tokens.
pub(crate) fn digest(text: &str) -> [u8; 32] {
    *KeyDigest::of(text.as_bytes()).as_bytes()
}

/// The session's id in the request's cookies.
pub(crate) fn id_in(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find_map(|(name, value)| (name == NAME && value.len() == ID_LENGTH).then_some(value))
}

/// Whether the session goes on: neither over nor idle for too long (seconds).
pub(crate) fn alive(session: &Session, now: i64, idle: i64) -> bool {
    now < session.expires_at && now < session.seen_at.saturating_add(idle)
}

/// Refuses a change that does not bring the session's token.
///
/// # Errors
/// 403 `csrf`.
pub(crate) fn check_csrf(session: &Session, headers: &HeaderMap) -> ApiResult<()> {
    let given = headers.get(CSRF_HEADER).and_then(|value| value.to_str().ok());
    if given.is_some_and(|given| digest(given) == session.csrf) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "csrf",
        "Changes made with the session's cookie need its token in `x-csrf-token`; /api/v1/me tells it.",
    ))
}

/// The cookie of a session. Over TLS, which a proxy may end, it stays on TLS.
pub(crate) fn cookie(id: &str, seconds: i64, headers: &HeaderMap) -> ApiResult<HeaderValue> {
    let tls = headers
        .get("x-forwarded-proto")
        .is_some_and(|scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"));
    let secure = if tls { "; Secure" } else { "" };
    let text = format!("{NAME}={id}; HttpOnly; SameSite=Strict; Path=/api; Max-Age={seconds}{secure}");
    HeaderValue::try_from(text).map_err(|_| ApiError::bad_request("The cookie cannot be written."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_when_idle_and_in_any_case() {
        let session = begin("a1", 1000, 500, "::1", &HeaderMap::new()).session;
        assert!(alive(&session, 1099, 100) && !alive(&session, 1100, 100));
        let busy = Session { seen_at: 1499, ..session };
        assert!(alive(&busy, 1499, 100) && !alive(&busy, 1500, 100));
    }

    #[test]
    fn the_id_is_found_among_cookies_and_nowhere_stored() {
        let fresh = begin("a1", 0, 1, "::1", &HeaderMap::new());
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, "theme=dark; aiproxy_session=short".parse().unwrap());
        headers.append(COOKIE, format!("a=b;{NAME}={}", fresh.id).parse().unwrap());
        assert_eq!(id_in(&headers), Some(&*fresh.id));
        assert_eq!(digest(&fresh.id), fresh.session.sha256);
        assert_eq!(csrf_of(&fresh.id), fresh.csrf);
        assert!(!fresh.csrf.contains(&fresh.id));
    }

    #[test]
    fn a_change_needs_the_token_of_the_same_session() {
        let (ours, other) =
            (begin("a1", 0, 1, "", &HeaderMap::new()), begin("a1", 0, 1, "", &HeaderMap::new()));
        let mut headers = HeaderMap::new();
        assert!(check_csrf(&ours.session, &headers).is_err());
        headers.insert(CSRF_HEADER, other.csrf.parse().unwrap());
        assert!(check_csrf(&ours.session, &headers).is_err());
        headers.insert(CSRF_HEADER, ours.csrf.parse().unwrap());
        assert!(check_csrf(&ours.session, &headers).is_ok());
    }
}
