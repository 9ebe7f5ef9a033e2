//! What an offer asks of platforms, and what becomes of a call that one has begun.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aiproxy_config::model::Channel;
use aiproxy_core::ErrorKind;
use aiproxy_registry::live::Registration;
use aiproxy_routing::{Plan, Refusal};
use aiproxy_upstream::{Replay, Slot, Source};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, LOCATION, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Frame;
use tokio::time::timeout;

use super::CallAsk;
use super::session::Hangup;
use crate::attempts::{self, Ask};
use crate::phases::{Core, unless_cut};
use crate::record::Record;

/// The longest body of an answer.
const ANSWER_BYTES: usize = 256 * 1024;
/// How long a platform's answer may take once its head has come.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// What one platform answered.
pub(super) struct Heard {
    pub(super) channel: Arc<Channel>,
    pub(super) slot: Rc<Slot>,
    pub(super) path: String,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Ends what the platform has begun, unless it is kept.
    pub(super) begun: Begun,
}

/// A call that a platform has begun: it is hung up when this drops, unless it is kept.
pub(super) struct Begun {
    slot: Rc<Slot>,
    path: String,
    id: Option<String>,
    kept: bool,
}

impl Begun {
    /// The platform's name of it; the first counts.
    pub(super) fn named(&mut self, id: Option<&str>) {
        if self.id.is_none() {
            self.id = id.filter(|id| is_id(id)).map(str::to_owned);
        }
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// It goes on; how it is hung up then.
    pub(super) fn kept(mut self) -> Option<Hangup> {
        self.kept = true;
        self.hangup()
    }

    fn hangup(&self) -> Option<Hangup> {
        Hangup::new(&self.slot, &self.path, self.id.as_deref())
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        // When the thread ends there is nobody left to send anything.
        if !self.kept
            && tokio::runtime::Handle::try_current().is_ok()
            && let Some(hangup) = self.hangup()
        {
            tokio::task::spawn_local(hangup.send());
        }
    }
}

/// Asks the plan's channels in order.
///
/// # Errors
/// As [`attempts::open`]; and where the answer's body does not come, or is none.
pub(super) async fn platforms(
    core: &Core,
    record: &mut Record,
    live: &Registration,
    plan: Plan,
    (ask, query): (&CallAsk<'_>, Option<&str>),
    (kind, body): (&str, Bytes),
) -> Result<Heard, Refusal> {
    let limits = &ask.system.limits;
    let mut headers = ask.head.headers.clone();
    for name in [CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT, CONTENT_ENCODING] {
        headers.remove(name);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_str(kind).map_err(|_| ErrorKind::Internal)?);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    let replay =
        Replay { bytes: limits.replay_bytes, total: limits.replay_total, budget: Arc::clone(&core.replay) };
    let ahead = VecDeque::from([Frame::data(body)]);
    let source = Source::new(ahead, None, limits.body_bytes, None, ask.key, Some(replay));
    let asking = Ask {
        method: Method::POST,
        headers,
        query,
        key: ask.key,
        readable: true,
        source,
        creates: true,
        epoch: ask.epoch,
    };
    let answered = unless_cut(live, attempts::open(core, record, live, plan, asking)).await;
    let attempts::Answered { channel, slot, path, head, ahead, body, lease, .. } =
        answered.map_err(Refusal::from).flatten()?;
    let id = head.headers.get(LOCATION).and_then(|value| last_segment(value.to_str().ok()?));
    let mut begun =
        Begun { slot: Rc::clone(&slot), path: path.clone(), id: None, kept: !head.status.is_success() };
    begun.named(id.as_deref());
    let most = ANSWER_BYTES.saturating_sub(ahead.as_ref().map_or(0, Bytes::len));
    let reading = timeout(ANSWER_TIME, Limited::new(body, most).collect());
    let rest = unless_cut(live, reading).await?.map_err(|_| ErrorKind::UpstreamTimeout)?;
    let rest = rest.map_err(|_| ErrorKind::UpstreamProtocol)?.to_bytes();
    lease.release();
    let body = match ahead {
        Some(ahead) if rest.is_empty() => ahead,
        Some(ahead) => [ahead, rest].concat().into(),
        None => rest,
    };
    Ok(Heard { channel, slot, path, status: head.status, headers: head.headers, body, begun })
}

/// The last segment of a URL's path.
fn last_segment(url: &str) -> Option<String> {
    let path = url.split(['?', '#']).next()?.trim_end_matches('/');
    let segment = path.rsplit('/').next()?;
    is_id(segment).then(|| segment.to_owned())
}

/// Whether it can stand in a path of ours.
fn is_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=256).contains(&id.len()) && id.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_s_id_is_the_end_of_its_location() {
        for (url, id) in [
            ("/v1/realtime/calls/rtc_1", Some("rtc_1")),
            ("https://a.b/v1/realtime/calls/rtc_1?x=/y#z", Some("rtc_1")),
            ("/v1/realtime/calls/rtc_1/", Some("rtc_1")),
            ("", None),
            ("/", None),
            ("/v1/realtime/calls/..", None),
            ("/v1/realtime/calls/..%2f..%2fadmin", None),
            ("/v1/realtime/calls/a b", None),
        ] {
            assert_eq!(last_segment(url).as_deref(), id, "{url}");
        }
    }
}
