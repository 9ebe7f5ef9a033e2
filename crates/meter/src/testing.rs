//! What the tests of this crate share.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aiproxy_core::{
    CallFigures, Cost, ErrorKind, Finish, KeyTag, LegFigures, Outcome, PassedOver, Protocol, RequestId,
    SocketFigures, Tokens, Usage, UsageEvent, Why,
};

pub(crate) fn event(endpoint: &str) -> UsageEvent {
    UsageEvent {
        request_id: RequestId::fresh(),
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        user: Some("张三".into()),
        key: Some(Arc::new(KeyTag::of("pk_0123456789_0123456789_0123456789"))),
        channel: Some("openai".into()),
        protocol: Protocol::Http1,
        method: http::Method::POST,
        endpoint: endpoint.to_owned().into(),
        path: None,
        model: Some("gpt-4o".into()),
        status: 403,
        error: Some(ErrorKind::ModelNotAllowed),
        outcome: Outcome::Refused,
        first_byte: None,
        total: Duration::from_micros(1500),
        bytes_in: 12,
        bytes_out: 34,
        usage: None,
        cost: None,
        user_agent: None,
        caller_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        own: None,
        passed_over: vec![PassedOver { channel: "aliyun".into(), why: Why::Status(503) }],
        socket: Some(SocketFigures { frames_in: 7, frames_out: 300, close_code: Some(1001) }),
        call: Some(Box::new(call())),
        part: Some(3),
    }
}

/// A call of which every number is another.
pub(crate) fn call() -> CallFigures {
    let leg = |base: u64| LegFigures {
        packets: base,
        media_bytes: base << 20,
        lost: base + 1,
        jitter: Duration::from_micros(base + 2),
        rtt: (base > 100).then(|| Duration::from_micros(base + 3)),
        messages: base + 4,
        message_bytes: base + 5,
    };
    CallFigures {
        setup: Some(Duration::from_micros(90_000)),
        connected: Duration::from_secs(61),
        caller: leg(50),
        platform: leg(5000),
        dropped: 9,
    }
}

/// An answer of which every number is another.
pub(crate) fn used(mut event: UsageEvent) -> UsageEvent {
    event.usage = Some(Usage {
        tokens: Tokens {
            input: 1 << 40,
            output: 300,
            cached: 3,
            cache_written: 4,
            reasoning: 5,
            audio_input: 6,
            audio_output: 7,
            image_input: 8,
            image_output: 9,
        },
        seconds: Some(1.25),
        images: 2,
        characters: 77,
        model: Some("gpt-4o-2024-11-20".to_owned()),
        reported: true,
        estimated: true,
        finish: Some(Finish::ToolCalls),
    });
    event.cost = Some(Cost { micros: 1_250_000, currency: "CNY".into() });
    event.user_agent = Some("OpenAI/Python 3.54".into());
    event.path = Some("/v1/files/file-7".into());
    event
}
