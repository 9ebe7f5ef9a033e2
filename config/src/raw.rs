//! The configuration as typed: every field optional, nothing checked but shapes.
//!
//! What validation took out reads as `None`, also inside lists and maps.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor};

use crate::units;

/// A list whose bad items are `None`.
pub(crate) type List = Vec<Option<String>>;

/// A field whose presence matters: `Some(None)` where it is there but bad.
pub(crate) type Given<T> = Option<Option<T>>;

fn given<'de, D: de::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Given<T>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(rename = "literal")]
    pub(crate) _literal: Option<bool>,
    pub(crate) users: Named<User>,
    pub(crate) groups: Named<Group>,
    pub(crate) channels: Named<Channel>,
    pub(crate) system: Option<System>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct User {
    pub(crate) name: Option<String>,
    pub(crate) department: Option<String>,
    #[serde(deserialize_with = "given")]
    pub(crate) proxy_key: Given<String>,
    #[serde(deserialize_with = "given")]
    pub(crate) proxy_key_sha256: Given<String>,
    pub(crate) keys: Option<Vec<Option<Key>>>,
    pub(crate) status: Option<Status>,
    #[serde(deserialize_with = "given")]
    pub(crate) channels: Given<Mapping>,
    #[serde(rename = "email")]
    pub(crate) _email: Option<String>,
    #[serde(rename = "phone")]
    pub(crate) _phone: Option<String>,
    #[serde(rename = "employee_number")]
    pub(crate) _employee_number: Option<String>,
    #[serde(rename = "notes")]
    pub(crate) _notes: Option<String>,
    pub(crate) groups: Option<List>,
    pub(crate) allow_ips: Option<List>,
    pub(crate) valid_from: Option<String>,
    pub(crate) expires_at: Option<String>,
    pub(crate) models: Option<List>,
    pub(crate) endpoints: Option<List>,
}

/// A key of a user. Who it belongs to is said where it stands, or in `user`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Key {
    #[serde(rename = "id")]
    pub(crate) _id: Option<String>,
    #[serde(rename = "name")]
    pub(crate) _name: Option<String>,
    pub(crate) sha256: Option<String>,
    pub(crate) prefix: Option<String>,
    pub(crate) status: Option<KeyStatus>,
    pub(crate) channels: Option<List>,
    pub(crate) models: Option<List>,
    pub(crate) endpoints: Option<List>,
    pub(crate) allow_ips: Option<List>,
    pub(crate) valid_from: Option<String>,
    pub(crate) expires_at: Option<String>,
    pub(crate) retires_at: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KeyStatus {
    Active,
    Disabled,
    Revoked,
}

/// Channels that somebody may use; bad ones are `None`.
pub(crate) type Mapping = Vec<Option<Mapped>>;

/// A channel that somebody may use: its id, or that and its place.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Mapped {
    Word(String),
    Placed(Placed),
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Placed {
    pub(crate) id: Option<String>,
    pub(crate) order: Option<u32>,
    pub(crate) weight: Option<u32>,
}

impl Mapped {
    pub(crate) fn id(&self) -> Option<&str> {
        match self {
            Self::Word(id) => Some(id),
            Self::Placed(placed) => placed.id.as_deref(),
        }
    }

