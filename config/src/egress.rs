//! `egress_proxy`: the proxy between AIProxy and a platform.

use std::fmt;
use std::sync::Arc;

use aiproxy_core::Secret;
use percent_encoding::percent_decode_str;
use url::{Host, Url};

use crate::complaint::Complaint;

const EXAMPLE: &str = "write it like `http://proxy.example:3128`, `http://user:password@proxy.example:3128` or `socks5h://proxy.example:1080`";
/// What a SOCKS5 greeting can hold of each.
const LONGEST: usize = 255;

/// Which way a channel's connections go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Egress {
    /// As the environment says.
    #[default]
    Environment,
    /// Straight to the platform, whatever the environment says.
    Direct,
    /// Through this proxy.
    Proxy(Arc<EgressProxy>),
}

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyScheme {
    /// HTTP `CONNECT`.
    Http,
    /// HTTP `CONNECT` over TLS.
    Https,
    /// SOCKS5; names are resolved here.
    Socks5,
    /// SOCKS5; names are resolved by the proxy.
    Socks5h,
}

impl ProxyScheme {
    fn of(scheme: &str) -> Option<(Self, u16)> {
        match scheme {
            "http" => Some((Self::Http, 80)),
            "https" => Some((Self::Https, 443)),
            "socks5" => Some((Self::Socks5, 1080)),
            "socks5h" => Some((Self::Socks5h, 1080)),
            _ => None,
        }
    }
}

/// A proxy, taken apart. Its credentials cannot print.
#[derive(Clone)]
pub struct EgressProxy {
    /// How it is spoken to.
    pub scheme: ProxyScheme,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port, the scheme's usual filled in.
    pub port: u16,
    /// User name and password, decoded.
    pub credentials: Option<(Secret, Secret)>,
}

impl fmt::Debug for EgressProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}:{}", self.scheme, self.host, self.port)
    }
}

impl PartialEq for EgressProxy {
    fn eq(&self, other: &Self) -> bool {
        let exposed = |proxy: &Self| {
            proxy
                .credentials
                .as_ref()
                .map(|(user, password)| (user.expose().to_owned(), password.expose().to_owned()))
        };
        (self.scheme, &self.host, self.port) == (other.scheme, &other.host, other.port)
            && exposed(self) == exposed(other)
    }
}

impl Eq for EgressProxy {}

impl EgressProxy {
    /// Takes a proxy's URL apart. Without a scheme it is `http://`, as other programs read it.
    ///
    /// # Errors
    /// What is wrong, for people; never a part of the URL, which may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse(text).map_err(|complaint| complaint.message)
    }
}

/// The value of the field.
pub(crate) fn egress(text: &str) -> Result<Egress, Complaint> {
    match text {
        "off" => Ok(Egress::Direct),
        _ if !text.contains("://") => {
            Err(Complaint::new("`egress_proxy` is neither `off` nor the URL of a proxy", EXAMPLE))
        }
        _ => parse(text).map(|proxy| Egress::Proxy(Arc::new(proxy))),
    }
}

fn parse(text: &str) -> Result<EgressProxy, Complaint> {
    let wrong = |message: &str| Complaint::new(message, EXAMPLE);
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    if whole.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err(wrong("the proxy's URL holds a space, control character or backslash"));
    }
    // The URL standard knows no SOCKS: as `http`, hosts are read in the same way.
    let (scheme, rest) = whole.split_once("://").unwrap_or_default();
    let (scheme, usual) = ProxyScheme::of(&scheme.to_ascii_lowercase()).ok_or_else(|| {
        wrong("the proxy's URL begins with none of `http://`, `https://`, `socks5://`, `socks5h://`")
    })?;
    let url = Url::parse(&format!("http://{rest}")).map_err(|_| wrong("the proxy's URL is not one"))?;
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("the proxy's URL holds more than a host and a port"));
    }
    let host = match url.host() {
        Some(Host::Domain(name)) => name.to_owned(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        None => return Err(wrong("the proxy's URL names no host")),
    };
    // `http` drops its own usual port: whether 80 was written is seen in the text only.
    let port = match url.port() {
        Some(0) => return Err(wrong("the proxy's port is 0")),
        Some(port) => port,
        None if rest.trim_end_matches('/').ends_with(":80") => 80,
        None => usual,
    };
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8().ok()?.into_owned();
        (text.len() <= LONGEST && !text.contains(char::is_control)).then(|| Secret::new(text))
    };
    let credentials = if url.username().is_empty() && url.password().is_none() {
        None
    } else {
        let user = decoded(url.username()).filter(|user| !user.is_empty() && !user.expose().contains(':'));
        let password = decoded(url.password().unwrap_or_default());
        match (user, password) {
            (Some(user), Some(password)) => Some((user, password)),
            _ => return Err(wrong("the proxy's user name or password cannot be used")),
        }
    };
    Ok(EgressProxy { scheme, host, port, credentials })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        use ProxyScheme::{Http, Https, Socks5, Socks5h};
        for (text, scheme, host, port, credentials) in [
            ("http://proxy.example:3128", Http, "proxy.example", 3128, None),
            ("http://proxy.example", Http, "proxy.example", 80, None),
            ("proxy.example:8080", Http, "proxy.example", 8080, None),
            ("https://proxy.example/", Https, "proxy.example", 443, None),
            ("https://proxy.example:80", Https, "proxy.example", 80, None),
            ("SOCKS5://u:p@[::1]:1081", Socks5, "::1", 1081, Some(("u", "p"))),
            ("socks5h://u%40x:a%3Ab%2F@10.0.0.1", Socks5h, "10.0.0.1", 1080, Some(("u@x", "a:b/"))),
            ("http://u@proxy.example", Http, "proxy.example", 80, Some(("u", ""))),
        ] {
            let proxy = EgressProxy::parse(text).unwrap();
            let exposed =
                proxy.credentials.as_ref().map(|(user, password)| (user.expose(), password.expose()));
            assert_eq!((proxy.scheme, &*proxy.host, proxy.port), (scheme, host, port), "{text}");
            assert_eq!(exposed, credentials, "{text}");
        }
    }

    #[test]
    fn others_are_refused_without_being_shown() {
        for text in [
            "",
            "ftp://u:hunter2@proxy.example",
            "socks4://u:hunter2@proxy.example",
            "http://u:hunter2@",
            "http://u:hunter2@proxy.example:0",
            "http://u:hunter2@proxy.example:99999",
            "http://u:hunter2@proxy.example/path",
            "http://u:hunter2@proxy.example?a=b",
            "http://:hunter2@proxy.example",
            "http://a%3Ab:hunter2@proxy.example",
            "http://u:hunter2%0a@proxy.example",
            "http://u:hunter2 @proxy.example",
        ] {
            let error = EgressProxy::parse(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{text}");
        }
        let proxy = EgressProxy::parse("http://u:hunter2@proxy.example").unwrap();
        assert!(!format!("{proxy:?}").contains("hunter2"));
        assert_eq!(egress("off"), Ok(Egress::Direct));
        assert!(egress("on").is_err());
    }
}
