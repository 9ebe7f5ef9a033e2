//! The life of a request, in a fixed order: record, key, scenario, endpoint, answer.

use crate::calls::{
    self, Calls,
    endpoint::{Action, Form},
};
use crate::gates::Gates;
use crate::http::{Answer, Payload, RequestBody};
use crate::ids::Ids;
use crate::openai::{self, FileStore, ResponseStore};
use crate::pace::{AnswerBody, Reset};
use crate::scenario::Scenario;
use crate::seen::Log;
use crate::shape::{Fault, Shape};
use crate::{MODELS, anthropic, auth, control, dashscope, sockets};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// What all requests share.
pub(crate) struct State {
    pub(crate) key: String,
    pub(crate) extra_models: Vec<String>,
    pub(crate) ids: Ids,
    pub(crate) log: Log,
    pub(crate) gates: Gates,
    pub(crate) files: FileStore,
    pub(crate) responses: ResponseStore,
    pub(crate) calls: Calls,
}

impl State {
    pub(crate) fn models(&self) -> impl Iterator<Item = &str> {
        let extra = self.extra_models.iter().map(String::as_str);
        MODELS.iter().copied().chain(extra)
    }

    /// Refuses a model that the platform does not have.
    pub(crate) fn know_model(&self, model: &str) -> Result<(), Fault> {
        if self.models().any(|known| known == model) {
            return Ok(());
        }
        Err(Fault::not_found(format!("The model `{model}` does not exist or you do not have access to it."))
            .code("model_not_found")
            .param("model"))
    }
}

/// What a handler gets besides the body.
pub(crate) struct Call<'a> {
    pub(crate) state: &'a Arc<State>,
    pub(crate) head: &'a Parts,
    pub(crate) scenario: &'a Scenario,
    pub(crate) request_id: &'a str,
}

