//! What a good file becomes.

use std::path::PathBuf;
use std::time::Duration;

use aiproxy_platform::{Placement, Pointer};

use super::*;
use crate::model::{AccessLog, Channel, LogFormat, Snapshot, Status, User, WebRtc};

const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIBhTCCASugAwIBAgIQIRi6zePL6mKjOipn+dNuaTAKBggqhkjOPQQDAjASMRAw\nDgYDVQQKEwdBY21lIENvMB4XDTE3MTAyMDE5NDMwNloXDTE4MTAyMDE5NDMwNlow\n-----END CERTIFICATE-----\n";

fn channel(fields: &str) -> Channel {
    let text = format!(
        "users: {{a: {{proxy_key: 12345678x, channels: [c]}}}}\nchannels: {{c: {{api_key: k, {fields}}}}}"
    );
    let mut snapshot = load(&text).snapshot;
    let channel = snapshot.channels.remove(0);
    drop(snapshot);
    std::sync::Arc::into_inner(channel).unwrap()
}

fn snapshot(text: &str) -> Snapshot {
    load(text).snapshot
}

fn user<'a>(snapshot: &'a Snapshot, id: &str) -> &'a User {
    snapshot.users().find(|user| &*user.id == id).unwrap()
}

#[test]
fn defaults() {
    let channel = channel("base_url: https://dashscope.aliyuncs.com");
    assert_eq!((channel.platform.id, &*channel.name, channel.status), ("dashscope", "c", Status::Active));
    assert_eq!(channel.placement, [Placement::BEARER]);
    assert_eq!(channel.timeouts, model::Timeouts::default());
    assert!(channel.models.is_none() && channel.ca_pem.is_none() && channel.path_rewrite.is_empty());
    assert_eq!((channel.retry, channel.breaker), (model::Retry::default(), model::Breaker::default()));
    assert_eq!((channel.health, channel.ownership), (None, model::Ownership::Enforce));
    let system = snapshot("users:\nsystem:\n").system;
    assert_eq!(system.http, ["127.0.0.1:8080".parse().unwrap()]);
    assert_eq!(system.admin, ["127.0.0.1:8081".parse().unwrap()]);
    assert_eq!(system.drain, model::Drain::default());
    assert_eq!(system.config_reload_interval, Duration::from_secs(300));
    assert_eq!((&*system.log_level, system.max_connections, system.workers), ("info", 10_000, None));
    assert_eq!((system.log.access, system.log.format), (AccessLog::Stdout, LogFormat::Text));
    assert_eq!(system.limits, model::Limits::default());
    assert_eq!((system.cors, system.data_dir), (None, PathBuf::from("/etc/aiproxy/data")));
}

#[test]
fn channels_say_where_keys_go() {
    for (fields, expected) in [
        ("base_url: https://api.anthropic.com", vec![Placement::header("x-api-key")]),
        ("base_url: https://a.example", vec![Placement::BEARER]),
        (
            "base_url: https://a.example, platform: deepgram",
            vec![Placement::scheme("authorization", "Token")],
        ),
        ("base_url: https://a.example, key_placement: bearer", vec![Placement::BEARER]),
        ("base_url: https://a.example, key_placement: {header: API-Key}", vec![Placement::header("api-key")]),
        (
            "base_url: https://a.example, key_placement: {header: authorization, scheme: Token}",
            vec![Placement::scheme("authorization", "Token")],
        ),
        (
            "base_url: https://a.example, key_placement: [bearer, {query: key}]",
            vec![Placement::BEARER, Placement::query("key")],
        ),
    ] {
        assert_eq!(channel(fields).placement, expected, "{fields}");
    }
    // Sockets have places of their own, and else those of HTTP.
    for (fields, http, socket) in [
        ("base_url: https://api.openai.com", vec![Placement::BEARER], vec![Placement::BEARER]),
        (
            "base_url: https://a.example, key_placement: {header: API-Key}",
            vec![Placement::header("api-key")],
            vec![Placement::header("api-key")],
        ),
        (
            "base_url: https://a.example, key_placement: {subprotocol_prefix: key.}",
            vec![Placement::BEARER],
            vec![Placement::subprotocol("key.")],
        ),
        (
            "base_url: https://a.example, key_placement: [{query: k}, {subprotocol_pair: token}]",
            vec![Placement::query("k")],
            vec![Placement::pair("token")],
        ),
        (
            "base_url: https://a.example, key_placement: {first_message: /auth/token}",
            vec![Placement::BEARER],
            vec![Placement::FirstMessage { pointer: Pointer::parse("/auth/token").unwrap() }],
        ),
    ] {
        let channel = channel(fields);
        assert_eq!((&channel.placement, &channel.socket_placement), (&http, &socket), "{fields}");
    }
    assert!(channel("base_url: https://api.openai.com").strips_beta());
    assert!(!channel("base_url: https://api.openai.com, websocket: {beta: pass}").strips_beta());
    assert!(!channel("base_url: https://a.example").strips_beta());
}

