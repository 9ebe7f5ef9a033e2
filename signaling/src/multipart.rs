//! `multipart/form-data` (RFC 7578), whole and small.

use std::fmt::Write as _;

use aiproxy_core::ids::random_key;
use memchr::memmem;

/// Parts of a body, at most.
const MOST: usize = 16;

/// The boundary that a `Content-Type` names.
pub(crate) fn boundary(content_type: &str) -> Option<&str> {
    let parameter = content_type.split(';').skip(1).map(str::trim).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim_end().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"'))
    })?;
    (1..=70).contains(&parameter.len()).then_some(parameter)
}

/// The parts of a body: names and contents.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parts<'a>(boundary: &str, body: &'a [u8]) -> Result<Vec<(String, &'a [u8])>, &'static str> {
    let first = format!("--{boundary}");
    let next = format!("\r\n--{boundary}");
    let mut rest = match body.strip_prefix(first.as_bytes()) {
        Some(rest) => rest,
        None => after(body, &next).ok_or("the boundary that its head names does not occur")?,
    };
    let mut parts = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        // White space may stand behind a boundary.
        let line = memmem::find(rest, b"\r\n").ok_or("it ends within a boundary")?;
        if !rest[..line].iter().all(|byte| matches!(byte, b' ' | b'\t')) {
            return Err("something stands behind a boundary");
        }
        // The head may be empty: it ends with the line of the boundary then.
        let head = &rest[line..];
        let end = memmem::find(head, b"\r\n\r\n").ok_or("a part has no end of its head")?;
        let content = &head[end + 4..];
        let length = memmem::find(content, next.as_bytes()).ok_or("the last boundary is missing")?;
        let name = name(&head[..end]).ok_or("a part has no name")?;
        if parts.len() == MOST {
            return Err("it has too many parts");
        }
        parts.push((name, &content[..length]));
        rest = &content[length + next.len()..];
    }
}

fn after<'a>(body: &'a [u8], mark: &str) -> Option<&'a [u8]> {
    let at = memmem::find(body, mark.as_bytes())?;
    body.get(at + mark.len()..)
}

fn name(head: &[u8]) -> Option<String> {
    let head = std::str::from_utf8(head).ok()?;
    head.split("\r\n").find_map(|line| {
        let (field, value) = line.split_once(':')?;
        if !field.trim().eq_ignore_ascii_case("content-disposition") {
            return None;
        }
        value.split(';').skip(1).map(str::trim).find_map(|parameter| {
            let (key, value) = parameter.split_once('=')?;
            key.trim_end().eq_ignore_ascii_case("name").then(|| value.trim().trim_matches('"').to_owned())
        })
    })
}

/// A body of these parts, each with its name and type, and its `Content-Type`.
pub(crate) fn compose(parts: &[(&str, &str, &str)]) -> (String, String) {
    let boundary = random_key("aiproxy-", 24);
    let mut body = String::with_capacity(parts.iter().map(|(_, _, content)| content.len() + 160).sum());
    for (name, kind, content) in parts {
        let _ = write!(
            body,
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\nContent-Type: {kind}\r\n\r\n{content}\r\n"
        );
    }
    let _ = write!(body, "--{boundary}--\r\n");
    (format!("multipart/form-data; boundary={boundary}"), body)
}
