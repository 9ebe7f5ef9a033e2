//! The request's head, rewritten for the channel.

use std::borrow::Cow;

use aiproxy_config::model::Channel;
use aiproxy_platform::Placement;
use aiproxy_platform::placement::{CALLER_HEADERS, CALLER_QUERY, query_pairs};
use http::header::{
    ACCEPT_ENCODING, CONNECTION, HOST, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, TE, UPGRADE, USER_AGENT,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use memchr::memmem;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_decode_str, utf8_percent_encode};
use smallvec::SmallVec;

pub(crate) const UNRESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Headers that end at each hop (RFC 9110, section 7.6.1), besides those that `Connection` names.
/// `te: trailers` is put back where the caller sent it.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
    "expect",
    "http2-settings",
];

/// What a company's network says about itself and its people: no platform's business.
const PRIVATE: &[&str] = &[
    "forwarded",
    "x-real-ip",
    "via",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "cookie",
    "origin",
    "referer",
];

/// With it, and its subprotocol, callers ask for the shape of OpenAI's beta.
const BETA: HeaderName = HeaderName::from_static("openai-beta");
const BETA_PROTOCOL: &str = "openai-beta.";

/// Why a head cannot be swapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapError {
    /// The Proxy-Key stands in the path or in a query parameter that is no place for it.
    KeyInTarget,
    /// The rewritten target is not a valid URI.
    BadTarget,
}

/// What each request to one channel gets, made once.
#[derive(Debug)]
pub struct Prepared {
    host: HeaderValue,
    http: Places,
    /// When a WebSocket opens.
    socket: Places,
    strip_beta: bool,
    account_headers: Vec<HeaderName>,
    /// Beginnings of subprotocols that choose among the account's organisations or projects.
    account_protocols: Vec<String>,
}

/// A key in its places.
#[derive(Debug)]
struct Places {
    headers: Vec<(HeaderName, HeaderValue)>,
    /// `name=value`, encoded.
    query: Vec<String>,
    query_names: Vec<String>,
    protocols: Vec<String>,
}

impl Places {
    fn of(placements: &[Placement], channel: &Channel) -> Self {
        let key = channel.api_key.expose();
        let mut headers = Vec::new();
        let mut query = Vec::new();
        let mut query_names = Vec::new();
        let mut protocols = Vec::new();
        for placement in placements {
            match placement {
                Placement::Header { name, scheme } => {
                    let text =
                        scheme.as_ref().map_or_else(|| key.to_owned(), |scheme| format!("{scheme} {key}"));
                    if let (Ok(name), Ok(mut value)) =
                        (name.parse::<HeaderName>(), HeaderValue::from_str(&text))
                    {
                        value.set_sensitive(true);
                        headers.push((name, value));
                    }
                }
                Placement::Query { name } => {
                    query.push(format!(
                        "{}={}",
                        utf8_percent_encode(name, UNRESERVED),
                        utf8_percent_encode(key, UNRESERVED)
                    ));
                    query_names.push(name.clone().into_owned());
                }
                Placement::SubprotocolPrefix { prefix } => protocols.push(format!("{prefix}{key}")),
                Placement::SubprotocolPair { first } => {
                    protocols.extend([first.clone().into_owned(), key.to_owned()]);
                }
                // Comes when the socket is open.
                Placement::FirstMessage { .. } => {}
            }
        }
        headers.extend(channel.set_headers.iter().cloned());
        Self { headers, query, query_names, protocols }
    }
}

impl Prepared {
    /// The parts for a channel. Values that cannot stand in a header are left out here; the
    /// configuration refuses such keys long before.
    #[must_use]
    pub fn of(channel: &Channel) -> Self {
        let account_headers: Vec<HeaderName> = channel
            .platform
            .account_request_headers
            .iter()
            .map(|name| HeaderName::from_static(name))
            .filter(|name| !channel.pass_headers.contains(name))
            .collect();
        let host =
            HeaderValue::from_str(&channel.base.authority).unwrap_or(HeaderValue::from_static("invalid"));
        Self {
            host,
            http: Places::of(&channel.placement, channel),
            socket: Places::of(&channel.socket_placement, channel),
            strip_beta: channel.strips_beta(),
            // Browsers say in subprotocols what they cannot say in headers: `openai-project.<id>`.
            account_protocols: account_headers.iter().map(|name| format!("{name}.")).collect(),
            account_headers,
        }
    }

