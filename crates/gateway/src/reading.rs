//! What a request says before it is planned: method, length, model, and what is left when it is
//! refused.

use std::time::Duration;

use aiproxy_config::model::{Limits, User};
use aiproxy_core::ErrorKind;
use aiproxy_platform::placement::query_pairs;
use aiproxy_platform::{Family, path, routes};
use aiproxy_routing::model::Scan;
use aiproxy_routing::objects::Claim;
use aiproxy_routing::{Plan, Refusal, Target, admit, client_ip};
use aiproxy_upstream::Incoming;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HOST, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Uri, Version, request};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use ipnet::IpNet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::metering::Asked;
use crate::peek::{self, Peeked, Wanted};
use crate::phases::Via;
use crate::record::Record;

/// How much of a refused request's body is read and thrown away. Many clients send the whole body
/// before they read an answer; closing earlier would reset the connection and lose the refusal.
const DRAIN_BYTES: usize = 64 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// What a relay never takes.
pub(crate) fn check_method(head: &request::Parts) -> Result<(), Refusal> {
    if head.uri.authority().is_some() || head.uri.path() == "*" {
        return Err(Refusal::new(
            ErrorKind::BadRequest,
            "The request target must be a path: AIProxy is no forward proxy. Set it as your SDK's base URL instead.",
        ));
    }
    if head.method == Method::CONNECT || head.method == Method::TRACE {
        return Err(ErrorKind::MethodNotAllowed.into());
    }
    Ok(())
}

/// Whether method, target and host come in fields of their own, on streams of a connection.
pub(crate) fn has_pseudo_headers(version: Version) -> bool {
    matches!(version, Version::HTTP_2 | Version::HTTP_3)
}

/// Bounds the head: the request line and the fields as HTTP/1.1 writes them. HTTP/2 and HTTP/3 have
/// bounds of their own on bytes, and HTTP/2 has none on the number of fields.
pub(crate) fn check_head(head: &request::Parts, limits: &Limits) -> Result<(), ErrorKind> {
    let headers = &head.headers;
    let too_large = if has_pseudo_headers(head.version) {
        headers.len() > limits.headers
    } else {
        let uri = &head.uri;
        let target = uri.path_and_query().map_or(0, |target| target.as_str().len())
            + uri.authority().map_or(0, |authority| authority.as_str().len())
            + uri.scheme_str().map_or(0, |scheme| scheme.len() + "://".len());
        let line = head.method.as_str().len() + target + "  HTTP/1.1\r\n".len();
        let fields = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
        line + fields.sum::<usize>() + "\r\n".len() > limits.header_bytes
    };
    if too_large { Err(ErrorKind::HeadersTooLarge) } else { Ok(()) }
}

/// Brings what HTTP/2 and HTTP/3 say in pseudo-headers into the places where HTTP/1.1 has it, and refuses
/// requests for two hosts.
pub(crate) fn one_host(head: &mut request::Parts) -> Result<(), Refusal> {
    let two = || Refusal::new(ErrorKind::BadRequest, "The request names two hosts.");
    if head.headers.get_all(HOST).iter().nth(1).is_some() {
        return Err(two());
    }
    if !has_pseudo_headers(head.version) || head.method == Method::CONNECT {
        return Ok(());
    }
    let uri = std::mem::take(&mut head.uri).into_parts();
    if let Some(authority) = uri.authority {
        if authority.as_str().contains('@') {
            return Err(Refusal::new(ErrorKind::BadRequest, "The host has a user before it."));
        }
        let host = head.headers.get(HOST);
        if host.is_some_and(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())) {
            return Err(two());
        }
        let unclear = |_| Refusal::new(ErrorKind::BadRequest, "The host cannot be read.");
        head.headers.insert(HOST, HeaderValue::from_str(authority.as_str()).map_err(unclear)?);
    }
    head.uri = uri.path_and_query.map(Uri::from).unwrap_or_default();
    Ok(())
}

