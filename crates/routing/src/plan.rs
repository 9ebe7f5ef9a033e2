//! Channels to try, in order.

use std::sync::Arc;

use aiproxy_config::model::{Channel, Share, Status, User};
use aiproxy_core::ErrorKind;
use aiproxy_core::ids::draw;
use aiproxy_platform::{glob, path};
use smallvec::SmallVec;

use crate::refusal::Refusal;
use crate::target::Target;

/// One channel that may serve the request.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The channel.
    pub channel: Arc<Channel>,
    /// The raw path to ask it for: the caller's, rewritten where the channel serves the family
    /// under another prefix, behind the path of its base URL.
    pub path: String,
}

/// The decision for one request.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Channels to try, in order; never empty.
    pub candidates: SmallVec<[Candidate; 2]>,
    /// Whether the caller named the channel.
    pub named: bool,
}

/// Why one channel is passed over; ordered by how much it tells the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Miss {
    Family,
    Denied,
    Forbidden(&'static str),
    Disabled,
}

impl Plan {
    /// The user's channels that serve this path, in the order of the user's list; those of equal order
    /// take turns by their weights.
    ///
    /// # Errors
    /// [`ErrorKind::ChannelNotAllowed`] for a named channel that is not the user's (whether it
    /// exists or not), [`ErrorKind::PathForbidden`], [`ErrorKind::ChannelUnavailable`],
    /// [`ErrorKind::NoChannel`].
    pub fn for_path(user: &User, target: &Target<'_>) -> Result<Self, Refusal> {
        let named = target.channel.as_deref();
        if let Some(name) = named
            && !user.channels.iter().any(|channel| &*channel.id == name)
        {
            return Err(ErrorKind::ChannelNotAllowed.into());
        }
        let mut candidates = SmallVec::new();
        let mut worst = Miss::Family;
        for channel in user.channels.iter().filter(|channel| named.is_none_or(|name| &*channel.id == name)) {
            match upstream_path(channel, target, named.is_some()) {
                Ok(path) => candidates.push(Candidate { channel: Arc::clone(channel), path }),
                Err(miss) => worst = worst.max(miss),
            }
        }
        if candidates.is_empty() {
            return Err(explain(worst, target));
        }
        if let Some(shares) = &user.shares {
            take_turns(&mut candidates, user, shares);
        }
        Ok(Self { candidates, named: named.is_some() })
    }

    /// Narrows the plan to channels that claim the model. Patterns of the platform table choose
    /// between channels, they do not forbid: where nobody claims a model, channels without a list
    /// of their own stay, and the platform will say whether it knows it.
    ///
    /// # Errors
    /// [`ErrorKind::NoChannel`].
    pub fn for_model(mut self, model: Option<&str>) -> Result<Self, Refusal> {
        let Some(model) = model else { return Ok(self) };
        let claims = |channel: &Channel| match &channel.models {
            Some(own) => glob::any(own, model),
            None => glob::any(channel.platform.models, model),
        };
        if self.candidates.iter().any(|candidate| claims(&candidate.channel)) {
            self.candidates.retain(|candidate| claims(&candidate.channel));
        } else {
            self.candidates.retain(|candidate| candidate.channel.models.is_none());
        }
        if self.candidates.is_empty() {
            return Err(Refusal::new(
                ErrorKind::NoChannel,
                format!("None of your channels serves the model '{model}'."),
            ));
        }
        Ok(self)
    }
}

/// Puts channels of the same order into an order that falls out by their weights.
fn take_turns(candidates: &mut [Candidate], user: &User, shares: &[Share]) {
    let share = |candidate: &Candidate| {
        let place = user.channels.iter().position(|own| own.id == candidate.channel.id);
        place.and_then(|place| shares.get(place)).copied()
    };
    let order = |candidate: &Candidate| share(candidate).map(|share| share.order);
    for tier in candidates.chunk_by_mut(|a, b| order(a) == order(b)) {
        for from in 0..tier.len().saturating_sub(1) {
            let rest = &tier[from..];
            let weight = |candidate: &Candidate| share(candidate).map_or(1, |share| u64::from(share.weight));
            let total: u64 = rest.iter().map(weight).sum();
            let mut drawn = draw() % total.max(1);
            let chosen = rest.iter().position(|candidate| {
                let weight = weight(candidate);
                let here = drawn < weight;
                drawn = drawn.saturating_sub(weight);
                here
            });
            tier[from..=from + chosen.unwrap_or(0)].rotate_right(1);
        }
    }
}

