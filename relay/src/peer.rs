//! A peer connection as all of ours are made.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aiproxy_core::ids::random_key;
use aiproxy_core::ports::CallLimits;
use rtc::ice::candidate::CandidateConfig;
use rtc::ice::candidate::candidate_host::CandidateHostConfig;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::interceptor_registry::{Registry, configure_rtcp_reports};
use rtc::peer_connection::configuration::media_engine::MediaEngine;
use rtc::peer_connection::configuration::setting_engine::{SctpMaxMessageSize, SettingEngineBuilder};
use rtc::peer_connection::transport::RTCIceCandidate;
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters,
    RTCRtpHeaderExtensionCapability, RtpCodecKind,
};
use rtc::shared::error::Error;

use crate::sdp::Codec;

/// How loud a packet is: the one header extension that is passed on (RFC 6464).
pub(crate) const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";

/// Time between connectivity checks while a pair is sought. The library's 200 ms are felt.
const CHECK_EVERY: Duration = Duration::from_millis(20);
/// Checks of one pair, at most: they go to wherever somebody who knows the call says to be.
const CHECKS: u16 = 100;
/// Without a word for so long a side counts as out of reach: then its grace begins.
const SILENCE: Duration = Duration::from_secs(3);
/// How often a standing pair is checked.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// What a message may have beyond what its sender was told, to be answered with an error. The library
/// throws away what is larger without a word.
const SLACK: u32 = 32 << 10;

/// The library's own bound.
const LIBRARY: u32 = 256 << 10;

/// Bytes of a message that the library can take.
pub(crate) fn capacity(limits: &CallLimits) -> u32 {
    limits.message_bytes.saturating_add(SLACK).min(LIBRARY)
}

/// A connection that can carry these formats.
///
/// # Errors
/// The library's.
pub(crate) fn connection(
    fragment: &str,
    codecs: &[Codec],
    limits: &CallLimits,
    now: Instant,
) -> Result<RTCPeerConnection, Error> {
    let mut media = MediaEngine::default();
    for codec in codecs {
        media.register_codec(parameters(codec), RtpCodecKind::Audio)?;
    }
    let level = RTCRtpHeaderExtensionCapability { uri: AUDIO_LEVEL.to_owned() };
    media.register_header_extension(level, RtpCodecKind::Audio, None)?;
    let message_bytes = capacity(limits);
    let held = u32::try_from(limits.held_bytes).unwrap_or(u32::MAX).max(message_bytes);
    let settings = SettingEngineBuilder::new()
        .with_ice_credentials(fragment.to_owned(), random_key("", 32))
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_ice_connection_attempts(Some(CHECK_EVERY), Some(CHECKS))
        .with_host_acceptance_min_wait(Some(Duration::ZERO))
        .with_prflx_acceptance_min_wait(Some(Duration::ZERO))
        .with_ice_timeouts(Some(SILENCE), Some(limits.grace), Some(KEEP_ALIVE))
        .with_sctp_max_message_size(SctpMaxMessageSize::Bounded(message_bytes))
        .with_sctp_max_receive_buffer_size(held)
        .build();
    RTCPeerConnectionBuilder::new()
        .with_configuration(RTCConfigurationBuilder::new().build())
        .with_setting_engine(settings)
        .with_media_engine(media)
        .with_interceptor_registry(configure_rtcp_reports(Registry::new()))
        .build(now)
}

/// The format in the library's words.
pub(crate) fn parameters(codec: &Codec) -> RTCRtpCodecParameters {
    RTCRtpCodecParameters {
        payload_type: codec.number,
        rtp_codec: RTCRtpCodec {
            mime_type: format!("audio/{}", codec.written),
            clock_rate: codec.clock,
            channels: codec.channels,
            sdp_fmtp_line: codec.parameters.clone(),
            rtcp_feedback: Vec::new(),
        },
    }
}

/// A track of ours, its id and its SSRC.
pub(crate) fn track(codec: &Codec) -> (MediaStreamTrack, String, u32) {
    let mut bytes = [0; 4];
    // Without randomness another number does as well: it tells streams of one connection apart.
    let _ = getrandom::fill(&mut bytes);
    let ssrc = u32::from_be_bytes(bytes).max(1);
    let id = format!("audio{ssrc}");
    let track = MediaStreamTrack::new(
        "aiproxy".to_owned(),
        id.clone(),
        "audio".to_owned(),
        RtpCodecKind::Audio,
        vec![RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
            codec: parameters(codec).rtp_codec,
            ..Default::default()
        }],
    );
    (track, id, ssrc)
}

/// Tells the connection, and through its description the peer, where it can be reached.
///
/// # Errors
/// The library's.
pub(crate) fn reachable(connection: &mut RTCPeerConnection, at: SocketAddr) -> Result<(), Error> {
    let candidate = CandidateHostConfig {
        base_config: CandidateConfig {
            network: "udp".to_owned(),
            address: at.ip().to_string(),
            port: at.port(),
            component: 1,
            ..Default::default()
        },
        ..Default::default()
    }
    .new_candidate_host()?;
    connection.add_local_candidate(RTCIceCandidate::from(&candidate).to_json()?)
}
