//! Path patterns and prefixes as people write them.

use crate::complaint::{Complaint, shown};

/// A pattern in the form that [`aiproxy_platform::path::matches`] takes.
pub(crate) fn pattern(text: &str) -> Result<String, Complaint> {
    let lower = text.to_lowercase();
    let (literal, subtree) = match lower.strip_suffix("/**") {
        Some(rest) => (rest, "/**"),
        None => (&*lower, ""),
    };
    if literal.contains("**") {
        return Err(Complaint::new(
            format!("{} has `**` before its end", shown(text)),
            "`*` stands for one segment or its rest; `/**` goes to the end of the pattern",
        ));
    }
    let literal =
        if literal.is_empty() && !subtree.is_empty() { String::new() } else { absolute(text, literal)? };
    Ok(format!("{literal}{subtree}"))
}

/// A prefix of whole segments, without a slash at the end: `/` is the empty prefix. What is
/// compared (`from`) is in lower case like the paths it is compared with; what replaces it is
/// kept as written.
pub(crate) fn prefix(text: &str) -> Result<String, Complaint> {
    if text.contains('*') {
        return Err(Complaint::new(
            format!("{} is a pattern, not a prefix", shown(text)),
            "write whole path segments, such as `/v1`; what follows them is kept",
        ));
    }
    let path = absolute(text, text)?;
    Ok(if path == "/" { String::new() } else { path })
}

/// What is asked for as it stands: a path as elsewhere, and a query where needed. The two apart.
/// Messages do not show the query: people write keys there.
pub(crate) fn request(text: &str) -> Result<(&str, Option<&str>), Complaint> {
    if text.contains('#') {
        return Err(Complaint::new("the path has a fragment", "remove the `#` and what follows"));
    }
    if let Some((at, _)) = text.chars().enumerate().find(|(_, c)| !c.is_ascii_graphic()) {
        let message = format!("the path has a space or a character outside of ASCII at position {}", at + 1);
        return Err(Complaint::new(message, "write it like `/v1/models?limit=1`"));
    }
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    };
    absolute(path, path)?;
    if text.parse::<http::uri::PathAndQuery>().is_err() {
        return Err(Complaint::new(
            "no request can have this path and query",
            "write it like `/v1/models?limit=1`",
        ));
    }
    Ok((path, query))
}

fn absolute(text: &str, path: &str) -> Result<String, Complaint> {
    if !path.starts_with('/') {
        return Err(Complaint::new(
            format!("{} does not begin with `/`", shown(text)),
            "write it like `/v1/chat`",
        ));
    }
    if path.contains(['?', '#', '%', ';']) || path.contains(char::is_whitespace) {
        return Err(Complaint::new(
            format!("{} holds a character that no path has in its normal form", shown(text)),
            "leave out queries and parameters, and write characters themselves, not their `%` escapes",
        ));
    }
    aiproxy_platform::path::normalize(path)
        .map_err(|error| Complaint::bare(format!("{} cannot be used: {error}", shown(text))))?;
    Ok(if path.len() > 1 { path.trim_end_matches('/').to_owned() } else { path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (text, expected) in [
            ("/v1/chat/**", "/v1/chat/**"),
            ("/V1/Models/", "/v1/models"),
            ("/v1/files/*/content", "/v1/files/*/content"),
            ("/**", "/**"),
            ("/", "/"),
        ] {
            assert_eq!(pattern(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "v1", "/a/**/b", "/a//b", "/a/../b", "/a?b", "/a%20b", "**", "/a b", "/a**"] {
            assert!(pattern(text).is_err(), "{text}");
        }
    }

    #[test]
    fn requests() {
        for (text, expected) in [
            ("/", ("/", None)),
            ("/v1/Models/", ("/v1/Models/", None)),
            ("/v1/models?limit=1&a=%20/?b", ("/v1/models", Some("limit=1&a=%20/?b"))),
            ("/v1/models?", ("/v1/models", Some(""))),
        ] {
            assert_eq!(request(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "v1",
            "?x",
            "https://a.example/",
            "/a#b",
            "/a?b#c",
            "/a?b c",
            "/a b",
            "/模型",
            "/a?b=值",
            "/a//b",
            "/a/../b",
            "/a%2fb",
            "/a;b",
            "/a?b\n",
            "/a?<",
        ] {
            assert!(request(text).is_err(), "{text}");
        }
        let complaint = request("v1?key=hunter2").unwrap_err();
        assert!(!format!("{complaint:?}").contains("hunter2"));
    }

    #[test]
    fn prefixes() {
        for (text, expected) in [("/v1", "/v1"), ("/v1/", "/v1"), ("/", ""), ("/A/b", "/A/b")] {
            assert_eq!(prefix(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "v1", "/v1/*", "/a//b", "/a/.."] {
            assert!(prefix(text).is_err(), "{text}");
        }
    }
}
