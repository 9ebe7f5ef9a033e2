//! What people see for each kind of mistake.

use super::*;

const TEN: &str = r#"# 十处错误
users:
  user1: {name: 张三, stauts: active, proxy_key: pk_user1_xxx, channels: [aliyun, opena]}
  user2:
    name: "李四"   # 产品部
    proxy_key: pk_user1_xxx
    status: "actve"
    channels: aliyun
    quota: 100
channels:
  aliyun:
    name: 阿里云百炼
    base_url: "dashscope.aliyuncs.com"
    status: active
    status: disabled
  openai:
    api_key: sk_openai_xxx
    base_url: https://api.openai.com/v1
system:
  max_connections: "many"
"#;

const RENDERED: &str = include_str!("mistakes.txt");

#[test]
fn ten_mistakes_are_ten_problems() {
    let found = problems(TEN);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/mistakes.txt");
        std::fs::write(path, format!("{found}\n")).unwrap();
        return;
    }
    assert_eq!(found.count(Severity::Error), 10);
    assert_eq!(format!("{found}\n"), RENDERED);
}

/// The severity, path, place and message of each problem, a line each.
fn list(text: &str) -> Vec<String> {
    let problems = match load_str(text, &source(), &env) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems.problems().to_vec(),
    };
    problems
        .iter()
        .map(|p| format!("{} {}:{} {}: {}", p.severity, p.line, p.column, p.path, p.message))
        .collect()
}

/// Asserts that the text has this problem and no other.
fn only(text: &str, expected: &str) {
    assert_eq!(list(text), [expected], "\n{text}");
}

#[test]
fn yaml_itself() {
    for (text, expected) in [
        ("", "error 1:1 : the file is empty"),
        ("# nothing\n", "error 1:1 : the file is empty"),
        ("{}\n---\n{}\n", "error 2:1 : a second document begins here"),
        (
            "users: {a: b\n",
            "error 2:1 : not valid YAML: while parsing a flow mapping, did not find expected ',' or '}'",
        ),
        (
            "users:\n\ta: b\n",
            "error 2:2 : not valid YAML: tabs disallowed within this context (block indentation)",
        ),
        ("users: *x\n", "error 1:8 : not valid YAML: while parsing node, found unknown anchor"),
        ("users: &x [*x]\n", "error 1:12 : an alias may not stand inside what it stands for"),
        ("? [a]\n: b\n", "error 1:3 : a key must be a single word or text"),
        ("users: {}\u{1}\n", "error 1:10 : the control character U+0001 is not allowed"),
        (
            "system: !x {}\nusers: {a: {proxy_key: 12345678x, status: disabled}}",
            "error 1:9 : YAML tags are not supported here",
        ),
        ("system: {<<: 1}\n", "error 1:14 : `<<` takes a mapping or a list of mappings"),
        ("[]\n", "error 1:1 : expected a mapping, found a list"),
        ("text\n", "error 1:1 : expected a mapping, found a text"),
    ] {
        only(text, expected);
    }
    let bytes = load_bytes(b"users: {}\n# \xb0\xa1\n", &source(), &env).unwrap_err();
    assert_eq!((bytes.problems()[0].line, bytes.problems()[0].column), (2, 3));
    assert_eq!(bytes.problems()[0].message, "the file is not in UTF-8");
    let missing = load_file(Path::new("/nowhere/config.yaml")).unwrap_err();
    assert!(missing.to_string().contains("cannot read the file"), "{missing}");
}

