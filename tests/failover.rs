//! Another channel is tried where that does no harm, and channels that fail are left alone.

mod attempts;
mod breaker;
mod health;
mod load;
mod models;
mod replay;

use aiproxy_testkit::{App, CHANNEL_KEY, RawUpstream};
use serde_json::{Value, json};

use crate::relay;

/// The API key of the channel `b`.
const SECOND_KEY: &str = "sk-second/+=7Pq1Xs9Wd3Ef5Rg2Th6Yj";

/// Channels `a` and `b`, in this order, each in front of a platform of its own.
async fn pair(a: &RawUpstream, b: &RawUpstream, change: impl FnOnce(&mut Value)) -> App {
    relay().upstream(a).also("b", b.addr()).config(two_channels).config(change).start().await
}

fn two_channels(c: &mut Value) {
    c["channels"] = json!({
        "a": {"platform": "custom", "api_key": CHANNEL_KEY, "ownership": "off"},
        "b": {"platform": "custom", "api_key": SECOND_KEY, "ownership": "off", "base_url": "@b"},
    });
    c["users"]["user1"]["channels"] = json!(["a", "b"]);
}

/// A whole answer; `headers` are lines.
fn answer(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{headers}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A platform that answers every request so.
async fn platform(status: &str, headers: &str, body: &str) -> RawUpstream {
    RawUpstream::answering(answer(status, headers, body)).await
}

/// A platform that answers as `b` does.
async fn well() -> RawUpstream {
    platform("200 OK", "", "{\"from\":\"b\"}").await
}

/// The access log's line about this answer.
async fn line_of(app: &App, answer: &aiproxy_testkit::Answer) -> Value {
    let id = answer.header("x-aiproxy-request-id").expect("an id").to_owned();
    app.logged("the line", |line| line["request_id"] == id.as_str()).await
}
