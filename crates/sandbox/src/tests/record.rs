use super::*;
use crate::Outcome;
use serde_json::json;

const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[tokio::test]
async fn requests_are_recorded_without_keys() {
    let sandbox = sandbox().await;
    let headers = [("x-goog-api-key", "someone else's"), ("x-tag", "a"), ("x-tag", "b")];
    call(&sandbox, "GET", "/v1/models?key=abc&q=1", &headers, "").await;
    call(&sandbox, "POST", "/v1/embeddings", &[], "abc").await;

    let list = keyless(&sandbox, "GET", "/sandbox/requests", &[], "").await.json();
    assert_eq!(list.as_array().unwrap().len(), 2);
    let first = &list[0];
    assert_eq!(first["n"], 1);
    assert_eq!(first["path"], "/v1/models?key=<other>&q=1");
    assert_eq!(first["headers"]["authorization"], "<key>");
    assert_eq!(first["headers"]["x-goog-api-key"], "<other>");
    assert_eq!(first["headers"]["x-tag"], "a, b");
    assert_eq!((&first["authorized"], &first["status"]), (&json!(true), &json!(200)));
    assert_eq!((&first["outcome"], &first["request_sha256"]), (&json!("complete"), &json!(EMPTY_SHA256)));
    let second = &list[1];
    assert_eq!((&second["status"], &second["request_bytes"]), (&json!(400), &json!(3)));
    assert_eq!(second["request_sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert!(!list.to_string().contains("0123456789"));

    assert_eq!(keyless(&sandbox, "DELETE", "/sandbox/requests", &[], "").await.status, 204);
    assert!(sandbox.requests().is_empty());
    let counters = keyless(&sandbox, "GET", "/sandbox/counters", &[], "").await.json();
    assert_eq!((&counters["requests"], &counters["by_endpoint"]["embeddings"]), (&json!(2), &json!(1)));
    assert_eq!(keyless(&sandbox, "POST", "/sandbox/counters", &[], "").await.status, 405);
    assert_eq!(keyless(&sandbox, "GET", "/sandbox/x", &[], "").await.status, 404);
}

#[tokio::test]
async fn an_answer_without_a_body_is_complete() {
    let sandbox = sandbox().await;
    for (method, scenario, status) in [("HEAD", "", 405), ("GET", "status=204;trailers", 204)] {
        let headers = [("x-sandbox", scenario)];
        let reply = call(&sandbox, method, "/v1/models", &headers, "").await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (status, 0));
        let seen = seen_when(&sandbox, |seen| seen.outcome != Outcome::Open).await;
        assert_eq!(seen.outcome, Outcome::Complete);
    }
}

#[tokio::test]
async fn the_log_is_bounded() {
    let sandbox = sandbox().await;
    let request = "GET /v1/models/x HTTP/1.1\r\nhost: s\r\n\r\n".repeat(1009);
    let last = "GET /v1/models/y HTTP/1.1\r\nhost: s\r\nconnection: close\r\n\r\n";
    let (_, end) = raw(&sandbox, &(request + last)).await;
    end.unwrap();
    let seen = sandbox.requests();
    assert_eq!((seen.len(), seen[0].n, seen[999].n), (1000, 11, 1010));
}

#[tokio::test]
async fn a_caller_who_leaves_is_noticed() {
    let sandbox = sandbox().await;
    // In a stream, while it waits; in a plain answer, before its head; in the request's body.
    let upload = "POST /v1/files HTTP/1.1\r\nhost: s\r\nauthorization: Bearer sk-test-0123456789\r\n\
        content-type: multipart/form-data; boundary=b\r\ncontent-length: 1000\r\n\r\n--b\r\n";
    for (request, status) in [
        (chat_bytes("hold=never", true), Some(200)),
        (chat_bytes("hold=never", false), None),
        (upload.to_owned(), None),
    ] {
        let mut stream = TcpStream::connect(sandbox.addr()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let n = sandbox.counters().requests;
        let open = seen_when(&sandbox, |seen| seen.n > n && seen.request_bytes > 0).await;
        assert_eq!(open.outcome, Outcome::Open);
        if status.is_some() {
            seen_when(&sandbox, |seen| seen.response_bytes > 0).await;
        }
        drop(stream);
        let seen = seen_when(&sandbox, |seen| seen.outcome != Outcome::Open).await;
        assert_eq!(seen.outcome, Outcome::Cut);
        if status.is_some() {
            assert_eq!(seen.status, status);
        }
        assert_eq!(seen.request_sha256.is_none(), request == upload);
    }
}

#[tokio::test]
async fn request_trailers_are_kept() {
    let sandbox = sandbox().await;
    let request = "POST /v1/embeddings HTTP/1.1\r\nhost: s\r\nauthorization: Bearer sk-test-0123456789\
        \r\nconnection: close\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\n{}\r\n0\r\nx-sum: 7\r\n\r\n";
    let (answer, _) = raw(&sandbox, request).await;
    assert!(answer.starts_with("HTTP/1.1 400"));
    let seen = sandbox.requests().pop().unwrap();
    assert_eq!((seen.request_trailers["x-sum"].as_str(), seen.request_bytes), ("7", 2));
    assert!(seen.request_sha256.is_some());
}

#[tokio::test]
async fn a_refused_expectation_asks_for_no_body() {
    let sandbox = sandbox().await;
    let request =
        "POST /v1/files HTTP/1.1\r\nhost: s\r\nexpect: 100-continue\r\ncontent-length: 9999\r\n\r\n";
    let (answer, _) = raw(&sandbox, request).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let seen = seen_when(&sandbox, |seen| seen.outcome != Outcome::Open).await;
    assert_eq!((seen.outcome, seen.request_sha256), (Outcome::Complete, None));
}

#[tokio::test]
async fn stopping_frees_the_port() {
    let sandbox = sandbox().await;
    let addr = sandbox.addr();
    assert_eq!(sandbox.base_url(), format!("http://{addr}"));
    let mut idle = TcpStream::connect(addr).await.unwrap();
    sandbox.shutdown().await;
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert!(TcpStream::connect(addr).await.is_err());
    let again = Options { bind: addr, ..Options::default() };
    drop(Sandbox::start(again).await.unwrap());
}