#[test]
fn users() {
    for (fields, expected) in [
        ("name: x", "error 1:9 users.u: `proxy_key` is missing"),
        ("proxy_key: '1234567'", "error 1:24 users.u.proxy_key: the Proxy-Key is shorter than 8 characters"),
        ("proxy_key: ''", "error 1:24 users.u.proxy_key: the Proxy-Key is shorter than 8 characters"),
        ("proxy_key: 12345678", "error 1:24 users.u.proxy_key: expected a text, found a number"),
        ("proxy_key:", "error 1:13 users.u.proxy_key: there is no value: expected a text"),
        (
            "proxy_key: '1234 5678'",
            "error 1:24 users.u.proxy_key: the key has a space at position 5, which cannot travel in a header",
        ),
        (
            "proxy_key: \"1234\\n5678\"",
            "error 1:24 users.u.proxy_key: the key has a line break or other white space at position 5, which cannot travel in a header",
        ),
        (
            "proxy_key: 密钥密钥密钥密钥",
            "error 1:24 users.u.proxy_key: the key has a character outside of ASCII at position 1, which cannot travel in a header",
        ),
        (
            "proxy_key: '${UNSET_X}'",
            "error 1:24 users.u.proxy_key: the environment variable `UNSET_X` is not set",
        ),
        (
            "proxy_key: the-key-of-c",
            "error 1:24 users.u.proxy_key: the Proxy-Key is the API key of the channel `c`",
        ),
        ("proxy_key_sha256: abc", "error 1:31 users.u.proxy_key_sha256: `proxy_key_sha256` is not a SHA-256"),
        (
            "proxy_key: 12345678x, proxy_key_sha256: abc",
            "error 1:53 users.u.proxy_key_sha256: `proxy_key` and `proxy_key_sha256` are both given",
        ),
        (
            "proxy_key: 12345678x, channels: [c], status: off",
            "error 1:58 users.u.status: `off` is not known here",
        ),
        (
            "proxy_key: 12345678x, name: '${X}'",
            "error 1:41 users.u.name: `${…}` is not expanded in this field",
        ),
        (
            "proxy_key: 12345678x, phone: 138",
            "error 1:42 users.u.phone: expected a text, found the number `138`",
        ),
        ("proxy_key: 12345678x, channels: [d]", "error 1:46 users.u.channels[0]: there is no channel `d`"),
        (
            "proxy_key: 12345678x, channels: [c, 5]",
            "error 1:49 users.u.channels[1]: expected a text or a mapping, found a number",
        ),
        ("proxy_key: 12345678x, groups: [gg]", "error 1:44 users.u.groups[0]: there is no group `gg`"),
        ("proxy_key: 12345678x, allow_ips: []", "error 1:35 users.u.allow_ips: the list is empty"),
        (
            "proxy_key: 12345678x, allow_ips:",
            "error 1:35 users.u.allow_ips: there is no value: expected a list",
        ),
        (
            "proxy_key: 12345678x, allow_ips: [10.1.0.0/8]",
            "error 1:47 users.u.allow_ips[0]: `10.1.0.0/8` has bits beyond its prefix length",
        ),
        ("proxy_key: 12345678x, expires_at: soon", "error 1:47 users.u.expires_at: `soon` is not a moment"),
        (
            "proxy_key: 12345678x, channels: [c], expires_at: 2001-01-01",
            "warning 1:62 users.u.expires_at: the key of `u` has expired",
        ),
        ("proxy_key: 12345678x, channels: []", "warning 1:9 users.u: the user `u` may use no channel"),
        ("proxy_key: 12345678x, channels: [c], nmae: x", "error 1:50 users.u.nmae: unknown key `nmae`"),
    ] {
        let off =
            if fields.contains("channels") || fields.contains("status") { "" } else { ", status: disabled" };
        only(
            &format!(
                "users: {{u: {{{fields}{off}}}}}\ngroups: {{g: {{channels: [c]}}}}\nchannels: {{c: {{api_key: the-key-of-c, base_url: https://c.example}}}}\n"
            ),
            expected,
        );
    }
    only(
        "users:\n  a: {proxy_key_sha256: ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad, status: disabled}\n  b: {status: disabled, proxy_key_sha256: BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD}\n",
        "error 3:43 users.b.proxy_key_sha256: the users `a` and `b` have the same Proxy-Key",
    );
    only(
        "users:\n  ' a': {proxy_key: 12345678x, status: disabled}\n",
        "error 2:3 users.\" a\": `a` cannot be an id",
    );
    only("users: {}\n", "warning 1:1 users: no users: every call will be refused");
}

