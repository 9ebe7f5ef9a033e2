//! Minting client secrets, which AIProxy answers by itself: no platform is asked.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use aiproxy_config::model::{Channel, User};
use aiproxy_core::ErrorKind;
use aiproxy_core::ids::random_key;
use aiproxy_platform::classify;
use aiproxy_platform::session::{self, Mint};
use aiproxy_registry::Registry;
use aiproxy_registry::health::Availability;
use aiproxy_registry::live::Live;
use aiproxy_routing::{Plan, Refusal, Target, admit};
use aiproxy_secrets::{Claims, Kind};
use aiproxy_upstream::Incoming;
use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::check_settings;
use super::wish::Wish;
use crate::phases::{Core, unix_now};
use crate::reading::{self, Whole};
use crate::record::Record;

/// The longest body: the settings and what is around them, with room for white space.
const BODY: Whole =
    Whole { most: 64 * 1024, what: "a request for a client secret", plain: "Send plain JSON." };
/// What a head has to hold besides a client secret.
const HEAD_BYTES: usize = 4096;

/// A request for a client secret.
pub(crate) struct MintAsk<'a> {
    row: &'static Mint,
    target: &'a Target<'a>,
    headers: &'a HeaderMap,
}

impl<'a> MintAsk<'a> {
    /// The request, if it is one.
    pub(crate) fn of(method: &Method, target: &'a Target<'a>, headers: &'a HeaderMap) -> Option<Self> {
        let row = Mint::of(&target.normal).filter(|_| method == Method::POST)?;
        Some(Self { row, target, headers })
    }

    /// Mints one for this user; the answer's JSON.
    ///
    /// # Errors
    /// [`ErrorKind::BadRequest`] with what is wrong and where, [`ErrorKind::SecretLimit`], and what the
    /// plan of a session would be refused with.
    pub(crate) async fn answer(
        &self,
        core: &Core,
        record: &mut Record,
        (user, live): (&User, &Live),
        body: &mut Option<Incoming>,
    ) -> Result<Bytes, Refusal> {
        let snapshot = core.registry.snapshot();
        let (bounds, limits) = (&snapshot.system.client_secrets, &snapshot.system.limits);
        let body = reading::whole(body, self.headers, limits, BODY).await?;
        let usual = if session::translates(&self.target.normal) { Kind::Translation } else { Kind::Realtime };
        let wish = Wish::parse(&body, usual, bounds.max_ttl)
            .map_err(|wrong| Refusal::new(ErrorKind::BadRequest, wrong))?;
        let (channel, model) = self.choose(&core.registry, user, &wish)?;
        live.set_channel(&channel.id);
        live.set_model(&model);
        record.channel(&channel);
        record.model(model.clone());
        let now = unix_now();
        let claims = Claims {
            id: random_key("cs_", 22),
            user: user.id.to_string(),
            parent: user.key.digest,
            channel: channel.id.to_string(),
            model,
            kind: wish.kind,
            settings: wish.settings,
            origins: wish.origins,
            issued: now,
            expires: now.saturating_add_unsigned(wish.seconds),
            single_use: wish.single_use,
        };
        let sealed = core.secrets.ring(&snapshot.system).seal(&claims).ok_or(ErrorKind::Internal)?;
        if sealed.expose().len() + HEAD_BYTES > limits.header_bytes {
            return Err(Refusal::new(
                ErrorKind::BadRequest,
                "session: the settings are so large that a head of limits.header_bytes could not hold the \
                 client secret. Send some of them in the session.",
            ));
        }
        core.secrets.minted.count(&user.key.digest, claims.expires, now, bounds.max_per_key).map_err(
            |seconds| Refusal { retry_after: Some(seconds.max(1)), ..ErrorKind::SecretLimit.into() },
        )?;
        tracing::debug!(request = %record.request_id(), secret = claims.id, "client secret minted");
        let answer = json!({
            "value": sealed.expose(),
            "expires_at": claims.expires,
            "session": described(&claims),
            "aiproxy": {
                "id": claims.id,
                "channel": claims.channel,
                "origins": claims.origins,
                "single_use": claims.single_use,
            },
        });
        Ok(Bytes::from(answer.to_string()))
    }

