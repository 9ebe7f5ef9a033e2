//! A list of everybody's objects, cut down to the caller's own.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use aiproxy_platform::objects::Kind;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::pick::{first, pick};

/// What is left of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filtered {
    /// The JSON text; byte for byte as it was but for what was taken out.
    pub(super) text: Vec<u8>,
    /// Other objects that elements of the list name: index into the kind's `implies`, text, and
    /// the id of the element.
    pub(super) implied: Vec<(usize, String, String)>,
    /// How the next page is asked for, where this one has nothing left and there are more.
    pub(super) more: Option<(&'static str, String)>,
}

/// Keeps the elements for whose id `keep` says so. Nothing where the text is not a list of the
/// expected shape: then it cannot be told what is in it.
pub(super) fn filter(text: &[u8], kind: &Kind, mut keep: impl FnMut(&str) -> bool) -> Option<Filtered> {
    let text = std::str::from_utf8(text).ok()?;
    let root: &RawValue = serde_json::from_str(text).ok()?;
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    let mut implied = Vec::new();
    let pointers: Vec<&str> = kind.implies.iter().map(|(_, pointer)| *pointer).collect();
    let (mut own, mut last) = (Vec::new(), None);
    let arrays = arrays(root, kind.list.items)?;
    for array in &arrays {
        let elements: Vec<&RawValue> = serde_json::from_str(array.get()).ok()?;
        let mut kept = Vec::with_capacity(elements.len());
        for element in &elements {
            let json = element.get().as_bytes();
            let name = first(json, kind.list.id);
            last = name.clone().or(last);
            let id = name.as_deref().and_then(|name| kind.id_in_json(name));
            let mine = id.as_deref().is_some_and(&mut keep);
            let public =
                kind.list.public.is_some_and(|(at, value)| first(json, &[at]).as_deref() == Some(value));
            if mine && let Some(id) = id {
                implied.extend(pick(json, &pointers).into_iter().map(|(at, text)| (at, text, id.clone())));
            }
            if mine || public {
                kept.push(element.get());
                own.extend(name);
            }
        }
        if kept.len() < elements.len() {
            edits.push((place(text, array), format!("[{}]", kept.join(","))));
        }
    }
    let members = members(root)?;
    let member = |name: &str| members.iter().find(|(have, _)| have == name).map(|(_, value)| *value);
    if !edits.is_empty() {
        for (name, id) in [("first_id", own.first()), ("last_id", own.last())] {
            if let Some(value) = member(name) {
                edits.push((place(text, value), serde_json::to_string(&id).ok()?));
            }
        }
    }
    let string =
        |name: &str| serde_json::from_str::<String>(member(name)?.get()).ok().filter(|text| !text.is_empty());
    let more = if !own.is_empty() {
        None
    } else if let Some(token) = string("nextPageToken") {
        Some(("pageToken", token))
    } else if let Some(token) = string("next_page") {
        Some(("page", token))
    } else if let Some(token) = string("pagination_token") {
        Some(("pagination_token", token))
    } else {
        last.filter(|_| member("has_more").is_some_and(|more| more.get() == "true"))
            .map(|last| ("after", last))
    };
    Some(Filtered { text: splice(text, edits), implied, more })
}

/// The arrays that the pointers lead to. A list without any is sound only if nothing could stand
/// anywhere else: Google leaves empty arrays out.
fn arrays<'t>(root: &'t RawValue, pointers: &[&str]) -> Option<Vec<&'t RawValue>> {
    if is_array(root) {
        return Some(vec![root]);
    }
    let mut arrays = Vec::new();
    let mut expected = HashSet::new();
    for pointer in pointers {
        let mut at = root;
        let mut steps = pointer.split('/').skip(1).peekable();
        while let Some(step) = steps.next() {
            if !at.get().starts_with('{') {
                break;
            }
            let members = members(at)?;
            let Some((_, value)) = members.into_iter().find(|(name, _)| name == step) else { break };
            expected.insert(value.get().as_ptr());
            at = value;
            if steps.peek().is_none() && is_array(at) {
                arrays.push(at);
            }
        }
    }
    let mut around = vec![root];
    while let Some(value) = around.pop() {
        for (_, member) in members(value)? {
            let known = expected.contains(&member.get().as_ptr());
            let object = member.get().starts_with('{');
            if known && object {
                around.push(member);
            }
            // What stands beside the list may describe it, but must not be another one.
            let other = is_array(member) && member.get().contains('{');
            if !known && (other || (object && arrays.is_empty())) {
                return None;
            }
        }
    }
    Some(arrays)
}

fn is_array(value: &RawValue) -> bool {
    value.get().starts_with('[')
}

/// Where a part of the text stands in it.
fn place(text: &str, part: &RawValue) -> Range<usize> {
    let start = part.get().as_ptr() as usize - text.as_ptr() as usize;
    start..start + part.get().len()
}

fn splice(text: &str, mut edits: Vec<(Range<usize>, String)>) -> Vec<u8> {
    edits.sort_unstable_by_key(|(place, _)| place.start);
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    for (place, with) in edits {
        out.extend_from_slice(&text.as_bytes()[at..place.start]);
        out.extend_from_slice(with.as_bytes());
        at = place.end;
    }
    out.extend_from_slice(&text.as_bytes()[at..]);
    out
}

/// An object's members in their order; none of anything else. Nothing where a name stands twice:
/// another reader might take the other.
fn members(value: &RawValue) -> Option<Vec<(String, &RawValue)>> {
    if !value.get().starts_with('{') {
        return Some(Vec::new());
    }
    let Members(members) = serde_json::from_str(value.get()).ok()?;
    let mut names = HashSet::new();
    members.iter().all(|(name, _)| names.insert(name.as_str())).then_some(members)
}

struct Members<'t>(Vec<(String, &'t RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        reader.deserialize_map(Each)
    }
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
