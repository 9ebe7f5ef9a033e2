//! Owned objects on their way through: what a request may refer to, and what an answer says
//! about who owns what.
//!
//! Before the platform is asked, [`Owners::narrow`] refuses what is not there for the caller and
//! leads to the channel that has the object. After it has answered, [`Owners::settle`] reads the
//! answer as far as it has to: a create's for the new id, which is on its way to the disk before
//! the caller sees it; a list's for what is the caller's own. Everything else passes unread.

mod events;
mod list;
mod pick;

use std::cell::OnceCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aiproxy_config::model::{Channel, Ownership, Snapshot, User};
use aiproxy_core::ErrorKind;
use aiproxy_platform::objects::{self, Create, Kind};
use aiproxy_platform::placement::query_pairs;
use aiproxy_registry::owned::{Outcome, OwnedObjects, Seen};
use aiproxy_routing::model::Scan;
use aiproxy_routing::objects::{Asker, Claim, Decision, Reference, Task, decide, narrow, refuse_unreadable};
use aiproxy_routing::{Plan, Refusal};
use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, response};
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use crate::phases::unix_now;
use events::Events;

/// How much of a JSON answer is read for ids.
const JSON_BYTES: usize = 1 << 20;
/// How much of an answer in events is read for the first id.
const EVENT_BYTES: usize = 64 * 1024;
/// How long that may take before the answer passes without being known.
const EVENT_TIME: Duration = Duration::from_secs(30);
/// The longest list.
const LIST_BYTES: usize = 8 << 20;
/// How long an answer waits for its objects to be written down.
const SAVE_TIME: Duration = Duration::from_secs(1);

/// Why a body is broken off that refers to somebody else's object: the caller is told what
/// [`ErrorKind::ObjectNotFound`] says.
pub(crate) const HIDDEN: &str = "the body refers to an object that does not exist";

/// Headers that describe a body byte for byte.
const DIGESTS: &[&str] = &["content-md5", "digest", "content-digest", "repr-digest", "last-modified"];

/// Who owns what, as one request sees it.
pub(crate) struct Owners {
    objects: Arc<OwnedObjects>,
    snapshot: Arc<Snapshot>,
    user: Arc<User>,
    /// Users who share a group with this one; made when it is first asked for.
    mates: OnceCell<HashSet<Arc<str>>>,
}

/// What is to be passed on in place of the body's beginning.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Bytes to send before what is left of the body.
    pub(crate) ahead: Option<Bytes>,
    /// A list whose page holds nothing of the caller's, while there are more pages: the query
    /// parameter and value that ask for the next. SDKs take an empty page for the end, so it is
    /// for us to go on.
    pub(crate) more: Option<(&'static str, String)>,
}

impl Owners {
    pub(crate) fn new(objects: &Arc<OwnedObjects>, snapshot: &Arc<Snapshot>, user: &Arc<User>) -> Rc<Self> {
        Rc::new(Self {
            objects: Arc::clone(objects),
            snapshot: Arc::clone(snapshot),
            user: Arc::clone(user),
            mates: OnceCell::new(),
        })
    }

    /// Narrows the plan to where the request's objects live. `body` is what the scanner has found
    /// in the part of the body that was read ahead.
    ///
    /// # Errors
    /// [`ErrorKind::ObjectNotFound`], [`ErrorKind::BadRequest`], [`ErrorKind::ChannelUnavailable`].
    pub(crate) fn narrow(
        &self,
        plan: Plan,
        claim: &Claim,
        body: Result<Vec<Reference>, &'static str>,
    ) -> Result<Plan, Refusal> {
        let (in_body, unreadable) = match body {
            Ok(found) => (found, claim.unreadable),
            Err(reason) => (Vec::new(), Some(claim.unreadable.unwrap_or(reason))),
        };
        let decision = self.decide(claim.references.iter().chain(&in_body));
        let plan = narrow(plan, &decision, &self.user)?;
        if let Some(reason) = unreadable.filter(|_| claim.body_refers) {
            refuse_unreadable(&plan, reason)?;
        }
        Ok(plan)
    }

