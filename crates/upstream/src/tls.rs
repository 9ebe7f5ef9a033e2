//! Trust roots towards platforms.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::error::ConnectError;

/// TLS settings, made once per set of roots and shared by all threads (session tickets too).
#[derive(Debug, Default)]
pub struct TlsConfigs {
    system: OnceLock<Arc<ClientConfig>>,
    own: Mutex<HashMap<Arc<[u8]>, Arc<ClientConfig>>>,
}

impl TlsConfigs {
    /// The settings for a channel: its own roots (PEM), or the system's.
    ///
    /// # Errors
    /// [`ConnectError::Roots`] when there is no usable root.
    pub fn get(&self, ca_pem: Option<&Arc<[u8]>>) -> Result<Arc<ClientConfig>, ConnectError> {
        let Some(pem) = ca_pem else {
            if let Some(config) = self.system.get() {
                return Ok(Arc::clone(config));
            }
            let config = client(system_roots()?);
            return Ok(Arc::clone(self.system.get_or_init(|| config)));
        };
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = own.get(pem) {
            return Ok(Arc::clone(config));
        }
        let config = client(roots_of(pem)?);
        own.insert(Arc::clone(pem), Arc::clone(&config));
        Ok(config)
    }
}

fn client(roots: RootCertStore) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

fn system_roots() -> Result<RootCertStore, ConnectError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(ConnectError::Roots(
            "the system has none; install its CA certificates (Debian: ca-certificates) or set the channel's `ca`".into(),
        ));
    }
    Ok(roots)
}

fn roots_of(pem: &[u8]) -> Result<RootCertStore, ConnectError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| ConnectError::Roots(error.to_string()))?;
        roots.add(certificate).map_err(|error| ConnectError::Roots(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(ConnectError::Roots("the channel's `ca` holds no certificate".into()));
    }
    Ok(roots)
}
