//! Documents → the users and channels of a [`Snapshot`], a few at a time.
//!
//! What a change touches is built anew and nothing else: a user alone, a group's members, a channel's
//! users. A change is prepared first, which finds everything that is wrong with it, and installed once
//! it is kept somewhere.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use aiproxy_core::{EntityKind, Fields, KeyDigest};
use serde::Deserialize as _;
use serde_json::Value;

use crate::build::Builder;
use crate::build::key::Key;
use crate::build::user::{Found, Group, Known};
use crate::complaint::Complaint;
use crate::entity::{self, Fault};
use crate::mask::Masker;
use crate::model::{Channel, Snapshot, User};
use crate::report::Report;
use crate::source::{Lines, Source};
use crate::tree::{Node, Pos, Span, Trail, Value as Tree};
use crate::{formats, raw, tree, validate, yaml};

type Id = Arc<str>;

/// One change.
#[derive(Debug, Clone, Copy)]
pub enum Edit<'a> {
    /// A document is made or takes the place of another.
    Put(EntityKind, &'a str, &'a Fields),
    /// A document goes. A user's keys go with it.
    Delete(EntityKind, &'a str),
}

impl<'a> Edit<'a> {
    /// What it is about.
    fn place(&self) -> (EntityKind, &'a str) {
        match *self {
            Self::Put(kind, id, _) | Self::Delete(kind, id) => (kind, id),
        }
    }
}

/// All documents, as far as they are needed to build what refers to them.
#[derive(Debug, Default)]
pub struct Catalog {
    channels: HashMap<Id, Arc<Channel>>,
    /// In the order in which they were made.
    order: Vec<Id>,
    /// Whose API key has this digest.
    channel_keys: HashMap<KeyDigest, BTreeSet<Id>>,
    groups: HashMap<Id, Members>,
    users: HashMap<Id, Person>,
    /// Which key has this digest, and whose it is.
    digests: HashMap<KeyDigest, (Id, Id)>,
    /// Whose each key is.
    keys: HashMap<Id, Id>,
    /// Documents that are there and cannot be used.
    bad: HashSet<(EntityKind, Id)>,
}

#[derive(Debug, Clone)]
struct Members {
    raw: Arc<raw::Group>,
    built: Group,
}

#[derive(Debug, Clone)]
struct Person {
    raw: Arc<raw::User>,
    keys: HashMap<Id, Key>,
}

/// A change that is sound.
#[derive(Debug)]
pub struct Prepared {
    channels: HashMap<Id, Option<Arc<Channel>>>,
    groups: HashMap<Id, Option<Members>>,
    users: HashMap<Id, Option<Person>>,
    /// Users as their keys show them.
    built: Vec<Arc<User>>,
    changed: Vec<(EntityKind, Id)>,
    new_channels: Vec<Id>,
}

