//! The proxies that the environment names, as other programs read it.
//!
//! `HTTPS_PROXY` serves `https` platforms and `http_proxy` those without TLS, each with
//! `ALL_PROXY` behind; names in lower case go first. `HTTP_PROXY` in capitals is not read: a CGI
//! caller could set it by a header. `NO_PROXY` lists what is reached directly: domains with all
//! below them, addresses, networks, each with a port where wanted, or `*`. This machine itself is
//! never reached through one of these.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use aiproxy_config::model::{BaseUrl, EgressProxy};
use ipnet::IpNet;

/// What the environment said when it was first looked at.
static READ: LazyLock<Environment> = LazyLock::new(|| {
    Environment::of(|name| std::env::var(name).ok().filter(|value| !value.trim().is_empty()))
});

/// The proxies that the environment names.
#[derive(Debug, Default)]
pub struct Environment {
    https: Option<Arc<EgressProxy>>,
    http: Option<Arc<EgressProxy>>,
    direct: Vec<Exception>,
}

/// One entry of `NO_PROXY`.
#[derive(Debug)]
struct Exception {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug)]
enum Hosts {
    All,
    /// The domain and all below it, in lower case.
    Domain(String),
    Net(IpNet),
}

impl Environment {
    /// The process's own, read once.
    #[must_use]
    pub fn read() -> &'static Self {
        &READ
    }

    fn of(get: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&str]| names.iter().find_map(|name| Some((name.to_string(), get(name)?)));
        let proxy = |names: &[&str]| {
            let (name, value) = first(names)?;
            match EgressProxy::parse(value.trim()) {
                Ok(proxy) => Some(Arc::new(proxy)),
                Err(error) => {
                    tracing::error!(variable = name, %error, "this variable of the environment is not used");
                    None
                }
            }
        };
        let direct = first(&["no_proxy", "NO_PROXY"]).map(|(_, list)| exceptions(&list)).unwrap_or_default();
        Self {
            https: proxy(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
            http: proxy(&["http_proxy", "all_proxy", "ALL_PROXY"]),
            direct,
        }
    }

    /// The proxy before a platform.
    #[must_use]
    pub fn proxy_of(&self, base: &BaseUrl) -> Option<&Arc<EgressProxy>> {
        let proxy = if base.tls { &self.https } else { &self.http }.as_ref()?;
        let host = base.host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        let local = host == "localhost" || host.ends_with(".localhost");
        if local || address.is_some_and(|address| address.is_loopback()) {
            return None;
        }
        let excepted = self.direct.iter().any(|exception| {
            exception.port.is_none_or(|port| port == base.port)
                && match &exception.hosts {
                    Hosts::All => true,
                    Hosts::Domain(domain) => host
                        .strip_suffix(&**domain)
                        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
                    Hosts::Net(net) => address.is_some_and(|address| net.contains(&address)),
                }
        });
        (!excepted).then_some(proxy)
    }
}

fn exceptions(list: &str) -> Vec<Exception> {
    let entries = list.split([',', ' ', '\t']).map(str::trim).filter(|entry| !entry.is_empty());
    entries.map(exception).collect()
}

fn exception(entry: &str) -> Exception {
    if let Some(net) = net(entry) {
        return Exception { hosts: Hosts::Net(net), port: None };
    }
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (entry, None),
        },
        None => (entry, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let hosts = match net(host) {
        Some(net) => Hosts::Net(net),
        None if host == "*" => Hosts::All,
        None => Hosts::Domain(
            host.trim_start_matches('*').trim_start_matches('.').trim_end_matches('.').to_ascii_lowercase(),
        ),
    };
    Exception { hosts, port }
}

fn net(text: &str) -> Option<IpNet> {
    text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse::<IpNet>()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::of(|name| {
            pairs.iter().find(|(have, _)| *have == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn way(environment: &Environment, url: &str) -> Option<String> {
        let (scheme, rest) = url.split_once("://").unwrap();
        let tls = scheme == "https";
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') && port.parse::<u16>().is_ok() => {
                (host, port.parse().unwrap())
            }
            _ => (rest, if tls { 443 } else { 80 }),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let base = BaseUrl { tls, host, port, path: String::new(), authority: String::new() };
        environment.proxy_of(&base).map(|proxy| proxy.host.clone())
    }

    #[test]
    fn each_scheme_has_its_variable() {
        let both = environment(&[
            ("HTTPS_PROXY", "http://secure.example:1"),
            ("HTTP_PROXY", "http://never.example:1"),
            ("http_proxy", "plain.example:1"),
            ("ALL_PROXY", "socks5://all.example"),
        ]);
        assert_eq!(way(&both, "https://api.example").as_deref(), Some("secure.example"));
        assert_eq!(way(&both, "http://api.example").as_deref(), Some("plain.example"));
        let all =
            environment(&[("HTTP_PROXY", "http://never.example:1"), ("all_proxy", "socks5h://all.example")]);
        assert_eq!(way(&all, "https://api.example").as_deref(), Some("all.example"));
        assert_eq!(way(&all, "http://api.example").as_deref(), Some("all.example"));
        let lower =
            environment(&[("HTTPS_PROXY", "http://upper.example"), ("https_proxy", "http://lower.example")]);
        assert_eq!(way(&lower, "https://api.example").as_deref(), Some("lower.example"));
        assert_eq!(way(&environment(&[]), "https://api.example"), None);
        assert_eq!(way(&environment(&[("HTTPS_PROXY", "ftp://x")]), "https://api.example"), None);
    }

    #[test]
    fn exceptions_are_reached_directly() {
        for (list, direct, through) in [
            ("*", &["https://a.example", "https://10.0.0.1"][..], &[][..]),
            (
                "example.com",
                &["https://example.com", "https://a.EXAMPLE.com", "https://example.com."],
                &["https://notexample.com", "https://example.com.evil.org"],
            ),
            (
                ".example.com, 10.0.0.0/8",
                &["https://a.example.com", "https://10.2.3.4"],
                &["https://11.0.0.1", "https://a.example.org"],
            ),
            (
                "*.example.com b.example",
                &["https://a.example.com", "https://b.example"],
                &["https://c.example"],
            ),
            ("a.example:8443", &["https://a.example:8443"], &["https://a.example"]),
            (
                "10.0.0.1:8443,[2001:db8::1]:443",
                &["https://10.0.0.1:8443", "https://[2001:db8::1]"],
                &["https://10.0.0.1"],
            ),
            ("2001:db8::/32", &["https://[2001:db8::5]"], &["https://[2001:db9::5]"]),
            ("", &[], &["https://a.example"]),
        ] {
            let environment = environment(&[("HTTPS_PROXY", "http://proxy.example"), ("no_proxy", list)]);
            for url in direct {
                assert_eq!(way(&environment, url), None, "{list}: {url}");
            }
            for url in through {
                assert!(way(&environment, url).is_some(), "{list}: {url}");
            }
        }
    }

    #[test]
    fn this_machine_is_reached_directly() {
        let environment = environment(&[("ALL_PROXY", "http://proxy.example")]);
        for url in [
            "http://localhost",
            "https://a.localhost",
            "http://127.8.8.8:1",
            "http://[::1]:2",
            "http://[::ffff:127.0.0.1]",
        ] {
            assert_eq!(way(&environment, url), None, "{url}");
        }
    }
}