/// How the caller reaches us: a trusted proxy in front may have ended TLS.
pub(crate) fn caller_scheme(via: Via, headers: &HeaderMap, trusted: &[IpNet]) -> &'static str {
    let forwarded =
        headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
    if via.tls || (forwarded && client_ip::within(trusted, via.peer.ip())) { "https" } else { "http" }
}

/// A body that is announced as too large is refused before it is sent.
pub(crate) fn check_length(headers: &HeaderMap, bound: u64) -> Result<(), ErrorKind> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > bound) { Err(ErrorKind::BodyTooLarge) } else { Ok(()) }
}

/// An upgrade that would be needed is refused; one that a server may ignore (`h2c`) is ignored.
pub(crate) fn refuse_socket(headers: &HeaderMap) -> Result<(), ErrorKind> {
    let wanted =
        headers.get_all(UPGRADE).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if wanted { Err(ErrorKind::UpgradeUnsupported) } else { Ok(()) }
}

/// Reads the beginning of the body where it may name a model, refer to objects or ask for a stream.
pub(crate) async fn read_ahead(
    head: &request::Parts,
    body: &mut Option<Incoming>,
    limits: &Limits,
    (plan, claim): (&Plan, &Claim),
    asked: &Asked,
    record: &mut Record,
) -> Result<Peeked, Refusal> {
    let mut scan = Scan::of(&head.headers);
    if claim.body_refers {
        scan.watch_references();
    }
    if body.as_ref().is_none_or(http_body::Body::is_end_stream) || matches!(scan, Scan::Opaque(_)) {
        return Ok(Peeked::unread(body.take(), scan, limits));
    }
    let patience = plan.candidates.first().map_or(limits.keep_alive, |first| first.channel.timeouts.idle);
    peek::peek(body, Wanted { scan, asked }, limits, patience, record).await
}

/// Gives up on a caller whose request should be over by now.
pub(crate) async fn within<T>(
    end: Option<Instant>,
    reading: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    match end {
        Some(end) => timeout_at(end, reading).await.map_err(|_| ErrorKind::RequestTimeout)?,
        None => reading.await,
    }
}

/// What is read as a whole.
#[derive(Clone, Copy)]
pub(crate) struct Whole {
    /// Bytes, at most.
    pub(crate) most: usize,
    /// What it is, in the sentence for one that is larger.
    pub(crate) what: &'static str,
    /// What to send in place of something compressed.
    pub(crate) plain: &'static str,
}

/// Reads a body that has to be had as a whole. What is left of one that is too large stays where it is.
///
/// # Errors
/// [`ErrorKind::BadRequest`], [`ErrorKind::BodyTooLarge`], [`ErrorKind::RequestTimeout`].
pub(crate) async fn whole(
    body: &mut Option<Incoming>,
    headers: &HeaderMap,
    limits: &Limits,
    Whole { most, what, plain }: Whole,
) -> Result<Bytes, Refusal> {
    let encoded = |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().any(encoded) {
        return Err(Refusal::new(ErrorKind::BadRequest, format!("The body is compressed. {plain}")));
    }
    let Some(incoming) = body else { return Ok(Bytes::new()) };
    let reading = Limited::new(incoming, most).collect();
    let read = timeout(limits.header_timeout, reading).await.map_err(|_| ErrorKind::RequestTimeout)?;
    let read = read.map_err(|error| match error.is::<LengthLimitError>() {
        true => Refusal::new(
            ErrorKind::BodyTooLarge,
            format!("The body is larger than the {most} bytes that {what} may have."),
        ),
        false => Refusal::new(ErrorKind::BadRequest, "The request body is malformed."),
    })?;
    *body = None;
    Ok(read.to_bytes())
}

/// The query with one more parameter, which is encoded.
pub(crate) fn with_parameter(query: Option<&str>, more: &str) -> String {
    match query.filter(|query| !query.is_empty()) {
        Some(query) => format!("{query}&{more}"),
        None => more.to_owned(),
    }
}

