//! The immutable result of a valid configuration: what may be.

use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aiproxy_core::{KeyDigest, KeyTag, Secret};
use aiproxy_platform::{Placement, Platform, PriceTable};
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

mod limit;
mod shards;

pub use limit::Limit;
pub use shards::Shards;

pub use crate::egress::{Egress, EgressProxy, ProxyScheme};
pub use crate::reach::{ClientCertificate, H3, HttpVersion, PoolLimits, Reach};

/// Everything that a request may be checked against, ready to use. Readers share one behind an
/// `Arc`; a reload makes another, which shares with it what did not change.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Channels in the order of the file, or in which they were made.
    pub channels: Vec<Arc<Channel>>,
    /// The `system` section.
    pub system: System,
    keys: Shards<KeyDigest, Arc<User>, BuildHasherDefault<FirstEight>>,
}

impl Snapshot {
    /// Indexes users by the digests of their Proxy-Keys, a user with several keys once for each. The
    /// caller has made sure that no two share one.
    #[must_use]
    pub fn new(
        users: impl IntoIterator<Item = Arc<User>>,
        channels: Vec<Arc<Channel>>,
        system: System,
    ) -> Self {
        let keys = users.into_iter().map(|user| (user.key.digest, user)).collect();
        Self { channels, system, keys }
    }

    /// The user whose Proxy-Key has this digest.
    #[must_use]
    pub fn user_by_key(&self, digest: &KeyDigest) -> Option<&Arc<User>> {
        self.keys.get(digest)
    }

    /// Users, each once for every key, in no order.
    pub fn users(&self) -> impl Iterator<Item = &Arc<User>> {
        self.keys.values()
    }

    /// Puts a user with one of its keys in place of what the key stood for before.
    pub fn put_user(&mut self, user: Arc<User>) {
        self.keys.insert(user.key.digest, user);
    }

    /// Takes a key out.
    pub fn remove_key(&mut self, digest: &KeyDigest) {
        self.keys.remove(digest);
    }

    /// The channel with this id.
    #[must_use]
    pub fn channel(&self, id: &str) -> Option<&Arc<Channel>> {
        self.channels.iter().find(|channel| &*channel.id == id)
    }
}

/// Whether something is in service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// In service.
    Active,
    /// What is under way goes on, nothing new begins. Channels only.
    Draining,
    /// Switched off by an administrator.
    Disabled,
}

/// The caller's credential.
#[derive(Debug, Clone)]
pub struct ProxyKey {
    /// What is looked up.
    pub digest: KeyDigest,
    /// What people see.
    pub tag: Arc<KeyTag>,
    /// Whether it may be used.
    pub status: Status,
    /// Moment (Unix time, seconds) from which the key is taken.
    pub valid_from: Option<i64>,
    /// Moment (Unix time, seconds) from which the key is refused.
    pub expires_at: Option<i64>,
    /// When it was used last.
    pub used: KeyUse,
}

/// When a key was used last (Unix time, seconds; 0 is never). Shared by everything that stands for the same
/// key, whatever else of it changes.
#[derive(Debug, Clone, Default)]
pub struct KeyUse(Arc<AtomicI64>);

impl KeyUse {
    /// Notes a use. Threads that use the same key write once a second between them.
    pub fn note(&self, now: SystemTime) {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        if self.0.load(Ordering::Relaxed) < now {
            self.0.store(now, Ordering::Relaxed);
        }
    }

