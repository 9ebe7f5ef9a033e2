//! The paths of calls.

use http::StatusCode;
use serde_json::json;

use super::Calls;
pub(crate) use super::offer::Form;
use super::offer::Offer;
use crate::http::{Answer, RequestBody};
use crate::route::Call;
use crate::shape::Fault;

/// What may be asked of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    HangUp,
    Refer,
}

/// Answers an offer.
pub(crate) async fn create(call: &Call<'_>, form: Form, body: &mut RequestBody) -> Result<Answer, Fault> {
    let offer = Offer::read(call, form, body).await?;
    let (id, sdp) = Calls::place(call.state, offer).await?;
    if form == Form::Live {
        let answer = json!({"session": {"id": id}, "transport": {"type": "webrtc", "sdp": sdp}});
        return Ok(Answer::json(&answer).status(StatusCode::CREATED));
    }
    let answer = Answer::bytes("application/sdp", sdp);
    if form == Form::Aliyun {
        return Ok(answer);
    }
    // Where a call lives does not depend on which of the paths made it.
    let base = if call.head.uri.path().starts_with("/openai/") { "/openai" } else { "" };
    Ok(answer.status(StatusCode::CREATED).header("location", &format!("{base}/v1/realtime/calls/{id}")))
}

/// Hangs up, or hands on.
pub(crate) async fn act(
    call: &Call<'_>,
    id: &str,
    action: Action,
    body: &mut RequestBody,
) -> Result<Answer, Fault> {
    match action {
        Action::HangUp => call.state.calls.end(id, "hangup")?,
        Action::Refer => {
            call.state.calls.know(id)?;
            let wish = body.json().await?;
            if wish["target_uri"].as_str().is_none_or(str::is_empty) {
                return Err(Fault::missing("target_uri"));
            }
        }
    }
    Ok(Answer::json(&json!({})))
}
