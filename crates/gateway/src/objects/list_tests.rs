use aiproxy_platform::objects::{List, locate};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn kind(path: &str) -> &'static Kind {
    locate(path, |_| false).unwrap().0
}

fn filtered(path: &str, text: &str) -> Option<(String, Option<(&'static str, String)>)> {
    let out = filter(text.as_bytes(), kind(path), |id| id.contains("mine"))?;
    Some((String::from_utf8(out.text).unwrap(), out.more))
}

#[test]
fn own_elements_stay_and_the_rest_is_untouched() {
    let none = None;
    for (path, before, after, more) in [
        (
            "/v1/files",
            r#"{ "object":"list", "data":[{"id":"file-a"},  {"id":"mine-1","n":1.0e2} ,{"id":"mine-2"},{"id":"b"}], "first_id":"file-a","last_id":"b","has_more":true,"x":[1,2] }"#,
            r#"{ "object":"list", "data":[{"id":"mine-1","n":1.0e2},{"id":"mine-2"}], "first_id":"mine-1","last_id":"mine-2","has_more":true,"x":[1,2] }"#,
            none.clone(),
        ),
        // Nothing is rewritten where nothing is taken out.
        (
            "/v1/files",
            r#"{"data" : [ {"id":"mine-1"} ], "last_id":"mine-1", "n": 12345678901234567890}"#,
            r#"{"data" : [ {"id":"mine-1"} ], "last_id":"mine-1", "n": 12345678901234567890}"#,
            none.clone(),
        ),
        (
            "/v1/batches",
            r#"{"data":[{"id":"a"},{"id":"b\u0031"}],"first_id":"a","last_id":"b1","has_more":true}"#,
            r#"{"data":[],"first_id":null,"last_id":null,"has_more":true}"#,
            Some(("after", "b1".to_owned())),
        ),
        (
            "/v1/batches",
            r#"{"data":[{"id":"a"}],"has_more":false}"#,
            r#"{"data":[],"has_more":false}"#,
            none.clone(),
        ),
        ("/v1/batches", r#"{"data":[]}"#, r#"{"data":[]}"#, none.clone()),
        // Elements without an id of their own are nobody's.
        ("/v1/files", r#"{"data":[7,null,{"x":"mine"},["mine"],{"id":7}]}"#, r#"{"data":[]}"#, none.clone()),
        ("/v1/files", r#"[{"id":"a"},{"id":"mine"}]"#, r#"[{"id":"mine"}]"#, none.clone()),
        ("/v1/files", r#"{"object":"list","data":null}"#, r#"{"object":"list","data":null}"#, none.clone()),
        (
            "/v1/skills",
            r#"{"data":[{"id":"xlsx","source":"anthropic"},{"id":"skill_1","source":"custom"}],"next_page":"p2"}"#,
            r#"{"data":[{"id":"xlsx","source":"anthropic"}],"next_page":"p2"}"#,
            none.clone(),
        ),
        (
            "/v1/skills",
            r#"{"data":[{"id":"skill_1"}],"has_more":true,"next_page":"p2"}"#,
            r#"{"data":[],"has_more":true,"next_page":"p2"}"#,
            Some(("page", "p2".to_owned())),
        ),
        (
            "/api/v1/tasks",
            r#"{"request_id":"r","total":3,"data":[{"task_id":"a"},{"task_id":"mine"}],"page_no":1}"#,
            r#"{"request_id":"r","total":3,"data":[{"task_id":"mine"}],"page_no":1}"#,
            none.clone(),
        ),
        (
            "/api/v1/files",
            r#"{"data":{"total":2,"files":[{"file_id":"a"},{"file_id":"mine"}]},"request_id":"r"}"#,
            r#"{"data":{"total":2,"files":[{"file_id":"mine"}]},"request_id":"r"}"#,
            none.clone(),
        ),
        (
            "/api/v1/fine-tunes",
            r#"{"output":{"jobs":[{"job_id":"a"}],"page_no":1}}"#,
            r#"{"output":{"jobs":[],"page_no":1}}"#,
            none.clone(),
        ),
        ("/v1beta/files", "{}", "{}", none.clone()),
        (
            "/v1beta/files",
            r#"{"files":[{"name":"files/a"},{"name":"files/mine"}],"nextPageToken":"t"}"#,
            r#"{"files":[{"name":"files/mine"}],"nextPageToken":"t"}"#,
            none.clone(),
        ),
        (
            "/v1beta/files",
            r#"{"files":[{"name":"files/a"}],"nextPageToken":"t"}"#,
            r#"{"files":[],"nextPageToken":"t"}"#,
            Some(("pageToken", "t".to_owned())),
        ),
    ] {
        assert_eq!(filtered(path, before), Some((after.to_owned(), more)), "{path} {before}");
    }
}

#[test]
fn what_is_no_list_of_the_expected_shape_is_refused() {
    for text in [
        "",
        "not json",
        r#"{"data":[{"id":"mine"}]"#,
        r#"{"data":[{"id":"mine"}]} x"#,
        r#"{"data":[{"id":"mine"}],"data":[{"id":"b"}]}"#,
        r#"{"data":[{"id":"mine"}],"d\u0061ta":[{"id":"b"}]}"#,
        r#"{"items":[{"id":"b"}]}"#,
        r#"{"data":[],"items":[{"id":"b"}]}"#,
        r#"{"result":{"data":[{"id":"b"}]}}"#,
        r#"{"data":{"items":[{"id":"b"}]}}"#,
        "\u{feff}{}",
    ] {
        assert_eq!(filtered("/v1/files", text), None, "{text}");
    }
    assert_eq!(filter(b"{\"data\":[],\"x\":\"\xff\"}", kind("/v1/files"), |_| true), None);
    assert_eq!(filtered("/api/v1/files", r#"{"data":{"files":[],"other":[{"file_id":"b"}]}}"#), None);
    let deep = format!("{{\"data\":[{}]}}", "[".repeat(100_000));
    assert_eq!(filtered("/v1/files", &deep), None);
}

#[test]
fn own_elements_name_what_belongs_to_their_owner() {
    let text = r#"{"data":[
        {"id":"a","output_file_id":"file-a"},
        {"id":"mine-1","output_file_id":"file-1","error_file_id":null},
        {"id":"mine-2","error_file_id":"file-2"}]}"#;
    let out = filter(text.as_bytes(), kind("/v1/batches"), |id| id.starts_with("mine")).unwrap();
    let named: Vec<_> = out
        .implied
        .iter()
        .map(|(at, text, id)| (kind("/v1/batches").implies[*at].0, text.as_str(), id.as_str()))
        .collect();
    assert_eq!(named, [("file", "file-1", "mine-1"), ("file", "file-2", "mine-2")]);
}

/// Every list of the table, with one element of the caller's and one of somebody else's.
#[test]
fn every_list_of_the_table_is_filtered() {
    let build = |list: &List, items: Value| {
        let mut value = items;
        for step in list.items[0].rsplit('/').filter(|step| !step.is_empty()) {
            value = json!({ step: value });
        }
        value
    };
    let element = |pointer: &str, id: &str| {
        let mut value = json!(id);
        for step in pointer.rsplit('/').filter(|step| !step.is_empty()) {
            value = json!({ step: value });
        }
        value
    };
    for group in aiproxy_platform::objects::GROUPS {
        for kind in group.kinds {
            let prefix = kind.resource.unwrap_or_default();
            let id = |name: &str| element(kind.list.id[0], &format!("{prefix}{name}"));
            let text = build(&kind.list, json!([id("theirs"), id("mine")])).to_string();
            let out = filter(text.as_bytes(), kind, |id| id.ends_with("mine")).unwrap();
            assert_eq!(
                serde_json::from_slice::<Value>(&out.text).unwrap(),
                build(&kind.list, json!([id("mine")])),
                "{}",
                kind.name
            );
        }
    }
}

proptest! {
    #[test]
    fn nothing_of_others_passes_and_nothing_of_ones_own_is_lost(
        ids in proptest::collection::vec("(mine|other)-[a-z\"\\\\✓]{0,4}", 0..12),
        extra in "[a-z {}\\[\\]\",:]{0,20}",
        pretty in any::<bool>(),
    ) {
        let data: Vec<Value> = ids.iter().map(|id| json!({ "z": extra, "id": id, "a": [extra] })).collect();
        let value = json!({ "data": data, "extra": extra, "first_id": ids.first(), "has_more": true, "last_id": ids.last() });
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let out = filter(text.as_bytes(), kind("/v1/files"), |id| id.starts_with("mine")).unwrap();
        let back: Value = serde_json::from_slice(&out.text).unwrap();
        // Ids with white space or control characters are no ids; there are none here.
        let own: Vec<&String> = ids.iter().filter(|id| id.starts_with("mine")).collect();
        let left: Vec<&str> = back["data"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
        prop_assert_eq!(&left, &own);
        prop_assert_eq!(back["first_id"].as_str(), own.first().map(|id| id.as_str()));
        prop_assert_eq!(back["last_id"].as_str(), own.last().map(|id| id.as_str()));
        prop_assert_eq!(&back["extra"], &value["extra"]);
        if own.len() == ids.len() {
            prop_assert_eq!(out.text, text.into_bytes());
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in r#"[{}\[\]",:a-z0-9 ]{0,60}"#) {
        let _ = filter(&bytes, kind("/v1/files"), |_| false);
        if let Some(out) = filter(text.as_bytes(), kind("/v1/files"), |_| false) {
            prop_assert!(serde_json::from_slice::<Value>(&out.text).is_ok());
        }
    }
}
