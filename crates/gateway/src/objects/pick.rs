//! Strings at pointers into a JSON text, as far as the text goes.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The strings that the pointers (RFC 6901, without escapes; `*` is every element) lead to, with
/// the index of their pointer, in the order of the text. A text that breaks off gives those that
/// stand before its end: the beginning of a large answer will do.
pub(super) fn pick(text: &[u8], pointers: &[&str]) -> Vec<(usize, String)> {
    let found = RefCell::new(Vec::new());
    let walk = Walk { paths: pointers.iter().copied().enumerate().collect(), found: &found };
    let mut reader = serde_json::Deserializer::from_slice(text);
    // How it ends says nothing about what was found before.
    let _ = walk.deserialize(&mut reader);
    found.into_inner()
}

/// The first string that any of the pointers leads to, earlier pointers first.
pub(super) fn first(text: &[u8], pointers: &[&str]) -> Option<String> {
    let found = pick(text, pointers);
    found.into_iter().min_by_key(|(pointer, _)| *pointer).map(|(_, text)| text)
}

struct Walk<'p> {
    /// What is left of each pointer from here.
    paths: Vec<(usize, &'p str)>,
    found: &'p RefCell<Vec<(usize, String)>>,
}

impl<'p> Walk<'p> {
    fn below(&self, name: &str, any: bool) -> Self {
        let step = |(index, path): &(usize, &'p str)| {
            let path = path.strip_prefix('/')?;
            let (head, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
            (head == name || (any && head == "*")).then_some((*index, rest))
        };
        Walk { paths: self.paths.iter().filter_map(step).collect(), found: self.found }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        for (index, _) in self.paths.iter().filter(|(_, path)| path.is_empty()) {
            self.found.borrow_mut().push((*index, text.to_owned()));
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            let below = self.below(&name, false);
            if below.paths.is_empty() {
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(below)?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        for index in 0usize.. {
            let below = self.below(&index.to_string(), true);
            let more = if below.paths.is_empty() {
                seq.next_element::<IgnoredAny>()?.is_some()
            } else {
                seq.next_element_seed(below)?.is_some()
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(text: &str, pointers: &[&str]) -> Vec<String> {
        pick(text.as_bytes(), pointers).into_iter().map(|(at, text)| format!("{at}:{text}")).collect()
    }

    #[test]
    fn pointers_lead_to_strings() {
        let text = r#"{"x":{"id":"no"},"id":"file-1","n":7,"b":true,"z":null,
            "output":[{"id":"a"},7,{"id":"b","c":{"d":"e"}}],"list":["p","q"],"i\u0064":"file-2"}"#;
        for (pointers, expected) in [
            (vec!["/id"], vec!["0:file-1", "0:file-2"]),
            (vec!["/x/id", "/id"], vec!["0:no", "1:file-1", "1:file-2"]),
            (vec!["/output/*/id"], vec!["0:a", "0:b"]),
            (vec!["/output/2/c/d", "/output/*/c/d"], vec!["0:e", "1:e"]),
            (vec!["/list/*"], vec!["0:p", "0:q"]),
            (vec!["/list/1", "/list/9"], vec!["0:q"]),
            (vec!["/n", "/b", "/z", "/x", "/output", "/none", "/id/x"], vec![]),
        ] {
            assert_eq!(found(text, &pointers), expected, "{pointers:?}");
        }
        assert_eq!(found(r#""text""#, &[""]), ["0:text"]);
        assert_eq!(first(text.as_bytes(), &["/none", "/x/id", "/id"]).as_deref(), Some("no"));
        assert_eq!(first(b"nothing", &["/id"]), None);
    }

    #[test]
    fn the_beginning_of_a_text_gives_what_it_has_and_never_a_part() {
        let text = r#"{"a":[1,2,{"id":"x"}],"id":"file-123","rest":"long"}"#;
        let id = text.find("file-123").unwrap() + "file-123".len();
        for cut in 0..=text.len() {
            let expected: &[&str] = if cut > id { &["0:file-123"] } else { &[] };
            assert_eq!(found(&text[..cut], &["/id"]), expected, "cut at {cut}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(100_000);
        assert!(found(&deep, &["/*/*/id"]).is_empty());
        let deep = format!("{{\"id\":\"a\",\"x\":{}", "{\"x\":".repeat(100_000));
        assert_eq!(found(&deep, &["/id", "/x/x/id"]), ["0:a"]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = pick(&bytes, &["/id", "/a/*/b", ""]);
        }
    }
}
