//! Users, with what their groups give them.

use std::collections::HashMap;
use std::sync::Arc;

use aiproxy_core::{KeyDigest, KeyTag};
use ipnet::IpNet;
use jiff::Timestamp;

use super::{Builder, Channels, items};
use crate::complaint::{Complaint, shown};
use crate::model::{Channel, ProxyKey, Status, User};
use crate::suggest::nearest;
use crate::tree::Trail;
use crate::{moment, net, raw};

/// Shortest Proxy-Key, and longest: a head has to hold it.
const SHORTEST: usize = 8;
const LONGEST: usize = 1024;

/// What a group gives.
struct Group {
    id: Arc<str>,
    channels: Vec<Arc<Channel>>,
    names_some: bool,
    allow_ips: Vec<IpNet>,
    models: Option<Vec<String>>,
}

/// Makes the users. Those with problems are left out.
pub(super) fn build(
    raw: Vec<(String, Option<raw::User>)>,
    groups: &[(String, Option<raw::Group>)],
    channels: &Channels,
    builder: &mut Builder<'_>,
) -> Vec<Arc<User>> {
    let mut by_id: HashMap<&str, Group> = HashMap::new();
    for (id, raw) in groups {
        // One that failed was named already: its members are not to suffer for it.
        let nothing = raw::Group::default();
        let group = builder.group(id, raw.as_ref().unwrap_or(&nothing), channels);
        by_id.insert(id, group);
    }
    let mut owners: HashMap<KeyDigest, String> = HashMap::new();
    let mut users = Vec::new();
    for (id, raw) in raw {
        if let Some(user) = raw.and_then(|raw| builder.user(&id, raw, &by_id, groups, channels, &mut owners))
        {
            users.push(Arc::new(user));
        }
    }
    users
}

impl Builder<'_> {
    fn group(&mut self, id: &str, raw: &raw::Group, channels: &Channels) -> Group {
        let channels_at = Trail::of(&["groups", id, "channels"]);
        Group {
            id: Arc::from(id),
            names_some: names_some(&raw.channels),
            channels: self.channels(&channels_at, raw.channels.iter().flatten().next(), channels),
            allow_ips: networks(raw.allow_ips.as_ref()).collect(),
            models: raw.models.as_ref().map(|models| models.iter().flatten().cloned().collect()),
        }
    }

    fn user(
        &mut self,
        id: &str,
        raw: raw::User,
        groups: &HashMap<&str, Group>,
        ids: &[(String, Option<raw::Group>)],
        channels: &Channels,
        owners: &mut HashMap<KeyDigest, String>,
    ) -> Option<User> {
        let trail = Trail::of(&["users", id]);
        let key = self.proxy_key(&trail, &raw, channels);
        if let Some((field, digest, _)) = &key {
            match owners.get(digest) {
                Some(owner) => {
                    let message = format!("the users `{owner}` and `{id}` have the same Proxy-Key");
                    self.error(
                        &trail.key(field),
                        Complaint::new(message, "give each user a key of their own"),
                    );
                }
                None => drop(owners.insert(*digest, id.to_owned())),
            }
        }
        let mut allowed =
            self.channels(&trail.key("channels"), raw.channels.iter().flatten().next(), channels);
        let mut allow_ips: Vec<IpNet> = networks(raw.allow_ips.as_ref()).collect();
        let mut models: Option<Vec<String>> = raw.models.map(|models| models.into_iter().flatten().collect());
        let mut memberships: Vec<Arc<str>> = Vec::new();
        // Whether any channel is named, be it good or not.
        let mut names_some = names_some(&raw.channels);
        for (index, name) in items(raw.groups.as_ref()) {
            let Some(group) = groups.get(name) else {
                let names = ids.iter().map(|(id, _)| id.as_str());
                self.error(&trail.key("groups").index(index), dangling("group", "groups", name, names));
                names_some = true;
                continue;
            };
            names_some |= group.names_some;
            append(&mut memberships, std::slice::from_ref(&group.id), |a, b| a == b);
            append(&mut allowed, &group.channels, |a, b| a.id == b.id);
            append(&mut allow_ips, &group.allow_ips, |a, b| a == b);
            if let Some(more) = &group.models {
                append(models.get_or_insert_default(), more, |a, b| a == b);
            }
        }
        let status = raw.status.map_or(Status::Active, Status::from);
        if !names_some && status == Status::Active {
            let message = format!("the user `{id}` may use no channel");
            self.warning(
                &trail,
                Complaint::new(message, "list channels under `channels`, or groups under `groups`"),
            );
        }
        let expires_at = raw.expires_at.as_deref().and_then(|text| moment::parse(text).ok());
        if expires_at.is_some_and(|moment| moment <= Timestamp::now().as_second()) {
            let message = format!("the key of `{id}` has expired");
            self.warning(
                &trail.key("expires_at"),
                Complaint::new(message, "move the date, or remove the user"),
            );
        }
        let (_, digest, tag) = key?;
        Some(User {
            id: Arc::from(id),
            name: raw.name.unwrap_or_else(|| id.to_owned()),
            department: raw.department.unwrap_or_default(),
            status,
            key: ProxyKey { digest, tag: Arc::new(tag), expires_at },
            groups: memberships,
            channels: allowed,
            models,
            allow_ips,
        })
    }

    /// The key's field, digest and tag.
    fn proxy_key(
        &mut self,
        trail: &Trail,
        raw: &raw::User,
        channels: &Channels,
    ) -> Option<(&'static str, KeyDigest, KeyTag)> {
        let (plain, hashed) = (trail.key("proxy_key"), trail.key("proxy_key_sha256"));
        match (raw.proxy_key.is_some(), raw.proxy_key_sha256.is_some()) {
            (true, true) => {
                let message = "`proxy_key` and `proxy_key_sha256` are both given";
                self.error(&hashed, Complaint::new(message, "keep one of the two"));
                return None;
            }
            (false, false) => {
                let message = "`proxy_key` is missing";
                self.error(
                    trail,
                    Complaint::new(message, "add `proxy_key`, or `proxy_key_sha256` in its place"),
                );
                return None;
            }
            _ => {}
        }
        let (field, at, digest, tag) = if let Some(Some(key)) = &raw.proxy_key {
            self.take(&plain, check_proxy_key(key))?;
            ("proxy_key", plain, KeyDigest::of(key.as_bytes()), KeyTag::of(key))
        } else {
            let digest = KeyDigest::from_hex(raw.proxy_key_sha256.as_ref()?.as_deref()?).ok_or_else(|| {
                Complaint::new(
                    "`proxy_key_sha256` is not a SHA-256",
                    "write 64 hexadecimal digits, as `printf %s KEY | sha256sum` prints them",
                )
            });
            let digest = self.take(&hashed, digest)?;
            ("proxy_key_sha256", hashed, digest, KeyTag::of_digest(&digest))
        };
        if let Some(channel) = channels.keys.get(&digest) {
            let message = format!("the Proxy-Key is the API key of the channel `{channel}`");
            self.error(
                &at,
                Complaint::new(
                    message,
                    "make a key of its own for the user: callers must not know the channel's",
                ),
            );
            return None;
        }
        Some((field, digest, tag))
    }

    /// The channels that a list names.
    fn channels(
        &mut self,
        trail: &Trail,
        list: Option<&raw::List>,
        channels: &Channels,
    ) -> Vec<Arc<Channel>> {
        let mut found: Vec<Arc<Channel>> = Vec::new();
        for (index, name) in items(list) {
            match channels.by_id.get(name) {
                Some(Some(channel)) => append(&mut found, std::slice::from_ref(channel), |a, b| a.id == b.id),
                Some(None) => {}
                None => {
                    let names = channels.ids.iter().map(String::as_str);
                    self.error(&trail.index(index), dangling("channel", "channels", name, names));
                }
            }
        }
        found
    }
}

