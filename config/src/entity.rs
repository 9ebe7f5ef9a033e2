//! Documents: users, groups, channels and keys one by one, as the database and the admin API hold them.
//!
//! A document has the fields of the file's schema. Its values are literal: nothing is expanded, and
//! certificates stand in it themselves. Secrets never leave it but through [`mask`], or by whoever
//! writes them where they belong.

use aiproxy_core::{EntityKind, Fields, KeyDigest, KeyTag};
use serde_json::{Map, Value, json};

use crate::schema::{self, Schema};
use crate::tree::{Entry, Node, Number, Pos, Span, Value as Tree};

/// What stands in place of a secret.
pub const MASK: &str = "***";

/// Fields of a channel that say where its key goes.
const DESTINATION: [&str; 7] =
    ["platform", "base_url", "egress_proxy", "ca", "client_certificate", "key_placement", "resolve"];

/// One document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// What it describes.
    pub kind: EntityKind,
    /// Its id.
    pub id: String,
    /// What it says.
    pub fields: Fields,
}

/// What is wrong with a document. No field of it holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What it describes.
    pub kind: EntityKind,
    /// Its id.
    pub id: String,
    /// The field within it, such as `models[0]`; empty for the whole.
    pub path: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do about it.
    pub suggestion: Option<String>,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} `{}`", self.kind, self.id)?;
        if !self.path.is_empty() {
            write!(f, ", {}", self.path)?;
        }
        write!(f, ": {}", self.message)?;
        self.suggestion.as_ref().map_or(Ok(()), |text| write!(f, "; {text}"))
    }
}

/// The name of the section that holds documents of a kind.
pub(crate) const fn section(kind: EntityKind) -> &'static str {
    match kind {
        EntityKind::User => "users",
        EntityKind::Group => "groups",
        EntityKind::Channel => "channels",
        EntityKind::Key => "keys",
    }
}

/// The schema of one document.
pub(crate) fn of(kind: EntityKind) -> &'static Schema {
    static NONE: std::sync::LazyLock<Schema> = std::sync::LazyLock::new(Schema::default);
    schema::root().defs.get(kind.as_str()).unwrap_or(&NONE)
}

/// The document with `***` in place of each secret.
#[must_use]
pub fn mask(kind: EntityKind, fields: &Fields) -> Map<String, Value> {
    fn masked(value: &Value, schema: Option<&'static Schema>) -> Value {
        let Some(schema) = schema else { return Value::from(MASK) };
        if schema.is_secret() {
            return Value::from(MASK);
        }
        match value {
            Value::Object(map) => Value::Object(
                map.iter().map(|(name, value)| (name.clone(), masked(value, inner(schema, name)))).collect(),
            ),
            Value::Array(list) => {
                Value::Array(list.iter().map(|item| masked(item, item_of(schema, item))).collect())
            }
            // A private key where certificates belong.
            Value::String(text) if text.contains("PRIVATE KEY-----") => Value::from(MASK),
            value => value.clone(),
        }
    }
    let own = of(kind);
    let field = |name: &str| inner(own, name).or_else(|| names_owner(kind, name));
    fields.0.iter().map(|(name, value)| (name.clone(), masked(value, field(name)))).collect()
}

/// `user` of a key says whose it is; it stands in no file.
fn names_owner(kind: EntityKind, name: &str) -> Option<&'static Schema> {
    (kind == EntityKind::Key && name == "user").then(|| inner(of(kind), "name")).flatten()
}

