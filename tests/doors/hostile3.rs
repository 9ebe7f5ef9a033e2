//! Hostile HTTP/3: the end or the reset that `docs/status-codes.md` promises, nothing malformed at the
//! platform, bounded memory, and everybody else still served.

mod datagrams;
mod floods;
mod frames;
mod heads;

use aiproxy_testkit::quic::{self, Caller, Outcome, Raw};
use aiproxy_testkit::{App, Authority, CHANNEL_KEY, RawUpstream};
use serde_json::Value;

use super::{bearer, secure};

/// The relay in front of a platform.
struct Scene {
    app: App,
    upstream: RawUpstream,
    authority: Authority,
    caller: Caller,
}

impl Scene {
    /// In front of one that keeps what it has seen.
    async fn start() -> Self {
        Self::with(RawUpstream::recording().await, |_| {}).await
    }

    async fn with(upstream: RawUpstream, change: impl FnOnce(&mut Value)) -> Self {
        let authority = Authority::default();
        let app = secure(&authority, &["relay.test"])
            .config(|c| c["system"]["log_level"] = "info".into())
            .config(change)
            .upstream(&upstream)
            .start()
            .await;
        let caller = Caller::new(&authority);
        Self { app, upstream, authority, caller }
    }

    async fn connect(&self) -> Raw {
        self.caller.connect(self.app.quic_addr()).await
    }

    /// A caller that behaves is served, on a connection of its own.
    async fn others_are_served(&self) {
        served(&self.connect().await).await;
        assert_eq!(self.app.get("/v1/fine").send().await.status, 200);
    }

    /// The end, of connections that are open still before that of the relay.
    async fn finish(self) {
        self.caller.close();
        self.app.finish().await;
    }

    /// Requests other than those of callers that behave, as the platform read them whole.
    fn hostile(&self) -> usize {
        self.upstream.received().iter().filter(|seen| seen.target() != "/v1/fine").count()
    }
}

/// A request in the words of HTTP/3.
fn fields<'a>(method: &'a str, path: &'a str, bearer: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        (":method", method),
        (":scheme", "https"),
        (":authority", "relay.test"),
        (":path", path),
        ("authorization", bearer),
    ]
}

/// The beginning of a request with a body.
fn post(more: &[(&str, &str)]) -> Vec<u8> {
    let bearer = bearer();
    let mut request = fields("POST", "/v1/hostile", &bearer);
    request.extend(more);
    quic::headers(&request)
}

fn data(bytes: &[u8]) -> Vec<u8> {
    quic::frame(quic::kind::DATA, bytes)
}

/// The connection serves a good request.
async fn served(raw: &Raw) {
    let outcome = raw.ask(quic::headers(&fields("GET", "/v1/fine", &bearer()))).await;
    assert!(matches!(outcome, Outcome::Answer(200, _)), "{outcome:?}");
}

/// What becomes of it; nobody's key is in an answer.
async fn fate(raw: &Raw, bytes: impl AsRef<[u8]>) -> Outcome {
    let outcome = raw.ask(bytes).await;
    if let Outcome::Answer(_, body) = &outcome {
        let text = String::from_utf8_lossy(body);
        assert!(!text.contains(CHANNEL_KEY) && !text.contains(&bearer()), "{text}");
    }
    outcome
}
