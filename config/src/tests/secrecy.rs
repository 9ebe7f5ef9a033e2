//! No rendering ever holds a key.

use super::*;

/// None begins like a key or looks like one: only its place gives it away.
pub(super) const SECRETS: [&str; 6] =
    ["hunter2hunter", "opensesame", "swordfish,comma", "correct horse", "tr0ub4dor", "mellon/friend"];

/// Every way to write a secret down.
pub(super) const FILE: &str = r#"users:
  a:
    name: 张三
    proxy_key: hunter2hunter
    channels: [c]
  b: {name: 李四, proxy_key: "opensesame", status: active, channels: [c, d]}
channels:
  c:
    api_key: "swordfish,comma"
    base_url: https://api.openai.com
    headers:
      set: {X-A: correct horse, X-B: 'tr0ub4dor'}
      pass: [x-c]
  d:
    base_url: https://api.anthropic.com
    api_key: >-
      mellon/friend
    status: active
system:
  log_level: info
"#;

#[test]
fn keys_of_client_secrets_are_hidden_where_the_file_is_broken() {
    for text in [
        "system:\n  client_secrets:\n    keys:\n      - hunter2hunter\n      - \"opensesame\"\n    max_ttl: {\n",
        "system:\n  client_secrets:\n    keys: [hunter2hunter, opensesame]\n    max_tl: 5s\n",
        "system:\n  client_secrets:\n    keys: [hunter2hunter, opensesame\n    max_ttl: 5s\n",
        "system:\n  client_secrets:\n    keys: {hunter2hunter: opensesame}\n",
        "system:\n  client_secrets: [hunter2hunter, opensesame]\n",
        "system:\n  client_secrets: hunter2hunter opensesame\n",
    ] {
        assert_hidden(text, &SECRETS[..2]);
    }
}

fn shown(text: &str) -> String {
    match load_str(text, &source(), &env) {
        Ok(loaded) => loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        Err(problems) => problems.to_string(),
    }
}

fn assert_hidden(text: &str, secrets: &[&str]) -> String {
    let shown = shown(text);
    for secret in secrets {
        assert!(!shown.contains(secret), "{secret} in\n{shown}\nof\n{text}");
    }
    shown
}

#[test]
fn every_kind_of_problem_hides_the_keys() {
    // With the key on the line that the problem shows.
    for line in [
        "{proxy_key: hunter2hunter, stauts: active}",
        "{proxy_key: hunter2hunter, status: actve}",
        "{proxy_key: hunter2hunter, status: active, status: active}",
        "{proxy_key: hunter2hunter, proxy_key: hunter2hunter}",
        "{proxy_key: hunter2hunter, quota: 1}",
        "{proxy_key: hunter2hunter, name: 5}",
        "{proxy_key: hunter2hunter, channels: [x]}",
        "{proxy_key: hunter2hunter, groups: [x]}",
        "{proxy_key: hunter2hunter, allow_ips: [x]}",
        "{proxy_key: hunter2hunter, expires_at: x}",
        "{proxy_key: hunter2hunter, expires_at: 2001-01-01}",
        "{proxy_key: hunter2hunter}",
        "{proxy_key: hunter2hunter, proxy_key_sha256: hunter2hunter}",
        "{proxy_key_sha256: hunter2hunter}",
        "{proxy_key: [hunter2hunter]}",
        "{proxy_key: {hunter2hunter: hunter2hunter}}",
        "{proxy_key: hunter2hunter 钥匙}",
        "{proxy_key: hunter2hunter,hunter2}",
        "{proxy_key: hunter2hunter, \"hunter2\"}",
        "{proxy_key: hunter2hunter} hunter2hunter",
        "{proxy_key: \"hunter2hunter}",
        "{proxy_key: 'hunter2hunter' hunter2}",
        "{proxy_key:hunter2hunter}",
        "{proxy_key : hunter2hunter, x: y}",
        "{\"proxy_key\":hunter2hunter, x: y}",
        "{proxy_key=hunter2hunter}",
        "{proxy_kye: hunter2hunter}",
        "{proxykey: hunter2hunter}",
        "{Proxy-Key: hunter2hunter}",
        "{PROXY_KEY: hunter2hunter}",
        "{key: hunter2hunter}",
        "{token: hunter2hunter, password: hunter2hunter, secret: hunter2hunter}",
        "{anything: hunter2hunter}",
        "{proxy_key: ${hunter2hunter}, x: y}",
        "{proxy_key: ${hunter2hunter }, x: y}",
        "{proxy_key: &k hunter2hunter, name: *k}",
        "{name: &k hunter2hunter, proxy_key: *k, x: y}",
        "{proxy_key: !foo hunter2hunter}",
        "hunter2hunter",
        "[hunter2hunter]",
        "{proxy_key: hunter2hunter, x: y} # proxy_key: hunter2hunter",
        "{<<: {proxy_key: hunter2hunter}, proxy_key: hunter2hunter, x: y}",
    ] {
        let shown = shown(&format!("users:\n  a: {line}\nchannels: {{}}\n"));
        // As the name of a variable it is no secret.
        if !line.contains("${hunter2hunter}") {
            assert!(!shown.contains("hunter2"), "{shown}\nof\n{line}");
        }
    }
}

