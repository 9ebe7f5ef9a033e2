//! The top-level member `model` of a JSON object.

use super::{Finding, NAME_BYTES};
use crate::objects::Watch;

/// Follows the structure of one JSON text.
///
/// It is no validator: it accepts some texts that are not JSON, but none in which a strict parser
/// would see another top-level `model` than it reports. Names compare without regard to ASCII
/// case, since some platforms' parsers do.
#[derive(Debug, Default)]
pub struct JsonScan {
    depth: u32,
    place: Place,
    /// Raw bytes of the string under way, without quotes, where it matters.
    raw: Vec<u8>,
    overflow: bool,
    escaped: bool,
    model: Option<String>,
    trouble: Option<&'static str>,
    done: bool,
    /// Where it can be followed no further.
    broken: bool,
    /// The outermost value is an array.
    array: bool,
    /// Looks for ids of objects as well.
    watch: Option<Box<Watch>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the opening brace.
    #[default]
    Start,
    /// In the top-level object, before a member's name.
    Name,
    /// Inside a member's name.
    InName,
    /// Behind a name, before its colon; whether the name was `model`.
    Colon(bool),
    /// Behind the colon of `model`.
    ModelValue,
    /// Inside the string that is the value of `model`.
    InModelValue,
    /// Anywhere in another member's value, outside strings.
    Value,
    /// Inside any other string.
    InString,
    /// Behind the closing brace: nothing may follow.
    End,
    /// In a value that is no object.
    Foreign,
}

impl JsonScan {
    /// Looks at the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut at = 0;
        let watched = self.watch.is_some();
        while at < bytes.len() && !self.broken && (watched || self.trouble.is_none()) {
            at = match self.place {
                Place::InName | Place::InModelValue | Place::InString => self.string(bytes, at),
                _ => {
                    self.structure(bytes[at]);
                    at + 1
                }
            };
        }
    }

    /// Looks for ids of objects from now on; to be called before any bytes.
    pub(crate) fn watch(&mut self) {
        self.watch = Some(Box::default());
    }

    pub(crate) fn watcher(&mut self) -> Option<&mut Watch> {
        self.watch.as_deref_mut()
    }

    pub(crate) fn stored(&self) -> Option<bool> {
        self.watch.as_ref().and_then(|watch| watch.stored())
    }

    /// Whether anything but white space has come.
    pub(crate) fn began(&self) -> bool {
        self.broken || self.place != Place::Start
    }

    /// Whether ids may be hidden in what cannot be followed.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether more bytes can bring more ids.
    pub(crate) fn wants_ids(&self) -> bool {
        self.watch.is_some() && !self.broken && !matches!(self.place, Place::End | Place::Foreign)
    }

    /// What is known so far.
    #[must_use]
    pub fn finding(&self) -> Finding<'_> {
        match (&self.trouble, &self.model) {
            (Some(reason), _) => Finding::Unreadable(reason),
            (None, Some(model)) => Finding::Model(model),
            (None, None) if self.done => Finding::Absent,
            (None, None) => Finding::Pending,
        }
    }

    /// Consumes bytes of a string; returns where to go on.
    fn string(&mut self, bytes: &[u8], mut at: usize) -> usize {
        if self.escaped {
            self.escaped = false;
            self.keep(&bytes[at..=at]);
            if self.place == Place::InString
                && let Some(watch) = &mut self.watch
            {
                watch.escaped(bytes[at]);
            }
            at += 1;
        }
        let rest = &bytes[at..];
        let stop = memchr::memchr2(b'"', b'\\', rest);
        let plain = &rest[..stop.unwrap_or(rest.len())];
        self.keep(plain);
        if self.place == Place::InString
            && let Some(watch) = &mut self.watch
        {
            watch.plain(plain);
        }
        let Some(stop) = stop else { return bytes.len() };
        if rest[stop] == b'\\' {
            self.keep(b"\\");
            self.escaped = true;
        } else {
            self.string_ended();
        }
        at + stop + 1
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.place == Place::InString {
            return;
        }
        let room = NAME_BYTES.saturating_sub(self.raw.len());
        self.overflow |= bytes.len() > room;
        self.raw.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn string_ended(&mut self) {
        match self.place {
            Place::InName => {
                let name = if self.overflow { None } else { decode(&self.raw) };
                if let Some(watch) = &mut self.watch {
                    watch.top_level(name.as_deref());
                }
                self.place = Place::Colon(name.is_some_and(|name| super::names_a_model(&name)));
            }
            Place::InModelValue => {
                self.place = Place::Value;
                match decode(&self.raw) {
                    _ if self.overflow => self.trouble = Some("the model's name is too long"),
                    Some(model) => self.model = Some(model),
                    None => self.trouble = Some("the model's name is malformed"),
                }
            }
            _ => {
                self.place = Place::Value;
                if let Some(watch) = &mut self.watch {
                    watch.end();
                }
            }
        }
        self.raw.clear();
        self.overflow = false;
    }

    fn structure(&mut self, byte: u8) {
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            return;
        }
        if let Some(watch) = &mut self.watch
            && self.place == Place::Value
        {
            match byte {
                b':' => watch.colon(),
                b'"' => {
                    watch.settle();
                    watch.begin();
                }
                b't' | b'f' if self.depth == 1 => watch.literal(byte),
                _ => watch.settle(),
            }
        }
        match (self.place, byte) {
            (Place::Start, b'{') => {
                self.depth = 1;
                self.place = Place::Name;
            }
            // Its elements may be objects: ids are looked for in there.
            (Place::Start, b'[') if self.watch.is_some() => {
                self.done = true;
                self.array = true;
                self.depth = 1;
                self.place = Place::Value;
            }
            // Another JSON value has no members: the platform will say what it thinks of it.
            (Place::Start, b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                self.done = true;
                self.place = Place::Foreign;
            }
            (Place::Name, b'"') => self.place = Place::InName,
            (Place::Name, b'}') => self.close(),
            (Place::Colon(true), b':') if self.model.is_some() => {
                self.trouble = Some("the body names a model twice");
                self.place = Place::Value;
            }
            (Place::Colon(true), b':') => self.place = Place::ModelValue,
            (Place::Colon(false), b':') => self.place = Place::Value,
            (Place::ModelValue, b'"') => self.place = Place::InModelValue,
            (Place::ModelValue, _) => {
                self.trouble = Some("the model is not a string");
                self.place = Place::Value;
                self.structure(byte);
            }
            (Place::Value, b'"') => self.place = Place::InString,
            (Place::Value, b'{' | b'[') => self.depth += 1,
            (Place::Value, b'}' | b']') => self.close(),
            (Place::Value, b',') if self.depth == 1 && !self.array => self.place = Place::Name,
            (Place::Value, b',' | b':') => {}
            (Place::Value, b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'E') => {}
            (Place::Foreign, _) => {}
            _ => {
                self.broken = true;
                self.trouble = self.trouble.or(Some("the body is not JSON"));
            }
        }
    }

    fn close(&mut self) {
        self.depth -= 1;
        if self.depth == 0 {
            self.place = Place::End;
            self.done = true;
        }
    }
}

