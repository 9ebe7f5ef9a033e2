//! What an answer of a platform says about a channel, and what to do then.

use aiproxy_config::model::Channel;
use aiproxy_platform::faults::{ERROR_CODES, ERROR_MESSAGES, ErrorFacts};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// What a test came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ProbeVerdict)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// The platform takes the key.
    Ok,
    /// The platform does not take the key.
    KeyRejected,
    /// The platform takes the key, and something is wrong with the account: its balance, its quota.
    Account,
    /// The platform answered something else than it should.
    HttpError,
    /// Nobody answers there.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// TLS failed.
    Tls,
    /// The host's name has no address.
    Dns,
    /// The egress proxy does not let us through.
    Proxy,
}

/// Judges an answer.
pub(crate) fn of(channel: &Channel, status: StatusCode, body: &[u8]) -> Verdict {
    if status.is_success() {
        return Verdict::Ok;
    }
    if status == StatusCode::UNAUTHORIZED {
        return Verdict::KeyRejected;
    }
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let texts = |pointers: &[&str]| -> Vec<String> {
        pointers.iter().filter_map(|pointer| value.pointer(pointer)?.as_str().map(str::to_owned)).collect()
    };
    let (codes, messages) = (texts(ERROR_CODES), texts(ERROR_MESSAGES));
    let codes: Vec<&str> = codes.iter().map(String::as_str).collect();
    let facts = ErrorFacts { codes: &codes, message: messages.first().map_or("", String::as_str) };
    if channel.platform.account_faults.iter().any(|row| row.covers(status.as_u16(), &facts)) {
        let about_key =
            codes.iter().any(|code| code.to_ascii_lowercase().replace('_', "").contains("apikey"));
        return if about_key { Verdict::KeyRejected } else { Verdict::Account };
    }
    match status {
        StatusCode::FORBIDDEN => Verdict::KeyRejected,
        StatusCode::PAYMENT_REQUIRED | StatusCode::TOO_MANY_REQUESTS => Verdict::Account,
        _ => Verdict::HttpError,
    }
}

/// What to do.
pub(crate) fn advice(verdict: Verdict, status: Option<u16>) -> String {
    let text = match (verdict, status) {
        (Verdict::Ok, _) => "The platform takes the channel's key.",
        (Verdict::KeyRejected, _) => {
            "The platform does not take the channel's key. Check `api_key` for missing characters, that it is a key of \
             this platform and region, and that it was not revoked in the platform's console."
        }
        (Verdict::Account, Some(429)) => {
            "The platform takes the key and limits the account: look at its quota, rate limits and balance in the \
             platform's console."
        }
        (Verdict::Account, _) => {
            "The platform takes the key and refuses the account: look at its balance and status in the platform's console."
        }
        (Verdict::HttpError, Some(404 | 405)) => {
            "Somebody answers there, and knows no such path. Check `base_url` (host and path) and `platform`; a `health` \
             path of the channel's own is asked for instead of the list of models."
        }
        (Verdict::HttpError, Some(300..400)) => "The address moved. Put where it leads to into `base_url`.",
        (Verdict::HttpError, Some(500..)) => {
            "The platform has a fault of its own. Try again later; its status page may say more."
        }
        (Verdict::HttpError, _) => {
            "What came back is not what the platform should say. Check `base_url` and `platform`."
        }
        (Verdict::Unreachable, _) => {
            "Nobody takes the connection. Check host and port of `base_url`, the firewall, and whether an `egress_proxy` is needed."
        }
        (Verdict::Timeout, _) => {
            "There was no answer in time. Check the network on the way, the firewall, and whether an `egress_proxy` is needed."
        }
        (Verdict::Tls, _) => {
            "TLS failed. Check that the certificate is for the host of `base_url`; for one of a company's own authority, set `ca`; \
             something on the way may break TLS open."
        }
        (Verdict::Dns, _) => {
            "The host's name has no address. Check `base_url`, and DNS on this machine, or set `resolve`."
        }
        (Verdict::Proxy, _) => {
            "The egress proxy does not let us through. Check `egress_proxy`: its address, credentials and rules."
        }
    };
    text.to_owned()
}
