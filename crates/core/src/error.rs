//! Everything that AIProxy itself may answer, in one table.
//!
//! `docs/status-codes.md` is the same table for people; a test compares the two.

use http::StatusCode;

/// Whose fault a refusal is: decides who is told what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The caller can cure it by sending something else.
    Caller,
    /// The channel or its platform; an administrator can cure it.
    Channel,
    /// AIProxy itself.
    Us,
}

macro_rules! error_kinds {
    ($($(#[$doc:meta])* $name:ident = $status:ident, $code:literal, $fault:ident, retry: $retry:literal, $message:literal;)*) => {
        /// The cause of an answer that AIProxy makes itself. Nothing else in the code chooses a
        /// status or a code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorKind { $($(#[$doc])* $name,)* }

        impl ErrorKind {
            /// Every kind, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Status of the HTTP answer.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// The stable machine-readable `code`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// Whose fault it is.
            #[must_use]
            pub const fn fault(self) -> Fault {
                match self { $(Self::$name => Fault::$fault,)* }
            }

            /// Whether sending the same request again may succeed. Where it cannot, the answer
            /// carries `x-should-retry: false`.
            #[must_use]
            pub const fn may_retry(self) -> bool {
                match self { $(Self::$name => $retry,)* }
            }

            /// The sentence that the caller reads when the place of the error has nothing more
            /// exact to say.
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $message,)* }
            }
        }
    };
}

