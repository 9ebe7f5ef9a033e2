//! Access that is taken away ends what is under way.

mod race;
mod streams;
mod waiting;

use aiproxy_testkit::{Answer, App, RawUpstream};
use serde_json::{Value, json};

use crate::{chat_stream, relay};

/// A second user, whom nothing here concerns.
const OTHER: &str = "pk_other_5Gd8Ws2Kx9Lm3";
/// A key that takes the place of another.
const FRESH: &str = "pk_fresh_8Hn4Vt6Bz1Qc7";

/// Users `user1` and `other`, channels `main` and `spare`, all in front of the sandbox.
fn two_users(c: &mut Value) {
    c["channels"]["spare"] = c["channels"]["main"].clone();
    c["users"]["user1"]["channels"] = json!(["main", "spare"]);
    c["users"]["other"] = json!({"proxy_key": OTHER, "channels": ["spare"]});
}

async fn start() -> App {
    relay().config(two_users).start().await
}

/// A stream whose first piece has come; it waits at the gate.
async fn open_stream(app: &App, key: &str, path: &str, gate: &str) -> Answer {
    let ask = app.post(path, &chat_stream("gpt-4o", "one two three")).key(key);
    let mut stream = ask.sandbox(&format!("hold={gate}")).send().await;
    assert_eq!(stream.status, 200);
    stream.piece().await.unwrap().unwrap();
    stream
}

/// What the next request hears.
async fn refusal(app: &App, key: &str, path: &str) -> (u16, String) {
    let mut answer = app.get(path).key(key).send().await;
    let status = answer.status.as_u16();
    let code = answer.json().await["error"]["code"].as_str().unwrap_or_default().to_owned();
    (status, code)
}

/// A platform that reads requests and never answers; it says when the relay has gone.
async fn silent(gone: &aiproxy_testkit::Gate) -> RawUpstream {
    let gone = gone.clone();
    RawUpstream::start(move |mut conn| {
        let gone = gone.clone();
        async move {
            conn.request().await;
            conn.closed().await;
            gone.open();
        }
    })
    .await
}
