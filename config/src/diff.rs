//! What differs between two snapshots, by meaning: for the log, and for whoever applies a reload.
//!
//! Lists whose order means nothing (networks, models, patterns, headers) are compared as sets, and
//! channels that a user may use by their ids. Fields are named as in the file; no value is kept,
//! so that no key can get out this way.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use crate::model::{Channel, Limit, Log, ProxyKey, Quic, Reach, Snapshot, System, User};

/// Most names that a list shows.
const SHOWN: usize = 20;

/// Settings of the `system` section that are read once.
const AT_START: [&str; 8] =
    ["listen.admin", "workers", "data_dir", "log.access", "log.rotate", "log.format", "journal", "media"];

/// What differs between two snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Users by id. What a group gives is a difference of its members.
    pub users: Changes,
    /// Channels by id.
    pub channels: Changes,
    /// Names of changed settings of the `system` section, such as `listen.http`.
    pub system: Vec<&'static str>,
}

/// What differs between two lists of things with ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Ids that only the new one has: users by the alphabet, channels in its order.
    pub added: Vec<Arc<str>>,
    /// Ids that both have, in the new one's order, with the names of the fields that differ.
    pub changed: Vec<(Arc<str>, Vec<&'static str>)>,
    /// Ids that only the old one has, in its order.
    pub removed: Vec<Arc<str>>,
}

/// What differs between two snapshots. Takes time in proportion to their size.
#[must_use]
pub fn diff(old: &Snapshot, new: &Snapshot) -> Diff {
    Diff {
        users: changes(&people(old), &people(new), Person::id, Person::fields),
        channels: channels(&old.channels, &new.channels),
        system: system_fields(&old.system, &new.system),
    }
}

/// What differs between two lists of channels.
#[must_use]
pub fn channels(old: &[Arc<Channel>], new: &[Arc<Channel>]) -> Changes {
    changes(old, new, |channel| &channel.id, channel_fields)
}

impl Diff {
    /// Whether both mean the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.channels.is_empty() && self.system.is_empty()
    }
}

impl Changes {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

impl System {
    /// The changed settings that take effect only at the next start.
    #[must_use]
    pub fn needs_restart(old: &Self, new: &Self) -> Vec<&'static str> {
        let mut names = system_fields(old, new);
        names.retain(|name| AT_START.contains(name));
        names
    }
}

/// A user with all keys, by their digests.
struct Person {
    keys: Vec<Arc<User>>,
}

impl Person {
    fn id(&self) -> &Arc<str> {
        &self.keys[0].id
    }

    /// What differs: of each key that both have, and the keys themselves.
    fn fields(old: &Self, new: &Self) -> Vec<&'static str> {
        let digests = |person: &Self| person.keys.iter().map(|user| user.key.digest).collect::<Vec<_>>();
        let same_keys = digests(old) == digests(new);
        let mut fields = if same_keys { Vec::new() } else { vec!["proxy_key"] };
        for (was, is) in old.keys.iter().zip(&new.keys).filter(|(was, is)| !Arc::ptr_eq(was, is)) {
            for field in user_fields(was, is) {
                // One key's fields against another's say little.
                if !fields.contains(&field) {
                    fields.push(field);
                }
            }
        }
        fields
    }
}

/// Users by the alphabet of their ids.
fn people(snapshot: &Snapshot) -> Vec<Arc<Person>> {
    let mut users: Vec<_> = snapshot.users().cloned().collect();
    users.sort_unstable_by(|a, b| {
        a.id.cmp(&b.id).then_with(|| a.key.digest.as_bytes().cmp(b.key.digest.as_bytes()))
    });
    users.chunk_by(|a, b| a.id == b.id).map(|keys| Arc::new(Person { keys: keys.to_vec() })).collect()
}