fn dangling<'a>(what: &str, section: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Complaint {
    let message = format!("there is no {what} {}", shown(name));
    match nearest(name, known) {
        Some(near) => Complaint::new(message, format!("did you mean `{near}`?")),
        None => Complaint::new(message, format!("define it under `{section}`, or remove it here")),
    }
}

/// Whether a list has items, those that validation took out included.
fn names_some(list: &raw::Given<raw::List>) -> bool {
    list.as_ref().is_some_and(|list| list.as_ref().is_none_or(|list| !list.is_empty()))
}

fn networks(list: Option<&raw::List>) -> impl Iterator<Item = IpNet> {
    items(list).filter_map(|(_, text)| net::cidr(text).ok())
}

/// Appends what is not there yet.
fn append<T: Clone>(list: &mut Vec<T>, more: &[T], same: impl Fn(&T, &T) -> bool) {
    for item in more {
        if !list.iter().any(|have| same(have, item)) {
            list.push(item.clone());
        }
    }
}

fn check_proxy_key(key: &str) -> Result<(), Complaint> {
    check_characters(key)?;
    if key.len() < SHORTEST {
        return Err(Complaint::new(
            format!("the Proxy-Key is shorter than {SHORTEST} characters"),
            "use a long random key: `openssl rand -hex 24` makes one",
        ));
    }
    if key.len() > LONGEST {
        return Err(Complaint::bare(format!("the Proxy-Key is longer than {LONGEST} characters")));
    }
    Ok(())
}

/// Keys travel in headers, queries and subprotocols, where white space and characters outside of
/// ASCII do not.
pub(super) fn check_characters(key: &str) -> Result<(), Complaint> {
    let Some((at, c)) = key.chars().enumerate().find(|(_, c)| !c.is_ascii_graphic()) else { return Ok(()) };
    let what = match c {
        ' ' => "a space",
        c if c.is_whitespace() => "a line break or other white space",
        c if c.is_control() => "a control character",
        _ => "a character outside of ASCII",
    };
    Err(Complaint::new(
        format!("the key has {what} at position {}, which cannot travel in a header", at + 1),
        "use letters, digits and punctuation of ASCII",
    ))
}
