//! Trust roots towards platforms, and what is offered in ALPN.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aiproxy_config::model::{Channel, ClientCertificate, HttpVersion};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::error::ConnectError;
use crate::http3::Outlooks;

/// TLS settings, made once per set of roots and offer and shared by all threads (session tickets
/// too).
#[derive(Debug, Default)]
pub struct TlsConfigs {
    made: Mutex<HashMap<Wanted, Arc<ClientConfig>>>,
    /// What is known about HTTP/3, which all threads share as well.
    pub(crate) outlooks: Outlooks,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Wanted {
    ca_pem: Option<Arc<[u8]>>,
    offer: Vec<HttpVersion>,
    identity: Option<ClientCertificate>,
    peer: Peer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Peer {
    Platform,
    Proxy,
}

impl TlsConfigs {
    /// The settings for a channel: its own roots (PEM) or the system's, and its own certificate if it
    /// has one.
    ///
    /// # Errors
    /// [`ConnectError::Roots`] when there is no usable root, [`ConnectError::Identity`] when the
    /// certificate cannot be used.
    pub fn get(&self, channel: &Channel) -> Result<Arc<ClientConfig>, ConnectError> {
        self.made(Wanted {
            ca_pem: channel.ca_pem.clone(),
            offer: channel.reach.versions(true).to_vec(),
            identity: channel.reach.identity.clone(),
            peer: Peer::Platform,
        })
    }

    /// As [`get`](Self::get), for WebSockets: they begin with HTTP/1.1.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn for_sockets(&self, channel: &Channel) -> Result<Arc<ClientConfig>, ConnectError> {
        self.made(Wanted {
            ca_pem: channel.ca_pem.clone(),
            offer: vec![HttpVersion::H1],
            identity: channel.reach.identity.clone(),
            peer: Peer::Platform,
        })
    }

    /// The settings for an egress proxy: the system's roots and the channel's own, because the
    /// company's proxy may stand before a public platform.
    ///
    /// # Errors
    /// [`ConnectError::Roots`] when there is no usable root.
    pub fn for_proxy(&self, ca_pem: Option<&Arc<[u8]>>) -> Result<Arc<ClientConfig>, ConnectError> {
        let offer = vec![HttpVersion::H1];
        self.made(Wanted { ca_pem: ca_pem.cloned(), offer, identity: None, peer: Peer::Proxy })
    }

    fn made(&self, wanted: Wanted) -> Result<Arc<ClientConfig>, ConnectError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = made.get(&wanted) {
            return Ok(Arc::clone(config));
        }
        let roots = match (&wanted.ca_pem, wanted.peer) {
            (None, _) => system_roots()?,
            (Some(pem), Peer::Platform) => roots_of(pem)?,
            (Some(pem), Peer::Proxy) => {
                let mut roots = roots_of(pem)?;
                roots.roots.extend(system_roots().map(|system| system.roots).unwrap_or_default());
                roots
            }
        };
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let mut config = match &wanted.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) =
                    read(identity).map_err(|error| ConnectError::Identity(error.to_string()))?;
                let config = builder.with_client_auth_cert(chain, key);
                config.map_err(|error| ConnectError::Identity(error.to_string()))?
            }
        };
        let names = wanted.offer.iter().filter_map(|version| match version {
            HttpVersion::H1 => Some(b"http/1.1".to_vec()),
            HttpVersion::H2 => Some(b"h2".to_vec()),
            // Not over TCP.
            HttpVersion::H3 => None,
        });
        config.alpn_protocols = names.collect();
        let config = Arc::new(config);
        made.insert(wanted, Arc::clone(&config));
        Ok(config)
    }
}

fn read(
    identity: &ClientCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), pem::Error> {
    let chain = CertificateDer::pem_slice_iter(&identity.chain_pem).collect::<Result<_, _>>()?;
    Ok((chain, PrivateKeyDer::from_pem_slice(identity.key_pem.expose().as_bytes())?))
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