impl Catalog {
    /// Reads everything. Documents that cannot be used are left out and named: one bad row does not
    /// take everybody's access.
    #[must_use]
    pub fn load<'a>(
        documents: impl IntoIterator<Item = (EntityKind, &'a str, &'a Fields)>,
    ) -> (Self, Prepared, Vec<Fault>) {
        let mut catalog = Self::default();
        let mut edits: Vec<_> =
            documents.into_iter().map(|(kind, id, fields)| Edit::Put(kind, id, fields)).collect();
        let mut faults = Vec::new();
        loop {
            match catalog.prepare(&edits) {
                Ok(prepared) => return (catalog, prepared, faults),
                Err(found) => {
                    let bad: HashSet<(EntityKind, Id)> =
                        found.iter().map(|fault| (fault.kind, Id::from(fault.id.as_str()))).collect();
                    let before = edits.len();
                    edits.retain(|edit| {
                        !matches!(edit, Edit::Put(kind, id, _) if bad.contains(&(*kind, Id::from(*id))))
                    });
                    if edits.len() == before {
                        // A fault of something that is no document: nothing can be left out for it.
                        edits.clear();
                    }
                    catalog.bad.extend(bad);
                    faults.extend(found);
                }
            }
        }
    }

    /// Builds what a change touches.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn prepare(&self, edits: &[Edit<'_>]) -> Result<Prepared, Vec<Fault>> {
        let mut root = roots(edits);
        let mut report = Report::default();
        let typed = read(&mut root, edits, &mut report);
        let source = Source { name: String::new(), base: std::path::PathBuf::new() };
        let mut draft = Draft {
            base: self,
            put: edits.iter().filter(|edit| matches!(edit, Edit::Put(..))).map(Edit::place).collect(),
            channels: HashMap::new(),
            groups: HashMap::new(),
            keys: HashMap::new(),
        };
        let mut builder = Builder { root: &root, source: &source, report: &mut report, literal: true };
        let mut new_channels = Vec::new();
        draft.put_channels(&typed.channels, &mut new_channels, &mut builder);
        draft.put_groups(&typed.groups, &mut builder);
        let (users, built) = draft.put_users(typed.users, typed.keys, &mut builder);
        if report.has_errors() {
            return Err(faults(report, root));
        }
        let changed = edits.iter().map(|edit| edit.place()).map(|(kind, id)| (kind, Id::from(id))).collect();
        let (channels, groups) = (draft.channels, draft.groups);
        Ok(Prepared { channels, groups, users, built, changed, new_channels })
    }

    /// Makes a change the current state, and the snapshot one that has it. Takes time in proportion to
    /// what the change touches.
    pub fn install(&mut self, prepared: Prepared, snapshot: &mut Snapshot) {
        let Prepared { channels, groups, users, built, changed, new_channels } = prepared;
        for place in &changed {
            self.bad.remove(place);
        }
        let touched = !channels.is_empty();
        self.order.extend(new_channels);
        for (id, channel) in channels {
            if let Some(old) = self.channels.remove(&id) {
                let digest = KeyDigest::of(old.api_key.expose().as_bytes());
                if let Some(ids) = self.channel_keys.get_mut(&digest) {
                    ids.remove(&id);
                    if ids.is_empty() {
                        self.channel_keys.remove(&digest);
                    }
                }
            }
            match channel {
                Some(channel) => {
                    let digest = KeyDigest::of(channel.api_key.expose().as_bytes());
                    self.channel_keys.entry(digest).or_default().insert(Arc::clone(&id));
                    self.channels.insert(id, channel);
                }
                None => self.order.retain(|have| *have != id),
            }
        }
        if touched {
            snapshot.channels =
                self.order.iter().filter_map(|id| self.channels.get(id)).map(Arc::clone).collect();
        }
        for (id, group) in groups {
            match group {
                Some(group) => drop(self.groups.insert(id, group)),
                None => drop(self.groups.remove(&id)),
            }
        }
        for (id, person) in users {
            for (key_id, key) in self.users.get(&id).into_iter().flat_map(|old| &old.keys) {
                self.keys.remove(key_id);
                self.digests.remove(&key.digest);
                snapshot.remove_key(&key.digest);
            }
            match person {
                Some(person) => {
                    for (key_id, key) in &person.keys {
                        self.keys.insert(Arc::clone(key_id), Arc::clone(&id));
                        self.digests.insert(key.digest, (Arc::clone(&id), Arc::clone(key_id)));
                    }
                    self.users.insert(id, person);
                }
                None => drop(self.users.remove(&id)),
            }
        }
        built.into_iter().for_each(|user| snapshot.put_user(user));
    }

    /// The id of the key with this digest.
    #[must_use]
    pub fn key(&self, digest: &KeyDigest) -> Option<&str> {
        self.digests.get(digest).map(|(_, id)| &**id)
    }

    /// How many users there are, those without a key among them.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Groups and users that may use a channel by their own lists, or users in a group.
    #[must_use]
    pub fn referring(&self, kind: EntityKind, id: &str) -> Vec<(EntityKind, Arc<str>)> {
        let mut found = Vec::new();
        for (group, members) in &self.groups {
            if kind == EntityKind::Channel && maps(members.raw.channels.as_ref(), &[id]) {
                found.push((EntityKind::Group, Arc::clone(group)));
            }
        }
        for (user, person) in &self.users {
            let refers = match kind {
                EntityKind::Channel => {
                    maps(person.raw.channels.as_ref(), &[id])
                        || person.keys.values().any(|key| key.names_channel(id))
                }
                EntityKind::Group => belongs(&person.raw, &[id]),
                EntityKind::User | EntityKind::Key => false,
            };
            if refers {
                found.push((EntityKind::User, Arc::clone(user)));
            }
        }
        found.sort();
        found
    }
}