#[test]
fn channels_hide_their_keys_too() {
    for line in [
        "{api_key: opensesame, base_url: x}",
        "{api_key: opensesame}",
        "{api_key: 'open sesame', base_url: https://a.example}",
        "{api_key: Bearer opensesame, base_url: https://a.example}",
        "{api_key: opensesame, base_url: https://user:opensesame@a.example}",
        "{api_key: x, base_url: https://opensesame@a.example/?key=opensesame}",
        "{api_key: x, base_url: 'https://a.example/?opensesame'}",
        "{api_key: x, base_url: 'https://a.example/#opensesame'}",
        "{api_key: x, base_url: http://a.example, headers: {set: {a b: opensesame}}}",
        "{api_key: x, base_url: http://a.example, headers: {set: {authorization: opensesame}}}",
        "{api_key: x, base_url: http://a.example, headers: {set: {x: opensesame, X: opensesame}}}",
        "{api_key: x, base_url: http://a.example, headers: {set: {x: \"opensesame\\n\"}}}",
        "{api_key: x, base_url: http://a.example, headers: {set: [opensesame]}}",
        "{api_key: x, base_url: http://a.example, headers: {sett: {x: opensesame}}}",
        "{api_key: x, base_url: http://a.example, headers: {x: opensesame}}",
        "{api_key: x, base_url: http://a.example, egress_proxy: socks4://a:opensesame@b}",
        "{api_key: x, base_url: http://a.example, egress_proxy: 'http://opensesame:opensesame@b/x'}",
        "{api_key: x, base_url: http://a.example, egress_proxy: 'a:opensesame@b'}",
        "{api_key: \"file:/nowhere/x\", headers: {set: {x: opensesame}}, base_url: x}",
        "{api_kee: opensesame, base_url: https://a.example}",
        "{apikey: opensesame, base_url: https://a.example}",
        "opensesame",
    ] {
        let text = format!("users:\n  a: {{proxy_key: 12345678x, channels: [c]}}\nchannels:\n  c: {line}\n");
        let shown = shown(&text);
        assert!(!shown.contains("sesame"), "{shown}\nof\n{line}");
        assert!(shown.contains("error"), "{shown}\nof\n{line}");
    }
}

