//! Where callers connect, and where metrics are read.

use std::net::{Ipv4Addr, SocketAddr};

use super::{Builder, items};
use crate::complaint::{Complaint, shown};
use crate::model::Quic;
use crate::tree::Trail;
use crate::{net, raw};

/// What a listener is for.
#[derive(Debug, Clone, Copy)]
enum Door {
    Http,
    Https,
    Quic,
    Admin,
}

impl Door {
    fn trail(self) -> Trail {
        let field = match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Quic => "quic",
            Self::Admin => "admin",
        };
        Trail::of(&["system", "listen", field])
    }

    /// The port on loopback unless the file says otherwise; none is no listener.
    fn port(self) -> Option<u16> {
        match self {
            Self::Http => Some(8080),
            Self::Https | Self::Quic => None,
            Self::Admin => Some(8081),
        }
    }

    /// What an address that is not loopback means.
    fn risk(self, address: &str, permitted: bool) -> Option<Complaint> {
        let (message, only) = match self {
            Self::Https | Self::Quic => return None,
            Self::Http => (format!("Proxy-Keys travel to {address} in the clear"), "a TLS load balancer"),
            Self::Admin => {
                (format!("everybody who reaches {address} can read metrics and readiness"), "your monitoring")
            }
        };
        let suggestion = if permitted {
            format!("make sure that only {only} can reach this address")
        } else {
            format!(
                "listen on `127.0.0.1`; or, where only {only} can reach the address, write `allow_plaintext: true` under `system`"
            )
        };
        Some(Complaint::new(message, suggestion))
    }
}

/// Addresses with their places in the file.
type Placed = Vec<(Trail, SocketAddr)>;

/// Where callers connect, and where metrics are read.
pub(super) struct Doors {
    pub(super) http: Vec<SocketAddr>,
    pub(super) https: Vec<SocketAddr>,
    pub(super) quic: Quic,
    pub(super) quic_advertise: Option<u16>,
    pub(super) admin: Vec<SocketAddr>,
}

impl Doors {
    /// The listener that needs a certificate, if there is one.
    pub(super) fn secure(&self) -> Option<&'static str> {
        match self.quic {
            _ if !self.https.is_empty() => Some("https"),
            Quic::At(_) => Some("quic"),
            Quic::LikeHttps | Quic::Off => None,
        }
    }
}