/// Where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint<'a> {
    Models,
    Model(&'a str),
    Chat,
    Responses,
    Response(&'a str),
    Embeddings,
    Files,
    File(&'a str),
    FileContent(&'a str),
    Speech,
    Transcriptions,
    Images,
    Generation {
        multimodal: bool,
    },
    Tokens,
    Messages,
    CountTokens,
    /// An offer of a call.
    Calls(Form),
    CallAction(&'a str, Action),
    Unknown,
}

impl<'a> Endpoint<'a> {
    pub(crate) fn of(path: &'a str, shape: Shape) -> Endpoint<'a> {
        // The same API under Aliyun's prefixes.
        let path = ["/compatible-mode", "/apps/anthropic"]
            .iter()
            .find_map(|prefix| path.strip_prefix(prefix))
            .filter(|rest| rest.starts_with('/'))
            .unwrap_or(path);
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match (shape, segments.as_slice()) {
            (Shape::Anthropic, ["v1", "messages"]) => Endpoint::Messages,
            (Shape::Anthropic, ["v1", "messages", "count_tokens"]) => Endpoint::CountTokens,
            (Shape::OpenAi | Shape::Anthropic, ["v1", "models"]) => Endpoint::Models,
            (Shape::OpenAi | Shape::Anthropic, ["v1", "models", id]) => Endpoint::Model(id),
            (Shape::OpenAi, ["v1", rest @ ..]) => match rest {
                ["chat", "completions"] => Endpoint::Chat,
                ["responses"] => Endpoint::Responses,
                ["responses", id] => Endpoint::Response(id),
                ["embeddings"] => Endpoint::Embeddings,
                ["files"] => Endpoint::Files,
                ["files", id] => Endpoint::File(id),
                ["files", id, "content"] => Endpoint::FileContent(id),
                ["audio", "speech"] => Endpoint::Speech,
                ["audio", "transcriptions"] => Endpoint::Transcriptions,
                ["images", "generations"] => Endpoint::Images,
                ["realtime"] => Endpoint::Calls(Form::Raw),
                ["realtime", "calls", rest @ ..] => Endpoint::of_calls(rest),
                ["live", "sessions"] => Endpoint::Calls(Form::Live),
                _ => Endpoint::Unknown,
            },
            (Shape::OpenAi, ["openai", "v1", "realtime", "calls", rest @ ..]) => Endpoint::of_calls(rest),
            (Shape::DashScope, ["api", "v1", "webrtc", "realtime"]) => Endpoint::Calls(Form::Aliyun),
            (Shape::DashScope, ["api", "v1", "tokens"]) => Endpoint::Tokens,
            (Shape::DashScope, ["api", "v1", "services", "aigc", kind, "generation"]) => match *kind {
                "text-generation" => Endpoint::Generation { multimodal: false },
                "multimodal-generation" => Endpoint::Generation { multimodal: true },
                _ => Endpoint::Unknown,
            },
            _ => Endpoint::Unknown,
        }
    }

    fn of_calls(rest: &[&'a str]) -> Endpoint<'a> {
        match rest {
            [] => Endpoint::Calls(Form::Either),
            [id, "hangup"] => Endpoint::CallAction(id, Action::HangUp),
            [id, "refer"] => Endpoint::CallAction(id, Action::Refer),
            _ => Endpoint::Unknown,
        }
    }

    /// The name in the counters.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Endpoint::Models => "models",
            Endpoint::Model(_) => "models.one",
            Endpoint::Chat => "chat.completions",
            Endpoint::Responses => "responses",
            Endpoint::Response(_) => "responses.one",
            Endpoint::Embeddings => "embeddings",
            Endpoint::Files => "files",
            Endpoint::File(_) => "files.one",
            Endpoint::FileContent(_) => "files.content",
            Endpoint::Speech => "audio.speech",
            Endpoint::Transcriptions => "audio.transcriptions",
            Endpoint::Images => "images.generations",
            Endpoint::Generation { multimodal: false } => "dashscope.text-generation",
            Endpoint::Generation { multimodal: true } => "dashscope.multimodal-generation",
            Endpoint::Tokens => "dashscope.tokens",
            Endpoint::Messages => "messages",
            Endpoint::CountTokens => "messages.count_tokens",
            Endpoint::Calls(Form::Aliyun) => "dashscope.calls",
            Endpoint::Calls(Form::Live) => "live.sessions",
            Endpoint::Calls(_) => "realtime.calls",
            Endpoint::CallAction(_, Action::HangUp) => "realtime.calls.hangup",
            Endpoint::CallAction(_, Action::Refer) => "realtime.calls.refer",
            Endpoint::Unknown => "unknown",
        }
    }

    fn allow(self) -> &'static str {
        match self {
            Endpoint::Models | Endpoint::Model(_) | Endpoint::FileContent(_) => "GET",
            Endpoint::Response(_) | Endpoint::File(_) => "GET, DELETE",
            Endpoint::Files => "GET, POST",
            _ => "POST",
        }
    }
}

/// Answers one request. An error makes the connection drop (with a reset).
pub(crate) async fn serve(
    state: &Arc<State>,
    reset: Reset,
    request: Request<Incoming>,
) -> io::Result<Response<AnswerBody>> {
    let started = Instant::now();
    let (mut head, body) = request.into_parts();
    let path = head.uri.path();
    if let Some(rest) = path.strip_prefix("/sandbox/") {
        let answer = control::answer(state, &head.method, rest)
            .unwrap_or_else(|fault| fault_answer(Shape::OpenAi, &fault, ""));
        let Payload::Whole(bytes) = answer.payload else {
            return Err(reset.demand());
        };
        let mut response = Response::new(AnswerBody::unrecorded(bytes));
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        return Ok(response);
    }

    let shape = Shape::of(path, &head.headers);
    if let Some(kind) = sockets::wanted(&head) {
        let visit = state.log.open(&state.key, &head, kind.map_or("unknown", sockets::Kind::name));
        let accepted = match kind {
            Some(kind) => sockets::accept(state, shape, &mut head, kind, visit),
            None => Err(Fault::not_found("Invalid URL (a WebSocket)")),
        };
        return Ok(accepted.unwrap_or_else(|fault| {
            state.log.count_status(fault.status);
            let answer = fault_answer(shape, &fault, "");
            let Payload::Whole(bytes) = answer.payload else {
                return Response::new(AnswerBody::unrecorded(Bytes::new()));
            };
            let mut response = Response::new(AnswerBody::unrecorded(bytes));
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.headers;
            response
        }));
    }
    let endpoint = Endpoint::of(path, shape);
    let mut visit = state.log.open(&state.key, &head, endpoint.name());
    let mut body = RequestBody::new(body, &visit, &head.headers);
    let request_id = match shape {
        Shape::DashScope | Shape::Deepgram => state.ids.uuid(),
        Shape::OpenAi | Shape::Anthropic => state.ids.with_prefix("req_"),
    };

    let authorized = auth::check(&state.key, shape, &head.headers, head.uri.query().unwrap_or_default());
    if authorized.is_ok() {
        visit.authorize();
    }
    let (scenario, wish) = match authorized.and_then(|()| Scenario::parse(&head.headers)) {
        Ok(scenario) => (scenario, Ok(())),
        Err(fault) => (Scenario::default(), Err(fault)),
    };
    let call = Call { state, head: &head, scenario: &scenario, request_id: &request_id };
    let answer = match wish {
        Ok(()) => perform(&call, endpoint, &mut body).await,
        Err(fault) => Err(fault),
    };
    body.drain().await;
    if body.lost() {
        visit.lose_request();
    }
    if scenario.cut == Some(0) {
        return Err(reset.demand());
    }
    let mut answer = answer.unwrap_or_else(|mut fault| {
        if let Some(code) = &scenario.code {
            fault.code = Some(code.clone());
        }
        fault_answer(shape, &fault, &request_id)
    });
    if matches!(answer.payload, Payload::Whole(_))
        && let Some(gate) = &scenario.hold
    {
        state.gates.wait(gate).await;
    }

    let id_header = shape.request_id_header();
    answer = answer.header(id_header, &request_id);
    if shape == Shape::OpenAi {
        let millis = started.elapsed().as_millis().to_string();
        answer = answer.header("openai-processing-ms", &millis).header("openai-version", "2020-10-01");
    }
    scenario.decorate(&mut answer.headers);
    if scenario.trailers {
        let name = HeaderValue::from_static("x-sandbox-trailer");
        answer.headers.insert("trailer", name);
    }
    visit.answer(answer.status);
    if head.method == Method::HEAD {
        // Hyper will not ask for the body.
        visit.complete();
    }
    state.log.count_status(answer.status);

    let mut response = Response::new(());
    *response.status_mut() = answer.status;
    *response.headers_mut() = std::mem::take(&mut answer.headers);
    let body = AnswerBody::paced(answer, &scenario, state, reset, visit);
    Ok(response.map(|()| body))
}

/// The scenario's status, or the endpoint.
async fn perform(call: &Call<'_>, endpoint: Endpoint<'_>, body: &mut RequestBody) -> Result<Answer, Fault> {
    let status = match call.scenario.status {
        Some(status) if status.is_client_error() || status.is_server_error() => {
            return Err(Fault::scripted(status));
        }
        Some(status) if status.is_redirection() || status == StatusCode::NO_CONTENT => {
            return Ok(Answer::empty(status));
        }
        status => status,
    };
    let method = &call.head.method;
    let path = call.head.uri.path();
    if endpoint == Endpoint::Unknown {
        return Err(Fault::not_found(format!("Invalid URL ({method} {path})")));
    }
    if !endpoint.allow().split(", ").any(|allowed| allowed == method) {
        return Err(Fault::new(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("Not allowed to {method} on {path}."),
        )
        .header("allow", endpoint.allow()));
    }
    let answer = match endpoint {
        Endpoint::Messages => anthropic::messages(call, body).await,
        Endpoint::CountTokens => anthropic::count_tokens(call, body).await,
        Endpoint::Models if call.head.headers.contains_key("anthropic-version") => {
            Ok(anthropic::models(call))
        }
        Endpoint::Model(id) if call.head.headers.contains_key("anthropic-version") => {
            anthropic::model(call, id)
        }
        Endpoint::Models => Ok(openai::models::list(call)),
        Endpoint::Model(id) => openai::models::get(call, id),
        Endpoint::Chat => openai::chat::create(call, body).await,
        Endpoint::Responses => openai::responses::create(call, body).await,
        Endpoint::Response(id) if method == Method::DELETE => openai::responses::delete(call, id),
        Endpoint::Response(id) => openai::responses::get(call, id),
        Endpoint::Embeddings => openai::embeddings::create(call, body).await,
        Endpoint::Files if method == Method::POST => openai::files::create(call, body).await,
        Endpoint::Files => openai::files::list(call),
        Endpoint::File(id) if method == Method::DELETE => openai::files::delete(call, id),
        Endpoint::File(id) => openai::files::get(call, id),
        Endpoint::FileContent(id) => openai::files::content(call, id),
        Endpoint::Speech => openai::audio::speech(call, body).await,
        Endpoint::Transcriptions => openai::audio::transcribe(call, body).await,
        Endpoint::Images => openai::images::create(call, body).await,
        Endpoint::Generation { multimodal } => dashscope::generate(call, body, multimodal).await,
        Endpoint::Tokens => Ok(dashscope::token(call)),
        Endpoint::Calls(form) => calls::endpoint::create(call, form, body).await,
        Endpoint::CallAction(id, action) => calls::endpoint::act(call, id, action, body).await,
        Endpoint::Unknown => Err(Fault::not_found("unknown path")),
    }?;
    Ok(match status {
        Some(status) => answer.status(status),
        None => answer,
    })
}

fn fault_answer(shape: Shape, fault: &Fault, request_id: &str) -> Answer {
    let answer = Answer::json(&shape.error_body(fault, request_id)).status(fault.status);
    match &fault.header {
        Some((name, value)) => answer.header(name, value),
        None => answer,
    }
}
