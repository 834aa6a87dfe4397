//! Answers that are not what was asked for.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::error::{Error, ErrorKind};
use crate::render::json;

/// Why a JSON request could not be answered, as status and sentence.
#[derive(Debug)]
pub struct Problem {
    pub status: StatusCode,
    pub error: String,
    pub expected: Option<String>,
}

impl Problem {
    /// A parameter that makes no sense, and what would.
    pub fn bad(error: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error: error.into(),
            expected: Some(expected.into()),
        }
    }

    /// Nothing by that id.
    pub fn not_found(error: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, error: error.into(), expected: None }
    }
}

/// The status of an error of ours.
pub fn status(error: &Error) -> StatusCode {
    match error.kind() {
        ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Busy | ErrorKind::OutOfMemory | ErrorKind::Timeout => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        Self { status: status(error), error: error.to_string(), expected: None }
    }
}

impl From<std::sync::Arc<Error>> for Problem {
    fn from(error: std::sync::Arc<Error>) -> Self {
        Self::from(&*error)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, error, expected } = self;
        let body = json::to_vec(&json::ProblemAnswer { error, expected });
        let mut response = (status, [(CONTENT_TYPE, "application/json")], body).into_response();
        later(&mut response);
        response
    }
}

/// Says when to come again, where that helps.
fn later(response: &mut Response) {
    if matches!(response.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
    {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
}

/// A sentence as text, for people and for tools that expect Go.
pub fn text(status: StatusCode, text: impl Into<String>) -> Response {
    let mut text = text.into();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let mut response =
        (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response();
    later(&mut response);
    response
}
