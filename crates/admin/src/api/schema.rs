//! Documents in the OpenAPI document: the schema of the configuration, and what the API adds to it.

use std::borrow::Cow;

use aiproxy_config::entity;
use aiproxy_core::EntityKind;
use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, schema::Schema};
use utoipa::{PartialSchema, ToSchema};

/// How a document is written in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// As answers show it.
    Shown,
    /// As a POST takes it.
    Made,
    /// As a PATCH takes it.
    Patch,
}

macro_rules! documents {
    ($($(#[$doc:meta])* $name:ident = $kind:ident, $shape:ident;)*) => {
        $(
            $(#[$doc])*
            pub(crate) struct $name;

            /// What it looks like is said by [`components`]: in JSON Schema, of which utoipa has a part.
            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    RefOr::default()
                }
            }

            impl ToSchema for $name {
                fn name() -> Cow<'static, str> {
                    stringify!($name).into()
                }
            }
        )*

        /// The schemas of documents and of what they refer to, by the names of components.
        pub(crate) fn components() -> Map<String, Value> {
            let mut all = entity::schemas();
            $(all.insert(stringify!($name).into(), schema_of(EntityKind::$kind, Shape::$shape));)*
            all
        }
    };
}

documents! {
    /// A user as answers show it.
    UserDocument = User, Shown;
    /// A user to be made.
    UserFields = User, Made;
    /// What to change of a user.
    UserPatch = User, Patch;
    /// A group as answers show it.
    GroupDocument = Group, Shown;
    /// A group to be made.
    GroupFields = Group, Made;
    /// What to change of a group.
    GroupPatch = Group, Patch;
    /// A channel as answers show it: secrets are `***`.
    ChannelDocument = Channel, Shown;
    /// A channel to be made.
    ChannelFields = Channel, Made;
    /// What to change of a channel.
    ChannelPatch = Channel, Patch;
    /// A key as answers show it: by its tag.
    KeyDocument = Key, Shown;
    /// A key to be made.
    KeyFields = Key, Made;
    /// What to change of a key.
    KeyPatch = Key, Patch;
}

macro_rules! lists {
    ($($name:ident of $item:path;)*) => {$(
        /// A page.
        #[derive(ToSchema)]
        pub(crate) struct $name {
            /// The items of this page.
            #[expect(dead_code, reason = "a schema")]
            items: Vec<$item>,
            /// How many there are on all pages.
            #[expect(dead_code, reason = "a schema")]
            total: u64,
        }
    )*};
}

lists! {
    UserList of UserDocument;
    GroupList of GroupDocument;
    ChannelList of ChannelDocument;
    KeyList of KeyDocument;
    LiveList of super::live::LiveSession;
    DenialList of super::denials::DenialShown;
}

/// A request or session that was ended.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a schema")]
pub(crate) struct CutShown {
    /// Its request id.
    #[schema(example = "req_0123456789abcdefghij")]
    id: String,
    /// `http`, `websocket` or `call`.
    kind: String,
    user: String,
    channel: Option<String>,
    model: Option<String>,
    /// RFC 3339.
    started_at: String,
}

/// What was deleted, and what ended with it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a schema")]
pub(crate) struct Deleted {
    id: String,
    deleted: bool,
    /// What was under way.
    cut: Vec<CutShown>,
}

/// The schema of the configuration. Keys stand in their users' documents there.
fn base(kind: EntityKind) -> Value {
    let name = match kind {
        EntityKind::User => "UserFields",
        EntityKind::Group => "GroupFields",
        EntityKind::Channel => "ChannelFields",
        EntityKind::Key => return key(),
    };
    entity::schemas().shift_remove(name).unwrap_or_default()
}

fn key() -> Value {
    let user = base(EntityKind::User);
    let mut properties = Map::new();
    for name in ["name", "valid_from", "expires_at", "models", "endpoints", "allow_ips"] {
        if let Some(field) = user.pointer(&format!("/properties/{name}")) {
            properties.insert(name.into(), field.clone());
        }
    }
    let channels =
        "Channels, among the user's, that the key may use. Without the field it may use all of them.";
    let ids = json!({ "type": "string", "maxLength": 64 });
    properties.insert(
        "channels".into(),
        json!({ "type": "array", "minItems": 1, "items": ids, "description": channels }),
    );
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

fn schema_of(kind: EntityKind, shape: Shape) -> Value {
    let mut schema = match base(kind) {
        Value::Object(schema) => schema,
        _ => Map::new(),
    };
    let mut properties = match schema.shift_remove("properties") {
        Some(Value::Object(properties)) => properties,
        _ => Map::new(),
    };
    match shape {
        Shape::Shown => shown(kind, &mut properties, &mut schema),
        Shape::Made => made(kind, &mut properties, &mut schema),
        Shape::Patch => {
            made(kind, &mut properties, &mut schema);
            properties.shift_remove("id");
            for value in properties.values_mut() {
                *value = json!({ "anyOf": [value.take(), { "type": "null" }] });
            }
            schema.shift_remove("required");
        }
    }
    schema.insert("properties".into(), properties.into());
    schema.into()
}

fn shown(kind: EntityKind, properties: &mut Map<String, Value>, schema: &mut Map<String, Value>) {
    take_apart(kind, properties);
    properties.insert("id".into(), json!({ "type": "string" }));
    properties
        .insert("revision".into(), json!({ "type": "integer", "description": "Its ETag, without quotes." }));
    for name in ["created_at", "updated_at"] {
        properties.insert(name.into(), json!({ "type": ["string", "null"], "format": "date-time" }));
    }
    if kind == EntityKind::Key {
        properties.insert("tag".into(), json!({ "type": "string", "examples": ["pk_abcde…3f2a91bc"] }));
        for name in ["user", "status"] {
            properties.insert(name.into(), json!({ "type": "string" }));
        }
        for name in ["retires_at", "last_used_at"] {
            properties.insert(name.into(), json!({ "type": ["string", "null"] }));
        }
    }
    if kind == EntityKind::User {
        properties.insert(
            "keys".into(),
            json!({ "type": "array", "items": { "type": "object" }, "description": "On a single user: its keys by their tags." }),
        );
    }
    schema.insert("required".into(), json!(["id", "revision"]));
    schema.insert("additionalProperties".into(), true.into());
}

fn made(kind: EntityKind, properties: &mut Map<String, Value>, schema: &mut Map<String, Value>) {
    take_apart(kind, properties);
    let mut required: Vec<Value> = match schema.shift_remove("required") {
        Some(Value::Array(names)) => names,
        _ => Vec::new(),
    };
    required.retain(|name| name.as_str().is_some_and(|name| properties.contains_key(name)));
    if kind != EntityKind::Key {
        // As the configuration has them.
        let id = match kind {
            EntityKind::Channel => {
                json!({ "type": "string", "maxLength": 64, "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$" })
            }
            _ => json!({ "type": "string", "minLength": 1, "maxLength": 128 }),
        };
        properties.insert("id".into(), id);
        if kind != EntityKind::User {
            required.push("id".into());
        }
    }
    if !required.is_empty() {
        schema.insert("required".into(), required.into());
    }
}

/// What has paths of its own is no field.
fn take_apart(kind: EntityKind, properties: &mut Map<String, Value>) {
    let apart: &[&str] = match kind {
        EntityKind::User => &["proxy_key", "proxy_key_sha256", "keys", "quota"],
        EntityKind::Group => &["quota"],
        EntityKind::Key => &["id", "user", "sha256", "prefix", "status", "retires_at"],
        EntityKind::Channel => &[],
    };
    for name in apart {
        properties.shift_remove(*name);
    }
}
