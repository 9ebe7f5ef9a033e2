//! One channel.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aiproxy_core::Secret;
use aiproxy_platform::{Placement, Platform};

use super::{Builder, failover, items, usage};
use crate::complaint::Complaint;
use crate::model::{
    BaseUrl, Channel, ClientCertificate, Egress, HttpVersion, Ownership, PoolLimits, Reach, Status,
    StreamUsage, Timeouts, WebSocket,
};
use crate::tree::Trail;
use crate::{base_url, egress, headers, paths, raw, secrets};

/// Longest file of certificates.
const LONGEST_CA: u64 = 4 * 1024 * 1024;
/// What is due more often than this is a slip.
const LEAST_POOL_TIME: Duration = Duration::from_millis(100);

impl Builder<'_> {
    pub(crate) fn channel(&mut self, id: &str, raw: raw::Channel) -> Option<Channel> {
        let trail = Trail::of(&["channels", id]);
        let at = |field: &str| trail.key(field);
        let base = raw.base_url.as_deref().and_then(|text| base_url::parse(text).ok());
        let platform = match (&raw.platform, &base) {
            (Some(id), _) => aiproxy_platform::by_id(id),
            (None, Some(base)) => Some(aiproxy_platform::guess(&base.host)),
            (None, None) => None,
        };
        if let Some(base) = &base {
            self.base_url(&at("base_url"), base, platform);
        }
        let api_key = raw.api_key.and_then(|key| {
            let checked = check_key(&key);
            self.take(&at("api_key"), checked).map(|()| Secret::new(key))
        });
        let ca_pem = raw.ca.as_deref().and_then(|path| self.certificates(&at("ca"), path));
        let identity = raw.client_certificate.and_then(|raw| self.identity(&at("client_certificate"), raw));
        if let Some(base) = base.as_ref().filter(|base| !base.tls && raw.ca.is_some()) {
            let message = format!("`ca` has no effect: `{}` is reached without TLS", base.authority);
            self.warning(&at("ca"), Complaint::new(message, "remove it, or write `https://` in `base_url`"));
        }
        let own = raw.key_placement.map(|own| self.placements(&at("key_placement"), own));
        let (placement, socket_placement) = split(own, platform);
        let in_subprotocol = |place: &Placement| {
            matches!(place, Placement::SubprotocolPrefix { .. } | Placement::SubprotocolPair { .. })
        };
        if socket_placement.iter().any(in_subprotocol)
            && api_key.as_ref().is_some_and(|key| !key.expose().bytes().all(is_token))
        {
            let message = "the key cannot stand in a subprotocol: it has characters that none may have";
            self.error(&at("api_key"), Complaint::new(message, "choose another `key_placement`"));
        }
        let realtime =
            self.realtime(&at("realtime"), &raw.realtime.unwrap_or_default(), platform.map(|it| it.id));
        let websocket = self.websocket(&at("websocket"), &raw.websocket.unwrap_or_default());
        let headers = raw.headers.unwrap_or_default();
        let set_headers = self.set_headers(&at("headers").key("set"), &headers.set, &placement);
        let pass_headers = self.pass_headers(&at("headers").key("pass"), headers.pass.as_ref());
        let timeouts = self.timeouts(&at("timeouts"), &raw.timeouts.unwrap_or_default());
        let path_rewrite = self.path_rewrite(&at("path_rewrite"), &raw.path_rewrite);
        let breaker = self.breaker(&at("breaker"), &raw.breaker.unwrap_or_default());
        let target = failover::Target { base: base.as_ref(), platform, placement: &placement };
        let prices = raw.prices.as_ref().and_then(usage::prices).map(Arc::new);
        let health = raw.health.and_then(|raw| self.health(&at("health"), &raw, &target));
        let pool = self.pool(&at("pool"), &raw.pool.unwrap_or_default());
        let egress = raw.egress_proxy.as_deref().map_or(Ok(Egress::default()), egress::egress);
        let reach = Reach {
            versions: self.http_versions(&at("http_versions"), raw.http_versions.unwrap_or_default()),
            egress: self.take(&at("egress_proxy"), egress).unwrap_or_default(),
            resolve: resolve(&raw.resolve),
            identity,
        };
        if let Some(base) = &base {
            self.spoken(&at("http_versions"), base.tls, &reach);
        }
        let patterns = |list: Option<&raw::List>| {
            items(list).filter_map(|(_, text)| paths::pattern(text).ok()).collect::<Vec<_>>()
        };
        Some(Channel {
            id: Arc::from(id),
            name: raw.name.unwrap_or_else(|| id.to_owned()),
            platform: platform?,
            status: raw.status.map_or(Status::Active, Status::from),
            api_key: api_key?,
            base: base?,
            placement,
            socket_placement,
            models: raw.models.map(|models| models.into_iter().flatten().collect()),
            default_model: raw.default_model.map(Arc::from),
            allow_paths: patterns(raw.allow_paths.as_ref()),
            deny_paths: patterns(raw.deny_paths.as_ref()),
            path_rewrite,
            set_headers,
            pass_headers,
            timeouts,
            ca_pem,
            retry: failover::retry(&raw.retry.unwrap_or_default()),
            breaker,
            health,
            ownership: raw.ownership.map_or(Ownership::default(), Ownership::from),
            prices,
            stream_usage: raw.stream_usage.map_or(StreamUsage::default(), StreamUsage::from),
            reach,
            pool,
            websocket,
            realtime,
        })
    }

    /// What is allowed but probably not as meant.
    fn base_url(&mut self, trail: &Trail, base: &BaseUrl, platform: Option<&'static Platform>) {
        let scheme = if base.tls { "https" } else { "http" };
        let doubled = platform.filter(|_| !base.path.is_empty()).and_then(|platform| {
            platform.serves.iter().filter_map(|serve| serve.rewrite).find(|(_, to)| base.path == *to)
        });
        if doubled.is_some() || base.path.ends_with("/v1") {
            let path = base.path.strip_suffix("/v1").filter(|_| doubled.is_none()).unwrap_or("");
            let message = format!(
                "`base_url` ends with `{}`, and callers' paths begin with `/v1`: `/v1/models` becomes `{}/v1/models`",
                if doubled.is_some() { &base.path } else { "/v1" },
                base.path,
            );
            self.warning(
                trail,
                Complaint::new(message, format!("write `{scheme}://{}{path}`", base.authority)),
            );
        }
        if !base.tls && !base_url::is_loopback(&base.host) {
            let message = format!("the key travels to `{}` in the clear", base.authority);
            self.warning(trail, Complaint::new(message, "write `https://` if the platform offers it"));
        }
    }

    /// The certificates of a file, or those that stand here themselves.
    fn certificates(&mut self, trail: &Trail, path: &str) -> Option<Arc<[u8]>> {
        let pem = if path.contains("-----BEGIN") {
            Ok(path.as_bytes().to_vec())
        } else if self.literal {
            Err(Complaint::new(
                "these are no certificates",
                "write the certificates themselves, in PEM; paths of files are for the configuration file",
            ))
        } else {
            secrets::bounded(&self.source.resolve(path), LONGEST_CA)
        };
        let pem = pem.and_then(|pem| {
            if has_certificate(&pem) {
                return Ok(pem);
            }
            Err(Complaint::new(
                "the file holds no certificate in PEM",
                "it needs at least one block from `-----BEGIN CERTIFICATE-----` to `-----END CERTIFICATE-----`",
            ))
        });
        self.take(trail, pem).map(Arc::from)
    }

    fn identity(&mut self, trail: &Trail, raw: raw::ClientCertificate) -> Option<ClientCertificate> {
        let chain_pem = raw.chain.as_deref().and_then(|path| self.certificates(&trail.key("chain"), path));
        let key = raw.private_key.map(|key| match key.contains("PRIVATE KEY-----") {
            true => Ok(Secret::new(key)),
            false => Err(Complaint::new(
                "this is no private key in PEM",
                "write `file:PATH`; the file begins with `-----BEGIN PRIVATE KEY-----`",
            )),
        });
        let key_pem = self.take(&trail.key("private_key"), key?);
        Some(ClientCertificate { chain_pem: chain_pem?, key_pem: key_pem? })
    }

    fn timeouts(&mut self, trail: &Trail, raw: &raw::Timeouts) -> Timeouts {
        for (name, value) in [
            ("connect", raw.connect),
            ("first_byte", raw.first_byte),
            ("idle", raw.idle),
            ("total", raw.total),
        ] {
            if value.is_some_and(|value| value.0.is_zero()) {
                let suggestion = match name {
                    "total" => "remove the line for no limit",
                    _ => "write a time such as `30s`",
                };
                self.error(
                    &trail.key(name),
                    Complaint::new("a time limit of 0 refuses everything", suggestion),
                );
            }
        }
        let usual = Timeouts::default();
        Timeouts {
            connect: raw.connect.map_or(usual.connect, |value| value.0),
            first_byte: raw.first_byte.map_or(usual.first_byte, |value| value.0),
            idle: raw.idle.map_or(usual.idle, |value| value.0),
            total: raw.total.map(|value| value.0),
        }
    }

    fn websocket(&mut self, trail: &Trail, raw: &raw::WebSocket) -> WebSocket {
        for (name, value) in [("handshake", raw.handshake), ("idle", raw.idle), ("total", raw.total)] {
            if value.is_some_and(|value| value.0.is_zero()) {
                let complaint =
                    Complaint::new("a time limit of 0 refuses everything", "write a time such as `30s`");
                self.error(&trail.key(name), complaint);
            }
        }
        let usual = WebSocket::default();
        WebSocket {
            handshake: raw.handshake.map_or(usual.handshake, |value| value.0),
            idle: raw.idle.map_or(usual.idle, |value| value.0),
            total: raw.total.map(|value| value.0),
            strip_beta: raw.beta.map(|beta| matches!(beta, raw::Beta::Strip)),
        }
    }

    fn http_versions(&mut self, trail: &Trail, raw: Vec<Option<raw::HttpVersion>>) -> Vec<HttpVersion> {
        let mut versions = Vec::new();
        for version in raw.into_iter().flatten() {
            let version = match version {
                raw::HttpVersion::H1 => HttpVersion::H1,
                raw::HttpVersion::H2 => HttpVersion::H2,
                raw::HttpVersion::H3 => HttpVersion::H3,
            };
            if versions.contains(&version) {
                self.error(trail, Complaint::new("a version is given twice", "keep one of the two"));
            } else {
                versions.push(version);
            }
        }
        versions
    }

    /// What is listed, but not spoken on this way.
    fn spoken(&mut self, trail: &Trail, tls: bool, reach: &Reach) {
        let h3 = reach.versions.contains(&HttpVersion::H3);
        if !tls && h3 {
            let message = "HTTP/3 is spoken over TLS only";
            let suggestion = "write `https://` in `base_url`, or remove `h3`";
            self.error(trail, Complaint::new(message, suggestion));
        } else if !tls && reach.versions.len() > 1 {
            let message = "without TLS nothing is negotiated: HTTP/1.1 is spoken";
            let suggestion = "write `[h1]`, or `[h2]` where the platform speaks HTTP/2 from the first byte";
            self.warning(trail, Complaint::new(message, suggestion));
        } else if h3 && reach.is_only_h3() && reach.wants_h3().is_none() {
            let message = "HTTP/3 does not go through a proxy, and nothing else is listed";
            self.error(trail, Complaint::new(message, "add `h2` and `h1`, or write `egress_proxy: off`"));
        } else if h3 && reach.wants_h3().is_none() {
            let message = "`h3` has no effect: HTTP/3 does not go through a proxy";
            self.warning(trail, Complaint::new(message, "remove it, or write `egress_proxy: off`"));
        }
    }

    fn pool(&mut self, trail: &Trail, raw: &raw::Pool) -> PoolLimits {
        for (name, value) in [("idle", raw.idle), ("ping", raw.ping), ("lookup", raw.lookup)] {
            if value.is_some_and(|value| value.0 < LEAST_POOL_TIME) {
                self.error(
                    &trail.key(name),
                    Complaint::new(
                        "less than 100 milliseconds keeps nothing but the processor busy",
                        "write a time such as `10s`",
                    ),
                );
            }
        }
        let usual = PoolLimits::default();
        PoolLimits {
            idle: raw.idle.map_or(usual.idle, |value| value.0),
            max_idle: raw.max_idle.unwrap_or(usual.max_idle),
            warm: raw.warm.unwrap_or(usual.warm),
            ping: raw.ping.map_or(usual.ping, |value| value.0),
            lookup: raw.lookup.map_or(usual.lookup, |value| value.0),
        }
    }

    fn path_rewrite(&mut self, trail: &Trail, raw: &raw::Named<String>) -> Vec<(String, String)> {
        let mut rewrites: Vec<(String, String)> = Vec::new();
        for (key, to) in &raw.0 {
            let (Ok(from), Some(Ok(to))) = (paths::prefix(key), to.as_deref().map(paths::prefix)) else {
                continue;
            };
            // Compared with the normal form of paths.
            let from = from.to_lowercase();
            if rewrites.iter().any(|(have, _)| *have == from) {
                let message =
                    format!("the prefix `{key}` is given twice, but for case or a slash at the end");
                self.error(&trail.key(key), Complaint::new(message, "keep one of the two"));
            }
            rewrites.push((from, to));
        }
        rewrites
    }
}