    /// Rewrites the headers in place: the Proxy-Key goes from wherever it was, the channel's key
    /// comes where the platform wants it. Any other header that holds the Proxy-Key goes too.
    /// With `readable` the platform is asked for an uncompressed answer, because usage is read
    /// from it.
    pub fn swap_headers(&self, headers: &mut HeaderMap, proxy_key: &str, readable: bool) {
        self.swap(headers, proxy_key, &self.http);
        if readable {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
    }

    /// As [`swap_headers`](Self::swap_headers), for an opening handshake with this key and the
    /// caller's subprotocols, which hold no Proxy-Key any more. Extensions are not offered: frames
    /// pass as they are, and what one hop has negotiated means nothing on the other.
    pub fn swap_handshake(
        &self,
        headers: &mut HeaderMap,
        proxy_key: &str,
        handshake_key: &str,
        protocols: &[&str],
    ) {
        self.swap(headers, proxy_key, &self.socket);
        for name in [TE, ACCEPT_ENCODING, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL] {
            headers.remove(name);
        }
        if self.strip_beta
            && headers.get_all(BETA).iter().any(|value| memmem::find(value.as_bytes(), b"realtime").is_some())
        {
            headers.remove(BETA);
        }
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        if let Ok(key) = HeaderValue::from_str(handshake_key) {
            headers.insert(SEC_WEBSOCKET_KEY, key);
        }
        let own = self.socket.protocols.iter().map(String::as_str);
        let offered: Vec<&str> = protocols.iter().copied().chain(own).collect();
        if let Ok(mut value) = HeaderValue::from_str(&offered.join(", "))
            && !offered.is_empty()
        {
            value.set_sensitive(true);
            headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
        }
    }

    /// Those of the caller's subprotocols that go on to the platform: none that holds the Proxy-Key, and
    /// none that speaks for the account.
    #[must_use]
    pub fn protocols<'a>(&self, offered: &[&'a str], proxy_key: &str) -> Vec<&'a str> {
        let passes = |protocol: &&str| {
            self.passes_protocol(protocol)
                && !protocol.contains(proxy_key)
                && !decoded_contains(protocol, proxy_key)
        };
        offered.iter().copied().filter(passes).collect()
    }

    /// Whether a subprotocol of the caller's may go on to the platform.
    fn passes_protocol(&self, protocol: &str) -> bool {
        let begins = |prefix: &str| {
            protocol.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
        };
        let beta = self.strip_beta && begins(BETA_PROTOCOL);
        !beta && !self.account_protocols.iter().any(|prefix| begins(prefix))
    }

    /// Whether the channel's key travels as a subprotocol.
    #[must_use]
    pub fn key_is_protocol(&self) -> bool {
        !self.socket.protocols.is_empty()
    }

    fn swap(&self, headers: &mut HeaderMap, proxy_key: &str, places: &Places) {
        let trailers = headers.get(TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
        let mut gone: SmallVec<[HeaderName; 16]> = named_by_connection(headers);
        for (name, value) in &*headers {
            if is_dropped(name.as_str())
                || self.account_headers.contains(name)
                || self.is_alias(name.as_str())
                || holds(value, proxy_key)
            {
                gone.push(name.clone());
            }
        }
        for name in gone {
            headers.remove(name);
        }
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        headers.insert(HOST, self.host.clone());
        for (name, value) in &places.headers {
            headers.insert(name.clone(), value.clone());
        }
    }

    /// Servers behind CGI-like interfaces read `_` in a name as `-`: what would be taken out under its
    /// own name is taken out under this one too.
    fn is_alias(&self, name: &str) -> bool {
        if !name.contains('_') {
            return false;
        }
        let plain = name.replace('_', "-");
        let own = self.http.headers.iter().chain(&self.socket.headers).map(|(name, _)| name);
        is_dropped(&plain) || self.account_headers.iter().chain(own).any(|own| *own == *plain)
    }

    /// The upstream's target: this path, the caller's query without its key, and the channel's
    /// key where it belongs in the query.
    ///
    /// # Errors
    /// See [`SwapError`].
    pub fn target(&self, path: &str, query: Option<&str>, proxy_key: &str) -> Result<Uri, SwapError> {
        self.target_in(path, query, proxy_key, &self.http, |_| true)
    }

    /// As [`target`](Self::target), for an opening handshake: `keeps` says which of the caller's
    /// parameters go on.
    ///
    /// # Errors
    /// See [`SwapError`].
    pub fn socket_target(
        &self,
        path: &str,
        query: Option<&str>,
        proxy_key: &str,
        keeps: impl FnMut(&str) -> bool,
    ) -> Result<Uri, SwapError> {
        self.target_in(path, query, proxy_key, &self.socket, keeps)
    }

    fn target_in(
        &self,
        path: &str,
        query: Option<&str>,
        proxy_key: &str,
        places: &Places,
        mut keeps: impl FnMut(&str) -> bool,
    ) -> Result<Uri, SwapError> {
        if path.contains(proxy_key) || decoded_contains(path, proxy_key) {
            return Err(SwapError::KeyInTarget);
        }
        let mut target = String::with_capacity(path.len() + query.map_or(0, str::len) + 1);
        target.push_str(path);
        let mut separator = '?';
        let mut push = |pair: &[&str]| {
            target.push(separator);
            separator = '&';
            pair.iter().for_each(|part| target.push_str(part));
        };
        for raw in query.unwrap_or_default().split('&').filter(|raw| !raw.is_empty()) {
            let Some((name, value)) = query_pairs(Some(raw)).next() else { continue };
            if CALLER_QUERY.contains(&&*name)
                || places.query_names.iter().any(|own| *own == name)
                || !keeps(&name)
            {
                continue;
            }
            if name.contains(proxy_key) || value.contains(proxy_key) || decoded_contains(value, proxy_key) {
                return Err(SwapError::KeyInTarget);
            }
            push(&[raw]);
        }
        for pair in &places.query {
            push(&[pair]);
        }
        let target = PathAndQuery::try_from(target).map_err(|_| SwapError::BadTarget)?;
        Ok(Uri::from(target))
    }

    /// Target and headers of a request of our own (a health check), behind the channel's base path.
    ///
    /// # Errors
    /// See [`SwapError`].
    pub fn own(&self, base_path: &str, path: &str) -> Result<(Uri, HeaderMap), SwapError> {
        // No target and no header holds it.
        const NO_KEY: &str = "\0";
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let uri = self.target(&format!("{base_path}{path}"), query, NO_KEY)?;
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("aiproxy/", env!("CARGO_PKG_VERSION"))));
        self.swap_headers(&mut headers, NO_KEY, true);
        Ok((uri, headers))
    }

    /// Query parameters in which this channel's key travels.
    #[must_use]
    pub fn query_names(&self) -> &[String] {
        &self.http.query_names
    }
}

