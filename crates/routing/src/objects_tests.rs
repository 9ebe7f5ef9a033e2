use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use aiproxy_config::model::Snapshot;
use aiproxy_config::{Source, load_str};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::{Finding, JsonScan, MultipartScan, Scan};

const CONFIG: &str = "
users:
  ann: {name: Ann, proxy_key: pk_ann_0123456789abcdef, channels: [one, two, open, ali, google], groups: [team]}
  bob: {name: Bob, proxy_key: pk_bob_0123456789abcdef, channels: [one, two, open, mates], groups: [team]}
  eve: {name: Eve, proxy_key: pk_eve_0123456789abcdef, channels: [one]}
groups:
  team: {}
channels:
  one: {name: One, api_key: sk_one_0123456789, base_url: 'https://api.openai.com'}
  two: {name: Two, api_key: sk_two_0123456789, base_url: 'https://api.openai.com'}
  open: {name: Open, api_key: sk_open_0123456789, base_url: 'https://api.openai.com', ownership: 'off'}
  mates: {name: Mates, api_key: sk_mates_0123456789, base_url: 'https://api.openai.com', ownership: shared}
  ali: {name: Ali, api_key: sk_ali_0123456789, base_url: 'https://dashscope.aliyuncs.com'}
  google: {name: Google, api_key: sk_google_0123456789, base_url: 'https://generativelanguage.googleapis.com'}
";

fn snapshot(text: &str) -> Snapshot {
    let source = Source { name: "test.yaml".into(), base: "/".into() };
    load_str(text, &source, &|_| None).unwrap_or_else(|problems| panic!("{problems}")).snapshot
}

fn user<'s>(snapshot: &'s Snapshot, id: &str) -> &'s Arc<User> {
    snapshot.users().find(|user| &*user.id == id).unwrap()
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(*name, value.parse().unwrap());
    }
    map
}