#[test]
fn syntax_errors_hide_what_stands_around_them() {
    for text in [
        "users:\n  a:\n    proxy_key: hunter2hunter\n     x: y\n",
        "users:\n  a:\n    proxy_key: hunter2hunter\n   x: y\n",
        "users:\n  a:\n    proxy_key:hunter2hunter\n    x: y\n",
        "users:\n  a:\n    proxy_key: \"hunter2hunter\n    x: y\n",
        "users:\n  a:\n    proxy_key: 'hunter2hunter\n  hunter2hunter\n x: y\n",
        "users:\n  a:\n    proxy_key: |\n      hunter2hunter\n     hunter2hunter\n    x: y\n",
        "users:\n  a:\n    proxy_key:\n      hunter2hunter: x: y\n",
        "users:\n  a:\n    proxy_key:\n    - hunter2hunter: x: y\n",
        "users:\n  a:\n    proxy_key: @hunter2hunter\n",
        "users:\n  a:\n    proxy_key: %hunter2hunter\n",
        "users:\n  a:\n    proxy_key: `hunter2hunter`\n",
        "users:\n  a:\n    proxy_key: *hunter2hunter\n",
        "users:\n  a:\n    proxy_key: \"\\hunter2hunter\"\n",
        "users:\n  a:\n    proxy_key: hunter2hunter: hunter2hunter\n",
        "users:\n  a:\n\tproxy_key: hunter2hunter\n",
        "users:\n  a: {proxy_key: hunter2hunter\n  b: {proxy_key: hunter2hunter}\n",
        "users:\n  a: {proxy_key: hunter2hunter}}\n",
        "users:\n  a: [proxy_key: hunter2hunter, {]\n",
        "channels:\n  a:\n    headers:\n      set:\n        x-a: hunter2hunter\n       x-b: hunter2hunter\n",
        "channels:\n  a:\n    headers:\n      set:\n        x-a: hunter2hunter: hunter2hunter\n",
        "users:\n  a:\n    密钥: hunter2hunter: x\n",
        "users:\n  a:\n    proxy_key： hunter2hunter\n    x: y\n",
        "users:\n  a:\n    proxy_key: hunter2hunter\u{0}\n",
        "proxy_key: hunter2hunter\n---\nproxy_key: hunter2hunter\n",
    ] {
        let shown = assert_hidden(text, &["hunter2"]);
        assert!(shown.contains("error"), "{shown}");
    }
}

#[test]
fn words_that_look_like_keys_are_hidden_anywhere() {
    for key in [
        "pk_user1_secret",
        "sk-proj-secret",
        "sk_secret_1",
        "st-secret-1",
        "ek_secret",
        "AIzaSySecret",
        "0123456789abcdef0123456789abcdef",
        "eyJhbGciOi.secret.secret",
    ] {
        for text in [
            format!("users: {{a: {{name: {key}, stauts: x}}}}"),
            format!("users: {{{key}: {{stauts: x}}}}"),
            format!("users: {{a: {{status: {key}}}}}"),
            format!("users: {{a: {{channels: [{key}]}}}}"),
            format!("users: {{a: {{channels: {key}}}}}"),
            format!("users: {{a: {{{key}: x}}}}"),
            format!("users: {{a: {{x: y}}}} # {key}"),
            format!("{key}: x"),
            format!("{key}: x: y"),
            format!("- {key}\n-{key}: x: y"),
            format!("system: {{workers: {key}, log_level: {key}}}"),
        ] {
            let shown = assert_hidden(&text, &[key, "ecret", "6789abc"]);
            assert!(shown.contains("error"), "{shown}");
        }
    }
}

#[test]
fn what_is_read_from_elsewhere_is_hidden_too() {
    let text = "users:\n  a: {proxy_key: '${PK}', x: y}\n  b: {proxy_key: '${PK}', x: y}\n";
    let shown = assert_hidden(text, &["value-of-PK"]);
    assert!(shown.contains("have the same Proxy-Key"), "{shown}");
    let bad = |_: &str| Some("hunter2 hunter2".to_owned());
    let problems = load_str(text, &source(), &bad).unwrap_err();
    assert!(!problems.to_string().contains("hunter2"), "{problems}");
}

#[test]
fn debug_of_everything_hides_the_keys() {
    let loaded = load(FILE);
    assert!(loaded.warnings.is_empty(), "{loaded:?}");
    let debug = format!("{loaded:?}");
    for secret in ["hunter2", "opensesame", "swordfish", "mellon", "horse", "dor"] {
        assert!(!debug.contains(secret), "{debug}");
    }
}
