//! Certificates of the HTTPS listeners: read, checked, chosen by name.
//!
//! A pair that cannot be used is an error for whoever asked for it; what is in use meanwhile stays.
//! Nothing here says what a private key holds.
//!
//! - `choice`: which certificate a caller gets
//! - `expiry`: until when a certificate is valid
//! - `self_signed`: one for development

mod choice;
mod expiry;
mod self_signed;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aiproxy_config::model::{CertificateFiles, Certificates, Tls};
use aiproxy_registry::status::Certificate;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};

use choice::Choice;

/// Longest PEM file.
const LONGEST: u64 = 4 << 20;
/// Tickets of one connection: callers open several more at a time.
const TICKETS: usize = 2;

/// What HTTPS listeners use.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Ready for handshakes.
    pub config: Arc<ServerConfig>,
    /// What may be told of it, in the order of the configuration.
    pub certificates: Vec<Certificate>,
}

/// Reads certificates. One per process: what it holds lets sessions be resumed although the
/// certificate has changed meanwhile.
#[derive(Debug)]
pub struct Loader {
    ticketer: Arc<dyn ProducesTickets>,
}

impl Loader {
    /// One with ticket keys of its own.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new() -> io::Result<Self> {
        let ticketer = aws_lc_rs::Ticketer::new().map_err(io::Error::other)?;
        Ok(Self { ticketer })
    }

    /// Reads the files, or makes what has to be made. Blocks.
    ///
    /// # Errors
    /// The file and what is wrong with it, for people.
    pub fn load(&self, tls: &Tls, data_dir: &Path) -> Result<Loaded, String> {
        let files = match &tls.certificates {
            Certificates::Files(files) => files.clone(),
            Certificates::SelfSigned => vec![self_signed::kept_in(data_dir)?],
        };
        let mut choice = Choice::default();
        let mut certificates = Vec::with_capacity(files.len());
        for pair in &files {
            let key = Arc::new(certified(pair)?);
            let seen = describe(&key).map_err(|error| format!("{}: {error}", pair.cert.display()))?;
            choice.add(&seen.names, key);
            certificates.push(seen);
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match &tls.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots(path)?)).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| named(path, error))?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(choice));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if tls.client_ca.is_none() {
            config.ticketer = Arc::clone(&self.ticketer);
            config.send_tls13_tickets = TICKETS;
        } else {
            // A resumed session would not be held against the authorities of today.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Loaded { config: Arc::new(config), certificates })
    }
}

/// The files that are read: to be looked at again when they change.
#[must_use]
pub fn files(tls: &Tls) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    if let Certificates::Files(pairs) = &tls.certificates {
        paths.extend(pairs.iter().flat_map(|pair| [pair.cert.clone(), pair.key.clone()]));
    }
    paths.extend(tls.client_ca.clone());
    paths
}

fn certified(pair: &CertificateFiles) -> Result<CertifiedKey, String> {
    let chain = chain(&pair.cert)?;
    let pem = read(&pair.key)?;
    // The parser's own words may quote the file.
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| named(&pair.key, "holds no private key in PEM without a passphrase"))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("{} is not the key of {}", pair.key.display(), pair.cert.display())
        }
        error => named(&pair.cert, error),
    })
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| named(path, "is not PEM"))?;
    if chain.is_empty() { Err(named(path, "holds no certificate in PEM")) } else { Ok(chain) }
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path)? {
        roots.add(certificate).map_err(|error| named(path, error))?;
    }
    Ok(roots)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    // Opening a pipe waits for whoever writes into it.
    if !std::fs::metadata(path).map_err(|error| named(path, error))?.is_file() {
        return Err(named(path, "is not a regular file"));
    }
    let file = File::open(path).map_err(|error| named(path, error))?;
    file.take(LONGEST).read_to_end(&mut bytes).map_err(|error| named(path, error))?;
    Ok(bytes)
}

fn named(path: &Path, what: impl std::fmt::Display) -> String {
    format!("{}: {what}", path.display())
}

fn describe(key: &CertifiedKey) -> Result<Certificate, String> {
    let der = key.end_entity_cert().map_err(|error| error.to_string())?;
    let certificate = webpki::EndEntityCert::try_from(der).map_err(|error| error.to_string())?;
    let names = certificate.valid_dns_names().map(str::to_ascii_lowercase).collect();
    let mut fingerprint = String::with_capacity(64);
    for byte in Sha256::digest(der) {
        let _ = write!(fingerprint, "{byte:02x}");
    }
    let expires = expiry::of(der).ok_or("its validity cannot be read")?;
    Ok(Certificate { names, fingerprint, expires })
}
