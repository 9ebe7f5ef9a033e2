//! Heads of messages: field sections with everything that HTTP/3 asks of them (RFC 9114, section 4.2
//! and following).
//!
//! What is not allowed is refused here, whole: nobody behind this has to think of it again.

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http::{request, response, uri};

use crate::qpack::{self, Field, Line, Lines, Undecodable};

/// Why there is no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// It is larger than allowed.
    TooLarge,
    /// It is not what HTTP/3 allows.
    Malformed(&'static str),
    /// It cannot be decoded: the connection is over.
    Qpack,
}

impl From<Undecodable> for HeadError {
    fn from(_: Undecodable) -> Self {
        Self::Qpack
    }
}

/// Bounds of the field sections that come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes, counted as RFC 9114, section 4.2.2, does: 32 for each field besides its name and value.
    pub bytes: usize,
    /// Fields.
    pub fields: usize,
}

/// What belongs to a connection of HTTP/1.1, and is no part of a message here.
const OF_CONNECTIONS: [&str; 5] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// A pseudo-header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pseudo {
    Method,
    Scheme,
    Authority,
    Path,
    Status,
}

const PSEUDO: [(&str, Pseudo); 5] = [
    (":method", Pseudo::Method),
    (":scheme", Pseudo::Scheme),
    (":authority", Pseudo::Authority),
    (":path", Pseudo::Path),
    (":status", Pseudo::Status),
];

/// A field section, taken apart.
#[derive(Debug, Default)]
struct Section {
    pseudo: [Option<Bytes>; 5],
    headers: HeaderMap,
    /// What came of them so far, and whether a part of it is sensitive.
    cookies: Option<(BytesMut, bool)>,
}

impl Section {
    fn read(block: Bytes, limits: HeadLimits) -> Result<Self, HeadError> {
        let mut lines = Lines::of(block)?;
        let mut section = Self::default();
        let (mut bytes, mut fields) = (0, 0);
        while let Some(Line { field, sensitive }) = lines.next()? {
            bytes += field.size();
            fields += 1;
            if bytes > limits.bytes || fields > limits.fields {
                return Err(HeadError::TooLarge);
            }
            match field {
                Field::Known(name, value) => section.header(name, value)?,
                Field::Named(name, value) => section.header(name, readable(value, sensitive)?)?,
                Field::Pseudo(name, value) => section.pseudo(name.as_bytes(), value)?,
                Field::Literal(name, value) if name.first() == Some(&b':') => section.pseudo(&name, value)?,
                Field::Literal(name, value) => section.header(named(&name)?, readable(value, sensitive)?)?,
            }
        }
        if let Some((cookies, sensitive)) = section.cookies.take() {
            section.append(COOKIE, readable(cookies.freeze(), sensitive)?)?;
        }
        Ok(section)
    }

    fn pseudo(&mut self, name: &[u8], value: Bytes) -> Result<(), HeadError> {
        let known = PSEUDO.iter().position(|(known, _)| known.as_bytes() == name);
        let place = known.ok_or(HeadError::Malformed("a pseudo-header that is not known"))?;
        if !self.headers.is_empty() || self.cookies.is_some() {
            return Err(HeadError::Malformed("a pseudo-header behind a field"));
        }
        if self.pseudo[place].replace(value).is_some() {
            return Err(HeadError::Malformed("a pseudo-header twice"));
        }
        Ok(())
    }