    /// The last use.
    #[must_use]
    pub fn last(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A person or a product line as one of its keys shows it: what groups give is merged in, and so is
/// what limits the key.
#[derive(Debug, Clone)]
pub struct User {
    /// Id in the configuration.
    pub id: Arc<str>,
    /// Name for people.
    pub name: String,
    /// Department, for reports.
    pub department: String,
    /// Whether the user may call at all.
    pub status: Status,
    /// The credential.
    pub key: ProxyKey,
    /// Groups that the user belongs to, in the order of the user's list.
    pub groups: Vec<Arc<str>>,
    /// Channels that the key may use, in order of preference (the user's own list, then what the
    /// groups add).
    pub channels: Vec<Arc<Channel>>,
    /// Channels of equal order among them; none unless there are.
    pub shares: Option<Arc<[Share]>>,
    /// Patterns of models that may be asked for.
    pub models: Limit<String>,
    /// Patterns of normal paths that may be asked for.
    pub endpoints: Limit<String>,
    /// Addresses that the key may be used from.
    pub allow_ips: Limit<IpNet>,
}

/// The place of a channel among those that a user may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Channels of the same order take turns.
    pub order: u32,
    /// How often, as against the others of the same order.
    pub weight: u32,
}

/// One upstream account.
#[derive(Debug, Clone)]
pub struct Channel {
    /// Id in the configuration.
    pub id: Arc<str>,
    /// Name for people.
    pub name: String,
    /// The platform's entry in the table.
    pub platform: &'static Platform,
    /// Whether the channel may be used.
    pub status: Status,
    /// The key that the platform wants.
    pub api_key: Secret,
    /// Where the platform is.
    pub base: BaseUrl,
    /// Where the key goes over HTTP: the channel's own list, else the platform's.
    pub placement: Vec<Placement>,
    /// Where the key goes when a WebSocket opens.
    pub socket_placement: Vec<Placement>,
    /// Model patterns of the channel's own; `None` leaves it to the platform's patterns.
    pub models: Option<Vec<String>>,
    /// Model of realtime sessions for which callers name none.
    pub default_model: Option<Arc<str>>,
    /// When not empty, only these normal paths are relayed.
    pub allow_paths: Vec<String>,
    /// These normal paths are refused, besides those that the platform forbids.
    pub deny_paths: Vec<String>,
    /// `(from, to)`: prefixes of whole segments, replaced on the way up, before the platform's
    /// own rewrite.
    pub path_rewrite: Vec<(String, String)>,
    /// Headers added to each request, replacing the caller's.
    pub set_headers: Vec<(HeaderName, HeaderValue)>,
    /// Headers that would be removed for leaking the account but may pass, both ways.
    pub pass_headers: Vec<HeaderName>,
    /// Time limits.
    pub timeouts: Timeouts,
    /// PEM certificates to trust instead of the system's roots.
    pub ca_pem: Option<Arc<[u8]>>,
    /// When another channel is tried.
    pub retry: Retry,
    /// When the channel is left alone.
    pub breaker: Breaker,
    /// Active health check; none unless configured.
    pub health: Option<HealthCheck>,
    /// Who may use what a caller made at the platform.
    pub ownership: Ownership,
    /// What models cost; none unless configured.
    pub prices: Option<Arc<PriceTable>>,
    /// Streams whose callers did not ask for usage.
    pub stream_usage: StreamUsage,
    /// How to get there.
    pub reach: Reach,
    /// Connections that are kept open.
    pub pool: PoolLimits,
    /// WebSockets.
    pub websocket: WebSocket,
    /// WebRTC calls.
    pub realtime: Realtime,
}

/// WebSockets of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebSocket {
    /// From the connection to the platform until its answer to the handshake.
    pub handshake: Duration,
    /// The longest time without a byte in either direction.
    pub idle: Duration,
    /// The longest life of a socket; `None` is no limit.
    pub total: Option<Duration>,
    /// Whether `OpenAI-Beta: realtime=…` and its subprotocol are taken out; `None` leaves it to
    /// [`Channel::strips_beta`].
    pub strip_beta: Option<bool>,
}

impl Default for WebSocket {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(30),
            idle: Duration::from_secs(3600),
            total: None,
            strip_beta: None,
        }
    }
}

impl Channel {
    /// Whether connections of the one lead to the same place in the same way as the other's.
    #[must_use]
    pub fn reaches_as(&self, other: &Self) -> bool {
        self.base == other.base && self.ca_pem == other.ca_pem && self.reach == other.reach
    }

    /// Whether what asks for the beta of OpenAI's realtime API is taken out: OpenAI ends sessions that
    /// still ask for it.
    #[must_use]
    pub fn strips_beta(&self) -> bool {
        self.websocket.strip_beta.unwrap_or(self.platform.id == "openai")
    }

