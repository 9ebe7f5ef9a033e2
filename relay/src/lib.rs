//! The media plane, to come.
//!
//! Will own: two peer connections per call on webrtc-rs's sans-IO core, driven by an I/O loop of
//! its own: one UDP port for all caller legs, a socket per upstream leg, audio, video and data
//! channels bridged packet by packet, without transcoding.
//! Will never do: HTTP, keys, permissions: signaling asks for a bridge through
//! [`aiproxy_core::ports::MediaPlane`].
