//! Is an error answer about the channel's account? Then it is ours to mend, and its body, which
//! may show a part of the channel's key, is not for the caller.

use std::time::Duration;

use aiproxy_config::model::Channel;
use aiproxy_core::ErrorKind;
use aiproxy_platform::faults::{ERROR_CODES, ERROR_MESSAGES, ErrorFacts};
use aiproxy_upstream::Incoming;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use memchr::memmem;
use serde_json::Value;
use tokio::time::timeout;

/// Error bodies are small; what is longer is judged by its beginning.
const READ_BYTES: usize = 16 * 1024;
/// How long an error body may take to arrive before it is judged by what came.
const READ_TIME: Duration = Duration::from_secs(5);

/// Reads the beginning of an error body, and returns it to be passed on.
///
/// # Errors
/// [`ErrorKind::ChannelKeyRejected`].
pub(crate) async fn check(
    channel: &Channel,
    status: StatusCode,
    body: &mut Incoming,
) -> Result<Option<Bytes>, ErrorKind> {
    // Errors like to quote what was sent, the channel's key among it.
    if !status.is_client_error() && !status.is_server_error() {
        return Ok(None);
    }
    let ahead = read_ahead(body).await;
    judge(channel, status, &ahead)?;
    Ok(Some(ahead))
}

/// As [`check`], of a body that was read.
///
/// # Errors
/// [`ErrorKind::ChannelKeyRejected`].
pub(crate) fn judge(channel: &Channel, status: StatusCode, ahead: &[u8]) -> Result<(), ErrorKind> {
    let rows = channel.platform.account_faults;
    let value: Value = serde_json::from_slice(ahead).unwrap_or_default();
    let texts = |pointers: &[&str]| -> Vec<String> {
        pointers.iter().filter_map(|pointer| value.pointer(pointer)?.as_str().map(str::to_owned)).collect()
    };
    let codes = texts(ERROR_CODES);
    let codes: Vec<&str> = codes.iter().map(String::as_str).collect();
    let message = texts(ERROR_MESSAGES).into_iter().next().unwrap_or_default();
    let facts = ErrorFacts { codes: &codes, message: &message };
    let shows_key = memmem::find(ahead, channel.api_key.expose().as_bytes()).is_some();
    if shows_key || rows.iter().any(|row| row.covers(status.as_u16(), &facts)) {
        return Err(ErrorKind::ChannelKeyRejected);
    }
    Ok(())
}

async fn read_ahead(body: &mut Incoming) -> Bytes {
    let mut ahead = BytesMut::new();
    let reading = async {
        while ahead.len() < READ_BYTES && !body.is_end_stream() {
            let Some(Ok(frame)) = body.frame().await else { break };
            if let Ok(data) = frame.into_data() {
                ahead.extend_from_slice(&data);
            }
        }
    };
    let _ = timeout(READ_TIME, reading).await;
    ahead.freeze()
}