#[test]
fn channels() {
    for (fields, expected) in [
        ("api_key: k", "error 1:12 channels.c.base_url: `base_url` is missing"),
        ("base_url: https://c.example", "error 1:12 channels.c.api_key: `api_key` is missing"),
        ("api_key: '', base_url: https://c.example", "error 1:25 channels.c.api_key: the key is empty"),
        (
            "api_key: Bearer k, base_url: https://c.example",
            "error 1:25 channels.c.api_key: the key begins with a word that belongs before it in a header",
        ),
        (
            "api_key: k, base_url: c.example",
            "error 1:38 channels.c.base_url: `base_url` begins with `http://` or `https://`",
        ),
        (
            "api_key: k, base_url: https://c.example/v1",
            "warning 1:38 channels.c.base_url: `base_url` ends with `/v1`, and callers' paths begin with `/v1`: `/v1/models` becomes `/v1/v1/models`",
        ),
        (
            "api_key: k, base_url: https://dashscope.aliyuncs.com/compatible-mode/v1",
            "warning 1:38 channels.c.base_url: `base_url` ends with `/compatible-mode/v1`, and callers' paths begin with `/v1`: `/v1/models` becomes `/compatible-mode/v1/v1/models`",
        ),
        (
            "api_key: k, base_url: http://c.example",
            "warning 1:38 channels.c.base_url: the key travels to `c.example` in the clear",
        ),
        (
            "api_key: k, base_url: http://127.0.0.1, ca: x.pem",
            "error 1:60 channels.c.ca: cannot read the file `/etc/aiproxy/x.pem`: No such file or directory (os error 2)",
        ),
        (
            "api_key: k, base_url: https://c.example, platform: opena",
            "error 1:67 channels.c.platform: `opena` is not one of `openai`, `azure`, `dashscope`, `anthropic`, `gemini`, `xai`, `deepgram`, `elevenlabs`, `volcengine`, `custom`",
        ),
        (
            "api_key: k, base_url: https://c.example, ca: 'file:x.pem'",
            "error 1:61 channels.c.ca: `file:` is not expanded in this field",
        ),
        (
            "api_key: k, base_url: https://c.example, key_placement: basic",
            "error 1:72 channels.c.key_placement: `basic` is not known here",
        ),
        (
            "api_key: k, base_url: https://c.example, key_placement: {}",
            "error 1:57 channels.c.key_placement: this names no place",
        ),
        (
            "api_key: k, base_url: https://c.example, key_placement: [{header: x, query: y}]",
            "error 1:73 channels.c.key_placement[0]: a place is one of header and query, not several",
        ),
        (
            "api_key: k, base_url: https://c.example, key_placement: {first_message: token}",
            "error 1:88 channels.c.key_placement.first_message: `token` does not point to a member",
        ),
        (
            "api_key: k, base_url: https://c.example, key_placement: {query: x, scheme: y}",
            "error 1:91 channels.c.key_placement.scheme: `scheme` goes with `header` only",
        ),
        (
            "api_key: k, base_url: https://c.example, key_placement: [bearer, bearer]",
            "error 1:81 channels.c.key_placement[1]: the key goes there already",
        ),
        (
            "api_key: k, base_url: https://c.example, key_placement: {header: host}",
            "error 1:81 channels.c.key_placement.header: the header `host` is AIProxy's own business",
        ),
        (
            "api_key: k, base_url: https://c.example, timeouts: {total: 0}",
            "error 1:75 channels.c.timeouts.total: a time limit of 0 refuses everything",
        ),
        (
            "api_key: k, base_url: https://c.example, timeouts: {idle: -5s}",
            "error 1:74 channels.c.timeouts.idle: `-5s` is not a duration",
        ),
        (
            "api_key: k, base_url: https://c.example, timeouts: {idle: -5}",
            "error 1:74 channels.c.timeouts.idle: a duration cannot be negative or infinite",
        ),
        (
            "api_key: k, base_url: https://c.example, allow_paths: [v1]",
            "error 1:71 channels.c.allow_paths[0]: `v1` does not begin with `/`",
        ),
        (
            "api_key: k, base_url: https://c.example, path_rewrite: {/a: /b, /A/: /c}",
            "error 1:85 channels.c.path_rewrite.\"/A/\": the prefix `/A/` is given twice, but for case or a slash at the end",
        ),
        (
            "api_key: k, base_url: https://c.example, headers: {set: {authorization: x}}",
            "error 1:88 channels.c.headers.set.authorization: the channel's key goes into the header `authorization`",
        ),
        (
            "api_key: k, base_url: https://c.example, headers: {set: {x: a, X: b}}",
            "error 1:82 channels.c.headers.set.X: the header `x` is given twice; case makes no difference",
        ),
        (
            "api_key: k, base_url: https://c.example, headers: {set: {x: 值}}",
            "error 1:76 channels.c.headers.set.x: a header value has visible ASCII characters, and spaces only between them",
        ),
        (
            "api_key: k, base_url: https://c.example, headers: {pass: [X-Api-Key]}",
            "error 1:74 channels.c.headers.pass[0]: the header `x-api-key` may hold a Proxy-Key and never passes",
        ),
        (
            "api_key: k, base_url: https://c.example, retry: {attempts: 0}",
            "error 1:75 channels.c.retry.attempts: 0 is too small",
        ),
        (
            "api_key: k, base_url: https://c.example, retry: {attempts: 11}",
            "error 1:75 channels.c.retry.attempts: 11 is too large",
        ),
        (
            "api_key: k, base_url: https://c.example, retry: {on: [500, 404]}",
            "error 1:75 channels.c.retry.on[1]: another channel is not tried after `404`",
        ),
        (
            "api_key: k, base_url: https://c.example, retry: {on: ['500']}",
            "error 1:70 channels.c.retry.on[0]: expected a whole number, found the text `500`",
        ),
        (
            "api_key: k, base_url: https://c.example, retry: {on: 500}",
            "error 1:69 channels.c.retry.on: expected a list, found the number `500`",
        ),
        (
            "api_key: k, base_url: https://c.example, retry: {tries: 2}",
            "error 1:65 channels.c.retry.tries: unknown key `tries`",
        ),
        (
            "api_key: k, base_url: https://c.example, breaker: {failures: 0}",
            "error 1:77 channels.c.breaker.failures: 0 is too small",
        ),
        (
            "api_key: k, base_url: https://c.example, breaker: {error_rate: 0}",
            "error 1:79 channels.c.breaker.error_rate: 0 is too small",
        ),
        (
            "api_key: k, base_url: https://c.example, breaker: {error_rate: 1.01}",
            "error 1:79 channels.c.breaker.error_rate: `1.01` is too large",
        ),
        (
            "api_key: k, base_url: https://c.example, breaker: {error_rate: -0.5}",
            "error 1:79 channels.c.breaker.error_rate: `-0.5` is too small",
        ),
        (
            "api_key: k, base_url: https://c.example, breaker: {error_rate: .nan}",
            "error 1:79 channels.c.breaker.error_rate: `.nan` is too small",
        ),
        (
            "api_key: k, base_url: https://c.example, breaker: {error_rate: 50%}",
            "error 1:79 channels.c.breaker.error_rate: expected a number, found the text `50%`",
        ),
        (
            "api_key: k, base_url: https://c.example, breaker: {min_requests: 0}",
            "error 1:81 channels.c.breaker.min_requests: 0 is too small",
        ),
        (
            "api_key: k, base_url: https://c.example, breaker: {window: 500ms}",
            "error 1:75 channels.c.breaker.window: `window` is shorter than a second",
        ),
        (
            "api_key: k, base_url: https://c.example, breaker: {cooldown: 0}",
            "error 1:77 channels.c.breaker.cooldown: a cooldown of 0 is none",
        ),
        (
            "api_key: k, base_url: https://c.example, breaker: {cooldown: 3m}",
            "error 1:77 channels.c.breaker.cooldown: `max_cooldown` of 120 seconds is shorter than `cooldown`",
        ),
        (
            "api_key: k, base_url: https://c.example, breaker: {max_cooldown: 9s}",
            "error 1:81 channels.c.breaker.max_cooldown: `max_cooldown` is shorter than `cooldown`",
        ),
        (
            "api_key: k, base_url: https://c.example, health: {}",
            "error 1:57 channels.c.health.path: `path` is missing",
        ),
        (
            "api_key: k, base_url: https://c.example, health: {path: v1/models}",
            "error 1:72 channels.c.health.path: `v1/models` does not begin with `/`",
        ),
        (
            "api_key: k, base_url: https://c.example, health: {path: /v1/models#x}",
            "error 1:72 channels.c.health.path: the path has a fragment",
        ),
        (
            "api_key: k, base_url: https://c.example, health: {path: /v1//models}",
            "error 1:72 channels.c.health.path: `/v1//models` cannot be used: the path has an empty segment ('//'); check the base URL of your SDK for a doubled slash",
        ),
        (
            "api_key: k, base_url: https://c.example, health: {path: /v1/organization/users?limit=1}",
            "error 1:72 channels.c.health.path: `/v1/organization/users` is never asked for: it administers the channel's account",
        ),
        (
            "api_key: k, base_url: https://c.example, health: {path: '/V1/Organization/'}",
            "error 1:72 channels.c.health.path: `/V1/Organization/` is never asked for: it administers the channel's account",
        ),
        (
            "api_key: k, base_url: https://c.example, key_placement: {query: key}, health: {path: '/v1/models?a=b&key=x'}",
            "error 1:101 channels.c.health.path: the channel's key goes into the query parameter `key`",
        ),
        (
            "api_key: k, base_url: https://c.example, health: {path: /x, interval: 999ms}",
            "error 1:86 channels.c.health.interval: `interval` is shorter than a second",
        ),
        (
            "api_key: k, base_url: https://c.example, health: {path: /x, threshold: 0}",
            "error 1:87 channels.c.health.threshold: 0 is too small",
        ),
        (
            "api_key: k, base_url: https://c.example, ownership: mine",
            "error 1:68 channels.c.ownership: `mine` is not known here",
        ),
        (
            "api_key: k, base_url: https://c.example, ownership: of",
            "error 1:68 channels.c.ownership: `of` is not one of `enforce`, `shared`, `off`",
        ),
        (
            "api_key: k, base_url: https://c.example, http_versions: [h4]",
            "error 1:73 channels.c.http_versions[0]: `h4` is not known here",
        ),
        (
            "api_key: k, base_url: https://c.example, http_versions: [h3, h2, h3]",
            "error 1:57 channels.c.http_versions: a version is given twice",
        ),
        (
            "api_key: k, base_url: 'http://127.0.0.1:1', http_versions: [h2, h3]",
            "error 1:60 channels.c.http_versions: HTTP/3 is spoken over TLS only",
        ),
        (
            "api_key: k, base_url: 'http://127.0.0.1:1', http_versions: [h2, h1]",
            "warning 1:60 channels.c.http_versions: without TLS nothing is negotiated: HTTP/1.1 is spoken",
        ),
        (
            "api_key: k, base_url: https://c.example, http_versions: [h3], egress_proxy: 'http://p.example'",
            "error 1:57 channels.c.http_versions: HTTP/3 does not go through a proxy, and nothing else is listed",
        ),
        (
            "api_key: k, base_url: https://c.example, http_versions: [h3, h1], egress_proxy: 'http://p.example'",
            "warning 1:57 channels.c.http_versions: `h3` has no effect: HTTP/3 does not go through a proxy",
        ),
        (
            "api_key: k, base_url: https://c.example, weight: 5",
            "error 1:57 channels.c.weight: `weight` is not available in this version: weights come with a later release",
        ),
    ] {
        let text =
            format!("channels: {{c: {{{fields}}}}}\nusers: {{u: {{proxy_key: 12345678x, channels: [c]}}}}\n");
        if fields.contains("ca: x.pem") {
            // Both that it cannot be read and that it would have no effect.
            assert!(list(&text).contains(&expected.to_owned()), "{:?}", list(&text));
            continue;
        }
        only(&text, expected);
    }
    // What the platform sees is forbidden, though what is written is not.
    only(
        "channels: {c: {api_key: k, base_url: https://c.example/v1/organization, health: {path: /x}}}\nusers: {u: {proxy_key: 12345678x, channels: [c]}}\n",
        "error 1:88 channels.c.health.path: `/x` is never asked for: it administers the channel's account",
    );
    only(
        "users: {u: {proxy_key: 12345678x, status: disabled}}\nchannels: {阿里: {api_key: k, base_url: https://c.example}}\n",
        "error 2:12 channels.阿里: `阿里` cannot be the id of a channel",
    );
    // A channel that failed is not missing as well.
    only(
        "users: {u: {proxy_key: 12345678x, channels: [c]}}\nchannels: {c: openai}\n",
        "error 2:15 channels.c: expected a mapping, found a text",
    );
    // A slip in the name of a section is one problem.
    only(
        "users: {u: {proxy_key: 12345678x, channels: [c]}}\nchanels: {c: {api_key: k, base_url: https://c.example}}\n",
        "error 2:1 chanels: unknown key `chanels`",
    );
}