/// The path to ask this channel for, or why it does not serve the request.
fn upstream_path(channel: &Channel, target: &Target<'_>, named: bool) -> Result<String, Miss> {
    // Rules first: a switched-off channel must not make a forbidden path look like an outage.
    if let Some(rule) = channel.platform.forbids(&target.normal) {
        return Err(Miss::Forbidden(rule.why));
    }
    let covers =
        |patterns: &[String], normal: &str| patterns.iter().any(|pattern| path::matches(pattern, normal));
    if covers(&channel.deny_paths, &target.normal)
        || (!channel.allow_paths.is_empty() && !covers(&channel.allow_paths, &target.normal))
    {
        return Err(Miss::Denied);
    }
    let moved = match channel.path_rewrite.iter().find_map(|(from, to)| replace(target.path, from, to)) {
        Some(moved) => Some(moved),
        None => match channel.platform.serves(target.route.family) {
            Some(serve) => match serve.rewrite {
                Some((from, to)) => Some(replace(target.path, from, to).ok_or(Miss::Family)?),
                None => None,
            },
            // Who names a channel knows its paths.
            None if named => None,
            None => return Err(Miss::Family),
        },
    };
    let tail = moved.as_deref().unwrap_or(target.path);
    let mut joined = String::with_capacity(channel.base.path.len() + tail.len());
    joined.push_str(&channel.base.path);
    joined.push_str(tail);
    if joined != target.path {
        // What the platform will see has to obey the rules too.
        let normal = path::normalize(&joined).map_err(|_| Miss::Family)?;
        // Behind a gateway with a base path of its own, the platform sees only the end of it.
        for (at, _) in normal.match_indices('/') {
            if let Some(rule) = channel.platform.forbids(&normal[at..]) {
                return Err(Miss::Forbidden(rule.why));
            }
            if covers(&channel.deny_paths, &normal[at..]) {
                return Err(Miss::Denied);
            }
        }
    }
    if channel.status != Status::Active {
        return Err(Miss::Disabled);
    }
    Ok(joined)
}

/// Replaces a prefix of whole segments. The path's segments are compared in their normal form, as
/// the rules are: a caller who writes `/V1` asks for the same.
fn replace(path: &str, from: &str, to: &str) -> Option<String> {
    let mut rest = path;
    for want in from.split('/').skip(1) {
        let tail = rest.strip_prefix('/')?;
        let end = tail.find('/').unwrap_or(tail.len());
        let normal = path::normalize(&rest[..=end]).ok()?;
        if !normal[1..].eq_ignore_ascii_case(want) {
            return None;
        }
        rest = &tail[end..];
    }
    Some(format!("{to}{rest}"))
}

fn explain(miss: Miss, target: &Target<'_>) -> Refusal {
    match miss {
        Miss::Disabled => {
            Refusal::new(ErrorKind::ChannelUnavailable, "The channel for this request is switched off.")
        }
        Miss::Forbidden(why) => Refusal::new(
            ErrorKind::PathForbidden,
            format!("This path is not available through AIProxy: it {why}."),
        ),
        Miss::Denied => {
            Refusal::new(ErrorKind::PathForbidden, "The channel's configuration does not allow this path.")
        }
        Miss::Family => match &target.channel {
            Some(_) => {
                Refusal::new(ErrorKind::NoChannel, "The channel that you named does not serve this path.")
            }
            None => Refusal::new(ErrorKind::NoChannel, "None of your channels serves this path."),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use aiproxy_config::Source;
    use http::HeaderMap;

    use super::*;

    #[test]
    fn channels_of_one_order_take_turns_by_their_weights() {
        let text = "\
users: {u: {proxy_key: pk_12345678, channels: [{id: a, order: 1, weight: 3}, {id: b, order: 1}, {id: last, order: 2}]}}
channels:
  a: {platform: openai, base_url: 'http://127.0.0.1:1', api_key: ka}
  b: {platform: openai, base_url: 'http://127.0.0.1:1', api_key: kb}
  last: {platform: openai, base_url: 'http://127.0.0.1:1', api_key: kc}
";
        let source = Source { name: "test".into(), base: "/".into() };
        let snapshot = aiproxy_config::load_str(text, &source, &|_| None).unwrap().snapshot;
        let user = snapshot.users().next().unwrap();
        let headers = HeaderMap::new();
        let target = Target::parse("/v1/models", &headers).unwrap();
        let mut first: HashMap<String, usize> = HashMap::new();
        for _ in 0..4000 {
            let plan = Plan::for_path(user, &target).unwrap();
            let ids: Vec<&str> = plan.candidates.iter().map(|it| &*it.channel.id).collect();
            assert_eq!((ids.len(), ids[2]), (3, "last"), "{ids:?}");
            *first.entry(ids[0].to_owned()).or_default() += 1;
        }
        // 3000 and 1000, give or take five deviations.
        assert!((2860..3140).contains(&first["a"]), "{first:?}");
        assert_eq!(first["a"] + first["b"], 4000);
    }

    #[test]
    fn prefixes_are_replaced_by_whole_segments_in_any_spelling() {
        for (path, from, to, expected) in [
            ("/v1/models", "/v1", "/compatible-mode/v1", Some("/compatible-mode/v1/models")),
            ("/V1/Models", "/v1", "/openai/v1", Some("/openai/v1/Models")),
            ("/%761/models", "/v1", "/openai/v1", Some("/openai/v1/models")),
            ("/v1", "/v1", "/api/v3", Some("/api/v3")),
            ("/v1/", "/v1", "/api/v3", Some("/api/v3/")),
            ("/v1beta/models", "/v1", "/api/v3", None),
            ("/v2/models", "/v1", "/api/v3", None),
            ("/", "/v1", "/api/v3", None),
            ("/a/b/c", "/a/b", "/x", Some("/x/c")),
            ("/a", "/a/b", "/x", None),
            ("/v1/models", "", "/base", Some("/base/v1/models")),
        ] {
            assert_eq!(replace(path, from, to).as_deref(), expected, "{path} from {from} to {to}");
        }
    }
}
