//! The normal form of paths, and patterns over it.
//!
//! Rules about paths are worth nothing if the platform reads the path differently than we do.
//! So a path that two readers could understand differently (dot segments, empty segments, encoded
//! slashes, backslashes, control bytes, broken escapes) is refused outright, and patterns are
//! matched against one normal form: percent-decoded, lower case, without matrix parameters
//! (`;…`) and without a slash at the end.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// It does not begin with a slash.
    NotAbsolute,
    /// It has a `.` or `..` segment, plain or encoded.
    DotSegment,
    /// It has an empty segment (`//`).
    EmptySegment,
    /// It has an encoded slash or a backslash in either form.
    HiddenSlash,
    /// It has an encoded `?` or `#`.
    HiddenQuery,
    /// It has a control byte, plain or encoded.
    Control,
    /// It has a `%` that no two hexadecimal digits follow.
    BadEscape,
    /// Its escapes do not decode to UTF-8.
    NotUtf8,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "the request target must be a path that begins with '/'",
            Self::DotSegment => "the path has a '.' or '..' segment",
            Self::EmptySegment => {
                "the path has an empty segment ('//'); check the base URL of your SDK for a doubled slash"
            }
            Self::HiddenSlash => "the path has an encoded slash or a backslash",
            Self::HiddenQuery => "the path has an encoded '?' or '#'",
            Self::Control => "the path has a control character",
            Self::BadEscape => "the path has a '%' that two hexadecimal digits do not follow",
            Self::NotUtf8 => "the path's escapes are not UTF-8",
        })
    }
}

impl std::error::Error for PathError {}

/// The normal form of a raw path (without query), or why there is none.
///
/// # Errors
/// When two readers could understand the path differently; see [`PathError`].
pub fn normalize(raw: &str) -> Result<Cow<'_, str>, PathError> {
    if !raw.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    if raw.bytes().all(is_plain) {
        check_segments(raw)?;
        return Ok(Cow::Borrowed(trim(raw)));
    }
    check_escapes(raw)?;
    let decoded = decode(raw)?;
    check_decoded(&decoded)?;
    // A platform behind two decoding hops would see this: it has to be as harmless.
    let again = match check_escapes(&decoded) {
        Ok(()) => decode(&decoded)?,
        Err(PathError::BadEscape) => Cow::Borrowed(&*decoded),
        Err(error) => return Err(error),
    };
    check_decoded(&again)?;
    let mut normal = String::with_capacity(again.len());
    for segment in again.split('/').skip(1) {
        let name = segment.split_once(';').map_or(segment, |(name, _)| name);
        normal.push('/');
        normal.push_str(&name.trim().to_lowercase());
    }
    check_segments(&normal)?;
    let length = trim(&normal).len();
    normal.truncate(length);
    Ok(Cow::Owned(normal))
}

/// Whether `pattern` covers the normal path. Segments are literal or `*` (one segment, or its
/// rest when something stands before it); `/**` at the end covers the path itself and all below.
#[must_use]
pub fn matches(pattern: &str, normal: &str) -> bool {
    // Most patterns differ from most paths within a few bytes, long before any star.
    let same = pattern.bytes().zip(normal.bytes()).take_while(|(want, have)| want == have).count();
    match pattern.as_bytes()[same..] {
        [] => return same == normal.len(),
        [first, ..] if first != b'*' && !pattern.as_bytes()[..same].contains(&b'*') => {
            return same == normal.len() && &pattern.as_bytes()[same..] == b"/**";
        }
        _ => {}
    }
    let (pattern, subtree) = match pattern.strip_suffix("/**") {
        Some(rest) => (rest, true),
        None => (pattern, false),
    };
    let mut path = normal.split('/').skip(1);
    for want in pattern.split('/').skip(1) {
        let Some(have) = path.next() else { return false };
        if !crate::glob::matches(want, have) {
            return false;
        }
    }
    subtree || path.next().is_none()
}

/// Whether the normal path begins with these whole segments.
#[must_use]
pub fn has_prefix(normal: &str, prefix: &str) -> bool {
    normal
        .strip_prefix(prefix.trim_end_matches('/'))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Bytes that mean the same to every reader and are already in lower case.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b':' | b'@' | b'~' | b',' | b'+' | b'=')
}

fn trim(path: &str) -> &str {
    if path.len() > 1 { path.strip_suffix('/').unwrap_or(path) } else { path }
}

fn decode(text: &str) -> Result<Cow<'_, str>, PathError> {
    percent_decode_str(text).decode_utf8().map_err(|_| PathError::NotUtf8)
}

