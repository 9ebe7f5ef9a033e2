//! Nothing that a file may hold makes the loader panic, hang or show a key.

use proptest::prelude::*;

use super::*;

/// Pieces that YAML and the schema care about.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "\n",
            "\n  ",
            "\n    ",
            "\n- ",
            ": ",
            ":",
            ", ",
            "{",
            "}",
            "[",
            "]",
            "\"",
            "'",
            "|",
            ">",
            "&a ",
            "*a",
            "<<: ",
            "# ",
            "---\n",
            "...\n",
            "!!str ",
            "%YAML 1.2\n",
            "\t",
            "\r\n",
            "\r",
            "? ",
            "- ",
            "~",
            "null",
            "true",
            "1",
            "0x1f",
            "1.5",
            "users",
            "channels",
            "groups",
            "system",
            "user1",
            "proxy_key",
            "api_key",
            "base_url",
            "headers",
            "set",
            "status",
            "active",
            "name",
            "张三",
            "listen",
            "http",
            "limits",
            "key_placement",
            "bearer",
            "header",
            "query",
            "https://a.example",
            "10s",
            "64KiB",
            "10.0.0.0/8",
            "${X}",
            "file:x",
            "\u{feff}",
            "\u{85}",
            "\u{2028}",
            "😀",
        ])
        .prop_map(str::to_owned),
        ".{0,4}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        if let Err(problems) = load_bytes(&bytes, &source(), &env) {
            prop_assert!(!problems.problems().is_empty());
            let _ = problems.to_string();
        }
    }

    #[test]
    fn arbitrary_yaml(pieces in prop::collection::vec(piece(), 0..60)) {
        let text = pieces.concat();
        if let Err(problems) = load_str(&text, &source(), &env) {
            let _ = problems.to_string();
        }
    }

    /// A valid file with one stretch replaced: however it breaks, the keys stay hidden.
    #[test]
    fn broken_files_show_no_key(at in 0usize..600, cut in 0usize..40, pieces in prop::collection::vec(piece(), 0..4)) {
        let text: Vec<char> = super::secrecy::FILE.chars().collect();
        let at = at.min(text.len());
        let end = (at + cut).min(text.len());
        let broken: String = text[..at].iter().copied().chain(pieces.concat().chars()).chain(text[end..].iter().copied()).collect();
        let shown = match load_str(&broken, &source(), &env) {
            Ok(loaded) => loaded.warnings.iter().map(ToString::to_string).collect(),
            Err(problems) => problems.to_string(),
        };
        for secret in super::secrecy::SECRETS {
            if is_recognisable(&broken, secret) {
                prop_assert!(!shown.contains(secret), "{secret} in\n{shown}\nof\n{broken}");
            }
        }
    }
}

/// Whether the secret still stands behind its own name, wherever it stands. Behind the name of
/// another field it is that field's value, as far as anyone can tell.
fn is_recognisable(text: &str, secret: &str) -> bool {
    let original = super::secrecy::FILE;
    let at = original.find(secret).unwrap();
    let name = original[..at]
        .rfind([' ', '{', '\n'])
        .map(|_| original[..at].trim_end_matches(['"', '\'', ' ', '\n', '-', '>', ':']));
    let name = name.and_then(|before| before.rsplit([' ', '{']).next()).unwrap();
    let field = &original[original[..at].rfind(name).unwrap()..at + secret.len()];
    text.matches(field).count() == text.matches(secret).count()
        && text.match_indices(field).all(|(at, _)| text[..at].ends_with([' ', '\n', '{', ',']))
}

#[test]
fn aliases_cannot_grow_without_bound() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        text.push_str(&format!("a{level}: &a{level} [{}]\n", below.trim_end_matches(", ")));
    }
    let problems = problems(&text);
    assert_eq!(problems.problems()[0].message, "the file holds too many values");
    // So with one long text.
    let long =
        format!("a: &a \"{}\"\nb: [{}]\n", "x".repeat(1 << 20), "*a, ".repeat(10_000).trim_end_matches(", "));
    assert_eq!(super::problems(&long).problems()[0].message, "the file holds too many values");
}

#[test]
fn depth_is_bounded() {
    for text in [
        "[".repeat(100_000),
        "{a: ".repeat(10_000),
        (0..5000).map(|n| format!("{}a:\n", " ".repeat(n))).collect(),
    ] {
        let shown = problems(&text).to_string();
        assert!(shown.contains("nests too deeply") || shown.contains("not valid YAML"), "{shown}");
    }
}

#[test]
fn large_files_are_refused() {
    let text = "#".repeat((1 << 24) + 1);
    assert_eq!(problems(&text).problems()[0].message, "the file is larger than 16 MiB");
}

#[test]
fn a_company_of_ten_thousand_loads_quickly() {
    let mut text =
        "channels: {c: {api_key: the-key-of-c, base_url: https://api.openai.com}}\nusers:\n".to_owned();
    for n in 0..10_000 {
        text.push_str(&format!("  u{n}: {{name: 张三, proxy_key: pk_number_{n}, channels: [c]}}\n"));
    }
    let begun = std::time::Instant::now();
    assert_eq!(load(&text).snapshot.users().count(), 10_000);
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    // Each of them wrong.
    let broken = text.replace("[c]", "[x]");
    let begun = std::time::Instant::now();
    let problems = problems(&broken);
    assert!(problems.to_string().contains("… and 9800 more"), "{problems}");
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}