    /// Whether requests may share a connection.
    #[must_use]
    pub fn may_multiplex(&self) -> bool {
        self.reach.may_be_h2(self.base.tls) || self.reach.wants_h3().is_some()
    }
}

/// What is done about the usage of streams whose callers did not ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StreamUsage {
    /// It is asked for, and the report is taken out of the answer again.
    #[default]
    Inject,
    /// Nothing: it is estimated.
    Observe,
}

/// When another channel is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Channels that may be tried for one request, this one included; the first channel's counts.
    pub attempts: usize,
    /// Statuses from 500 to 599, besides 429 and 503 (which always count and are not listed), after
    /// which the next channel is tried; sorted. The platform may have billed the failed attempt.
    pub on: Vec<u16>,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 3, on: Vec::new() }
    }
}

/// When a channel is left alone, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Breaker {
    /// Consecutive failures that open it.
    pub failures: u32,
    /// Share of failures over the window that opens it, 0 to 1.
    pub error_rate: f64,
    /// Requests in the window below which the share means nothing.
    pub min_requests: u32,
    /// Length of the window.
    pub window: Duration,
    /// First cooldown.
    pub cooldown: Duration,
    /// Longest cooldown.
    pub max_cooldown: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: 5,
            error_rate: 0.5,
            min_requests: 20,
            window: Duration::from_secs(30),
            cooldown: Duration::from_secs(10),
            max_cooldown: Duration::from_secs(120),
        }
    }
}

/// An active health check: a GET with the channel's key; any answer below 500 but 401 is healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Path and query as written, behind the path of the base URL: no rewrite applies.
    pub path: String,
    /// Time between checks.
    pub interval: Duration,
    /// Consecutive failures that make the channel a last resort.
    pub threshold: u32,
}

/// Who may use what a caller made at the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ownership {
    /// Only the user who made it.
    #[default]
    Enforce,
    /// Users who share a group with the one who made it.
    Shared,
    /// Everybody who may use the channel.
    Off,
}

/// `scheme://host[:port][/path]`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseUrl {
    /// Whether the scheme is `https`.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port, the scheme's default filled in.
    pub port: u16,
    /// Path before every request path: empty, or `/…` without a slash at the end.
    pub path: String,
    /// Value of the `Host` header: host, brackets where needed, port unless the default.
    pub authority: String,
}

/// Time limits of a channel; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Resolving, connecting and TLS together.
    pub connect: Duration,
    /// From the request's last byte sent to the answer's head.
    pub first_byte: Duration,
    /// The longest silence while a body is under way, in either direction.
    pub idle: Duration,
    /// The whole exchange.
    pub total: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(600),
            idle: Duration::from_secs(300),
            total: None,
        }
    }
}

/// The `system` section.
#[derive(Debug, Clone)]
pub struct System {
    /// How often the file is looked at.
    pub config_reload_interval: Duration,
    /// Directive of the process log, in the syntax of `RUST_LOG`.
    pub log_level: String,
    /// Caller connections at one time.
    pub max_connections: usize,
    /// Plain HTTP listeners.
    pub http: Vec<SocketAddr>,
    /// HTTPS listeners; empty is none.
    pub https: Vec<SocketAddr>,
    /// HTTP/3 listeners, over UDP.
    pub quic: Quic,
    /// The port that callers are told in place of the HTTP/3 listener's own.
    pub quic_advertise: Option<u16>,
    /// Certificates of the HTTPS and HTTP/3 listeners.
    pub tls: Option<Tls>,
    /// Whether connections to `http` and `https` begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Listeners for `/healthz`, `/readyz` and `/metrics`; empty is none.
    pub admin: Vec<SocketAddr>,
    /// How the process ends.
    pub drain: Drain,
    /// Threads that serve callers; `None` is one per core.
    pub workers: Option<usize>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Bounds.
    pub limits: Limits,
    /// Browsers' access; `None` answers no cross-origin request.
    pub cors: Option<Cors>,
    /// Logs.
    pub log: Log,
    /// Folder of the state that outlives the process.
    pub data_dir: PathBuf,
    /// The usage journal; `None` writes the access log directly.
    pub journal: Option<Journal>,
    /// Client secrets.
    pub client_secrets: ClientSecrets,
    /// WebRTC calls; `None` takes none.
    pub media: Option<Media>,
}

