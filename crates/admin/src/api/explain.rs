//! `POST explain`: why a request would be served or refused, step by step.
//!
//! Each step asks the function that the relay itself asks, on the snapshot of this moment.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use aiproxy_config::model::{Snapshot, User};
use aiproxy_core::{EntityKind, ErrorKind, Secret};
use aiproxy_platform::routes as paths;
use aiproxy_registry::health::Availability;
use aiproxy_routing::{Plan, Refusal, Target, admit};
use axum::Json;
use axum::extract::State as Shared;
use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::now;
use super::documents;
use super::error::{ApiError, ApiResult, Body, ErrorBody};
use crate::State;

pub(crate) fn router() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(explain))
}

/// A request that might come. One of `key_id`, `user` and `proxy_key` says who makes it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Question {
    /// A key by its id.
    key_id: Option<String>,
    /// A user by id: the key that is in use.
    #[schema(example = "zhangsan")]
    user: Option<String>,
    /// The Proxy-Key itself. It is looked up, and neither logged nor kept.
    #[schema(value_type = Option<String>, write_only)]
    proxy_key: Option<Hidden>,
    #[schema(example = "POST", default = "POST", max_length = 32)]
    method: Option<String>,
    /// As the caller would write it, `/@channel` before it where a channel is named; without query.
    #[schema(example = "/v1/chat/completions", max_length = 8192)]
    path: String,
    #[schema(example = "gpt-4o", max_length = 256)]
    model: Option<String>,
    /// The caller's address.
    #[schema(example = "10.1.2.3")]
    ip: Option<String>,
    /// The browser's origin.
    #[schema(example = "https://app.example")]
    origin: Option<String>,
}

/// A key that no `Debug` shows.
struct Hidden(Secret);

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}

/// Whether it would be served, and why.
#[derive(Debug, Serialize, ToSchema)]
struct Explanation {
    allowed: bool,
    /// Status of the refusal; none where a platform would be asked.
    #[schema(example = 403)]
    status: Option<u16>,
    /// Code of the refusal (`docs/status-codes.md`).
    #[schema(example = "model_not_allowed")]
    code: Option<&'static str>,
    /// What is looked at, in order.
    steps: Vec<Step>,
    /// The user's channels.
    channels: Vec<Channel>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExplainedStep)]
struct Step {
    /// `authenticate`, `user`, `key`, `validity`, `address`, `origin`, `endpoint`, `channels`, `model`,
    /// `plan` or `breaker`.
    #[schema(example = "model")]
    step: &'static str,
    outcome: Outcome,
    detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = StepOutcome)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Pass,
    Refuse,
    /// Nothing to look at, or refused before.
    Skip,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExplainedChannel)]
struct Channel {
    id: String,
    /// Its turn, 1 being the first; none where it would not be tried.
    would_be_tried: Option<u32>,
    why: String,
}

/// What has been looked at so far.
#[derive(Default)]
struct Look {
    steps: Vec<Step>,
    refusal: Option<ErrorKind>,
}

impl Look {
    fn pass(&mut self, step: &'static str, detail: impl Into<String>) {
        self.steps.push(Step { step, outcome: Outcome::Pass, detail: detail.into() });
    }

    fn skip(&mut self, step: &'static str, detail: impl Into<String>) {
        self.steps.push(Step { step, outcome: Outcome::Skip, detail: detail.into() });
    }

    /// Notes an outcome; what passes has this to say.
    fn note<T>(
        &mut self,
        step: &'static str,
        outcome: Result<T, Refusal>,
        detail: impl Into<String>,
    ) -> Option<T> {
        match outcome {
            Ok(value) => {
                self.pass(step, detail);
                Some(value)
            }
            Err(refusal) => {
                self.refusal = Some(refusal.kind);
                self.steps.push(Step {
                    step,
                    outcome: Outcome::Refuse,
                    detail: refusal.message().to_owned(),
                });
                None
            }
        }
    }
}

/// Tell why a request would be served or refused. Nothing is sent to a platform, and nothing is counted.
#[utoipa::path(post, path = "/api/v1/explain", tag = "explain", request_body = Question,
    responses(
        (status = 200, description = "Why.", body = Explanation),
        (status = 404, description = "There is no such key.", body = ErrorBody),
        (status = 422, description = "Fields that are not valid.", body = ErrorBody)))]
async fn explain(
    Shared(state): Shared<Arc<State>>,
    Body(question): Body<Question>,
) -> ApiResult<Json<Explanation>> {
    let asked = Asked::of(&question)?;
    let snapshot = state.registry.snapshot();
    let mut look = Look::default();
    let user = who(&state, &snapshot, &question).await?;
    let user = look.note("authenticate", user, "The key is known.");
    let channels = match user {
        Some(user) => walk(&state, &snapshot, &user, &asked, &mut look),
        None => Vec::new(),
    };
    let status = look.refusal.map(|kind| kind.status().as_u16());
    let code = look.refusal.map(ErrorKind::code);
    Ok(Json(Explanation { allowed: look.refusal.is_none(), status, code, steps: look.steps, channels }))
}