    /// Its order, where one is given, and its weight.
    pub(crate) fn place(&self) -> (Option<u32>, u32) {
        match self {
            Self::Word(_) => (None, 1),
            Self::Placed(placed) => (placed.order, placed.weight.unwrap_or(1)),
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Group {
    #[serde(rename = "name")]
    pub(crate) _name: Option<String>,
    #[serde(rename = "notes")]
    pub(crate) _notes: Option<String>,
    #[serde(deserialize_with = "given")]
    pub(crate) channels: Given<Mapping>,
    pub(crate) allow_ips: Option<List>,
    pub(crate) models: Option<List>,
    pub(crate) endpoints: Option<List>,
    pub(crate) valid_from: Option<String>,
    pub(crate) expires_at: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Channel {
    pub(crate) name: Option<String>,
    pub(crate) platform: Option<String>,
    pub(crate) api_key: Option<String>,
    pub(crate) base_url: Option<String>,
    pub(crate) status: Option<ChannelStatus>,
    pub(crate) ca: Option<String>,
    pub(crate) client_certificate: Option<ClientCertificate>,
    pub(crate) allow_paths: Option<List>,
    pub(crate) deny_paths: Option<List>,
    pub(crate) key_placement: Option<Placements>,
    pub(crate) timeouts: Option<Timeouts>,
    pub(crate) models: Option<List>,
    pub(crate) default_model: Option<String>,
    pub(crate) path_rewrite: Named<String>,
    pub(crate) headers: Option<Headers>,
    pub(crate) ownership: Option<Ownership>,
    pub(crate) retry: Option<Retry>,
    pub(crate) breaker: Option<Breaker>,
    pub(crate) health: Option<Health>,
    pub(crate) prices: Option<Prices>,
    pub(crate) stream_usage: Option<StreamUsage>,
    pub(crate) egress_proxy: Option<String>,
    pub(crate) resolve: Named<List>,
    pub(crate) pool: Option<Pool>,
    pub(crate) http_versions: Option<Vec<Option<HttpVersion>>>,
    pub(crate) websocket: Option<WebSocket>,
    pub(crate) realtime: Option<Realtime>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WebSocket {
    pub(crate) handshake: Option<Span>,
    pub(crate) idle: Option<Span>,
    pub(crate) total: Option<Span>,
    pub(crate) beta: Option<Beta>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Beta {
    Strip,
    Pass,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ClientCertificate {
    pub(crate) chain: Option<String>,
    pub(crate) private_key: Option<String>,
}

/// Spelt as ALPN's short forms.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HttpVersion {
    H1,
    H2,
    H3,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Pool {
    pub(crate) idle: Option<Span>,
    pub(crate) max_idle: Option<usize>,
    pub(crate) warm: Option<usize>,
    pub(crate) ping: Option<Span>,
    pub(crate) lookup: Option<Span>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Active,
    Disabled,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ChannelStatus {
    Active,
    Draining,
    Disabled,
}

/// One place or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Placements {
    Several(Vec<Option<Placement>>),
    One(Placement),
}

/// One place for a key.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Placement {
    Word(Word),
    Place(Place),
}

/// A place that has a name.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Word {
    Bearer,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Place {
    pub(crate) header: Option<String>,
    pub(crate) scheme: Option<String>,
    pub(crate) query: Option<String>,
    pub(crate) subprotocol_prefix: Option<String>,
    pub(crate) subprotocol_pair: Option<String>,
    pub(crate) first_message: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Timeouts {
    pub(crate) connect: Option<Span>,
    pub(crate) first_byte: Option<Span>,
    pub(crate) idle: Option<Span>,
    pub(crate) total: Option<Span>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ownership {
    Enforce,
    Shared,
    Off,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Retry {
    pub(crate) attempts: Option<usize>,
    pub(crate) on: Option<Vec<Option<u16>>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Breaker {
    pub(crate) failures: Option<u32>,
    pub(crate) error_rate: Option<f64>,
    pub(crate) min_requests: Option<u32>,
    pub(crate) window: Option<Span>,
    pub(crate) cooldown: Option<Span>,
    pub(crate) max_cooldown: Option<Span>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Health {
    pub(crate) path: Option<String>,
    pub(crate) interval: Option<Span>,
    pub(crate) threshold: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Prices {
    pub(crate) currency: Option<String>,
    pub(crate) models: Named<Price>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Price {
    pub(crate) input: Option<f64>,
    pub(crate) output: Option<f64>,
    pub(crate) cached: Option<f64>,
    pub(crate) cache_written: Option<f64>,
    pub(crate) reasoning: Option<f64>,
    pub(crate) audio_input: Option<f64>,
    pub(crate) audio_output: Option<f64>,
    pub(crate) image_input: Option<f64>,
    pub(crate) image_output: Option<f64>,
    pub(crate) second: Option<f64>,
    pub(crate) image: Option<f64>,
    pub(crate) characters: Option<f64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StreamUsage {
    Inject,
    Observe,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Headers {
    pub(crate) set: Named<String>,
    pub(crate) pass: Option<List>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct System {
    pub(crate) config_reload_interval: Option<Span>,
    pub(crate) log_level: Option<String>,
    pub(crate) max_connections: Option<usize>,
    pub(crate) listen: Option<Listen>,
    pub(crate) allow_plaintext: Option<bool>,
    pub(crate) workers: Option<usize>,
    pub(crate) trusted_proxies: Option<List>,
    pub(crate) limits: Option<Limits>,
    pub(crate) cors: Option<Cors>,
    pub(crate) log: Option<Log>,
    pub(crate) data_dir: Option<String>,
    pub(crate) drain: Option<Drain>,
    pub(crate) journal: Option<Journal>,
    pub(crate) tls: Option<Tls>,
    pub(crate) client_secrets: Option<ClientSecrets>,
    pub(crate) public_ip: Option<Listeners>,
    pub(crate) media: Option<Media>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ClientSecrets {
    pub(crate) keys: Option<List>,
    pub(crate) max_per_key: Option<usize>,
    pub(crate) max_ttl: Option<Span>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Listen {
    pub(crate) http: Option<Listeners>,
    pub(crate) https: Option<Listeners>,
    pub(crate) quic: Option<Quic>,
    pub(crate) quic_advertise: Option<u16>,
    pub(crate) proxy_protocol: Option<bool>,
    pub(crate) admin: Option<Listeners>,
    pub(crate) media: Option<Listeners>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Realtime {
    pub(crate) webrtc: Option<WebRtc>,
    pub(crate) idle: Option<Span>,
    pub(crate) total: Option<Span>,
    pub(crate) message: Option<Size>,
    pub(crate) buffer: Option<Size>,
    pub(crate) calls: Option<usize>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WebRtc {
    Relay,
    Direct,
    Off,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Media {
    pub(crate) first_port: Option<u16>,
    pub(crate) last_port: Option<u16>,
    pub(crate) setup: Option<Span>,
    pub(crate) grace: Option<Span>,
}

/// Whether as `https`, or where.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Quic {
    Switch(bool),
    At(Listeners),
}

/// One address (or `off`) or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Listeners {
    One(String),
    Several(List),
}

/// Certificates in one of their shapes.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Tls {
    Word(TlsWord),
    Pairs(Vec<Option<TlsFiles>>),
    Files(TlsFiles),
}

/// Certificates that need no files.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TlsWord {
    SelfSigned,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TlsFiles {
    pub(crate) cert: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) certificates: Option<Vec<Option<TlsFiles>>>,
    pub(crate) client_ca: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) header_bytes: Option<Size>,
    pub(crate) headers: Option<usize>,
    pub(crate) header_timeout: Option<Span>,
    pub(crate) body_bytes: Option<Size>,
    pub(crate) keep_alive: Option<Span>,
    pub(crate) peek_bytes: Option<Size>,
    pub(crate) replay_bytes: Option<Size>,
    pub(crate) replay_total: Option<Size>,
    pub(crate) connections_per_ip: Option<usize>,
    pub(crate) streams_per_connection: Option<u32>,
    pub(crate) requests: Option<usize>,
    pub(crate) handshakes: Option<usize>,
    pub(crate) handshake_timeout: Option<Span>,
    pub(crate) connection_age: Option<Span>,
    pub(crate) min_body_rate: Option<Size>,
    pub(crate) websocket_message: Option<Size>,
    pub(crate) websocket_frame: Option<Size>,
    pub(crate) calls: Option<usize>,
    pub(crate) calls_per_key: Option<usize>,
    pub(crate) call_setups: Option<usize>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Drain {
    pub(crate) delay: Option<Span>,
    pub(crate) timeout: Option<Span>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cors {
    pub(crate) origins: Option<List>,
    pub(crate) max_age: Option<Span>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) access: Option<String>,
    pub(crate) rotate: Option<Rotate>,
    pub(crate) format: Option<LogFormat>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rotate {
    pub(crate) enabled: Option<bool>,
    pub(crate) bytes: Option<Size>,
    pub(crate) age: Option<Span>,
    pub(crate) keep_files: Option<usize>,
    pub(crate) keep_age: Option<Span>,
    pub(crate) keep_bytes: Option<Size>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Journal {
    pub(crate) enabled: Option<bool>,
    pub(crate) dir: Option<String>,
    pub(crate) segment_bytes: Option<Size>,
    pub(crate) max_bytes: Option<Size>,
    pub(crate) retention: Option<Span>,
    pub(crate) retention_bytes: Option<Size>,
    pub(crate) sync_interval: Option<Span>,
    pub(crate) session_interval: Option<Span>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Values by name in the order of the file; bad values are `None`.
#[derive(Debug, Clone)]
pub(crate) struct Named<T>(pub(crate) Vec<(String, Option<T>)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_unit<E>(self) -> Result<Named<T>, E> {
                Ok(Named::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<T>, A::Error> {
                let mut values = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    values.push(entry);
                }
                Ok(Named(values))
            }
        }
        deserializer.deserialize_any(InOrder(std::marker::PhantomData))
    }
}

/// A duration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span(pub(crate) Duration);

/// A number of bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size(pub(crate) u64);

#[derive(Deserialize)]
#[serde(untagged)]
enum Amount {
    Number(f64),
    Text(String),
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let duration = match Amount::deserialize(deserializer)? {
            Amount::Number(seconds) => units::seconds(seconds),
            Amount::Text(text) => units::duration(&text),
        };
        duration.map(Self).map_err(|_| de::Error::custom("not a duration"))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let size = match Amount::deserialize(deserializer)? {
            Amount::Number(bytes) => units::bytes(bytes),
            Amount::Text(text) => units::size(&text),
        };
        size.map(Self).map_err(|_| de::Error::custom("not a size"))
    }
}
