//! Ctrl-C and SIGTERM: the first asks for a clean end, the second does not ask.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Failure;

/// Exit code of a program that Ctrl-C killed, as shells report it.
const INTERRUPTED: i32 = 130;

/// A token that a signal, or the end of `limit`, cancels.
///
/// Signals have a thread and a runtime of their own: the server's workers may
/// all be blocked just when somebody wants it to end.
pub fn stop_token(limit: Option<Duration>) -> Result<CancellationToken, Failure> {
    let token = CancellationToken::new();
    let cannot = |error| Failure::failed(format!("cannot watch for Ctrl-C: {error}"));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot)?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (
            signal(SignalKind::interrupt()).map_err(cannot)?,
            signal(SignalKind::terminate()).map_err(cannot)?,
        )
    };
    let stop = token.clone();
    let watch = async move {
        let expired = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = expired => {}
            () = stop.cancelled() => {}
        }
        stop.cancel();
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        std::process::exit(INTERRUPTED);
    };
    std::thread::Builder::new()
        .name("taskprof-signals".into())
        .spawn(move || runtime.block_on(watch))
        .map_err(cannot)?;
    Ok(token)
}