/// What a question asks, read.
struct Asked<'q> {
    method: Method,
    path: &'q str,
    model: Option<&'q str>,
    address: Option<IpAddr>,
    origin: Option<&'q str>,
    headers: HeaderMap,
}

impl<'q> Asked<'q> {
    fn of(question: &'q Question) -> ApiResult<Self> {
        let method = question.method.as_deref().unwrap_or("POST");
        let method = method.parse().map_err(|_| ApiError::field("method", "this is no method"))?;
        let address = match &question.ip {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| ApiError::field("ip", "this is no address"))?),
        };
        // A query may hold a key.
        let path = question.path.split('?').next().unwrap_or_default();
        let model = question.model.as_deref();
        Ok(Self {
            method,
            path,
            model,
            address,
            origin: question.origin.as_deref(),
            headers: HeaderMap::new(),
        })
    }
}

/// The user whose request it would be.
async fn who(
    state: &State,
    snapshot: &Snapshot,
    question: &Question,
) -> ApiResult<Result<Arc<User>, Refusal>> {
    let unknown = || Refusal::from(ErrorKind::InvalidKey);
    match (&question.key_id, &question.user, &question.proxy_key) {
        (Some(id), None, None) => {
            let key = documents::find(state, EntityKind::Key, id).await?;
            let digest = documents::digest(&key);
            Ok(digest.and_then(|digest| snapshot.user_by_key(&digest)).map(Arc::clone).ok_or_else(unknown))
        }
        (None, Some(id), None) => {
            // The best of its keys: one that would be taken now.
            let mut keys: Vec<_> = snapshot.users().filter(|user| *user.id == **id).collect();
            keys.sort_by_key(|user| admit::check(user, now()).is_err());
            let none = || Refusal::new(ErrorKind::InvalidKey, format!("No key of a user `{id}` is in use."));
            Ok(keys.first().map(|user| Arc::clone(user)).ok_or_else(none))
        }
        (None, None, Some(key)) => {
            Ok(admit::authenticate(snapshot, key.0.expose()).map(Arc::clone).map_err(Refusal::from))
        }
        _ => Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid",
            "Name one of `key_id`, `user` and `proxy_key`.",
        )),
    }
}

/// The steps in the order of the relay.
fn walk(state: &State, snapshot: &Snapshot, user: &User, asked: &Asked<'_>, look: &mut Look) -> Vec<Channel> {
    standing(state, user, look);
    match asked.address {
        _ if look.refusal.is_some() => look.skip("address", "It is refused before."),
        None => look.skip("address", "No address is given."),
        Some(address) => {
            let _ = look.note("address", admit::address(user, address), "Calls may come from this address.");
        }
    }
    origin(snapshot, asked, look);
    let target = match look.refusal {
        Some(_) => {
            look.skip("endpoint", "It is refused before.");
            None
        }
        None => {
            let target = Target::parse(asked.path, &asked.headers);
            let target = target.and_then(|target| admit::endpoint(user, &target.normal).map(|()| target));
            look.note("endpoint", target, "The path may be asked for.")
        }
    };
    let Some(target) = target else {
        for step in ["channels", "model", "plan", "breaker"] {
            look.skip(step, "It is refused before.");
        }
        return untried(user, "The request is refused before.");
    };
    let plan = Plan::for_path(user, &target);
    let refused = plan.as_ref().err().map(|refusal| refusal.message().to_owned());
    let count = plan.as_ref().map_or(0, |plan| plan.candidates.len());
    let plan = look.note("channels", plan, format!("{count} of the user's channels serve the path."));
    let Some(plan) = plan else {
        for step in ["model", "plan", "breaker"] {
            look.skip(step, "It is refused before.");
        }
        return untried(user, &refused.unwrap_or_default());
    };
    let serving: Vec<Arc<str>> = plan.candidates.iter().map(|it| Arc::clone(&it.channel.id)).collect();
    let required =
        !user.models.is_none() && asked.method == Method::POST && paths::runs_a_model(&target.normal);
    let in_path = paths::model_in_path(target.path);
    let model = in_path.as_deref().or(asked.model);
    let detail =
        model.map_or_else(|| "No model is named.".to_owned(), |model| format!("`{model}` may be asked for."));
    let allowed = admit::model(user, model, required);
    let Some(()) = look.note("model", allowed, detail) else {
        look.skip("plan", "It is refused before.");
        look.skip("breaker", "It is refused before.");
        return untried(user, "The request is refused before.");
    };
    let planned = plan.for_model(model);
    let count = planned.as_ref().map_or(0, |plan| plan.candidates.len());
    let turns = if user.shares.is_some() {
        " Those of the same order take turns by their weights: this is one draw."
    } else {
        ""
    };
    let detail = format!("{count} channels would be tried, in this order.{turns}");
    let Some(plan) = look.note("plan", planned, detail) else {
        look.skip("breaker", "It is refused before.");
        return untried(user, "It does not serve the model.");
    };
    by_health(state, user, &plan, &serving, look)
}