/// Hosts in lower case, each with its addresses.
fn resolve(raw: &raw::Named<raw::List>) -> Vec<(String, Vec<IpAddr>)> {
    let entries = raw.0.iter().map(|(host, list)| {
        let addresses = items(list.as_ref()).filter_map(|(_, text)| text.parse().ok()).collect();
        (host.to_ascii_lowercase(), addresses)
    });
    entries.filter(|(_, addresses): &(String, Vec<IpAddr>)| !addresses.is_empty()).collect()
}

/// A key that fits into a header.
fn check_key(key: &str) -> Result<(), Complaint> {
    if key == crate::entity::MASK {
        return Err(Complaint::new("this is what stands in place of a key", "write the key itself"));
    }
    if key.trim().is_empty() {
        return Err(Complaint::new("the key is empty", "write the key, `${NAME}` or `file:PATH`"));
    }
    let lower = key.to_ascii_lowercase();
    if lower.starts_with("bearer ") || lower.starts_with("token ") {
        return Err(Complaint::new(
            "the key begins with a word that belongs before it in a header",
            "write the key alone; `key_placement` says what stands before it",
        ));
    }
    super::key::check_characters(key)?;
    headers::value(key).map(drop)
}

/// Where a key goes over HTTP, and where when a WebSocket opens: places that only sockets have stand
/// for those of sockets, all others for both, and the platform's own where there are none.
fn split(
    own: Option<Vec<Placement>>,
    platform: Option<&'static Platform>,
) -> (Vec<Placement>, Vec<Placement>) {
    let usual = |places: fn(&Platform) -> &'static [Placement]| {
        platform.map(|platform| places(platform).to_vec()).unwrap_or_default()
    };
    let Some(own) = own else { return (usual(|it| it.key), usual(|it| it.socket_key)) };
    let (socket, both): (Vec<_>, Vec<_>) = own.into_iter().partition(Placement::is_socket_only);
    match (socket.is_empty(), both.is_empty()) {
        (true, _) => (both.clone(), both),
        (false, true) => (usual(|it| it.key), socket),
        (false, false) => (both, socket),
    }
}

/// Whether a subprotocol may have this character (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn has_certificate(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    let block = text
        .split_once("-----BEGIN CERTIFICATE-----")
        .and_then(|(_, rest)| rest.split_once("-----END CERTIFICATE-----"));
    block.is_some_and(|(body, _)| {
        let body: Vec<u8> = body.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        // DER begins with a sequence of more than 127 bytes: `30 82` reads `MII` in Base64.
        body.len() > 64
            && body.starts_with(b"MI")
            && body.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='))
    })
}