    fn header(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), HeadError> {
        if OF_CONNECTIONS.contains(&name.as_str()) {
            return Err(HeadError::Malformed("a field that belongs to a connection"));
        }
        if name == TE && !value.as_bytes().eq_ignore_ascii_case(b"trailers") {
            return Err(HeadError::Malformed("`te` is `trailers` or nothing"));
        }
        if name == COOKIE {
            // They may come in pieces (section 4.2.1).
            match &mut self.cookies {
                Some((cookies, sensitive)) => {
                    cookies.extend_from_slice(b"; ");
                    cookies.extend_from_slice(value.as_bytes());
                    *sensitive |= value.is_sensitive();
                }
                none => *none = Some((BytesMut::from(value.as_bytes()), value.is_sensitive())),
            }
            return Ok(());
        }
        if name == CONTENT_LENGTH {
            let digits = !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit);
            let before = self.headers.get(CONTENT_LENGTH);
            if !digits || value.len() > 19 || before.is_some_and(|before| before != value) {
                return Err(HeadError::Malformed("`content-length`"));
            }
            if before.is_some() {
                return Ok(());
            }
        }
        self.append(name, value)
    }

    /// A map has a bound of its own, whatever the limits are.
    fn append(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), HeadError> {
        self.headers.try_append(name, value).map(drop).map_err(|_| HeadError::TooLarge)
    }

    fn take(&mut self, pseudo: Pseudo) -> Option<Bytes> {
        PSEUDO.iter().zip(&mut self.pseudo).find(|((_, it), _)| *it == pseudo).and_then(|(_, it)| it.take())
    }

    /// The headers, once all pseudo-headers have been taken.
    fn rest(self) -> Result<HeaderMap, HeadError> {
        match self.pseudo.iter().all(Option::is_none) {
            true => Ok(self.headers),
            false => Err(HeadError::Malformed("a pseudo-header that does not belong here")),
        }
    }
}

/// A field's name. `http` takes a quotation mark in it; HTTP does not (RFC 9110, section 5.6.2).
fn named(name: &[u8]) -> Result<HeaderName, HeadError> {
    let bad = HeadError::Malformed("the name of a field");
    if name.contains(&b'"') { Err(bad) } else { HeaderName::from_lowercase(name).map_err(|_| bad) }
}

/// A field's value. Space around it is no part of it, and not allowed either.
fn readable(value: Bytes, sensitive: bool) -> Result<HeaderValue, HeadError> {
    let around = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if around(value.first()) || around(value.last()) {
        return Err(HeadError::Malformed("space around a value"));
    }
    let mut value =
        HeaderValue::from_maybe_shared(value).map_err(|_| HeadError::Malformed("the value of a field"))?;
    value.set_sensitive(sensitive);
    Ok(value)
}

/// A request's head. Its target is the whole of `:scheme`, `:authority` and `:path`.
pub(crate) fn request(block: Bytes, limits: HeadLimits) -> Result<request::Parts, HeadError> {
    let mut section = Section::read(block, limits)?;
    let method = section.take(Pseudo::Method).ok_or(HeadError::Malformed("`:method` is missing"))?;
    let method = Method::from_bytes(&method).map_err(|_| HeadError::Malformed("`:method`"))?;
    let scheme = section.take(Pseudo::Scheme);
    let path = section.take(Pseudo::Path);
    let authority = section.take(Pseudo::Authority).map(authority).transpose()?;
    let connects = method == Method::CONNECT;
    if connects != (scheme.is_none() && path.is_none()) || (connects && authority.is_none()) {
        return Err(HeadError::Malformed("pseudo-headers are missing, or too many"));
    }
    let headers = section.rest()?;
    let mut parts = uri::Parts::default();
    if !connects {
        let scheme = scheme.ok_or(HeadError::Malformed("`:scheme` is missing"))?;
        parts.scheme = Some(match &*scheme {
            b"https" => Scheme::HTTPS,
            b"http" => Scheme::HTTP,
            _ => return Err(HeadError::Malformed("`:scheme`")),
        });
        parts.path_and_query =
            Some(target(path.ok_or(HeadError::Malformed("`:path` is missing"))?, &method)?);
    }
    let host = one_host(&headers, authority.as_ref())?;
    parts.authority = authority.or(host);
    let (mut head, ()) = Request::new(()).into_parts();
    head.uri = Uri::from_parts(parts).map_err(|_| HeadError::Malformed("`:path`"))?;
    head.method = method;
    head.version = Version::HTTP_3;
    head.headers = headers;
    Ok(head)
}

fn authority(text: Bytes) -> Result<Authority, HeadError> {
    let bad = HeadError::Malformed("`:authority`");
    if text.contains(&b'@') {
        return Err(bad);
    }
    let authority = Authority::from_maybe_shared(text).map_err(|_| bad)?;
    if authority.host().is_empty() { Err(bad) } else { Ok(authority) }
}

