use super::*;
use serde_json::json;

const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=\"x y\"");

/// A form with the file before or after its purpose.
fn form(filename: &str, content: &[u8], file_first: bool) -> Bytes {
    let file = [
        format!("--x y\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{filename}\"\r\n\r\n")
            .as_bytes(),
        content,
        b"\r\n",
    ]
    .concat();
    let purpose = b"--x y\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n".to_vec();
    let parts = if file_first { [file, purpose] } else { [purpose, file] };
    [b"preamble\r\n".to_vec(), parts.concat(), b"--x y--\r\nepilogue".to_vec()].concat().into()
}

async fn upload(sandbox: &Sandbox, filename: &str, content: &[u8]) -> Value {
    let body = form(filename, content, true);
    let reply = call(sandbox, "POST", "/v1/files", &[FORM], body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// Bytes full of near-delimiters.
fn tricky(length: usize) -> Vec<u8> {
    b"\r\n--x \r\n--\r\r\n-x y--x y".iter().copied().cycle().take(length).collect()
}

#[tokio::test]
async fn files_go_in_and_come_out() {
    let sandbox = sandbox().await;
    for (length, first) in [(0, true), (1, false), (700_001, true), (300_000, false)] {
        let content = tricky(length);
        let reply = call(&sandbox, "POST", "/v1/files", &[FORM], form("报告.txt", &content, first)).await;
        let file = reply.json();
        assert_eq!((&file["filename"], &file["bytes"]), (&json!("报告.txt"), &json!(length)));
        let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
        assert_eq!(call(&sandbox, "GET", &path, &[], "").await.json(), file);
        let back = call(&sandbox, "GET", &format!("{path}/content"), &[], "").await;
        assert_eq!(back.headers["content-length"], length.to_string());
        assert!(back.body == content);
    }
}

#[tokio::test]
async fn a_large_upload_streams() {
    let sandbox = sandbox().await;
    let content = vec![b'-'; 64 << 20];
    let file = upload(&sandbox, "big", &content).await;
    assert_eq!(file["bytes"], 64 << 20);
    assert!(sandbox.requests()[0].request_bytes > 64 << 20);
}

#[tokio::test]
async fn ranges_and_etags() {
    let sandbox = sandbox().await;
    let content = tricky(600_000);
    let file = upload(&sandbox, "r", &content).await;
    let path = format!("/v1/files/{}/content", file["id"].as_str().unwrap());
    let get = async |headers: &[(&str, &str)]| call(&sandbox, "GET", &path, headers, "").await;

    let whole = get(&[]).await;
    let etag = whole.headers["etag"].to_str().unwrap().to_owned();
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=262143-262145", 262_143, 262_146),
        ("bytes=599999-", 599_999, 600_000),
        ("bytes=-5", 599_995, 600_000),
        ("bytes=599998-999999999", 599_998, 600_000),
    ] {
        let part = get(&[("range", range), ("if-range", &etag)]).await;
        assert_eq!(part.status, 206);
        let line = format!("bytes {from}-{}/600000", to - 1);
        assert_eq!(part.headers["content-range"], line);
        assert!(part.body == content[from..to]);
    }
    let beyond = get(&[("range", "bytes=600000-")]).await;
    assert_eq!(
        (beyond.status.as_u16(), &beyond.headers["content-range"]),
        (416, &"bytes */600000".parse().unwrap())
    );
    assert_eq!(get(&[("range", "bytes=0-1,3-4")]).await.status, 200);
    assert_eq!(get(&[("range", "bytes=0-1"), ("if-range", "\"old\"")]).await.status, 200);
    assert_eq!(get(&[("if-none-match", &etag)]).await.status, 304);
}

#[tokio::test]
async fn lists_page_and_deletes_delete() {
    let sandbox = sandbox().await;
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        ids.push(upload(&sandbox, name, b"x").await["id"].clone());
    }
    let list = async |query: &str| call(&sandbox, "GET", &format!("/v1/files?{query}"), &[], "").await.json();
    let page = list("limit=2&order=asc&purpose=batch").await;
    assert_eq!((&page["first_id"], &page["last_id"], &page["has_more"]), (&ids[0], &ids[1], &json!(true)));
    let page = list(&format!("order=asc&after={}", ids[1].as_str().unwrap())).await;
    assert_eq!((page["data"].as_array().unwrap().len(), &page["has_more"]), (1, &json!(false)));
    assert_eq!(list("purpose=other").await["data"], json!([]));

    let path = format!("/v1/files/{}", ids[0].as_str().unwrap());
    assert_eq!(call(&sandbox, "DELETE", &path, &[], "").await.json()["deleted"], true);
    for path in [path.clone(), format!("{path}/content")] {
        assert_eq!(call(&sandbox, "GET", &path, &[], "").await.status, 404);
    }
}

#[tokio::test]
async fn storage_is_bounded_and_given_back() {
    let options =
        Options { api_key: "sk-test-0123456789".to_owned(), max_file_bytes: 1 << 20, ..Options::default() };
    let sandbox = Sandbox::start(options).await.unwrap();
    let content = vec![1; 700_000];
    for _ in 0..3 {
        let id = upload(&sandbox, "a", &content).await["id"].as_str().unwrap().to_owned();
        let full = call(&sandbox, "POST", "/v1/files", &[FORM], form("b", &content, true)).await;
        assert_eq!(full.status, 413);
        call(&sandbox, "DELETE", &format!("/v1/files/{id}"), &[], "").await;
    }
}

#[tokio::test]
async fn broken_forms_are_refused() {
    let sandbox = sandbox().await;
    let whole = form("a", b"content", true);
    let cases = [
        (whole.slice(..whole.len() / 2), FORM),
        (whole.clone(), ("content-type", "multipart/form-data")),
        (whole.clone(), ("content-type", "multipart/form-data; boundary=other")),
        (Bytes::from_static(b"--x y\r\n\r\n\r\n\r\n--x y--"), FORM),
        (Bytes::from_static(b"--x y--"), FORM),
    ];
    for (body, header) in cases {
        let reply = call(&sandbox, "POST", "/v1/files", &[header], body).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["error"]["type"]),
            (400, &json!("invalid_request_error"))
        );
    }
}