#[test]
fn system() {
    for (fields, expected) in [
        (
            "listen: {http: 8080}",
            "error 1:25 system.listen.http: expected a text or a list, found the number `8080`",
        ),
        (
            "listen: {http: ':8080'}",
            "error 1:25 system.listen.http: `:8080` is not an IP address with a port",
        ),
        ("listen: {http: []}", "error 1:19 system.listen.http: the list is empty"),
        (
            "listen: {http: ['127.0.0.1:1', '127.0.0.1:1']}",
            "error 1:41 system.listen.http[1]: `127.0.0.1:1` is given twice",
        ),
        (
            "listen: {http: '0.0.0.0:1'}",
            "error 1:25 system.listen.http: Proxy-Keys travel to `0.0.0.0:1` in the clear",
        ),
        (
            "allow_plaintext: true, listen: {http: '0.0.0.0:1'}",
            "warning 1:48 system.listen.http: Proxy-Keys travel to `0.0.0.0:1` in the clear",
        ),
        (
            "allow_plaintext: yes",
            "error 1:27 system.allow_plaintext: expected `true` or `false`, found the text `yes`",
        ),
        (
            "config_reload_interval: 0",
            "error 1:34 system.config_reload_interval: the interval is shorter than a second",
        ),
        ("log_level: loud", "error 1:21 system.log_level: `loud` is not a log level"),
        ("max_connections: 0", "error 1:27 system.max_connections: 0 is too small"),
        (
            "max_connections: 1.5",
            "error 1:27 system.max_connections: expected a whole number, found the number `1.5`",
        ),
        ("workers: 5000", "error 1:19 system.workers: 5000 is too large"),
        (
            "trusted_proxies: [x]",
            "error 1:28 system.trusted_proxies[0]: `x` is neither an IP address nor a network",
        ),
        (
            "limits: {header_bytes: 1KiB}",
            "error 1:33 system.limits.header_bytes: `header_bytes` is out of range",
        ),
        (
            "limits: {body_bytes: 1 potato}",
            "error 1:31 system.limits.body_bytes: `potato` is not a unit of size",
        ),
        (
            "limits: {keep_alive: 0s}",
            "error 1:31 system.limits.keep_alive: a time limit of 0 refuses everything",
        ),
        ("cors: {}", "error 1:10 system.cors.origins: `origins` is missing"),
        (
            "cors: {origins: ['https://a.example/']}",
            "error 1:27 system.cors.origins[0]: `https://a.example/` is not an origin as browsers send it",
        ),
        (
            "log: {access: stdot}",
            "error 1:24 system.log.access: `stdot` is neither `stdout`, `off` nor the path of a file",
        ),
        ("log: {format: xml}", "error 1:24 system.log.format: `xml` is not known here"),
        (
            "listen: {admin: 8081}",
            "error 1:26 system.listen.admin: expected a text or a list, found the number `8081`",
        ),
        ("listen: {admin: none}", "error 1:26 system.listen.admin: `none` is not an IP address with a port"),
        (
            "listen: {admin: ['127.0.0.1:1', off]}",
            "error 1:42 system.listen.admin[1]: `off` is not an IP address with a port",
        ),
        (
            "listen: {admin: ['127.0.0.1:1', '127.0.0.1:1']}",
            "error 1:42 system.listen.admin[1]: `127.0.0.1:1` is given twice",
        ),
        (
            "listen: {admin: '0.0.0.0:8081'}",
            "error 1:26 system.listen.admin: everybody who reaches `0.0.0.0:8081` can read metrics and readiness",
        ),
        (
            "allow_plaintext: true, listen: {admin: '0.0.0.0:8081'}",
            "warning 1:49 system.listen.admin: everybody who reaches `0.0.0.0:8081` can read metrics and readiness",
        ),
        (
            "listen: {admin: '127.0.0.1:8080'}",
            "error 1:26 system.listen.admin: callers connect to `127.0.0.1:8080` already",
        ),
        (
            "listen: {http: '127.0.0.1:8081'}",
            "error 1:25 system.listen.http: `listen.admin` is `127.0.0.1:8081` unless it says otherwise",
        ),
        (
            "listen: {http: '127.0.0.1:8081', admin: x}",
            "error 1:50 system.listen.admin: `x` is not an IP address with a port",
        ),
        (
            "listen: {http: ['[::1]:5', '127.0.0.1:5'], admin: ['127.0.0.1:4', '127.0.0.1:5']}",
            "error 1:76 system.listen.admin[1]: callers connect to `127.0.0.1:5` already",
        ),
        ("drain: 30s", "error 1:17 system.drain: expected a mapping, found a text"),
        ("drain: {timeout: never}", "error 1:27 system.drain.timeout: `never` is not a duration"),
        (
            "limits: {replay_bytes: 2GiB, replay_total: 2GiB}",
            "error 1:33 system.limits.replay_bytes: `replay_bytes` is out of range",
        ),
        (
            "limits: {replay_bytes: 65MiB}",
            "error 1:33 system.limits.replay_bytes: `replay_total` of 67108864 bytes is smaller than `replay_bytes`",
        ),
        (
            "limits: {replay_total: 1000}",
            "error 1:33 system.limits.replay_total: `replay_total` is smaller than `replay_bytes`",
        ),
        ("listen: {quic: '0.0.0.0:443'}", "error 1:25 system.listen.quic: HTTP/3 needs a certificate"),
        (
            "listen: {https: '0.0.0.0:443', quic: '0.0.0.0:444'}",
            "error 1:26 system.listen.https: HTTPS needs a certificate",
        ),
        (
            "listen: {quic: true}, tls: self-signed",
            "error 1:25 system.listen.quic: HTTP/3 is to be where `https` is, and that is nowhere",
        ),
        (
            "listen: {https: off, quic: true}, tls: self-signed",
            "error 1:37 system.listen.quic: HTTP/3 is to be where `https` is, and that is nowhere",
        ),
        (
            "listen: {https: '127.0.0.1', quic: true}, tls: self-signed",
            "error 1:26 system.listen.https: `127.0.0.1` is not an IP address with a port",
        ),
        (
            "listen: {quic: 443}, tls: self-signed",
            "error 1:25 system.listen.quic: expected `true` or `false` or a text or a list, found the number `443`",
        ),
        (
            "listen: {quic: yes}, tls: self-signed",
            "error 1:25 system.listen.quic: `yes` is not an IP address with a port",
        ),
        (
            "listen: {quic: ['127.0.0.1:1', '127.0.0.1:1']}, tls: self-signed",
            "error 1:41 system.listen.quic[1]: `127.0.0.1:1` is given twice",
        ),
        (
            "listen: {https: '127.0.0.1:443', quic: '127.0.0.1:444', media: '127.0.0.1:444'}, tls: self-signed",
            "error 1:49 system.listen.quic: WebRTC calls come to `127.0.0.1:444` over UDP already",
        ),
        (
            "listen: {https: '127.0.0.1:443', quic: true, media: '127.0.0.1:443'}, tls: self-signed",
            "error 1:49 system.listen.quic: WebRTC calls come to `127.0.0.1:443` over UDP already",
        ),
        (
            "listen: {https: '127.0.0.1:443', media: '127.0.0.1:443'}, tls: self-signed",
            "warning 1:26 system.listen.https: there is no HTTP/3: WebRTC calls come to `127.0.0.1:443` over UDP already",
        ),
        (
            "listen: {https: '127.0.0.1:443', quic_advertise: 0}, tls: self-signed",
            "error 1:59 system.listen.quic_advertise: 0 is too small",
        ),
        (
            "listen: {https: '127.0.0.1:443', quic_advertise: 65536}, tls: self-signed",
            "error 1:59 system.listen.quic_advertise: 65536 is too large",
        ),
        (
            "listen: {https: '127.0.0.1:443', quic: off, quic_advertise: 443}, tls: self-signed",
            "warning 1:70 system.listen.quic_advertise: `quic_advertise` has no effect: HTTPS tells callers of HTTP/3, and one of the two is off",
        ),
        (
            "listen: {quic: '127.0.0.1:443', quic_advertise: 443}, tls: self-signed",
            "warning 1:58 system.listen.quic_advertise: `quic_advertise` has no effect: HTTPS tells callers of HTTP/3, and one of the two is off",
        ),
        ("listen: {https: '0.0.0.0:443'}", "error 1:26 system.listen.https: HTTPS needs a certificate"),
        ("tls: self-signed", "warning 1:15 system.tls: `tls` has no effect without `listen.https`"),
        (
            "listen: {https: '127.0.0.1:8080'}, tls: self-signed",
            "error 1:26 system.listen.https: plain HTTP is at `127.0.0.1:8080` already",
        ),
        (
            "listen: {https: '0.0.0.0:8081'}, tls: self-signed",
            "error 1:26 system.listen.https: `listen.admin` is `127.0.0.1:8081` unless it says otherwise",
        ),
        ("listen: {http: off}", "error 1:10 system.listen: there is no listener for callers"),
        (
            "listen: {https: '127.0.0.1:1'}, tls: {cert: a}",
            "error 1:42 system.tls: this is not one certificate and its key",
        ),
        (
            "listen: {https: '127.0.0.1:1'}, tls: [{cert: a}]",
            "error 1:48 system.tls[0].key: `key` is missing",
        ),
        (
            "listen: {proxy_protocol: true}",
            "error 1:35 system.listen.proxy_protocol: nobody could connect: PROXY protocol headers are taken from `trusted_proxies` only",
        ),
        (
            "limits: {handshake_timeout: 0}",
            "error 1:38 system.limits.handshake_timeout: a time limit of 0 refuses everything",
        ),
    ] {
        only(
            &format!("system: {{{fields}}}\nusers: {{u: {{proxy_key: 12345678x, status: disabled}}}}\n"),
            expected,
        );
    }
}

#[test]
fn a_private_key_in_place_of_its_path_is_not_repeated() {
    for text in [
        "system:\n  listen: {https: '127.0.0.1:1'}\n  tls:\n    cert: a\n    key: |\n      -----BEGIN PRIVATE KEY-----\n      hunter2hunter2\n      -----END PRIVATE KEY-----\n",
        "system: {listen: {https: '127.0.0.1:1'}, tls: {cert: a, key: '-----BEGIN PRIVATE KEY----- hunter2hunter2'}}\n",
        "system: {listen: {https: '127.0.0.1:1'}, tls: {cert: '-----BEGIN PRIVATE KEY----- hunter2hunter2', key: a}}\n",
        "system: {listen: {https: '127.0.0.1:1'}, tls: '-----BEGIN PRIVATE KEY----- hunter2hunter2'}\n",
    ] {
        let problems = problems(text).to_string();
        assert!(problems.contains("system.tls"), "{problems}");
        assert!(!problems.contains("hunter2"), "{problems}");
    }
}
