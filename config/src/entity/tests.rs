use super::*;

fn fields(value: Value) -> Fields {
    let Value::Object(map) = value else { panic!("an object") };
    Fields(map)
}

fn channel() -> Fields {
    fields(json!({
        "name": "阿里云百炼", "api_key": "sk-hunter2", "base_url": "https://a.example",
        "egress_proxy": "http://u:pw@proxy.example:3128", "headers": {"set": {"x-org": "org-hunter2"}},
        "models": ["qwen*"]
    }))
}

#[test]
fn no_secret_is_shown() {
    let shown = Value::Object(mask(EntityKind::Channel, &channel()));
    let expected = json!({
        "name": "阿里云百炼", "api_key": "***", "base_url": "https://a.example", "egress_proxy": "***",
        "headers": {"set": {"x-org": "***"}}, "models": ["qwen*"]
    });
    assert_eq!(shown, expected);
    // What is not known might be one.
    let odd = fields(json!({"apikey": "sk-hunter2", "ca": "-----BEGIN PRIVATE KEY-----\nhunter2"}));
    assert!(!Value::Object(mask(EntityKind::Channel, &odd)).to_string().contains("hunter2"));
    let key = fields(json!({"user": "u", "sha256": "ba78", "status": "active"}));
    assert_eq!(
        Value::Object(mask(EntityKind::Key, &key)),
        json!({"user": "u", "sha256": "***", "status": "active"})
    );
}

#[test]
fn a_patch_keeps_masked_secrets_and_takes_nulls_out() {
    let patch = fields(json!({
        "api_key": "***", "name": null, "models": ["m"], "headers": {"set": {"x-org": "***", "x-b": "2"}}
    }));
    let merged = merge(EntityKind::Channel, &channel(), &patch.0);
    let expected = fields(json!({
        "api_key": "sk-hunter2", "base_url": "https://a.example",
        "egress_proxy": "http://u:pw@proxy.example:3128",
        "headers": {"set": {"x-org": "org-hunter2", "x-b": "2"}}, "models": ["m"]
    }));
    assert_eq!(merged, expected);
}

#[test]
fn who_moves_a_channel_has_to_know_its_secrets() {
    let old = channel();
    for (patch, elsewhere, kept) in [
        (json!({"name": "x"}), &[][..], &["api_key", "egress_proxy", "headers.set.x-org"][..]),
        (
            json!({"base_url": "https://b.example"}),
            &["base_url"],
            &["api_key", "egress_proxy", "headers.set.x-org"],
        ),
        (
            json!({"base_url": "https://b.example", "api_key": "sk-2", "egress_proxy": null, "headers": {"set": {"x-org": "1"}}}),
            &["base_url", "egress_proxy"],
            &[],
        ),
        (
            json!({"resolve": {"a.example": ["127.0.0.1"]}, "api_key": "***", "headers": null}),
            &["resolve"],
            &["api_key", "egress_proxy"],
        ),
    ] {
        let patch = fields(patch);
        let new = merge(EntityKind::Channel, &old, &patch.0);
        assert_eq!(leads_elsewhere(&old, &new), elsewhere, "{patch:?}");
        assert_eq!(secrets_kept(&old, &patch.0), kept, "{patch:?}");
    }
}

#[test]
fn components_refer_to_components() {
    let all = schemas();
    let text = Value::Object(all.clone()).to_string();
    assert!(!text.contains("$defs") && !text.contains("x-kind") && !text.contains("x-planned"));
    assert!(!text.contains("proxy_key"));
    for part in text.split("#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(all.contains_key(name), "{name}");
    }
}

fn load(text: &str) -> crate::Loaded {
    let source = crate::Source { name: "t".into(), base: "/".into() };
    crate::load_str(text, &source, &|name| Some(format!("value-of-{name}"))).unwrap()
}

