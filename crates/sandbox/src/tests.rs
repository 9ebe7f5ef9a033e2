//! The sandbox over real TCP. This file is the client; the behaviours are in the modules.

mod calls;
mod files;
mod openai;
mod platforms;
mod record;
mod scenarios;
mod sockets;

use crate::{Options, Sandbox, SeenRequest};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn sandbox() -> Sandbox {
    let options = Options { api_key: "sk-test-0123456789".to_owned(), ..Options::default() };
    Sandbox::start(options).await.unwrap()
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    trailers: Option<HeaderMap>,
    body: Bytes,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The JSON of every `data:` line; `[DONE]` comes as a string.
    fn events(&self) -> Vec<Value> {
        self.text()
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(|data| serde_json::from_str(data).unwrap_or_else(|_| data.trim().to_owned().into()))
            .collect()
    }
}

/// One request with the sandbox's key and any further headers.
async fn call(
    sandbox: &Sandbox,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Reply {
    let mut all = vec![("authorization", "bEaReR sk-test-0123456789")];
    all.extend_from_slice(headers);
    keyless(sandbox, method, path, &all, body).await
}

async fn keyless(
    sandbox: &Sandbox,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Reply {
    let stream = TcpStream::connect(sandbox.addr()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", "sandbox");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).unwrap();
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap();
    let reply = Reply {
        status: head.status,
        headers: head.headers,
        trailers: body.trailers().cloned(),
        body: body.to_bytes(),
    };
    drop(sender);
    driver.await.unwrap().unwrap();
    reply
}

async fn post(sandbox: &Sandbox, path: &str, scenario: &str, body: Value) -> Reply {
    let headers = [("x-sandbox", scenario)];
    call(sandbox, "POST", path, &headers, body.to_string()).await
}

/// Sends raw bytes and reads until the connection ends, and how it ended.
async fn raw(sandbox: &Sandbox, request: &str) -> (String, std::io::Result<()>) {
    let mut stream = TcpStream::connect(sandbox.addr()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer).await.map(drop);
    (String::from_utf8_lossy(&answer).into_owned(), end)
}

/// A chat request as it goes over the wire.
fn chat_bytes(scenario: &str, stream: bool) -> String {
    let body = serde_json::json!({
        "model": "sandbox-chat", "stream": stream,
        "messages": [{"role": "user", "content": "one two three"}],
    })
    .to_string();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: s\r\nauthorization: Bearer sk-test-0123456789\
         \r\nx-sandbox: {scenario}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The last record, once `ready` holds of it.
async fn seen_when(sandbox: &Sandbox, ready: impl Fn(&SeenRequest) -> bool) -> SeenRequest {
    for _ in 0..500 {
        if let Some(last) = sandbox.requests().pop()
            && ready(&last)
        {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never seen; have {:?}", sandbox.requests().pop());
}