    /// Goes on looking for references in what is left of the body.
    pub(crate) fn guard(self: &Rc<Self>, plan: &Plan, claim: &Claim) -> Option<BodyGuard> {
        let apart = plan.candidates.iter().any(|candidate| candidate.channel.ownership != Ownership::Off);
        (claim.body_refers && apart).then(|| BodyGuard { owners: Rc::clone(self) })
    }

    /// Does what the answer asks for. Its head must be the platform's own, its body unread.
    ///
    /// # Errors
    /// [`ErrorKind::UpstreamProtocol`] for a list in which it cannot be told what is whose,
    /// [`ErrorKind::UpstreamTimeout`] and [`ErrorKind::UpstreamUnreachable`] where a body that has
    /// to be read stalls or breaks.
    pub(crate) async fn settle<B>(
        &self,
        task: &Task,
        channel: &Channel,
        head: &mut response::Parts,
        body: &mut B,
    ) -> Result<Settled, ErrorKind>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        if !head.status.is_success()
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT)
        {
            if let (Task::Gone(id), true) = (task, head.status.is_success()) {
                self.objects.remove(id);
            }
            return Ok(Settled::default());
        }
        let ahead = match task {
            Task::Nothing => None,
            Task::Gone(id) => {
                self.objects.remove(id);
                None
            }
            Task::Made(kind, create) => self.capture(kind, create, channel, head, body).await?,
            Task::Read(kind, id) => self.read_own(kind, id, channel, head, body).await?,
            Task::List(kind, _) => return self.filter_list(kind, channel, head, body).await,
        };
        Ok(Settled { ahead, more: None })
    }

    fn decide<'r>(&self, references: impl IntoIterator<Item = &'r Reference>) -> Decision {
        self.ask(|asker| decide(references, asker))
    }

    fn sees(&self, id: &str, channel: &str) -> bool {
        self.objects.get(id).is_some_and(|owned| {
            &*owned.channel == channel && self.ask(|asker| asker.sees(&owned.owner, &owned.channel))
        })
    }

    fn ask<T>(&self, question: impl FnOnce(&Asker<'_>) -> T) -> T {
        question(&Asker {
            user: &self.user.id,
            owner: &|id| self.objects.get(id).map(|owned| (owned.owner, owned.channel)),
            mode: &|id| self.snapshot.channel(id).map_or(Ownership::Enforce, |channel| channel.ownership),
            mates: &|id| self.mates().contains(id),
        })
    }

    fn mates(&self) -> &HashSet<Arc<str>> {
        self.mates.get_or_init(|| {
            let shares = |user: &&Arc<User>| user.groups.iter().any(|group| self.user.groups.contains(group));
            self.snapshot.users().filter(shares).map(|user| Arc::clone(&user.id)).collect()
        })
    }

    /// Reads the answer to a create until its ids are known, and writes them down.
    async fn capture<B>(
        &self,
        kind: &'static Kind,
        create: &Create,
        channel: &Channel,
        head: &response::Parts,
        body: &mut B,
    ) -> Result<Option<Bytes>, ErrorKind>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (ahead, texts) = match shape(&head.headers) {
            Shape::Json => {
                let read = read(body, JSON_BYTES, channel.timeouts.idle).await?.bytes;
                let texts = pick::pick(&read, create.ids).into_iter().map(|(_, text)| text).collect();
                // What the object itself names, as far as it is there already.
                let implied = implied(kind, &read);
                self.note(implied, &self.user.id, channel, false).await;
                (read, texts)
            }
            Shape::Events if !create.events.is_empty() => first_event(body, create.events).await?,
            Shape::Events | Shape::Other => return Ok(None),
            Shape::Encoded => {
                tracing::warn!(channel = %channel.id, kind = kind.name, "a compressed answer to a request that creates something: nobody will own it");
                return Ok(None);
            }
        };
        let ids: Vec<_> = texts.iter().filter_map(|text| Some((kind.name, kind.id_in_json(text)?))).collect();
        if ids.is_empty() {
            tracing::debug!(channel = %channel.id, kind = kind.name, "no id in an answer to a request that creates something");
        }
        self.note(ids, &self.user.id, channel, kind.named_by_caller).await;
        Ok(Some(ahead))
    }

    /// Reads an object of the caller's for others that it names: they belong to its owner too.
    async fn read_own<B>(
        &self,
        kind: &'static Kind,
        id: &str,
        channel: &Channel,
        head: &response::Parts,
        body: &mut B,
    ) -> Result<Option<Bytes>, ErrorKind>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        // Nobody's object makes nobody an owner.
        let Some(owned) = self.objects.get(id).filter(|owned| owned.channel == channel.id) else {
            return Ok(None);
        };
        if shape(&head.headers) != Shape::Json {
            return Ok(None);
        }
        let read = read(body, JSON_BYTES, channel.timeouts.idle).await?.bytes;
        self.note(implied(kind, &read), &owned.owner, channel, false).await;
        Ok(Some(read))
    }

    /// Takes out of a list what is not there for the caller.
    async fn filter_list<B>(
        &self,
        kind: &'static Kind,
        channel: &Channel,
        head: &mut response::Parts,
        body: &mut B,
    ) -> Result<Settled, ErrorKind>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        if channel.ownership == Ownership::Off {
            return Ok(Settled::default());
        }
        if shape(&head.headers) == Shape::Encoded {
            return Err(unclear(channel, kind, "it is compressed"));
        }
        let read = read(body, LIST_BYTES, channel.timeouts.idle).await?;
        if !read.whole {
            return Err(unclear(channel, kind, "it is too long"));
        }
        if read.bytes.is_empty() {
            return Ok(Settled::default());
        }
        let filtered = list::filter(&read.bytes, kind, |id| self.sees(id, &channel.id))
            .ok_or_else(|| unclear(channel, kind, "it has an unexpected shape"))?;
        for (at, text, id) in &filtered.implied {
            if let Some(owned) = self.objects.get(id) {
                let ids = beside(kind, *at, text).into_iter().collect();
                self.note(ids, &owned.owner, channel, false).await;
            }
        }
        let headers = &mut head.headers;
        headers.insert(CONTENT_LENGTH, HeaderValue::from(filtered.text.len()));
        headers.remove(ETAG);
        for name in DIGESTS {
            headers.remove(HeaderName::from_static(name));
        }
        Ok(Settled { ahead: Some(filtered.text.into()), more: filtered.more })
    }

    /// Enters ids and waits, within bounds, until they are written down.
    async fn note(&self, ids: Vec<(&'static str, String)>, owner: &str, channel: &Channel, replace: bool) {
        let mut writes = Vec::new();
        let now = u64::try_from(unix_now()).unwrap_or_default();
        for (kind, id) in &ids {
            let seen = Seen { id, kind, owner, channel: &channel.id, now, replace };
            match self.objects.insert(seen) {
                Outcome::New(write) => writes.push(write),
                Outcome::Known => {}
                Outcome::Taken => {
                    tracing::warn!(channel = %channel.id, kind, id, user = owner, "an object that is somebody else's came with an answer; it stays theirs");
                }
            }
        }
        if !writes.is_empty() && timeout(SAVE_TIME, join_all(writes)).await.is_err() {
            tracing::warn!(channel = %channel.id, "owned objects were not written down in time; going on");
        }
    }
}

