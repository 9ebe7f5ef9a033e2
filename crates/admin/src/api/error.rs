//! What a refused request is answered: one shape, `{"error": {"code", "message", "problems"}}`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::control::Refused;

pub(crate) use super::extract::{Body, Id, Params};

/// Seconds after which a busy or absent database is worth another attempt.
const DATABASE_RETRY: u64 = 2;

/// A refusal: what to answer instead of what was asked for.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    problems: Vec<FieldProblem>,
    /// Seconds.
    retry_after: Option<u64>,
}

/// What handlers give.
pub(crate) type ApiResult<T> = Result<T, ApiError>;

/// What is wrong with one field.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FieldProblem {
    /// The field's path in the body or in the catalog.
    #[schema(example = "users.u1.models[0]")]
    pub(crate) path: String,
    pub(crate) message: String,
    /// What was probably meant.
    pub(crate) suggestion: Option<String>,
}

/// Every refusal's body.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// For programs: does not change.
    #[schema(example = "not_found")]
    code: &'static str,
    /// For people.
    message: String,
    /// Field by field, where the body is at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<FieldProblem>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), problems: Vec::new(), retry_after: None }
    }

    pub(crate) fn with(mut self, problems: Vec<FieldProblem>) -> Self {
        self.problems = problems;
        self
    }

    /// Says after how many seconds the same request may succeed.
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(crate) fn not_found(kind: &str, id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("There is no {kind} `{id}`."))
    }

    pub(crate) fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// Somebody else changed it since it was read.
    pub(crate) fn precondition() -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "changed_meanwhile",
            "It was changed since you read it. Read it again, and repeat your change on what it is now.",
        )
    }

    pub(crate) fn precondition_required() -> Self {
        Self::new(
            StatusCode::PRECONDITION_REQUIRED,
            "if_match_required",
            "Give the ETag of what you read in `If-Match`, or `*` to change it whatever it is now.",
        )
    }

    pub(crate) fn invalid(problems: Vec<FieldProblem>) -> Self {
        let message = match problems.as_slice() {
            [one] => format!("{}: {}", one.path, one.message),
            many => format!("{} fields are not valid.", many.len()),
        };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message).with(problems)
    }

    /// One field of the body is at fault.
    pub(crate) fn field(path: &str, message: impl Into<String>) -> Self {
        Self::invalid(vec![FieldProblem { path: path.into(), message: message.into(), suggestion: None }])
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// The code that programs read; the outcome in audit records.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, code, message, problems, retry_after } = self;
        let body = Json(ErrorBody { error: ErrorDetail { code, message, problems } });
        let mut response = (status, body).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<aiproxy_store::Error> for ApiError {
    fn from(error: aiproxy_store::Error) -> Self {
        use aiproxy_store::Error;
        match error {
            Error::Busy => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "database_busy",
                "The database is busy with another change. Try again.",
            )
            .retry_after(DATABASE_RETRY),
            Error::Query(what) => Self::bad_request(what),
            Error::Constraint(what) => Self::conflict("conflict", what),
            error => {
                tracing::error!(%error, "the admin API cannot use the database");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "database_unavailable",
                    "The database cannot be used at the moment; the process log says why.",
                )
                .retry_after(DATABASE_RETRY)
            }
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::ManagedByFile => Self::conflict(
                "managed_by_file",
                "Users, groups, channels and keys come from the configuration file. Edit the file, or move \
                 them into the database with `aiproxy import`.",
            ),
            Refused::Unavailable(error) => error.into(),
            Refused::Invalid(faults) => Self::invalid(
                faults
                    .into_iter()
                    .map(|fault| FieldProblem {
                        path: fault.path,
                        message: fault.message,
                        suggestion: fault.suggestion,
                    })
                    .collect(),
            ),
        }
    }
}
