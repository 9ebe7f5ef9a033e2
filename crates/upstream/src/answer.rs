//! The answer's head, cleaned for the caller.

use aiproxy_config::model::Channel;
use http::header::{CONNECTION, CONTENT_LENGTH, LOCATION, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;
use url::Url;

use crate::swap::{UNRESERVED, holds};

/// Headers that end at this hop, or speak of the platform's own host, which is not where the
/// caller is: cookies, transport pins, alternative services, reporting and cross-origin rules.
const DROPPED: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "transfer-encoding",
    "upgrade",
    "te",
    "alt-svc",
    "set-cookie",
    "strict-transport-security",
    "nel",
    "report-to",
    "reporting-endpoints",
    "www-authenticate",
    "clear-site-data",
];

/// Headers whose value is a URL that the client will follow.
const URLS: &[&str] = &[
    "location",
    "operation-location",
    "azure-asyncoperation",
    "content-location",
    "x-goog-upload-url",
    "x-goog-upload-control-url",
];

/// How the caller reaches us, for URLs that have to come back through us.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The `Host` that the caller used.
    pub authority: &'a str,
    /// The path that the platform was asked for; relative URLs start from it.
    pub asked: &'a str,
}

/// Removes what must not reach the caller and rewrites URLs. `query_names` are the parameters in
/// which the channel's key travels.
pub fn clean(headers: &mut HeaderMap, channel: &Channel, query_names: &[String], way: Way<'_>) {
    let mut gone: SmallVec<[HeaderName; 16]> = SmallVec::new();
    if headers.contains_key(TRANSFER_ENCODING) {
        // Chunks said how long the body is; a length beside them is a lie or a trick.
        gone.push(CONTENT_LENGTH);
    }
    let mut urls: SmallVec<[HeaderName; 2]> = SmallVec::new();
    for value in headers.get_all(CONNECTION) {
        let names = value.to_str().unwrap_or_default().split(',');
        gone.extend(
            names.filter_map(|name| name.trim().parse::<HeaderName>().ok()).filter(|name| name != "close"),
        );
    }
    let key = channel.api_key.expose();
    for (name, value) in &*headers {
        let text = name.as_str();
        let account = channel.platform.account_response_headers.contains(&text) || text == "set-cookie";
        if URLS.contains(&text) {
            urls.push(name.clone());
        } else if ((DROPPED.contains(&text) || account) && !channel.pass_headers.contains(name))
            || text.starts_with("access-control-")
            || text.starts_with("x-aiproxy-")
            || holds(value, key)
        {
            gone.push(name.clone());
        }
    }
    for name in gone {
        headers.remove(name);
    }
    for name in urls {
        let rewritten = headers
            .get(&name)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| through_us(value, channel, query_names, way, name == LOCATION))
            .and_then(|value| HeaderValue::from_str(&value).ok());
        match rewritten {
            Some(value) => headers.insert(name, value),
            None => headers.remove(name),
        };
    }
}

/// Takes out of an answer's trailers what would be taken out of its headers.
pub fn scrub_trailers(trailers: &mut HeaderMap, channel: &Channel) {
    let key = channel.api_key.expose();
    let gone: SmallVec<[HeaderName; 4]> = trailers
        .iter()
        .filter(|(name, value)| {
            let text = name.as_str();
            let account = channel.platform.account_response_headers.contains(&text);
            ((DROPPED.contains(&text) || account) && !channel.pass_headers.contains(name))
                || URLS.contains(&text)
                || holds(value, key)
        })
        .map(|(name, _)| name.clone())
        .collect();
    for name in gone {
        trailers.remove(name);
    }
}

/// The URL as the caller may follow it: under `/@channel` on our own host. `None` where it leads
/// to another host: following it would leave AIProxy, and it may carry a signature that is as
/// good as a key.
fn through_us(
    value: &str,
    channel: &Channel,
    query_names: &[String],
    way: Way<'_>,
    relative: bool,
) -> Option<String> {
    let base = Url::parse(&format!(
        "{}://{}{}/",
        if channel.base.tls { "https" } else { "http" },
        channel.base.authority,
        channel.base.path
    ))
    .ok()?;
    let url = base.join(way.asked).ok()?.join(value).ok()?;
    if url.origin() != base.origin() {
        return None;
    }
    let path = url.path().strip_prefix(&*channel.base.path)?;
    if !path.starts_with('/') {
        return None;
    }
    let key = channel.api_key.expose();
    let query: Vec<&str> = url
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .filter(|pair| {
            let name = aiproxy_platform::placement::query_pairs(Some(pair)).next().map(|(name, _)| name);
            !name.is_some_and(|name| query_names.iter().any(|own| *own == name))
        })
        .collect();
    let mut out = String::new();
    if !relative && !way.authority.is_empty() {
        out = format!("{}://{}", way.scheme, way.authority);
    }
    out.push_str("/@");
    out.extend(percent_encoding::utf8_percent_encode(&channel.id, UNRESERVED));
    out.push_str(path);
    if !query.is_empty() {
        out.push('?');
        out.push_str(&query.join("&"));
    }
    let plain = percent_encoding::percent_decode_str(&out).decode_utf8_lossy().contains(key);
    (!plain).then_some(out)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