error_kinds! {
    /// The request line, the path or a header is malformed or ambiguous.
    BadRequest = BAD_REQUEST, "bad_request", Caller, retry: false,
        "The request is malformed.";
    /// No Proxy-Key in any accepted place.
    MissingKey = UNAUTHORIZED, "missing_key", Caller, retry: false,
        "No Proxy-Key was found. Send it as the API key of your SDK, for example in the header 'Authorization: Bearer <Proxy-Key>'.";
    /// Two different keys in one request.
    ConflictingKeys = UNAUTHORIZED, "conflicting_keys", Caller, retry: false,
        "Two different keys were found in one request. Send one Proxy-Key, in one place.";
    /// The key is not known.
    InvalidKey = UNAUTHORIZED, "invalid_key", Caller, retry: false,
        "This Proxy-Key is not known. Check it, or ask your administrator for a new one.";
    /// The key's user is disabled.
    UserDisabled = FORBIDDEN, "user_disabled", Caller, retry: false,
        "The user of this Proxy-Key is disabled. Ask your administrator.";
    /// The key itself is disabled.
    KeyDisabled = FORBIDDEN, "key_disabled", Caller, retry: false,
        "This Proxy-Key is disabled. Ask your administrator for a new one.";
    /// The key's `expires_at` has passed.
    KeyExpired = FORBIDDEN, "key_expired", Caller, retry: false,
        "This Proxy-Key has expired. Ask your administrator for a new one.";
    /// The key's `valid_from` has not come.
    KeyNotYetValid = FORBIDDEN, "key_not_yet_valid", Caller, retry: false,
        "This Proxy-Key is not valid yet. Ask your administrator from when it is.";
    /// An administrator ended the request or session. Nothing was withdrawn: another may begin.
    SessionEnded = FORBIDDEN, "session_ended", Caller, retry: true,
        "Your administrator has ended this request. You may send it again.";
    /// The caller's address is outside the allowed ranges.
    IpNotAllowed = FORBIDDEN, "ip_not_allowed", Caller, retry: false,
        "This Proxy-Key may not be used from your address.";
    /// The named channel is not among the key's channels.
    ChannelNotAllowed = FORBIDDEN, "channel_not_allowed", Caller, retry: false,
        "This Proxy-Key may not use that channel.";
    /// The path is outside what the caller may ask for.
    EndpointNotAllowed = FORBIDDEN, "endpoint_not_allowed", Caller, retry: false,
        "This Proxy-Key may not be used for that path.";
    /// The model is outside what the caller may use, or cannot be read from the request.
    ModelNotAllowed = FORBIDDEN, "model_not_allowed", Caller, retry: false,
        "This Proxy-Key may not use that model.";
    /// The path would let the channel's account escape, or the channel's rules forbid it.
    PathForbidden = FORBIDDEN, "path_forbidden", Caller, retry: false,
        "This path is not available through AIProxy: it would give access to the channel's account.";
    /// A browser's origin is not in `cors.origins`.
    OriginNotAllowed = FORBIDDEN, "origin_not_allowed", Caller, retry: false,
        "This browser origin may not use AIProxy. Ask your administrator to add it to system.cors.origins.";
    /// A client secret that no key of the installation opens.
    InvalidSecret = UNAUTHORIZED, "invalid_secret", Caller, retry: false,
        "This client secret is not one of ours, or it was changed on its way. Have your backend mint a new one.";
    /// A client secret whose time is over.
    SecretExpired = FORBIDDEN, "secret_expired", Caller, retry: false,
        "This client secret has expired. Have your backend mint a new one for each session.";
    /// A client secret whose Proxy-Key is gone.
    SecretOrphaned = FORBIDDEN, "secret_orphaned", Caller, retry: false,
        "The Proxy-Key with which this client secret was minted is no longer known. Have your backend mint a new one.";
    /// A client secret for one session that has begun one.
    SecretUsed = FORBIDDEN, "secret_used", Caller, retry: false,
        "This client secret was for one session and has been used. Have your backend mint a new one.";
    /// A client secret that is used from a page for which it was not minted.
    SecretOriginNotAllowed = FORBIDDEN, "secret_origin_not_allowed", Caller, retry: false,
        "This client secret may not be used from this origin.";
    /// A client secret that is used for something else than to begin a session of its kind.
    SecretScope = FORBIDDEN, "secret_scope", Caller, retry: false,
        "A client secret only begins a realtime session of the kind for which it was minted.";
    /// A client secret and another model than its own.
    SecretModel = FORBIDDEN, "secret_model", Caller, retry: false,
        "This client secret is for another model.";
    /// A client secret and another channel than its own.
    SecretChannel = FORBIDDEN, "secret_channel", Caller, retry: false,
        "This client secret is for another channel.";
    /// None of the key's channels serves this path and model.
    NoChannel = NOT_FOUND, "no_channel", Caller, retry: false,
        "None of your channels serves this path and model.";
    /// The object that the request names does not exist, or is not the caller's: the two are told
    /// apart by nobody.
    ObjectNotFound = NOT_FOUND, "object_not_found", Caller, retry: false,
        "No such object. It does not exist, or it was not made with your Proxy-Key.";
    /// The call that the request names is not under way, or is somebody else's.
    CallNotFound = NOT_FOUND, "call_id_not_found", Caller, retry: false,
        "No such call. It has ended, or it was not made with your Proxy-Key.";
    /// CONNECT, TRACE and other methods that are never relayed.
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method_not_allowed", Caller, retry: false,
        "This method is not relayed.";
    /// The caller stopped sending its request.
    RequestTimeout = REQUEST_TIMEOUT, "request_timeout", Caller, retry: true,
        "The request was not received in time.";
    /// The request body is larger than the configured bound.
    BodyTooLarge = PAYLOAD_TOO_LARGE, "body_too_large", Caller, retry: false,
        "The request body is larger than AIProxy allows.";
    /// The request head is larger than the configured bound.
    HeadersTooLarge = REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", Caller, retry: false,
        "The request head is larger than AIProxy allows.";
    /// A WebSocket handshake of another version than 13.
    SocketVersion = UPGRADE_REQUIRED, "websocket_version", Caller, retry: false,
        "Only WebSocket version 13 (RFC 6455) is spoken.";
    /// A Proxy-Key with as many client secrets as it may have.
    SecretLimit = TOO_MANY_REQUESTS, "secret_limit", Caller, retry: true,
        "This Proxy-Key has as many client secrets as it may have at one time. Wait until some expire, or let them live shorter.";
    /// The upgrade protocol is not relayed.
    UpgradeUnsupported = NOT_IMPLEMENTED, "upgrade_unsupported", Caller, retry: false,
        "This protocol upgrade is not relayed.";
    /// A Proxy-Key with as many WebRTC calls as it may have.
    CallLimit = TOO_MANY_REQUESTS, "call_limit", Caller, retry: true,
        "This Proxy-Key has as many calls as it may have at one time. End one first.";
    /// WebRTC calls are not served here.
    CallsOff = NOT_IMPLEMENTED, "calls_off", Channel, retry: false,
        "WebRTC calls are switched off. Your administrator can set system.listen.media, or the channel's realtime.webrtc.";
    /// All channels that would serve the request are out of service.
    ChannelUnavailable = SERVICE_UNAVAILABLE, "channel_unavailable", Channel, retry: true,
        "The channel for this request is out of service at the moment.";
    /// AIProxy has as many connections or requests as it may have.
    Overloaded = SERVICE_UNAVAILABLE, "overloaded", Us, retry: true,
        "AIProxy is at its limit. Try again shortly.";
    /// The platform could not be reached, or broke the connection before its answer began.
    UpstreamUnreachable = BAD_GATEWAY, "upstream_unreachable", Channel, retry: true,
        "The platform could not be reached.";
    /// The platform answered something that is not HTTP.
    UpstreamProtocol = BAD_GATEWAY, "upstream_protocol", Channel, retry: true,
        "The platform's answer could not be understood.";
    /// The platform did not answer in time.
    UpstreamTimeout = GATEWAY_TIMEOUT, "upstream_timeout", Channel, retry: true,
        "The platform did not answer in time.";
    /// The platform refused the channel's key or account: ours to mend, never the caller's.
    ChannelKeyRejected = BAD_GATEWAY, "channel_key_rejected", Channel, retry: false,
        "The platform refused AIProxy's account for this channel. Your Proxy-Key is fine; your administrator has to look at the channel.";
    /// A bug, or a resource of ours that failed.
    Internal = INTERNAL_SERVER_ERROR, "internal", Us, retry: true,
        "AIProxy failed to handle this request.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_unique_and_statuses_are_errors() {
        let codes: HashSet<_> = ErrorKind::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(codes.len(), ErrorKind::ALL.len());
        for kind in ErrorKind::ALL {
            assert!(kind.status().as_u16() >= 400, "{kind:?}");
            assert!(!kind.message().is_empty(), "{kind:?}");
        }
    }

    #[test]
    fn a_caller_is_never_told_that_its_key_is_bad_for_a_fault_of_the_channel() {
        for kind in ErrorKind::ALL.iter().filter(|kind| kind.fault() != Fault::Caller) {
            assert!(kind.status().is_server_error(), "{kind:?}");
        }
    }
}
