//! Where a key sits in a request: data, not code per platform.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::pointer::Pointer;

/// One place for a key. Callers and channels have separate lists of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// A header, with an authentication scheme before the key (`Bearer`) or without.
    Header {
        /// Header name in lower case.
        name: Cow<'static, str>,
        /// Scheme written before the key, compared without regard to case.
        scheme: Option<Cow<'static, str>>,
    },
    /// A query parameter.
    Query {
        /// Parameter name, compared exactly.
        name: Cow<'static, str>,
    },
    /// A WebSocket subprotocol that ends in the key.
    SubprotocolPrefix {
        /// What stands before the key.
        prefix: Cow<'static, str>,
    },
    /// Two WebSocket subprotocols in a row, the second being the key.
    SubprotocolPair {
        /// The first of the two.
        first: Cow<'static, str>,
    },
    /// A member of the first WebSocket message, which is a JSON object.
    FirstMessage {
        /// Where it stands.
        pointer: Pointer,
    },
}

impl Placement {
    /// Whether it exists on WebSockets only.
    #[must_use]
    pub const fn is_socket_only(&self) -> bool {
        matches!(
            self,
            Self::SubprotocolPrefix { .. } | Self::SubprotocolPair { .. } | Self::FirstMessage { .. }
        )
    }

    /// `Authorization: Bearer <key>`.
    pub const BEARER: Self = Self::scheme("authorization", "Bearer");

    /// A header that holds `scheme key`.
    #[must_use]
    pub const fn scheme(name: &'static str, scheme: &'static str) -> Self {
        Self::Header { name: Cow::Borrowed(name), scheme: Some(Cow::Borrowed(scheme)) }
    }

    /// A header that holds the bare key.
    #[must_use]
    pub const fn header(name: &'static str) -> Self {
        Self::Header { name: Cow::Borrowed(name), scheme: None }
    }

    /// A query parameter.
    #[must_use]
    pub const fn query(name: &'static str) -> Self {
        Self::Query { name: Cow::Borrowed(name) }
    }

    /// A subprotocol that ends in the key.
    #[must_use]
    pub const fn subprotocol(prefix: &'static str) -> Self {
        Self::SubprotocolPrefix { prefix: Cow::Borrowed(prefix) }
    }

    /// A pair of subprotocols.
    #[must_use]
    pub const fn pair(first: &'static str) -> Self {
        Self::SubprotocolPair { first: Cow::Borrowed(first) }
    }
}

/// Headers in which a caller may present its Proxy-Key over HTTP. All are looked at in every
/// request, so that no second key slips through to a platform. A value may have a scheme before
/// the key; [`CALLER_SCHEMES`] says which.
pub const CALLER_HEADERS: &[&str] = &[
    "authorization",
    "api-key",
    "x-api-key",
    "x-goog-api-key",
    "xi-api-key",
    "x-api-access-key",
    "x-aiproxy-key",
];

/// Schemes that may stand before a Proxy-Key in `Authorization`.
pub const CALLER_SCHEMES: &[&str] = &["bearer", "token", "key"];

/// Query parameters in which a caller may present its Proxy-Key.
pub const CALLER_QUERY: &[&str] = &["key", "api-key", "api_key", "access_token", "token"];

/// Subprotocols that end in a Proxy-Key.
pub const CALLER_SUBPROTOCOL_PREFIXES: &[&str] = &["openai-insecure-api-key.", "xai-client-secret."];

/// Subprotocols behind which a Proxy-Key stands as the next one.
pub const CALLER_SUBPROTOCOL_PAIRS: &[&str] = &["token", "bearer"];

/// `name=value` pairs of a raw query, names decoded, values as they are, in order.
pub fn query_pairs(query: Option<&str>) -> impl Iterator<Item = (Cow<'_, str>, &str)> {
    query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode_str(name).decode_utf8_lossy(), value)
    })
}