/// The text of a raw JSON string.
fn decode(raw: &[u8]) -> Option<String> {
    if !raw.contains(&b'\\') {
        return std::str::from_utf8(raw).ok().map(str::to_owned);
    }
    let mut quoted = Vec::with_capacity(raw.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(raw);
    quoted.push(b'"');
    serde_json::from_slice(&quoted).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds in pieces of `step` bytes.
    fn scan(text: &str, step: usize) -> JsonScan {
        let mut scan = JsonScan::default();
        text.as_bytes().chunks(step).for_each(|piece| scan.feed(piece));
        scan
    }

    #[test]
    fn the_model_is_found_wherever_the_body_is_split() {
        for (text, expected) in [
            (r#"{"model":"gpt-4o","messages":[]}"#, Finding::Model("gpt-4o")),
            (
                r#" { "messages" : [ {"model":"inner"} , "model", ":" ] , "model" : "通义" } "#,
                Finding::Model("通义"),
            ),
            (r#"{"mod\u0065l":"g\u0070t"}"#, Finding::Model("gpt")),
            (r#"{"Model":"x"}"#, Finding::Model("x")),
            (r#"{"a":"\\","model":"x"}"#, Finding::Model("x")),
            (r#"{"a":"\"model\":\"y\"","model":"x"}"#, Finding::Model("x")),
            (r#"{"a":{"model":"y"}}"#, Finding::Absent),
            (r#"{"a":true,"b":null,"c":-1.5e+3}"#, Finding::Absent),
            (r"{}", Finding::Absent),
            (r#"["model","x"]"#, Finding::Absent),
            (r#"{"model":"x""#, Finding::Model("x")),
            (r#"{"mod"#, Finding::Pending),
            (r#"{"model":"x","model":"y"}"#, Finding::Unreadable("the body names a model twice")),
            (r#"{"model":"x","mod\u0065l":"y"}"#, Finding::Unreadable("the body names a model twice")),
            (r#"{"model":"x","MODEL":"y"}"#, Finding::Unreadable("the body names a model twice")),
            (r#"{"model":7}"#, Finding::Unreadable("the model is not a string")),
            (r#"{"a":/*"*/1,"model":"x"}"#, Finding::Unreadable("the body is not JSON")),
            (r#"{'model':'x'}"#, Finding::Unreadable("the body is not JSON")),
            ("{\"model\":\"x\"} \n", Finding::Model("x")),
            ("{\"model\":\"x\"}{\"model\":\"y\"}", Finding::Unreadable("the body is not JSON")),
            (r#"[{"model":"x"}]"#, Finding::Absent),
            ("\u{feff}{\"model\":\"x\"}", Finding::Unreadable("the body is not JSON")),
        ] {
            for step in 1..=text.len() {
                assert_eq!(scan(text, step).finding(), expected, "{text} in pieces of {step}");
            }
        }
    }

    #[test]
    fn long_names_are_refused_and_long_values_pass() {
        let long = "x".repeat(NAME_BYTES + 1);
        let text = format!(r#"{{"model":"{long}"}}"#);
        assert_eq!(scan(&text, 7).finding(), Finding::Unreadable("the model's name is too long"));
        let text = format!(r#"{{"{long}":"{long}","model":"x"}}"#);
        assert_eq!(scan(&text, 7).finding(), Finding::Model("x"));
    }

    proptest! {
        #[test]
        fn no_strict_parser_sees_another_model(text in r#"[{}\[\]",:a-z \\u0-9]{0,60}"#, name in "[a-z\"\\\\]{0,5}") {
            let value = serde_json::json!({ "a": text, "model": name, "b": [text.clone(), { "model": text }] });
            let body = value.to_string();
            let whole = scan(&body, 5);
            prop_assert_eq!(whole.finding(), Finding::Model(&name));
            let found = scan(&text, 3);
            if let Ok(serde_json::Value::Object(map)) = serde_json::from_str(&text) {
                match map.get("model") {
                    Some(serde_json::Value::String(model)) => prop_assert_eq!(found.finding(), Finding::Model(model)),
                    None => prop_assert_eq!(found.finding(), Finding::Absent),
                    _ => {}
                }
            }
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut scan = JsonScan::default();
            bytes.chunks(3).for_each(|piece| scan.feed(piece));
            let _ = scan.finding();
        }
    }
}
