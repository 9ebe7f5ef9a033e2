//! Typed configuration → [`Snapshot`]: what only the whole file shows.
//!
//! Formats were checked before, with their places; a value that fails to parse here was named
//! already and is passed over.

use std::collections::HashMap;
use std::sync::Arc;

use aiproxy_core::KeyDigest;

use crate::complaint::Complaint;
use crate::model::{self, Channel, Snapshot};
use crate::raw;
use crate::report::Report;
use crate::source::Source;
use crate::tree::{Node, Pos, Span, Trail};

use user::{Found, Group, Known};

mod channel;
mod client_secrets;
mod failover;
pub(crate) mod key;
mod listen;
mod media;
mod placement;
mod system;
mod tls;
mod usage;
pub(crate) mod user;

/// Makes the snapshot. It is whole only if the report has no errors afterwards.
pub(crate) fn build(
    raw: raw::Config,
    root: &Node,
    source: &Source,
    literal: bool,
    report: &mut Report,
) -> Option<Snapshot> {
    let mut builder = Builder { root, source, report, literal };
    let channels = Channels::build(raw.channels.0, &mut builder);
    // Who is managed elsewhere is not missing here.
    let here = ["users", "groups", "channels"].iter().any(|section| root.entry(section).is_some());
    let nobody = raw.users.0.is_empty() && here;
    let groups = Groups::build(&raw.groups.0, &channels, &mut builder);
    let users = user::build(&raw.users.0, &groups, &mut builder);
    let system = builder.system(raw.system.unwrap_or_default());
    if nobody {
        let message = "no users: every call will be refused";
        builder.warning(&Trail::of(&["users"]), Complaint::new(message, "add one below `users`"));
    }
    if builder.report.has_errors() {
        return None;
    }
    Some(Snapshot::new(users, channels.list, system))
}

/// What every part of the building needs.
pub(crate) struct Builder<'a> {
    pub(crate) root: &'a Node,
    pub(crate) source: &'a Source,
    pub(crate) report: &'a mut Report,
    /// Whether values stand for themselves and name no files, as those from the API do.
    pub(crate) literal: bool,
}

impl Builder<'_> {
    pub(crate) fn error(&mut self, trail: &Trail, complaint: Complaint) {
        let span = self.locate(trail);
        self.report.error(trail, span, complaint);
    }

    /// Of documents from the API nobody hears warnings.
    fn warning(&mut self, trail: &Trail, complaint: Complaint) {
        if self.literal {
            return;
        }
        let span = self.locate(trail);
        self.report.warning(trail, span, complaint);
    }

    /// Finding a place takes a walk through the file, which is not worth it for what is not shown.
    fn locate(&self, trail: &Trail) -> Span {
        if self.report.is_full() { Span::at(Pos::START) } else { trail.locate(self.root) }
    }

    /// The value, or nothing and a problem.
    fn take<T>(&mut self, trail: &Trail, result: Result<T, Complaint>) -> Option<T> {
        result.map_err(|complaint| self.error(trail, complaint)).ok()
    }

    /// Whether the file has the field, be its value good or bad.
    fn has(&self, trail: &Trail) -> bool {
        trail.find(self.root).is_some()
    }
}

/// Channels by id, those that failed included, so that a reference to one is not dangling.
struct Channels {
    list: Vec<Arc<Channel>>,
    by_id: HashMap<String, Option<Arc<Channel>>>,
    /// Ids in the order of the file.
    ids: Vec<String>,
    /// Digests of the channels' keys, and whose they are.
    keys: HashMap<KeyDigest, String>,
}

impl Channels {
    fn build(raw: Vec<(String, Option<raw::Channel>)>, builder: &mut Builder<'_>) -> Self {
        let mut channels =
            Self { list: Vec::new(), by_id: HashMap::new(), ids: Vec::new(), keys: HashMap::new() };
        for (id, raw) in raw {
            let channel = raw.and_then(|raw| {
                if let Some(key) = &raw.api_key {
                    channels.keys.entry(KeyDigest::of(key.as_bytes())).or_insert_with(|| id.clone());
                }
                builder.channel(&id, raw).map(Arc::new)
            });
            channels.list.extend(channel.clone());
            channels.by_id.insert(id.clone(), channel);
            channels.ids.push(id);
        }
        channels
    }
}

/// What the users of a file refer to. Groups look channels up in it while they are built.
struct Groups<'a> {
    channels: &'a Channels,
    by_id: HashMap<&'a str, Group>,
    ids: Vec<&'a str>,
}

impl<'a> Groups<'a> {
    fn build(
        raw: &'a [(String, Option<raw::Group>)],
        channels: &'a Channels,
        builder: &mut Builder<'_>,
    ) -> Self {
        let mut groups = Self { channels, by_id: HashMap::new(), ids: Vec::new() };
        for (id, raw) in raw {
            // One that failed was named already: its members are not to suffer for it.
            let nothing = raw::Group::default();
            let group = builder.group(id, raw.as_ref().unwrap_or(&nothing), &groups);
            groups.by_id.insert(id, group);
            groups.ids.push(id);
        }
        groups
    }
}

impl Known for Groups<'_> {
    fn channel(&self, id: &str) -> Found<Arc<Channel>> {
        match self.channels.by_id.get(id) {
            Some(Some(channel)) => Found::Is(Arc::clone(channel)),
            Some(None) => Found::Bad,
            None => Found::Nothing,
        }
    }

    fn channel_ids(&self) -> Vec<&str> {
        self.channels.ids.iter().map(String::as_str).collect()
    }

    fn group(&self, id: &str) -> Option<&Group> {
        self.by_id.get(id)
    }

    fn group_ids(&self) -> Vec<&str> {
        self.ids.clone()
    }

    fn channel_of_key(&self, digest: &KeyDigest) -> Option<&str> {
        self.channels.keys.get(digest).map(String::as_str)
    }
}

/// Items of a list that validation left, with their places.
pub(crate) fn items(list: Option<&raw::List>) -> impl Iterator<Item = (usize, &str)> {
    list.into_iter().flatten().enumerate().filter_map(|(index, item)| Some((index, item.as_deref()?)))
}

impl From<raw::ChannelStatus> for model::Status {
    fn from(status: raw::ChannelStatus) -> Self {
        match status {
            raw::ChannelStatus::Active => Self::Active,
            raw::ChannelStatus::Draining => Self::Draining,
            raw::ChannelStatus::Disabled => Self::Disabled,
        }
    }
}

impl From<raw::Status> for model::Status {
    fn from(status: raw::Status) -> Self {
        match status {
            raw::Status::Active => Self::Active,
            raw::Status::Disabled => Self::Disabled,
        }
    }
}
