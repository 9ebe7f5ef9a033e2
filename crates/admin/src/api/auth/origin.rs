//! Whether a browser sends a request from a page of ours: a page elsewhere can make it send one.

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, StatusCode};

use crate::api::error::{ApiError, ApiResult};

/// Refuses what a browser says comes from another page. Other programs say nothing.
///
/// # Errors
/// 403 `wrong_origin`.
pub(crate) fn check(headers: &HeaderMap) -> ApiResult<()> {
    let site = headers.get("sec-fetch-site").map(|value| value.to_str().unwrap_or_default());
    let sent_by_us = site.is_none_or(|site| matches!(site, "same-origin" | "none"));
    let mut origins = headers.get_all(ORIGIN).iter();
    let ours = match (origins.next(), origins.next()) {
        (None, _) => true,
        (Some(origin), None) => {
            let host = headers.get(HOST).and_then(|host| host.to_str().ok());
            host.zip(origin.to_str().ok()).is_some_and(|(host, origin)| same(origin, host))
        }
        _ => false,
    };
    if sent_by_us && ours {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "wrong_origin",
        "A browser sends this from a page of another site, or a proxy before this listener changes `Host`.",
    ))
}

/// Whether an `Origin` is the site that `Host` names. A proxy that ends TLS may stand between, so
/// the scheme may be either.
fn same(origin: &str, host: &str) -> bool {
    let (authority, port) = match (origin.strip_prefix("http://"), origin.strip_prefix("https://")) {
        (Some(authority), _) => (authority, ":80"),
        (_, Some(authority)) => (authority, ":443"),
        _ => return false,
    };
    let plain = |text: &'_ str| text.strip_suffix(port).unwrap_or(text).to_ascii_lowercase();
    !authority.is_empty() && plain(authority) == plain(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(host: &str, origin: Option<&str>, site: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        if let Some(site) = site {
            headers.insert("sec-fetch-site", site.parse().unwrap());
        }
        check(&headers).is_ok()
    }

    #[test]
    fn pages_of_ours_and_programs_may() {
        assert!(told("127.0.0.1:8081", None, None));
        assert!(told("127.0.0.1:8081", Some("http://127.0.0.1:8081"), Some("same-origin")));
        assert!(told("admin.internal", Some("https://admin.internal:443"), None));
        assert!(told("Admin.internal:80", Some("http://admin.internal"), None));
        assert!(told("[::1]:8081", Some("http://[::1]:8081"), None));
    }

    #[test]
    fn pages_elsewhere_may_not() {
        for origin in [
            "null",
            "",
            "http://",
            "http://evil.example",
            "http://127.0.0.1:9000",
            "http://127.0.0.1",
            "ftp://127.0.0.1:8081",
            "http://127.0.0.1:8081.evil.example",
            "http://127.0.0.1:8081/",
            "http://x@127.0.0.1:8081",
        ] {
            assert!(!told("127.0.0.1:8081", Some(origin), None), "{origin}");
        }
        for site in ["cross-site", "same-site", ""] {
            assert!(!told("127.0.0.1:8081", None, Some(site)), "{site}");
        }
    }
}
