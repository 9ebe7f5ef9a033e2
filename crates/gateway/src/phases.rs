//! The life of a request:
//!
//! ```text
//! accept → identify → authenticate → admit → register → plan → swap → open → relay → record
//! ```
//!
//! Each phase is a step of [`serve`]; the last always runs, because the [`Record`] is a guard.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aiproxy_config::model::{Limits, Snapshot, User};
use aiproxy_core::ports::{Opening, OwnUsage, UpgradeHandler, UsageSink};
use aiproxy_core::{ErrorKind, Outcome};
use aiproxy_platform::{ErrorShape, routes};
use aiproxy_registry::Registry;
use aiproxy_registry::live::{Kind, Live, Registration};
use aiproxy_registry::owned::OwnedObjects;
use aiproxy_routing::identify::Offered;
use aiproxy_routing::objects::{Claim, Task};
use aiproxy_routing::{Plan, Refusal, Target, admit, client_ip, identify};
use aiproxy_upstream::answer::{Way, clean};
use aiproxy_upstream::{Incoming, Pool, Replay, ReplayBudget, Source};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, ORIGIN};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, request, response,
};
use http_body::Body as _;
use ipnet::IpNet;
use tokio::time::Instant;

use crate::attempts::{self, Ask};
use crate::calls::join::Joined;
use crate::calls::session::Session;
use crate::calls::{self, CallAsk, Called, Calls};
use crate::endpoints::Endpoints;
use crate::first_message::{self, Places};
use crate::late::{Known, Late};
use crate::me;
use crate::metering::Asked;
use crate::objects::Owners;
use crate::pages::List;
use crate::peek::Peeked;
use crate::record::Record;
use crate::relayed::{AnswerBody, Exchange};
use crate::secrets::mint::MintAsk;
use crate::secrets::{self, ClientSecret, ClientSecrets};
use crate::sockets::{Answered, SocketAsk};
use crate::switch::{Opened, Switch};
use crate::{cors, models, reading, refuse, sockets};

/// Callers of one thread whose keys are waited for, at most; and at most a sixteenth of `limits.requests`.
const UNKNOWN: usize = 256;

const OUR_ID: HeaderName = HeaderName::from_static(refuse::OUR_ID);
const THEIR_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What all requests of one thread share.
pub(crate) struct Core {
    pub(crate) registry: Arc<Registry>,
    pub(crate) objects: Arc<OwnedObjects>,
    pub(crate) pool: Pool,
    pub(crate) sink: Arc<dyn UsageSink>,
    pub(crate) replay: Arc<ReplayBudget>,
    pub(crate) endpoints: Arc<Endpoints>,
    /// What opens client secrets.
    pub(crate) secrets: Arc<ClientSecrets>,
    /// Relays WebSockets, if anybody does.
    pub(crate) upgrades: Option<Arc<dyn UpgradeHandler>>,
    /// What WebRTC calls are made of, if they are served.
    pub(crate) calls: Option<Calls>,
    /// What users are told of their own use.
    pub(crate) own_usage: Option<Arc<dyn OwnUsage>>,
    /// Calls of this thread.
    pub(crate) calls_here: Rc<Cell<usize>>,
    /// Callers of this thread whose key is waited for.
    pub(crate) unknown: Rc<Cell<usize>>,
}

impl Core {
    /// Whether one more caller may be waited for of whom nothing is known: they take places of requests.
    fn may_wait(&self, limits: &Limits) -> bool {
        self.unknown.get() < (limits.requests.unwrap_or(UNKNOWN) / 16).clamp(8, UNKNOWN)
    }
}

/// How a request got here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Via {
    /// The peer's address, or the one that a PROXY protocol header names.
    pub(crate) peer: SocketAddr,
    /// Where the connection began: over HTTP/3 it may have moved since.
    pub(crate) proven: IpAddr,
    /// Whether that is somebody: a PROXY protocol header may name nobody.
    pub(crate) named: bool,
    /// Over TLS.
    pub(crate) tls: bool,
    /// Requests, of all callers, that were under way before it.
    pub(crate) before: usize,
}