#[test]
fn channels_keep_every_field() {
    let channel = channel(
        "name: 通道, base_url: 'https://a.example:8443/llm/', status: disabled, models: [m*], \
         allow_paths: [/V1/**], deny_paths: [/v1/Files/], path_rewrite: {/V1/: /api/V3, /x: /}, \
         headers: {set: {X-A: 'b ${C}'}, pass: [OpenAI-Organization]}, \
         timeouts: {connect: 1, first_byte: 2s, idle: 500ms, total: 1h}",
    );
    assert_eq!((&*channel.name, channel.status), ("通道", Status::Disabled));
    assert_eq!((&*channel.base.authority, &*channel.base.path), ("a.example:8443", "/llm"));
    assert_eq!(channel.models, Some(vec!["m*".to_owned()]));
    assert_eq!(
        (channel.allow_paths, channel.deny_paths),
        (vec!["/v1/**".to_owned()], vec!["/v1/files".to_owned()])
    );
    let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    assert_eq!(channel.path_rewrite, [pair("/v1", "/api/V3"), pair("/x", "")]);
    assert_eq!(channel.set_headers[0].0, "x-a");
    assert_eq!(channel.set_headers[0].1, "b value-of-C");
    assert_eq!(channel.pass_headers, ["openai-organization"]);
    let timeouts = channel.timeouts;
    assert_eq!((timeouts.connect, timeouts.first_byte), (Duration::from_secs(1), Duration::from_secs(2)));
    assert_eq!(
        (timeouts.idle, timeouts.total),
        (Duration::from_millis(500), Some(Duration::from_secs(3600)))
    );
}

#[test]
fn channels_say_what_happens_when_they_fail() {
    let channel = channel(
        "base_url: https://a.example/base, retry: {attempts: 10, on: [599, 500, 503, 429, 500]}, \
         breaker: {failures: 1, error_rate: 1, min_requests: 2, window: 1s, cooldown: 3m, max_cooldown: 3m}, \
         health: {path: '/V1/models?limit=1', interval: 1s, threshold: 1}, ownership: off",
    );
    assert_eq!(channel.retry, model::Retry { attempts: 10, on: vec![500, 599] });
    let breaker = model::Breaker {
        failures: 1,
        error_rate: 1.0,
        min_requests: 2,
        window: Duration::from_secs(1),
        cooldown: Duration::from_secs(180),
        max_cooldown: Duration::from_secs(180),
    };
    assert_eq!(channel.breaker, breaker);
    let health = model::HealthCheck {
        path: "/V1/models?limit=1".to_owned(),
        interval: Duration::from_secs(1),
        threshold: 1,
    };
    assert_eq!((channel.health, channel.ownership), (Some(health), model::Ownership::Off));
}