fn check_escapes(text: &str) -> Result<(), PathError> {
    let bytes = text.as_bytes();
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%') {
        match (bytes.get(at + 1), bytes.get(at + 2)) {
            (Some(a), Some(b)) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
                match (a, b.to_ascii_lowercase()) {
                    (b'2', b'f') | (b'5', b'c') => return Err(PathError::HiddenSlash),
                    _ => {}
                }
            }
            _ => return Err(PathError::BadEscape),
        }
    }
    Ok(())
}

fn check_decoded(text: &str) -> Result<(), PathError> {
    if text.chars().any(char::is_control) {
        return Err(PathError::Control);
    }
    if text.contains('\\') {
        return Err(PathError::HiddenSlash);
    }
    if text.contains(['?', '#']) {
        return Err(PathError::HiddenQuery);
    }
    check_segments(text)
}

fn check_segments(path: &str) -> Result<(), PathError> {
    let inner = path.strip_suffix('/').unwrap_or(path);
    for segment in inner.split('/').skip(1) {
        // `..;x` is a dot segment to servers that cut matrix parameters off.
        match segment.split_once(';').map_or(segment, |(name, _)| name) {
            "." | ".." => return Err(PathError::DotSegment),
            "" if segment.is_empty() => return Err(PathError::EmptySegment),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_normal_form() {
        for (raw, normal) in [
            ("/", "/"),
            ("/v1/models", "/v1/models"),
            ("/v1/models/", "/v1/models"),
            ("/V1/Models", "/v1/models"),
            ("/v1/mod%65ls", "/v1/models"),
            ("/api/v1/t%6Fkens", "/api/v1/tokens"),
            ("/api/v1/t%256Fkens", "/api/v1/tokens"),
            ("/api/v1/tokens;a=b", "/api/v1/tokens"),
            ("/v1/files/%E6%96%87%E4%BB%B6", "/v1/files/文件"),
            ("/v1beta/models/gemini-pro:generateContent", "/v1beta/models/gemini-pro:generatecontent"),
            ("/v1/x%20y", "/v1/x y"),
            ("/v1/tokens%20", "/v1/tokens"),
            ("/v1/100%25", "/v1/100%"),
        ] {
            assert_eq!(normalize(raw).as_deref(), Ok(normal), "{raw}");
        }
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for (raw, error) in [
            ("v1", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("/v1/../admin", PathError::DotSegment),
            ("/v1/%2e%2e/admin", PathError::DotSegment),
            ("/v1/%252e%252e/admin", PathError::DotSegment),
            ("/v1/..;/admin", PathError::DotSegment),
            ("/./v1", PathError::DotSegment),
            ("//evil.example/v1", PathError::EmptySegment),
            ("/v1//models", PathError::EmptySegment),
            ("/v1/a%2Fb", PathError::HiddenSlash),
            ("/v1/a%252fb", PathError::HiddenSlash),
            ("/v1/a%5cb", PathError::HiddenSlash),
            ("/v1/a\\b", PathError::HiddenSlash),
            ("/v1/a%3Fx", PathError::HiddenQuery),
            ("/v1/a%23x", PathError::HiddenQuery),
            ("/v1/a%00", PathError::Control),
            ("/v1/a%0d%0ab", PathError::Control),
            ("/v1/a%zz", PathError::BadEscape),
            ("/v1/a%4", PathError::BadEscape),
            ("/v1/%ff", PathError::NotUtf8),
        ] {
            assert_eq!(normalize(raw), Err(error), "{raw}");
        }
    }

    #[test]
    fn patterns_cover_segments_and_subtrees() {
        for (pattern, path, expected) in [
            ("/v1/organization/**", "/v1/organization", true),
            ("/v1/organization/**", "/v1/organization/users/7", true),
            ("/v1/organization/**", "/v1/organizations", false),
            ("/v1/files/*/content", "/v1/files/f1/content", true),
            ("/v1/files/*/content", "/v1/files/f1", false),
            ("/v1/files", "/v1/files/f1", false),
            ("/v1*/auth_tokens", "/v1alpha/auth_tokens", true),
            ("/v1*/auth_tokens/**", "/v1alpha/auth_tokens", true),
            ("/v1*/auth_tokens/**", "/v1alpha/auth_tokensx", false),
            ("/v1/user", "/v1/user", true),
            ("/v1/user", "/v1/user/subscription", false),
            ("/v1/user/subscription", "/v1/user", false),
            ("/v1/a/**", "/v1/ab", false),
            ("/a/*/b/**", "/a/*/b", true),
            ("/**", "/anything/at/all", true),
            ("/v1/models/*:generatecontent", "/v1/models/gemini:generatecontent", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} over {path}");
        }
        assert!(has_prefix("/v1/models", "/v1/"));
        assert!(has_prefix("/v1", "/v1/"));
        assert!(!has_prefix("/v1beta/models", "/v1"));
    }
}