impl Builder<'_> {
    /// `media` is where WebRTC calls come, over UDP.
    pub(super) fn listen(&mut self, raw: raw::Listen, plaintext: bool, media: &[SocketAddr]) -> Doors {
        let written = raw.admin.is_some();
        let secure = match &raw.https {
            Some(raw::Listeners::One(text)) => text != "off",
            Some(raw::Listeners::Several(_)) => true,
            None => self.has(&Door::Https.trail()),
        };
        let http = self.listeners(Door::Http, raw.http, plaintext);
        let https = self.listeners(Door::Https, raw.https, plaintext);
        let admin = self.listeners(Door::Admin, raw.admin, plaintext);
        let quic = match raw.quic {
            Some(raw::Quic::Switch(true)) if !secure => {
                let complaint = Complaint::new(
                    "HTTP/3 is to be where `https` is, and that is nowhere",
                    "give `https` an address, or `quic` one of its own",
                );
                self.error(&Door::Quic.trail(), complaint);
                Quic::Off
            }
            quic => self.quic(quic, raw.proxy_protocol == Some(true), &https, media),
        };
        if raw.quic_advertise.is_some() && (!secure || quic == Quic::Off) {
            let complaint = Complaint::new(
                "`quic_advertise` has no effect: HTTPS tells callers of HTTP/3, and one of the two is off",
                "remove it",
            );
            self.warning(&Trail::of(&["system", "listen", "quic_advertise"]), complaint);
        }
        let callers = http.len() + https.len() + usize::from(matches!(quic, Quic::At(_)));
        if callers == 0 && !self.report.has_errors() {
            let complaint =
                Complaint::new("there is no listener for callers", "give `http` or `https` an address");
            self.error(&Trail::of(&["system", "listen"]), complaint);
        }
        self.apart(&http, &https, &admin, written);
        let addresses = |list: Placed| list.into_iter().map(|(_, address)| address).collect();
        Doors {
            http: addresses(http),
            https: addresses(https),
            quic,
            quic_advertise: raw.quic_advertise,
            admin: addresses(admin),
        }
    }

    /// No two listeners may be at one address; `written` is whether the file says where `admin` is.
    fn apart(&mut self, http: &Placed, https: &Placed, admin: &Placed, written: bool) {
        for (trail, address) in https {
            if let Some((_, taken)) = http.iter().find(|(_, taken)| net::overlap(*taken, *address)) {
                let message = format!("plain HTTP is at `{taken}` already");
                self.error(trail, Complaint::new(message, "choose another port, or write `http: off`"));
            }
        }
        for (trail, address) in admin {
            let mut callers = http.iter().chain(https);
            let Some((other, taken)) = callers.find(|(_, taken)| net::overlap(*taken, *address)) else {
                continue;
            };
            // A default stands nowhere: the address that is written is the place.
            let (at, message) = if written {
                (trail, format!("callers connect to `{taken}` already"))
            } else {
                (other, format!("`listen.admin` is `{address}` unless it says otherwise"))
            };
            self.error(at, Complaint::new(message, "choose another port, or write `admin: off`"));
        }
    }

    /// Where HTTP/3 is served: where HTTPS is, unless the file says otherwise or it cannot be.
    fn quic(&mut self, raw: Option<raw::Quic>, proxied: bool, https: &Placed, media: &[SocketAddr]) -> Quic {
        let trail = Door::Quic.trail();
        let asked = self.has(&trail);
        let (quic, placed) = match raw {
            // What is there but bad was named already. Datagrams have no PROXY protocol header: behind
            // a balancer that sends them, whoever wants HTTP/3 has to say so.
            None if asked || proxied => return Quic::Off,
            Some(raw::Quic::Switch(false)) => return Quic::Off,
            None => (Quic::LikeHttps, https.clone()),
            Some(raw::Quic::Switch(true)) => {
                let placed = https.iter().map(|(_, address)| (trail.clone(), *address)).collect();
                (Quic::LikeHttps, placed)
            }
            Some(raw::Quic::At(listeners)) => {
                let placed = self.listeners(Door::Quic, Some(listeners), true);
                match placed.is_empty() {
                    true => return Quic::Off,
                    false => (Quic::At(placed.iter().map(|(_, address)| *address).collect()), placed),
                }
            }
        };
        let taken = placed.iter().find_map(|(at, address)| {
            Some((at, media.iter().find(|taken| net::overlap(**taken, *address))?))
        });
        let Some((at, taken)) = taken else { return quic };
        let suggestion = "choose another port for one of the two, or write `quic: off`";
        if asked {
            let message = format!("WebRTC calls come to `{taken}` over UDP already");
            self.error(at, Complaint::new(message, suggestion));
        } else {
            let message = format!("there is no HTTP/3: WebRTC calls come to `{taken}` over UDP already");
            self.warning(at, Complaint::new(message, suggestion));
        }
        Quic::Off
    }

    /// The addresses of one kind, with their places.
    fn listeners(&mut self, door: Door, raw: Option<raw::Listeners>, plaintext: bool) -> Placed {
        let trail = door.trail();
        let written = match raw {
            // What is there but bad was named already.
            None if self.has(&trail) => return Vec::new(),
            None => {
                let usual = door.port().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
                return usual.map(|address| (trail, address)).into_iter().collect();
            }
            Some(raw::Listeners::One(text)) => vec![(trail, text)],
            Some(raw::Listeners::Several(list)) => {
                items(Some(&list)).map(|(index, text)| (trail.index(index), text.to_owned())).collect()
            }
        };
        let mut addresses = Placed::new();
        for (trail, text) in written {
            let Ok(Some(address)) = net::listen_or_off(&text) else { continue };
            // Port 0 is another port each time.
            if addresses.iter().any(|(_, have)| *have == address) && address.port() != 0 {
                self.error(
                    &trail,
                    Complaint::new(format!("{} is given twice", shown(&text)), "remove one of the two"),
                );
            }
            if !address.ip().to_canonical().is_loopback()
                && let Some(complaint) = door.risk(&shown(&text), plaintext)
            {
                if plaintext { self.warning(&trail, complaint) } else { self.error(&trail, complaint) }
            }
            addresses.push((trail, address));
        }
        addresses
    }
}
