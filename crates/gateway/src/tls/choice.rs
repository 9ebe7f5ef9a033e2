//! Which certificate a caller gets.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Certificates by the names that they are for.
#[derive(Debug, Default)]
pub(super) struct Choice {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    /// For everybody else.
    first: Option<Arc<CertifiedKey>>,
}

impl Choice {
    /// Where two certificates are for one name, the earlier one is taken.
    pub(super) fn add(&mut self, names: &[String], key: Arc<CertifiedKey>) {
        for name in names {
            let (map, name) = match name.strip_prefix("*.") {
                Some(rest) => (&mut self.wildcard, rest),
                None => (&mut self.exact, name.as_str()),
            };
            map.entry(name.to_owned()).or_insert_with(|| Arc::clone(&key));
        }
        self.first.get_or_insert(key);
    }

    pub(super) fn of(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let named = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            // A wildcard stands for one label.
            self.exact.get(&name).or_else(|| self.wildcard.get(name.split_once('.')?.1))
        });
        named.or(self.first.as_ref()).cloned()
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.of(hello.server_name())
    }
}
