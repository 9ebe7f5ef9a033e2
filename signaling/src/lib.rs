//! WebSocket and WebRTC signaling, to come.
//!
//! Will own: authenticating and planning upgrades and SDP offers, dialling the upstream before
//! the caller's upgrade is accepted, swapping the key in headers, query, subprotocols and first
//! messages, pumping frames, client secrets, the registry of calls.
//! Will never do: media (that is `relay`, behind [`aiproxy_core::ports::MediaPlane`]), HTTP
//! forwarding (that is the gateway, which will call this crate through
//! [`aiproxy_core::ports::UpgradeHandler`] and [`aiproxy_core::ports::SdpHandler`]).
//!
//! As long as it is empty, the gateway answers upgrades with 501 `upgrade_unsupported`.
