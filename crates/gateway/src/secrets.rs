//! Client secrets: who may begin a session with one.
//!
//! A secret stands for its user, for one model on one channel. It is admitted as a copy of the user that
//! is narrowed to these, so that every rule on users' channels and models holds for it as it is: the
//! plan, messages of sockets, bodies. What follows the session is the parent key's: it is registered
//! under its digest and cut with it.

pub(crate) mod mint;
mod wish;

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aiproxy_config::model::{Limit, Snapshot, System, User};
use aiproxy_core::{ErrorKind, Secret};
use aiproxy_platform::placement::query_pairs;
use aiproxy_platform::routes;
use aiproxy_platform::session::{self, ModelPlace, Part};
use aiproxy_registry::minted::{Minted, Spent};
use aiproxy_routing::{Refusal, Target, admit};
use aiproxy_secrets::{Claims, Keyring, Kind, PREFIX};
use aiproxy_taps::socket::Caller;
use http::header::ORIGIN;
use http::{HeaderMap, Method, request};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use crate::phases::{Core, unix_now};
use crate::reading;

/// What sockets and calls of client secrets are checked against.
pub struct ClientSecrets {
    /// For as long as the configuration lists no keys.
    installed: Arc<Keyring>,
    /// The configuration's keys, and what was derived from them last.
    configured: Mutex<Option<Configured>>,
    minted: Minted,
}

type Configured = (Arc<[Secret]>, Arc<Keyring>);

impl fmt::Debug for ClientSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSecrets").finish_non_exhaustive()
    }
}

impl ClientSecrets {
    /// With the installation's own key, and what is known of secrets that count.
    #[must_use]
    pub fn new(installed: &Secret, minted: Minted) -> Self {
        Self { installed: Arc::new(Keyring::new([installed])), configured: Mutex::default(), minted }
    }

    /// The keys of this configuration.
    fn ring(&self, system: &System) -> Arc<Keyring> {
        let keys = &system.client_secrets.keys;
        if keys.is_empty() {
            return Arc::clone(&self.installed);
        }
        let mut configured = self.configured.lock().unwrap_or_else(PoisonError::into_inner);
        match &*configured {
            Some((known, ring)) if Arc::ptr_eq(known, keys) => Arc::clone(ring),
            _ => {
                let ring = Arc::new(Keyring::new(keys.iter()));
                *configured = Some((Arc::clone(keys), Arc::clone(&ring)));
                ring
            }
        }
    }
}

/// A client secret that may begin a session here and now.
#[derive(Debug)]
pub(crate) struct ClientSecret {
    /// What it says.
    pub(crate) claims: Claims,
    place: ModelPlace,
    /// The user in full breadth.
    parent: Arc<User>,
}

/// The user whose key this is, or the one for whom a client secret stands, with what it says.
///
/// # Errors
/// [`ErrorKind::InvalidKey`], [`ErrorKind::InvalidSecret`], [`ErrorKind::SecretOrphaned`].
pub(crate) fn authenticate<'s>(
    core: &Core,
    snapshot: &'s Snapshot,
    key: &str,
) -> Result<(&'s Arc<User>, Option<Claims>), Refusal> {
    match admit::authenticate(snapshot, key) {
        // A Proxy-Key may begin like that as well.
        Err(ErrorKind::InvalidKey) if key.starts_with(PREFIX) => {}
        user => return Ok((user?, None)),
    }
    let claims = core.secrets.ring(&snapshot.system).open(key).map_err(|error| {
        tracing::debug!(%error, "no client secret");
        ErrorKind::InvalidSecret
    })?;
    let user = snapshot.user_by_key(&claims.parent).filter(|user| *user.id == *claims.user);
    Ok((user.ok_or(ErrorKind::SecretOrphaned)?, Some(claims)))
}

