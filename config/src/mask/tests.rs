use super::*;

fn line(text: &str) -> String {
    let lines = Lines::new(text);
    let parsed = crate::yaml::parse(text, &lines);
    let masker = Masker::new(&lines, &parsed);
    let chars: Vec<char> = lines.get(1).chars().collect();
    cut(&chars, &masker.line(1))
}

#[test]
fn what_is_no_secret_is_shown() {
    for text in [
        "users: {a: {name: 张三, status: active, channels: [aliyun], email: a@b.example}}",
        "channels: {a: {base_url: https://api.openai.com/v1, key_placement: {header: api-key}}}",
        "channels: {a: {key_placement: bearer, models: [gpt-4o-realtime-preview-2024-12-17]}}",
        "system: {log_level: info, listen: {http: '127.0.0.1:8080'}, workers: 4}",
        "users: {a: {stauts: active}}",
        "users: {a: {status: 5, channels: aliyun}}",
    ] {
        assert_eq!(line(text), text);
    }
}

#[test]
fn secrets_are_not() {
    for (text, shown) in [
        ("users: {a: {proxy_key: abc, name: x}}", "users: {a: {proxy_key: ***, name: x}}"),
        ("users: {a: {proxy_key: 'a, b: c', name: x}}", "users: {a: {proxy_key: ***, name: x}}"),
        ("channels: {a: {headers: {set: {x: abc}, pass: [y]}}}", "channels: {a: {headers: {set: ***"),
        ("channels: {a: {base_url: https://u:p@h/x?k=v}}", "channels: {a: {base_url: https://***@h/x?***"),
        ("channels: {a: {base_url: abcdef}}", "channels: {a: {base_url: ***}}"),
        ("channels: {a: abcdef}", "channels: {a: ***}"),
        (
            "channels: {a: {proxy: abc, base_url: https://h}}",
            "channels: {a: {proxy: ***, base_url: https://h}}",
        ),
        ("redis: {url: abc}", "redis: ***"),
        ("a: b # proxy_key: abc", "a: *** # proxy_key: ***"),
        ("a: b # Bearer abc", "a: *** # Bearer ***"),
        ("users: {a: {name: sk-abc}}", "users: {a: {name: ***}}"),
    ] {
        assert_eq!(line(text), shown);
    }
}

#[test]
fn a_broken_file_shows_what_is_certain() {
    for (text, shown) in [
        ("  name: 张三\n [", "  name: 张三"),
        ("  user1: {name: x, proxy_key: y, foo: z\n", "  user1: {name: x, proxy_key: ***, foo: ***"),
        ("  whatever\n [", "  ***"),
        ("  - base_url: https://h # note\n [", "  - base_url: https://h *** ***"),
    ] {
        assert_eq!(line(text), shown);
    }
}
