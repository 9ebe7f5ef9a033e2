//! What the tests of this crate share.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aiproxy_core::{ErrorKind, KeyTag, Outcome, PassedOver, Protocol, RequestId, UsageEvent, Why};

pub(crate) fn event(endpoint: &str) -> UsageEvent {
    UsageEvent {
        request_id: RequestId::fresh(),
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        user: Some("张三".into()),
        key: Some(Arc::new(KeyTag::of("pk_0123456789_0123456789_0123456789"))),
        channel: Some("openai".into()),
        protocol: Protocol::Http1,
        method: http::Method::POST,
        endpoint: endpoint.into(),
        model: Some("gpt-4o".into()),
        status: 403,
        error: Some(ErrorKind::ModelNotAllowed),
        outcome: Outcome::Refused,
        first_byte: None,
        total: Duration::from_micros(1500),
        bytes_in: 12,
        bytes_out: 34,
        caller_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        own: None,
        passed_over: vec![PassedOver { channel: "aliyun".into(), why: Why::Status(503) }],
    }
}
