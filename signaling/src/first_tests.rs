use std::cell::Cell;
use std::time::Duration;

use aiproxy_core::ports::SocketLimits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;

const LIMITS: SocketLimits = SocketLimits {
    message_bytes: 1 << 16,
    frame_bytes: 1 << 16,
    held_bytes: 1000,
    idle: Duration::MAX,
    total: None,
    report: None,
};

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    if payload.len() < 126 {
        bytes.push(0x80 | payload.len() as u8);
    } else {
        bytes.push(0x80 | 126);
        bytes.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    }
    let mask = [1, 2, 3, 4];
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    bytes
}

/// What comes of these bytes, `ahead` of them being read already; what the caller hears meanwhile.
async fn received(
    bytes: &[u8],
    ahead: usize,
    step: usize,
    whole: bool,
) -> (Result<FirstMessage, FirstEnd>, Vec<u8>) {
    let (near, mut far) = duplex(1 << 20);
    let (ahead, later) = bytes.split_at(ahead.min(bytes.len()));
    let later: Vec<Vec<u8>> = later.chunks(step).map(<[u8]>::to_vec).collect();
    let talking = tokio::spawn(async move {
        for piece in later {
            // Who has heard enough hangs up.
            let _ = far.write_all(&piece).await;
            tokio::task::yield_now().await;
        }
        let _ = far.shutdown().await;
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.unwrap();
        heard
    });
    let mut near = near;
    let ask = FirstAsk {
        caller: &mut near,
        ahead: Bytes::copy_from_slice(ahead),
        limits: LIMITS,
        whole,
        within: Duration::from_secs(5),
        speaking: &Cell::new(false),
    };
    let outcome = receive(ask).await;
    drop(near);
    (outcome, talking.await.unwrap())
}

#[tokio::test]
async fn a_message_is_received_however_it_comes() {
    let begin = masked(0x01, b"he");
    let ping = masked(0x89, b"are you there");
    let end = masked(0x80, b"llo");
    let next = masked(0x82, b"next");
    let bytes = [&*begin, &ping, &masked(0x8a, b""), &end, &next].concat();
    for step in [1, 2, 5, bytes.len()] {
        for ahead in [0, 3, bytes.len()] {
            let (outcome, heard) = received(&bytes, ahead, step, true).await;
            let FirstMessage { text, payload, ahead } = outcome.unwrap_or_else(|end| panic!("{end:?}"));
            assert_eq!((text, &*payload), (true, &b"hello"[..]));
            // The ping was answered and goes no further; what came behind the message does.
            assert!(bytes[..].ends_with(&next));
            assert!(ahead.starts_with(&[&*begin, &end].concat()), "{step}");
            assert!(next.starts_with(&ahead[begin.len() + end.len()..]), "{step}");
            assert_eq!(heard, [&b"\x8a\x0d"[..], b"are you there"].concat());
        }
    }
}

#[tokio::test]
async fn what_is_too_long_is_refused_or_given_in_part() {
    // Nothing, again and again, is much too.
    let empty = [masked(0x01, b""), masked(0x00, b"").repeat(5000)].concat();
    let (outcome, _) = received(&empty, 0, 500, true).await;
    assert_eq!(outcome.err().map(|end| end.cause), Some(SocketCause::TooLarge(Side::Caller)));
    let (outcome, _) = received(&empty, 0, 500, false).await;
    assert!(empty.starts_with(&outcome.unwrap_or_else(|end| panic!("{end:?}")).ahead));
    let bytes = masked(0x82, &[b'x'; 3000]);
    let (outcome, _) = received(&bytes, 0, 500, true).await;
    assert_eq!(
        outcome.err().map(|end| (end.cause, end.told)),
        Some((SocketCause::TooLarge(Side::Caller), Some(TOO_LARGE)))
    );
    let (outcome, _) = received(&bytes, 0, 500, false).await;
    let first = outcome.unwrap_or_else(|end| panic!("{end:?}"));
    assert!(!first.text && first.payload.len() > 1000 && first.payload.iter().all(|byte| *byte == b'x'));
    assert!(bytes.starts_with(&first.ahead));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_message_has_its_reason() {
    for (bytes, cause, code) in [
        (masked(0x88, b"\x03\xe9"), SocketCause::Closed(Side::Caller), Some(1001)),
        (masked(0x88, b""), SocketCause::Closed(Side::Caller), Some(1000)),
        (masked(0xc1, b"x"), SocketCause::Violation(Side::Caller), Some(1002)),
        (b"\x81\x01x".to_vec(), SocketCause::Violation(Side::Caller), Some(1002)),
        (masked(0x01, b"begun"), SocketCause::Lost(Side::Caller), None),
        (Vec::new(), SocketCause::Lost(Side::Caller), None),
    ] {
        let (outcome, _) = received(&bytes, 0, 100, true).await;
        let end = outcome.err().unwrap_or_else(|| panic!("{bytes:?}"));
        assert_eq!((end.cause, end.told.map(|told| told.0)), (cause, code), "{bytes:?}");
    }
    let (mut near, _far) = duplex(100);
    let ask = FirstAsk {
        caller: &mut near,
        ahead: Bytes::new(),
        limits: LIMITS,
        whole: true,
        within: Duration::from_secs(5),
        speaking: &Cell::new(false),
    };
    let end = receive(ask).await.err().map(|end| (end.cause, end.told));
    let kind = ErrorKind::RequestTimeout;
    assert_eq!(end, Some((SocketCause::Refused(kind), Some((4408, "request_timeout")))));
}
