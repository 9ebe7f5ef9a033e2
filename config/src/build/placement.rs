//! Where a channel's key goes, and the headers beside it.

use std::borrow::Cow;

use aiproxy_platform::{Placement, Pointer};
use http::{HeaderName, HeaderValue};

use super::{Builder, items};
use crate::complaint::Complaint;
use crate::tree::Trail;
use crate::{headers, raw};

impl Builder<'_> {
    pub(super) fn placements(&mut self, trail: &Trail, raw: raw::Placements) -> Vec<Placement> {
        let mut found: Vec<Placement> = Vec::new();
        let mut put = |builder: &mut Self, trail: &Trail, raw: &raw::Placement| {
            let Some(placement) = builder.placement(trail, raw) else { return };
            if found.contains(&placement) {
                builder.error(trail, Complaint::new("the key goes there already", "remove one of the two"));
            }
            found.push(placement);
        };
        match raw {
            raw::Placements::One(one) => put(self, trail, &one),
            raw::Placements::Several(several) => {
                for (index, one) in several.iter().enumerate() {
                    if let Some(one) = one {
                        put(self, &trail.index(index), one);
                    }
                }
            }
        }
        found
    }

    fn placement(&mut self, trail: &Trail, raw: &raw::Placement) -> Option<Placement> {
        let place = match raw {
            raw::Placement::Word(raw::Word::Bearer) => return Some(Placement::BEARER),
            raw::Placement::Place(place) => place,
        };
        let has = |name: &str| self.has(&trail.key(name));
        let scheme = has("scheme");
        let places = ["header", "query", "subprotocol_prefix", "subprotocol_pair", "first_message"];
        let named: Vec<&str> = places.into_iter().filter(|name| has(name)).collect();
        let [named] = *named else {
            let message = match named.is_empty() {
                true => "this names no place".to_owned(),
                false => format!("a place is one of {}, not several", named.join(" and ")),
            };
            let suggestion = "write `{header: NAME}`, `{header: NAME, scheme: WORD}`, `{query: NAME}`, `{subprotocol_prefix: TEXT}`, `{subprotocol_pair: TEXT}` or `{first_message: /MEMBER}`";
            self.error(trail, Complaint::new(message, suggestion));
            return None;
        };
        if scheme && named != "header" {
            let message = "`scheme` goes with `header` only";
            self.error(&trail.key("scheme"), Complaint::new(message, "remove it"));
            return None;
        }
        if let Some(prefix) = &place.subprotocol_prefix {
            return Some(Placement::SubprotocolPrefix { prefix: Cow::Owned(prefix.clone()) });
        }
        if let Some(first) = &place.subprotocol_pair {
            return Some(Placement::SubprotocolPair { first: Cow::Owned(first.clone()) });
        }
        if let Some(text) = &place.first_message {
            return Pointer::parse(text).map(|pointer| Placement::FirstMessage { pointer });
        }
        if let Some(name) = &place.query {
            return Some(Placement::Query { name: Cow::Owned(name.clone()) });
        }
        let name = headers::name(place.header.as_deref()?).ok()?;
        Some(Placement::Header {
            name: Cow::Owned(name.as_str().to_owned()),
            scheme: place.scheme.clone().map(Cow::Owned),
        })
    }

    pub(super) fn set_headers(
        &mut self,
        trail: &Trail,
        raw: &raw::Named<String>,
        placement: &[Placement],
    ) -> Vec<(HeaderName, HeaderValue)> {
        let mut set: Vec<(HeaderName, HeaderValue)> = Vec::new();
        for (key, value) in &raw.0 {
            let (Ok(name), Some(value)) = (headers::name(key), value) else { continue };
            let trail = trail.key(key);
            if self.literal && value == crate::entity::MASK {
                let complaint =
                    Complaint::new("this is what stands in place of a secret", "write the value itself");
                self.error(&trail, complaint);
            }
            let holds_key = placement.iter().any(
                |place| matches!(place, Placement::Header { name: taken, .. } if **taken == *name.as_str()),
            );
            if holds_key {
                let message = format!("the channel's key goes into the header `{name}`");
                self.error(
                    &trail,
                    Complaint::new(message, "write the key in `api_key`, or change `key_placement`"),
                );
            }
            if set.iter().any(|(have, _)| *have == name) {
                let message = format!("the header `{name}` is given twice; case makes no difference");
                self.error(&trail, Complaint::new(message, "keep one of the two"));
            }
            if let Some(mut value) = self.take(&trail, headers::value(value)) {
                // Its `Debug` shows nothing then.
                value.set_sensitive(true);
                set.push((name, value));
            }
        }
        set
    }

    pub(super) fn pass_headers(&mut self, trail: &Trail, list: Option<&raw::List>) -> Vec<HeaderName> {
        let mut pass = Vec::new();
        for (index, text) in items(list) {
            let Ok(name) = headers::name(text) else { continue };
            if headers::carries_proxy_key(&name) {
                let message = format!("the header `{name}` may hold a Proxy-Key and never passes");
                self.error(&trail.index(index), Complaint::new(message, "remove it"));
            } else if !pass.contains(&name) {
                pass.push(name);
            }
        }
        pass
    }
}