#[test]
fn channels_say_how_they_are_reached() {
    let reached = channel(
        "base_url: https://a.example, http_versions: [h1, h2], egress_proxy: 'socks5h://u:p@proxy.example', \
         resolve: {A.example: [10.0.0.1, '2001:db8::1']}, \
         pool: {idle: 2m, max_idle: 0, warm: 3, ping: 1s, lookup: 100ms}",
    );
    let reach = &reached.reach;
    assert_eq!(reach.versions, [model::HttpVersion::H1, model::HttpVersion::H2]);
    let model::Egress::Proxy(proxy) = &reach.egress else { panic!("a proxy") };
    assert_eq!(
        (proxy.scheme, &*proxy.host, proxy.port),
        (model::ProxyScheme::Socks5h, "proxy.example", 1080)
    );
    let addresses = reach.addresses_of("a.EXAMPLE").unwrap();
    assert_eq!(addresses, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
    let pool = model::PoolLimits {
        idle: Duration::from_secs(120),
        max_idle: 0,
        warm: 3,
        ping: Duration::from_secs(1),
        lookup: Duration::from_millis(100),
    };
    assert_eq!(reached.pool, pool);
    let text = |versions: &str| {
        format!("channels: {{c: {{api_key: k, base_url: http://127.0.0.1:1, http_versions: {versions}}}}}")
    };
    for (versions, warnings) in [("[h2, h1]", 1), ("[h2]", 0), ("[h1]", 0)] {
        let found = load(&text(versions)).warnings;
        let found = found.iter().filter(|warning| warning.to_string().contains("negotiated")).count();
        assert_eq!(found, warnings, "{versions}");
    }
    let direct = channel("base_url: https://a.example, egress_proxy: off, http_versions: [h2, h3, h1]");
    assert_eq!(direct.reach.egress, model::Egress::Direct);
    assert_eq!(direct.reach.wants_h3(), Some(model::H3::WhenOffered));
    let usual = channel("base_url: https://a.example, pool: ");
    assert_eq!((usual.reach, usual.pool), (model::Reach::default(), model::PoolLimits::default()));
}

#[test]
fn http3_is_where_https_is_unless_the_file_says_otherwise() {
    use model::Quic::{At, LikeHttps, Off};
    let at = |list: &[&str]| At(list.iter().map(|text| text.parse().unwrap()).collect());
    for (listen, expected) in [
        ("https: '127.0.0.1:1'", LikeHttps),
        ("https: ['127.0.0.1:1', '[::1]:1'], quic: true", LikeHttps),
        ("https: '127.0.0.1:1', quic: false", Off),
        ("https: '127.0.0.1:1', quic: off", Off),
        ("https: '127.0.0.1:1', quic: []", Off),
        ("https: '127.0.0.1:1', quic: '0.0.0.0:2'", at(&["0.0.0.0:2"])),
        ("https: '127.0.0.1:1', quic: ['0.0.0.0:1', '[::]:2']", at(&["0.0.0.0:1", "[::]:2"])),
        ("https: off, quic: ['127.0.0.1:0', '127.0.0.1:0']", at(&["127.0.0.1:0", "127.0.0.1:0"])),
        ("http: off, quic: '127.0.0.1:1'", at(&["127.0.0.1:1"])),
        ("https: '127.0.0.1:1', proxy_protocol: true", Off),
        ("https: '127.0.0.1:1', proxy_protocol: true, quic: true", LikeHttps),
        // UDP and TCP have ports of their own.
        ("https: '127.0.0.1:1', quic: '127.0.0.1:8080'", at(&["127.0.0.1:8080"])),
        ("https: '127.0.0.1:1', media: '127.0.0.1:2'", LikeHttps),
    ] {
        let text =
            format!("system: {{listen: {{{listen}}}, tls: self-signed, trusted_proxies: [10.0.0.1]}}\n");
        let loaded = load(&text);
        let system = &loaded.snapshot.system;
        assert_eq!((&system.quic, system.quic_advertise), (&expected, None), "{listen}");
        let warned = loaded.warnings.iter().any(|warning| warning.path.starts_with("system"));
        assert!(!warned, "{listen}: {:?}", loaded.warnings);
    }
    let told =
        snapshot("system: {listen: {https: '127.0.0.1:1', quic_advertise: 443}, tls: self-signed}").system;
    assert_eq!((told.quic, told.quic_advertise), (LikeHttps, Some(443)));
}

#[test]
fn empty_sections_are_defaults() {
    let channel = channel("base_url: https://a.example, retry: , breaker: {}, ownership: shared");
    assert_eq!((channel.retry, channel.breaker), (model::Retry::default(), model::Breaker::default()));
    assert_eq!(channel.ownership, model::Ownership::Shared);
    assert_eq!(snapshot("system: {drain: , listen: }").system.drain, model::Drain::default());
}

#[test]
fn the_admin_listener_may_be_anywhere_or_nowhere() {
    let admin = |value: &str| {
        snapshot(&format!("system: {{listen: {{http: '127.0.0.1:0', admin: {value}}}}}")).system.admin
    };
    let addresses =
        |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<std::net::SocketAddr>>();
    assert_eq!(admin("off"), []);
    assert_eq!(admin("'off'"), []);
    // Where the tests of the whole listen: no two of these are the same.
    assert_eq!(admin("127.0.0.1:0"), addresses(&["127.0.0.1:0"]));
    assert_eq!(admin("['127.0.0.1:0', '127.0.0.1:0']"), addresses(&["127.0.0.1:0", "127.0.0.1:0"]));
    assert_eq!(admin("['127.0.0.1:9090', '[::1]:9090']"), addresses(&["127.0.0.1:9090", "[::1]:9090"]));
}

#[test]
fn groups_add_to_users() {
    let snapshot = snapshot(
        "users:\n  a: {proxy_key: 11111111, channels: [z], groups: [g, h, g]}\n  b: {proxy_key: '22222222', models: [m], groups: [g]}\n  c: {proxy_key: '33333333', channels: [x]}\ngroups:\n  g: {channels: [y, z], allow_ips: [10.0.0.0/8], models: [n]}\n  h: {channels: [x, y], allow_ips: [10.0.0.0/8, 1.2.3.4], models: [n, o]}\nchannels:\n  x: {api_key: k, base_url: https://x.example}\n  y: {api_key: k, base_url: https://y.example}\n  z: {api_key: k, base_url: https://z.example}\n"
            .replace("11111111", "'11111111'")
            .as_str(),
    );
    let ids = |id: &str| {
        user(&snapshot, id).channels.iter().map(|channel| channel.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        (ids("a"), ids("b"), ids("c")),
        (vec!["z".into(), "y".into(), "x".into()], vec!["y".into(), "z".into()], vec!["x".into()])
    );
    // Groups widen each other and narrow the user.
    assert_eq!(user(&snapshot, "a").models.lists(), [["n", "o"]]);
    assert_eq!(user(&snapshot, "b").models.lists(), [["n"], ["m"]]);
    assert!(user(&snapshot, "c").models.is_none());
    assert_eq!(
        user(&snapshot, "a").allow_ips.lists(),
        [["10.0.0.0/8".parse().unwrap(), "1.2.3.4/32".parse().unwrap()]]
    );
    assert!(user(&snapshot, "c").allow_ips.is_none());
    let groups = |id: &str| user(&snapshot, id).groups.clone();
    assert_eq!((groups("a"), groups("c")), (vec!["g".into(), "h".into()], vec![]));
    assert!(std::sync::Arc::ptr_eq(&groups("a")[0], &groups("b")[0]));
    // The order of the file, not of the alphabet.
    assert_eq!(snapshot.channels.iter().map(|channel| &*channel.id).collect::<String>(), "xyz");
}

#[test]
fn keys_may_be_digests() {
    let key = aiproxy_core::KeyDigest::of(b"abc");
    let text = "users: {a: {proxy_key_sha256: BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad, expires_at: 2099-01-01}}";
    let snapshot = snapshot(text);
    let user = snapshot.user_by_key(&key).unwrap();
    assert_eq!((&*user.key.tag.prefix, user.key.expires_at), ("", Some(4_070_908_800)));
}

#[test]
fn anchors_and_merges_are_followed() {
    let snapshot = snapshot(
        "channels:\n  a: &base {api_key: k, base_url: https://a.example, timeouts: &t {idle: 5s}}\n  b: {<<: *base, base_url: https://b.example}\n  c: {<<: [{status: disabled}, *base], timeouts: *t}\n",
    );
    let hosts: Vec<&str> = snapshot.channels.iter().map(|channel| &*channel.base.host).collect();
    assert_eq!(hosts, ["a.example", "b.example", "a.example"]);
    assert!(snapshot.channels.iter().all(|channel| channel.timeouts.idle == Duration::from_secs(5)));
    assert_eq!(snapshot.channels[2].status, Status::Disabled);
}

#[test]
fn the_system_keeps_every_field() {
    let system = snapshot(
        "system:\n  config_reload_interval: 30s\n  log_level: debug,h2=warn\n  max_connections: 5\n  workers: 2\n  listen: {http: ['127.0.0.1:1', '[::1]:1'], admin: '127.0.0.1:2'}\n  drain: {delay: 5s, timeout: 0}\n  trusted_proxies: [10.0.0.5]\n  limits: {header_bytes: 8KiB, headers: 50, header_timeout: 1s, body_bytes: 10MB, keep_alive: 2, peek_bytes: 0, replay_bytes: 2MiB, replay_total: 2MiB}\n  cors: {origins: ['*'], max_age: 1h}\n  log: {access: logs/a.jsonl, format: json}\n  data_dir: /var/lib/aiproxy\n",
    )
    .system;
    assert_eq!((system.config_reload_interval, system.workers), (Duration::from_secs(30), Some(2)));
    assert_eq!((system.http.len(), system.admin.len()), (2, 1));
    let drain = model::Drain { delay: Duration::from_secs(5), timeout: Duration::ZERO };
    assert_eq!(system.drain, drain);
    let limits = system.limits;
    assert_eq!(
        (limits.header_bytes, limits.headers, limits.body_bytes, limits.peek_bytes),
        (8192, 50, 10_000_000, 0)
    );
    assert_eq!((limits.replay_bytes, limits.replay_total), (2 << 20, 2 << 20));
    assert_eq!(system.cors.unwrap().max_age, Duration::from_secs(3600));
    assert_eq!(system.log.access, AccessLog::File(PathBuf::from("/etc/aiproxy/logs/a.jsonl")));
    assert_eq!((system.log.format, system.data_dir), (LogFormat::Json, PathBuf::from("/var/lib/aiproxy")));
}

#[test]
fn files_are_found_beside_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("ca.pem", PEM);
    write("key", "the-key\n");
    write(
        "c.yaml",
        "\u{feff}users: {a: {proxy_key: 12345678x, channels: [c]}}\r\nchannels:\r\n  c: {api_key: 'file:key', base_url: https://a.example, ca: ca.pem}\r\n",
    );
    let loaded = load_file(&folder.path().join("c.yaml")).unwrap();
    let channel = &loaded.snapshot.channels[0];
    assert_eq!((channel.api_key.expose(), channel.ca_pem.as_deref()), ("the-key", Some(PEM.as_bytes())));
    write("ca.pem", "-----BEGIN PRIVATE KEY-----");
    let problems = load_file(&folder.path().join("c.yaml")).unwrap_err();
    assert_eq!(problems.problems()[0].message, "the file holds no certificate in PEM");
    assert_eq!((problems.problems()[0].line, problems.problems()[0].column), (3, 61));
}

#[test]
fn prices_are_kept_in_millionths_and_in_order() {
    let channel = channel(
        "base_url: https://a.example, prices: {currency: CNY, models: {'qwen-plus*': {input: 0.8, cached: 0.2, output: 2}, '*': {second: 0.0001}}}",
    );
    let prices = channel.prices.unwrap();
    assert_eq!((&*prices.currency, prices.rows.len()), ("CNY", 2));
    let qwen = prices.price("qwen-plus-latest").unwrap();
    assert_eq!(
        (qwen.input, qwen.cached, qwen.output, qwen.reasoning),
        (800_000, Some(200_000), 2_000_000, None)
    );
    assert_eq!(prices.price("other").unwrap().second, 100);
}

#[test]
fn the_journal_and_the_logs_rotation_have_defaults_and_can_be_off() {
    let system = snapshot("users:\nsystem:\n").system;
    let journal = system.journal.unwrap();
    assert_eq!(journal.dir, PathBuf::from("/etc/aiproxy/data/journal"));
    assert_eq!(
        (journal.segment_bytes, journal.max_bytes, journal.retention_bytes),
        (4 << 20, 1 << 30, 4 << 30)
    );
    assert_eq!(system.log.rotate, Some(model::Rotate::default()));
    let text = "users:\nsystem: {data_dir: /var/d, journal: {dir: j, retention: 1h, retention_bytes: 0}, log: {rotate: {bytes: 1MiB, keep_files: 3}}}";
    let system = snapshot(text).system;
    let journal = system.journal.unwrap();
    assert_eq!(
        (journal.dir, journal.retention),
        (PathBuf::from("/etc/aiproxy/j"), Duration::from_secs(3600))
    );
    let rotate = system.log.rotate.unwrap();
    assert_eq!((rotate.bytes, rotate.keep_files, rotate.keep_bytes), (1 << 20, Some(3), 10 << 30));
    let system =
        snapshot("users:\nsystem: {journal: {enabled: false}, log: {rotate: {enabled: false}}}").system;
    assert_eq!((system.journal, system.log.rotate), (None, None));
}

#[test]
fn what_makes_no_sense_about_usage_is_named() {
    for (text, path) in [
        ("system: {journal: {segment_bytes: 100KiB}}", "system.journal.segment_bytes"),
        ("system: {journal: {segment_bytes: 1048577}}", "system.journal.segment_bytes"),
        ("system: {journal: {max_bytes: 8MiB}}", "system.journal.max_bytes"),
        ("system: {journal: {segment_bytes: 1GiB}}", "system.journal.segment_bytes"),
        ("system: {journal: {sync_interval: 1ms}}", "system.journal.sync_interval"),
        ("system: {journal: {session_interval: 10ms}}", "system.journal.session_interval"),
        ("system: {log: {rotate: {bytes: 1KiB}}}", "system.log.rotate.bytes"),
        ("system: {log: {rotate: {age: 1s}}}", "system.log.rotate.age"),
        (
            "channels: {c: {api_key: k, base_url: 'https://a.b', prices: {models: {}}}}",
            "channels.c.prices.currency",
        ),
        (
            "channels: {c: {api_key: k, base_url: 'https://a.b', prices: {currency: usd, models: {}}}}",
            "channels.c.prices.currency",
        ),
        (
            "channels: {c: {api_key: k, base_url: 'https://a.b', prices: {currency: USD, models: {m: {input: -1}}}}}",
            "channels.c.prices.models.m.input",
        ),
        (
            "channels: {c: {api_key: k, base_url: 'https://a.b', prices: {currency: USD, models: {m: {inputs: 1}}}}}",
            "channels.c.prices.models.m.inputs",
        ),
    ] {
        let problems = problems(text);
        assert!(problems.problems().iter().any(|problem| problem.path == path), "{path}: {problems}");
    }
}

#[test]
fn client_secrets_have_keys_and_bounds() {
    let system = snapshot("users:").system;
    assert_eq!((system.client_secrets.keys.len(), system.client_secrets.max_per_key), (0, 1000));
    assert_eq!(system.client_secrets.max_ttl, Duration::from_secs(7200));
    let text = "users:\nchannels: {c: {api_key: k, base_url: 'https://a.b', default_model: gpt-realtime}}\nsystem: {client_secrets: {keys: ['${A_NAME_THAT_IS_LONG_ENOUGH}', hunter2hunter2hunter2hunter2hunter2], max_per_key: 5, max_ttl: 1m}}";
    let snapshot = snapshot(text);
    let secrets = &snapshot.system.client_secrets;
    assert_eq!(secrets.keys[0].expose(), "value-of-A_NAME_THAT_IS_LONG_ENOUGH");
    assert_eq!((secrets.keys.len(), secrets.max_per_key, secrets.max_ttl.as_secs()), (2, 5, 60));
    assert_eq!(snapshot.channel("c").unwrap().default_model.as_deref(), Some("gpt-realtime"));
    assert!(!format!("{secrets:?}").contains("hunter2"));
    let key = "hunter2hunter2hunter2hunter2hunter2";
    for (fields, path) in [
        ("client_secrets: {keys: [hunter2]}".to_owned(), "system.client_secrets.keys[0]"),
        (format!("client_secrets: {{keys: [{key}, {key}]}}"), "system.client_secrets.keys[1]"),
        ("client_secrets: {keys: []}".to_owned(), "system.client_secrets.keys"),
        (format!("client_secrets: {{keys: {key}}}"), "system.client_secrets.keys"),
        (format!("client_secrets: {{key: {key}}}"), "system.client_secrets.key"),
        ("client_secrets: {max_ttl: 3h}".to_owned(), "system.client_secrets.max_ttl"),
        ("client_secrets: {max_ttl: 1s}".to_owned(), "system.client_secrets.max_ttl"),
        ("client_secrets: {max_per_key: -1}".to_owned(), "system.client_secrets.max_per_key"),
    ] {
        let problems = problems(&format!("users:\nsystem: {{{fields}}}\n"));
        assert!(problems.problems().iter().any(|problem| problem.path == path), "{path}: {problems}");
        assert!(!problems.to_string().contains("hunter2"), "{problems}");
    }
    let pattern = "users:\nchannels: {c: {api_key: k, base_url: 'https://a.b', default_model: 'gpt-*'}}";
    let problems = problems(pattern);
    assert!(problems.problems().iter().any(|problem| problem.path == "channels.c.default_model"));
}

#[test]
fn calls_have_addresses_and_bounds() {
    assert_eq!(snapshot("users:").system.media, None);
    let text = "users:\nchannels: {c: {api_key: k, base_url: 'https://api.openai.com', realtime: {webrtc: direct, idle: 1m, calls: 3}}}\nsystem: {listen: {media: ['0.0.0.0:3478', '[::]:3478']}, public_ip: ['203.0.113.7', '2001:db8::7'], media: {first_port: 40000, last_port: 40009}, limits: {calls: 5}}";
    let snapshot = snapshot(text);
    let media = snapshot.system.media.unwrap();
    assert_eq!((media.listen.len(), media.public.len(), media.ports), (2, 2, 40_000..=40_009));
    assert_eq!((media.setup.as_secs(), media.grace.as_millis()), (15, 2500));
    assert_eq!((snapshot.system.limits.calls, snapshot.system.limits.calls_per_key), (5, 100));
    let realtime = snapshot.channels[0].realtime.clone();
    assert_eq!((realtime.webrtc, realtime.idle.as_secs(), realtime.calls), (WebRtc::Direct, 60, Some(3)));
    assert_eq!(realtime.message, 224 * 1024);
    for (fields, path) in [
        ("listen: {media: '0.0.0.0:3478'}", "system.listen.media"),
        ("listen: {media: ['0.0.0.0:3478', '[::]:3478']}, public_ip: 203.0.113.7", "system.listen.media[1]"),
        ("listen: {media: ['127.0.0.1:1', '127.0.0.1:2']}", "system.listen.media[1]"),
        ("listen: {media: nowhere}", "system.listen.media"),
        ("listen: {media: ['127.0.0.1:1']}, public_ip: 0.0.0.0", "system.public_ip"),
        ("public_ip: example.com", "system.public_ip"),
        ("media: {first_port: 60000}", "system.media.first_port"),
        ("media: {last_port: 2000}", "system.media.last_port"),
        ("media: {setup: 0s}", "system.media.setup"),
        ("limits: {calls: 0}", "system.limits.calls"),
    ] {
        let problems = problems(&format!("users:\nsystem: {{{fields}}}\n"));
        assert!(problems.problems().iter().any(|problem| problem.path == path), "{path}: {problems}");
    }
    for (fields, path) in [
        (
            "base_url: 'https://dashscope.aliyuncs.com', realtime: {webrtc: direct}",
            "channels.c.realtime.webrtc",
        ),
        ("base_url: 'https://a.b', realtime: {webrtc: bridge}", "channels.c.realtime.webrtc"),
        ("base_url: 'https://a.b', realtime: {idle: 0s}", "channels.c.realtime.idle"),
        ("base_url: 'https://a.b', realtime: {message: 10}", "channels.c.realtime.message"),
        ("base_url: 'https://a.b', realtime: {buffer: 1KiB}", "channels.c.realtime.buffer"),
    ] {
        let problems = problems(&format!("users:\nchannels: {{c: {{api_key: k, {fields}}}}}\n"));
        assert!(problems.problems().iter().any(|problem| problem.path == path), "{path}: {problems}");
    }
}
