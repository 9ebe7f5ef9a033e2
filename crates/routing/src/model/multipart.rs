//! The part `model` of a `multipart/form-data` body (RFC 7578).

use memchr::memmem;

use super::{Finding, NAME_BYTES};
use crate::objects::Watch;

/// The longest head of a part that is read.
const HEAD_BYTES: usize = 8 * 1024;

/// Follows the parts of one multipart body.
#[derive(Debug)]
pub struct MultipartScan {
    /// `\r\n--boundary`
    delimiter: Vec<u8>,
    /// Bytes that may be the beginning of a delimiter, or a part's head so far.
    held: Vec<u8>,
    place: Place,
    value: Vec<u8>,
    model: Option<String>,
    trouble: Option<&'static str>,
    /// Looks for ids of objects as well.
    watch: Option<Box<Watch>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a part's content (or the preamble); whether it is the model's.
    Content(bool),
    /// Behind a delimiter: the part's head, or the end.
    Head,
    /// Behind the closing delimiter.
    End,
}

impl MultipartScan {
    /// A scanner for parts between these boundaries.
    #[must_use]
    pub fn new(boundary: &str) -> Self {
        Self {
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            // The first delimiter may stand at the very beginning.
            held: b"\r\n".to_vec(),
            place: Place::Content(false),
            value: Vec::new(),
            model: None,
            trouble: None,
            watch: None,
        }
    }

    /// Looks for ids of objects from now on; to be called before any bytes.
    pub(crate) fn watch(&mut self) {
        self.watch = Some(Box::default());
    }

    pub(crate) fn watcher(&mut self) -> Option<&mut Watch> {
        self.watch.as_deref_mut()
    }

    /// Whether ids may be hidden in what cannot be followed.
    pub(crate) fn is_broken(&self) -> bool {
        self.trouble.is_some()
    }

    /// Whether more bytes can bring more ids.
    pub(crate) fn wants_ids(&self) -> bool {
        self.watch.is_some() && self.trouble.is_none() && self.place != Place::End
    }

    /// What is known so far.
    #[must_use]
    pub fn finding(&self) -> Finding<'_> {
        match (&self.trouble, &self.model, self.place) {
            (Some(reason), _, _) => Finding::Unreadable(reason),
            (None, Some(model), _) => Finding::Model(model),
            (None, None, Place::End) => Finding::Absent,
            (None, None, _) => Finding::Pending,
        }
    }

    /// Looks at the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.trouble.is_none() && self.place != Place::End {
            bytes = match self.place {
                Place::Content(wanted) => self.content(bytes, wanted),
                _ => self.head(bytes),
            };
        }
    }

    /// Consumes content up to the next delimiter; returns what is left.
    fn content<'b>(&mut self, bytes: &'b [u8], wanted: bool) -> &'b [u8] {
        let edge = self.delimiter.len() - 1;
        if !self.held.is_empty() {
            // A delimiter may straddle the border between two pieces.
            let before = self.held.len();
            self.held.extend_from_slice(&bytes[..bytes.len().min(edge)]);
            if let Some(at) = memmem::find(&self.held, &self.delimiter) {
                let used = at + self.delimiter.len() - before;
                let held = std::mem::take(&mut self.held);
                self.keep(wanted, &held[..at]);
                self.part_ended(wanted);
                return &bytes[used..];
            }
            if bytes.len() < edge {
                // The delimiter may straddle the next border as well.
                let settled = self.held.len().saturating_sub(edge);
                let rest = self.held.split_off(settled);
                let settled = std::mem::replace(&mut self.held, rest);
                self.keep(wanted, &settled);
                return &[];
            }
            let held = std::mem::take(&mut self.held);
            self.keep(wanted, &held[..before]);
        }
        if let Some(at) = memmem::find(bytes, &self.delimiter) {
            self.keep(wanted, &bytes[..at]);
            self.part_ended(wanted);
            return &bytes[at + self.delimiter.len()..];
        }
        let safe = bytes.len().saturating_sub(edge);
        self.keep(wanted, &bytes[..safe]);
        self.held.extend_from_slice(&bytes[safe..]);
        &[]
    }

    fn keep(&mut self, wanted: bool, bytes: &[u8]) {
        if wanted {
            let room = (NAME_BYTES + 1).saturating_sub(self.value.len());
            self.value.extend_from_slice(&bytes[..bytes.len().min(room)]);
        } else if let Some(watch) = &mut self.watch {
            watch.plain(bytes);
        }
    }

    fn part_ended(&mut self, wanted: bool) {
        self.place = Place::Head;
        if !wanted {
            if let Some(watch) = &mut self.watch {
                watch.end();
                watch.settle();
            }
            return;
        }
        let value = std::mem::take(&mut self.value);
        match String::from_utf8(value) {
            _ if self.model.is_some() => self.trouble = Some("the body names a model twice"),
            Ok(model) if model.len() <= NAME_BYTES => self.model = Some(model),
            Ok(_) => self.trouble = Some("the model's name is too long"),
            Err(_) => self.trouble = Some("the model's name is malformed"),
        }
    }

    /// Consumes the head of a part, or finds that the body has ended; returns what is left.
    fn head<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let before = self.held.len();
        let taken = bytes.len().min(HEAD_BYTES.saturating_sub(before));
        self.held.extend_from_slice(&bytes[..taken]);
        if self.held.starts_with(b"--") {
            self.place = Place::End;
            self.held.clear();
            return &[];
        }
        let Some(end) = memmem::find(&self.held, b"\r\n\r\n") else {
            if self.held.len() >= HEAD_BYTES {
                self.trouble = Some("a part's head is too long");
            }
            return &bytes[taken..];
        };
        let head = std::mem::take(&mut self.held);
        let rest = &bytes[end + 4 - before..];
        match part_name(&head[..end]) {
            Ok(name) => {
                self.place = Place::Content(super::names_a_model(&name));
                if let Some(watch) = &mut self.watch {
                    // `file_ids[]`, `video[id]`
                    watch.top_level(Some(name.split('[').next().unwrap_or_default()));
                    watch.begin();
                }
            }
            Err(reason) => self.trouble = Some(reason),
        }
        rest
    }
}