/// The models that a query names.
pub(crate) fn models_in_query(query: Option<&str>) -> Vec<String> {
    query_pairs(query)
        // Azure's preview calls it by the name of the deployment.
        .filter(|(name, _)| {
            ["model", "model_id", "modelid", "deployment"]
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known))
        })
        .map(|(_, value)| {
            percent_encoding::percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned()
        })
        .collect()
}

/// The model that the path, the query or the body names, checked against what the user may use.
pub(crate) fn model_of(
    head: &request::Parts,
    target: &Target<'_>,
    plan: &Plan,
    peeked: &Peeked,
    user: &User,
) -> Result<Option<String>, Refusal> {
    let in_query = models_in_query(head.uri.query());
    let in_path = routes::model_in_path(target.path);
    // What a channel will be asked for may name another.
    let moved =
        || plan.candidates.iter().map(|candidate| &*candidate.path).filter(|path| *path != target.path);
    let rewritten: Vec<String> = moved().filter_map(routes::model_in_path).collect();
    let limited = !user.models.is_none();
    let in_body = match peeked.model() {
        Ok(model) => model.map(str::to_owned),
        Err(reason) if limited && in_path.is_none() => {
            return Err(Refusal::new(
                ErrorKind::ModelNotAllowed,
                format!(
                    "This Proxy-Key is limited to certain models, and the model cannot be read: {reason}."
                ),
            ));
        }
        Err(_) => None,
    };
    // Wherever a name stands, it has to be allowed: which one the platform obeys is its business.
    for name in in_path.iter().chain(&rewritten).chain(&in_query).chain(&in_body) {
        admit::model(user, Some(name), false)?;
    }
    let runs = |path: &str| path::normalize(path).is_ok_and(|normal| routes::runs_a_model(&normal));
    let required =
        limited && head.method == Method::POST && (routes::runs_a_model(&target.normal) || moved().any(runs));
    let in_path = in_path.or_else(|| rewritten.into_iter().next());
    // A model in the query counts where platforms take it from there; elsewhere it may hide that the
    // body names another.
    let taken_from_query = target.route.family == Family::Deepgram || !peeked.has_body();
    let binding = in_path.as_ref().or(in_body.as_ref()).or(in_query.first().filter(|_| taken_from_query));
    admit::model(user, binding.map(String::as_str), required)?;
    Ok(in_path.or(in_body).or(in_query.into_iter().next()))
}

/// Reads what is left of a refused request's body, within bounds.
pub(crate) async fn drain(mut body: Incoming) {
    let reading = async {
        let mut bytes = 0;
        while bytes < DRAIN_BYTES {
            let Some(Ok(frame)) = body.frame().await else { break };
            bytes += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIME, reading).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: Version, uri: &str, host: Option<&str>) -> request::Parts {
        let mut request = http::Request::get(uri).version(version);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_host_of_a_pseudo_header_is_the_host() {
        for version in [Version::HTTP_2, Version::HTTP_3] {
            let mut asked = head(version, "https://Relay.example/v1/models?a=b", Some("relay.example"));
            one_host(&mut asked).unwrap();
            assert_eq!(asked.uri, "/v1/models?a=b");
            assert_eq!(asked.headers[HOST], "Relay.example");
            for (uri, host) in
                [("https://relay.example/", Some("other.example")), ("https://user@relay.example/", None)]
            {
                assert!(one_host(&mut head(version, uri, host)).is_err(), "{version:?} {uri} {host:?}");
            }
        }
    }

    #[test]
    fn an_absolute_target_stays_one_over_http1() {
        let mut asked = head(Version::HTTP_11, "https://relay.example/v1/models", None);
        one_host(&mut asked).unwrap();
        assert_eq!(asked.uri, "https://relay.example/v1/models", "what a proxy is asked for is refused");
    }
}
