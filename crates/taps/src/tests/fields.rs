use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn pointer(text: &str) -> Pointer {
    Pointer::parse(text).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn strings_are_found_however_they_are_written() {
    let places = [pointer("/key"), pointer("/auth/token")];
    for (message, expected) in [
        (r#"{"key":"a"}"#, &["a"][..]),
        (r#" { "\u006bey" : "\u0061" , "key":"b" } "#, &["a", "b"]),
        (r#"{"auth":{"token":"t"},"key":7,"auth":{"token":"u"}}"#, &["t", "u"]),
        (r#"{"auth":"token","x":{"key":"no"}}"#, &[]),
        (r#"{"text":"\"key\":\"a\""}"#, &[]),
    ] {
        let found = strings(message.as_bytes(), &places).unwrap();
        assert_eq!(found, expected, "{message}");
    }
    for message in ["", "[]", "7", "{", r#"{"a":}"#, r#"{"a":1}x"#, "\u{feff}{}"] {
        assert_eq!(strings(message.as_bytes(), &places), Err(NotAnObject), "{message}");
        assert_eq!(edit(message.as_bytes(), &places, None), Err(NotAnObject), "{message}");
    }
    assert_eq!(strings(b"{\"key\":\"\xff\"}", &places), Err(NotAnObject));
    // A name of half a surrogate pair, on the way to a member.
    let half = br#"{"key":"a","auth":{"\ud83d":1,"token":"t"}}"#;
    assert_eq!(strings(half, &places), Err(NotAnObject));
    assert_eq!(edit(half, &places, None), Err(NotAnObject));
}

#[test]
fn members_go_and_come() {
    let (key, token) = (pointer("/key"), pointer("/auth/token"));
    for (message, remove, set, expected) in [
        (r#"{"a": 1.50, "key":"x"}"#, Some(&key), None, Some(r#"{"a":1.50}"#)),
        (r#"{"key":"x","key":"y"}"#, Some(&key), None, Some("{}")),
        (r#"{"a": 1}"#, Some(&key), None, None),
        ("{}", None, Some(&key), Some(r#"{"key":"se\"cret"}"#)),
        (r#"{"key":{"old":1},"b":[ ]}"#, None, Some(&key), Some(r#"{"b":[ ],"key":"se\"cret"}"#)),
        (r#"{"a":1}"#, None, Some(&token), Some(r#"{"a":1,"auth":{"token":"se\"cret"}}"#)),
        (
            r#"{"auth":{"token":1,"b": "语音"},"key":"x"}"#,
            Some(&key),
            Some(&token),
            Some(r#"{"auth":{"b":"语音","token":"se\"cret"}}"#),
        ),
        (r#"{"auth":"x"}"#, Some(&token), Some(&token), Some(r#"{"auth":{"token":"se\"cret"}}"#)),
        (r#"{"auth":{"token":"x"}}"#, Some(&token), None, Some(r#"{"auth":{}}"#)),
    ] {
        let remove: Vec<Pointer> = remove.into_iter().cloned().collect();
        let edited = edit(message.as_bytes(), &remove, set.map(|place| (place, "se\"cret"))).unwrap();
        assert_eq!(edited.as_deref().map(|bytes| std::str::from_utf8(bytes).unwrap()), expected, "{message}");
    }
}

#[test]
fn a_text_is_found_in_every_spelling() {
    let utf16: Vec<u8> = "{\"k\":\"pk_1\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for message in [&br#"x pk_1"#[..], br#"{"a":"\u0070k_\u0031"}"#, br#"[NaN,"pk\u005F1"]"#, &utf16] {
        assert!(holds(message, "pk_1"), "{message:?}");
    }
    assert!(!holds(br#"{"a":"pk_2\\u005f1"}"#, "pk_1"));
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("key|auth|token|\\PC{0,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// What was taken out is gone, what was put in is there, and the rest is what it was.
    #[test]
    fn the_rest_stays(members in prop::collection::btree_map("key|auth|\\PC{0,4}", value(), 0..6)) {
        let message = Value::Object(members.into_iter().collect());
        let (key, token) = (pointer("/key"), pointer("/auth/token"));
        let edited = edit(message.to_string().as_bytes(), std::slice::from_ref(&key), Some((&token, "s"))).unwrap();
        let edited: Value = serde_json::from_slice(&edited.unwrap()).unwrap();
        let mut expected = message;
        let object = expected.as_object_mut().unwrap();
        object.remove("key");
        match object.get_mut("auth") {
            Some(Value::Object(auth)) => { auth.insert("token".into(), "s".into()); }
            _ => { object.insert("auth".into(), json!({"token": "s"})); }
        }
        prop_assert_eq!(edited, expected);
    }
}