fn target(path: Bytes, method: &Method) -> Result<PathAndQuery, HeadError> {
    let bad = HeadError::Malformed("`:path`");
    let whole = path.first() == Some(&b'/') || (&*path == b"*" && method == Method::OPTIONS);
    if !whole || path.contains(&b'#') {
        return Err(bad);
    }
    PathAndQuery::from_maybe_shared(path).map_err(|_| bad)
}

/// What `host` names, where nothing else does. There is one host, whoever names it.
fn one_host(headers: &HeaderMap, authority: Option<&Authority>) -> Result<Option<Authority>, HeadError> {
    let bad = HeadError::Malformed("two hosts, or none");
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(bad);
    }
    match (host, authority) {
        (None, None) => Err(bad),
        (None, Some(_)) => Ok(None),
        (Some(host), Some(named)) => {
            let same = host.as_bytes().eq_ignore_ascii_case(named.as_str().as_bytes());
            if same { Ok(None) } else { Err(bad) }
        }
        (Some(host), None) => self::authority(Bytes::copy_from_slice(host.as_bytes())).map(Some),
    }
}

/// An answer's head.
pub(crate) fn response(block: Bytes, limits: HeadLimits) -> Result<response::Parts, HeadError> {
    let mut section = Section::read(block, limits)?;
    let status = section.take(Pseudo::Status).ok_or(HeadError::Malformed("`:status` is missing"))?;
    let status = StatusCode::from_bytes(&status).map_err(|_| HeadError::Malformed("`:status`"))?;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(HeadError::Malformed("nothing can be switched to"));
    }
    let headers = section.rest()?;
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = status;
    head.version = Version::HTTP_3;
    head.headers = headers;
    Ok(head)
}

/// Trailers.
pub(crate) fn trailers(block: Bytes, limits: HeadLimits) -> Result<HeaderMap, HeadError> {
    Section::read(block, limits)?.rest()
}

/// Encodes a request's head. `host` is left to `:authority`.
pub(crate) fn encode_request(method: &Method, uri: &Uri, headers: &HeaderMap, out: &mut BytesMut) {
    qpack::begin(out);
    qpack::line(":method", method.as_str().as_bytes(), false, out);
    if let Some(authority) = uri.authority() {
        qpack::line(":authority", authority.as_str().as_bytes(), false, out);
    }
    if method != Method::CONNECT {
        qpack::line(":scheme", uri.scheme_str().unwrap_or("https").as_bytes(), false, out);
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        qpack::line(":path", path.as_bytes(), false, out);
    }
    let named = uri.authority().is_some();
    encode(headers, |name| name == HOST && named, out);
}

/// Encodes an answer's head.
pub(crate) fn encode_response(status: StatusCode, headers: &HeaderMap, out: &mut BytesMut) {
    qpack::begin(out);
    qpack::line(":status", status.as_str().as_bytes(), false, out);
    encode(headers, |_| false, out);
}

/// Encodes trailers.
pub(crate) fn encode_trailers(trailers: &HeaderMap, out: &mut BytesMut) {
    qpack::begin(out);
    encode(trailers, |_| false, out);
}

/// Without what belongs to a connection of HTTP/1.1.
fn encode(headers: &HeaderMap, skip: impl Fn(&HeaderName) -> bool, out: &mut BytesMut) {
    let names = headers.contains_key(CONNECTION);
    for (name, value) in headers {
        let text = name.as_str();
        let named = || names && names_it(headers, text);
        let te = name == TE && !value.as_bytes().eq_ignore_ascii_case(b"trailers");
        if skip(name) || OF_CONNECTIONS.contains(&text) || te || named() {
            continue;
        }
        // Space around a value may have come from elsewhere; here it would make the message malformed.
        let trimmed = value.as_bytes().trim_ascii();
        qpack::line(text, trimmed, value.is_sensitive() || is_secret(text), out);
    }
}

/// Whether `connection` says that the field is its own.
fn names_it(headers: &HeaderMap, name: &str) -> bool {
    headers.get_all(CONNECTION).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|it| it.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
    })
}

/// Fields whose values nobody on the way may keep in a table.
fn is_secret(name: &str) -> bool {
    matches!(
        name,
        "authorization"
            | "proxy-authorization"
            | "cookie"
            | "set-cookie"
            | "x-api-key"
            | "api-key"
            | "x-goog-api-key"
            | "xi-api-key"
    )
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
