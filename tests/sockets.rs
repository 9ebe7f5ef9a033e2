//! WebSockets through the relay. The numbers are those of the behaviours that real platforms and
//! SDKs were seen to need.

mod behaviours;
mod ending;
mod first_message;
mod frames;
mod listen;
pub(crate) mod many;
mod sandbox;
mod stopped;
mod usage;

use aiproxy_testkit::RawUpstream;

const REALTIME: &str = "/v1/realtime?model=gpt-realtime";

/// A platform that accepts every handshake and sends everything back.
pub(crate) async fn echoing() -> RawUpstream {
    RawUpstream::start(|mut conn| async move {
        if conn.accept("", "").await.is_some() {
            conn.echo().await;
        }
    })
    .await
}