impl Via {
    /// Whose word on earlier hops counts. A proxy that names nobody speaks of itself: what the request
    /// says is somebody else's word.
    fn trusted(self, snapshot: &Snapshot) -> &[IpNet] {
        if self.named { &snapshot.system.trusted_proxies } else { &[] }
    }
}

/// Relays one request. Whatever happens, there is an answer and a record.
pub(crate) async fn handle(core: &Core, via: Via, request: Request<Incoming>) -> Response<AnswerBody> {
    let peer = via.peer;
    let epoch = core.registry.epoch();
    let snapshot = core.registry.snapshot();
    let (head, body) = request.into_parts();
    let caller_ip = client_ip::caller(peer.ip(), &head.headers, via.trusted(&snapshot));
    let mut record =
        Record::begin(head.method.clone(), caller_ip, Arc::clone(&core.endpoints), Arc::clone(&core.sink));
    let version = head.version;
    record.spoke(version);
    let id = record.request_id();
    let origin = head.headers.get(ORIGIN).cloned();
    let mut body = Some(body);
    let mut shape = ErrorShape::OpenAi;
    let outcome =
        serve(core, (&snapshot, epoch), (via, caller_ip), head, &mut body, &mut record, &mut shape).await;
    let mut response = match outcome {
        Ok(Served::Relayed(head, exchange)) => Response::from_parts(head, exchange.into_body(record)),
        Ok(Served::Preflight(headers)) => {
            record.own_answer(StatusCode::NO_CONTENT.as_u16());
            let mut response = Response::new(AnswerBody::own(None, record));
            *response.status_mut() = StatusCode::NO_CONTENT;
            *response.headers_mut() = headers;
            response
        }
        Ok(Served::Refused(head, body)) => {
            record.ended(Outcome::Complete);
            let mut response = Response::new(AnswerBody::own(Some(body), record));
            (*response.status_mut(), *response.headers_mut()) = *head;
            response
        }
        Ok(Served::Switching(headers, socket)) => {
            let socket = Switch::new(core, socket, record);
            let mut response = Response::new(AnswerBody::Switching(socket.map(Box::new)));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            *response.headers_mut() = headers;
            response
        }
        Ok(Served::Calling(head, body, session)) => {
            tokio::task::spawn_local(session.run(record));
            let mut response = Response::new(AnswerBody::called(body));
            (*response.status_mut(), *response.headers_mut()) = *head;
            response
        }
        Ok(Served::Done) => {
            record.own_answer(StatusCode::OK.as_u16());
            Response::new(AnswerBody::own(None, record))
        }
        Ok(Served::Own(json)) => own(json, record),
        Ok(Served::Minted(json)) => {
            let mut response = own(json, record);
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(refusal) => {
            tracing::debug!(request = %id, %refusal, "refused");
            if let Some(body) = body.filter(|body| !body.is_end_stream()) {
                tokio::task::spawn_local(reading::drain(body));
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
    // Over HTTP/2 and HTTP/3 the connection itself says so.
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    if core.registry.status.draining() && !reading::has_pseudo_headers(version) && !switching {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    cors::expose(snapshot.system.cors.as_ref(), origin.as_ref(), headers);
    response
}

/// An answer of AIProxy's own.
fn own(json: Bytes, mut record: Record) -> Response<AnswerBody> {
    record.own_answer(StatusCode::OK.as_u16());
    let mut response = Response::new(AnswerBody::own(Some(json), record));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
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
    /// AIProxy has minted a client secret, which nobody may keep.
    Minted(Bytes),
    /// The platform refused a WebSocket.
    Refused(Box<(StatusCode, HeaderMap)>, Bytes),
    /// A WebSocket begins.
    Switching(HeaderMap, Opened),
    /// A call begins.
    Calling(Box<(StatusCode, HeaderMap)>, Bytes, Box<Session>),
    /// AIProxy has done what was asked for.
    Done,
}

async fn serve(
    core: &Core,
    (snapshot, epoch): (&Arc<Snapshot>, u64),
    (via, caller_ip): (Via, IpAddr),
    mut head: request::Parts,
    body: &mut Option<Incoming>,
    record: &mut Record,
    shape: &mut ErrorShape,
) -> Result<Served, Refusal> {
    let began = Instant::now();
    let limits = &snapshot.system.limits;

    // accept
    if via.before >= limits.requests.unwrap_or(snapshot.system.max_connections) {
        return Err(ErrorKind::Overloaded.into());
    }
    reading::check_head(&head, limits)?;
    reading::one_host(&mut head)?;
    reading::check_method(&head)?;
    let target = Target::parse(head.uri.path(), &head.headers)?;
    let route = target.route;
    *shape = route.errors;
    // Until the key is known to stand elsewhere, it might be in the path.
    record.endpoint(&target);
    if cors::is_preflight(&head.method, &head.headers) {
        return Ok(Served::Preflight(cors::preflight(snapshot.system.cors.as_ref(), &head.headers)?));
    }
    reading::check_length(&head.headers, limits.body_bytes)?;
    let opening = match &core.upgrades {
        Some(handler) if sockets::is_wanted(&head) => Some(sockets::opening(&**handler, &head)?),
        _ => None,
    };
    if opening.is_some() {
        record.socket();
        cors::check_socket(snapshot.system.cors.as_ref(), &head.headers)?;
    }

    // identify, authenticate, admit
    let offered = opening.as_ref().map(|opening| Offered::of(&opening.protocols)).unwrap_or_default();
    let places = match &opening {
        Some(_) => Places::of(&target, snapshot),
        None => Places::default(),
    };
    let presented = identify::socket_key(&head.headers, head.uri.query(), &offered);
    let key = match (presented, opening.as_ref()) {
        (Err(ErrorKind::MissingKey), Some(opening)) if !places.is_empty() && core.may_wait(limits) => {
            return Ok(late((via, caller_ip), snapshot, &head, opening, &offered, None));
        }
        (key, _) => key?.into_owned(),
    };
    let offer = calls::is_offer(&head.method, &target).filter(|_| opening.is_none()).zip(core.calls.as_ref());
    let kind = match (&opening, &offer) {
        (Some(_), _) => Kind::WebSocket,
        (None, Some(_)) => Kind::Call,
        (None, None) => Kind::Http,
    };
    let Admitted { user, live, secret } =
        enter(core, (snapshot, epoch), (&key, caller_ip), kind, (&target, &head), record)?;
    let (user, secret) = (&user, secret.as_deref());
    if via.proven != via.peer.ip() {
        // Nobody has shown yet that packets from the new address are not forged.
        admit::address(user, client_ip::caller(via.proven, &head.headers, via.trusted(snapshot)))?;
    }
    if opening.is_none() {
        reading::refuse_socket(&head.headers)?;
    }
    if target.normal == me::PATH {
        let answer = me::answer(&head.method, user, core.own_usage.as_ref());
        return Ok(Served::Minted(unless_cut(&live, answer).await??));
    }
    if let Some(mint) = MintAsk::of(&head.method, &target, &head.headers) {
        let minting = Box::pin(mint.answer(core, record, (user, &live), body));
        return Ok(Served::Minted(unless_cut(&live, minting).await??));
    }
    let query = secrets::query(secret, head.uri.query());
    let query = query.as_deref();

    if let Some((place, calls)) = offer {
        let scheme = reading::caller_scheme(via, &head.headers, via.trusted(snapshot));
        let (target, head, key, system) = (&target, &head, &*key, &snapshot.system);
        // What a client secret adds is added where it belongs.
        let query = head.uri.query();
        let ask = CallAsk { target, head, user, secret, query, key, scheme, system, epoch, place };
        return Ok(match Box::pin(calls::begin(core, calls, record, live, ask, body)).await? {
            Called::Begun(head, body, session) => Served::Calling(Box::new(head), body, session),
            Called::Refused(head, body) => Served::Refused(Box::new(head), body),
        });
    }
    let joined = Joined::find(&core.registry, user, &target, query)?;
    if let Some(joined) = joined.as_ref().filter(|joined| joined.hangs_up(&head.method, &target)) {
        joined.hang_up(&core.registry).await;
        return Ok(Served::Done);
    }
    let rewritten = joined.as_ref().and_then(|joined| joined.query(query));
    let query = rewritten.as_deref().or(query);

    // plan
    let plan = Plan::for_path(user, &target)?;
    let plan = match &joined {
        Some(joined) => joined.narrow(plan)?,
        None => plan,
    };
    let claim = Claim::of(&head.method, &target, &plan, &head.headers, head.uri.query());
    let mut asked = Asked::of(&head.method, &head.headers, &target);
    asked.narrow(&plan);
    let total = plan.candidates.first().and_then(|first| first.channel.timeouts.total);
    let reading = reading::read_ahead(&head, body, limits, (&plan, &claim), &asked, record);
    let mut peeked = unless_cut(&live, reading::within(total.map(|total| began + total), reading)).await??;
    let owners = Owners::new(&core.objects, snapshot, user);
    let plan = owners.narrow(plan, &claim, peeked.references())?;
    let model = match secret {
        Some(secret) => Some(secret.claims.model.clone()),
        None => reading::model_of(&head, &target, &plan, &peeked, user)?,
    };
    if opening.is_some() && model.is_none() {
        sockets::check_model(user, &target, head.uri.query())?;
    }
    if let Some(opening) = &opening
        && model.is_none()
        && first_message::row(&target).is_some_and(|row| row.model)
        && sockets::depends_on_model(&plan, user)
    {
        let patience = plan.candidates.first().map_or(limits.header_timeout, |it| it.channel.websocket.idle);
        let known = Known { key, live, patience };
        return Ok(late((via, caller_ip), snapshot, &head, opening, &offered, Some(known)));
    }
    let plan = plan.for_model(model.as_deref())?;
    if let Some(model) = model {
        live.set_model(&model);
        record.model(model);
    }
    if let Some(secret) = secret {
        secret.spend(core)?;
    }
    let creates = head.method == Method::POST
        && (routes::creates(&target.normal) || head.headers.contains_key("x-dashscope-async"));

    if let Some(opening) = &opening {
        let ask = Ask::handshake(head.headers.clone(), query, &key, epoch);
        let scheme = reading::caller_scheme(via, &ask.headers, via.trusted(snapshot));
        let host = ask.headers.get(HOST).cloned();
        let authority = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
        let (offered, places) = (&offered, &places);
        let joined = joined.is_some();
        let ask = SocketAsk { ask, target: &target, user, secret, opening, offered, places, joined };
        let socket = Box::pin(sockets::open(core, record, live, plan, ask, (scheme, authority))).await?;
        return Ok(match socket {
            Answered::Refused(head, body) => Served::Refused(Box::new(head), body),
            Answered::Open(headers, begun) => Served::Switching(headers, Opened::Begun(begun)),
        });
    }

    if models::is_union(&head.method, &target, &plan, user) {
        record.asking();
        let mut plan = plan;
        plan.candidates.retain(|candidate| {
            attempts::withdrawn(&core.registry, &live, Some(&candidate.channel), epoch).is_none()
        });
        let list = models::union(core, &plan, user, &head.headers, (head.uri.query(), &key), route.family);
        let list = unless_cut(&live, list).await??;
        return Ok(Served::Own(list));
    }

    // swap, open
    let scheme = reading::caller_scheme(via, &head.headers, via.trusted(snapshot));
    let authority = head.headers.get(HOST).cloned();
    let task = claim.task.clone().given(peeked.stored());
    let guard = peeked.guard(user, owners.guard(&plan, &claim), asked.prompt.clone());
    if peeked.is_whole() {
        record.added(asked.edit(&plan, &mut peeked.ahead, &mut head.headers));
    }
    let Peeked { ahead, rest, pace, .. } = peeked;
    // For the next channel, or the next connection of one that may refuse a stream.
    let again = plan.candidates.len() > 1
        || plan.candidates.iter().any(|candidate| candidate.channel.may_multiplex());
    let replay = again.then(|| Replay {
        bytes: limits.replay_bytes,
        total: limits.replay_total,
        budget: Arc::clone(&core.replay),
    });
    let source = Source::new(ahead, rest, limits.body_bytes, guard, &key, replay);
    source.pace(pace);
    let pages = matches!(task, Task::List(..)).then(|| head.headers.clone());
    let is_head = head.method == Method::HEAD;
    let ask = Ask {
        method: head.method,
        headers: head.headers,
        query,
        key: &key,
        readable: asked.readable || task.reads(),
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
    let metering = asked.answered(answered.head.status, &mut answered.head.headers);
    let attempts::Answered { channel, slot, path, mut head, ahead, body, lease, watch } = answered;
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
    let status = head.status;
    let bodiless = is_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let exchange =
        Exchange { ahead, body, status, bodiless, lease, watch, began, live, channel, health, metering };
    Ok(Served::Relayed(head, Box::new(exchange)))
}

/// A caller who may go on.
pub(crate) struct Admitted {
    /// The user; as narrow as the client secret is, where there is one.
    pub(crate) user: Arc<User>,
    pub(crate) live: Registration,
    /// The client secret, where it stands for the user's key.
    pub(crate) secret: Option<Arc<ClientSecret>>,
}

/// Authenticates, admits and registers a caller.
pub(crate) fn enter(
    core: &Core,
    (snapshot, epoch): (&Snapshot, u64),
    (key, caller_ip): (&str, IpAddr),
    kind: Kind,
    (target, head): (&Target<'_>, &request::Parts),
    record: &mut Record,
) -> Result<Admitted, Refusal> {
    let (user, claims) = secrets::authenticate(core, snapshot, key)?;
    record.user(user);
    record.details(target, &head.headers, key);
    admitted(core, user, caller_ip, &target.normal)?;
    let (user, secret) = match claims {
        None => (Arc::clone(user), None),
        Some(claims) => {
            let socket = kind == Kind::WebSocket;
            let (user, secret) = secrets::admitted(claims, user, socket, (target, head))?;
            (user, Some(secret))
        }
    };
    let live = core.registry.register(Live::new(record.request_id(), kind, &user));
    attempts::withdrawn(&core.registry, &live, None, epoch).map_or(Ok(()), Err)?;
    Ok(Admitted { user, live, secret })
}

/// Whether the caller may do anything at all.
pub(crate) fn admitted(core: &Core, user: &User, caller_ip: IpAddr, normal: &str) -> Result<(), Refusal> {
    admit::check(user, unix_now())?;
    core.registry.denials.of(user).map_or(Ok(()), Err)?;
    admit::address(user, caller_ip)?;
    // Whoever may call at all may look at itself.
    if normal == me::PATH {
        return Ok(());
    }
    admit::endpoint(user, normal)
}

/// Answers a WebSocket's handshake before its platform is asked.
fn late(
    (via, caller_ip): (Via, IpAddr),
    snapshot: &Snapshot,
    head: &request::Parts,
    opening: &Opening,
    offered: &Offered<'_>,
    known: Option<Known>,
) -> Served {
    // Without a key of its own it could hold none.
    let key = known.as_ref().map_or("\0", |known| &*known.key);
    let protocol = sockets::echoed(None, offered, key).map(str::to_owned);
    let headers = sockets::accept(HeaderMap::new(), None, opening, offered, key);
    let scheme = reading::caller_scheme(via, &head.headers, via.trusted(snapshot));
    let late = Late { head: head.clone(), opening: opening.clone(), protocol, caller_ip, scheme, known };
    Served::Switching(headers, Opened::Late(Box::new(late)))
}

/// Drops the work as soon as the key, user or channel is withdrawn.
pub(crate) async fn unless_cut<T>(live: &Live, work: impl Future<Output = T>) -> Result<T, ErrorKind> {
    tokio::select! {
        biased;
        kind = poll_fn(|cx| live.poll_cut(cx)) => Err(kind),
        outcome = work => Ok(outcome),
    }
}

pub(crate) fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}