fn is_dropped(name: &str) -> bool {
    HOP_BY_HOP.contains(&name)
        || PRIVATE.contains(&name)
        || CALLER_HEADERS.contains(&name)
        || name.starts_with("x-forwarded-")
        || name.starts_with("x-aiproxy-")
}

/// Whether a header's value holds the key, plain or percent-encoded. Nearly all values are shorter
/// than any key.
pub(crate) fn holds(value: &HeaderValue, key: &str) -> bool {
    let (bytes, key) = (value.as_bytes(), key.as_bytes());
    bytes.len() >= key.len()
        && (memmem::find(bytes, key).is_some()
            || (bytes.contains(&b'%') && memmem::find(&Cow::from(percent_decode(bytes)), key).is_some()))
}

/// Takes out of a request's trailers what would be taken out of its headers.
pub(crate) fn scrub_trailers(trailers: &mut HeaderMap, proxy_key: &str) {
    let gone: SmallVec<[HeaderName; 4]> = trailers
        .iter()
        .filter(|(name, value)| is_dropped(name.as_str()) || holds(value, proxy_key))
        .map(|(name, _)| name.clone())
        .collect();
    for name in gone {
        trailers.remove(name);
    }
}

fn named_by_connection(headers: &HeaderMap) -> SmallVec<[HeaderName; 16]> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // Framing and routing are not for a caller to strip.
        .filter(|name: &HeaderName| {
            !matches!(name.as_str(), "content-length" | "host" | "content-type" | "close")
        })
        .collect()
}

fn decoded_contains(text: &str, key: &str) -> bool {
    text.contains('%') && percent_decode_str(text).decode_utf8_lossy().contains(key)
}

#[cfg(test)]
#[path = "swap_tests.rs"]
mod tests;
