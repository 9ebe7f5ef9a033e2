//! The schema, the typed structs and the table of platforms know the same things.

use std::collections::BTreeSet;

use serde::de::value::Error;
use serde::de::{Deserialize, Deserializer, Visitor};

use super::*;
use crate::schema::Schema;

/// Learns the names of a struct's fields from what its `Deserialize` asks for.
struct Names<'a>(&'a mut Vec<&'static str>);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(serde::de::Error::custom("names only"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        self.0.extend(fields);
        Err(serde::de::Error::custom("names only"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn fields<'de, T: Deserialize<'de>>() -> BTreeSet<&'static str> {
    let mut names = Vec::new();
    assert!(T::deserialize(Names(&mut names)).is_err());
    names.into_iter().collect()
}

fn available(schema: &'static Schema) -> BTreeSet<&'static str> {
    let fields = &schema.resolve().properties.0;
    fields.iter().filter(|(_, field)| field.planned.is_none()).map(|(name, _)| name.as_str()).collect()
}

#[test]
fn schema_and_structs_have_the_same_fields() {
    let root = crate::schema::root();
    let def = |name: &str| root.defs.get(name).unwrap();
    let inner = |schema: &'static Schema, name: &str| schema.properties.get(name).unwrap();
    assert_eq!(available(root), fields::<raw::Config>());
    assert_eq!(available(def("user")), fields::<raw::User>());
    assert_eq!(available(def("group")), fields::<raw::Group>());
    assert_eq!(available(def("channel")), fields::<raw::Channel>());
    assert_eq!(available(def("placement")), fields::<raw::Place>());
    for (name, found) in [
        ("timeouts", fields::<raw::Timeouts>()),
        ("headers", fields::<raw::Headers>()),
        ("retry", fields::<raw::Retry>()),
        ("breaker", fields::<raw::Breaker>()),
        ("health", fields::<raw::Health>()),
        ("prices", fields::<raw::Prices>()),
    ] {
        assert_eq!(available(inner(def("channel"), name)), found, "{name}");
    }
    assert_eq!(available(def("system")), fields::<raw::System>());
    for (name, found) in [
        ("listen", fields::<raw::Listen>()),
        ("limits", fields::<raw::Limits>()),
        ("cors", fields::<raw::Cors>()),
        ("log", fields::<raw::Log>()),
        ("drain", fields::<raw::Drain>()),
        ("journal", fields::<raw::Journal>()),
    ] {
        assert_eq!(available(inner(def("system"), name)), found, "{name}");
    }
    assert_eq!(available(inner(inner(def("system"), "log"), "rotate")), fields::<raw::Rotate>());
    let models = inner(inner(def("channel"), "prices"), "models");
    assert_eq!(models.values().map(available), Some(fields::<raw::Price>()));
}

#[test]
fn platforms_are_those_of_the_table() {
    let channel = crate::schema::root().defs.get("channel").unwrap();
    let schema: Vec<&str> =
        channel.properties.get("platform").unwrap().choices.iter().map(String::as_str).collect();
    let table: Vec<&str> = aiproxy_platform::PLATFORMS.iter().map(|platform| platform.id).collect();
    assert_eq!(schema, table);
}

#[test]
fn every_field_says_what_it_is() {
    crate::schema::each_field(&mut |name, field| {
        let described = field.description.as_deref().is_some_and(|text| text.ends_with('.'));
        assert!(described, "`{name}` has no description");
        // Sections are shown by their fields.
        let section = field.resolve().takes("object") && !field.resolve().takes("string");
        let shown =
            !field.examples.is_empty() || field.planned.is_some() || (section && field.examples.is_empty());
        assert!(shown, "`{name}` has no example");
    });
}

#[test]
fn defaults_and_examples_are_valid() {
    fn check(name: &str, field: &'static Schema, value: &serde_json::Value) {
        let text = format!("{}", serde_json::json!({ "value": value }));
        let lines = Lines::new(&text);
        let mut node = yaml::parse(&text, &lines).root.unwrap();
        let tree::Value::Map(entries) = &mut node.value else { panic!("a map") };
        let mut report = Report::default();
        validate::validate_part(&mut entries[0].node, field, Some((&source(), &env)), &mut report);
        assert!(!report.has_errors(), "`{name}`: {value}");
    }
    crate::schema::each_field(&mut |name, field| {
        for value in field.examples.iter().chain(&field.default) {
            let file = value.as_str().is_some_and(|text| text.starts_with("file:"));
            if field.planned.is_none() && !file {
                check(name, field, value);
            }
        }
    });
}

/// The defaults that the schema tells are those that the builders fill in.
#[test]
fn defaults_are_what_the_schema_says() {
    let channel = "channels: {c: {api_key: k, base_url: https://c.example";
    let bare = load(&format!("{channel}, health: {{path: /x}}}}}}")).snapshot;
    let flow = |section: &'static Schema| {
        let fields = section.resolve().properties.0.iter();
        let written = fields
            .filter(|(_, field)| field.planned.is_none())
            .filter_map(|(name, field)| field.default.as_ref().map(|value| format!("{name}: {value}")));
        written.collect::<Vec<_>>().join(", ")
    };
    let def = |name: &str| crate::schema::root().defs.get(name).unwrap();
    let inner = |schema: &'static Schema, name: &str| flow(schema.properties.get(name).unwrap());
    let (of_channel, of_system) = (def("channel"), def("system"));
    let mut text =
        format!("{channel}, health: {{path: /x, {}}}, {}", inner(of_channel, "health"), flow(of_channel));
    for name in ["timeouts", "headers", "retry", "breaker"] {
        text.push_str(&format!(", {name}: {{{}}}", inner(of_channel, name)));
    }
    text.push_str(&format!("}}}}\nsystem: {{{}", flow(of_system)));
    for name in ["listen", "limits", "log", "drain", "client_secrets"] {
        text.push_str(&format!(", {name}: {{{}}}", inner(of_system, name)));
    }
    text.push('}');
    let written = load(&text).snapshot;
    assert_eq!(crate::diff(&bare, &written), crate::diff::Diff::default(), "{text}");
}

#[test]
fn planned_fields_are_refused_by_name() {
    crate::schema::each_field(&mut |name, field| {
        if let Some(why) = &field.planned {
            assert!(why.ends_with("with a later release"), "`{name}`: {why}");
        }
    });
    for (text, path) in [
        ("users: {a: {proxy_key: 12345678, quota: 1}}", "users.a.quota"),
        ("groups: {a: {quota: {}}}", "groups.a.quota"),
        ("channels: {a: {weight: 1}}", "channels.a.weight"),
        ("system: {redis: {url: x}}", "system.redis"),
        ("system: {storage: {}}", "system.storage"),
        ("alerts: []", "alerts"),
        ("notifiers:", "notifiers"),
    ] {
        let problems = problems(text);
        let found = problems.problems().iter().find(|problem| problem.path == path);
        let message = found.map(|problem| problem.message.as_str()).unwrap_or_default();
        assert!(message.contains("is not available in this version: "), "{problems}");
    }
}
