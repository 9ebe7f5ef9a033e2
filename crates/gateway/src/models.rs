//! `GET /v1/models`: the union of what the caller may use.

use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use aiproxy_config::model::{Channel, User};
use aiproxy_core::ErrorKind;
use aiproxy_platform::{Family, glob};
use aiproxy_registry::health::Verdict;
use aiproxy_routing::admit;
use aiproxy_routing::{Candidate, Plan, Refusal, Target};
use aiproxy_upstream::{BodyWatch, Source};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::account;
use crate::attempts::{Turn, verdict};
use crate::phases::Core;

/// How long a channel may take: the others' models are not to wait for one that hangs.
const LIST_TIME: Duration = Duration::from_secs(10);
/// The longest list of one channel.
const LIST_BYTES: usize = 8 << 20;

/// Whether the caller's list differs from what one channel would answer.
pub(crate) fn is_union(method: &Method, target: &Target<'_>, plan: &Plan, user: &User) -> bool {
    method == Method::GET
        && target.normal == "/v1/models"
        && matches!(target.route.family, Family::OpenAi | Family::Anthropic)
        && (plan.candidates.len() > 1
            || !user.models.is_none()
            || plan.candidates.iter().any(|candidate| candidate.channel.models.is_some()))
}

/// Asks all channels of the plan at once and merges what they answer, in the plan's order, less
/// what the caller may not use. A channel that fails is left out.
///
/// # Errors
/// [`ErrorKind::ChannelUnavailable`] when all fail.
pub(crate) async fn union(
    core: &Core,
    plan: &Plan,
    user: &User,
    headers: &HeaderMap,
    (query, key): (Option<&str>, &str),
    family: Family,
) -> Result<Bytes, Refusal> {
    let lists = join_all(plan.candidates.iter().map(|candidate| async move {
        let list = timeout(LIST_TIME, list(core, candidate, headers.clone(), query, key)).await.ok()?;
        list.map(|list| (&*candidate.channel, list))
    }))
    .await;
    if lists.iter().all(Option::is_none) {
        return Err(ErrorKind::ChannelUnavailable.into());
    }
    let mut seen = HashSet::new();
    let mut data = Vec::new();
    for (channel, list) in lists.into_iter().flatten() {
        for model in list {
            let Some(id) = model.get("id").and_then(Value::as_str) else { continue };
            if allowed(id, channel, user) && seen.insert(id.to_owned()) {
                data.push(model);
            }
        }
    }
    let body = if family == Family::Anthropic {
        let id = |model: Option<&Value>| model.map_or(Value::Null, |model| model["id"].clone());
        json!({ "first_id": id(data.first()), "last_id": id(data.last()), "has_more": false, "data": data })
    } else {
        json!({ "object": "list", "data": data })
    };
    Ok(Bytes::from(body.to_string()))
}

fn allowed(id: &str, channel: &Channel, user: &User) -> bool {
    channel.models.as_ref().is_none_or(|patterns| glob::any(patterns, id)) && admit::allows_model(user, id)
}

/// One channel's list; none when it fails.
async fn list(
    core: &Core,
    candidate: &Candidate,
    mut headers: HeaderMap,
    query: Option<&str>,
    key: &str,
) -> Option<Vec<Value>> {
    let channel = &candidate.channel;
    let mut turn = Turn::take(core, channel)?;
    let slot = core.pool.slot(channel);
    let uri = slot.prepared().target(&candidate.path, query, key).ok()?;
    slot.prepared().swap_headers(&mut headers, key, true);
    let watch = BodyWatch::new();
    let mut request = Request::new(Source::empty().attempt(Rc::clone(&watch)));
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    let answer = match slot.send(request, &watch).await {
        Ok(answer) => answer,
        Err(error) => {
            turn.report(Verdict::Bad);
            tracing::warn!(channel = %channel.id, %error, "no list of models from the channel");
            return None;
        }
    };
    let status = answer.response.status();
    let mut body = answer.response.into_body();
    if account::check(channel, status, &mut body).await.is_err() {
        turn.rejected(status);
        return None;
    }
    turn.report(verdict(status));
    if !status.is_success() {
        return None;
    }
    let bytes =
        timeout(channel.timeouts.idle, Limited::new(body, LIST_BYTES).collect()).await.ok()?.ok()?.to_bytes();
    answer.lease.release();
    match serde_json::from_slice::<Value>(&bytes).ok()?.get_mut("data")?.take() {
        Value::Array(list) => Some(list),
        _ => None,
    }
}
