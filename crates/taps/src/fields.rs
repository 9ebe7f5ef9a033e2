//! Single members of a JSON object: found, taken out, put in.
//!
//! For messages that are held as a whole. Only objects on the way to a member are written anew; all
//! other values stay as they are, byte for byte, and so does a message in which nothing changes.

use std::borrow::Cow;
use std::fmt;

use aiproxy_platform::Pointer;
use memchr::memmem;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::escape::unescape;

/// The message is no JSON object, or what leads to a member is none that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnObject;

/// The strings at these places, a name that stands there twice included.
///
/// # Errors
/// [`NotAnObject`].
pub fn strings<'a>(message: &'a [u8], places: &[Pointer]) -> Result<Vec<Cow<'a, str>>, NotAnObject> {
    let text = std::str::from_utf8(message).map_err(|_| NotAnObject)?;
    let mut found = Vec::new();
    for place in places {
        collect(text, place.names(), &mut found)?;
    }
    Ok(found)
}

/// Whether a text stands anywhere in the message: as it is, with JSON's escapes, or in two bytes a letter.
#[must_use]
pub fn holds(message: &[u8], text: &str) -> bool {
    let find = |bytes: &[u8]| memmem::find(bytes, text.as_bytes()).is_some();
    let plain: Cow<'_, [u8]> = if message.contains(&0) {
        message.iter().copied().filter(|byte| *byte != 0).collect::<Vec<u8>>().into()
    } else {
        message.into()
    };
    find(&plain) || (plain.contains(&b'\\') && find(&unescape(&plain)))
}

fn collect<'a>(text: &'a str, names: &[String], found: &mut Vec<Cow<'a, str>>) -> Result<(), NotAnObject> {
    let Some((first, rest)) = names.split_first() else { return Ok(()) };
    for (_, value) in members(text)?.into_iter().filter(|(name, _)| name == first) {
        if rest.is_empty() {
            if let Ok(Text(string)) = serde_json::from_str(value.get()) {
                found.push(string);
            }
        } else if value.get().starts_with('{') {
            collect(value.get(), rest, found)?;
        }
    }
    Ok(())
}

/// The message without the members at `remove`, and with `set` where it says; `None` where it stays
/// as it is.
///
/// # Errors
/// [`NotAnObject`].
pub fn edit(
    message: &[u8],
    remove: &[Pointer],
    set: Option<(&Pointer, &str)>,
) -> Result<Option<Vec<u8>>, NotAnObject> {
    let text = std::str::from_utf8(message).map_err(|_| NotAnObject)?;
    let remove: Vec<&[String]> = remove.iter().map(Pointer::names).collect();
    let set = set.map(|(place, value)| (place.names(), value));
    let mut out = String::with_capacity(text.len() + 128);
    let changed = write(text, &remove, set, &mut out)?;
    Ok(changed.then(|| out.into_bytes()))
}

/// Writes one object; whether anything in it changed.
fn write(
    text: &str,
    remove: &[&[String]],
    set: Option<(&[String], &str)>,
    out: &mut String,
) -> Result<bool, NotAnObject> {
    let mut changed = false;
    let mut placed = set.is_none();
    out.push('{');
    let begin = out.len();
    for (name, value) in members(text)? {
        let below: Vec<&[String]> = remove
            .iter()
            .filter_map(|names| names.split_first())
            .filter(|(first, _)| **first == name)
            .map(|(_, rest)| rest)
            .collect();
        let set_below = set.and_then(|(names, value)| {
            let (first, rest) = names.split_first()?;
            (*first == name).then_some((rest, value))
        });
        let goes = below.iter().any(|rest| rest.is_empty())
            || set_below.is_some_and(|(rest, _)| rest.is_empty() || !value.get().starts_with('{'));
        if goes {
            changed = true;
            continue;
        }
        begin_member(out, begin, &name);
        if (below.is_empty() && set_below.is_none()) || !value.get().starts_with('{') {
            out.push_str(value.get());
            continue;
        }
        placed |= set_below.is_some();
        changed |= write(value.get(), &below, set_below, out)?;
    }
    if let Some((names, value)) = set.filter(|_| !placed)
        && let Some((first, rest)) = names.split_first()
    {
        changed = true;
        begin_member(out, begin, first);
        for name in rest {
            out.push('{');
            out.push_str(&quoted(name));
            out.push(':');
        }
        out.push_str(&quoted(value));
        out.extend(rest.iter().map(|_| '}'));
    }
    out.push('}');
    Ok(changed)
}

fn begin_member(out: &mut String, begin: usize, name: &str) {
    if out.len() > begin {
        out.push(',');
    }
    out.push_str(&quoted(name));
    out.push(':');
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn members(text: &str) -> Result<Vec<(String, &RawValue)>, NotAnObject> {
    serde_json::from_str::<Members<'_>>(text).map(|members| members.0).map_err(|_| NotAnObject)
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// An object's members in order, however often a name stands there.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Object).map(Self)
    }
}

#[cfg(test)]
#[path = "tests/fields.rs"]
mod tests;
