//! Authentication and permission.

use std::net::IpAddr;
use std::sync::Arc;

use aiproxy_config::model::{Snapshot, Status, User};
use aiproxy_core::{ErrorKind, KeyDigest};
use aiproxy_platform::{glob, path};

use crate::client_ip;
use crate::refusal::Refusal;

/// The user to whom the key belongs; whether it is any good is for [`check`].
///
/// # Errors
/// [`ErrorKind::InvalidKey`].
pub fn authenticate<'s>(snapshot: &'s Snapshot, key: &str) -> Result<&'s Arc<User>, ErrorKind> {
    snapshot.user_by_key(&KeyDigest::of(key.as_bytes())).ok_or(ErrorKind::InvalidKey)
}

/// Whether the user and its key are good at `now`: the user's status first, then the key's.
///
/// # Errors
/// [`ErrorKind::UserDisabled`], [`ErrorKind::KeyDisabled`], [`ErrorKind::KeyNotYetValid`],
/// [`ErrorKind::KeyExpired`].
pub fn check(user: &User, now: i64) -> Result<(), ErrorKind> {
    if user.status != Status::Active {
        return Err(ErrorKind::UserDisabled);
    }
    if user.key.status != Status::Active {
        return Err(ErrorKind::KeyDisabled);
    }
    if user.key.valid_from.is_some_and(|begin| begin > now) {
        return Err(ErrorKind::KeyNotYetValid);
    }
    if user.key.expires_at.is_some_and(|end| end <= now) {
        return Err(ErrorKind::KeyExpired);
    }
    Ok(())
}

/// Why a request that was admitted before may not go on: what has been withdrawn since. `channel` is
/// the one that serves it at the moment.
#[must_use]
pub fn withdrawn(snapshot: &Snapshot, key: &KeyDigest, channel: Option<&str>, now: i64) -> Option<ErrorKind> {
    let Some(user) = snapshot.user_by_key(key) else { return Some(ErrorKind::InvalidKey) };
    if let Err(kind) = check(user, now) {
        return Some(kind);
    }
    let channel = channel?;
    match user.channels.iter().find(|own| &*own.id == channel) {
        None => Some(ErrorKind::ChannelNotAllowed),
        Some(own) if own.status == Status::Disabled => Some(ErrorKind::ChannelUnavailable),
        Some(_) => None,
    }
}

/// Whether the key may be used from this address.
///
/// # Errors
/// [`ErrorKind::IpNotAllowed`], naming the address that was seen: behind a proxy that is not
/// trusted it is the proxy's, and the sentence lets people find that out.
pub fn address(user: &User, address: IpAddr) -> Result<(), Refusal> {
    if user.allow_ips.allows(|network| client_ip::within(std::slice::from_ref(network), address)) {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorKind::IpNotAllowed,
        format!("This Proxy-Key may not be used from your address ({address})."),
    ))
}

/// Whether the user may ask for this path, in its normal form.
///
/// # Errors
/// [`ErrorKind::EndpointNotAllowed`].
pub fn endpoint(user: &User, normal: &str) -> Result<(), Refusal> {
    if user.endpoints.allows(|pattern| path::matches(pattern, normal)) {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorKind::EndpointNotAllowed,
        format!("This Proxy-Key may not be used for the path '{normal}'."),
    ))
}

/// Whether each level's list has the model.
#[must_use]
pub fn allows_model(user: &User, model: &str) -> bool {
    user.models.allows(|pattern| glob::any(std::slice::from_ref(pattern), model))
}

/// Whether the user may ask for this model; `None` where the request names none.
///
/// # Errors
/// [`ErrorKind::ModelNotAllowed`].
pub fn model(user: &User, model: Option<&str>, required: bool) -> Result<(), Refusal> {
    if user.models.is_none() {
        return Ok(());
    }
    match model {
        Some(model) if allows_model(user, model) => Ok(()),
        Some(model) => Err(Refusal::new(
            ErrorKind::ModelNotAllowed,
            format!("This Proxy-Key may not use the model '{model}'."),
        )),
        None if required => Err(Refusal::new(
            ErrorKind::ModelNotAllowed,
            "This Proxy-Key is limited to certain models, and the request names none that AIProxy can read.",
        )),
        None => Ok(()),
    }
}