/// Documents by their ids; `None` goes.
#[derive(Default)]
struct Typed {
    channels: Vec<(Id, Option<raw::Channel>)>,
    groups: Vec<(Id, Option<raw::Group>)>,
    users: Vec<(Id, Option<raw::User>)>,
    keys: Vec<(Id, Option<(Id, raw::Key)>)>,
}

/// All documents of a change as one tree, so that whatever is wrong has a way to it.
fn roots(edits: &[Edit<'_>]) -> Node {
    let mut sections: Vec<(EntityKind, Vec<tree::Entry>)> =
        EntityKind::ALL.into_iter().map(|kind| (kind, Vec::new())).collect();
    for edit in edits {
        if let Edit::Put(kind, id, fields) = edit
            && let Some((_, entries)) = sections.iter_mut().find(|(have, _)| have == kind)
        {
            entries.push(entity::entry(id, entity::tree(&Value::Object(fields.0.clone()))));
        }
    }
    let sections = sections.into_iter().map(|(kind, entries)| {
        let node = Node { value: Tree::Map(entries), span: Span::at(Pos::START) };
        entity::entry(entity::section(kind), node)
    });
    Node { value: Tree::Map(sections.collect()), span: Span::at(Pos::START) }
}

/// Checks each document by itself, and reads it.
fn read(root: &mut Node, edits: &[Edit<'_>], report: &mut Report) -> Typed {
    let mut typed = Typed::default();
    let mut places: HashMap<EntityKind, usize> = HashMap::new();
    for edit in edits {
        match *edit {
            Edit::Delete(EntityKind::Channel, id) => typed.channels.push((id.into(), None)),
            Edit::Delete(EntityKind::Group, id) => typed.groups.push((id.into(), None)),
            Edit::Delete(EntityKind::User, id) => typed.users.push((id.into(), None)),
            Edit::Delete(EntityKind::Key, id) => typed.keys.push((id.into(), None)),
            Edit::Put(kind, id, _) => {
                let place = places.entry(kind).or_default();
                if let Some(node) = document(root, kind, *place) {
                    one(node, kind, id, report, &mut typed);
                }
                *place += 1;
            }
        }
    }
    typed
}

/// The document with this number in its section.
fn document(root: &mut Node, kind: EntityKind, place: usize) -> Option<&mut Node> {
    let Tree::Map(sections) = &mut root.value else { return None };
    let section = sections.iter_mut().find(|entry| &*entry.key == entity::section(kind))?;
    let Tree::Map(entries) = &mut section.node.value else { return None };
    entries.get_mut(place).map(|entry| &mut entry.node)
}

fn one(node: &mut Node, kind: EntityKind, id: &str, report: &mut Report, typed: &mut Typed) {
    let trail = Trail::of(&[entity::section(kind), id]);
    let span = node.span;
    let form = if kind == EntityKind::Channel { "channel-id" } else { "id" };
    if let Err(complaint) = formats::check(form, &Tree::Text(id.into())) {
        return report.error(&trail, span, complaint);
    }
    controls(node, &trail, report);
    let owner = if kind == EntityKind::Key { take_owner(node) } else { None };
    if kind == EntityKind::User
        && let Tree::Map(entries) = &node.value
        && let Some(entry) =
            entries.iter().find(|entry| matches!(&*entry.key, "proxy_key" | "proxy_key_sha256" | "keys"))
    {
        let complaint = Complaint::new(
            "Proxy-Keys are documents of their own",
            "make one for the user; see the API's keys",
        );
        return report.error(&trail.key(&entry.key), span, complaint);
    }
    validate::validate_at(node, entity::of(kind), &trail, None, report);
    let id = Id::from(id);
    let done = match kind {
        EntityKind::Channel => {
            raw::Channel::deserialize(&*node).map(|raw| typed.channels.push((id, Some(raw))))
        }
        EntityKind::Group => raw::Group::deserialize(&*node).map(|raw| typed.groups.push((id, Some(raw)))),
        EntityKind::User => raw::User::deserialize(&*node).map(|raw| typed.users.push((id, Some(raw)))),
        EntityKind::Key => match owner {
            Some(owner) => raw::Key::deserialize(&*node).map(|raw| typed.keys.push((id, Some((owner, raw))))),
            None => {
                report.error(&trail.key("user"), span, Complaint::bare("`user` is missing: whose key it is"));
                Ok(())
            }
        },
    };
    // The error may quote a value.
    if done.is_err() && !report.has_errors() {
        report.error(
            &trail,
            span,
            Complaint::bare("the document does not have the shape that its schema promises"),
        );
    }
}

/// Takes `user` out of a key's document.
fn take_owner(node: &mut Node) -> Option<Id> {
    let Tree::Map(entries) = &mut node.value else { return None };
    let at = entries.iter().position(|entry| &*entry.key == "user")?;
    match entries.remove(at).node.value {
        Tree::Text(text) => Some(text),
        _ => None,
    }
}

/// What YAML does not have, no document has either: it would break lines in logs and tables.
fn controls(node: &Node, trail: &Trail, report: &mut Report) {
    let bad = |text: &str| text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r'));
    let complaint =
        || Complaint::new("a control character is not allowed", "remove it; line breaks and tabs may stay");
    match &node.value {
        Tree::Text(text) if bad(text) => report.error(trail, node.span, complaint()),
        Tree::List(items) => {
            items.iter().enumerate().for_each(|(index, item)| controls(item, &trail.index(index), report));
        }
        Tree::Map(entries) => {
            for entry in entries {
                if bad(&entry.key) {
                    report.error(trail, node.span, complaint());
                }
                controls(&entry.node, &trail.key(&entry.key), report);
            }
        }
        _ => {}
    }
}

/// A catalog with a change laid over it.
struct Draft<'a> {
    base: &'a Catalog,
    /// Documents that the change brings.
    put: HashSet<(EntityKind, &'a str)>,
    channels: HashMap<Id, Option<Arc<Channel>>>,
    groups: HashMap<Id, Option<Members>>,
    /// Digests of channels' keys that the change brings.
    keys: HashMap<KeyDigest, Id>,
}

impl Known for Draft<'_> {
    fn channel(&self, id: &str) -> Found<Arc<Channel>> {
        let found = match self.channels.get(id) {
            Some(changed) => changed.as_ref(),
            None => self.base.channels.get(id),
        };
        match found {
            Some(channel) => Found::Is(Arc::clone(channel)),
            None if self.put.contains(&(EntityKind::Channel, id))
                || self.base.bad.contains(&(EntityKind::Channel, Id::from(id))) =>
            {
                Found::Bad
            }
            None => Found::Nothing,
        }
    }

    fn channel_ids(&self) -> Vec<&str> {
        let there = |id: &&Id| matches!(self.channel(id), Found::Is(_));
        self.base.channels.keys().chain(self.channels.keys()).filter(there).map(|id| &**id).collect()
    }

    fn group(&self, id: &str) -> Option<&Group> {
        let found = match self.groups.get(id) {
            Some(changed) => changed.as_ref(),
            None => self.base.groups.get(id),
        };
        found.map(|members| &members.built)
    }

    fn group_ids(&self) -> Vec<&str> {
        let there = |id: &&Id| self.group(id).is_some();
        self.base.groups.keys().chain(self.groups.keys()).filter(there).map(|id| &**id).collect()
    }

    fn channel_of_key(&self, digest: &KeyDigest) -> Option<&str> {
        let before = self.base.channel_keys.get(digest).into_iter().flatten();
        let mut still = before.filter(|id| !self.channels.contains_key(*id));
        self.keys.get(digest).or_else(|| still.next()).map(|id| &**id)
    }
}

impl Draft<'_> {
    fn put_channels(
        &mut self,
        edits: &[(Id, Option<raw::Channel>)],
        new: &mut Vec<Id>,
        builder: &mut Builder<'_>,
    ) {
        for (id, raw) in edits {
            let channel = raw.as_ref().and_then(|raw| builder.channel(id, raw.clone())).map(Arc::new);
            if let Some(channel) = &channel {
                let digest = KeyDigest::of(channel.api_key.expose().as_bytes());
                self.proxy_key_is_none(id, &digest, builder);
                self.keys.insert(digest, Arc::clone(id));
                if !self.base.channels.contains_key(id) && !new.contains(id) {
                    new.push(Arc::clone(id));
                }
            }
            self.channels.insert(Arc::clone(id), channel);
        }
    }

    /// A channel's key that callers have already would be theirs to know.
    fn proxy_key_is_none(&self, id: &str, digest: &KeyDigest, builder: &mut Builder<'_>) {
        if let Some((user, _)) = self.base.digests.get(digest) {
            let message = format!("the channel's API key is the Proxy-Key of the user `{user}`");
            let complaint =
                Complaint::new(message, "callers must not know the channel's key: give the user another");
            builder.error(&Trail::of(&["channels", id, "api_key"]), complaint);
        }
    }

    fn put_groups(&mut self, edits: &[(Id, Option<raw::Group>)], builder: &mut Builder<'_>) {
        let mut raws: HashMap<Id, Option<Arc<raw::Group>>> = HashMap::new();
        let changed = ids(&self.channels);
        if !changed.is_empty() {
            for (id, members) in &self.base.groups {
                if maps(members.raw.channels.as_ref(), &changed) {
                    raws.insert(Arc::clone(id), Some(Arc::clone(&members.raw)));
                }
            }
        }
        for (id, raw) in edits {
            raws.insert(Arc::clone(id), raw.clone().map(Arc::new));
        }
        for (id, raw) in raws {
            let members = raw.map(|raw| Members { built: builder.group(&id, &raw, self), raw });
            self.groups.insert(id, members);
        }
    }

    /// Users that the change touches, and how their keys show them.
    fn put_users(
        &self,
        users: Vec<(Id, Option<raw::User>)>,
        keys: Vec<(Id, Option<(Id, raw::Key)>)>,
        builder: &mut Builder<'_>,
    ) -> (HashMap<Id, Option<Person>>, Vec<Arc<User>>) {
        let mut people: HashMap<Id, Option<Person>> = HashMap::new();
        let (channels, groups) = (ids(&self.channels), ids(&self.groups));
        if !channels.is_empty() || !groups.is_empty() {
            for (id, person) in &self.base.users {
                let touched = maps(person.raw.channels.as_ref(), &channels)
                    || belongs(&person.raw, &groups)
                    || person.keys.values().any(|key| channels.iter().any(|id| key.names_channel(id)));
                if touched {
                    people.insert(Arc::clone(id), Some(person.clone()));
                }
            }
        }
        let has_key = |people: &mut HashMap<Id, Option<Person>>, id: &Id| {
            if !people.contains_key(id)
                && let Some(person) = self.base.users.get(id)
            {
                people.insert(Arc::clone(id), Some(person.clone()));
            }
        };
        for (id, raw) in users {
            has_key(&mut people, &id);
            let keys = people.remove(&id).flatten().map(|person| person.keys).unwrap_or_default();
            people.insert(id, raw.map(|raw| Person { raw: Arc::new(raw), keys }));
        }
        let mut fresh: HashSet<Id> = HashSet::new();
        for (id, key) in keys {
            let mut before = None;
            if let Some(owner) = self.base.keys.get(&id) {
                has_key(&mut people, owner);
                if let Some(Some(person)) = people.get_mut(owner) {
                    before = person.keys.remove(&id);
                }
            }
            let Some((owner, raw)) = key else { continue };
            has_key(&mut people, &owner);
            let trail = Trail::of(&["keys", &id]);
            let Some(Some(person)) = people.get_mut(&owner) else {
                if !self.base.bad.contains(&(EntityKind::User, Arc::clone(&owner))) {
                    let message = format!("there is no user `{owner}`");
                    builder.error(&trail.key("user"), Complaint::bare(message));
                }
                continue;
            };
            if let Some(mut key) = builder.key(&trail, &raw, self)
                && builder.is_no_channels(&trail.key("sha256"), &key.digest, self)
            {
                if let Some(before) = before.filter(|before| before.digest == key.digest) {
                    key.used = before.used;
                }
                fresh.insert(Arc::clone(&id));
                person.keys.insert(id, key);
            }
        }
        self.digests(&people, &fresh, builder);
        let mut built = Vec::new();
        for (id, person) in &people {
            let Some(person) = person else { continue };
            let mut in_use: Vec<&Id> =
                person.keys.iter().filter(|(_, key)| key.is_in_use()).map(|(id, _)| id).collect();
            in_use.sort_by_key(|id| fresh.contains(*id));
            if let [.., _, last] = in_use[..] {
                let message = format!("the user `{id}` has a key in use already");
                let complaint = Complaint::new(message, "rotate that one, or revoke it first");
                builder.error(&Trail::of(&["keys", last]), complaint);
            }
            let member = builder.member(id, &person.raw, self);
            built.extend(person.keys.values().map(|key| Arc::new(member.with(key))));
        }
        (people, built)
    }

    /// No two keys are the same.
    fn digests(&self, people: &HashMap<Id, Option<Person>>, fresh: &HashSet<Id>, builder: &mut Builder<'_>) {
        let mut seen: HashMap<KeyDigest, &Id> = HashMap::new();
        for (user, person) in people {
            for (id, key) in person.iter().flat_map(|person| &person.keys) {
                let elsewhere = self
                    .base
                    .digests
                    .get(&key.digest)
                    .filter(|(owner, have)| have != id && !people.contains_key(owner))
                    .map(|(owner, _)| owner);
                let twice = seen.insert(key.digest, user).or(elsewhere);
                if let Some(other) = twice {
                    let message = match fresh.contains(id) {
                        true => format!("the users `{other}` and `{user}` have the same Proxy-Key"),
                        false => format!("the Proxy-Key is the one of `{user}` too"),
                    };
                    let complaint = Complaint::new(message, "give each user a key of their own");
                    builder.error(&Trail::of(&["keys", id]), complaint);
                }
            }
        }
    }
}

fn ids<T>(changed: &HashMap<Id, T>) -> Vec<&str> {
    changed.keys().map(|id| &**id).collect()
}

/// Whether a list names one of these channels.
fn maps(list: Option<&Option<raw::Mapping>>, channels: &[&str]) -> bool {
    let named = list.into_iter().flatten().flatten().flatten().filter_map(raw::Mapped::id);
    !channels.is_empty() && named.into_iter().any(|id| channels.contains(&id))
}

/// Whether a user belongs to one of these groups.
fn belongs(user: &raw::User, groups: &[&str]) -> bool {
    !groups.is_empty() && user.groups.iter().flatten().flatten().any(|group| groups.contains(&group.as_str()))
}

/// What is wrong, by documents, secrets hidden.
fn faults(report: Report, root: Node) -> Vec<Fault> {
    let lines = Lines::new("");
    let parsed = yaml::Parsed { root: Some(root), ..yaml::Parsed::default() };
    let masker = Masker::new(&lines, &parsed);
    report.faults(&masker)
}

#[cfg(test)]
#[path = "catalog/tests.rs"]
mod tests;
