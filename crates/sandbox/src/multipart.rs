//! `multipart/form-data`, read part by part as the bytes come; nothing is kept but the unread rest
//! of one network read.

use crate::http::RequestBody;
use crate::shape::Fault;
use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use memchr::memmem;
use percent_encoding::percent_decode_str;

/// All headers of one part together.
const HEAD_LIMIT: usize = 16 << 10;

/// The head of a part.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) filename: Option<String>,
}

#[derive(PartialEq, Eq)]
enum At {
    /// Before the first delimiter, or within a part.
    Data,
    /// Right behind a delimiter.
    Delimiter,
    End,
}

/// A form being read.
pub(crate) struct Multipart<'a> {
    body: &'a mut RequestBody,
    buffer: BytesMut,
    delimiter: memmem::Finder<'static>,
    at: At,
}

impl<'a> Multipart<'a> {
    /// A fault when the request is no form.
    pub(crate) fn new(headers: &HeaderMap, body: &'a mut RequestBody) -> Result<Self, Fault> {
        let boundary = headers
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .and_then(boundary)
            .ok_or_else(|| Fault::bad_request("Expected multipart/form-data with a boundary."))?;
        let delimiter = format!("\r\n--{boundary}");
        Ok(Multipart {
            body,
            // The line break that the first delimiter lacks.
            buffer: BytesMut::from("\r\n"),
            delimiter: memmem::Finder::new(delimiter.as_bytes()).into_owned(),
            at: At::Data,
        })
    }

    /// The next part; what is unread of the one before is skipped.
    pub(crate) async fn next_part(&mut self) -> Result<Option<Part>, Fault> {
        while self.at == At::Data {
            self.chunk().await?;
        }
        if self.at == At::End {
            return Ok(None);
        }
        while self.buffer.len() < 2 {
            self.fill().await?;
        }
        if self.buffer.starts_with(b"--") {
            self.at = At::End;
            self.buffer.clear();
            // The epilogue belongs to the body.
            while self.body.chunk().await?.is_some() {}
            return Ok(None);
        }
        let end = loop {
            if let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
            if self.buffer.len() > HEAD_LIMIT {
                return Err(Fault::bad_request("A part's headers are too long."));
            }
            self.fill().await?;
        };
        let head = self.buffer.split_to(end + 4);
        self.at = At::Data;
        part(&String::from_utf8_lossy(&head))
            .map(Some)
            .ok_or_else(|| Fault::bad_request("A part lacks its name."))
    }

    /// The next bytes of the current part; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        let length = self.delimiter.needle().len();
        while self.at == At::Data {
            match self.delimiter.find(&self.buffer) {
                Some(0) => {
                    self.buffer.advance(length);
                    self.at = At::Delimiter;
                }
                Some(end) => return Ok(Some(self.buffer.split_to(end).freeze())),
                // The last bytes may be the begin of a delimiter.
                None if self.buffer.len() >= length => {
                    let safe = self.buffer.len() - (length - 1);
                    return Ok(Some(self.buffer.split_to(safe).freeze()));
                }
                None => self.fill().await?,
            }
        }
        Ok(None)
    }

    /// The rest of the current part as text.
    pub(crate) async fn text(&mut self, limit: usize) -> Result<String, Fault> {
        let mut whole = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if whole.len() + chunk.len() > limit {
                return Err(Fault::bad_request("A form field is too long."));
            }
            whole.extend_from_slice(&chunk);
        }
        String::from_utf8(whole).map_err(|_| Fault::bad_request("A form field is not UTF-8."))
    }

    async fn fill(&mut self) -> Result<(), Fault> {
        let Some(chunk) = self.body.chunk().await? else {
            return Err(Fault::bad_request("The form ends before its last boundary."));
        };
        self.buffer.extend_from_slice(&chunk);
        Ok(())
    }
}

fn boundary(content_type: &str) -> Option<String> {
    let (kind, params) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = param(params, "boundary")?;
    // The bound of RFC 2046.
    (1..=70).contains(&boundary.len()).then_some(boundary)
}

fn part(head: &str) -> Option<Part> {
    let disposition = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    let (_, params) = disposition.split_once(';')?;
    // RFC 5987 goes before the plain form, which is then a fallback.
    let extended = param(params, "filename*").and_then(|value| {
        let encoded = value.splitn(3, '\'').nth(2)?.to_owned();
        Some(percent_decode_str(&encoded).decode_utf8_lossy().into_owned())
    });
    let plain = || param(params, "filename").map(|value| unescaped(&value));
    Some(Part { name: unescaped(&param(params, "name")?), filename: extended.or_else(plain) })
}

/// Browsers, undici, httpx and urllib3 escape just these three in quoted strings.
fn unescaped(value: &str) -> String {
    value.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n")
}

/// The value of `; name=value` or `; name="value"`.
fn param(params: &str, wanted: &str) -> Option<String> {
    let mut rest = params;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let (name, tail) = rest.split_once('=')?;
        let (value, tail) = match tail.trim_start().strip_prefix('"') {
            Some(quoted) => quoted_string(quoted)?,
            None => {
                let (value, tail) = tail.split_once(';').unwrap_or((tail, ""));
                (value.trim().to_owned(), tail)
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = tail;
    }
}

/// Up to the closing quote; a backslash escapes a quote or itself, nothing else (old browsers sent
/// whole Windows paths).
fn quoted_string(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match (c, chars.peek()) {
            ('"', _) => return Some((value, &text[at + 1..])),
            ('\\', Some((_, escaped @ ('"' | '\\')))) => {
                value.push(*escaped);
                chars.next();
            }
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(line: &str) -> Part {
        part(&format!("\r\nContent-Type: a/b\r\n{line}\r\n\r\n")).unwrap()
    }

    #[test]
    fn part_heads_of_the_usual_clients() {
        let cases = [
            (r#"Content-Disposition: form-data; name="file"; filename="报告.txt""#, "报告.txt"),
            (r#"content-disposition: form-data; filename="a\"b;c.txt"; name="file""#, "a\"b;c.txt"),
            (r#"Content-Disposition: form-data; name=file; filename="a%22b""#, "a\"b"),
            (
                "Content-Disposition: form-data; name=\"file\"; filename=\"x\"; filename*=utf-8''%E6%8A%A5",
                "报",
            ),
        ];
        for (line, filename) in cases {
            let part = named(line);
            assert_eq!((part.name.as_str(), part.filename.as_deref()), ("file", Some(filename)));
        }
        assert_eq!(part("\r\nContent-Disposition: form-data\r\n\r\n"), None);
    }

    #[test]
    fn boundaries() {
        assert_eq!(boundary("multipart/form-data; boundary=abc").as_deref(), Some("abc"));
        assert_eq!(boundary("Multipart/Form-Data; charset=utf-8; boundary=\"a b\"").as_deref(), Some("a b"));
        assert_eq!(boundary("application/json; boundary=abc"), None);
        assert_eq!(boundary("multipart/form-data; boundary="), None);
    }
}