    /// The channel and the model that the secret is for.
    fn choose(
        &self,
        registry: &Registry,
        user: &User,
        wish: &Wish,
    ) -> Result<(Arc<Channel>, String), Refusal> {
        let named = match (self.target.channel.as_deref(), wish.channel.as_deref()) {
            (Some(target), Some(own)) if target != own => {
                return Err(Refusal::new(
                    ErrorKind::BadRequest,
                    "aiproxy.channel: the path or the header x-aiproxy-channel names another channel.",
                ));
            }
            (target, own) => target.or(own),
        };
        let mut plan = self.plan(user, named, wish.kind == Kind::Translation)?;
        if wish.settings.is_some() {
            plan.candidates.retain(|candidate| session::takes_settings(candidate.channel.platform.id));
            if plan.candidates.is_empty() {
                return Err(Refusal::new(
                    ErrorKind::BadRequest,
                    "session: sessions of this channel's platform cannot be given settings in advance. Leave \
                     only type and model, and send the rest in the session.",
                ));
            }
        }
        let model = match &wish.model {
            Some(model) => model.clone(),
            None => {
                let usual = plan.candidates.iter().find_map(|candidate| {
                    Some((Arc::clone(&candidate.channel.id), candidate.channel.default_model.clone()?))
                });
                let (channel, model) = usual.ok_or_else(|| {
                    Refusal::new(
                        ErrorKind::BadRequest,
                        "session.model: name the model; no channel that serves this has a default_model.",
                    )
                })?;
                plan.candidates.retain(|candidate| candidate.channel.id == channel);
                model.to_string()
            }
        };
        admit::model(user, Some(&model), true)?;
        check_settings(user, wish.settings.as_ref())?;
        let plan = plan.for_model(Some(&model))?;
        Ok((healthiest(&plan, registry)?, model))
    }

    /// Channels on which such sessions can begin, in the user's order.
    fn plan(&self, user: &User, named: Option<&str>, translations: bool) -> Result<Plan, Refusal> {
        let mut plan: Option<Plan> = None;
        let mut refused = None;
        for path in self.row.paths(translations) {
            let target = Target {
                channel: named.map(Cow::Borrowed),
                path,
                normal: Cow::Borrowed(path),
                route: classify(path, |_| false),
            };
            match (Plan::for_path(user, &target), &mut plan) {
                (Ok(more), None) => plan = Some(more),
                (Ok(more), Some(plan)) => {
                    for candidate in more.candidates {
                        if plan.candidates.iter().all(|have| have.channel.id != candidate.channel.id) {
                            plan.candidates.push(candidate);
                        }
                    }
                }
                (Err(refusal), _) => drop(refused.get_or_insert(refusal)),
            }
        }
        let Some(mut plan) = plan else { return Err(refused.unwrap_or(ErrorKind::NoChannel.into())) };
        let place = |channel: &Channel| user.channels.iter().position(|own| own.id == channel.id);
        plan.candidates.sort_by_key(|candidate| place(&candidate.channel));
        Ok(plan)
    }
}

/// The first channel that is well; else the first that is not left alone.
fn healthiest(plan: &Plan, registry: &Registry) -> Result<Arc<Channel>, ErrorKind> {
    let now = Instant::now();
    let find = |wanted: fn(&Availability) -> bool| {
        let availability = |channel: &Channel| registry.health.get(&channel.id).availability(now);
        let mut channels = plan.candidates.iter().map(|candidate| &candidate.channel);
        channels.find(|channel| wanted(&availability(channel))).cloned()
    };
    find(|availability| matches!(availability, Availability::Ready))
        .or_else(|| find(|availability| matches!(availability, Availability::LastResort)))
        .ok_or(ErrorKind::ChannelUnavailable)
}

/// The session as the answer describes it, in OpenAI's shape.
fn described(claims: &Claims) -> Value {
    let object = match claims.kind {
        Kind::Realtime => "realtime.session",
        Kind::Transcription => "realtime.transcription_session",
        Kind::Translation => "realtime.translation_session",
    };
    let mut session = claims.settings.clone().unwrap_or_default();
    session.insert("type".to_owned(), claims.kind.as_str().into());
    session.insert("object".to_owned(), object.into());
    session.insert("id".to_owned(), claims.id.replacen("cs_", "sess_", 1).into());
    if claims.kind != Kind::Transcription {
        session.insert("model".to_owned(), claims.model.clone().into());
    }
    if claims.kind == Kind::Translation {
        session.insert("expires_at".to_owned(), claims.expires.into());
    }
    Value::Object(session)
}
