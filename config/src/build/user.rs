//! Users, with what their groups give them and what limits their keys.

use std::collections::HashMap;
use std::sync::Arc;

use aiproxy_core::{KeyDigest, KeyTag};
use ipnet::IpNet;
use jiff::Timestamp;

use super::key::{self, Key};
use super::{Builder, items};
use crate::complaint::{Complaint, shown};
use crate::model::{Channel, Limit, ProxyKey, Share, Status, User};
use crate::suggest::nearest;
use crate::tree::Trail;
use crate::{moment, net, paths, raw};

/// What an id leads to.
pub(crate) enum Found<T> {
    /// This.
    Is(T),
    /// Something with problems, which were named already.
    Bad,
    /// Nothing.
    Nothing,
}

/// What users refer to.
pub(crate) trait Known {
    fn channel(&self, id: &str) -> Found<Arc<Channel>>;
    fn channel_ids(&self) -> Vec<&str>;
    fn group(&self, id: &str) -> Option<&Group>;
    fn group_ids(&self) -> Vec<&str>;
    /// The channel whose API key has this digest.
    fn channel_of_key(&self, digest: &KeyDigest) -> Option<&str>;
}

/// A channel that somebody may use, and its place among those.
#[derive(Debug, Clone)]
pub(crate) struct Mapped {
    pub(crate) channel: Arc<Channel>,
    pub(crate) order: Option<u32>,
    pub(crate) weight: u32,
}

/// What one level allows; `None` says nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Limits {
    pub(crate) models: Option<Vec<String>>,
    pub(crate) endpoints: Option<Vec<String>>,
    pub(crate) allow_ips: Option<Vec<IpNet>>,
    pub(crate) valid_from: Option<i64>,
    pub(crate) expires_at: Option<i64>,
}

impl Limits {
    pub(crate) fn of(raw: RawLimits<'_>) -> Self {
        let words = |list: Option<&raw::List>| list.map(|list| list.iter().flatten().cloned().collect());
        let moment = |text: Option<&String>| text.and_then(|text| moment::parse(text).ok());
        Self {
            models: words(raw.models),
            endpoints: raw
                .endpoints
                .map(|list| items(Some(list)).filter_map(|(_, text)| paths::pattern(text).ok()).collect()),
            allow_ips: raw
                .allow_ips
                .map(|list| items(Some(list)).filter_map(|(_, text)| net::cidr(text).ok()).collect()),
            valid_from: moment(raw.valid_from),
            expires_at: moment(raw.expires_at),
        }
    }

    /// What several groups allow: what any of them does. Those that say nothing do not count.
    fn widen(&mut self, more: &Self) {
        fn list<T: Clone + PartialEq>(have: &mut Option<Vec<T>>, more: Option<&Vec<T>>) {
            if let Some(more) = more {
                append(have.get_or_insert_default(), more, |a, b| a == b);
            }
        }
        list(&mut self.models, more.models.as_ref());
        list(&mut self.endpoints, more.endpoints.as_ref());
        list(&mut self.allow_ips, more.allow_ips.as_ref());
        self.valid_from = [self.valid_from, more.valid_from].into_iter().flatten().min();
        self.expires_at = [self.expires_at, more.expires_at].into_iter().flatten().max();
    }
}

/// The fields of a level that limit it.
#[derive(Clone, Copy)]
pub(crate) struct RawLimits<'a> {
    pub(crate) models: Option<&'a raw::List>,
    pub(crate) endpoints: Option<&'a raw::List>,
    pub(crate) allow_ips: Option<&'a raw::List>,
    pub(crate) valid_from: Option<&'a String>,
    pub(crate) expires_at: Option<&'a String>,
}

macro_rules! limits_of {
    ($raw:expr) => {
        $crate::build::user::RawLimits {
            models: $raw.models.as_ref(),
            endpoints: $raw.endpoints.as_ref(),
            allow_ips: $raw.allow_ips.as_ref(),
            valid_from: $raw.valid_from.as_ref(),
            expires_at: $raw.expires_at.as_ref(),
        }
    };
}
pub(crate) use limits_of;

