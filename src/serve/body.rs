//! Answer bodies that are rendered while they are sent.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::Stream;
use tokio::task::AbortHandle;

use super::stats::Stats;
use crate::render::Chunks;
use crate::sys::thread;

/// Bytes of a chunk: rendering one takes well under a millisecond.
const CHUNK: usize = 64 * 1024;

/// A client has to have taken its answer by then, though it take a little all
/// the time: two that trickle would keep everybody else from dumps for ever. A
/// dump of 100,000 tasks gets through at half a megabyte a second.
const DEADLINE: Duration = Duration::from_secs(120);

/// Sends what `chunks` renders. Only one chunk exists at a time: a dump of
/// 100,000 tasks needs 64 KiB beyond its snapshot, and a client that does not
/// read stops the rendering. After every chunk the thread serves others.
///
/// A panic while rendering breaks the connection off: the client sees that the
/// answer is incomplete. So does the deadline, at which the snapshot goes
/// whether the client asks for more or not.
pub fn streamed(chunks: impl Chunks, stats: &Arc<Stats>) -> Body {
    let rest: Arc<Rest> = Arc::new(Mutex::new(Some(Box::new(chunks))));
    let (late, counted) = (Arc::downgrade(&rest), Arc::clone(stats));
    let overdue = tokio::spawn(async move {
        tokio::time::sleep(DEADLINE).await;
        if late.upgrade().is_some_and(|late| lock(&late).take().is_some()) {
            counted.write_timeouts.add(1);
        }
    });
    Body::from_stream(Rendered {
        rest,
        done: false,
        pause: false,
        overdue: overdue.abort_handle(),
        stats: Arc::clone(stats),
    })
}

/// What is left to render.
type Rest = Mutex<Option<Box<dyn Chunks>>>;

fn lock(rest: &Rest) -> MutexGuard<'_, Option<Box<dyn Chunks>>> {
    rest.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Rendered {
    rest: Arc<Rest>,
    done: bool,
    pause: bool,
    overdue: AbortHandle,
    stats: Arc<Stats>,
}

impl Drop for Rendered {
    fn drop(&mut self) {
        self.overdue.abort();
    }
}

impl Stream for Rendered {
    type Item = Result<Bytes, &'static str>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.pause) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.done {
            return Poll::Ready(None);
        }
        // Locked meanwhile, so that the deadline does not come in between.
        let shared = Arc::clone(&self.rest);
        let mut rest = lock(&shared);
        let Some(mut chunks) = rest.take() else {
            self.done = true;
            return Poll::Ready(Some(Err("not taken in time")));
        };
        let rendered = catch_unwind(AssertUnwindSafe(move || {
            let mut out = Vec::with_capacity(CHUNK + CHUNK / 8);
            let mut more = true;
            while more && out.len() < CHUNK {
                more = chunks.next(&mut out);
                thread::give_way();
            }
            (out, more.then_some(chunks))
        }));
        Poll::Ready(match rendered {
            Ok((out, more)) => {
                (self.pause, self.done) = (more.is_some(), more.is_none());
                *rest = more;
                (!out.is_empty()).then(|| Ok(out.into()))
            }
            Err(payload) => {
                std::mem::forget(payload);
                self.done = true;
                self.stats.panics.add(1);
                Some(Err("a panic while rendering"))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    /// Renders one chunk, then panics.
    struct Broken(bool);

    impl Chunks for Broken {
        fn next(&mut self, out: &mut Vec<u8>) -> bool {
            assert!(!std::mem::replace(&mut self.0, true), "rendering panics");
            out.resize(CHUNK, b'x');
            true
        }
    }

    /// Renders for ever.
    struct Endless {
        _snapshot: Arc<()>,
    }

    impl Chunks for Endless {
        fn next(&mut self, out: &mut Vec<u8>) -> bool {
            out.resize(CHUNK, b'x');
            true
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_little_all_the_time_keeps_no_snapshot_for_ever() {
        let stats = Arc::new(Stats::default());
        let snapshot = Arc::new(());
        let mut body =
            streamed(Endless { _snapshot: Arc::clone(&snapshot) }, &stats).into_data_stream();
        assert!(body.next().await.is_some_and(|part| part.is_ok()));
        tokio::time::sleep(DEADLINE / 2).await;
        assert!(body.next().await.is_some_and(|part| part.is_ok()));
        assert_eq!(Arc::strong_count(&snapshot), 2);
        tokio::time::sleep(DEADLINE).await;
        assert_eq!(Arc::strong_count(&snapshot), 1, "gone, though nobody asked for more");
        assert!(body.next().await.is_some_and(|part| part.is_err()), "the client sees it");
        assert!(body.next().await.is_none());
        assert_eq!(stats.write_timeouts.get(), 1);
    }

    #[tokio::test]
    async fn a_panic_while_rendering_breaks_the_answer_off() {
        let stats = Arc::new(Stats::default());
        let body = streamed(Broken(false), &stats).into_data_stream();
        let parts: Vec<_> = body.collect().await;
        assert_eq!(parts.len(), 2);
        assert!(parts[0].as_ref().is_ok_and(|bytes| bytes.len() == CHUNK));
        assert!(parts[1].is_err(), "the client sees that it is not all");
        assert_eq!(stats.panics.get(), 1);
    }
}
