//! WebRTC calls: where they come, and how they stand.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::{Builder, items};
use crate::complaint::{Complaint, shown};
use crate::model::{Media, Realtime, WebRtc};
use crate::tree::Trail;
use crate::{net, raw};

/// The library takes 256 KiB: what exceeds this by less is answered with an error.
const MESSAGE: RangeInclusive<u64> = 1024..=224 * 1024;
const BUFFER: RangeInclusive<u64> = 64 * 1024..=64 * 1024 * 1024;
const FIRST_PORT: u16 = 50_000;
const LAST_PORT: u16 = 59_999;

impl Builder<'_> {
    pub(super) fn media(
        &mut self,
        listen: Option<raw::Listeners>,
        public: Option<raw::Listeners>,
        raw: &raw::Media,
    ) -> Option<Media> {
        let trail = Trail::of(&["system", "media"]);
        self.positive(&trail, &[("setup", raw.setup)]);
        let (first, last) = (raw.first_port.unwrap_or(FIRST_PORT), raw.last_port.unwrap_or(LAST_PORT));
        if first > last {
            let message = format!("the last port is {last}, the first one {first}");
            let at = if raw.last_port.is_some() { "last_port" } else { "first_port" };
            self.error(
                &trail.key(at),
                Complaint::new(message, "write a first port that is not larger than the last"),
            );
        }
        let at = Trail::of(&["system", "listen", "media"]);
        let listen: Vec<(Trail, SocketAddr)> = written(&at, listen)
            .into_iter()
            .filter_map(|(trail, text)| Some((trail, net::listen_or_off(&text).ok()??)))
            .collect();
        let at = Trail::of(&["system", "public_ip"]);
        let public: Vec<(Trail, IpAddr)> = written(&at, public)
            .into_iter()
            .filter_map(|(trail, text)| Some((trail, text.parse().ok()?)))
            .collect();
        self.one_each(&listen.iter().map(|(trail, it)| (trail.clone(), it.is_ipv4())).collect::<Vec<_>>());
        self.one_each(&public.iter().map(|(trail, it)| (trail.clone(), it.is_ipv4())).collect::<Vec<_>>());
        for (trail, ip) in &public {
            if ip.is_unspecified() || ip.is_multicast() {
                let message = format!("nobody can send to {}", shown(&ip.to_string()));
                self.error(
                    trail,
                    Complaint::new(message, "write the address by which callers reach this machine"),
                );
            }
        }
        for (trail, address) in &listen {
            let told = public.iter().any(|(_, ip)| ip.is_ipv4() == address.is_ipv4());
            if address.ip().is_unspecified() && !told {
                let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
                let message = format!("callers have to be told an {family} address, and {address} is none");
                let suggestion =
                    "write the address by which callers reach this machine under `system.public_ip`";
                self.error(trail, Complaint::new(message, suggestion));
            }
        }
        let usual = (std::time::Duration::from_secs(15), std::time::Duration::from_millis(2500));
        (!listen.is_empty()).then(|| Media {
            listen: listen.into_iter().map(|(_, address)| address).collect(),
            public: public.into_iter().map(|(_, ip)| ip).collect(),
            ports: first..=last,
            setup: raw.setup.map_or(usual.0, |value| value.0),
            grace: raw.grace.map_or(usual.1, |value| value.0),
        })
    }

    /// Several addresses of one family say nothing that could be done.
    fn one_each(&mut self, list: &[(Trail, bool)]) {
        for (index, (trail, family)) in list.iter().enumerate() {
            if list[..index].iter().any(|(_, have)| have == family) {
                let complaint = Complaint::new(
                    "there is an address of this family already",
                    "keep one for IPv4 and one for IPv6",
                );
                self.error(trail, complaint);
            }
        }
    }

    pub(super) fn realtime(
        &mut self,
        trail: &Trail,
        raw: &raw::Realtime,
        platform: Option<&str>,
    ) -> Realtime {
        self.positive(trail, &[("idle", raw.idle), ("total", raw.total)]);
        let usual = Realtime::default();
        let message = self.size(trail, "message", raw.message, MESSAGE, usual.message as usize);
        let buffer = self.size(trail, "buffer", raw.buffer, BUFFER, usual.buffer);
        let webrtc = match raw.webrtc {
            None => usual.webrtc,
            Some(raw::WebRtc::Relay) => WebRtc::Relay,
            Some(raw::WebRtc::Direct) => WebRtc::Direct,
            Some(raw::WebRtc::Off) => WebRtc::Off,
        };
        if webrtc == WebRtc::Direct && platform.is_some_and(|id| !matches!(id, "openai" | "azure")) {
            let complaint = Complaint::new(
                "a call that does not go through AIProxy could be neither cut nor metered on this platform",
                "write `relay`; `direct` is for the platforms openai and azure",
            );
            self.error(&trail.key("webrtc"), complaint);
        }
        Realtime {
            webrtc,
            idle: raw.idle.map_or(usual.idle, |value| value.0),
            total: raw.total.map(|value| value.0),
            message: u32::try_from(message).unwrap_or(usual.message),
            buffer,
            calls: raw.calls,
        }
    }

    fn positive(&mut self, trail: &Trail, times: &[(&str, Option<raw::Span>)]) {
        for (name, value) in times {
            if value.is_some_and(|value| value.0.is_zero()) {
                let complaint =
                    Complaint::new("a time limit of 0 refuses everything", "write a time such as `30s`");
                self.error(&trail.key(name), complaint);
            }
        }
    }
}

/// What is written, each with its place.
fn written(trail: &Trail, raw: Option<raw::Listeners>) -> Vec<(Trail, String)> {
    match raw {
        None => Vec::new(),
        Some(raw::Listeners::One(text)) => vec![(trail.clone(), text)],
        Some(raw::Listeners::Several(list)) => {
            items(Some(&list)).map(|(index, text)| (trail.index(index), text.to_owned())).collect()
        }
    }
}
