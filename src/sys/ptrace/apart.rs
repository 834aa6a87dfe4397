//! A thread to trace from, gone for the kernel as well when it is over.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::sys::thread;

/// The kernel takes microseconds for it.
const PATIENCE: Duration = Duration::from_millis(500);

/// Runs this in a thread of its own and waits until the kernel has let go of
/// all that the thread traced. That comes last in a thread's end, after it can
/// be joined: whoever traces the same process next might else be refused.
///
/// # Errors
/// No thread can be started.
///
/// # Panics
/// As `run` does.
pub fn apart<T: Send>(name: &str, run: impl FnOnce() -> T + Send) -> io::Result<T> {
    let (outcome, tid) = std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name(name.to_owned());
        let tracer = builder.spawn_scoped(scope, || (run(), thread::current_tid()))?;
        let ended = tracer.join();
        Ok::<_, io::Error>(ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let task = format!("/proc/self/task/{tid}");
    let deadline = Instant::now() + PATIENCE;
    while Path::new(&task).exists() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    Ok(outcome)
}
