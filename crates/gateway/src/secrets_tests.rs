use aiproxy_core::KeyDigest;
use http::HeaderValue;

use super::*;

fn claims(kind: Kind) -> Claims {
    Claims {
        id: "cs_1".into(),
        user: "user1".into(),
        parent: KeyDigest::of(b"pk_1"),
        channel: "main".into(),
        model: "gpt realtime/1".into(),
        kind,
        settings: None,
        origins: vec!["https://a.example".into(), "http://localhost:8000".into()],
        issued: 0,
        expires: 600,
        single_use: false,
    }
}

/// A user, and what else there is in a configuration.
fn snapshot() -> Snapshot {
    let source = aiproxy_config::Source { name: "test".into(), base: "/".into() };
    let text = "users: {user1: {proxy_key: pk_1_0123456789, status: disabled}}\n";
    aiproxy_config::load_str(text, &source, &|_| None).unwrap().snapshot
}

fn secret(kind: Kind, place: ModelPlace) -> ClientSecret {
    ClientSecret { claims: claims(kind), place, parent: Arc::clone(snapshot().users().next().unwrap()) }
}

#[test]
fn the_model_goes_where_none_is_named() {
    let (model, deployment) = (ModelPlace::Query("model"), ModelPlace::Query("deployment"));
    for (kind, place, given, expected) in [
        (Kind::Realtime, model, None, Some("model=gpt%20realtime%2F1")),
        (Kind::Realtime, model, Some(""), Some("model=gpt%20realtime%2F1")),
        (Kind::Realtime, model, Some("a=b&c"), Some("a=b&c&model=gpt%20realtime%2F1")),
        (Kind::Realtime, model, Some("model=x"), Some("model=x")),
        (
            Kind::Realtime,
            deployment,
            Some("api-version=1"),
            Some("api-version=1&deployment=gpt%20realtime%2F1"),
        ),
        (Kind::Translation, model, None, Some("model=gpt%20realtime%2F1")),
        (Kind::Transcription, model, None, Some("intent=transcription")),
        (Kind::Transcription, model, Some("intent=transcription"), Some("intent=transcription")),
        (Kind::Realtime, ModelPlace::Message, Some("a=b"), Some("a=b")),
        (Kind::Realtime, ModelPlace::Message, None, None),
    ] {
        let secret = secret(kind, place);
        assert_eq!(query(Some(&secret), given).as_deref(), expected, "{kind:?} {given:?}");
        assert_eq!(query(None, given).as_deref(), given);
    }
}

#[test]
fn pages_of_other_origins_and_programs_are_refused() {
    let claims = claims(Kind::Realtime);
    let check = |values: &[&'static str]| {
        let mut headers = HeaderMap::new();
        values.iter().for_each(|value| _ = headers.append(ORIGIN, HeaderValue::from_static(value)));
        check_origin(&claims, &headers).map_err(|refusal| refusal.kind)
    };
    for origin in ["https://a.example", "http://localhost:8000"] {
        assert_eq!(check(&[origin]), Ok(()));
    }
    for origins in [
        &[][..],
        &["null"],
        &["https://a.example.evil"],
        &["HTTPS://a.example"],
        &["https://a.example", "https://b.example"],
    ] {
        assert_eq!(check(origins), Err(ErrorKind::SecretOriginNotAllowed), "{origins:?}");
    }
    let free = Claims { origins: Vec::new(), ..claims.clone() };
    assert!(check_origin(&free, &HeaderMap::new()).is_ok());
}

#[test]
fn a_session_begins_with_its_settings() {
    let with = |kind| {
        let settings = json!({"instructions": "你好"}).as_object().cloned();
        let secret = secret(kind, ModelPlace::Query("model"));
        ClientSecret { claims: Claims { settings, ..claims(kind) }, ..secret }
    };
    for (kind, expected) in [
        (Kind::Realtime, json!({"type": "realtime", "instructions": "你好"})),
        (Kind::Transcription, json!({"type": "transcription", "instructions": "你好"})),
        (Kind::Translation, json!({"instructions": "你好"})),
    ] {
        let said: serde_json::Value = serde_json::from_slice(&with(kind).prelude().unwrap()).unwrap();
        assert_eq!(said, json!({"type": "session.update", "session": expected}));
    }
    assert_eq!(secret(Kind::Realtime, ModelPlace::Message).prelude(), None);
}

#[test]
fn keys_are_derived_once_for_each_configuration() {
    let secrets = ClientSecrets::new(&Secret::new("k".repeat(40)), Minted::default());
    let mut system = snapshot().system;
    let installed = secrets.ring(&system);
    let token = installed.seal(&claims(Kind::Realtime)).unwrap();
    system.client_secrets.keys = Arc::new([Secret::new("n".repeat(40))]);
    let ring = secrets.ring(&system);
    assert!(Arc::ptr_eq(&ring, &secrets.ring(&system.clone())));
    assert!(ring.open(token.expose()).is_err());
    system.client_secrets.keys = Arc::new([Secret::new("n".repeat(40)), Secret::new("k".repeat(40))]);
    assert!(secrets.ring(&system).open(token.expose()).is_ok(), "an old key goes on opening");
}