/// Where HTTP/3 is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Quic {
    /// At the addresses of the HTTPS listeners, and on their ports' numbers, those that the system
    /// chooses (port 0) included.
    LikeHttps,
    /// At these, one or more.
    At(Vec<SocketAddr>),
    /// Nowhere.
    Off,
}

/// Where WebRTC calls come, and how they stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// UDP addresses, at most one a family.
    pub listen: Vec<SocketAddr>,
    /// What callers and platforms are told instead, at most one a family.
    pub public: Vec<IpAddr>,
    /// UDP ports of the legs towards platforms.
    pub ports: RangeInclusive<u16>,
    /// From the answer until both legs stand.
    pub setup: Duration,
    /// How long a side that is not heard may take to come back.
    pub grace: Duration,
}

/// Where the media of a channel's calls go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebRtc {
    /// Through AIProxy.
    Relay,
    /// Between caller and platform.
    Direct,
    /// Nowhere: calls are not served.
    Off,
}

/// WebRTC calls of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realtime {
    /// Where media goes.
    pub webrtc: WebRtc,
    /// The longest time without a packet or a message.
    pub idle: Duration,
    /// The longest life of a call.
    pub total: Option<Duration>,
    /// Bytes of a message on a data channel.
    pub message: u32,
    /// Bytes of messages held for a side that does not take them.
    pub buffer: usize,
    /// Calls at one time.
    pub calls: Option<usize>,
}

impl Default for Realtime {
    fn default() -> Self {
        Self {
            webrtc: WebRtc::Relay,
            idle: Duration::from_secs(300),
            total: None,
            message: 224 << 10,
            buffer: 1 << 20,
            calls: None,
        }
    }
}

/// Client secrets: their keys, and how many there may be for how long.
#[derive(Debug, Clone)]
pub struct ClientSecrets {
    /// What seals them, the first, and opens them, all. Empty leaves it to the key in `data_dir`. Shared
    /// by all who hold the snapshot: whoever derives something from them knows the list again.
    pub keys: Arc<[Secret]>,
    /// Those of one Proxy-Key that have not expired.
    pub max_per_key: usize,
    /// The longest life.
    pub max_ttl: Duration,
}

impl ClientSecrets {
    /// Whether both mean the same.
    #[must_use]
    pub fn is_as(&self, other: &Self) -> bool {
        self.keys.iter().map(Secret::expose).eq(other.keys.iter().map(Secret::expose))
            && self.max_per_key == other.max_per_key
            && self.max_ttl == other.max_ttl
    }
}

impl Default for ClientSecrets {
    fn default() -> Self {
        Self { keys: Arc::new([]), max_per_key: 1000, max_ttl: Duration::from_secs(2 * 60 * 60) }
    }
}

/// How the usage journal is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// Its folder.
    pub dir: PathBuf,
    /// Bytes of one segment.
    pub segment_bytes: u32,
    /// Bytes of records that have not been consumed.
    pub max_bytes: u64,
    /// How long consumed records are kept.
    pub retention: Duration,
    /// Bytes that consumed records may take.
    pub retention_bytes: u64,
    /// How often records go to the disk.
    pub sync_interval: Duration,
    /// How often sessions that go on are recorded.
    pub session_interval: Duration,
}

/// Certificates of the HTTPS and HTTP/3 listeners. The files are read by whoever listens, again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Where the certificates come from.
    pub certificates: Certificates,
    /// PEM file of the authorities of which one must have signed each caller's certificate.
    pub client_ca: Option<PathBuf>,
}

/// Where certificates come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificates {
    /// Made at the first start and kept in `data_dir`, for development.
    SelfSigned,
    /// Files; the first pair is for callers who ask for none of the names.
    Files(Vec<CertificateFiles>),
}

