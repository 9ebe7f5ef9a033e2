//! Whose object a request speaks of, and where it lives.
//!
//! On a shared account an object is there for whoever made it. What a request refers to is read
//! from its path, its query and its body; each id is held against the map of owners; and the
//! answer is either that the request may go, and to which channel, or that there is no such
//! object. Nobody can tell somebody else's object from one that does not exist.

mod watch;

use std::sync::Arc;

use aiproxy_config::model::{Channel, Ownership, Status, User};
use aiproxy_core::ErrorKind;
use aiproxy_platform::objects::{self, Create, Kind, List, Place};
use aiproxy_platform::placement::query_pairs;
use aiproxy_platform::{Family, classify, path};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;
use smallvec::SmallVec;

pub(crate) use watch::Watch;

use crate::plan::Plan;
use crate::refusal::Refusal;
use crate::target::Target;

/// Query parameters that hold ids, besides the members that a body may have.
const CURSORS: &[&str] = &["after", "before", "after_id", "before_id", "id"];

/// Headers with which some platforms, Google's among them, let a request change its method.
const OVERRIDES: &[&str] = &["x-http-method-override", "x-http-method", "x-method-override"];

/// An id that a request speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The id, exactly as it stands there.
    pub id: Box<str>,
    /// Whether an unknown id is refused. Elsewhere it may be any text.
    pub must_be_known: bool,
}

/// What a request's head says about objects.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    /// Ids in path and query.
    pub references: SmallVec<[Reference; 2]>,
    /// What is to be done with the answer.
    pub task: Task,
    /// Whether the body may refer to objects.
    pub body_refers: bool,
    /// Why the request could be understood in another way than AIProxy does, as far as its headers
    /// say so.
    pub unreadable: Option<&'static str>,
}

/// What an answer means for the map of owners.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Task {
    /// Nothing.
    #[default]
    Nothing,
    /// It names a new object.
    Made(&'static Kind, &'static Create),
    /// It is an object that may name others: its kind and id.
    Read(&'static Kind, String),
    /// It lists objects, everybody's.
    List(&'static Kind, &'static List),
    /// It says that the object with this id is gone.
    Gone(String),
}

impl Claim {
    /// Reads method, path, query and headers. The path counts as the caller wrote it and as each
    /// channel of the plan will see it.
    #[must_use]
    pub fn of(
        method: &Method,
        target: &Target<'_>,
        plan: &Plan,
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> Self {
        let mut claim = Self::default();
        claim.read_path(method, target.path, &target.normal, headers);
        for candidate in plan.candidates.iter().filter(|candidate| candidate.path != target.path) {
            if let Ok(normal) = path::normalize(&candidate.path) {
                claim.read_path(method, &candidate.path, &normal, headers);
            }
        }
        for (name, value) in query_pairs(query) {
            let value = percent_decode_str(value).decode_utf8_lossy();
            let named = CURSORS.contains(&&*name) || objects::is_member(&name);
            if (named && !value.is_empty() && value.len() <= objects::ID_BYTES)
                || objects::looks_like_id(&value)
            {
                claim.refer(&value, false);
            }
        }
        let body = headers.contains_key(TRANSFER_ENCODING)
            || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
        claim.body_refers = *method != Method::GET
            && *method != Method::HEAD
            && objects::may_refer(&target.normal)
            && (body || *method != Method::DELETE);
        // By the path alone: a header that suggests another family must not switch the search off.
        let family = classify(&target.normal, |_| false).family;
        let keeps = !matches!(family, Family::Deepgram | Family::ElevenLabs | Family::Other);
        if claim.body_refers && body && keeps {
            claim.unreadable = unreadable(headers);
        }
        // A platform that obeys it would list or delete what was checked as something else.
        if OVERRIDES.iter().any(|name| headers.contains_key(*name)) {
            claim.body_refers = true;
            claim.unreadable = Some("it has a header that overrides its method");
        }
        claim
    }

    fn read_path(&mut self, method: &Method, raw: &str, normal: &str, headers: &HeaderMap) {
        let decoded = |segment: &str| percent_decode_str(segment).decode_utf8_lossy().into_owned();
        let located = objects::locate(normal, |name| headers.contains_key(name));
        let mut own = None;
        if let Some((kind, Place::Item { segment, below })) = located
            && let Some(text) = raw.split('/').skip(1).nth(segment)
        {
            let id = kind.id_in_path(&decoded(text));
            self.refer(&id, true);
            own = Some(segment);
            self.set(match *method {
                Method::DELETE if below == 0 => Task::Gone(id),
                Method::GET if below == 0 && !kind.implies.is_empty() => Task::Read(kind, id),
                Method::POST if below <= 1 && !kind.implies.is_empty() => Task::Read(kind, id),
                _ => Task::Nothing,
            });
        }
        // Files of a vector store and the like: their owner is that of what they are in, but
        // nobody gets at them through something else.
        for (at, segment) in raw.split('/').skip(1).enumerate().filter(|(at, _)| Some(*at) != own) {
            let id = decoded(segment);
            if own.is_some_and(|own| at > own) || objects::looks_like_id(&id) {
                self.refer(&id, false);
            }
        }
        match (method, located) {
            (&Method::GET, Some((kind, Place::Collection))) => self.set(Task::List(kind, &kind.list)),
            (&Method::POST, _) => {
                let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
                if let Some((kind, create)) = objects::creates(normal, header) {
                    self.set(Task::Made(kind, create));
                }
            }
            _ => {}
        }
    }

    /// What makes an object counts more than what reads one; else the first counts.
    fn set(&mut self, task: Task) {
        if matches!(task, Task::Made(..)) || self.task == Task::Nothing {
            self.task = task;
        }
    }

    fn refer(&mut self, id: &str, must_be_known: bool) {
        match self.references.iter_mut().find(|reference| *reference.id == *id) {
            Some(reference) => reference.must_be_known |= must_be_known,
            None => self.references.push(Reference { id: id.into(), must_be_known }),
        }
    }
}

impl Task {
    /// The task once the body has been seen: what the platform does not store (`store`) belongs to
    /// nobody.
    #[must_use]
    pub fn given(self, stored: Option<bool>) -> Self {
        match self {
            Self::Made(_, create) if create.stored.is_some_and(|without| !stored.unwrap_or(without)) => {
                Self::Nothing
            }
            task => task,
        }
    }

