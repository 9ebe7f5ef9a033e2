//! A platform, or whoever speaks in its place, that means ill.

use aiproxy_core::usage::Tokens;

use super::fixtures::ALL;
use super::tapped;
use crate::report::Usage;

fn of(body: impl AsRef<[u8]>) -> Usage {
    let fixture = ALL.iter().find(|f| f.name == "openai chat").expect("a fixture");
    let whole = tapped(fixture, body.as_ref(), usize::MAX, true);
    assert_eq!(tapped(fixture, body.as_ref(), 1, true), whole);
    whole
}

#[test]
fn numbers_that_are_no_counts_are_not_counted() {
    for number in [
        "-1",
        "-0.5",
        "1e400",
        "18446744073709551616",
        "99999999999999999999999999999999999999999999",
        "1e13",
        "null",
        "true",
        "\"12\"",
        "NaN",
        "Infinity",
        "1.2.3",
        "0x10",
        "[5]",
        "{\"a\":5}",
    ] {
        let usage = of(format!(r#"{{"usage":{{"prompt_tokens":{number}}}}}"#));
        assert_eq!(usage.tokens, Tokens::default(), "{number}");
        assert!(!usage.reported, "{number}");
    }
    let long = "1".repeat(100_000);
    assert!(!of(format!(r#"{{"usage":{{"prompt_tokens":{long}}}}}"#)).reported);
    for (number, tokens) in [("12.0", 12), ("1.2e1", 12), ("12.4", 12), ("0", 0)] {
        let usage = of(format!(r#"{{"usage":{{"prompt_tokens":{number}}}}}"#));
        assert_eq!((usage.tokens.input, usage.reported), (tokens, true), "{number}");
    }
}

#[test]
fn the_last_of_two_reports_counts() {
    let usage = of(
        r#"{"usage":{"prompt_tokens":1,"completion_tokens":2},"usage":{"prompt_tokens":3,"prompt_tokens":4}}"#,
    );
    assert_eq!((usage.tokens.input, usage.tokens.output), (4, 2));
}

#[test]
fn usage_counts_only_where_it_belongs() {
    for body in [
        r#"{"a":{"usage":{"prompt_tokens":7}}}"#,
        r#"{"usage":[{"prompt_tokens":7}]}"#,
        r#"{"choices":[{"message":{"usage":{"prompt_tokens":7}}}]}"#,
        r#"[{"usage":{"prompt_tokens":7}}]"#,
        r#"{"usage":"{\"prompt_tokens\":7}"}"#,
        r#"{"Usage":{"prompt_tokens":7}}"#,
    ] {
        assert!(!of(body).reported, "{body}");
    }
}

#[test]
fn depth_costs_nothing() {
    for open in ["[", "{\"a\":", "[{\"usage\":", "{\"usage\":["] {
        let mut body = open.repeat(200_000);
        assert!(!of(&body).reported);
        body.push_str("}]}]}}]]");
        of(&body);
    }
    // What comes behind the depth is still seen.
    let body = format!(r#"{{"a":{}1{},"usage":{{"prompt_tokens":7}}}}"#, "[".repeat(5000), "]".repeat(5000));
    assert_eq!(of(body).tokens.input, 7);
}

#[test]
fn malformed_text_is_survived() {
    for body in [
        &b"\xff\xfe\x00"[..],
        b"{\"usage\":{\"prompt_tokens\":7}}}}}}]]]",
        b"]]]}}}{\"usage\":{\"prompt_tokens\":7}}",
        b"{\"model\":\"\xff\xfe\",\"usage\":{\"prompt_tokens\":7}}",
        b"{\"model\":\"\\ud800\\u12\\uzzzz\\\",\"usage\":{\"prompt_tokens\":7}}",
        b"{\"choices\":[{\"text\":\"\\u12\"}]}",
        b"{\"\\u\":1,\"\\",
        b"{,,:::\"\"\"\"",
        b"{\"usage\"{\"prompt_tokens\"7}}",
    ] {
        of(body);
    }
    assert_eq!(of(b"{\"model\":\"\xff\"}").model.as_deref(), Some("\u{fffd}"));
    assert_eq!(of(br#"{"model":"\u901a\u4e49 \ud83d\ude00"}"#).model.as_deref(), Some("通义 😀"));
    assert_eq!(of(format!(r#"{{"model":"{}"}}"#, "x".repeat(1000))).model, None);
    assert_eq!(of(r#"{"model":"a\nb"}"#).model, None);
}

#[test]
fn a_long_answer_is_read_in_constant_memory() {
    let fixture = ALL.iter().find(|f| f.name == "openai chat").expect("a fixture");
    let mut tap = fixture.tap();
    tap.feed(br#"{"data":[{"b64_json":""#);
    let block = [b'A'; 64 << 10];
    // The tap keeps no bytes of it: this only has to end.
    (0..512).for_each(|_| tap.feed(&block));
    tap.feed(br#""}],"usage":{"prompt_tokens":7}}"#);
    assert_eq!(tap.finish(true).tokens.input, 7);
    assert!(size_of::<crate::Tap>() < 1024, "{}", size_of::<crate::Tap>());
}
