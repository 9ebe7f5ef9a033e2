//! `POST channels/{id}/test`: one real request to the platform with the channel's key.
//!
//! The platform's answer is judged by its status and codes and never passed on: it may quote the key.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aiproxy_config::model::{Channel, KeyUse, Limit, ProxyKey, Status, User};
use aiproxy_core::{KeyDigest, KeyTag};
use aiproxy_platform::Family;
use aiproxy_routing::{Plan, Target};
use aiproxy_upstream::tls::TlsConfigs;
use aiproxy_upstream::{BodyWatch, ConnectError, Incoming, Pool, SendError, Source};
use axum::Json;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use tokio::time::timeout;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::desk::Desk;
use super::error::{ApiError, ApiResult, ErrorBody, Id};
use super::verdict::{self, Verdict};
use crate::State;

/// The longest that a test takes.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bytes of an answer that are read.
const READ_BYTES: usize = 16 * 1024;
/// How long an answer's body is waited for.
const READ_TIME: Duration = Duration::from_secs(5);
/// Tests at one time: each has a thread.
static PLACES: Semaphore = Semaphore::const_new(4);

pub(crate) fn router() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(test))
}

/// What came of a test.
#[derive(Debug, Serialize, ToSchema)]
struct Tested {
    verdict: Verdict,
    /// Status of the platform's answer, if there was one.
    #[schema(example = 200)]
    status: Option<u16>,
    /// Milliseconds until the head of the answer, or until it was clear that there will be none.
    latency_ms: u64,
    /// What to do now.
    #[schema(example = "The platform takes the channel's key.")]
    advice: String,
    /// What was asked for.
    #[schema(example = "GET https://api.openai.com/v1/models")]
    target: String,
}

/// Ask the channel's platform something harmless, with the channel's key. Takes up to 15 seconds.
#[utoipa::path(post, path = "/api/v1/channels/{id}/test", tag = "channels", params(("id" = String, Path, description = "The channel.")),
    responses(
        (status = 200, description = "What came of it.", body = Tested),
        (status = 404, description = "There is no such channel.", body = ErrorBody),
        (status = 503, description = "`busy`: too many tests are under way.", body = ErrorBody)))]
async fn test(desk: Desk, Id(id): Id) -> ApiResult<Json<Tested>> {
    let channel = desk.state.registry.snapshot().channel(&id).map(Arc::clone);
    let channel = channel.ok_or_else(|| ApiError::not_found("channel", &id))?;
    let place = PLACES.try_acquire().map_err(|_| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many tests are under way.").retry_after(2)
    })?;
    // Connections belong to one thread.
    let tested = tokio::task::spawn_blocking(move || on_a_thread(&channel)).await;
    drop(place);
    let tested = tested.ok().flatten().ok_or_else(|| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "There is no thread for the test.")
            .retry_after(2)
    })?;
    let mut entry = desk.caller.audit("channel.test", "channel", &id);
    entry.detail = Some(serde_json::json!({
        "verdict": tested.verdict, "status": tested.status, "latency_ms": tested.latency_ms, "target": tested.target,
    }));
    desk.note(&entry).await?;
    Ok(Json(tested))
}

/// None where there is no runtime to be had.
fn on_a_thread(channel: &Arc<Channel>) -> Option<Tested> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    Some(LocalSet::new().block_on(&runtime, ask(channel)))
}

