//! The request target taken apart.

use std::borrow::Cow;

use aiproxy_core::ErrorKind;
use aiproxy_platform::{Route, classify, path};
use http::HeaderMap;

use crate::refusal::Refusal;

/// Header that names a channel, for callers that cannot change their base URL.
pub const CHANNEL_HEADER: &str = "x-aiproxy-channel";

/// What the request line and headers ask for.
#[derive(Debug, Clone)]
pub struct Target<'a> {
    /// The channel that the caller names.
    pub channel: Option<Cow<'a, str>>,
    /// The path as sent, without the `/@channel` prefix; always begins with a slash.
    pub path: &'a str,
    /// The normal form of `path`, which rules are matched against.
    pub normal: Cow<'a, str>,
    /// The row of the path table.
    pub route: &'static Route,
}

impl<'a> Target<'a> {
    /// Takes a raw path (without query) and the headers apart.
    ///
    /// # Errors
    /// [`ErrorKind::BadRequest`] for a path that two readers could understand differently, or two
    /// different channel names.
    pub fn parse(raw: &'a str, headers: &'a HeaderMap) -> Result<Self, Refusal> {
        let bad = |error: path::PathError| {
            Refusal::new(ErrorKind::BadRequest, format!("Bad request target: {error}."))
        };
        // The whole path is checked before it is split, so that a prefix cannot hide anything.
        let normal = path::normalize(raw).map_err(bad)?;
        let (channel, path) = match raw.strip_prefix("/@") {
            Some(rest) => {
                let end = rest.find('/').unwrap_or(rest.len());
                let (name, path) = rest.split_at(end);
                let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
                (Some(name), if path.is_empty() { "/" } else { path })
            }
            None => (None, raw),
        };
        let normal = if channel.is_some() { path::normalize(path).map_err(bad)? } else { normal };
        let named = match headers.get(CHANNEL_HEADER) {
            Some(value) => Some(std::str::from_utf8(value.as_bytes()).map_err(|_| {
                Refusal::new(ErrorKind::BadRequest, "The header x-aiproxy-channel is not UTF-8.")
            })?),
            None => None,
        };
        let channel = match (channel, named) {
            (Some(prefix), Some(header)) if prefix != header => {
                return Err(Refusal::new(
                    ErrorKind::BadRequest,
                    "The path and the header x-aiproxy-channel name different channels.",
                ));
            }
            (Some(prefix), _) => Some(prefix),
            (None, header) => header.map(Cow::Borrowed),
        };
        let route = classify(&normal, |name| headers.contains_key(name));
        Ok(Self { channel, path, normal, route })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aiproxy_platform::Family;

    #[test]
    fn a_channel_may_be_named_by_prefix_or_header() {
        let empty = HeaderMap::new();
        let mut named = HeaderMap::new();
        named.insert(CHANNEL_HEADER, "openai".parse().unwrap());
        for (raw, headers, channel, path) in [
            ("/v1/models", &empty, None, "/v1/models"),
            ("/@openai/v1/models", &empty, Some("openai"), "/v1/models"),
            ("/@openai", &empty, Some("openai"), "/"),
            ("/@%E9%98%BF%E9%87%8C/v1/models", &empty, Some("阿里"), "/v1/models"),
            ("/v1/models", &named, Some("openai"), "/v1/models"),
            ("/@openai/V1/Models", &named, Some("openai"), "/V1/Models"),
        ] {
            let target = Target::parse(raw, headers).unwrap();
            assert_eq!(target.channel.as_deref(), channel, "{raw}");
            assert_eq!(target.path, path, "{raw}");
        }
        assert_eq!(Target::parse("/@x/V1/Models", &empty).unwrap().normal, "/v1/models");
        assert_eq!(Target::parse("/@x/v1/models", &empty).unwrap().route.family, Family::OpenAi);
    }

    #[test]
    fn tricks_are_refused() {
        let mut named = HeaderMap::new();
        named.insert(CHANNEL_HEADER, "openai".parse().unwrap());
        for raw in ["/@aliyun/v1", "/@openai//v1", "/@openai/../v1", "/@../v1/models/..", "http://x/"] {
            let refusal = Target::parse(raw, &named).unwrap_err();
            assert_eq!(refusal.kind, ErrorKind::BadRequest, "{raw}");
        }
    }
}