/// The schema of a map's entry.
fn inner(schema: &'static Schema, name: &str) -> Option<&'static Schema> {
    let shapes = schema.resolve().shapes();
    shapes.into_iter().find_map(|shape| shape.properties.get(name).or_else(|| shape.values()))
}

/// The schema of a list's item.
fn item_of(schema: &'static Schema, item: &Value) -> Option<&'static Schema> {
    let kind = match item {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        _ => return schema.resolve().shapes().into_iter().find_map(Schema::items),
    };
    let items = schema.resolve().shapes().into_iter().find_map(Schema::items)?;
    items.shapes().into_iter().find(|shape| shape.takes(kind)).or(Some(items))
}

/// A document changed by a merge patch (RFC 7396): what it names is put in place, `null` takes a field
/// out. A secret that is `***` stays as it was.
#[must_use]
pub fn merge(kind: EntityKind, old: &Fields, patch: &Map<String, Value>) -> Fields {
    fn merged(
        old: Option<&Value>,
        patch: &Map<String, Value>,
        schema: &dyn Fn(&str) -> Option<&'static Schema>,
    ) -> Map<String, Value> {
        let mut out = old.and_then(Value::as_object).cloned().unwrap_or_default();
        for (name, value) in patch {
            let field = schema(name);
            let secret = field.is_some_and(Schema::is_secret);
            match value {
                Value::Null => drop(out.shift_remove(name)),
                Value::String(text) if secret && text == MASK && out.contains_key(name) => {}
                Value::Object(patch) => {
                    let within = |name: &str| field.and_then(|field| inner(field, name));
                    let value = Value::Object(merged(out.get(name), patch, &within));
                    out.insert(name.clone(), value);
                }
                value => drop(out.insert(name.clone(), value.clone())),
            }
        }
        out
    }
    let own = of(kind);
    let old = Value::Object(old.0.clone());
    Fields(merged(Some(&old), patch, &|name| inner(own, name)))
}

/// Documents as a configuration file that stands for itself (`literal`): keys of users by their digests,
/// secrets only where they are asked for.
///
/// # Errors
/// When a document cannot be written as YAML.
pub fn yaml(documents: &[Document], with_secrets: bool) -> Result<String, String> {
    let mut sections: [Map<String, Value>; 3] = Default::default();
    let mut keys: std::collections::HashMap<&str, Vec<Value>> = std::collections::HashMap::new();
    for document in documents.iter().filter(|document| document.kind == EntityKind::Key) {
        let mut fields = Map::new();
        fields.insert("id".to_owned(), Value::from(document.id.as_str()));
        fields.extend(document.fields.0.clone());
        fields.shift_remove("user");
        keys.entry(document.fields.text("user").unwrap_or_default()).or_default().push(Value::Object(fields));
    }
    for document in documents {
        let mut fields =
            if with_secrets { document.fields.0.clone() } else { mask(document.kind, &document.fields) };
        let place = match document.kind {
            EntityKind::User => 0,
            EntityKind::Group => 1,
            EntityKind::Channel => 2,
            EntityKind::Key => continue,
        };
        if document.kind == EntityKind::User {
            let keys = keys.remove(document.id.as_str()).unwrap_or_default();
            fields.insert("keys".to_owned(), Value::Array(keys));
        }
        sections[place].insert(document.id.clone(), Value::Object(fields));
    }
    let [users, groups, channels] = sections;
    let file = json!({ "literal": true, "users": users, "groups": groups, "channels": channels });
    serde_yaml::to_string(&file).map_err(|error| error.to_string())
}

/// The documents of a file that is sound: its values as they are after everything was put in place.
pub(crate) fn of_file(root: &Node, source: &crate::Source) -> Vec<Document> {
    let mut documents = Vec::new();
    for kind in [EntityKind::Channel, EntityKind::Group, EntityKind::User] {
        let Some(Entry { node: Node { value: Tree::Map(entries), .. }, .. }) = root.entry(section(kind))
        else {
            continue;
        };
        for entry in entries {
            let Value::Object(mut fields) = value(&entry.node) else { continue };
            let id = entry.key.to_string();
            match kind {
                EntityKind::Channel => inline(&mut fields, source),
                EntityKind::User => documents.extend(keys(&id, &mut fields)),
                EntityKind::Group | EntityKind::Key => {}
            }
            documents.push(Document { kind, id, fields: Fields(fields) });
        }
    }
    // Each refers to those before it alone.
    documents.sort_by_key(|document| document.kind);
    documents
}

/// Puts the certificates themselves in place of the paths of their files.
fn inline(channel: &mut Map<String, Value>, source: &crate::Source) {
    let read = |value: &mut Value| {
        if let Value::String(text) = value
            && !text.contains("-----BEGIN")
            && let Ok(pem) = std::fs::read_to_string(source.resolve(text))
        {
            *text = pem;
        }
    };
    channel.get_mut("ca").into_iter().for_each(read);
    channel.get_mut("client_certificate").and_then(|it| it.get_mut("chain")).into_iter().for_each(read);
}

/// Takes a user's keys out of its document.
fn keys(user: &str, fields: &mut Map<String, Value>) -> Vec<Document> {
    let lower = |value: &Value| value.as_str().unwrap_or_default().to_lowercase();
    let document = |mut own: Map<String, Value>| {
        let digest = own.get("sha256").map(lower).unwrap_or_default();
        let id = match own.shift_remove("id") {
            Some(Value::String(id)) => id,
            _ => format!("k_{}", &digest[..digest.len().min(12)]),
        };
        let mut all = Map::new();
        all.insert("user".to_owned(), Value::from(user));
        all.extend(own);
        all.insert("sha256".to_owned(), Value::from(digest));
        Document { kind: EntityKind::Key, id, fields: Fields(all) }
    };
    let mut out = Vec::new();
    if let Some(Value::String(key)) = fields.shift_remove("proxy_key") {
        let mut own = Map::new();
        own.insert("sha256".to_owned(), Value::from(KeyDigest::of(key.as_bytes()).hex()));
        own.insert("prefix".to_owned(), Value::from(&*KeyTag::of(&key).prefix));
        out.push(document(own));
    }
    if let Some(digest) = fields.shift_remove("proxy_key_sha256") {
        out.push(document(Map::from_iter([("sha256".to_owned(), digest)])));
    }
    if let Some(Value::Array(list)) = fields.shift_remove("keys") {
        let items = list.into_iter().filter_map(|item| match item {
            Value::Object(own) => Some(own),
            _ => None,
        });
        out.extend(items.map(document));
    }
    out
}

/// The fields by which the new channel's key would go elsewhere than the old one's.
#[must_use]
pub fn leads_elsewhere(old: &Fields, new: &Fields) -> Vec<&'static str> {
    DESTINATION.into_iter().filter(|name| old.0.get(*name) != new.0.get(*name)).collect()
}

/// The secrets of the old channel, by their paths, that a patch neither gives anew nor takes out.
#[must_use]
pub fn secrets_kept(old: &Fields, patch: &Map<String, Value>) -> Vec<String> {
    fn walk(
        old: &Map<String, Value>,
        patch: Option<&Map<String, Value>>,
        schema: &dyn Fn(&str) -> Option<&'static Schema>,
        before: &str,
        kept: &mut Vec<String>,
    ) {
        for (name, value) in old {
            let path = if before.is_empty() { name.clone() } else { format!("{before}.{name}") };
            let given = patch.and_then(|patch| patch.get(name));
            let field = schema(name);
            if field.is_some_and(Schema::is_secret) {
                if given.is_none_or(|given| given == MASK) {
                    kept.push(path);
                }
            } else if let Value::Object(inside) = value {
                let patch = match given {
                    None => None,
                    Some(Value::Object(patch)) => Some(patch),
                    // It is taken out, or something else stands in its place.
                    Some(_) => continue,
                };
                walk(inside, patch, &|name| field.and_then(|field| inner(field, name)), &path, kept);
            }
        }
    }
    let mut kept = Vec::new();
    walk(&old.0, Some(patch), &|name| inner(of(EntityKind::Channel), name), "", &mut kept);
    kept
}

/// The JSON Schemas of documents and of what they refer to, by the names of OpenAPI components:
/// `UserFields`, `GroupFields`, `ChannelFields`, and others.
#[must_use]
pub fn schemas() -> Map<String, Value> {
    let root: Value = serde_json::from_str(schema::TEXT).unwrap_or_default();
    let defs = root["$defs"].as_object().cloned().unwrap_or_default();
    let mut out = Map::new();
    for (name, mut def) in defs {
        // Those are of the file alone.
        if matches!(&*name, "system" | "key") {
            continue;
        }
        if name == "user"
            && let Some(properties) = def["properties"].as_object_mut()
        {
            for field in ["proxy_key", "proxy_key_sha256", "keys"] {
                properties.shift_remove(field);
            }
            def["description"] = Value::from("A person or a product line.");
        }
        tidy(&mut def);
        out.insert(component(&name), def);
    }
    let named: Vec<String> = out.keys().cloned().collect();
    // What only the file refers to.
    let mut used: std::collections::HashSet<String> =
        ["UserFields", "GroupFields", "ChannelFields"].into_iter().map(str::to_owned).collect();
    loop {
        let more: Vec<String> = named
            .iter()
            .filter(|name| !used.contains(*name))
            .filter(|name| {
                let reference = json!(format!("#/components/schemas/{name}")).to_string();
                used.iter().any(|user| out.get(user).is_some_and(|def| def.to_string().contains(&reference)))
            })
            .cloned()
            .collect();
        if more.is_empty() {
            break;
        }
        used.extend(more);
    }
    out.retain(|name, _| used.contains(name));
    out
}

fn component(name: &str) -> String {
    let camel: String = name
        .split(['_', '-'])
        .map(|word| {
            let mut letters = word.chars();
            letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
        })
        .collect();
    if matches!(name, "user" | "group" | "channel") { format!("{camel}Fields") } else { camel }
}

/// Takes out what is ours alone, and what this version does not have.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::Object(properties)) = map.get_mut("properties") {
                properties.retain(|_, field| field.get("x-planned").is_none());
            }
            map.retain(|name, value| {
                // A property may have such a name; those of the schema are texts.
                !(matches!(&**name, "x-kind" | "x-planned") && value.is_string())
            });
            if let Some(Value::String(reference)) = map.get_mut("$ref")
                && let Some(name) = reference.strip_prefix("#/$defs/")
            {
                *reference = format!("#/components/schemas/{}", component(name));
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(list) => list.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// A document as a tree, at no place in particular.
pub(crate) fn tree(value: &Value) -> Node {
    let value = match value {
        Value::Null => Tree::Null,
        Value::Bool(flag) => Tree::Bool(*flag),
        Value::Number(number) => Tree::Number(Number {
            text: number.to_string().into(),
            whole: number.as_i64(),
            float: number.as_f64().unwrap_or(f64::NAN),
        }),
        Value::String(text) => Tree::Text(text.as_str().into()),
        Value::Array(list) => Tree::List(list.iter().map(tree).collect()),
        Value::Object(map) => Tree::Map(map.iter().map(|(name, value)| entry(name, tree(value))).collect()),
    };
    Node { value, span: Span::at(Pos::START) }
}

pub(crate) fn entry(name: &str, node: Node) -> Entry {
    Entry { key: name.into(), key_span: Span::at(Pos::START), node, duplicate: None }
}

/// A tree as a document. Numbers that JSON does not have are none.
pub(crate) fn value(node: &Node) -> Value {
    match &node.value {
        Tree::Null => Value::Null,
        Tree::Bool(flag) => Value::Bool(*flag),
        Tree::Number(Number { whole: Some(whole), .. }) => Value::from(*whole),
        Tree::Number(number) => Value::from(number.float),
        Tree::Text(text) => Value::from(&**text),
        Tree::List(items) => Value::Array(items.iter().map(value).collect()),
        Tree::Map(entries) => {
            Value::Object(entries.iter().map(|entry| (entry.key.to_string(), value(&entry.node))).collect())
        }
    }
}

#[cfg(test)]
#[path = "entity/tests.rs"]
mod tests;
