//! The first events of a stream, read for an id.

use super::pick::pick;

/// Follows a stream of server-sent events (WHATWG HTML, section 9.2) until ids come.
#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    /// A carriage return has ended a line: a line feed right behind it ends no other.
    after_return: bool,
    began: bool,
}

impl Events {
    /// Looks at the next bytes; the strings at the pointers in the first event that has any.
    pub(super) fn feed(&mut self, mut bytes: &[u8], pointers: &[&str]) -> Option<Vec<String>> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_return) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) else {
                self.line.extend_from_slice(bytes);
                break;
            };
            self.line.extend_from_slice(&bytes[..end]);
            self.after_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if let Some(found) = self.line_ended(pointers) {
                return Some(found);
            }
        }
        None
    }

    fn line_ended(&mut self, pointers: &[&str]) -> Option<Vec<String>> {
        let line = std::mem::take(&mut self.line);
        let line: &[u8] = if std::mem::replace(&mut self.began, true) {
            &line
        } else {
            line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&line)
        };
        if !line.is_empty() {
            if let Some(data) = line.strip_prefix(b"data:") {
                self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
                self.data.push(b'\n');
            }
            return None;
        }
        let data = std::mem::take(&mut self.data);
        let found: Vec<String> = pick(&data, pointers).into_iter().map(|(_, id)| id).collect();
        (!found.is_empty()).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The ids, and after how many bytes they were known.
    fn found(text: &str, step: usize) -> Option<(Vec<String>, usize)> {
        let mut events = Events::default();
        let mut read = 0;
        for piece in text.as_bytes().chunks(step) {
            read += piece.len();
            if let Some(found) = events.feed(piece, &["/response/id", "/id"]) {
                return Some((found, read));
            }
        }
        None
    }

    #[test]
    fn the_first_event_with_an_id_counts_wherever_the_stream_is_split() {
        let tail = "event: more\ndata: {\"response\":{\"id\":\"resp_2\"}}\n\n";
        for (text, expected) in [
            ("event: response.created\ndata: {\"response\":{\"id\":\"resp_1\"}}\n\n", Some("resp_1")),
            ("data:{\"id\":\"chatcmpl-1\"}\r\n\r\n", Some("chatcmpl-1")),
            ("data: {\"id\":\"a\"}\r\r", Some("a")),
            ("\u{feff}data: {\"id\":\"a\"}\n\n", Some("a")),
            (": ping\n\n: ping\n\ndata: [DONE]\n\ndata: 7\n\ndata: {\"id\":\"a\"}\n\n", Some("a")),
            ("data: {\"response\":\ndata: {\"id\":\"a\"}}\n\n", Some("a")),
            ("id: 7\nretry: 9\ndata: {\"id\":\"a\"}\nevent: x\n\n", Some("a")),
            ("data: {\"x\":{\"id\":\"a\"}}\n\n", None),
            ("data: {\"id\":\"a\"}\n", None),
            ("datax: {\"id\":\"a\"}\n\n", None),
            ("", None),
        ] {
            let whole = format!("{text}{}", if expected.is_some() { tail } else { "" });
            for step in 1..=whole.len().max(1) {
                let found = found(&whole, step);
                assert_eq!(
                    found.as_ref().map(|(ids, _)| ids[0].as_str()),
                    expected,
                    "{whole:?} in pieces of {step}"
                );
                if let Some((_, read)) = found {
                    // Known with the piece that ends the event: nothing is held back longer.
                    assert!(read <= text.len() + step, "{read}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1usize..9) {
            let mut events = Events::default();
            for piece in bytes.chunks(step) {
                let _ = events.feed(piece, &["/id"]);
            }
        }
    }
}
