//! The configuration that tests begin with.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::needles::Needles;
use crate::wiretap::Wiretap;

/// The Proxy-Key of `user1` in [`standard`]. It has no character that a URL would encode, so that
/// it stands everywhere as it is.
pub const PROXY_KEY: &str = "pk_user1_7Qk2mZx9Lr4Tn8Vb3Wc6Yd1F";
/// The API key of the channel `main` in [`standard`]: one that has to be encoded in a query.
pub const CHANNEL_KEY: &str = "sk-channel/+=5Hs0Jg7Kp2Md9Nf4Qb8Rv1Xz";

/// One user, one `custom` channel, port 0, logs in JSON. Channels without `base_url` lead to the
/// platform that the test stands on.
#[must_use]
pub fn standard() -> Value {
    json!({
        "users": {
            "user1": {"name": "张三", "department": "技术部", "proxy_key": PROXY_KEY, "channels": ["main"]},
        },
        "channels": {
            "main": {"name": "沙盒", "platform": "custom", "api_key": CHANNEL_KEY},
        },
        "system": {
            "listen": {"http": "127.0.0.1:0", "admin": "127.0.0.1:0"},
            "log": {"format": "json", "access": "stdout"},
            "log_level": "debug",
        },
    })
}

/// Has objects kept apart only where the test says so, and points the channels that lead nowhere yet
/// to the platform; `@name` and a path to the one with
/// that name.
pub(crate) fn lead(config: &mut Value, platform: SocketAddr, others: &BTreeMap<String, Wiretap>) {
    for channel in values_mut(config, "channels") {
        // Most tests make up the ids that they ask for.
        if channel.get("ownership").is_none() {
            channel["ownership"] = "off".into();
        }
        let base = channel.get("base_url").and_then(Value::as_str).unwrap_or_default();
        if let Some(named) = base.strip_prefix('@') {
            let (name, path) = named.split_at(named.find('/').unwrap_or(named.len()));
            let other = others.get(name).unwrap_or_else(|| panic!("no platform '{name}'"));
            channel["base_url"] = format!("http://{}{path}", other.addr()).into();
            continue;
        }
        // A path alone stands behind the platform's address.
        if base.is_empty() || base.starts_with('/') {
            channel["base_url"] = format!("http://{platform}{base}").into();
        }
    }
}

/// Adds the keys to what each side must not see.
pub(crate) fn secrets(config: &Value, proxy_keys: &Needles, channel_keys: &Needles) {
    for (section, field, what, needles) in [
        ("users", "proxy_key", "the Proxy-Key of", proxy_keys),
        ("channels", "api_key", "the API key of", channel_keys),
    ] {
        let Some(entries) = config.get(section).and_then(Value::as_object) else { continue };
        for (id, entry) in entries {
            if let Some(key) = entry.get(field).and_then(Value::as_str).filter(|key| !key.contains("${")) {
                needles.add(&format!("{what} {id}"), key);
            }
        }
    }
}

fn values_mut<'a>(config: &'a mut Value, section: &str) -> impl Iterator<Item = &'a mut Value> {
    config.get_mut(section).and_then(Value::as_object_mut).into_iter().flat_map(|map| map.values_mut())
}