/// PEM files of a certificate and its private key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// The certificate, intermediates after it.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// Bounds on what callers may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request head.
    pub header_bytes: usize,
    /// Number of header fields.
    pub headers: usize,
    /// Time for a request head to arrive.
    pub header_timeout: Duration,
    /// Bytes of a request body.
    pub body_bytes: u64,
    /// Time an idle keep-alive connection is kept.
    pub keep_alive: Duration,
    /// Bytes of a request body that are read to find the model.
    pub peek_bytes: usize,
    /// Bytes of a request body that are kept so that another channel can be tried.
    pub replay_bytes: usize,
    /// Bytes that all requests together may keep for that.
    pub replay_total: usize,
    /// Connections of one caller's address.
    pub connections_per_ip: Option<usize>,
    /// Requests under way on one HTTP/2 connection.
    pub streams_per_connection: u32,
    /// Requests under way of all callers; `None` is as many as `max_connections`.
    pub requests: Option<usize>,
    /// TLS handshakes under way.
    pub handshakes: usize,
    /// Time for a TLS handshake.
    pub handshake_timeout: Duration,
    /// Age at which a connection takes no more requests.
    pub connection_age: Option<Duration>,
    /// Bytes a second at which a request body has to arrive.
    pub min_body_rate: Option<u64>,
    /// Bytes of one WebSocket message, all its frames together.
    pub websocket_message: u64,
    /// Bytes of one WebSocket frame.
    pub websocket_frame: u64,
    /// WebRTC calls of all callers.
    pub calls: usize,
    /// WebRTC calls of one Proxy-Key.
    pub calls_per_key: usize,
    /// WebRTC calls that are being set up.
    pub call_setups: usize,
}

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// From the signal until the listeners close: time for load balancers to notice.
    pub delay: Duration,
    /// From then until requests in flight are cut.
    pub timeout: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { delay: Duration::ZERO, timeout: Duration::from_secs(30) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 64 * 1024,
            headers: 128,
            header_timeout: Duration::from_secs(10),
            body_bytes: 1 << 30,
            keep_alive: Duration::from_secs(75),
            peek_bytes: 1024 * 1024,
            replay_bytes: 1024 * 1024,
            replay_total: 64 * 1024 * 1024,
            connections_per_ip: None,
            streams_per_connection: 100,
            requests: None,
            handshakes: 256,
            handshake_timeout: Duration::from_secs(10),
            connection_age: None,
            min_body_rate: None,
            websocket_message: 64 << 20,
            websocket_frame: 64 << 20,
            calls: 1000,
            calls_per_key: 100,
            call_setups: 64,
        }
    }
}

/// Browsers' access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Origins that may call, exactly as browsers send them, or `*`.
    pub origins: Vec<String>,
    /// How long browsers may remember a preflight.
    pub max_age: Duration,
}

/// Where logs go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Access log.
    pub access: AccessLog,
    /// When its file is moved aside; `None` is never.
    pub rotate: Option<Rotate>,
    /// Shape of the process log on standard error.
    pub format: LogFormat,
}

/// When the access log's file is moved aside, and which of the moved files are deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotate {
    /// Moved aside once it is this long.
    pub bytes: u64,
    /// Moved aside once its first line is this old.
    pub age: Duration,
    /// Moved files that are kept at most.
    pub keep_files: Option<usize>,
    /// How long a moved file is kept.
    pub keep_age: Duration,
    /// Bytes that moved files may take.
    pub keep_bytes: u64,
}

impl Default for Rotate {
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Self {
            bytes: 256 << 20,
            age: Duration::from_secs(DAY),
            keep_files: None,
            keep_age: Duration::from_secs(90 * DAY),
            keep_bytes: 10 << 30,
        }
    }
}

/// Target of the access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
    /// None.
    Off,
}

/// Shape of the process log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Digests are uniform: their first eight bytes are hash enough.
#[derive(Debug, Default)]
pub(crate) struct FirstEight(u64);

impl Hasher for FirstEight {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    fn write_usize(&mut self, _: usize) {}
}