#[test]
fn a_file_comes_back_as_it_went() {
    let text = "users:\n  u: {name: 张三, phone: '0123', proxy_key: pk_of_user_u, channels: [{id: b, order: 1}, a], groups: [g]}\n  v: {proxy_key_sha256: BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad, notes: \"yes\"}\ngroups: {g: {models: [m], expires_at: 2099-01-01}}\nchannels:\n  b: {api_key: '${KEY}', base_url: https://b.example, path_rewrite: {/z: /y, /a: /b}, timeouts: {idle: 1.5}}\n  a: {api_key: '$${X}', base_url: https://a.example, headers: {set: {x-org: 'file:x'}}}\n"
        .replace("'file:x'", "org");
    let first = load(&text);
    let ids: Vec<_> = first.documents.iter().map(|it| format!("{} {}", it.kind, it.id)).collect();
    assert_eq!(
        ids,
        ["channel b", "channel a", "group g", "user u", "user v", "key k_d13c0c4ba2ff", "key k_ba7816bf8f01"]
            .map(|id| id.replace("d13c0c4ba2ff", &KeyDigest::of(b"pk_of_user_u").hex()[..12]))
    );
    assert_eq!(first.documents[0].fields.text("api_key"), Some("value-of-KEY"));
    assert_eq!(first.documents[1].fields.text("api_key"), Some("${X}"));
    let written = yaml(&first.documents, true).unwrap();
    let second = load(&written);
    assert_eq!(second.documents, first.documents, "{written}");
    assert!(crate::diff(&first.snapshot, &second.snapshot).is_empty());
    let shown = yaml(&first.documents, false).unwrap();
    assert!(!shown.contains("value-of-KEY") && shown.contains("ba7816bf8f01cfea"), "{shown}");
    let source = crate::Source { name: "t".into(), base: "/".into() };
    let problems = crate::load_str(&shown, &source, &|_| None).unwrap_err().to_string();
    assert!(problems.contains("this is what stands in place of a key"), "{problems}");
}

#[test]
fn every_text_survives_the_file() {
    for text in [
        "yes",
        "~",
        "null",
        "0x1F",
        "0o17",
        "1_000",
        "1e3",
        ".5",
        "-",
        "- a",
        "a: b",
        "a #b",
        "#",
        "'",
        "\"",
        "\\",
        " lead",
        "trail ",
        "line\nbreak\n",
        "\ttab",
        "张三",
        "😀",
        "${HOME}",
        "file:/etc/passwd",
        "<<",
        "=",
        "!x",
        "&a",
        "*a",
        "%",
        "@",
        "`",
        "|",
        ">",
        "2027-01-01",
        "12:30:45",
        "\u{85}\u{2028}",
        "\u{feff}x",
        "",
        "trailing colon:",
        "? a",
        "[a",
        "{a",
        "---",
        "...",
        "True",
        "NaN",
        ".inf",
        "+1",
        "0123",
    ] {
        let document =
            Document { kind: EntityKind::User, id: "u".into(), fields: fields(json!({"notes": text})) };
        let written = yaml(std::slice::from_ref(&document), true).unwrap();
        let back = load(&written).documents;
        assert_eq!(back[0].fields, document.fields, "{text:?} as {written}");
    }
}

#[test]
fn settings_stay_as_they_are_written() {
    for (text, expected) in [
        (
            "# ours\nusers:\n  u: {proxy_key: pk_12345}\n\n# how it runs\nsystem:\n  log_level: info # quiet\nchannels:\n  c: {}\n",
            "# ours\n# how it runs\nsystem:\n  log_level: info # quiet\n",
        ),
        ("users: {}\n", "system: {}\n"),
        ("{users: {a: 1}, system: {log_level: info}}", "system:\n  log_level: info\n"),
        (
            "users:\n  u: &x {name: debug}\nsystem: {log_level: info, cors: *x}\n",
            "system:\n  log_level: info\n  cors:\n    name: debug\n",
        ),
        ("system: {log_level: info}\n", "system: {log_level: info}\n"),
    ] {
        let rest = crate::without_documents(text).unwrap();
        assert_eq!(rest.trim_end(), expected.trim_end(), "{text}");
    }
    assert_eq!(crate::without_documents("[]"), None);
}
