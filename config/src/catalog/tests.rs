use aiproxy_core::KeyDigest;
use serde_json::{Value, json};

use super::*;
use crate::model::{Status, System};

fn fields(value: &Value) -> Fields {
    Fields(value.as_object().cloned().unwrap())
}

fn system() -> System {
    let source = Source { name: "t".into(), base: "/".into() };
    crate::load_str("system: {log_level: info}", &source, &|_| None).unwrap().snapshot.system
}

/// A catalog and the snapshot that is kept by it.
struct World {
    catalog: Catalog,
    snapshot: Snapshot,
}

impl World {
    fn new() -> Self {
        Self { catalog: Catalog::default(), snapshot: Snapshot::new([], Vec::new(), system()) }
    }

    fn put(&mut self, kind: EntityKind, id: &str, value: &Value) -> Result<(), Vec<String>> {
        self.change(&[Edit::Put(kind, id, &fields(value))])
    }

    fn change(&mut self, edits: &[Edit<'_>]) -> Result<(), Vec<String>> {
        match self.catalog.prepare(edits) {
            Ok(prepared) => {
                self.catalog.install(prepared, &mut self.snapshot);
                Ok(())
            }
            Err(faults) => Err(faults.iter().map(ToString::to_string).collect()),
        }
    }

    fn user(&self, key: &str) -> Option<&Arc<User>> {
        self.snapshot.user_by_key(&KeyDigest::of(key.as_bytes()))
    }

    fn channels(&self, key: &str) -> String {
        self.user(key).unwrap().channels.iter().map(|channel| &*channel.id).collect::<Vec<_>>().join(" ")
    }
}

fn key(user: &str, key: &str) -> Value {
    json!({"user": user, "sha256": KeyDigest::of(key.as_bytes()).hex(), "prefix": "pk_"})
}

fn channel(url: &str) -> Value {
    json!({"api_key": format!("sk-{url}"), "base_url": format!("https://{url}.example")})
}

/// Channels `a` and `b`, the group `g` on `b`, the users `u` (with the key `pk_of_u`) and `w`.
fn world() -> World {
    let mut world = World::new();
    world.put(EntityKind::Channel, "a", &channel("a")).unwrap();
    world.put(EntityKind::Channel, "b", &channel("b")).unwrap();
    world.put(EntityKind::Group, "g", &json!({"channels": ["b"], "models": ["m*"]})).unwrap();
    world.put(EntityKind::User, "u", &json!({"name": "张三", "channels": ["a"], "groups": ["g"]})).unwrap();
    world.put(EntityKind::Key, "k1", &key("u", "pk_of_u")).unwrap();
    world.put(EntityKind::User, "w", &json!({"channels": ["a"]})).unwrap();
    world
}

#[test]
fn a_change_reaches_whatever_refers_to_it() {
    let mut world = world();
    assert_eq!((world.channels("pk_of_u"), &*world.user("pk_of_u").unwrap().name), ("a b".into(), "张三"));
    let before = world.snapshot.clone();
    world.put(EntityKind::Group, "g", &json!({"channels": []})).unwrap();
    assert_eq!(world.channels("pk_of_u"), "a");
    assert!(world.user("pk_of_u").unwrap().models.is_none());
    world.put(EntityKind::Channel, "a", &json!({"api_key": "x", "base_url": "https://z.example"})).unwrap();
    assert_eq!(&*world.user("pk_of_u").unwrap().channels[0].base.host, "z.example");
    assert_eq!(&*world.snapshot.channels[0].base.host, "z.example");
    // Who holds the old snapshot sees the old world.
    let old = before.user_by_key(&KeyDigest::of(b"pk_of_u")).unwrap();
    assert_eq!((old.channels.len(), &*old.channels[0].base.host), (2, "a.example"));
}

#[test]
fn what_is_referred_to_stays_and_what_goes_is_gone() {
    let mut world = world();
    let gone = world.change(&[Edit::Delete(EntityKind::Channel, "b")]).unwrap_err();
    assert_eq!(
        gone,
        ["group `g`, channels[0]: there is no channel `b`; define it under `channels`, or remove it here"]
    );
    assert_eq!(world.catalog.referring(EntityKind::Channel, "b"), [(EntityKind::Group, "g".into())]);
    assert_eq!(world.catalog.referring(EntityKind::Group, "g"), [(EntityKind::User, "u".into())]);
    world
        .change(&[
            Edit::Put(EntityKind::User, "u", &fields(&json!({"channels": ["a"]}))),
            Edit::Delete(EntityKind::Group, "g"),
            Edit::Delete(EntityKind::Channel, "b"),
        ])
        .unwrap();
    assert_eq!(world.channels("pk_of_u"), "a");
    world.change(&[Edit::Delete(EntityKind::User, "u")]).unwrap();
    assert!(world.user("pk_of_u").is_none());
    // The key went with its user: its digest is free.
    world.put(EntityKind::Key, "k2", &key("w", "pk_of_u")).unwrap();
    assert_eq!(&*world.user("pk_of_u").unwrap().id, "w");
}

#[test]
fn one_key_of_a_user_is_in_use() {
    let mut world = world();
    let second = world.put(EntityKind::Key, "k2", &key("u", "pk_second")).unwrap_err();
    assert_eq!(
        second,
        ["key `k2`: the user `u` has a key in use already; rotate that one, or revoke it first"]
    );
    let mut old = key("u", "pk_of_u");
    old["retires_at"] = json!("2099-01-01");
    let new = key("u", "pk_second");
    world
        .change(&[
            Edit::Put(EntityKind::Key, "k1", &fields(&old)),
            Edit::Put(EntityKind::Key, "k2", &fields(&new)),
        ])
        .unwrap();
    assert_eq!(world.user("pk_of_u").unwrap().key.expires_at, Some(4_070_908_800));
    assert_eq!(world.user("pk_second").unwrap().key.expires_at, None);
    old["status"] = json!("revoked");
    world.put(EntityKind::Key, "k1", &old).unwrap();
    assert_eq!(world.user("pk_of_u").unwrap().key.status, Status::Disabled, "and still known");
}

#[test]
fn the_narrowest_counts() {
    let mut world = world();
    world
        .put(
            EntityKind::User,
            "u",
            &json!({
                "channels": ["a", "b"], "groups": ["g"], "models": ["m1", "m2", "x"],
                "allow_ips": ["10.0.0.0/8"], "valid_from": "2020-01-01", "expires_at": "2098-01-01"
            }),
        )
        .unwrap();
    let mut own = key("u", "pk_of_u");
    for (field, value) in [
        ("channels", json!(["b"])),
        ("models", json!(["m2", "m3"])),
        ("endpoints", json!(["/v1/chat/**"])),
        ("allow_ips", json!(["10.1.0.0/16"])),
        ("valid_from", json!("2021-01-01")),
        ("expires_at", json!("2099-01-01")),
    ] {
        own[field] = value;
    }
    world.put(EntityKind::Key, "k1", &own).unwrap();
    let user = world.user("pk_of_u").unwrap();
    assert_eq!(world.channels("pk_of_u"), "b");
    assert_eq!(user.models.lists(), [vec!["m*"], vec!["m1", "m2", "x"], vec!["m2", "m3"]]);
    assert_eq!(user.endpoints.lists(), [["/v1/chat/**"]]);
    assert_eq!(user.allow_ips.lists().len(), 2);
    assert_eq!((user.key.valid_from, user.key.expires_at), (Some(1_609_459_200), Some(4_039_372_800)));
}

#[test]
fn channels_of_one_order_share() {
    let mut world = world();
    let mapping = json!({"channels": [{"id": "b", "order": 2, "weight": 3}, "a"]});
    world.put(EntityKind::User, "u", &mapping).unwrap();
    assert_eq!(
        (world.channels("pk_of_u"), world.user("pk_of_u").unwrap().shares.is_none()),
        ("b a".into(), true)
    );
    let mapping = json!({"channels": [{"id": "b", "order": 2, "weight": 3}, {"id": "a", "order": 2}]});
    world.put(EntityKind::User, "u", &mapping).unwrap();
    let shares = world.user("pk_of_u").unwrap().shares.clone().unwrap();
    assert_eq!(shares.iter().map(|share| (share.order, share.weight)).collect::<Vec<_>>(), [(2, 3), (2, 1)]);
}

#[test]
fn values_are_literal() {
    let mut world = world();
    let mut odd = channel("a");
    odd["api_key"] = json!("${HOME}");
    odd["name"] = json!("file:/etc/passwd");
    world.put(EntityKind::Channel, "c", &odd).unwrap();
    let channel = world.snapshot.channel("c").unwrap();
    assert_eq!((channel.api_key.expose(), &*channel.name), ("${HOME}", "file:/etc/passwd"));
    odd["api_key"] = json!("file:/etc/passwd");
    world.put(EntityKind::Channel, "c", &odd).unwrap();
    assert_eq!(world.snapshot.channel("c").unwrap().api_key.expose(), "file:/etc/passwd");
    odd["ca"] = json!("/etc/passwd");
    let refused = world.put(EntityKind::Channel, "c", &odd).unwrap_err();
    assert_eq!(
        refused,
        [
            "channel `c`, ca: these are no certificates; write the certificates themselves, in PEM; paths of files are for the configuration file"
        ]
    );
}

#[test]
fn mistakes_are_named_without_secrets() {
    let mut world = world();
    for (kind, id, value, expected) in [
        (
            EntityKind::User,
            "x",
            json!({"nmae": "n"}),
            "user `x`, nmae: unknown key `nmae`; did you mean `name`?",
        ),
        (
            EntityKind::User,
            "x",
            json!({"groups": ["h"]}),
            "user `x`, groups[0]: there is no group `h`; define it under `groups`, or remove it here",
        ),
        (
            EntityKind::User,
            "x",
            json!({"keys": []}),
            "user `x`, keys: Proxy-Keys are documents of their own; make one for the user; see the API's keys",
        ),
        (
            EntityKind::User,
            "x",
            json!({"name": "a\u{0}b"}),
            "user `x`, name: a control character is not allowed; remove it; line breaks and tabs may stay",
        ),
        (EntityKind::User, " x", json!({}), "user ` x`: `x` cannot be an id"),
        (EntityKind::Channel, "阿里", channel("x"), "channel `阿里`"),
        (
            EntityKind::Channel,
            "x",
            json!({"api_key": "sk-hunter2 x", "base_url": "https://x.example"}),
            "channel `x`, api_key: the key has a space",
        ),
        (
            EntityKind::Channel,
            "x",
            json!({"api_key": "pk_of_u", "base_url": "https://x.example"}),
            "channel `x`, api_key: the channel's API key is the Proxy-Key of the user `u`",
        ),
        (EntityKind::Key, "k9", key("nobody", "pk_n"), "key `k9`, user: there is no user `nobody`"),
        (
            EntityKind::Key,
            "k9",
            key("w", "pk_of_u"),
            "key `k9`: the users `u` and `w` have the same Proxy-Key",
        ),
        (
            EntityKind::Key,
            "k9",
            key("w", "sk-a"),
            "key `k9`, sha256: the Proxy-Key is the API key of the channel `a`",
        ),
        (EntityKind::Key, "k9", json!({"user": "w"}), "key `k9`"),
    ] {
        let found = world.put(kind, id, &value).unwrap_err().join("\n");
        assert!(found.starts_with(expected), "{found}");
        assert!(!found.contains("hunter2"), "{found}");
    }
}

#[test]
fn bad_documents_do_not_take_the_others_with_them() {
    let documents = [
        (EntityKind::Channel, "a", channel("a")),
        (EntityKind::Channel, "b", json!({"base_url": "https://b.example"})),
        (EntityKind::User, "u", json!({"channels": ["b", "a"]})),
        (EntityKind::Key, "k", key("u", "pk_of_u")),
        (EntityKind::User, "v", json!({"groups": ["gone"]})),
        (EntityKind::Key, "l", key("v", "pk_of_v")),
    ]
    .map(|(kind, id, value)| (kind, id, fields(&value)));
    let (catalog, prepared, faults) =
        Catalog::load(documents.iter().map(|(kind, id, fields)| (*kind, *id, fields)));
    let mut world = World { catalog, snapshot: Snapshot::new([], Vec::new(), system()) };
    world.catalog.install(prepared, &mut world.snapshot);
    let found: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("channel `b`") && found[1].starts_with("user `v`"), "{found:?}");
    assert_eq!(world.channels("pk_of_u"), "a");
    assert!(world.user("pk_of_v").is_none());
    // Mended, it is there.
    world.put(EntityKind::Channel, "b", &channel("b")).unwrap();
    world.put(EntityKind::User, "u", &json!({"channels": ["b", "a"]})).unwrap();
    assert_eq!(world.channels("pk_of_u"), "b a");
}
