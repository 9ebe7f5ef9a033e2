use aiproxy_core::KeyDigest;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::claims::Kind;

fn key(text: &str) -> Secret {
    Secret::new(text.repeat(SHORTEST_KEY))
}

fn ring(texts: &[&str]) -> Keyring {
    Keyring::new(&texts.iter().map(|text| key(text)).collect::<Vec<_>>())
}

fn claims() -> Claims {
    Claims {
        id: "cs_1".into(),
        user: "张三".into(),
        parent: KeyDigest::of(b"pk_1"),
        channel: "main".into(),
        model: "gpt-realtime".into(),
        kind: Kind::Transcription,
        settings: json!({"instructions": "你好", "audio": {"output": {"voice": "alloy"}}})
            .as_object()
            .cloned(),
        origins: vec!["https://app.example".into()],
        issued: 1_790_000_000,
        expires: 1_790_000_600,
        single_use: true,
    }
}

fn sealed(ring: &Keyring) -> String {
    ring.seal(&claims()).unwrap().expose().to_owned()
}

#[test]
fn what_is_sealed_opens_as_it_was() {
    let ring = ring(&["a"]);
    let token = sealed(&ring);
    assert!(token.starts_with(PREFIX));
    assert_eq!(ring.open(&token), Ok(claims()));
    assert_ne!(token, sealed(&ring), "each has a nonce of its own");
    for said in ["pk_1", "main", "gpt-realtime", "app.example", "alloy"] {
        let bytes = URL_SAFE_NO_PAD.decode(&token[3..]).unwrap();
        assert!(!bytes.windows(said.len()).any(|window| window == said.as_bytes()), "{said} can be read");
    }
    let plain = Claims { settings: None, origins: Vec::new(), single_use: false, ..claims() };
    assert_eq!(ring.open(ring.seal(&plain).unwrap().expose()), Ok(plain));
}

#[test]
fn no_bit_of_it_may_change() {
    let ring = ring(&["a"]);
    let token = sealed(&ring);
    let bytes = URL_SAFE_NO_PAD.decode(&token[PREFIX.len()..]).unwrap();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            let error = ring.open(&format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(changed))).unwrap_err();
            let expected = match at {
                0 => OpenError::Version,
                1..HEAD => OpenError::UnknownKey,
                _ => OpenError::Tampered,
            };
            assert_eq!(error, expected, "byte {at}");
        }
    }
}

#[test]
fn nothing_of_it_may_be_missing_and_nothing_come_after() {
    let ring = ring(&["a"]);
    let token = sealed(&ring);
    for end in 0..token.len() {
        assert!(ring.open(&token[..end]).is_err(), "{end} characters");
    }
    for more in ["A", "AA", "AAAA", "=", " ", "\n"] {
        assert!(ring.open(&format!("{token}{more}")).is_err(), "{more:?}");
    }
    // One spelling only: another would not be found where a secret is searched for.
    let (head, last) = token.split_at(token.len() - 1);
    let spellings = (b'!'..=b'~').map(char::from).filter(|c| ring.open(&format!("{head}{c}")).is_ok());
    assert_eq!(spellings.collect::<String>(), last);
}

#[test]
fn an_old_key_opens_until_it_is_gone() {
    let old = sealed(&ring(&["a"]));
    let both = ring(&["b", "a"]);
    assert_eq!(both.open(&old), Ok(claims()));
    let new = sealed(&both);
    assert_eq!(ring(&["b"]).open(&new), Ok(claims()), "the first seals");
    assert_eq!(ring(&["b"]).open(&old), Err(OpenError::UnknownKey));
    assert_eq!(ring(&["a"]).open(&new), Err(OpenError::UnknownKey));
    assert_eq!(ring(&[]).open(&new), Err(OpenError::UnknownKey));
    assert!(ring(&[]).seal(&claims()).is_none());
}

#[test]
fn other_texts_are_told_apart() {
    let ring = ring(&["a"]);
    for text in ["", "ek_", "ek_????", "pk_user1", "ek_AA==", "ek_AQ"] {
        assert_eq!(ring.open(text), Err(OpenError::Malformed), "{text}");
    }
    assert_eq!(ring.open("ek_Ag"), Err(OpenError::Version));
    assert_eq!(ring.open(&format!("ek_{}", "A".repeat(LONGEST_TOKEN + 1))), Err(OpenError::Malformed));
}

#[test]
fn nothing_of_a_key_is_shown() {
    assert_eq!(format!("{:?}", ring(&["a", "b"])), "Keyring(2 keys)");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_opens_or_breaks_anything(text in "(ek_)?[A-Za-z0-9_-]{0,200}") {
        prop_assert!(ring(&["a"]).open(&text).is_err());
    }
}