fn changes<T>(
    old: &[Arc<T>],
    new: &[Arc<T>],
    id: impl Fn(&T) -> &Arc<str>,
    fields: impl Fn(&T, &T) -> Vec<&'static str>,
) -> Changes {
    let mut before: HashMap<&str, &Arc<T>> = old.iter().map(|item| (&**id(item), item)).collect();
    let mut changes = Changes::default();
    for item in new {
        let Some(was) = before.remove(&**id(item)) else {
            changes.added.push(Arc::clone(id(item)));
            continue;
        };
        let fields = if Arc::ptr_eq(was, item) { Vec::new() } else { fields(was, item) };
        if !fields.is_empty() {
            changes.changed.push((Arc::clone(id(item)), fields));
        }
    }
    let gone = old.iter().map(|item| id(item)).filter(|id| before.contains_key(&***id));
    changes.removed.extend(gone.cloned());
    changes
}

// Each struct is taken apart in full, so that a new field cannot be forgotten here.

fn user_fields(old: &User, new: &User) -> Vec<&'static str> {
    let User { id: _, name, department, status, key, groups, channels, shares, models, endpoints, allow_ips } =
        old;
    // The tag is what people see of the same key, and its last use changes nothing.
    let ProxyKey { digest, tag: _, status: key_status, valid_from, expires_at, used: _ } = key;
    let same_ids = |a: &[Arc<Channel>], b: &[Arc<Channel>]| {
        a.iter().map(|channel| &channel.id).eq(b.iter().map(|channel| &channel.id))
    };
    names([
        ("name", *name == new.name),
        ("department", *department == new.department),
        ("proxy_key", *digest == new.key.digest),
        ("keys.status", *key_status == new.key.status),
        ("valid_from", *valid_from == new.key.valid_from),
        ("expires_at", *expires_at == new.key.expires_at),
        ("status", *status == new.status),
        ("groups", same_set(groups, &new.groups)),
        // Their order is the preference.
        ("channels", same_ids(channels, &new.channels) && *shares == new.shares),
        ("models", same_levels(models, &new.models)),
        ("endpoints", same_levels(endpoints, &new.endpoints)),
        ("allow_ips", same_levels(allow_ips, &new.allow_ips)),
    ])
}

fn channel_fields(old: &Channel, new: &Channel) -> Vec<&'static str> {
    let Channel {
        id: _,
        name,
        platform,
        status,
        api_key,
        base,
        placement,
        models,
        default_model,
        allow_paths,
        deny_paths,
        path_rewrite,
        set_headers,
        pass_headers,
        timeouts,
        ca_pem,
        retry,
        breaker,
        health,
        ownership,
        prices,
        stream_usage,
        reach,
        pool,
        socket_placement,
        websocket,
        realtime,
    } = old;
    let Reach { versions, egress, resolve, identity } = reach;
    names([
        ("name", *name == new.name),
        ("platform", platform.id == new.platform.id),
        ("status", *status == new.status),
        ("api_key", api_key.expose() == new.api_key.expose()),
        ("base_url", *base == new.base),
        ("key_placement", *placement == new.placement && *socket_placement == new.socket_placement),
        ("models", same_limit(models.as_deref(), new.models.as_deref())),
        ("default_model", *default_model == new.default_model),
        ("allow_paths", same_set(allow_paths, &new.allow_paths)),
        ("deny_paths", same_set(deny_paths, &new.deny_paths)),
        // The first that fits is taken.
        ("path_rewrite", *path_rewrite == new.path_rewrite),
        ("headers.set", same_set(set_headers, &new.set_headers)),
        ("headers.pass", same_set(pass_headers, &new.pass_headers)),
        ("timeouts", *timeouts == new.timeouts),
        ("ca", *ca_pem == new.ca_pem),
        ("retry", *retry == new.retry),
        ("breaker", *breaker == new.breaker),
        ("health", *health == new.health),
        ("ownership", *ownership == new.ownership),
        ("prices", *prices == new.prices),
        ("stream_usage", *stream_usage == new.stream_usage),
        ("http_versions", *versions == new.reach.versions),
        ("egress_proxy", *egress == new.reach.egress),
        ("resolve", same_set(resolve, &new.reach.resolve)),
        ("client_certificate", *identity == new.reach.identity),
        ("pool", *pool == new.pool),
        ("websocket", *websocket == new.websocket),
        ("realtime", *realtime == new.realtime),
    ])
}

