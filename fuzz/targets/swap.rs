//! Keys in subprotocols and in first messages.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use aiproxy_config::{Source, load_str};
use aiproxy_fuzz::pieces::Input;
use aiproxy_fuzz::tree;
use aiproxy_platform::Pointer;
use aiproxy_routing::identify::{self, Offered};
use aiproxy_taps::fields;
use aiproxy_upstream::swap::Prepared;
use http::HeaderMap;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const PROXY_KEY: &str = "pk_1";
const CHANNEL_KEY: &str = "sk-2";

static CHANNELS: LazyLock<Vec<Prepared>> = LazyLock::new(|| {
    let text = "
channels:
  a: {platform: openai, api_key: sk-2, base_url: 'https://a.example'}
  b: {platform: openai, api_key: sk-2, base_url: 'https://a.example', key_placement: {subprotocol_prefix: 'openai-insecure-api-key.'}}
  c: {platform: custom, api_key: sk-2, base_url: 'https://a.example', key_placement: {subprotocol_pair: token}}
";
    let loaded =
        load_str(text, &Source::file(Path::new("aiproxy.yaml")), &|_| None).expect("a configuration");
    loaded.snapshot.channels.iter().map(|channel| Prepared::of(channel)).collect()
});

fuzz_target!(|data: &[u8]| {
    let Some(input) = Input::new(data) else { return };
    if input.choice & 1 == 0 {
        protocols(input.text, usize::from(input.choice >> 1));
    } else {
        message(input.text, usize::from(input.choice >> 1));
    }
});

/// Subprotocols as a handshake has them.
fn protocols(text: &[u8], choice: usize) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let list: Vec<String> = text
        .split(',')
        .map(str::trim)
        .filter(|protocol| !protocol.is_empty() && protocol.bytes().all(|byte| byte.is_ascii_graphic()))
        .map(str::to_owned)
        .collect();
    let offered = Offered::of(&list);
    // Nothing is lost, and what is passed on was offered.
    let (keys, open, marks) = (offered.keys.len(), offered.open.len(), offered.marks.len());
    assert_eq!(keys + open + marks, list.len());
    let none = HeaderMap::new();
    let Ok(key) = identify::socket_key(&none, None, &offered) else {
        // No key, or two of them: nobody is asked.
        assert!(offered.keys.iter().all(|key| key.is_empty()) || offered.keys.len() > 1);
        return;
    };
    let prepared = &CHANNELS[choice % CHANNELS.len()];
    let passing = prepared.protocols(&offered.open, &key);
    assert!(passing.iter().all(|protocol| offered.open.contains(protocol)));
    let mut headers = HeaderMap::new();
    for protocol in &list {
        headers.append(SEC_WEBSOCKET_PROTOCOL, protocol.parse().expect("graphic"));
    }
    prepared.swap_handshake(&mut headers, &key, "key", &passing);
    let sent: Vec<&str> = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .flat_map(|value| value.to_str().expect("text").split(", "))
        .collect();
    for protocol in &sent {
        let own = protocol.ends_with(CHANNEL_KEY) || *protocol == "token";
        assert!(own || !protocol.contains(&*key), "{protocol}");
        assert!(own || offered.open.contains(protocol), "{protocol}");
        let beta = protocol.to_ascii_lowercase().starts_with("openai-beta.");
        assert!(!beta || choice % CHANNELS.len() == 2, "{protocol}");
    }
}

/// A message with the keys of both sides.
fn message(text: &[u8], choice: usize) {
    let pointer = |text: &str| Pointer::parse(text).expect("a pointer");
    let callers = [pointer("/xi_api_key"), pointer("/a/b")];
    let channel = [None, Some(pointer("/xi_api_key")), Some(pointer("/a/c")), Some(pointer("/a"))];
    let channel = channel[choice % channel.len()].as_ref();
    let tree = tree::parse(text).filter(Value::is_object);
    let found = fields::strings(text, &callers);
    let Ok(found) = found else {
        assert!(tree.is_none());
        assert!(fields::edit(text, &callers, None).is_err());
        return;
    };
    if let Ok(key) = identify::message_key(None, found.clone()) {
        assert!(identify::message_key(Some(&key), found.clone()).is_ok());
        assert!(*key == *PROXY_KEY || identify::message_key(Some(PROXY_KEY), found).is_err());
    }
    let taken = fields::edit(text, &callers, None).expect("an object");
    let taken = taken.as_deref().unwrap_or(text);
    assert_eq!(fields::strings(taken, &callers), Ok(Vec::new()), "the caller's are gone");
    let set = channel.map(|place| (place, CHANNEL_KEY));
    let sent = fields::edit(taken, &[], set).expect("still an object");
    let sent = sent.as_deref().unwrap_or(taken);
    if let Some(place) = channel {
        let found = fields::strings(sent, std::slice::from_ref(place)).expect("an object");
        assert!(!found.is_empty() && found.iter().all(|key| key == CHANNEL_KEY), "the channel's is there");
    }
    // Done twice is done once.
    assert_eq!(fields::edit(taken, &callers, None), Ok(None));
    let Some(mut expected) = tree else { return };
    remove(&mut expected, &["xi_api_key"]);
    remove(&mut expected, &["a", "b"]);
    if let Some(place) = channel {
        put(&mut expected, place.names());
    }
    assert_eq!(serde_json::from_slice::<Value>(sent).ok(), Some(expected));
}

fn remove(value: &mut Value, names: &[&str]) {
    let Value::Object(members) = value else { return };
    match names {
        [last] => drop(members.remove(*last)),
        [first, rest @ ..] => {
            if let Some(inner) = members.get_mut(*first) {
                remove(inner, rest);
            }
        }
        [] => {}
    }
}

fn put(value: &mut Value, names: &[String]) {
    let Some((first, rest)) = names.split_first() else {
        *value = CHANNEL_KEY.into();
        return;
    };
    if !value.is_object() {
        *value = Value::Object(serde_json::Map::new());
    }
    put(&mut value[first.as_str()], rest);
}