/// The `name` of a part's `Content-Disposition`; empty where it has none.
fn part_name(head: &[u8]) -> Result<String, &'static str> {
    let head = std::str::from_utf8(head).map_err(|_| "a part's head is not UTF-8")?;
    let mut disposition = None;
    for line in head.split("\r\n").filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or("a part's head is malformed")?;
        if name.trim().eq_ignore_ascii_case("content-disposition") && disposition.replace(value).is_some() {
            return Err("a part has two content dispositions");
        }
    }
    let mut found = None;
    for (name, value) in parameters(disposition.unwrap_or_default()) {
        let plain = name.eq_ignore_ascii_case("name");
        if name.eq_ignore_ascii_case("name*") || (plain && found.replace(value).is_some()) {
            return Err("a part's name is ambiguous");
        }
    }
    Ok(found.unwrap_or_default())
}

/// The boundary of a `multipart/form-data` content type.
pub(super) fn boundary(content_type: &str) -> Option<&str> {
    let mut found = None;
    for parameter in content_type.split(';').skip(1) {
        let (name, value) = parameter.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("boundary")
            && found.replace(value.trim().trim_matches('"')).is_some()
        {
            return None;
        }
    }
    found.filter(|boundary| (1..=70).contains(&boundary.len()))
}

/// `; name=value` and `; name="quoted"` after the first token.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    while chars.by_ref().any(|c| c == ';') {
        let name: String = std::iter::from_fn(|| chars.next_if(|c| !matches!(c, '=' | ';'))).collect();
        let mut value = String::new();
        if chars.next_if_eq(&'=').is_some() {
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
            if chars.next_if_eq(&'"').is_some() {
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    value.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
                }
            } else {
                value.extend(std::iter::from_fn(|| chars.next_if(|c| *c != ';')));
                value.truncate(value.trim_end().len());
            }
        }
        out.push((name.trim().to_owned(), value));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(parts: &[(&str, &str)]) -> String {
        let mut out = String::new();
        for (disposition, content) in parts {
            out += &format!("--XX\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n");
        }
        out + "--XX--\r\n"
    }

    fn finding(text: &str, step: usize) -> Result<Option<String>, &'static str> {
        let mut scan = MultipartScan::new("XX");
        text.as_bytes().chunks(step).for_each(|piece| scan.feed(piece));
        match scan.finding() {
            Finding::Model(model) => Ok(Some(model.to_owned())),
            Finding::Absent | Finding::Pending => Ok(None),
            Finding::Unreadable(reason) => Err(reason),
        }
    }

    #[test]
    fn the_model_is_found_wherever_the_body_is_split() {
        let file = (
            "name=\"file\"; filename=\"录音;name=model.wav\"\r\nContent-Type: audio/wav",
            "\r\n--X\r\n--Xmodel\r\n",
        );
        for (parts, expected) in [
            (vec![("name=\"model\"", "whisper-1"), file], Ok(Some("whisper-1"))),
            (vec![file, ("name=\"model\"", "whisper-1")], Ok(Some("whisper-1"))),
            (vec![("name=model", "whisper-1")], Ok(Some("whisper-1"))),
            (vec![("name=\"mo\\del\"", "x")], Ok(Some("x"))),
            (vec![file], Ok(None)),
            (vec![("name=\"model\"", "")], Ok(Some(""))),
            (vec![("name=\"model\"", "a"), ("name=\"Model\"", "b")], Err("the body names a model twice")),
            (vec![("name=\"x\"; name*=utf-8''model", "a")], Err("a part's name is ambiguous")),
        ] {
            let text = body(&parts);
            for step in 1..=text.len() {
                let expected = expected.map(|model| model.map(str::to_owned));
                assert_eq!(finding(&text, step), expected, "{text} in pieces of {step}");
            }
        }
    }

    #[test]
    fn boundaries_are_read() {
        assert_eq!(boundary("multipart/form-data; boundary=abc"), Some("abc"));
        assert_eq!(boundary("multipart/form-data; charset=utf-8; Boundary=\"a b\""), Some("a b"));
        assert_eq!(boundary("multipart/form-data; boundary=a; boundary=b"), None);
        assert_eq!(boundary("multipart/form-data"), None);
    }

    proptest! {
        #[test]
        fn content_never_ends_a_part_early(content in "[-X\r\na]{0,40}", step in 1usize..9) {
            prop_assume!(!format!("\r\n{content}").contains("\r\n--XX"));
            let text = body(&[("name=\"file\"", &content), ("name=\"model\"", "m")]);
            prop_assert_eq!(finding(&text, step), Ok(Some("m".to_owned())));
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut scan = MultipartScan::new("X");
            bytes.chunks(3).for_each(|piece| scan.feed(piece));
        }
    }
}
