//! The `system` section.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Builder, items};
use crate::complaint::{Complaint, shown};
use crate::model::{AccessLog, Cors, Limits, Log, LogFormat, System};
use crate::tree::Trail;
use crate::{net, raw};

/// Sizes that make sense; hyper refuses smaller heads.
const HEADER_BYTES: RangeInclusive<u64> = 8 * 1024..=1024 * 1024;
const PEEK_BYTES: RangeInclusive<u64> = 0..=64 * 1024 * 1024;

impl Builder<'_> {
    pub(super) fn system(&mut self, raw: raw::System) -> System {
        let trail = Trail::of(&["system"]);
        let reload = raw.config_reload_interval.map(|value| value.0);
        if reload.is_some_and(|reload| reload < Duration::from_secs(1)) {
            let complaint = Complaint::new("the interval is shorter than a second", "write `1s` or more");
            self.error(&trail.key("config_reload_interval"), complaint);
        }
        System {
            config_reload_interval: reload.unwrap_or(Duration::from_secs(300)),
            log_level: raw.log_level.unwrap_or_else(|| "info".to_owned()),
            max_connections: raw.max_connections.unwrap_or(10_000),
            http: self.listeners(
                &trail,
                raw.listen.unwrap_or_default().http,
                raw.allow_plaintext == Some(true),
            ),
            workers: raw.workers,
            trusted_proxies: items(raw.trusted_proxies.as_ref())
                .filter_map(|(_, text)| net::cidr(text).ok())
                .collect(),
            limits: self.limits(&trail.key("limits"), &raw.limits.unwrap_or_default()),
            cors: raw.cors.map(|cors| Cors {
                origins: items(cors.origins.as_ref()).map(|(_, origin)| origin.to_owned()).collect(),
                max_age: cors.max_age.map_or(Duration::from_secs(600), |value| value.0),
            }),
            log: self.log(&raw.log.unwrap_or_default()),
            data_dir: self.source.resolve(raw.data_dir.as_deref().unwrap_or("data")),
        }
    }

    fn listeners(&mut self, system: &Trail, raw: Option<raw::Listeners>, plaintext: bool) -> Vec<SocketAddr> {
        let trail = system.key("listen").key("http");
        let written = match raw {
            None => return vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))],
            Some(raw::Listeners::One(text)) => vec![(trail, text)],
            Some(raw::Listeners::Several(list)) => {
                items(Some(&list)).map(|(index, text)| (trail.index(index), text.to_owned())).collect()
            }
        };
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for (trail, text) in written {
            let Ok(address) = net::listen(&text) else { continue };
            // Port 0 is another port each time.
            if addresses.contains(&address) && address.port() != 0 {
                self.error(
                    &trail,
                    Complaint::new(format!("{} is given twice", shown(&text)), "remove one of the two"),
                );
            }
            if !address.ip().to_canonical().is_loopback() {
                let message = format!("Proxy-Keys travel to {} in the clear", shown(&text));
                let suggestion = if plaintext {
                    "make sure that only a TLS load balancer can reach this address"
                } else {
                    "listen on `127.0.0.1`; or, behind a TLS load balancer, write `allow_plaintext: true` under `system`"
                };
                let complaint = Complaint::new(message, suggestion);
                if plaintext { self.warning(&trail, complaint) } else { self.error(&trail, complaint) }
            }
            addresses.push(address);
        }
        addresses
    }

    fn limits(&mut self, trail: &Trail, raw: &raw::Limits) -> Limits {
        let usual = Limits::default();
        for (name, value) in [("header_timeout", raw.header_timeout), ("keep_alive", raw.keep_alive)] {
            if value.is_some_and(|value| value.0.is_zero()) {
                let complaint =
                    Complaint::new("a time limit of 0 refuses everything", "write a time such as `10s`");
                self.error(&trail.key(name), complaint);
            }
        }
        Limits {
            header_bytes: self.size(
                trail,
                "header_bytes",
                raw.header_bytes,
                HEADER_BYTES,
                usual.header_bytes,
            ),
            headers: raw.headers.unwrap_or(usual.headers),
            header_timeout: raw.header_timeout.map_or(usual.header_timeout, |value| value.0),
            body_bytes: raw.body_bytes.map_or(usual.body_bytes, |value| value.0),
            keep_alive: raw.keep_alive.map_or(usual.keep_alive, |value| value.0),
            peek_bytes: self.size(trail, "peek_bytes", raw.peek_bytes, PEEK_BYTES, usual.peek_bytes),
        }
    }

    fn size(
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

    fn log(&self, raw: &raw::Log) -> Log {
        Log {
            access: match raw.access.as_deref() {
                None | Some("stdout") => AccessLog::Stdout,
                Some("off") => AccessLog::Off,
                Some(path) => AccessLog::File(self.source.resolve(path)),
            },
            format: match raw.format {
                Some(raw::LogFormat::Json) => LogFormat::Json,
                Some(raw::LogFormat::Text) | None => LogFormat::Text,
            },
        }
    }
}
