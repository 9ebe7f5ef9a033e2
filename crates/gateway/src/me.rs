//! What a user may know of itself: `GET /aiproxy/me` on the callers' listeners, with the Proxy-Key.

use std::sync::Arc;

use aiproxy_config::model::{Status, User};
use aiproxy_core::ErrorKind;
use aiproxy_core::ports::OwnUsage;
use aiproxy_routing::Refusal;
use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

/// The path, in its normal form.
pub(crate) const PATH: &str = "/aiproxy/me";

/// The answer's JSON: profile, key, limits, and what the user has used.
///
/// # Errors
/// [`ErrorKind::MethodNotAllowed`] for anything but a look.
pub(crate) async fn answer(
    method: &Method,
    user: &User,
    usage: Option<&Arc<dyn OwnUsage>>,
) -> Result<Bytes, Refusal> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Refusal::new(ErrorKind::MethodNotAllowed, "This path answers GET and HEAD."));
    }
    let used = match usage {
        Some(usage) => usage.of(Arc::clone(&user.id)).await,
        None => Value::Null,
    };
    let mut answer = profile(user);
    answer["usage"] = used;
    Ok(Bytes::from(answer.to_string()))
}

fn profile(user: &User) -> Value {
    let key = &user.key;
    let moment = |seconds: Option<i64>| {
        seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()).map(|moment| moment.to_string())
    };
    let lists = |lists: &[Vec<String>]| Value::from(lists.to_vec());
    let networks: Vec<Vec<String>> =
        user.allow_ips.lists().iter().map(|list| list.iter().map(ToString::to_string).collect()).collect();
    let channels: Vec<Value> = user
        .channels
        .iter()
        .map(|channel| json!({ "id": &*channel.id, "name": channel.name, "platform": channel.platform.id }))
        .collect();
    json!({
        "user": {
            "id": &*user.id,
            "name": user.name,
            "department": user.department,
            "groups": user.groups.iter().map(|group| &**group).collect::<Vec<_>>(),
        },
        "key": {
            "prefix": &*key.tag.prefix,
            "digest": &*key.tag.digest,
            "status": if key.status == Status::Active { "active" } else { "disabled" },
            "valid_from": moment(key.valid_from),
            "expires_at": moment(key.expires_at),
        },
        "channels": channels,
        // Each list has to allow what is asked for.
        "limits": {
            "models": lists(user.models.lists()),
            "endpoints": lists(user.endpoints.lists()),
            "allow_ips": networks,
        },
    })
}
