//! Faults, and the error body that each platform gives them.

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

/// Whose wire shape a request speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    OpenAi,
    DashScope,
    Anthropic,
    Deepgram,
}

/// Why a request is refused, before any platform's wording.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// `None`: the platform's usual code for the status.
    pub(crate) code: Option<String>,
    /// The request field at fault (OpenAI only).
    pub(crate) param: Option<String>,
    /// The `Allow` header of a 405, the `Content-Range` of a 416.
    pub(crate) header: Option<(&'static str, String)>,
}

impl Fault {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Fault {
        Fault { status, message: message.into(), code: None, param: None, header: None }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Fault {
        Fault::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn missing(param: &str) -> Fault {
        Fault::bad_request(format!("Missing required parameter: '{param}'."))
            .code("missing_required_parameter")
            .param(param)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Fault {
        Fault::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn too_large(message: impl Into<String>) -> Fault {
        Fault::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    pub(crate) fn code(mut self, code: impl Into<String>) -> Fault {
        self.code = Some(code.into());
        self
    }

    pub(crate) fn param(mut self, param: impl Into<String>) -> Fault {
        self.param = Some(param.into());
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Fault {
        self.header = Some((name, value.into()));
        self
    }

    /// What a platform says when a scenario asks for a status.
    pub(crate) fn scripted(status: StatusCode) -> Fault {
        let message = match status.as_u16() {
            401 => "Incorrect API key provided.",
            403 => "You are not allowed to do this.",
            404 => "The requested resource was not found.",
            429 => "Rate limit reached for requests. Please try again later.",
            500 => "The server had an error while processing your request. Sorry about that!",
            503 | 529 => "The engine is currently overloaded, please try again later.",
            n if n >= 500 => "The server could not answer in time.",
            _ => "The request was refused, as the x-sandbox header asked.",
        };
        Fault::new(status, message)
    }
}

impl Shape {
    /// The shape that a path speaks. OpenAI and Anthropic share `/v1/models`: there the
    /// `anthropic-version` header tells them apart.
    pub(crate) fn of(path: &str, headers: &HeaderMap) -> Shape {
        let below =
            |base: &str| path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if below("/v1/messages")
            || below("/apps/anthropic")
            || (below("/v1/models") && headers.contains_key("anthropic-version"))
        {
            Shape::Anthropic
        } else if below("/api/v1") {
            Shape::DashScope
        } else if below("/v1/listen") {
            Shape::Deepgram
        } else {
            Shape::OpenAi
        }
    }

    /// The header that carries the request id.
    pub(crate) fn request_id_header(self) -> &'static str {
        match self {
            Shape::Anthropic => "request-id",
            Shape::OpenAi | Shape::DashScope => "x-request-id",
            Shape::Deepgram => "dg-request-id",
        }
    }

    pub(crate) fn error_body(self, fault: &Fault, request_id: &str) -> Value {
        match self {
            Shape::OpenAi => {
                let (kind, usual) = openai_kind(fault.status);
                let code = fault.code.as_deref().or(usual);
                // The one type that follows the code: SDK users tell it from a rate limit by it.
                let kind = match code {
                    Some("insufficient_quota") => "insufficient_quota",
                    _ => kind,
                };
                json!({"error": {
                    "message": fault.message, "type": kind, "param": fault.param, "code": code,
                }})
            }
            Shape::Anthropic => {
                let kind = match (&fault.code, fault.status) {
                    // A code that only OpenAI has does not make an Anthropic type.
                    (Some(code), _) if code.ends_with("_error") => code,
                    (_, status) => anthropic_kind(status),
                };
                json!({
                    "type": "error",
                    "error": {"type": kind, "message": fault.message},
                    "request_id": request_id,
                })
            }
            Shape::DashScope => {
                let usual = dashscope_code(fault.status);
                json!({
                    "code": fault.code.as_deref().map_or(usual, |code| match code {
                        "missing_required_parameter" => usual,
                        "model_not_found" => "ModelNotFound",
                        code => code,
                    }),
                    "message": fault.message,
                    "request_id": request_id,
                })
            }
            Shape::Deepgram => json!({
                "err_code": fault.code.as_deref().unwrap_or(match fault.status.as_u16() {
                    401 => "INVALID_AUTH",
                    429 => "TOO_MANY_REQUESTS",
                    500.. => "INTERNAL_SERVER_ERROR",
                    _ => "Bad Request",
                }),
                "err_msg": fault.message,
                "request_id": request_id,
            }),
        }
    }
}

/// OpenAI's `type` and usual `code`.
fn openai_kind(status: StatusCode) -> (&'static str, Option<&'static str>) {
    match status.as_u16() {
        401 => ("invalid_request_error", Some("invalid_api_key")),
        403 => ("request_forbidden", Some("unsupported_country_region_territory")),
        405 => ("invalid_request_error", Some("method_not_supported")),
        429 => ("requests", Some("rate_limit_exceeded")),
        503 => ("server_error", Some("server_is_overloaded")),
        500.. => ("server_error", Some("server_error")),
        _ => ("invalid_request_error", None),
    }
}

fn anthropic_kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

fn dashscope_code(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "InvalidApiKey",
        403 => "AccessDenied",
        404 => "NotFound",
        408 => "RequestTimeOut",
        429 => "Throttling.RateQuota",
        503 => "ModelServingError",
        504 => "RequestTimeOut",
        500.. => "InternalError",
        _ => "InvalidParameter",
    }
}
