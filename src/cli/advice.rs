//! Which option helps where an address cannot be had.

use std::path::Path;

use super::Failure;
use crate::error::{Error, ErrorKind};

/// Says it of an error of the profiler's servers, of which one may listen on a
/// Unix socket. The error itself names what it could not have.
pub fn on_bind(error: Error, unix: Option<&Path>) -> Failure {
    if error.kind() != ErrorKind::Bind {
        return error.into();
    }
    let text = error.to_string();
    let option = if unix.is_some_and(|path| text.contains(&path.display().to_string())) {
        "--unix PATH"
    } else if text.contains("tokio-console") {
        "--console ADDR"
    } else {
        "--http ADDR"
    };
    Failure::failed(format!("{text}; choose another with {option}"))
}