fn system_fields(old: &System, new: &System) -> Vec<&'static str> {
    let System {
        config_reload_interval,
        log_level,
        max_connections,
        http,
        https,
        quic,
        quic_advertise,
        tls,
        proxy_protocol,
        admin,
        drain,
        workers,
        trusted_proxies,
        limits,
        cors,
        log,
        data_dir,
        journal,
        client_secrets,
        media,
    } = old;
    let Log { access, rotate, format } = log;
    let same_cors = match (cors, &new.cors) {
        (Some(a), Some(b)) => same_set(&a.origins, &b.origins) && a.max_age == b.max_age,
        (a, b) => a.is_none() && b.is_none(),
    };
    names([
        ("config_reload_interval", *config_reload_interval == new.config_reload_interval),
        ("log_level", *log_level == new.log_level),
        ("max_connections", *max_connections == new.max_connections),
        ("listen.http", same_set(http, &new.http)),
        ("listen.https", same_set(https, &new.https)),
        ("listen.quic", same_quic(quic, &new.quic)),
        ("listen.quic_advertise", *quic_advertise == new.quic_advertise),
        ("listen.proxy_protocol", *proxy_protocol == new.proxy_protocol),
        ("tls", *tls == new.tls),
        ("listen.admin", same_set(admin, &new.admin)),
        ("workers", *workers == new.workers),
        ("trusted_proxies", same_set(trusted_proxies, &new.trusted_proxies)),
        ("limits", *limits == new.limits),
        ("cors", same_cors),
        ("log.access", *access == new.log.access),
        ("log.rotate", *rotate == new.log.rotate),
        ("log.format", *format == new.log.format),
        ("data_dir", *data_dir == new.data_dir),
        ("journal", *journal == new.journal),
        ("client_secrets", client_secrets.is_as(&new.client_secrets)),
        ("media", *media == new.media),
        ("drain", *drain == new.drain),
    ])
}

/// The names whose values are not the same.
fn names<const N: usize>(fields: [(&'static str, bool); N]) -> Vec<&'static str> {
    fields.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
}

/// Whether two lists hold the same, in any order and however often.
fn same_set<T: Eq + Hash>(a: &[T], b: &[T]) -> bool {
    a == b || a.iter().collect::<HashSet<_>>() == b.iter().collect::<HashSet<_>>()
}

fn same_quic(a: &Quic, b: &Quic) -> bool {
    match (a, b) {
        (Quic::At(a), Quic::At(b)) => same_set(a, b),
        (a, b) => a == b,
    }
}

/// Whether each level allows the same.
fn same_levels<T: Eq + Hash>(a: &Limit<T>, b: &Limit<T>) -> bool {
    a.lists().len() == b.lists().len() && a.lists().iter().zip(b.lists()).all(|(a, b)| same_set(a, b))
}

/// The same, where no list is another thing than an empty one.
fn same_limit(a: Option<&[String]>, b: Option<&[String]>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => same_set(a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
}

/// `+added ~changed(field, field) -removed` of users and channels, then changed settings, on one
/// line of bounded length.
impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no changes");
        }
        let mut separator = "";
        for (name, changes) in [("users", &self.users), ("channels", &self.channels)] {
            if !changes.is_empty() {
                write!(f, "{separator}{name}: {changes}")?;
                separator = "; ";
            }
        }
        if !self.system.is_empty() {
            write!(f, "{separator}system: {}", self.system.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        listed(f, &mut separator, &self.added, |f, id| write!(f, "+{}", Id(id)))?;
        listed(f, &mut separator, &self.changed, |f, (id, fields)| {
            write!(f, "~{}({})", Id(id), fields.join(", "))
        })?;
        listed(f, &mut separator, &self.removed, |f, id| write!(f, "-{}", Id(id)))
    }
}

fn listed<T>(
    f: &mut fmt::Formatter<'_>,
    separator: &mut &str,
    items: &[T],
    show: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for item in items.iter().take(SHOWN) {
        f.write_str(separator)?;
        show(f, item)?;
        *separator = " ";
    }
    match items.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => write!(f, " … and {more} more"),
    }
}

/// An id, in quotes where it would not be seen where it ends.
struct Id<'a>(&'a str);

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '@');
        let plain = self.0.starts_with(char::is_alphanumeric) && self.0.chars().all(inner);
        if plain { f.write_str(self.0) } else { write!(f, "{:?}", self.0) }
    }
}
