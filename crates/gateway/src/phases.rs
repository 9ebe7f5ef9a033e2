//! The life of a request:
//!
//! ```text
//! accept → identify → authenticate → admit → plan → register → swap → open → relay → record
//! ```
//!
//! Each phase is a step of [`serve`]; the last always runs, because the [`Record`] is a guard.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aiproxy_config::model::{Limits, Snapshot, User};
use aiproxy_core::ErrorKind;
use aiproxy_core::ports::UsageSink;
use aiproxy_platform::placement::query_pairs;
use aiproxy_platform::{ErrorShape, UsageShape, routes};
use aiproxy_registry::Registry;
use aiproxy_registry::live::Live;
use aiproxy_registry::owned::OwnedObjects;
use aiproxy_routing::model::Scan;
use aiproxy_routing::objects::{Claim, Task};
use aiproxy_routing::{Candidate, Plan, Refusal, Target, admit, client_ip, identify};
use aiproxy_upstream::answer::{Way, clean};
use aiproxy_upstream::{Pool, Replay, ReplayBudget, Source};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN, UPGRADE};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, request, response,
};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use ipnet::IpNet;
use tokio::time::Instant;

use crate::attempts::{self, Answered, Ask};
use crate::objects::{Owners, Settled, next_query};
use crate::peek::{self, Peeked};
use crate::record::Record;
use crate::relayed::{AnswerBody, Exchange};
use crate::{cors, models, refuse};

const OUR_ID: HeaderName = HeaderName::from_static("x-aiproxy-request-id");
const THEIR_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How much of a refused request's body is read and thrown away. Many clients send the whole body
/// before they read an answer; closing earlier would reset the connection and lose the refusal.
const DRAIN_BYTES: usize = 64 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// Pages of a list that are asked for until one holds something of the caller's.
const PAGES: usize = 50;

/// What all requests of one thread share.
pub(crate) struct Core {
    pub(crate) registry: Arc<Registry>,
    pub(crate) objects: Arc<OwnedObjects>,
    pub(crate) pool: Pool,
    pub(crate) sink: Arc<dyn UsageSink>,
    pub(crate) replay: Arc<ReplayBudget>,
}