/// User, key and their validity: one function decides on all three.
fn standing(state: &State, user: &User, look: &mut Look) {
    let outcome =
        admit::check(user, now()).and_then(|()| state.registry.denials.of(user).map_or(Ok(()), Err));
    let steps = [
        ("user", "The user is active."),
        ("key", "The key is active."),
        ("validity", "The key is valid now."),
    ];
    let at = match outcome {
        Ok(()) => steps.len(),
        Err(ErrorKind::UserDisabled) => 0,
        Err(ErrorKind::KeyDisabled) => 1,
        Err(_) => 2,
    };
    for (n, (step, detail)) in steps.into_iter().enumerate() {
        match outcome {
            Err(kind) if n == at => drop(look.note::<()>(step, Err(kind.into()), detail)),
            _ if n > at => look.skip(step, "It is refused before."),
            _ => look.pass(step, detail),
        }
    }
}

/// Browsers ask in advance whether their page may call.
fn origin(snapshot: &Snapshot, asked: &Asked<'_>, look: &mut Look) {
    let Some(origin) = asked.origin else {
        return look.skip("origin", "No origin is given: no browser's page calls.");
    };
    if look.refusal.is_some() {
        return look.skip("origin", "It is refused before.");
    }
    let cors = snapshot.system.cors.as_ref();
    let allowed = cors.is_some_and(|cors| cors.origins.iter().any(|ours| ours == "*" || ours == origin));
    let outcome = if allowed { Ok(()) } else { Err(ErrorKind::OriginNotAllowed.into()) };
    look.note("origin", outcome, "Pages of this origin may call.");
}

fn untried(user: &User, why: &str) -> Vec<Channel> {
    let one = |channel: &Arc<aiproxy_config::model::Channel>| Channel {
        id: channel.id.to_string(),
        would_be_tried: None,
        why: why.to_owned(),
    };
    user.channels.iter().map(one).collect()
}

/// Channels that are well first, then the last resorts; those whose breaker is open are left out.
fn by_health(state: &State, user: &User, plan: &Plan, serving: &[Arc<str>], look: &mut Look) -> Vec<Channel> {
    let now = Instant::now();
    let health = |id: &Arc<str>| state.registry.health.get(id).availability(now);
    let of = |wanted: fn(&Availability) -> bool| {
        let channels = plan.candidates.iter().map(|candidate| &candidate.channel);
        channels.filter(move |channel| wanted(&health(&channel.id)))
    };
    let ready = of(|it| matches!(it, Availability::Ready));
    let resorts = of(|it| matches!(it, Availability::LastResort));
    let turns: Vec<&Arc<str>> = ready.chain(resorts).map(|channel| &channel.id).collect();
    let attempts = plan.candidates.first().map_or(1, |first| first.channel.retry.attempts.max(1));
    let outcome = if turns.is_empty() { Err(ErrorKind::ChannelUnavailable.into()) } else { Ok(()) };
    look.note("breaker", outcome, format!("{} of them may be used now.", turns.len()));
    let one = |channel: &Arc<aiproxy_config::model::Channel>| {
        let turn = turns.iter().position(|id| **id == channel.id);
        let planned = plan.candidates.iter().any(|candidate| candidate.channel.id == channel.id);
        let tried = turn.filter(|turn| *turn < attempts);
        let why = match (turn, health(&channel.id)) {
            _ if !serving.contains(&channel.id) => "It does not serve the path, or is out of service.",
            _ if !planned => "Another channel claims the model, or this one does not serve it.",
            (Some(_), _) if tried.is_none() => "As many others may be tried before (`retry.attempts`).",
            (Some(_), Availability::LastResort) => "It is unwell: a last resort.",
            (Some(0), _) => "It is asked first.",
            (Some(_), _) => "It is asked if those before it fail.",
            (None, _) => "Its breaker is open.",
        };
        let would_be_tried = tried.and_then(|turn| u32::try_from(turn + 1).ok());
        Channel { id: channel.id.to_string(), would_be_tried, why: why.to_owned() }
    };
    user.channels.iter().map(one).collect()
}
