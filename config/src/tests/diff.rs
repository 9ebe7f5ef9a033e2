//! What differs between two configurations, by meaning.

use proptest::prelude::*;

use super::*;
use crate::diff::{Changes, Diff};
use crate::model::{Snapshot, System};

const BASE: &str = "
users:
  u: {name: 张三, proxy_key: pk_hunter2_u, channels: [c, d], groups: [g, h], models: [m, n], allow_ips: [10.0.0.1, 10.0.0.2]}
  v: {proxy_key: pk_hunter2_v, channels: [c]}
groups: {g: {}, h: {}}
channels:
  c: {api_key: sk_hunter2_c, base_url: https://c.example, deny_paths: [/a, /b], headers: {set: {a: hunter2-a, b: hunter2-b}, pass: [x, y]}, retry: {on: [500, 502]}}
  d: {api_key: sk_hunter2_d, base_url: https://d.example, path_rewrite: {/a: /x, /a/b: /y}}
system: {listen: {http: ['127.0.0.1:1', '127.0.0.1:2']}, trusted_proxies: [10.0.0.1, 10.0.0.2], cors: {origins: ['https://a.example', 'https://b.example']}}
";

fn snapshot(text: &str) -> Snapshot {
    load(text).snapshot
}

/// What differs from [`BASE`] after these replacements, as it is shown.
fn after(replacements: &[(&str, &str)]) -> String {
    let mut text = BASE.to_owned();
    for (from, to) in replacements {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        text = text.replace(from, to);
    }
    let shown = diff(&snapshot(BASE), &snapshot(&text)).to_string();
    assert!(!shown.contains("hunter"), "{shown}");
    shown
}

#[test]
fn differences_are_named_by_field() {
    for (from, to, expected) in [
        ("张三", "李四", "users: ~u(name)"),
        ("pk_hunter2_v", "pk_hunter3_v", "users: ~v(proxy_key)"),
        ("{proxy_key: pk_hunter2_v", "{status: disabled, proxy_key: pk_hunter2_v", "users: ~v(status)"),
        ("{proxy_key: pk_hunter2_v", "{department: x, proxy_key: pk_hunter2_v", "users: ~v(department)"),
        (
            "{proxy_key: pk_hunter2_v",
            "{expires_at: 2099-01-01, proxy_key: pk_hunter2_v",
            "users: ~v(expires_at)",
        ),
        ("{proxy_key: pk_hunter2_v", "{groups: [g], proxy_key: pk_hunter2_v", "users: ~v(groups)"),
        ("{proxy_key: pk_hunter2_v", "{models: [m], proxy_key: pk_hunter2_v", "users: ~v(models)"),
        (
            "{proxy_key: pk_hunter2_v",
            "{allow_ips: [10.0.0.1], proxy_key: pk_hunter2_v",
            "users: ~v(allow_ips)",
        ),
        ("channels: [c, d]", "channels: [d, c]", "users: ~u(channels)"),
        ("groups: {g: {}", "groups: {g: {models: [o]}", "users: ~u(models)"),
        ("sk_hunter2_c", "sk_hunter3_c", "channels: ~c(api_key)"),
        ("sk_hunter2_c", "sk_hunter2_c, name: x", "channels: ~c(name)"),
        ("sk_hunter2_c", "sk_hunter2_c, platform: openai", "channels: ~c(platform)"),
        ("sk_hunter2_c", "sk_hunter2_c, status: disabled", "channels: ~c(status)"),
        ("sk_hunter2_c", "sk_hunter2_c, key_placement: {header: k}", "channels: ~c(key_placement)"),
        ("sk_hunter2_c", "sk_hunter2_c, key_placement: {subprotocol_pair: k}", "channels: ~c(key_placement)"),
        ("sk_hunter2_c", "sk_hunter2_c, websocket: {idle: 1s}", "channels: ~c(websocket)"),
        ("sk_hunter2_c", "sk_hunter2_c, realtime: {idle: 1s}", "channels: ~c(realtime)"),
        ("sk_hunter2_c", "sk_hunter2_c, default_model: m", "channels: ~c(default_model)"),
        ("sk_hunter2_c", "sk_hunter2_c, models: [m]", "channels: ~c(models)"),
        ("sk_hunter2_c", "sk_hunter2_c, allow_paths: [/a]", "channels: ~c(allow_paths)"),
        ("sk_hunter2_c", "sk_hunter2_c, timeouts: {idle: 1s}", "channels: ~c(timeouts)"),
        ("sk_hunter2_c", "sk_hunter2_c, breaker: {failures: 1}", "channels: ~c(breaker)"),
        ("sk_hunter2_c", "sk_hunter2_c, health: {path: /}", "channels: ~c(health)"),
        ("sk_hunter2_c", "sk_hunter2_c, ownership: shared", "channels: ~c(ownership)"),
        ("sk_hunter2_c", "sk_hunter2_c, stream_usage: observe", "channels: ~c(stream_usage)"),
        (
            "sk_hunter2_c",
            "sk_hunter2_c, prices: {currency: USD, models: {m: {input: 1}}}",
            "channels: ~c(prices)",
        ),
        ("on: [500, 502]", "on: [500]", "channels: ~c(retry)"),
        ("[/a, /b]", "[/a]", "channels: ~c(deny_paths)"),
        ("hunter2-a", "hunter3-a", "channels: ~c(headers.set)"),
        ("[x, y]", "[x]", "channels: ~c(headers.pass)"),
        ("{/a: /x, /a/b: /y}", "{/a/b: /y, /a: /x}", "channels: ~d(path_rewrite)"),
        ("https://d.example", "https://d.example:444", "channels: ~d(base_url)"),
        ("system: {", "system: {config_reload_interval: 1s, ", "system: config_reload_interval"),
        ("system: {", "system: {log_level: debug, ", "system: log_level"),
        ("system: {", "system: {max_connections: 1, ", "system: max_connections"),
        ("system: {", "system: {workers: 1, ", "system: workers"),
        ("system: {", "system: {limits: {headers: 99}, ", "system: limits"),
        ("system: {", "system: {drain: {delay: 1s}, ", "system: drain"),
        ("system: {", "system: {log: {access: off, format: json}, ", "system: log.access, log.format"),
        ("system: {", "system: {data_dir: x, ", "system: data_dir, journal"),
        ("system: {", "system: {journal: {max_bytes: 2GiB}, ", "system: journal"),
        ("system: {", "system: {log: {rotate: {enabled: false}}, ", "system: log.rotate"),
        ("listen: {", "listen: {admin: off, ", "system: listen.admin"),
        ("'127.0.0.1:2'", "'127.0.0.1:3'", "system: listen.http"),
        ("listen: {", "tls: self-signed, listen: {https: '127.0.0.1:9', ", "system: listen.https, tls"),
        ("listen: {", "listen: {quic: off, ", "system: listen.quic"),
        ("listen: {", "tls: self-signed, listen: {quic: '127.0.0.1:9', ", "system: listen.quic, tls"),
        ("listen: {", "listen: {quic_advertise: 9, ", "system: listen.quic_advertise"),
        ("trusted_proxies: [10.0.0.1, 10.0.0.2]", "trusted_proxies: []", "system: trusted_proxies"),
        (", 'https://b.example'", "", "system: cors"),
    ] {
        assert_eq!(after(&[(from, to)]), expected, "{to}");
    }
}

#[test]
fn what_means_the_same_is_no_difference() {
    for (from, to) in [
        ("groups: [g, h]", "groups: [h, g, h]"),
        ("models: [m, n]", "models: [n, m, m]"),
        ("allow_ips: [10.0.0.1, 10.0.0.2]", "allow_ips: [10.0.0.2/32, 10.0.0.1]"),
        ("[/a, /b]", "[/B/, /a]"),
        ("{a: hunter2-a, b: hunter2-b}", "{b: hunter2-b, A: hunter2-a}"),
        ("[x, y]", "[Y, x]"),
        ("on: [500, 502]", "on: [503, 502, 500, 429]"),
        ("https://c.example", "https://C.example:443/"),
        ("['127.0.0.1:1', '127.0.0.1:2']", "['127.0.0.1:2', '127.0.0.1:1']"),
        ("trusted_proxies: [10.0.0.1, 10.0.0.2]", "trusted_proxies: [10.0.0.2, 10.0.0.1]"),
        ("['https://a.example', 'https://b.example']", "['https://b.example', 'https://a.example']"),
        ("system: {", "system: {config_reload_interval: 5m, max_connections: 10000, allow_plaintext: true, "),
    ] {
        assert_eq!(after(&[(from, to)]), "no changes", "{to}");
    }
    assert!(diff(&snapshot(BASE), &snapshot(BASE)).is_empty());
    let digest = aiproxy_core::KeyDigest::of(b"pk_hunter2_v").hex();
    let hashed = format!("proxy_key_sha256: {digest}");
    assert_eq!(after(&[("proxy_key: pk_hunter2_v", &hashed)]), "no changes");
    // Whoever shares a snapshot's parts differs in nothing either.
    let one = snapshot(BASE);
    assert_eq!(diff(&one, &one.clone()), Diff::default());
}

#[test]
fn a_change_reads_as_one_line() {
    let shown = after(&[
        ("  v: {proxy_key: pk_hunter2_v, channels: [c]}", "  lisi: {proxy_key: pk_hunter2_l, channels: [e]}"),
        ("{name: 张三, proxy_key", "{status: disabled, proxy_key"),
        ("channels: [c, d]", "channels: [c]"),
        ("sk_hunter2_c", "sk_hunter3_c"),
        ("  d: {api_key: sk_hunter2_d", "  e: {api_key: sk_hunter2_d"),
        ("system: {", "system: {log_level: debug, workers: 3, "),
    ]);
    assert_eq!(
        shown,
        "users: +lisi ~u(name, status, channels) -v; channels: +e ~c(api_key) -d; system: log_level, workers"
    );
}

#[test]
fn lines_are_bounded_and_ids_are_told_apart() {
    let ids = |from: usize, to: usize| (from..to).map(|n| format!("u{n}").into()).collect::<Vec<_>>();
    let changed = |from: usize, to: usize| ids(from, to).into_iter().map(|id| (id, vec!["name"])).collect();
    let users = Changes { added: ids(0, 21), changed: changed(21, 41), removed: ids(41, 10_000) };
    let shown = Diff { users, ..Diff::default() }.to_string();
    assert!(shown.contains("+u19 … and 1 more ~u21(name) ~u22(name)"), "{shown}");
    assert!(shown.contains("~u40(name) -u41"), "{shown}");
    assert!(shown.ends_with("-u60 … and 9939 more"), "{shown}");
    assert_eq!(shown.matches(['+', '~', '-']).count(), 60);
    let added = ["张三", "a.b@c-d", "a b", "-x", "a\u{2028}b", "x(y)"].map(Into::into).to_vec();
    let shown = Diff { users: Changes { added, ..Changes::default() }, ..Diff::default() }.to_string();
    assert_eq!(shown, "users: +张三 +a.b@c-d +\"a b\" +\"-x\" +\"a\\u{2028}b\" +\"x(y)\"");
    assert_eq!(Diff::default().to_string(), "no changes");
}

#[test]
fn some_settings_wait_for_the_next_start() {
    let system = |fields: &str| snapshot(&format!("system: {{{fields}}}")).system;
    let all = "listen: {http: '127.0.0.1:1', admin: off}, workers: 2, data_dir: x, log: {access: off, format: json}, \
               config_reload_interval: 1s, log_level: debug, max_connections: 1, trusted_proxies: [10.0.0.1], \
               limits: {headers: 9}, cors: {origins: ['*']}, drain: {delay: 1s}";
    let mut names = System::needs_restart(&system(""), &system(all));
    names.sort_unstable();
    assert_eq!(names, ["data_dir", "journal", "listen.admin", "log.access", "log.format", "workers"]);
    assert_eq!(System::needs_restart(&system(all), &system(all)), Vec::<&str>::new());
    assert_eq!(
        System::needs_restart(&system(""), &system("log_level: debug, cors: {origins: ['*']}")),
        [""; 0]
    );
}

#[test]
fn ten_thousand_users_differ_quickly() {
    let company = |name: &str| {
        let mut text = "channels: {c: {api_key: k, base_url: https://c.example}}\nusers:\n".to_owned();
        for n in 0..10_000 {
            text.push_str(&format!("  u{n}: {{name: {name}, proxy_key: pk_number_{n}, channels: [c]}}\n"));
        }
        snapshot(&text)
    };
    let (old, new) = (company("a"), company("b"));
    let begun = std::time::Instant::now();
    let found = diff(&old, &new);
    let took = begun.elapsed();
    println!("{took:?}");
    assert_eq!(found.users.changed.len(), 10_000);
    // Milliseconds; a quadratic one would take half a minute in a debug build.
    assert!(took.as_secs() < 2, "{took:?}");
}

/// A company, each field present or not.
fn company() -> impl Strategy<Value = String> {
    let user = (0..6u8, any::<[bool; 5]>(), 0..3u8);
    let channel = (0..4u8, any::<[bool; 5]>(), 0..3u8);
    let users = prop::collection::btree_map("[a-f]", user, 0..5);
    let channels = prop::collection::btree_map("[a-d]", channel, 0..4);
    (users, channels, any::<[bool; 6]>()).prop_map(|(users, channels, system)| {
        let chosen = |fields: &[&str], chosen: &[bool]| {
            fields
                .iter()
                .zip(chosen)
                .filter(|(_, chosen)| **chosen)
                .map(|(field, _)| format!(", {field}"))
                .collect::<String>()
        };
        let mut text = "groups: {g: {models: [x]}, h: {}}\nchannels:\n".to_owned();
        for (id, (key, fields, host)) in &channels {
            let more = chosen(
                &[
                    "status: disabled",
                    "models: [m]",
                    "retry: {on: [500]}",
                    "health: {path: /x}",
                    "headers: {set: {a: hunter2}}",
                ],
                fields,
            );
            text.push_str(&format!(
                "  {id}: {{api_key: hunter2_{key}, base_url: 'https://{host}.example'{more}}}\n"
            ));
        }
        text.push_str("users:\n");
        for (id, (key, fields, used)) in &users {
            let more = chosen(
                &["status: disabled", "models: [m]", "groups: [g, h]", "allow_ips: [10.0.0.1]", "name: x"],
                fields,
            );
            let used: Vec<&String> = channels.keys().take(usize::from(*used)).collect();
            text.push_str(&format!("  {id}: {{proxy_key: hunter2_{id}_{key}, channels: {used:?}{more}}}\n"));
        }
        let more = chosen(
            &[
                "workers: 2",
                "log_level: debug",
                "data_dir: x",
                "drain: {delay: 1s}",
                "limits: {headers: 9}",
                "log: {access: off}",
            ],
            &system,
        );
        text.push_str(&format!("system: {{allow_plaintext: false{more}}}\n"));
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_snapshot_does_not_differ_from_itself(text in company()) {
        let (one, again) = (snapshot(&text), snapshot(&text));
        prop_assert_eq!(diff(&one, &again), Diff::default());
        prop_assert_eq!(diff(&one, &one), Diff::default());
    }

    /// Both directions tell the same, and applying what is told leads from one to the other.
    #[test]
    fn a_difference_has_two_directions(one in company(), two in company()) {
        let (one, two) = (snapshot(&one), snapshot(&two));
        let (there, back) = (diff(&one, &two), diff(&two, &one));
        prop_assert_eq!(&there.system, &back.system);
        for (there, back) in [(&there.users, &back.users), (&there.channels, &back.channels)] {
            prop_assert_eq!(&there.added, &back.removed);
            prop_assert_eq!(&there.removed, &back.added);
            let sorted = |changes: &Changes| {
                let mut changed = changes.changed.clone();
                changed.sort();
                changed
            };
            prop_assert_eq!(sorted(there), sorted(back));
        }
        let shown = there.to_string();
        prop_assert!(!shown.contains("hunter2") && !shown.contains('\n'), "{shown}");
        prop_assert_eq!(shown == "no changes", there.is_empty());
    }
}
