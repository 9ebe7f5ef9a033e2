//! The Proxy-Key comes in, the channel's key goes out, and neither is seen on the other side.

mod callers_key;
mod channels_key;
mod escape;
mod urls;

use aiproxy_testkit::{App, RawUpstream};

use crate::relay;

async fn recorded() -> (App, RawUpstream) {
    let upstream = RawUpstream::recording().await;
    let app = relay().upstream(&upstream).start().await;
    (app, upstream)
}