/// Looks for references in the part of a body that was not read ahead.
pub(crate) struct BodyGuard {
    owners: Rc<Owners>,
}

impl BodyGuard {
    /// To be called after each piece that the scanner has been fed.
    ///
    /// # Errors
    /// Why the body is broken off; [`HIDDEN`] for an object that is not there.
    pub(crate) fn check(&self, scan: &mut Scan) -> Result<(), &'static str> {
        let found = scan.take_references()?;
        match self.owners.decide(&found) {
            Decision::NotFound | Decision::Go { unknown: true, .. } => Err(HIDDEN),
            // An object of the caller's own on another channel is for the platform to miss.
            Decision::Go { .. } | Decision::Conflict => Ok(()),
        }
    }
}

/// The query with this parameter set: how the next page of a list is asked for. `anthropic` is
/// whether the request speaks Anthropic's dialect, in which `after` has another name.
pub(crate) fn next_query(
    query: Option<&str>,
    (name, value): (&'static str, &str),
    anthropic: bool,
) -> String {
    let name = if anthropic && name == "after" { "after_id" } else { name };
    let mut next = String::new();
    for raw in query.unwrap_or_default().split('&').filter(|raw| !raw.is_empty()) {
        let other = query_pairs(Some(raw)).next().is_none_or(|(have, _)| have != name);
        if other {
            next.push_str(raw);
            next.push('&');
        }
    }
    let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
    next.push_str(&format!("{name}={value}"));
    next
}

/// How an answer can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Json,
    Events,
    Encoded,
    Other,
}