fn claim(method: &Method, uri: &str, pairs: &[(&'static str, &str)]) -> Claim {
    let snapshot = snapshot(CONFIG);
    let headers = headers(pairs);
    let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
    let target = Target::parse(path, &headers).unwrap();
    let plan = Plan::for_path(user(&snapshot, "ann"), &target).unwrap();
    Claim::of(method, &target, &plan, &headers, query)
}

/// Ids of a claim; those that must be known end with an exclamation mark.
fn ids(references: &[Reference]) -> Vec<String> {
    references
        .iter()
        .map(|reference| format!("{}{}", reference.id, if reference.must_be_known { "!" } else { "" }))
        .collect()
}

#[test]
fn ids_are_read_from_paths_exactly() {
    for (uri, expected) in [
        ("/v1/files/file-AbC", vec!["file-AbC!"]),
        ("/V1/Files/file-AbC", vec!["file-AbC!"]),
        ("/v1/files/file%2DAbC/content", vec!["file-AbC!", "content"]),
        // Decoded once, as the platform does: nobody owns such an id.
        ("/v1/files/file%252DAbC", vec!["file%2DAbC!"]),
        ("/v1/files/file-AbC;x=1", vec!["file-AbC;x=1!"]),
        ("/@one/v1/files/file-1", vec!["file-1!"]),
        ("/v1/files", vec![]),
        ("/v1/files/", vec![]),
        ("/v1/responses/compact", vec![]),
        ("/v1/vector_stores/vs_1/files/file-2", vec!["vs_1!", "files", "file-2"]),
        ("/v1/realtime/calls/thread_1", vec!["thread_1"]),
        ("/compatible-mode/v1/files/file-fe-1", vec!["file-fe-1!"]),
        ("/api/v1/tasks/86EC-1", vec!["86EC-1!"]),
        ("/v1beta/cachedContents/Abc", vec!["cachedContents/Abc!"]),
        ("/v1beta/batches/b1:cancel", vec!["batches/b1!"]),
        ("/v1beta/models/veo-3/operations/o1", vec!["operations/o1!"]),
        ("/v1/files?after=file-9&limit=2", vec!["file-9"]),
        ("/v1/files?after=anything", vec!["anything"]),
        ("/v1/models?x=file%2D9", vec!["file-9"]),
        ("/v1/models?file_id=abc", vec!["abc"]),
    ] {
        assert_eq!(ids(&claim(&Method::GET, uri, &[]).references), expected, "{uri}");
    }
}

#[test]
fn a_path_counts_as_each_channel_will_see_it() {
    let snapshot = snapshot(
        "
users:
  ann: {name: Ann, proxy_key: pk_ann_0123456789abcdef, channels: [one]}
channels:
  one: {name: One, api_key: sk_one_0123456789, base_url: 'https://x.example', platform: custom,
        path_rewrite: {/mine: /v1/files}}
",
    );
    let headers = HeaderMap::new();
    let target = Target::parse("/mine/file-A/content", &headers).unwrap();
    let plan = Plan::for_path(user(&snapshot, "ann"), &target).unwrap();
    let claim = Claim::of(&Method::DELETE, &target, &plan, &headers, None);
    assert!(ids(&claim.references).contains(&"file-A!".to_owned()), "{claim:?}");
}

#[test]
fn answers_have_their_meaning() {
    let json = [("content-type", "application/json"), ("content-length", "9")];
    let task =
        |method: Method, uri: &str, pairs: &[(&'static str, &str)]| match claim(&method, uri, pairs).task {
            Task::Nothing => "nothing".to_owned(),
            Task::Made(kind, _) => format!("made {}", kind.name),
            Task::Read(kind, id) => format!("read {} {id}", kind.name),
            Task::List(kind, _) => format!("list {}", kind.name),
            Task::Gone(id) => format!("gone {id}"),
        };
    for (method, uri, expected) in [
        (Method::POST, "/v1/files", "made file"),
        (Method::GET, "/v1/files", "list file"),
        (Method::GET, "/v1/files/file-1", "nothing"),
        (Method::GET, "/v1/files/file-1/content", "nothing"),
        (Method::DELETE, "/v1/files/file-1", "gone file-1"),
        (Method::DELETE, "/v1/vector_stores/vs_1/files/file-1", "nothing"),
        (Method::GET, "/v1/batches/batch_1", "read batch batch_1"),
        (Method::POST, "/v1/batches/batch_1/cancel", "read batch batch_1"),
        (Method::POST, "/v1/uploads/upload_1/complete", "read upload upload_1"),
        (Method::POST, "/v1/uploads/upload_1/parts", "read upload upload_1"),
        (Method::GET, "/v1/fine_tuning/jobs/ftjob-1", "read fine_tuning_job ftjob-1"),
        (Method::GET, "/v1/fine_tuning/jobs/ftjob-1/events", "nothing"),
        (Method::POST, "/v1/videos/video_1/remix", "made video"),
        (Method::POST, "/v1/chat/completions", "made chat_completion"),
        (Method::GET, "/v1/chat/completions", "list chat_completion"),
        (Method::HEAD, "/v1/files", "nothing"),
        (Method::GET, "/v1/models", "nothing"),
        (Method::POST, "/v1/embeddings", "nothing"),
        (Method::GET, "/api/v1/tasks/", "list task"),
        (Method::GET, "/v1beta/files", "list file"),
    ] {
        assert_eq!(task(method.clone(), uri, &json), expected, "{method} {uri}");
    }
    let image = "/api/v1/services/aigc/text2image/image-synthesis";
    assert_eq!(task(Method::POST, image, &json), "nothing");
    assert_eq!(task(Method::POST, image, &[("x-dashscope-async", "enable")]), "made task");

    let reads = |uri: &str, stored| claim(&Method::POST, uri, &json).task.given(stored).reads();
    for (uri, stored, expected) in [
        ("/v1/chat/completions", None, false),
        ("/v1/chat/completions", Some(false), false),
        ("/v1/chat/completions", Some(true), true),
        ("/v1/responses", None, true),
        ("/v1/responses", Some(false), false),
        ("/v1/files", Some(false), true),
        ("/v1/embeddings", None, false),
    ] {
        assert_eq!(reads(uri, stored), expected, "{uri} {stored:?}");
    }
}

#[test]
fn bodies_that_cannot_be_searched_are_known_by_their_headers() {
    let at = |method: Method, uri: &str, pairs: &[(&'static str, &str)]| {
        let claim = claim(&method, uri, pairs);
        (claim.body_refers, claim.unreadable.is_some())
    };
    let length = ("content-length", "9");
    for (method, pairs, expected) in [
        (Method::POST, vec![length, ("content-type", "application/json")], (true, false)),
        (Method::POST, vec![length, ("content-type", "application/x-www-form-urlencoded")], (true, true)),
        (Method::POST, vec![length, ("content-type", "Multipart/Mixed; boundary=x")], (true, true)),
        (Method::POST, vec![length, ("content-type", "multipart/form-data; boundary=x")], (true, false)),
        (Method::POST, vec![length, ("content-type", "Text/plain; charset=utf-8")], (true, false)),
        (Method::POST, vec![("transfer-encoding", "chunked")], (true, false)),
        (Method::POST, vec![length], (true, false)),
        (Method::GET, vec![("x-http-method-override", "DELETE")], (true, true)),
        (Method::POST, vec![("content-length", "0")], (true, false)),
        (Method::POST, vec![], (true, false)),
        (Method::POST, vec![length, ("content-type", "application/sdp")], (true, false)),
        (Method::GET, vec![length], (false, false)),
        (Method::DELETE, vec![], (false, false)),
        (Method::DELETE, vec![length, ("content-type", "application/json")], (true, false)),
    ] {
        assert_eq!(at(method.clone(), "/v1/responses", &pairs), expected, "{method} {pairs:?}");
    }
    let twice = [length, ("content-type", "audio/wav"), ("content-type", "application/json")];
    assert_eq!(at(Method::POST, "/v1/responses", &twice), (true, true));
    assert_eq!(at(Method::POST, "/v1/embeddings", &[length]), (false, false));
    // A file's own bytes.
    assert_eq!(at(Method::POST, "/upload/v1beta/files", &[length]), (false, false));
    let snapshot = snapshot(CONFIG);
    let plan = |user_id: &str, path: &str| {
        let headers = HeaderMap::new();
        Plan::for_path(user(&snapshot, user_id), &Target::parse(path, &headers).unwrap()).unwrap()
    };
    let refusal = refuse_unreadable(&plan("ann", "/v1/responses"), "it is compressed").unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::BadRequest);
    assert!(refusal.message().contains("it is compressed"));
    assert_eq!(refuse_unreadable(&plan("ann", "/@open/v1/responses"), "it is compressed"), Ok(()));
}

fn scan_json(text: &str, step: usize) -> Result<Vec<String>, &'static str> {
    let mut scan = Scan::Json(JsonScan::default());
    scan.watch_references();
    text.as_bytes().chunks(step).for_each(|piece| scan.feed(piece));
    scan.take_references().map(|found| ids(&found))
}

#[test]
fn ids_are_found_in_json_wherever_it_is_split() {
    for (text, expected) in [
        (r#"{"previous_response_id":"resp_1"}"#, vec!["resp_1!"]),
        (r#"{"previous_response_id":null}"#, vec![]),
        // Not all platforms' ids begin alike.
        (r#"{"previous_response_id":"f75c28fb-4064"}"#, vec!["f75c28fb-4064!"]),
        (r#"{"previous\u005fresponse_id":"\u0072esp_\u0031"}"#, vec!["resp_1!"]),
        (r#"{"Previous_Response_Id":"x"}"#, vec!["x!"]),
        (r#"{"a":{"previous_response_id":"x"}}"#, vec![]),
        (r#"{"conversation":"conv_1"}"#, vec!["conv_1!"]),
        (r#"{"conversation":{"id":"conv_1","metadata":{"a":"text"}}}"#, vec!["conv_1!"]),
        (r#"{"conversation":{"a":["x"],"id":"abc"}}"#, vec!["abc!"]),
        (r#"{"conversation":"a chat about files"}"#, vec![]),
        (r#"{"model":"m","input":[{"content":[{"file_id":"file-1"}]}]}"#, vec!["file-1"]),
        (r#"{"input":["file-1","x","file_2"]}"#, vec!["file-1", "file_2"]),
        (r#"{"input_file_id":"abc","training_file":"d","n":"e"}"#, vec!["abc", "d"]),
        (r#"{"file_ids":["a1","b2"],"c":"d"}"#, vec!["a1", "b2"]),
        (r#"{"tools":[{"vector_store_ids":["vs_1"]}]}"#, vec!["vs_1"]),
        (r#"{"cachedContent":"cachedContents/x1"}"#, vec!["cachedContents/x1"]),
        (r#"{"cached_content":"other"}"#, vec!["other"]),
        (
            r#"{"fileUri":"https:\/\/generativelanguage.googleapis.com\/v1beta\/files\/ab-1"}"#,
            vec!["files/ab-1"],
        ),
        (
            r#"{"n":"fileSearchStores/s1/documents/d1"}"#,
            vec!["fileSearchStores/s1", "fileSearchStores/s1/documents/d1"],
        ),
        (
            r#"{"messages":[{"role":"system","content":"fileid://file-fe-a,fileid://b, and"}]}"#,
            vec!["b", "file-fe-a"],
        ),
        (r#"{"c":"see f\u0069leid:\/\/file-fe-a\n"}"#, vec!["file-fe-a"]),
        (r#"{"c":"fileid:/fileid://x"}"#, vec!["x"]),
        (r#"{"c":"fileid://"}"#, vec![]),
        // Names are no values, and sentences are no ids.
        (r#"{"file-1":1,"a":{"file-2":"b"}}"#, vec![]),
        (r#"{"a":"my file-1","b":"file-1 is","c":"FILE-1","d":"\nfile-1"}"#, vec![]),
        (r#"{"a":"{\"file_id\":\"file-1\"}"}"#, vec![]),
        (r#"[{"a":"file-1"},"file-2"]"#, vec!["file-1", "file-2"]),
        (r#"{"model":7,"a":"file-1"}"#, vec!["file-1"]),
        (r#"{"model":"a","model":"b","a":"file-1"}"#, vec!["file-1"]),
        (r#"{"model":{"a":"file-1"}}"#, vec!["file-1"]),
        (r#"{"file_id":"file-1","file_id":"file-2"}"#, vec!["file-1", "file-2"]),
        (r#"{"a":"file-1","#, vec!["file-1"]),
        (r#""file-1""#, vec![]),
        ("", vec![]),
    ] {
        for step in 1..=text.len().max(1) {
            assert_eq!(
                scan_json(text, step),
                Ok(expected.iter().map(|id| (*id).to_owned()).collect()),
                "{text} in pieces of {step}"
            );
        }
    }
}

#[test]
fn what_is_no_json_may_hide_ids() {
    for text in [r#"{"a":'file-1'}"#, r#"{"a":1/**/,"b":"file-1"}"#, "\u{feff}{}", r#"{"a":"file-1"}{"b":1}"#]
    {
        for step in 1..=text.len() {
            assert!(scan_json(text, step).is_err(), "{text} in pieces of {step}");
        }
    }
    assert!(Scan::Opaque(Some("it is compressed")).take_references().is_err());
    assert_eq!(Scan::Opaque(None).take_references(), Ok(Vec::new()));
}

#[test]
fn json_of_another_name_is_searched_too() {
    for (text, expected) in [
        (r#" {"a":"file-1"}"#, Ok(vec!["file-1".to_owned()])),
        ("RIFF\u{1}{\"a\":\"file-1\"}", Ok(vec![])),
        ("v=0\r\no=- 1", Ok(vec![])),
        ("a text", Ok(vec![])),
        ("", Ok(vec![])),
        (r#"{"a":'file-1'}"#, Err("the body is malformed")),
        ("\u{feff}{}", Err("the body is malformed")),
    ] {
        for step in 1..=text.len().max(1) {
            let mut scan = Scan::of(&headers(&[("content-type", "audio/wav")]));
            scan.watch_references();
            assert!(scan.wants_more());
            text.as_bytes().chunks(step).for_each(|piece| scan.feed(piece));
            assert_eq!(scan.finding(), Finding::Absent);
            let found = scan.take_references().map(|found| ids(&found));
            assert_eq!(found, expected, "{text} in pieces of {step}");
            assert!(text.is_empty() || !scan.wants_more());
        }
    }
}

#[test]
fn too_many_ids_are_refused_and_repeated_ones_are_one() {
    let body = |count: usize, different: bool| {
        let id = |n: usize| format!("file-{}", if different { n } else { 0 });
        json!({ "file_ids": (0..count).map(id).collect::<Vec<_>>() }).to_string()
    };
    assert_eq!(scan_json(&body(1024, true), 4096).map(|found| found.len()), Ok(1024));
    assert!(scan_json(&body(1025, true), 4096).is_err());
    assert_eq!(scan_json(&body(100_000, false), 4096).map(|found| found.len()), Ok(1));
    // They are counted between two takings.
    let mut scan = Scan::Json(JsonScan::default());
    scan.watch_references();
    for (n, piece) in body(5000, true).as_bytes().chunks(1000).enumerate() {
        scan.feed(piece);
        assert!(scan.take_references().is_ok(), "piece {n}");
    }
}

#[test]
fn a_scanner_goes_on_until_no_more_ids_can_come() {
    let mut scan = Scan::Json(JsonScan::default());
    scan.feed(br#"{"model":"m","#);
    assert!(!scan.wants_more());
    let mut scan = Scan::Json(JsonScan::default());
    scan.watch_references();
    scan.feed(br#"{"model":"m","store":true,"#);
    assert!(scan.wants_more());
    assert_eq!(scan.finding(), Finding::Model("m"));
    scan.feed(br#""a":"file-1"}"#);
    assert!(!scan.wants_more());
    assert_eq!(scan.stored(), Some(true));
}

#[test]
fn whether_an_answer_is_stored_is_read() {
    for (text, expected) in [
        (r#"{"store":true}"#, Some(true)),
        (r#"{"store" : false ,"a":1}"#, Some(false)),
        (r#"{"store":null}"#, None),
        (r#"{"store":"true"}"#, None),
        (r#"{"a":{"store":true}}"#, None),
        (r#"{"store":false,"store":true}"#, Some(true)),
        (r#"{"store":true,"store":false}"#, Some(true)),
        (r#"{"st\u006fre":true}"#, Some(true)),
        (r#"{"a":true,"b":"store"}"#, None),
    ] {
        for step in 1..=text.len() {
            let mut scan = Scan::Json(JsonScan::default());
            scan.watch_references();
            text.as_bytes().chunks(step).for_each(|piece| scan.feed(piece));
            assert_eq!(scan.stored(), expected, "{text} in pieces of {step}");
        }
    }
}

#[test]
fn ids_are_found_in_multipart_wherever_it_is_split() {
    let part = |disposition: &str, content: &str| {
        format!("--XX\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n")
    };
    let text = [
        part("name=\"model\"", "file-no"),
        part("name=\"file_id\"", "abc"),
        part("name=\"file_ids[]\"", "def"),
        part("name=\"video[id]\"", "video_1"),
        part("name=\"other\"", "text"),
        part("name=\"file\"; filename=\"a.txt\"", "file-content\r\n"),
        part("name=\"conversation\"", "conv_1"),
    ]
    .concat()
        + "--XX--\r\n";
    for step in 1..=text.len() {
        let mut scan = Scan::Multipart(MultipartScan::new("XX"));
        scan.watch_references();
        text.as_bytes().chunks(step).for_each(|piece| scan.feed(piece));
        let found = scan.take_references().map(|found| ids(&found));
        let expected = ["abc", "conv_1!", "def", "video_1"].map(str::to_owned).to_vec();
        assert_eq!(found, Ok(expected), "in pieces of {step}");
        assert!(!scan.wants_more());
    }
    let mut scan = Scan::Multipart(MultipartScan::new("XX"));
    scan.watch_references();
    scan.feed(part("name=\"model\"", "a").as_bytes());
    scan.feed(part("name=\"Model\"", "b").as_bytes());
    scan.feed(b"--XX");
    assert!(scan.take_references().is_err(), "what follows is not seen");
}

/// JSON text of a value with letters escaped as the numbers say.
fn escape(value: &Value, numbers: &RefCell<impl Iterator<Item = u8>>, out: &mut String) {
    let string = |text: &str, out: &mut String| {
        out.push('"');
        for c in text.chars() {
            let number = numbers.borrow_mut().next().unwrap_or(1);
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                '/' if number.is_multiple_of(3) => out.push_str("\\/"),
                c if c.is_control() || (number.is_multiple_of(5) && u32::from(c) < 0x80) => {
                    out.push_str(&format!("\\u{:04X}", u32::from(c)));
                }
                c => out.push(c),
            }
        }
        out.push('"');
    };
    match value {
        Value::Object(map) => {
            out.push('{');
            for (at, (name, value)) in map.iter().enumerate() {
                out.push_str(if at > 0 { " , " } else { "" });
                string(name, out);
                out.push_str(" : ");
                escape(value, numbers, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (at, value) in items.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                escape(value, numbers, out);
            }
            out.push(']');
        }
        Value::String(text) => string(text, out),
        other => out.push_str(&other.to_string()),
    }
}

fn strings(value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => map.values().for_each(|value| strings(value, out)),
        Value::Array(items) => items.iter().for_each(|value| strings(value, out)),
        Value::String(text) => {
            out.insert(text.clone());
        }
        _ => {}
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "(file-|resp_|vs_|batch_)[a-zA-Z0-9]{1,8}".prop_map(Value::from),
        "[a-z \"\\\\{}:,/\\[\\]\n✓-]{0,12}".prop_map(Value::from),
    ];
    let name = prop_oneof!["[a-z\"\\\\]{0,6}", Just("file_id".to_owned()), "file-[a-z]{1,3}"];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map(name.clone(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn every_id_that_a_parser_sees_is_found(
        value in any_json(),
        numbers in proptest::collection::vec(any::<u8>(), 0..300),
        step in 1usize..40,
    ) {
        let mut text = String::new();
        escape(&json!({ "input": value }), &RefCell::new(numbers.into_iter()), &mut text);
        let back: Value = serde_json::from_str(&text).unwrap();
        let mut seen = BTreeSet::new();
        strings(&back, &mut seen);
        let found: BTreeSet<String> = scan_json(&text, step).unwrap().into_iter().collect();
        for id in seen.iter().filter(|text| aiproxy_platform::objects::looks_like_id(text)) {
            prop_assert!(found.contains(id), "{id} in {text}");
        }
        for id in &found {
            let mentioned = seen.iter().any(|text| text.contains(id.trim_end_matches('!')));
            prop_assert!(mentioned, "{id} in {text}");
        }
    }

    #[test]
    fn a_watching_scanner_finds_the_same_model(text in r#"[{}\[\]",:a-z \\u0-9]{0,80}"#, step in 1usize..9) {
        let body = format!("{{\"a\":[{text:?}],\"model\":\"m\",\"b\":[{{\"model\":\"x\"}}]}}");
        for text in [&text, &body] {
            let mut plain = Scan::Json(JsonScan::default());
            let mut watching = Scan::Json(JsonScan::default());
            watching.watch_references();
            for piece in text.as_bytes().chunks(step) {
                plain.feed(piece);
                watching.feed(piece);
            }
            // An array is followed by the one and not by the other, and may turn out broken.
            if !text.trim_start().starts_with('[') {
                match plain.finding() {
                    Finding::Unreadable(_) => {
                        prop_assert!(matches!(watching.finding(), Finding::Unreadable(_)));
                    }
                    finding => prop_assert_eq!(watching.finding(), finding),
                }
            }
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), step in 1usize..9) {
        for mut scan in [Scan::Json(JsonScan::default()), Scan::Multipart(MultipartScan::new("X"))] {
            scan.watch_references();
            bytes.chunks(step).for_each(|piece| scan.feed(piece));
            let _ = (scan.take_references(), scan.stored(), scan.wants_more());
        }
    }
}

type Owners = BTreeMap<&'static str, (&'static str, &'static str)>;

fn owners() -> Owners {
    [
        ("ann-1", ("ann", "one")),
        ("ann-2", ("ann", "two")),
        ("bob-1", ("bob", "one")),
        ("bob-open", ("bob", "open")),
        ("bob-mates", ("bob", "mates")),
        ("eve-mates", ("eve", "mates")),
        ("ann-gone", ("ann", "deleted-channel")),
    ]
    .into()
}

fn decided(snapshot: &Snapshot, asking: &str, ids: &[(&str, bool)]) -> Decision {
    let owners = owners();
    let user = user(snapshot, asking);
    let owner = |id: &str| owners.get(id).map(|(owner, channel)| (Arc::from(*owner), Arc::from(*channel)));
    let mode = |id: &str| snapshot.channel(id).map_or(Ownership::Enforce, |channel| channel.ownership);
    let mates = |id: &str| {
        snapshot
            .users()
            .any(|other| &*other.id == id && other.groups.iter().any(|group| user.groups.contains(group)))
    };
    let references: Vec<_> =
        ids.iter().map(|(id, known)| Reference { id: (*id).into(), must_be_known: *known }).collect();
    decide(&references, &Asker { user: asking, owner: &owner, mode: &mode, mates: &mates })
}

#[test]
fn an_object_is_there_for_whoever_made_it() {
    let snapshot = snapshot(CONFIG);
    let go = |channel: Option<&str>, unknown| Decision::Go { channel: channel.map(Arc::from), unknown };
    for (asking, ids, expected) in [
        ("ann", vec![], go(None, false)),
        ("ann", vec![("ann-1", true)], go(Some("one"), false)),
        ("ann", vec![("ann-2", false)], go(Some("two"), false)),
        ("bob", vec![("ann-1", true)], Decision::NotFound),
        ("bob", vec![("ann-1", false)], Decision::NotFound),
        ("ann", vec![("nobody's", true)], go(None, true)),
        ("ann", vec![("any text", false)], go(None, false)),
        ("ann", vec![("ann-1", true), ("any text", false)], go(Some("one"), false)),
        ("ann", vec![("ann-1", true), ("nobody's", true)], Decision::NotFound),
        ("ann", vec![("ann-1", true), ("ann-2", false)], Decision::Conflict),
        // Somebody else's comes before a conflict.
        ("ann", vec![("ann-1", true), ("ann-2", false), ("bob-1", false)], Decision::NotFound),
        ("ann", vec![("ann-1", true), ("ann-2", false), ("nobody's", true)], Decision::NotFound),
        // A channel that keeps nobody apart.
        ("ann", vec![("bob-open", true)], go(Some("open"), false)),
        ("eve", vec![("bob-open", true), ("nobody's", true)], go(Some("open"), true)),
        // A channel that is shared within groups.
        ("ann", vec![("bob-mates", true)], go(Some("mates"), false)),
        ("eve", vec![("bob-mates", true)], Decision::NotFound),
        ("ann", vec![("eve-mates", true)], Decision::NotFound),
        ("eve", vec![("eve-mates", true)], go(Some("mates"), false)),
        ("ann", vec![("ann-gone", true)], go(Some("deleted-channel"), false)),
        ("bob", vec![("ann-gone", true)], Decision::NotFound),
    ] {
        assert_eq!(decided(&snapshot, asking, &ids), expected, "{asking} {ids:?}");
    }
}

#[test]
fn a_plan_is_narrowed_to_where_the_objects_live() {
    let snapshot = snapshot(CONFIG);
    let narrowed = |asking: &str, path: &str, decision: &Decision| {
        let headers = HeaderMap::new();
        let user = user(&snapshot, asking);
        let plan = Plan::for_path(user, &Target::parse(path, &headers).unwrap()).unwrap();
        narrow(plan, decision, user)
            .map(|plan| plan.candidates.iter().map(|c| c.channel.id.to_string()).collect::<Vec<_>>())
            .map_err(|refusal| refusal.kind)
    };
    let go = |channel: Option<&str>, unknown| Decision::Go { channel: channel.map(Arc::from), unknown };
    let path = "/v1/files/x";
    let all = narrowed("ann", path, &go(None, false)).unwrap();
    assert_eq!(all[..2], ["one", "two"]);
    // The channel of the object, although another has priority.
    assert_eq!(narrowed("ann", path, &go(Some("two"), false)), Ok(vec!["two".into()]));
    assert_eq!(narrowed("ann", path, &go(None, true)), Ok(vec!["open".into()]));
    assert_eq!(narrowed("eve", path, &go(None, true)), Err(ErrorKind::ObjectNotFound));
    assert_eq!(narrowed("ann", path, &go(Some("open"), true)), Ok(vec!["open".into()]));
    assert_eq!(narrowed("eve", path, &go(Some("two"), false)), Err(ErrorKind::ObjectNotFound));
    assert_eq!(narrowed("ann", "/@one/v1/files/x", &go(Some("two"), false)), Err(ErrorKind::ObjectNotFound));
    assert_eq!(narrowed("ann", path, &Decision::NotFound), Err(ErrorKind::ObjectNotFound));
    assert_eq!(narrowed("ann", path, &Decision::Conflict), Err(ErrorKind::BadRequest));
    let off = CONFIG.replace("two: {name: Two,", "two: {name: Two, status: disabled,");
    let snapshot = self::snapshot(&off);
    let headers = HeaderMap::new();
    let ann = user(&snapshot, "ann");
    let plan = Plan::for_path(ann, &Target::parse(path, &headers).unwrap()).unwrap();
    let refusal = narrow(plan, &go(Some("two"), false), ann).unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::ChannelUnavailable);
}

proptest! {
    #[test]
    fn nobody_gets_at_what_is_not_there_for_them(
        asking in proptest::sample::select(vec!["ann", "bob", "eve"]),
        picks in proptest::collection::vec((0usize..9, any::<bool>()), 0..6),
    ) {
        let snapshot = snapshot(CONFIG);
        let owners = owners();
        let names: Vec<&str> = owners.keys().copied().chain(["nobody's", "text"]).collect();
        let ids: Vec<(&str, bool)> = picks.iter().map(|(at, known)| (names[*at], *known)).collect();
        let visible = |id: &str| match owners.get(id) {
            Some((owner, channel)) => *owner == asking || *channel == "open" || (*channel == "mates" && *owner == "bob" && asking == "ann"),
            None => true,
        };
        let hidden = ids.iter().any(|(id, _)| !visible(id));
        match decided(&snapshot, asking, &ids) {
            Decision::NotFound => {
                let unknown = ids.iter().any(|(id, known)| *known && !owners.contains_key(id));
                prop_assert!(hidden || unknown);
            }
            Decision::Go { channel, .. } => {
                prop_assert!(!hidden);
                for (id, _) in &ids {
                    if let Some((_, there)) = owners.get(id) {
                        prop_assert_eq!(channel.as_deref(), Some(*there));
                    }
                }
            }
            Decision::Conflict => prop_assert!(!hidden),
        }
    }
}
