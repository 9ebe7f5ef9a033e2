//! `base_url`: where a platform is.

use std::net::IpAddr;

use url::{Host, Url};

use crate::complaint::Complaint;
use crate::model::BaseUrl;

const EXAMPLE: &str = "write it like `https://api.openai.com`";

/// Takes a `base_url` apart. Messages never show it: it may hold a password.
pub(crate) fn parse(text: &str) -> Result<BaseUrl, Complaint> {
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("ws://") || lower.starts_with("wss://") {
        return Err(Complaint::new(
            "`base_url` begins with `http://` or `https://`",
            "WebSocket calls use the same address: write `https://` in place of `wss://`",
        ));
    }
    if !lower.starts_with("http://") && !lower.starts_with("https://") {
        // What parses with a scheme before it holds no password and no query: it may be shown.
        let whole = format!("https://{text}");
        let suggestion = match parse(&whole) {
            Ok(base) if base.host.contains('.') && !text.contains(':') => format!("write `{whole}`"),
            _ => EXAMPLE.to_owned(),
        };
        return Err(Complaint::new("`base_url` begins with `http://` or `https://`", suggestion));
    }
    // The URL standard tolerates these; a typing error is likelier than intent.
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err(Complaint::new("`base_url` holds a space, control character or backslash", EXAMPLE));
    }
    let url = Url::parse(text)
        .map_err(|error| Complaint::new(format!("`base_url` is not a URL: {error}"), EXAMPLE))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Complaint::new(
            "`base_url` may not hold a user name or password",
            "remove what stands before the `@`; the key belongs into `api_key`",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Complaint::new(
            "`base_url` may not hold a query or fragment",
            "remove what begins with `?` or `#`; callers send their own query",
        ));
    }
    let tls = url.scheme() == "https";
    let port = url.port_or_known_default().filter(|port| *port != 0);
    let (Some(host), Some(port)) = (url.host(), port) else {
        return Err(Complaint::new("`base_url` names no host or port", EXAMPLE));
    };
    let path = url.path().trim_end_matches('/').to_owned();
    if !path.is_empty() {
        aiproxy_platform::path::normalize(&path)
            .map_err(|error| Complaint::bare(format!("the path of `base_url` cannot be used: {error}")))?;
    }
    let bracketed = host.to_string();
    let authority = match url.port() {
        Some(port) => format!("{bracketed}:{port}"),
        None => bracketed,
    };
    let host = match host {
        Host::Domain(name) => name.to_owned(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    };
    Ok(BaseUrl { tls, host, port, path, authority })
}

/// Whether the host is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (text, tls, host, port, path, authority) in [
            ("https://api.openai.com", true, "api.openai.com", 443, "", "api.openai.com"),
            ("https://API.OpenAI.com/", true, "api.openai.com", 443, "", "api.openai.com"),
            ("http://127.0.0.1:9000/x/y/", false, "127.0.0.1", 9000, "/x/y", "127.0.0.1:9000"),
            ("https://[::1]:8443", true, "::1", 8443, "", "[::1]:8443"),
            ("https://[::1]", true, "::1", 443, "", "[::1]"),
            ("https://a.example:443/v1", true, "a.example", 443, "/v1", "a.example"),
            ("http://a.example:443", false, "a.example", 443, "", "a.example:443"),
            ("https://例子.example", true, "xn--fsqu00a.example", 443, "", "xn--fsqu00a.example"),
        ] {
            let expected =
                BaseUrl { tls, host: host.into(), port, path: path.into(), authority: authority.into() };
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn other_urls_are_refused_without_being_shown() {
        for text in [
            "",
            "api.openai.com",
            "ftp://a.example",
            "wss://api.openai.com",
            "https://",
            "https:api.openai.com",
            "https://user:hunter2@a.example",
            "https://user@a.example",
            "https://a.example/?key=hunter2",
            "https://a.example/#hunter2",
            "https://a.example/a b",
            "https://a.example:99999",
            "https://a.example:0",
            "https://a.example//x",
            "https://a.example\\x",
        ] {
            let complaint = parse(text).unwrap_err();
            assert!(!format!("{complaint:?}").contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn loopback() {
        assert!(
            is_loopback("localhost")
                && is_loopback("127.8.0.1")
                && is_loopback("::1")
                && is_loopback("a.localhost")
        );
        assert!(!is_loopback("10.0.0.1") && !is_loopback("localhost.example"));
    }
}
