//! Client secrets.

use std::time::Duration;

use aiproxy_core::Secret;

use super::{Builder, items};
use crate::complaint::Complaint;
use crate::model::ClientSecrets;
use crate::raw;
use crate::tree::Trail;

/// Shortest text that a key is derived from.
const SHORTEST: usize = 32;
const SHORTEST_LIFE: Duration = Duration::from_secs(10);

impl Builder<'_> {
    pub(super) fn client_secrets(&mut self, trail: &Trail, raw: &raw::ClientSecrets) -> ClientSecrets {
        let usual = ClientSecrets::default();
        let mut keys: Vec<Secret> = Vec::new();
        for (index, text) in items(raw.keys.as_ref()) {
            let at = trail.key("keys").index(index);
            let text = text.trim();
            if text.len() < SHORTEST {
                let complaint = Complaint::new(
                    format!("the key is shorter than {SHORTEST} characters"),
                    "use a long random text: `openssl rand -hex 32` makes one",
                );
                self.error(&at, complaint);
            } else if keys.iter().any(|have| have.expose() == text) {
                self.error(&at, Complaint::new("the key is given twice", "keep one of the two"));
            } else {
                keys.push(Secret::new(text.to_owned()));
            }
        }
        let max_ttl = raw.max_ttl.map_or(usual.max_ttl, |value| value.0);
        if !(SHORTEST_LIFE..=usual.max_ttl).contains(&max_ttl) {
            let complaint = Complaint::new("`max_ttl` is out of range", "write a time from `10s` to `2h`");
            self.error(&trail.key("max_ttl"), complaint);
        }
        let max_per_key = raw.max_per_key.unwrap_or(usual.max_per_key);
        ClientSecrets { keys: keys.into(), max_per_key, max_ttl }
    }
}