async fn ask(channel: &Arc<Channel>) -> Tested {
    let (path, headers) = what(channel);
    let target =
        format!("GET {}://{}{path}", if channel.base.tls { "https" } else { "http" }, channel.base.authority);
    // A query may be a secret of the channel.
    let target = target.split('?').next().unwrap_or_default().to_owned();
    let began = Instant::now();
    let (verdict, status) = match timeout(PATIENCE, exchange(channel, &path, headers)).await {
        Err(_) => (Verdict::Timeout, None),
        Ok(Err(verdict)) => (verdict, None),
        Ok(Ok((status, verdict, latency))) => {
            let advice = verdict::advice(verdict, Some(status.as_u16()));
            return Tested {
                verdict,
                status: Some(status.as_u16()),
                latency_ms: ms(latency),
                advice,
                target,
            };
        }
    };
    Tested {
        verdict,
        status,
        latency_ms: ms(began.elapsed()),
        advice: verdict::advice(verdict, status),
        target,
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

async fn exchange(
    channel: &Arc<Channel>,
    path: &str,
    headers: HeaderMap,
) -> Result<(StatusCode, Verdict, Duration), Verdict> {
    let pool = Pool::new(Arc::new(TlsConfigs::default()));
    let slot = pool.slot(channel);
    let (uri, mut own) = slot.prepared().own("", path).map_err(|_| Verdict::Unreachable)?;
    for (name, value) in &headers {
        own.entry(name).or_insert_with(|| value.clone());
    }
    let watch = BodyWatch::new();
    let mut request = Request::new(Source::empty().attempt(Rc::clone(&watch)));
    *request.uri_mut() = uri;
    *request.headers_mut() = own;
    let began = Instant::now();
    let answer = slot.send(request, &watch).await.map_err(|error| failure(&error))?;
    let latency = began.elapsed();
    let status = answer.response.status();
    let body = read(answer.response.into_body()).await;
    let verdict = verdict::of(channel, status, &body);
    pool.part().await;
    Ok((status, verdict, latency))
}

async fn read(body: Incoming) -> Vec<u8> {
    let reading = Limited::new(body, READ_BYTES).collect();
    match timeout(READ_TIME, reading).await {
        Ok(Ok(body)) => body.to_bytes().to_vec(),
        _ => Vec::new(),
    }
}

fn failure(error: &SendError) -> Verdict {
    match error {
        SendError::Connect(error) => connect(error),
        SendError::Timeout | SendError::CallerStalled => Verdict::Timeout,
        SendError::NotProcessed(_) | SendError::Broken(_) => Verdict::Unreachable,
        SendError::Protocol(_) | SendError::NotASocket | SendError::Body(_) => Verdict::HttpError,
    }
}

fn connect(error: &ConnectError) -> Verdict {
    match error {
        ConnectError::Resolve(_) => Verdict::Dns,
        ConnectError::Tls(_) | ConnectError::Roots(_) | ConnectError::Identity(_) => Verdict::Tls,
        ConnectError::Timeout => Verdict::Timeout,
        ConnectError::ProxyUnreachable(_)
        | ConnectError::ProxyCredentials
        | ConnectError::ProxyRefused(_)
        | ConnectError::ProxyProtocol(_) => Verdict::Proxy,
        ConnectError::Tcp(_) | ConnectError::Version | ConnectError::Preface(_) | ConnectError::Quic(_) => {
            Verdict::Unreachable
        }
    }
}

/// What to ask for: what the health check asks for, else the platform's list of models; the path is the
/// whole one.
fn what(channel: &Arc<Channel>) -> (String, HeaderMap) {
    let mut headers = HeaderMap::new();
    if let Some(check) = &channel.health {
        return (format!("{}{}", channel.base.path, check.path), headers);
    }
    let serves = |family| channel.platform.serves(family).is_some();
    let path =
        if serves(Family::OpenAi) || !serves(Family::Gemini) { "/v1/models" } else { "/v1beta/models" };
    if !serves(Family::OpenAi) && serves(Family::Anthropic) {
        headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
    }
    // As the relay would ask for it.
    let planned = Target::parse(path, &headers).and_then(|target| Plan::for_path(&nobody(channel), &target));
    let planned = planned.ok().and_then(|plan| plan.candidates.into_iter().next());
    let path = planned.map_or_else(|| format!("{}{path}", channel.base.path), |candidate| candidate.path);
    (path, headers)
}

/// A user who may use this channel alone, in service or not.
fn nobody(channel: &Arc<Channel>) -> User {
    let channel = Arc::new(Channel { status: Status::Active, ..Channel::clone(channel) });
    let digest = KeyDigest::of(b"");
    User {
        id: "".into(),
        name: String::new(),
        department: String::new(),
        status: Status::Active,
        key: ProxyKey {
            digest,
            tag: Arc::new(KeyTag::of_digest(&digest)),
            status: Status::Active,
            valid_from: None,
            expires_at: None,
            used: KeyUse::default(),
        },
        groups: Vec::new(),
        channels: vec![channel],
        shares: None,
        models: Limit::default(),
        endpoints: Limit::default(),
        allow_ips: Limit::default(),
    }
}
