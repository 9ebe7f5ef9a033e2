//! Certificates of the HTTPS listeners: which files there are. Reading them is the listeners'
//! business, since the files change while the configuration stays.

use super::Builder;
use crate::complaint::Complaint;
use crate::model::{CertificateFiles, Certificates, Tls};
use crate::raw;
use crate::tree::Trail;

impl Builder<'_> {
    /// `used` is the listener that needs it, as in [`Doors::secure`](super::listen::Doors::secure).
    pub(super) fn tls(
        &mut self,
        trail: &Trail,
        raw: Option<raw::Tls>,
        used: Option<&'static str>,
    ) -> Option<Tls> {
        let Some(raw) = raw else {
            if let Some(listener) = used
                && !self.has(trail)
            {
                let what = if listener == "quic" { "HTTP/3" } else { "HTTPS" };
                let complaint = Complaint::new(
                    format!("{what} needs a certificate"),
                    "write `tls: {cert: FILE, key: FILE}` under `system`, or `tls: self-signed` to try it out",
                );
                self.error(&Trail::of(&["system", "listen", listener]), complaint);
            }
            return None;
        };
        let written = |listener: &str| self.has(&Trail::of(&["system", "listen", listener]));
        if used.is_none() && !written("https") && !written("quic") {
            let complaint = Complaint::new(
                "`tls` has no effect without `listen.https`",
                "give `listen.https` an address",
            );
            self.warning(trail, complaint);
        }
        match raw {
            raw::Tls::Word(raw::TlsWord::SelfSigned) => {
                Some(Tls { certificates: Certificates::SelfSigned, client_ca: None })
            }
            raw::Tls::Pairs(pairs) => {
                Some(Tls { certificates: Certificates::Files(self.pairs(pairs)), client_ca: None })
            }
            raw::Tls::Files(files) => self.tls_files(trail, files),
        }
    }

    fn tls_files(&mut self, trail: &Trail, raw: raw::TlsFiles) -> Option<Tls> {
        let client_ca = raw.client_ca.as_deref().map(|path| self.source.resolve(path));
        let certificates = match (raw.cert, raw.key, raw.certificates) {
            (Some(cert), Some(key), None) => vec![self.pair(&cert, &key)],
            (None, None, Some(pairs)) => self.pairs(pairs),
            (cert, key, list) => {
                // What is there but bad was named already.
                let bad = |name: &str, found: bool| !found && self.has(&trail.key(name));
                if !bad("cert", cert.is_some())
                    && !bad("key", key.is_some())
                    && !bad("certificates", list.is_some())
                {
                    let complaint = Complaint::new(
                        "this is not one certificate and its key",
                        "write `cert` and `key`, or a list of such pairs under `certificates`",
                    );
                    self.error(trail, complaint);
                }
                return None;
            }
        };
        Some(Tls { certificates: Certificates::Files(certificates), client_ca })
    }

    fn pairs(&self, raw: Vec<Option<raw::TlsFiles>>) -> Vec<CertificateFiles> {
        let whole = raw.into_iter().flatten().filter_map(|pair| Some((pair.cert?, pair.key?)));
        whole.map(|(cert, key)| self.pair(&cert, &key)).collect()
    }

    fn pair(&self, cert: &str, key: &str) -> CertificateFiles {
        CertificateFiles { cert: self.source.resolve(cert), key: self.source.resolve(key) }
    }
}
