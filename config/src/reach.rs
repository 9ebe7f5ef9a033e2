//! How a channel's platform is reached, and the connections that are kept.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aiproxy_core::Secret;

use crate::egress::Egress;

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
    /// HTTP/3, over UDP.
    H3,
}

/// When HTTP/3 is spoken with a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum H3 {
    /// At once; where UDP does not get through, what else is listed.
    First,
    /// Once the platform's own `Alt-Svc` offers it.
    WhenOffered,
}

/// The way to a platform.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach {
    /// Versions in order of preference, none twice; empty is the usual for the scheme.
    pub versions: Vec<HttpVersion>,
    /// The proxy before it.
    pub egress: Egress,
    /// Addresses that stand in place of the name service's, by host in lower case.
    pub resolve: Vec<(String, Vec<IpAddr>)>,
    /// What the platform gets that asks who is calling.
    pub identity: Option<ClientCertificate>,
}

/// A certificate of our own and its key.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// PEM, the certificate itself first.
    pub chain_pem: Arc<[u8]>,
    /// PEM.
    pub key_pem: Secret,
}

impl PartialEq for ClientCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.chain_pem == other.chain_pem && self.key_pem.expose() == other.key_pem.expose()
    }
}

impl Eq for ClientCertificate {}

impl Hash for ClientCertificate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Keys differ where certificates do.
        self.chain_pem.hash(state);
    }
}

impl Reach {
    /// What is spoken with a platform; of these, HTTP/3 is not negotiated over TCP.
    #[must_use]
    pub fn versions(&self, tls: bool) -> &[HttpVersion] {
        match (self.versions.is_empty(), tls) {
            (false, _) => &self.versions,
            (true, true) => &[HttpVersion::H2, HttpVersion::H1],
            (true, false) => &[HttpVersion::H1],
        }
    }

    /// Whether a connection may turn out to be HTTP/2. Without TLS nothing is negotiated.
    #[must_use]
    pub fn may_be_h2(&self, tls: bool) -> bool {
        let versions = self.versions(tls);
        if tls { versions.contains(&HttpVersion::H2) } else { *versions == [HttpVersion::H2] }
    }

    /// Whether and when HTTP/3 is spoken. Not through a proxy that the channel has; one that the
    /// environment names is not seen here. Without TLS the configuration refuses it.
    #[must_use]
    pub fn wants_h3(&self) -> Option<H3> {
        if matches!(self.egress, Egress::Proxy(_)) {
            return None;
        }
        let place = self.versions.iter().position(|version| *version == HttpVersion::H3)?;
        Some(if place == 0 { H3::First } else { H3::WhenOffered })
    }

    /// Whether there is nothing to fall back to.
    #[must_use]
    pub fn is_only_h3(&self) -> bool {
        self.versions == [HttpVersion::H3]
    }

    /// The addresses that the configuration gives for a host.
    #[must_use]
    pub fn addresses_of(&self, host: &str) -> Option<&[IpAddr]> {
        let found = self.resolve.iter().find(|(name, _)| name.eq_ignore_ascii_case(host));
        found.map(|(_, addresses)| addresses.as_slice())
    }
}

/// Bounds on the connections that each thread keeps to one platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// The longest time without a request.
    pub idle: Duration,
    /// HTTP/1.1 connections without a request.
    pub max_idle: usize,
    /// Connections to be open ahead of need.
    pub warm: usize,
    /// Time between signs of life of an HTTP/2 platform while requests are under way.
    pub ping: Duration,
    /// Time between lookups of the host while there are connections.
    pub lookup: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(50),
            max_idle: 128,
            warm: 0,
            ping: Duration::from_secs(20),
            lookup: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_decides_what_is_usual_and_what_can_be_negotiated() {
        use HttpVersion::{H1, H2, H3};
        for (given, tls, expected, may_be_h2) in [
            (&[][..], true, &[H2, H1][..], true),
            (&[], false, &[H1], false),
            (&[H1], true, &[H1], false),
            (&[H2], true, &[H2], true),
            (&[H2], false, &[H2], true),
            (&[H2, H1], false, &[H2, H1], false),
            (&[H3, H2, H1], true, &[H3, H2, H1], true),
            (&[H3], true, &[H3], false),
        ] {
            let reach = Reach { versions: given.to_vec(), ..Reach::default() };
            assert_eq!((reach.versions(tls), reach.may_be_h2(tls)), (expected, may_be_h2), "{given:?} {tls}");
        }
    }

    #[test]
    fn its_place_in_the_list_says_when_http3_is_spoken() {
        use HttpVersion::{H1, H2, H3 as Third};
        for (given, when, alone) in [
            (&[][..], None, false),
            (&[H2, H1], None, false),
            (&[Third, H2, H1], Some(H3::First), false),
            (&[H2, Third, H1], Some(H3::WhenOffered), false),
            (&[H1, Third], Some(H3::WhenOffered), false),
            (&[Third], Some(H3::First), true),
        ] {
            let mut reach = Reach { versions: given.to_vec(), ..Reach::default() };
            assert_eq!((reach.wants_h3(), reach.is_only_h3()), (when, alone), "{given:?}");
            reach.egress = Egress::Direct;
            assert_eq!(reach.wants_h3(), when, "{given:?}");
            let proxy = crate::egress::EgressProxy::parse("http://proxy.example").unwrap();
            reach.egress = Egress::Proxy(Arc::new(proxy));
            assert_eq!(reach.wants_h3(), None, "no proxy passes on UDP: {given:?}");
        }
    }
}