/// What a group gives.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    id: Arc<str>,
    pub(crate) channels: Vec<Mapped>,
    names_some: bool,
    limits: Limits,
}

/// A user without its keys.
#[derive(Debug)]
pub(crate) struct Member {
    id: Arc<str>,
    name: String,
    department: String,
    status: Status,
    groups: Vec<Arc<str>>,
    channels: Vec<Mapped>,
    /// What the groups allow, and what the user does.
    levels: [Limits; 2],
}

/// Makes the users of a file. Those with problems are left out.
pub(super) fn build(
    raw: &[(String, Option<raw::User>)],
    known: &impl Known,
    builder: &mut Builder<'_>,
) -> Vec<Arc<User>> {
    let mut owners: HashMap<KeyDigest, String> = HashMap::new();
    let mut users = Vec::new();
    for (id, raw) in raw {
        let Some(raw) = raw else { continue };
        let keys = builder.keys(id, raw, known);
        for (trail, key) in &keys {
            match owners.get(&key.digest) {
                Some(owner) => {
                    let message = match owner == id {
                        true => format!("the user `{id}` has the same Proxy-Key twice"),
                        false => format!("the users `{owner}` and `{id}` have the same Proxy-Key"),
                    };
                    builder.error(trail, Complaint::new(message, "give each user a key of their own"));
                }
                None => drop(owners.insert(key.digest, id.to_owned())),
            }
        }
        let member = builder.member(id, raw, known);
        for (_, key) in &keys {
            users.push(Arc::new(member.with(key)));
        }
    }
    users
}

impl Member {
    /// The user as this key shows it.
    pub(crate) fn with(&self, key: &Key) -> User {
        let (mut models, mut endpoints, mut allow_ips) =
            (Limit::default(), Limit::default(), Limit::default());
        let levels = [&self.levels[0], &self.levels[1], &key.limits];
        for level in levels {
            level.models.clone().into_iter().for_each(|list| models.narrow(list));
            level.endpoints.clone().into_iter().for_each(|list| endpoints.narrow(list));
            level.allow_ips.clone().into_iter().for_each(|list| allow_ips.narrow(list));
        }
        let (channels, shares) = in_order(&self.channels, key.channels.as_deref());
        User {
            id: Arc::clone(&self.id),
            name: self.name.clone(),
            department: self.department.clone(),
            status: self.status,
            key: ProxyKey {
                digest: key.digest,
                tag: Arc::clone(&key.tag),
                status: key.status,
                valid_from: levels.iter().filter_map(|level| level.valid_from).max(),
                expires_at: levels.iter().filter_map(|level| level.expires_at).chain(key.retires_at).min(),
                used: key.used.clone(),
            },
            groups: self.groups.clone(),
            channels,
            shares,
            models,
            endpoints,
            allow_ips,
        }
    }
}

/// The channels by their order; those without one come after those with. The places are given where some
/// share theirs.
fn in_order(mapped: &[Mapped], only: Option<&[String]>) -> (Vec<Arc<Channel>>, Option<Arc<[Share]>>) {
    let within = |mapped: &&Mapped| only.is_none_or(|only| only.iter().any(|id| **id == *mapped.channel.id));
    let mut list: Vec<&Mapped> = mapped.iter().filter(within).collect();
    list.sort_by_key(|mapped| mapped.order.unwrap_or(u32::MAX));
    let same = |pair: &[&Mapped]| pair[0].order.is_some() && pair[0].order == pair[1].order;
    let shares = list.windows(2).any(same).then(|| {
        let mut last = list.iter().filter_map(|mapped| mapped.order).max().unwrap_or_default();
        let places = list.iter().map(|mapped| {
            let order = mapped.order.unwrap_or_else(|| {
                last = last.saturating_add(1);
                last
            });
            Share { order, weight: mapped.weight }
        });
        places.collect()
    });
    (list.into_iter().map(|mapped| Arc::clone(&mapped.channel)).collect(), shares)
}