/// Relays one request. Whatever happens, there is an answer and a record.
pub(crate) async fn handle(
    core: &Core,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let epoch = core.registry.epoch();
    let snapshot = core.registry.snapshot();
    let (head, body) = request.into_parts();
    let trusted = &snapshot.system.trusted_proxies;
    let caller_ip = client_ip::caller(peer.ip(), &head.headers, trusted);
    let mut record = Record::begin(head.method.clone(), caller_ip, Arc::clone(&core.sink));
    let id = record.request_id();
    let origin = head.headers.get(ORIGIN).cloned();
    let mut body = Some(body);
    let mut shape = ErrorShape::OpenAi;
    let outcome =
        serve(core, (&snapshot, epoch), (peer.ip(), caller_ip), head, &mut body, &mut record, &mut shape)
            .await;
    let mut response = match outcome {
        Ok(Served::Relayed(head, exchange)) => Response::from_parts(head, exchange.into_body(record)),
        Ok(Served::Preflight(headers)) => {
            record.own_answer(StatusCode::NO_CONTENT.as_u16());
            let mut response = Response::new(AnswerBody::own(None, record));
            *response.status_mut() = StatusCode::NO_CONTENT;
            *response.headers_mut() = headers;
            response
        }
        Ok(Served::Own(json)) => {
            record.own_answer(StatusCode::OK.as_u16());
            let mut response = Response::new(AnswerBody::own(Some(json), record));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(refusal) => {
            tracing::debug!(request = %id, %refusal, "refused");
            if let Some(body) = body.filter(|body| !body.is_end_stream()) {
                tokio::task::spawn_local(drain(body));
            }
            refuse::answer(&refusal, shape, record)
        }
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        if !headers.contains_key(THEIR_ID) {
            headers.insert(THEIR_ID, id.clone());
        }
        headers.insert(OUR_ID, id);
    }
    if core.registry.status.draining() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    cors::expose(snapshot.system.cors.as_ref(), origin.as_ref(), headers);
    response
}

/// How a request was served.
enum Served {
    /// The platform answered.
    Relayed(response::Parts, Box<Exchange>),
    /// A browser asked in advance.
    Preflight(HeaderMap),
    /// AIProxy answers by itself, with JSON.
    Own(Bytes),
}

async fn serve(
    core: &Core,
    (snapshot, epoch): (&Arc<Snapshot>, u64),
    (peer, caller_ip): (IpAddr, IpAddr),
    head: request::Parts,
    body: &mut Option<Incoming>,
    record: &mut Record,
    shape: &mut ErrorShape,
) -> Result<Served, Refusal> {
    let began = Instant::now();
    let limits = &snapshot.system.limits;

    // accept
    check_method(&head)?;
    let target = Target::parse(head.uri.path(), &head.headers)?;
    let route = target.route;
    *shape = route.errors;
    // Until the key is known to stand elsewhere, it might be in the path.
    record.endpoint(route.prefix);
    if cors::is_preflight(&head.method, &head.headers) {
        return Ok(Served::Preflight(cors::preflight(snapshot.system.cors.as_ref(), &head.headers)?));
    }
    check_length(&head.headers, limits.body_bytes)?;

    // identify, authenticate, admit
    let key = identify::presented_key(&head.headers, head.uri.query())?.into_owned();
    let user = admit::authenticate(snapshot, &key)?;
    record.user(user);
    if !target.path.contains(&key) && !target.normal.contains(&key.to_lowercase()) {
        record.endpoint(target.path);
    }
    admit::check(user, unix_now())?;
    admit::address(user, caller_ip)?;
    refuse_socket(&head.headers)?;

    // plan
    let plan = Plan::for_path(user, &target)?;
    let claim = Claim::of(&head.method, &target, &plan, &head.headers, head.uri.query());
    let mut peeked = read_ahead(&head, body, limits, (&plan, &claim), record).await?;
    let owners = Owners::new(&core.objects, snapshot, user);
    let plan = owners.narrow(plan, &claim, peeked.references())?;
    let model = model_of(&head, &target, &peeked, user)?;
    let plan = plan.for_model(model.as_deref())?;
    if let Some(model) = model {
        record.model(model);
    }

    // register
    let creates = head.method == Method::POST
        && (routes::creates(&target.normal) || head.headers.contains_key("x-dashscope-async"));
    let live = core.registry.register(Live::new(record.request_id(), user, record.model_name()));
    still_allowed(&core.registry, epoch, user)?;

    if models::is_union(&head.method, &target, &plan, user) {
        record.asking();
        let mut plan = plan;
        plan.candidates.retain(|candidate| {
            attempts::withdrawn(&core.registry, &live, &candidate.channel, epoch).is_none()
        });
        let list = models::union(core, &plan, user, &head.headers, (head.uri.query(), &key), route.family);
        let list = unless_cut(&live, list).await??;
        return Ok(Served::Own(list));
    }

    // swap, open
    let scheme = caller_scheme(peer, &head.headers, &snapshot.system.trusted_proxies);
    let authority = head.headers.get(HOST).cloned();
    let task = claim.task.clone().given(peeked.stored());
    let guard = peeked.guard(user, owners.guard(&plan, &claim));
    let replay = (plan.candidates.len() > 1).then(|| Replay {
        bytes: limits.replay_bytes,
        total: limits.replay_total,
        budget: Arc::clone(&core.replay),
    });
    let source = Source::new(peeked.ahead, peeked.rest, limits.body_bytes, guard, &key, replay);
    let pages = matches!(task, Task::List(..)).then(|| head.headers.clone());
    let ask = Ask {
        method: head.method,
        headers: head.headers,
        query: head.uri.query(),
        key: &key,
        readable: route.usage != UsageShape::None || task.reads(),
        source: Rc::clone(&source),
        creates,
        epoch,
    };
    let answered = unless_cut(&live, attempts::open(core, record, &live, plan, ask)).await;
    let mut answered =
        answered.map_err(Refusal::from).flatten().inspect_err(|_| *body = source.take_rest())?;
    let settled = owners.settle(&task, &answered.channel, &mut answered.head, &mut answered.body);
    let mut settled = unless_cut(&live, settled).await??;
    if let Some(headers) = pages {
        let list = List { owners: &owners, task: &task, headers, query: head.uri.query(), key: &key, epoch };
        (answered, settled) = list.first_page_with_something(core, record, &live, answered, settled).await?;
    }

    // relay
    let Answered { channel, slot, path, mut head, ahead, body, lease, watch } = answered;
    let ahead = settled.ahead.or(ahead);
    let authority = authority.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
    clean(
        &mut head.headers,
        &channel,
        slot.prepared().query_names(),
        Way { scheme, authority, asked: &path },
    );
    head.version = Version::HTTP_11;
    record.answering();
    let health = core.registry.health.get(&channel.id);
    let exchange = Exchange { ahead, body, lease, watch, began, live, channel, health };
    Ok(Served::Relayed(head, Box::new(exchange)))
}

/// A list of objects, asked for page by page.
struct List<'a> {
    owners: &'a Owners,
    task: &'a Task,
    headers: HeaderMap,
    query: Option<&'a str>,
    key: &'a str,
    epoch: u64,
}

impl List<'_> {
    /// SDKs stop at an empty page: where nothing of a page is the caller's, the next one is asked for
    /// on the caller's behalf, on the channel that gave the first.
    async fn first_page_with_something(
        &self,
        core: &Core,
        record: &mut Record,
        live: &Live,
        mut answered: Answered,
        mut settled: Settled,
    ) -> Result<(Answered, Settled), Refusal> {
        let mut query = self.query.map(str::to_owned);
        for _ in 0..PAGES {
            let Some((name, value)) = settled.more.take() else { break };
            let anthropic = self.headers.contains_key("anthropic-version");
            let next = next_query(query.as_deref(), (name, &value), anthropic);
            let candidate = Candidate { channel: Arc::clone(&answered.channel), path: answered.path.clone() };
            let plan = Plan { candidates: [candidate].into_iter().collect(), named: true };
            let ask = Ask {
                method: Method::GET,
                headers: self.headers.clone(),
                query: Some(&next),
                key: self.key,
                readable: true,
                source: Source::empty(),
                creates: false,
                epoch: self.epoch,
            };
            answered = unless_cut(live, attempts::open(core, record, live, plan, ask)).await??;
            let page =
                self.owners.settle(self.task, &answered.channel, &mut answered.head, &mut answered.body);
            settled = unless_cut(live, page).await??;
            query = Some(next);
        }
        Ok((answered, settled))
    }
}