    /// Whether AIProxy has to read the answer, so that it must not be compressed.
    #[must_use]
    pub const fn reads(&self) -> bool {
        matches!(self, Self::Made(..) | Self::Read(..) | Self::List(..))
    }
}

/// Why platforms may understand a body in another way than AIProxy does.
fn unreadable(headers: &HeaderMap) -> Option<&'static str> {
    let mut kinds = headers.get_all(CONTENT_TYPE).iter();
    let kind = kinds.next()?.to_str().unwrap_or_default();
    if kinds.next().is_some() {
        return Some("it has two content types");
    }
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // Whatever else it is called, AIProxy looks whether it is JSON.
    let foreign = kind == "application/x-www-form-urlencoded"
        || (kind.starts_with("multipart/") && kind != "multipart/form-data");
    foreign.then_some("its body is of a type in which AIProxy cannot look for ids; send JSON")
}

/// The owner of an object, and the channel that it lives on.
pub type Home = (Arc<str>, Arc<str>);

/// Who asks, and what is known.
pub struct Asker<'a> {
    /// Id of the user.
    pub user: &'a str,
    /// Owner and channel of an object.
    pub owner: &'a dyn Fn(&str) -> Option<Home>,
    /// How a channel keeps its users' objects apart. A channel that is not configured any more
    /// keeps them apart too.
    pub mode: &'a dyn Fn(&str) -> Ownership,
    /// Whether the user shares a group with this one.
    pub mates: &'a dyn Fn(&str) -> bool,
}

impl Asker<'_> {
    /// Whether the object with this owner and channel is there for the one who asks.
    #[must_use]
    pub fn sees(&self, owner: &str, channel: &str) -> bool {
        owner == self.user
            || match (self.mode)(channel) {
                Ownership::Enforce => false,
                Ownership::Shared => (self.mates)(owner),
                Ownership::Off => true,
            }
    }
}

/// Whether a request may go, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Go {
        /// The channel on which its objects live.
        channel: Option<Arc<str>>,
        /// It names an object that nobody is known to have made: only a channel that keeps
        /// nobody's objects apart may be asked for it.
        unknown: bool,
    },
    /// An object is not there for this user.
    NotFound,
    /// Two objects live on different channels.
    Conflict,
}

/// Decides on everything that a request refers to.
pub fn decide<'r>(references: impl IntoIterator<Item = &'r Reference>, asker: &Asker<'_>) -> Decision {
    let mut found: Option<Arc<str>> = None;
    let (mut unknown, mut conflict) = (false, false);
    for reference in references {
        match (asker.owner)(&reference.id) {
            Some((owner, channel)) => {
                if !asker.sees(&owner, &channel) {
                    return Decision::NotFound;
                }
                match &found {
                    Some(other) if *other != channel => conflict = true,
                    Some(_) => {}
                    None => found = Some(channel),
                }
            }
            None => unknown |= reference.must_be_known,
        }
    }
    // What is not there comes first: a conflict would tell that it is.
    if unknown && found.as_ref().is_some_and(|channel| (asker.mode)(channel) != Ownership::Off) {
        return Decision::NotFound;
    }
    if conflict { Decision::Conflict } else { Decision::Go { channel: found, unknown } }
}

/// Narrows a plan to where the objects of a request live.
///
/// # Errors
/// [`ErrorKind::ObjectNotFound`], [`ErrorKind::BadRequest`] for objects of different channels,
/// [`ErrorKind::ChannelUnavailable`] where their channel is switched off.
pub fn narrow(mut plan: Plan, decision: &Decision, user: &User) -> Result<Plan, Refusal> {
    match decision {
        Decision::NotFound => return Err(ErrorKind::ObjectNotFound.into()),
        Decision::Conflict => {
            return Err(Refusal::new(
                ErrorKind::BadRequest,
                "The request refers to objects that were made on different channels; no single platform account has them all.",
            ));
        }
        Decision::Go { channel, unknown } => {
            if let Some(id) = channel {
                plan.candidates.retain(|candidate| candidate.channel.id == *id);
                let off = |channel: &Channel| channel.id == *id && channel.status != Status::Active;
                if plan.candidates.is_empty() && user.channels.iter().any(|channel| off(channel)) {
                    return Err(Refusal::new(
                        ErrorKind::ChannelUnavailable,
                        "The channel on which this object lives is switched off.",
                    ));
                }
            }
            if *unknown {
                plan.candidates.retain(|candidate| candidate.channel.ownership == Ownership::Off);
            }
        }
    }
    if plan.candidates.is_empty() {
        return Err(ErrorKind::ObjectNotFound.into());
    }
    Ok(plan)
}

/// Why a request whose body cannot be searched goes no further, where any channel of the plan
/// keeps objects apart.
///
/// # Errors
/// [`ErrorKind::BadRequest`].
pub fn refuse_unreadable(plan: &Plan, reason: &'static str) -> Result<(), Refusal> {
    if plan.candidates.iter().all(|candidate| candidate.channel.ownership == Ownership::Off) {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorKind::BadRequest,
        format!("AIProxy has to see which objects a request refers to, and cannot: {reason}."),
    ))
}

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;
