//! Finding the Proxy-Key in whatever place the caller put it.

use std::borrow::Cow;

use aiproxy_core::ErrorKind;
use aiproxy_platform::placement::{
    CALLER_HEADERS, CALLER_QUERY, CALLER_SCHEMES, CALLER_SUBPROTOCOL_PAIRS, CALLER_SUBPROTOCOL_PREFIXES,
    query_pairs,
};
use http::HeaderMap;
use percent_encoding::percent_decode_str;

/// The one key that the request presents. Borrowed from the request: it lives no longer.
///
/// # Errors
/// [`ErrorKind::MissingKey`] where there is none, [`ErrorKind::ConflictingKeys`] where there are
/// two different ones: were one of them checked and the other passed on, a caller could smuggle.
pub fn presented_key<'a>(headers: &'a HeaderMap, query: Option<&'a str>) -> Result<Cow<'a, str>, ErrorKind> {
    find(headers, query, &[])
}

/// The one key that a WebSocket handshake presents, in any of these places or as a subprotocol.
///
/// # Errors
/// As [`presented_key`].
pub fn socket_key<'a>(
    headers: &'a HeaderMap,
    query: Option<&'a str>,
    offered: &Offered<'a>,
) -> Result<Cow<'a, str>, ErrorKind> {
    find(headers, query, &offered.keys)
}

/// The one key of a WebSocket whose first message may hold it, beside the one that the handshake
/// presented, if it did.
///
/// # Errors
/// As [`presented_key`].
pub fn message_key<'a>(
    handshake: Option<&'a str>,
    found: Vec<Cow<'a, str>>,
) -> Result<Cow<'a, str>, ErrorKind> {
    let mut one = One(handshake.map(Cow::Borrowed));
    for value in found {
        one.take(match value {
            Cow::Borrowed(value) => Cow::Borrowed(without_scheme(value)),
            Cow::Owned(value) => Cow::Owned(without_scheme(&value).to_owned()),
        })?;
    }
    one.0.ok_or(ErrorKind::MissingKey)
}

/// The subprotocols that a caller offers, told apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offered<'a> {
    /// Keys that stand among them.
    pub keys: Vec<&'a str>,
    /// Those that go on to the platform.
    pub open: Vec<&'a str>,
    /// Those that say that the next one is a key: the caller may want to hear one of them.
    pub marks: Vec<&'a str>,
}

impl<'a> Offered<'a> {
    /// Tells keys from other subprotocols. Names are compared without regard to case, so that no
    /// spelling of a key's place makes it look like something to be passed on.
    #[must_use]
    pub fn of(protocols: &'a [String]) -> Self {
        let mut offered = Self::default();
        let mut protocols = protocols.iter().map(String::as_str);
        while let Some(protocol) = protocols.next() {
            let behind = CALLER_SUBPROTOCOL_PREFIXES.iter().find_map(|prefix| {
                let (begin, key) = protocol.split_at_checked(prefix.len())?;
                begin.eq_ignore_ascii_case(prefix).then_some(key)
            });
            if let Some(key) = behind {
                offered.keys.push(key);
            } else if CALLER_SUBPROTOCOL_PAIRS.iter().any(|first| first.eq_ignore_ascii_case(protocol))
                && let Some(key) = protocols.next()
            {
                offered.marks.push(protocol);
                offered.keys.push(key);
            } else {
                offered.open.push(protocol);
            }
        }
        offered
    }
}

/// The key that was found, which has to be the only one.
struct One<'a>(Option<Cow<'a, str>>);

impl<'a> One<'a> {
    fn take(&mut self, key: Cow<'a, str>) -> Result<(), ErrorKind> {
        match &self.0 {
            _ if key.is_empty() => Ok(()),
            None => {
                self.0 = Some(key);
                Ok(())
            }
            Some(other) if *other == key => Ok(()),
            Some(_) => Err(ErrorKind::ConflictingKeys),
        }
    }
}

fn find<'a>(
    headers: &'a HeaderMap,
    query: Option<&'a str>,
    others: &[&'a str],
) -> Result<Cow<'a, str>, ErrorKind> {
    let mut one = One(None);
    for name in CALLER_HEADERS {
        for value in headers.get_all(*name) {
            // A key is printable ASCII; anything else is no key that we ever gave out.
            let value = value.to_str().map_err(|_| ErrorKind::InvalidKey)?;
            one.take(Cow::Borrowed(without_scheme(value)))?;
        }
    }
    for (name, value) in query_pairs(query) {
        if CALLER_QUERY.contains(&&*name) {
            one.take(percent_decode_str(value).decode_utf8().map_err(|_| ErrorKind::InvalidKey)?)?;
        }
    }
    for key in others {
        one.take(Cow::Borrowed(key))?;
    }
    one.0.ok_or(ErrorKind::MissingKey)
}