fn shape(headers: &HeaderMap) -> Shape {
    let plain = |value: &HeaderValue| value.is_empty() || value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        return Shape::Encoded;
    }
    let Some(kind) = headers.get(CONTENT_TYPE) else { return Shape::Json };
    let kind =
        kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "text/event-stream" => Shape::Events,
        // Some servers are careless with the type of their JSON.
        "" | "application/json" | "text/json" | "text/plain" => Shape::Json,
        other if other.ends_with("+json") => Shape::Json,
        _ => Shape::Other,
    }
}

struct Read {
    bytes: Bytes,
    /// Whether the body has come to its end.
    whole: bool,
}

/// Reads a body until its end, or until it is longer than the bound.
async fn read<B>(body: &mut B, bound: usize, patience: Duration) -> Result<Read, ErrorKind>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut frames: Vec<Bytes> = Vec::new();
    let mut length = 0;
    while length <= bound {
        let frame = timeout(patience, body.frame()).await.map_err(|_| ErrorKind::UpstreamTimeout)?;
        match frame {
            None => return Ok(Read { bytes: join(frames), whole: true }),
            Some(Err(_)) => return Err(ErrorKind::UpstreamUnreachable),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    length += data.len();
                    frames.push(data);
                }
            }
        }
    }
    Ok(Read { bytes: join(frames), whole: false })
}

fn join(mut frames: Vec<Bytes>) -> Bytes {
    if frames.len() == 1 {
        return frames.swap_remove(0);
    }
    let mut joined = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
    frames.iter().for_each(|frame| joined.extend_from_slice(frame));
    joined.freeze()
}

/// Reads events until one has ids at the pointers.
async fn first_event<B>(body: &mut B, pointers: &[&str]) -> Result<(Bytes, Vec<String>), ErrorKind>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut events = Events::default();
    let (mut frames, mut length) = (Vec::new(), 0);
    let end = Instant::now() + EVENT_TIME;
    while length < EVENT_BYTES {
        // Who is late is passed on as it is: nobody's object harms nobody.
        let Ok(frame) = timeout_at(end, body.frame()).await else { break };
        let frame = match frame {
            None => break,
            Some(frame) => frame.map_err(|_| ErrorKind::UpstreamUnreachable)?,
        };
        let Ok(data) = frame.into_data() else { continue };
        let found = events.feed(&data, pointers);
        length += data.len();
        frames.push(data);
        if let Some(found) = found {
            return Ok((join(frames), found));
        }
    }
    Ok((join(frames), Vec::new()))
}

/// Ids of other objects that an object names.
fn implied(kind: &'static Kind, json: &[u8]) -> Vec<(&'static str, String)> {
    if kind.implies.is_empty() {
        return Vec::new();
    }
    let pointers: Vec<&str> = kind.implies.iter().map(|(_, pointer)| *pointer).collect();
    pick::pick(json, &pointers).into_iter().filter_map(|(at, text)| beside(kind, at, &text)).collect()
}

/// The kind's name and the id of what the pointer with this index has led to.
fn beside(kind: &'static Kind, at: usize, text: &str) -> Option<(&'static str, String)> {
    let (name, _) = kind.implies.get(at)?;
    let other = objects::beside(kind, name)?;
    Some((other.name, other.id_in_json(text)?))
}

fn unclear(channel: &Channel, kind: &Kind, why: &str) -> ErrorKind {
    tracing::error!(channel = %channel.id, kind = kind.name, why, "a list of objects was withheld: it cannot be told which are the caller's own");
    ErrorKind::UpstreamProtocol
}

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;