impl Builder<'_> {
    pub(crate) fn group(&mut self, id: &str, raw: &raw::Group, known: &impl Known) -> Group {
        let trail = Trail::of(&["groups", id]);
        let limits = Limits::of(limits_of!(raw));
        self.dates(&trail, &limits, None);
        Group {
            id: Arc::from(id),
            names_some: names_some(&raw.channels),
            channels: self.mapping(&trail.key("channels"), raw.channels.iter().flatten().next(), known),
            limits,
        }
    }

    pub(crate) fn member(&mut self, id: &str, raw: &raw::User, known: &impl Known) -> Member {
        let trail = Trail::of(&["users", id]);
        let mut channels = self.mapping(&trail.key("channels"), raw.channels.iter().flatten().next(), known);
        let mut memberships: Vec<Arc<str>> = Vec::new();
        let mut shared = Limits::default();
        // Whether any channel is named, be it good or not.
        let mut names_some = names_some(&raw.channels);
        for (index, name) in items(raw.groups.as_ref()) {
            let Some(group) = known.group(name) else {
                let complaint = dangling("group", "groups", name, known.group_ids());
                self.error(&trail.key("groups").index(index), complaint);
                names_some = true;
                continue;
            };
            names_some |= group.names_some;
            append(&mut memberships, std::slice::from_ref(&group.id), |a, b| a == b);
            append(&mut channels, &group.channels, |a, b| a.channel.id == b.channel.id);
            shared.widen(&group.limits);
        }
        let status = raw.status.map_or(Status::Active, Status::from);
        if !names_some && status == Status::Active {
            let message = format!("the user `{id}` may use no channel");
            self.warning(
                &trail,
                Complaint::new(message, "list channels under `channels`, or groups under `groups`"),
            );
        }
        let own = Limits::of(limits_of!(raw));
        self.dates(&trail, &own, Some(id));
        Member {
            id: Arc::from(id),
            name: raw.name.clone().unwrap_or_else(|| id.to_owned()),
            department: raw.department.clone().unwrap_or_default(),
            status,
            groups: memberships,
            channels,
            levels: [shared, own],
        }
    }

    /// Dates that leave no time, or none from now on.
    pub(super) fn dates(&mut self, trail: &Trail, limits: &Limits, whose: Option<&str>) {
        let Some(end) = limits.expires_at else { return };
        if limits.valid_from.is_some_and(|begin| begin >= end) {
            let complaint =
                Complaint::new("`valid_from` is not before `expires_at`", "no time is left between them");
            self.error(&trail.key("valid_from"), complaint);
        } else if let Some(id) = whose.filter(|_| end <= Timestamp::now().as_second()) {
            let message = format!("the key of `{id}` has expired");
            let complaint = Complaint::new(message, "move the date, or remove the user");
            self.warning(&trail.key("expires_at"), complaint);
        }
    }

    /// The keys of a user in a file, with their places.
    fn keys(&mut self, id: &str, raw: &raw::User, known: &impl Known) -> Vec<(Trail, Key)> {
        let trail = Trail::of(&["users", id]);
        let given = [
            ("proxy_key", raw.proxy_key.is_some()),
            ("proxy_key_sha256", raw.proxy_key_sha256.is_some()),
            ("keys", raw.keys.is_some()),
        ];
        let given: Vec<&str> = given.into_iter().filter_map(|(name, is)| is.then_some(name)).collect();
        match given[..] {
            [] => {
                let complaint = Complaint::new(
                    "`proxy_key` is missing",
                    "add `proxy_key`, or `proxy_key_sha256` in its place",
                );
                self.error(&trail, complaint);
            }
            [_, second, ..] => {
                let message = format!("`{}` and `{second}` are both given", given[0]);
                self.error(&trail.key(second), Complaint::new(message, "keep one of the two"));
                return Vec::new();
            }
            _ => {}
        }
        let mut keys = Vec::new();
        if let Some((trail, digest, tag)) = self.proxy_key(&trail, raw) {
            keys.push((trail, Key::of(digest, tag)));
        }
        for (index, raw) in raw.keys.iter().flatten().enumerate() {
            let Some(raw) = raw else { continue };
            let trail = trail.key("keys").index(index);
            if let Some(key) = self.key(&trail, raw, known) {
                keys.push((trail.key("sha256"), key));
            }
        }
        let in_use = keys.iter().filter(|(_, key)| key.is_in_use()).count();
        if in_use > 1 {
            let message = format!("the user `{id}` has {in_use} keys in use");
            let complaint = Complaint::new(
                message,
                "keep one; the others get `retires_at`, the moment from which they are refused, or `status: revoked`",
            );
            self.error(&trail.key("keys"), complaint);
        }
        keys.retain(|(trail, key)| self.is_no_channels(trail, &key.digest, known));
        keys
    }

    /// The one key of a user whose file has no list of them: its field, digest and tag.
    fn proxy_key(&mut self, trail: &Trail, raw: &raw::User) -> Option<(Trail, KeyDigest, KeyTag)> {
        let (plain, hashed) = (trail.key("proxy_key"), trail.key("proxy_key_sha256"));
        if let Some(Some(key)) = &raw.proxy_key {
            self.take(&plain, key::check(key))?;
            return Some((plain, KeyDigest::of(key.as_bytes()), KeyTag::of(key)));
        }
        let digest = key::digest(raw.proxy_key_sha256.as_ref()?.as_deref()?, "proxy_key_sha256");
        let digest = self.take(&hashed, digest)?;
        Some((hashed, digest, KeyTag::of_digest(&digest)))
    }

    /// Whether the Proxy-Key is not also a channel's API key.
    pub(crate) fn is_no_channels(&mut self, trail: &Trail, digest: &KeyDigest, known: &impl Known) -> bool {
        let Some(channel) = known.channel_of_key(digest) else { return true };
        let message = format!("the Proxy-Key is the API key of the channel `{channel}`");
        let complaint = Complaint::new(
            message,
            "make a key of its own for the user: callers must not know the channel's",
        );
        self.error(trail, complaint);
        false
    }

    /// The channels that a list names.
    fn mapping(&mut self, trail: &Trail, list: Option<&raw::Mapping>, known: &impl Known) -> Vec<Mapped> {
        let mut found: Vec<Mapped> = Vec::new();
        for (index, item) in list.into_iter().flatten().enumerate() {
            let Some(item) = item else { continue };
            let Some(name) = item.id() else { continue };
            match known.channel(name) {
                Found::Is(channel) => {
                    let (order, weight) = item.place();
                    let mapped = Mapped { channel, order, weight };
                    append(&mut found, &[mapped], |a, b| a.channel.id == b.channel.id);
                }
                Found::Bad => {}
                Found::Nothing => {
                    let complaint = dangling("channel", "channels", name, known.channel_ids());
                    self.error(&trail.index(index), complaint);
                }
            }
        }
        found
    }
}

pub(super) fn dangling(what: &str, section: &str, name: &str, known: Vec<&str>) -> Complaint {
    let message = format!("there is no {what} {}", shown(name));
    match nearest(name, known) {
        Some(near) => Complaint::new(message, format!("did you mean `{near}`?")),
        None => Complaint::new(message, format!("define it under `{section}`, or remove it here")),
    }
}

/// Whether a list has items, those that validation took out included.
fn names_some<T>(list: &raw::Given<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| list.as_ref().is_none_or(|list| !list.is_empty()))
}

/// Appends what is not there yet.
fn append<T: Clone>(list: &mut Vec<T>, more: &[T], same: impl Fn(&T, &T) -> bool) {
    for item in more {
        if !list.iter().any(|have| same(have, item)) {
            list.push(item.clone());
        }
    }
}
