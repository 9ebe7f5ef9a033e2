//! Requests that may come twice: `Idempotency-Key` on POST.
//!
//! The answer is kept in the transaction of the edit itself, so that a crash leaves both or neither;
//! what is known only afterwards (which sessions were cut) is added to it. Answers are kept for a day,
//! refusals not at all: they have changed nothing. A kept answer holds no Proxy-Key.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use aiproxy_core::KeyDigest;
use aiproxy_store::Idempotent;
use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::Value;
use utoipa::ToSchema as _;
use utoipa::openapi::path::{ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ContentBuilder, ObjectBuilder, Ref, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;

use super::caller::{Caller, now};
use super::error::{ApiError, ApiResult, ErrorBody};
use crate::State;
use crate::control::Edit;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Longest key.
const KEY_BYTES: usize = 128;
/// How long answers are kept, in seconds.
const KEPT: i64 = 24 * 60 * 60;
/// Longest answer that is kept.
const ANSWER_BYTES: usize = 4 << 20;

/// Which requests with a key are under way.
#[derive(Debug)]
pub(crate) struct Keeper {
    state: Arc<State>,
    under_way: Mutex<HashSet<(String, String)>>,
}

impl Keeper {
    pub(crate) fn new(state: Arc<State>) -> Arc<Self> {
        Arc::new(Self { state, under_way: Mutex::default() })
    }

    fn enter(self: &Arc<Self>, entry: (String, String)) -> Option<Entered> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.insert(entry.clone()).then(|| Entered { keeper: Arc::clone(self), entry })
    }
}

/// The place of a request under way.
struct Entered {
    keeper: Arc<Keeper>,
    entry: (String, String),
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.keeper.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.entry);
    }
}

/// Marks an answer that holds a secret: it is not kept as it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HoldsSecret;

/// Under which name the answer to this request is kept, if it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Once(Option<Arc<Asked>>);

#[derive(Debug)]
struct Asked {
    actor: String,
    key: String,
    fingerprint: [u8; 32],
}

impl Asked {
    fn answer(&self, status: StatusCode, body: String) -> Idempotent {
        Idempotent {
            actor: self.actor.clone(),
            key: self.key.clone(),
            fingerprint: self.fingerprint,
            status: status.as_u16(),
            body,
            created_at: now(),
        }
    }
}

impl Once {
    pub(crate) fn of(extensions: &http::Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_default()
    }

    /// Keeps the answer together with the edit. It must hold no secret.
    pub(crate) fn keep(&self, edit: &mut Edit, status: StatusCode, body: &Value) {
        if let Some(asked) = &self.0 {
            edit.idempotent(asked.answer(status, body.to_string()));
        }
    }
}

/// Gives each operation a name of its own, and says of every POST that it may be sent twice, and what comes
/// of it then.
pub(crate) fn describe(mut router: OpenApiRouter<Arc<State>>) -> OpenApiRouter<Arc<State>> {
    for (path, item) in &mut router.get_openapi_mut().paths.paths {
        let words: Vec<_> =
            path.split(['/', '{', '}']).filter(|word| !matches!(*word, "" | "api" | "v1")).collect();
        let methods = [
            ("get", &mut item.get),
            ("put", &mut item.put),
            ("post", &mut item.post),
            ("patch", &mut item.patch),
            ("delete", &mut item.delete),
        ];
        for (method, operation) in methods {
            if let Some(operation) = operation {
                operation.operation_id = Some(format!("{method}_{}", words.join("_")));
            }
        }
        let Some(operation) = &mut item.post else { continue };
        let text =
            ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(KEY_BYTES));
        let parameter = ParameterBuilder::new()
            .name("Idempotency-Key")
            .parameter_in(ParameterIn::Header)
            .description(Some(
                "Sent twice with the same key, the request is done once: the second gets the first's answer.",
            ))
            .schema(Some(text.pattern(Some("^[!-~]+$"))))
            .build();
        operation.parameters.get_or_insert_default().push(parameter.into());
        for (status, description) in [
            ("409", "`idempotency_in_progress`: the first request with the key is under way"),
            ("422", "`idempotency_key_reused`: the key was sent with another request"),
        ] {
            let body = Ref::from_schema_name(ErrorBody::name());
            let content = ContentBuilder::new().schema(Some(body)).build();
            let response =
                ResponseBuilder::new().description(description).content("application/json", content);
            operation.responses.responses.entry(status.into()).or_insert_with(|| response.build().into());
        }
    }
    router
}

