//! What every request passes on its way in, and every answer on its way out.

use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue,
    REFERRER_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::FutureExt as _;

use super::server::Shared;
use super::{assets, problem};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'";

/// On every answer, refusals included.
pub(super) const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (CACHE_CONTROL, "no-store"),
    (REFERRER_POLICY, "no-referrer"),
];

/// The outermost layer.
pub async fn gate(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    shared.stats.requests.add(1);
    let mut response = match admit(&shared, &request) {
        Err(refusal) => {
            shared.stats.refused.add(1);
            refusal
        }
        Ok(()) => match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => response,
            Err(payload) => {
                // Its drop may panic again.
                std::mem::forget(payload);
                shared.stats.panics.add(1);
                problem::text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "a panic inside the profiler was caught; the server goes on",
                )
            }
        },
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[expect(clippy::result_large_err, reason = "the refusal is the answer")]
fn admit(shared: &Shared, request: &Request) -> Result<(), Response> {
    if request.uri().to_string().len() > shared.config.limits.uri_bytes {
        return Err(problem::text(
            StatusCode::URI_TOO_LONG,
            format!("the path and query may have {} bytes", shared.config.limits.uri_bytes),
        ));
    }
    shared
        .guard
        .check(request.uri(), request.headers())
        .map_err(|refusal| problem::text(refusal.status, refusal.text))?;
    let Some(token) = &shared.config.token else { return Ok(()) };
    // The page itself holds no data, and it is where a person enters the token.
    let page = matches!(*request.method(), Method::GET | Method::HEAD)
        && assets::find(request.uri().path()).is_some();
    if page || presented(request.headers()).is_some_and(|presented| token.matches(presented)) {
        return Ok(());
    }
    if shared.failures.admit(Instant::now()) {
        let mut response =
            problem::text(StatusCode::UNAUTHORIZED, "send the token as Authorization: Bearer ...");
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return Err(response);
    }
    Err(problem::text(StatusCode::TOO_MANY_REQUESTS, "too many requests without the right token"))
}

/// The bearer token; none if the header is there twice.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

/// Failed attempts within the current second.
#[derive(Debug)]
pub struct Failures {
    most: u32,
    window: Mutex<Option<(Instant, u32)>>,
}

impl Failures {
    pub fn new(most: u32) -> Self {
        Self { most, window: Mutex::new(None) }
    }

    /// Counts one; false once there were too many within a second.
    fn admit(&self, now: Instant) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *window {
            Some((begun, count)) if now.duration_since(*begun) < Duration::from_secs(1) => {
                *count = count.saturating_add(1);
                *count <= self.most
            }
            _ => {
                *window = Some((now, 1));
                self.most > 0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_failures_a_second() {
        let failures = Failures::new(10);
        let now = Instant::now();
        assert!((0..10).all(|_| failures.admit(now)));
        assert!(!failures.admit(now + Duration::from_millis(999)));
        assert!(failures.admit(now + Duration::from_millis(1000)));
    }

    #[test]
    fn only_one_bearer_token_counts() {
        let mut headers = HeaderMap::new();
        assert_eq!(presented(&headers), None);
        headers.append(AUTHORIZATION, HeaderValue::from_static("bearer abc"));
        assert_eq!(presented(&headers), Some(&b"abc"[..]));
        headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer abc"));
        assert_eq!(presented(&headers), None);
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Basic abcdefgh"));
        assert_eq!(presented(&headers), None);
    }
}
