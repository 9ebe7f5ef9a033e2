//! The sound formats that the sandbox speaks, and which of them an offer wants.

use rtc::peer_connection::configuration::media_engine::{
    MIME_TYPE_G722, MIME_TYPE_OPUS, MIME_TYPE_PCMA, MIME_TYPE_PCMU, MediaEngine,
};
use rtc::rtp_transceiver::rtp_sender::{RTCRtpCodec, RTCRtpCodecParameters, RtpCodecKind};
use webrtc::error::Result;

/// Name in SDP, MIME type, clock rate, channels, parameters, payload type where an offer has none.
const CODECS: [(&str, &str, u32, u16, &str, u8); 4] = [
    ("opus", MIME_TYPE_OPUS, 48_000, 2, "minptime=10;useinbandfec=1", 111),
    ("G722", MIME_TYPE_G722, 8_000, 0, "", 9),
    ("PCMU", MIME_TYPE_PCMU, 8_000, 0, "", 0),
    ("PCMA", MIME_TYPE_PCMA, 8_000, 0, "", 8),
];

/// Knows these and no others: a video line is refused.
pub(super) fn engine() -> Result<MediaEngine> {
    let mut engine = MediaEngine::default();
    for (name, .., payload_type) in CODECS {
        if let Some(rtp_codec) = named(name) {
            let codec = RTCRtpCodecParameters { rtp_codec, payload_type };
            engine.register_codec(codec, RtpCodecKind::Audio)?;
        }
    }
    Ok(engine)
}

fn named(wanted: &str) -> Option<RTCRtpCodec> {
    let (_, mime_type, clock_rate, channels, fmtp, _) =
        CODECS.into_iter().find(|(name, ..)| name.eq_ignore_ascii_case(wanted))?;
    Some(RTCRtpCodec {
        mime_type: mime_type.to_owned(),
        clock_rate,
        channels,
        sdp_fmtp_line: fmtp.to_owned(),
        rtcp_feedback: Vec::new(),
    })
}

/// Of each audio line the first format that the sandbox speaks.
pub(super) fn wanted(offer: &str) -> Vec<RTCRtpCodec> {
    let mut found = Vec::new();
    for section in offer.split("\nm=").skip(1) {
        let mut lines = section.lines().map(str::trim_end);
        let Some(media) = lines.next().and_then(|line| line.strip_prefix("audio ")) else { continue };
        let lines: Vec<&str> = lines.collect();
        // Behind port and protocol.
        let formats = media.split(' ').skip(2);
        let mut codecs = formats.filter_map(|format| {
            let map = lines
                .iter()
                .find_map(|line| line.strip_prefix("a=rtpmap:")?.strip_prefix(format)?.strip_prefix(' '));
            // These two need no map.
            let name = map.map(|map| map.split('/').next().unwrap_or(map)).or(match format {
                "0" => Some("PCMU"),
                "8" => Some("PCMA"),
                _ => None,
            });
            named(name?)
        });
        found.extend(codecs.next());
    }
    found
}

/// Whether an offer has data channels.
pub(super) fn has_channels(offer: &str) -> bool {
    offer.contains("\nm=application ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_format_of_each_line() {
        let offer = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 63 111 0\r\na=rtpmap:63 red/48000/2\r\n\
                     a=rtpmap:111 OPUS/48000/2\r\nm=audio 9 UDP/TLS/RTP/SAVPF 8\r\na=recvonly\r\nm=audio 9 UDP/TLS/RTP/SAVPF 13\r\n\
                     m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\nm=application 9 x y\r\n";
        let names: Vec<String> = wanted(offer).into_iter().map(|codec| codec.mime_type).collect();
        assert_eq!(names, ["audio/opus", "audio/PCMA"]);
        assert!(has_channels(offer) && !has_channels("v=0\r\nm=audio 9 x 0\r\n"));
    }
}