/// Drops the work as soon as the key, user or channel is withdrawn.
async fn unless_cut<T>(live: &Live, work: impl Future<Output = T>) -> Result<T, ErrorKind> {
    tokio::select! {
        biased;
        kind = poll_fn(|cx| live.poll_cut(cx)) => Err(kind),
        outcome = work => Ok(outcome),
    }
}

/// Decides again if the configuration has changed since the request was admitted: now that the
/// request is registered, a later change will find it there.
fn still_allowed(registry: &Registry, epoch: u64, user: &User) -> Result<(), ErrorKind> {
    if registry.epoch() == epoch {
        return Ok(());
    }
    admit::withdrawn(&registry.snapshot(), &user.key.digest, None, unix_now()).map_or(Ok(()), Err)
}

fn check_method(head: &request::Parts) -> Result<(), Refusal> {
    if head.uri.authority().is_some() || head.uri.path() == "*" {
        return Err(Refusal::new(
            ErrorKind::BadRequest,
            "The request target must be a path: AIProxy is no forward proxy. Set it as your SDK's base URL instead.",
        ));
    }
    if head.method == Method::CONNECT || head.method == Method::TRACE {
        return Err(ErrorKind::MethodNotAllowed.into());
    }
    Ok(())
}

/// How the caller reaches us: a trusted proxy in front may have ended TLS.
fn caller_scheme(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> &'static str {
    let forwarded =
        headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
    if forwarded && client_ip::within(trusted, peer) { "https" } else { "http" }
}

fn check_length(headers: &HeaderMap, bound: u64) -> Result<(), ErrorKind> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > bound) { Err(ErrorKind::BodyTooLarge) } else { Ok(()) }
}

/// An upgrade that would be needed is refused; one that a server may ignore (`h2c`) is ignored.
fn refuse_socket(headers: &HeaderMap) -> Result<(), ErrorKind> {
    let wanted =
        headers.get_all(UPGRADE).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if wanted { Err(ErrorKind::UpgradeUnsupported) } else { Ok(()) }
}

async fn read_ahead(
    head: &request::Parts,
    body: &mut Option<Incoming>,
    limits: &Limits,
    (plan, claim): (&Plan, &Claim),
    record: &mut Record,
) -> Result<Peeked, Refusal> {
    let mut scan = Scan::of(&head.headers);
    if claim.body_refers {
        scan.watch_references();
    }
    if body.as_ref().is_none_or(http_body::Body::is_end_stream) || matches!(scan, Scan::Opaque(_)) {
        return Ok(Peeked::unread(body.take(), scan));
    }
    let patience = plan.candidates.first().map_or(limits.keep_alive, |first| first.channel.timeouts.idle);
    peek::peek(body, scan, limits, patience, record).await
}

/// The model that the path, the query or the body names, checked against what the user may use.
fn model_of(
    head: &request::Parts,
    target: &Target<'_>,
    peeked: &Peeked,
    user: &User,
) -> Result<Option<String>, Refusal> {
    let in_query: Vec<String> = query_pairs(head.uri.query())
        .filter(|(name, _)| name.eq_ignore_ascii_case("model"))
        .map(|(_, value)| {
            percent_encoding::percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned()
        })
        .collect();
    let in_path = routes::model_in_path(target.route.family, target.path)
        .map(|name| percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned());
    let limited = user.models.is_some();
    let in_body = match peeked.model() {
        Ok(model) => model.map(str::to_owned),
        Err(reason) if limited && in_path.is_none() => {
            return Err(Refusal::new(
                ErrorKind::ModelNotAllowed,
                format!(
                    "This Proxy-Key is limited to certain models, and the model cannot be read: {reason}."
                ),
            ));
        }
        Err(_) => None,
    };
    // Wherever a name stands, it has to be allowed: which one the platform obeys is its business.
    for name in in_path.iter().chain(&in_query).chain(&in_body) {
        admit::model(user, Some(name), false)?;
    }
    let model = in_path.or(in_query.into_iter().next()).or(in_body);
    let required = head.method == Method::POST && routes::runs_a_model(&target.normal);
    admit::model(user, model.as_deref(), required)?;
    Ok(model)
}

/// Reads what is left of a refused request's body, within bounds.
async fn drain(mut body: Incoming) {
    let reading = async {
        let mut bytes = 0;
        while bytes < DRAIN_BYTES {
            let Some(Ok(frame)) = body.frame().await else { break };
            bytes += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIME, reading).await;
}

pub(crate) fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}
