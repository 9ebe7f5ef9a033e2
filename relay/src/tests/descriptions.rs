//! Session descriptions, good and bad.

use std::time::Instant;

use super::world::limits;
use crate::{sdp, setup};

const CHROMIUM: &str = include_str!("chromium.sdp");

fn begin(offer: &str) -> Result<String, String> {
    let at = ["192.0.2.1:50000".parse().unwrap()];
    setup::begin(offer, &at, "legfragment00001", limits(), Instant::now())
        .map(|offered| offered.offer)
        .map_err(|(_, why)| why)
}

#[test]
fn what_goes_to_the_platform_is_ours() {
    let offer = begin(CHROMIUM).unwrap();
    let description = sdp::read(&offer).unwrap();
    let names: Vec<_> = description.media().flat_map(|it| &it.codecs).map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["opus", "g722", "pcmu", "pcma", "telephone-event"]);
    assert!(offer.contains("telephone-event/48000"));
    assert!(offer.contains("192.0.2.1 50000"), "{offer}");
    assert!(!offer.contains(".local") && !offer.contains("203.0.113.5"), "{offer}");
    assert!(!offer.contains("m=video"), "{offer}");
    assert!(description.data().is_some());
    assert!(offer.contains("minptime=10;useinbandfec=1"));
}

#[test]
fn bad_offers_are_told_why() {
    for (offer, why) in [
        ("", "does not begin with 'v=0'"),
        ("{\"sdp\":\"v=0\"}", "does not begin with 'v=0'"),
        ("v=0\r\nm=audio 9 RTP/AVP 0\r\n", "only ICE with DTLS"),
        ("v=0\r\nhello\r\n", "line 2"),
        ("v=0\r\ns=-\r\n", "no media section"),
        ("v=0\r\nm=audio\r\n", "line 2 is no media section"),
        ("v=0\r\nm=application 9 x y\r\na=max-message-size:lots\r\n", "line 3: 'lots' is no size"),
    ] {
        let told = begin(offer).unwrap_err();
        assert!(told.contains(why), "{offer:?}: {told}");
    }
    let many = format!("{CHROMIUM}{}", "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n".repeat(20));
    assert!(begin(&many).unwrap_err().contains("media section 17"));
    let long = format!("{CHROMIUM}{}", "a=x:yyyyyyyyyyyyyyy\r\n".repeat(4000));
    assert!(begin(&long).unwrap_err().contains("65536 are allowed"));
    for (letter, why) in [
        ("\r", "carriage return"),
        ("\x0b", "U+000B"),
        ("\u{2028}", "U+2028"),
        ("\u{85}", "U+0085"),
        ("\0", "U+0000"),
    ] {
        let line = format!("minptime=10{letter}a=candidate:evil 1 udp 1 198.51.100.66 6666 typ host");
        let told = begin(&CHROMIUM.replace("minptime=10", &line)).unwrap_err();
        assert!(told.contains(why), "{told}");
    }
    let odd = CHROMIUM.replace("opus/48000/2", "opus/48000/65535").replace("111 63", "111");
    let offer = begin(&odd).unwrap();
    assert!(!offer.contains("opus"), "{offer}");
    let video = CHROMIUM.replace("m=audio", "m=video").replace("m=application", "m=text");
    assert!(begin(&video).unwrap_err().contains("nothing that can be relayed"));
}

#[test]
fn offers_cut_anywhere_are_refused_or_read() {
    for end in 0..CHROMIUM.len() {
        if CHROMIUM.is_char_boundary(end) {
            let _ = begin(&CHROMIUM[..end]);
        }
    }
}

#[test]
fn fixed_payload_types_need_no_map() {
    let mut offer: String = CHROMIUM
        .lines()
        .filter(|line| !line.starts_with("a=rtpmap:0 ") && !line.starts_with("a=rtpmap:8 "))
        .map(|line| format!("{line}\r\n"))
        .collect();
    offer = offer.replace("SAVPF 111 63 9 0 8 13 110 126", "SAVPF 0 8");
    let description = sdp::read(&offer).unwrap();
    let plain = sdp::without_candidates(&offer, &description);
    assert!(plain.contains("a=rtpmap:0 PCMU/8000") && plain.contains("a=rtpmap:8 PCMA/8000"), "{plain}");
    begin(&offer).unwrap();
}

#[test]
fn refused_sections_leave_the_bundle() {
    let answer = "v=0\r\na=group:BUNDLE 0 1 2\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=sendrecv\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\n";
    let refused = sdp::refusing(answer, &[1]);
    assert!(refused.contains("a=group:BUNDLE 0 2\r\n"), "{refused}");
    assert!(
        refused.contains(
            "m=video 0 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=inactive\r\nm=application"
        ),
        "{refused}"
    );
}

#[test]
fn candidates_stand_in_every_section() {
    let answer = "v=0\r\nm=audio 9 x 96\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.1 5 typ host\r\na=sendrecv\r\n\
                  m=audio 9 x 96\r\na=mid:1\r\nm=application 9 x y\r\na=mid:2\r\n";
    let everywhere = sdp::candidates_everywhere(answer);
    let sections: Vec<usize> =
        everywhere.split("m=").skip(1).map(|section| section.matches("a=candidate:1 ").count()).collect();
    assert_eq!(sections, [1, 1, 1], "{everywhere}");
    assert_eq!(sdp::candidates_everywhere(&everywhere), everywhere);
    assert_eq!(sdp::candidates_everywhere("v=0\r\n"), "v=0\r\n");
}