/// Whether a secret may do what the request asks for; the user as narrow as the secret is.
///
/// # Errors
/// The reason; what concerns the parent key is the parent's own.
pub(crate) fn admitted(
    claims: Claims,
    user: &Arc<User>,
    socket: bool,
    (target, head): (&Target<'_>, &request::Parts),
) -> Result<(Arc<User>, Arc<ClientSecret>), Refusal> {
    if claims.expires <= unix_now() {
        return Err(ErrorKind::SecretExpired.into());
    }
    let query = head.uri.query();
    let place = scope(&claims, socket || head.method == Method::POST, socket, target, query)?;
    check_origin(&claims, &head.headers)?;
    if target.channel.as_deref().is_some_and(|named| named != claims.channel) {
        return Err(ErrorKind::SecretChannel.into());
    }
    let named = reading::models_in_query(query).into_iter().chain(routes::model_in_path(target.path));
    // A transcription's model is in its settings; another's name in the query would not be heard.
    if named.into_iter().any(|model| model != claims.model) {
        return Err(ErrorKind::SecretModel.into());
    }
    // What the parent may not do any more.
    admit::model(user, Some(&claims.model), true)?;
    check_settings(user, claims.settings.as_ref())?;
    let channels: Vec<_> = user.channels.iter().filter(|own| *own.id == *claims.channel).cloned().collect();
    if channels.is_empty() {
        return Err(ErrorKind::ChannelNotAllowed.into());
    }
    let models = Limit::of(vec![claims.model.clone()]);
    let narrow = User { channels, models, ..User::clone(user) };
    Ok((Arc::new(narrow), Arc::new(ClientSecret { claims, place, parent: Arc::clone(user) })))
}

/// Whether the user may use the models that settings name beside the session's own: nobody reads them on
/// their way to the platform.
///
/// # Errors
/// [`ErrorKind::ModelNotAllowed`].
fn check_settings(user: &User, settings: Option<&Map<String, Value>>) -> Result<(), Refusal> {
    let Some(settings) = settings.filter(|_| !user.models.is_none()) else { return Ok(()) };
    let mut caller = Caller::default();
    caller.feed(json!({ "session": settings }).to_string().as_bytes());
    caller.end();
    caller.take_models().iter().try_for_each(|model| admit::model(user, Some(model), true))
}

/// Where a request that begins a session of the secret's kind names its model.
fn scope(
    claims: &Claims,
    may_begin: bool,
    socket: bool,
    target: &Target<'_>,
    query: Option<&str>,
) -> Result<ModelPlace, Refusal> {
    let names = |wanted: &str| query_pairs(query).any(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let part = session::part(&target.normal, socket, names("call_id")).filter(|_| may_begin);
    let place = match part {
        Some(Part::Begins(place)) => place,
        // All who hold secrets of one user would reach each other's calls.
        Some(Part::Joins) => {
            return Err(Refusal::new(
                ErrorKind::SecretScope,
                "A client secret does not act upon calls. Use the Proxy-Key, on a server.",
            ));
        }
        None => return Err(ErrorKind::SecretScope.into()),
    };
    let translation = claims.kind == Kind::Translation;
    if session::translates(&target.normal) != translation
        || (names("intent") && claims.kind != Kind::Transcription)
    {
        let kind = claims.kind.as_str();
        let message = format!("This client secret is for a session of the type '{kind}'.");
        return Err(Refusal::new(ErrorKind::SecretScope, message));
    }
    Ok(place)
}

fn check_origin(claims: &Claims, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut given = headers.get_all(ORIGIN).iter();
    let allowed = match (given.next(), given.next()) {
        (Some(origin), None) => claims.origins.iter().any(|own| own.as_bytes() == origin.as_bytes()),
        _ => false,
    };
    if allowed || claims.origins.is_empty() {
        return Ok(());
    }
    Err(ErrorKind::SecretOriginNotAllowed.into())
}

/// The caller's query, with the secret's model where it names none.
pub(crate) fn query<'q>(secret: Option<&ClientSecret>, query: Option<&'q str>) -> Option<Cow<'q, str>> {
    let own = query.map(Cow::Borrowed);
    let Some(ClientSecret { claims, place: ModelPlace::Query(name), .. }) = secret else { return own };
    let names = |wanted: &str| query_pairs(query).any(|(name, _)| name == wanted);
    let more = match claims.kind {
        Kind::Transcription if names("intent") => return own,
        // The platform reads the model out of the settings.
        Kind::Transcription => "intent=transcription".to_owned(),
        _ if !reading::models_in_query(query).is_empty() => return own,
        _ => format!("{name}={}", utf8_percent_encode(&claims.model, NON_ALPHANUMERIC)),
    };
    Some(Cow::Owned(reading::with_parameter(query, &more)))
}

impl ClientSecret {
    /// Whose models may write down what the caller says. A session of speech has one for that beside its
    /// own, which pages choose (SDKs name one unasked): the parent's rules hold for it. A transcription has
    /// no other.
    pub(crate) fn aside(&self) -> Option<Arc<User>> {
        (self.claims.kind != Kind::Transcription).then(|| Arc::clone(&self.parent))
    }

    /// The session that it begins, in OpenAI's shape, without the model.
    pub(crate) fn session(&self) -> Map<String, Value> {
        let mut session = self.claims.settings.clone().unwrap_or_default();
        // Translations have a path of their own in place of a type.
        if self.claims.kind != Kind::Translation {
            session.insert("type".to_owned(), self.claims.kind.as_str().into());
        }
        session
    }

    /// What a socket's platform is told before the caller says anything: a message of JSON.
    pub(crate) fn prelude(&self) -> Option<Vec<u8>> {
        self.claims.settings.as_ref()?;
        let update = json!({ "type": "session.update", "session": self.session() });
        Some(update.to_string().into_bytes())
    }

    /// Uses it up, if it is for one session: when nothing but the platform can still refuse.
    ///
    /// # Errors
    /// [`ErrorKind::SecretUsed`], [`ErrorKind::Overloaded`].
    pub(crate) fn spend(&self, core: &Core) -> Result<(), ErrorKind> {
        let Claims { id, expires, single_use: true, .. } = &self.claims else { return Ok(()) };
        core.secrets.minted.spend(id, *expires, unix_now()).map_err(|spent| match spent {
            Spent::Already => ErrorKind::SecretUsed,
            Spent::Full => ErrorKind::Overloaded,
        })
    }
}

#[cfg(test)]
#[path = "secrets_tests.rs"]
mod tests;