fn without_scheme(value: &str) -> &str {
    let value = value.trim();
    match value.split_once(' ') {
        Some((scheme, key)) if CALLER_SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(scheme)) => {
            key.trim()
        }
        // `Authorization: Bearer` with nothing behind it.
        None if CALLER_SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(value)) => "",
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn the_key_is_found_in_every_place() {
        for (pairs, query) in [
            (vec![("authorization", "Bearer pk_1")], None),
            (vec![("authorization", "bearer   pk_1 ")], None),
            (vec![("authorization", "Token pk_1")], None),
            (vec![("authorization", "pk_1")], None),
            (vec![("api-key", "pk_1")], None),
            (vec![("x-api-key", "pk_1")], None),
            (vec![("x-goog-api-key", "pk_1")], None),
            (vec![("xi-api-key", "pk_1")], None),
            (vec![("x-aiproxy-key", "pk_1")], Some("model=m")),
            (vec![], Some("model=m&key=pk_1")),
            (vec![], Some("api-key=pk%5F1")),
            (vec![], Some("%61pi-key=pk_1")),
            (vec![("authorization", "Bearer pk_1"), ("x-api-key", "pk_1")], Some("key=pk_1")),
            (vec![("authorization", "Bearer"), ("x-api-key", "pk_1")], Some("key=")),
        ] {
            assert_eq!(presented_key(&headers(&pairs), query).as_deref(), Ok("pk_1"), "{pairs:?} {query:?}");
        }
    }

    #[test]
    fn none_and_two_are_refused() {
        assert_eq!(presented_key(&headers(&[]), Some("model=m")), Err(ErrorKind::MissingKey));
        for (pairs, query) in [
            (vec![("authorization", "Bearer pk_1"), ("x-api-key", "pk_2")], None),
            (vec![("authorization", "Bearer pk_1"), ("authorization", "Bearer pk_2")], None),
            (vec![("authorization", "Bearer pk_1")], Some("key=pk_2")),
            (vec![], Some("key=pk_1&key=pk_2")),
        ] {
            assert_eq!(presented_key(&headers(&pairs), query), Err(ErrorKind::ConflictingKeys), "{pairs:?}");
        }
    }

    #[test]
    fn a_message_holds_the_same_key_or_none() {
        let key = |known, found: &[&'static str]| {
            message_key(known, found.iter().map(|text| Cow::Borrowed(*text)).collect())
        };
        assert_eq!(key(None, &["pk_1"]).as_deref(), Ok("pk_1"));
        assert_eq!(key(None, &["", "Bearer pk_1"]).as_deref(), Ok("pk_1"));
        assert_eq!(key(Some("pk_1"), &[]).as_deref(), Ok("pk_1"));
        assert_eq!(key(Some("pk_1"), &["pk_1"]).as_deref(), Ok("pk_1"));
        assert_eq!(key(None, &[]), Err(ErrorKind::MissingKey));
        assert_eq!(key(None, &["pk_1", "pk_2"]), Err(ErrorKind::ConflictingKeys));
        assert_eq!(key(Some("pk_1"), &["pk_2"]), Err(ErrorKind::ConflictingKeys));
    }

    #[test]
    fn keys_are_told_from_other_subprotocols() {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        for (list, keys, open, marks) in [
            (&["realtime", "openai-insecure-api-key.pk_1"][..], &["pk_1"][..], &["realtime"][..], &[][..]),
            (&["token", "pk_1"], &["pk_1"], &[], &["token"]),
            (&["Bearer", "pk_1", "x"], &["pk_1"], &["x"], &["Bearer"]),
            (&["xai-client-secret.pk_1"], &["pk_1"], &[], &[]),
            (&["OpenAI-Insecure-API-Key.pk_1"], &["pk_1"], &[], &[]),
            (&["x", "token"], &[], &["x", "token"], &[]),
            (&[], &[], &[], &[]),
        ] {
            let list = owned(list);
            let expected = Offered { keys: keys.to_vec(), open: open.to_vec(), marks: marks.to_vec() };
            assert_eq!(Offered::of(&list), expected, "{list:?}");
        }
        let list = owned(&["realtime", "openai-insecure-api-key.pk_1"]);
        let offered = Offered::of(&list);
        assert_eq!(socket_key(&headers(&[]), None, &offered).as_deref(), Ok("pk_1"));
        for (pairs, query) in [(vec![("authorization", "Bearer pk_2")], None), (vec![], Some("key=pk_2"))] {
            let headers = headers(&pairs);
            assert_eq!(socket_key(&headers, query, &offered), Err(ErrorKind::ConflictingKeys), "{pairs:?}");
        }
    }
}