/// Around the routes of documents, inside of what finds the caller.
pub(crate) async fn layer(Shared(keeper): Shared<Arc<Keeper>>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !request.headers().contains_key(KEY) {
        return next.run(request).await;
    }
    answer(&keeper, request, next).await.unwrap_or_else(ApiError::into_response)
}

async fn answer(keeper: &Arc<Keeper>, request: Request, next: Next) -> ApiResult<Response> {
    let key = key_of(&request)?;
    // Without a login there is nobody whose answers could be kept.
    let Some(caller) = request.extensions().get::<Caller>() else { return Ok(next.run(request).await) };
    let actor = format!("{}:{}", caller.actor.kind, caller.actor.id);
    let (mut request, fingerprint) = fingerprint(request).await?;
    let Some(_entered) = keeper.enter((actor.clone(), key.clone())) else {
        return Err(ApiError::conflict(
            "idempotency_in_progress",
            "A request with this Idempotency-Key is under way. Ask again when it has ended.",
        ));
    };
    if let Some(kept) = kept(&keeper.state, &actor, &key).await? {
        return replay(&kept, fingerprint);
    }
    let asked = Arc::new(Asked { actor, key, fingerprint });
    request.extensions_mut().insert(Once(Some(Arc::clone(&asked))));
    let response = next.run(request).await;
    if !response.status().is_success() || response.extensions().get::<HoldsSecret>().is_some() {
        return Ok(response);
    }
    let (head, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX)
        .await
        .map_err(|_| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "interrupted", "The answer was lost."))?;
    if let Ok(text) = std::str::from_utf8(&bytes)
        && text.len() <= ANSWER_BYTES
        && let Err(error) = keep(&keeper.state, &asked.answer(head.status, text.to_owned())).await
    {
        // What was asked for is done, and edits have kept their answer themselves.
        tracing::warn!(code = error.code(), "an answer could not be kept for its Idempotency-Key");
    }
    Ok(Response::from_parts(head, Body::from(bytes)))
}

fn key_of(request: &Request) -> ApiResult<String> {
    let mut given = request.headers().get_all(KEY).iter();
    let key = given.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
    if given.next().is_some() || key.is_empty() || key.len() > KEY_BYTES || !visible {
        return Err(ApiError::bad_request(
            "`Idempotency-Key` is one word of 1 to 128 visible ASCII characters.",
        ));
    }
    Ok(key.to_owned())
}

/// Reads the body and puts it back.
async fn fingerprint(request: Request) -> ApiResult<(Request, [u8; 32])> {
    let (head, body) = request.into_parts();
    let limit = if head.uri.path().ends_with("/users/import") { super::import::BYTES } else { 1 << 20 };
    let bytes = axum::body::to_bytes(body, limit).await.map_err(|_| super::extract::too_large())?;
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    let asked = [head.method.as_str().as_bytes(), b" ", target.as_bytes(), b"\n", &bytes].concat();
    Ok((Request::from_parts(head, Body::from(bytes)), *KeyDigest::of(&asked).as_bytes()))
}

async fn kept(state: &State, actor: &str, key: &str) -> ApiResult<Option<Idempotent>> {
    let mut tx = state.control.store()?.write().await?;
    let kept = tx.idempotent(actor, key).await?;
    Ok(kept.filter(|kept| kept.created_at > now() - KEPT))
}

async fn keep(state: &State, answer: &Idempotent) -> ApiResult<()> {
    let mut tx = state.control.store()?.write().await?;
    tx.expire_idempotent(now() - KEPT).await?;
    tx.put_idempotent(answer).await?;
    tx.commit().await?;
    Ok(())
}

fn replay(kept: &Idempotent, fingerprint: [u8; 32]) -> ApiResult<Response> {
    if kept.fingerprint != fingerprint {
        return Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency_key_reused",
            "This Idempotency-Key was used for another request. Take a new one.",
        ));
    }
    let status = StatusCode::from_u16(kept.status).unwrap_or(StatusCode::OK);
    let mut response = (status, kept.body.clone()).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}
