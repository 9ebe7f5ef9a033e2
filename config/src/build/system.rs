//! The `system` section.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::listen::Doors;
use super::{Builder, items};
use crate::complaint::Complaint;
use crate::model::{AccessLog, Cors, Drain, Limits, Log, LogFormat, System};
use crate::tree::Trail;
use crate::{net, raw};

/// Sizes that make sense; hyper refuses smaller heads.
const HEADER_BYTES: RangeInclusive<u64> = 8 * 1024..=1024 * 1024;
const PEEK_BYTES: RangeInclusive<u64> = 0..=64 * 1024 * 1024;
const REPLAY_BYTES: RangeInclusive<u64> = 0..=1024 * 1024 * 1024;
const REPLAY_TOTAL: RangeInclusive<u64> = 0..=64 * 1024 * 1024 * 1024;

const WEBSOCKET_BYTES: RangeInclusive<u64> = 1024..=4 * 1024 * 1024 * 1024;

impl Builder<'_> {
    pub(super) fn system(&mut self, raw: raw::System) -> System {
        let trail = Trail::of(&["system"]);
        let reload = raw.config_reload_interval.map(|value| value.0);
        if reload.is_some_and(|reload| reload < Duration::from_secs(1)) {
            let complaint = Complaint::new("the interval is shorter than a second", "write `1s` or more");
            self.error(&trail.key("config_reload_interval"), complaint);
        }
        let listen = raw.listen.unwrap_or_default();
        let proxy_protocol = listen.proxy_protocol == Some(true);
        if proxy_protocol && items(raw.trusted_proxies.as_ref()).next().is_none() {
            let complaint = Complaint::new(
                "nobody could connect: PROXY protocol headers are taken from `trusted_proxies` only",
                "list the proxies in front under `trusted_proxies`",
            );
            self.error(&trail.key("listen").key("proxy_protocol"), complaint);
        }
        let mut listen = listen;
        let media = self.media(listen.media.take(), raw.public_ip, &raw.media.unwrap_or_default());
        let called = media.as_ref().map_or(&[][..], |media| &media.listen);
        let doors = self.listen(listen, raw.allow_plaintext == Some(true), called);
        let tls = self.tls(&trail.key("tls"), raw.tls, doors.secure());
        let Doors { http, https, quic, quic_advertise, admin } = doors;
        let drain = raw.drain.unwrap_or_default();
        let data_dir = self.source.resolve(raw.data_dir.as_deref().unwrap_or("data"));
        let journal = self.journal(&trail.key("journal"), &raw.journal.unwrap_or_default(), &data_dir);
        let client_secrets =
            self.client_secrets(&trail.key("client_secrets"), &raw.client_secrets.unwrap_or_default());
        let raw_log = raw.log.unwrap_or_default();
        let rotate = self.rotate(&trail.key("log").key("rotate"), &raw_log.rotate.unwrap_or_default());
        System {
            config_reload_interval: reload.unwrap_or(Duration::from_secs(300)),
            log_level: raw.log_level.unwrap_or_else(|| "info".to_owned()),
            max_connections: raw.max_connections.unwrap_or(10_000),
            http,
            https,
            quic,
            quic_advertise,
            tls,
            proxy_protocol,
            admin,
            drain: Drain {
                delay: drain.delay.map_or(Drain::default().delay, |value| value.0),
                timeout: drain.timeout.map_or(Drain::default().timeout, |value| value.0),
            },
            workers: raw.workers,
            trusted_proxies: items(raw.trusted_proxies.as_ref())
                .filter_map(|(_, text)| net::cidr(text).ok())
                .collect(),
            limits: self.limits(&trail.key("limits"), &raw.limits.unwrap_or_default()),
            cors: raw.cors.map(|cors| Cors {
                origins: items(cors.origins.as_ref()).map(|(_, origin)| origin.to_owned()).collect(),
                max_age: cors.max_age.map_or(Duration::from_secs(600), |value| value.0),
            }),
            log: Log {
                access: match raw_log.access.as_deref() {
                    None | Some("stdout") => AccessLog::Stdout,
                    Some("off") => AccessLog::Off,
                    Some(path) => AccessLog::File(self.source.resolve(path)),
                },
                rotate,
                format: match raw_log.format {
                    Some(raw::LogFormat::Json) => LogFormat::Json,
                    Some(raw::LogFormat::Text) | None => LogFormat::Text,
                },
            },
            data_dir,
            journal,
            client_secrets,
            media,
        }
    }

    fn limits(&mut self, trail: &Trail, raw: &raw::Limits) -> Limits {
        let usual = Limits::default();
        for (name, value) in [
            ("header_timeout", raw.header_timeout),
            ("keep_alive", raw.keep_alive),
            ("handshake_timeout", raw.handshake_timeout),
            ("connection_age", raw.connection_age),
        ] {
            if value.is_some_and(|value| value.0.is_zero()) {
                let complaint =
                    Complaint::new("a time limit of 0 refuses everything", "write a time such as `10s`");
                self.error(&trail.key(name), complaint);
            }
        }
        let mut size = |name, raw, range, usual| self.size(trail, name, raw, range, usual);
        let header_bytes = size("header_bytes", raw.header_bytes, HEADER_BYTES, usual.header_bytes);
        let peek_bytes = size("peek_bytes", raw.peek_bytes, PEEK_BYTES, usual.peek_bytes);
        let replay_bytes = size("replay_bytes", raw.replay_bytes, REPLAY_BYTES, usual.replay_bytes);
        let replay_total = size("replay_total", raw.replay_total, REPLAY_TOTAL, usual.replay_total);
        let whole = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let message = whole(usual.websocket_message);
        let websocket_message =
            size("websocket_message", raw.websocket_message, WEBSOCKET_BYTES, message) as u64;
        let frame = message.min(whole(websocket_message));
        let websocket_frame = size("websocket_frame", raw.websocket_frame, WEBSOCKET_BYTES, frame) as u64;
        if replay_total < replay_bytes {
            let (at, what) = match raw.replay_total {
                Some(_) => ("replay_total", String::new()),
                None => ("replay_bytes", format!(" of {replay_total} bytes")),
            };
            let message = format!("`replay_total`{what} is smaller than `replay_bytes`");
            self.error(&trail.key(at), Complaint::new(message, "write a larger `replay_total`"));
        }
        Limits {
            header_bytes,
            headers: raw.headers.unwrap_or(usual.headers),
            header_timeout: raw.header_timeout.map_or(usual.header_timeout, |value| value.0),
            body_bytes: raw.body_bytes.map_or(usual.body_bytes, |value| value.0),
            keep_alive: raw.keep_alive.map_or(usual.keep_alive, |value| value.0),
            peek_bytes,
            replay_bytes,
            replay_total,
            connections_per_ip: raw.connections_per_ip,
            streams_per_connection: raw.streams_per_connection.unwrap_or(usual.streams_per_connection),
            requests: raw.requests,
            handshakes: raw.handshakes.unwrap_or(usual.handshakes),
            handshake_timeout: raw.handshake_timeout.map_or(usual.handshake_timeout, |value| value.0),
            connection_age: raw.connection_age.map(|value| value.0),
            min_body_rate: raw.min_body_rate.map(|value| value.0).filter(|rate| *rate > 0),
            websocket_message,
            websocket_frame,
            calls: raw.calls.unwrap_or(usual.calls),
            calls_per_key: raw.calls_per_key.unwrap_or(usual.calls_per_key),
            call_setups: raw.call_setups.unwrap_or(usual.call_setups),
        }
    }

    pub(super) fn size(
        &mut self,
        trail: &Trail,
        name: &str,
        raw: Option<raw::Size>,
        range: RangeInclusive<u64>,
        usual: usize,
    ) -> usize {
        let Some(raw::Size(bytes)) = raw else { return usual };
        if !range.contains(&bytes) {
            let message = format!("`{name}` is out of range");
            let suggestion = format!("write from {} to {} bytes", range.start(), range.end());
            self.error(&trail.key(name), Complaint::new(message, suggestion));
        }
        usize::try_from(bytes).unwrap_or(usual)
    }
}
