//! Answer bodies that are rendered while they are sent.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use futures_util::Stream;

use super::stats::Stats;
use crate::render::Chunks;
use crate::sys::thread;

/// Bytes of a chunk: rendering one takes well under a millisecond.
const CHUNK: usize = 64 * 1024;

/// Sends what `chunks` renders. Only one chunk exists at a time: a dump of
/// 100,000 tasks needs 64 KiB beyond its snapshot, and a client that does not
/// read stops the rendering. After every chunk the thread serves others.
///
/// A panic while rendering breaks the connection off: the client sees that the
/// answer is incomplete.
pub fn streamed(chunks: impl Chunks, stats: &Arc<Stats>) -> Body {
    Body::from_stream(Rendered {
        chunks: Some(Box::new(chunks)),
        pause: false,
        stats: Arc::clone(stats),
    })
}

struct Rendered {
    chunks: Option<Box<dyn Chunks>>,
    pause: bool,
    stats: Arc<Stats>,
}

impl Stream for Rendered {
    type Item = Result<Bytes, &'static str>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.pause) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(mut chunks) = self.chunks.take() else { return Poll::Ready(None) };
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
            Ok((out, rest)) => {
                self.pause = rest.is_some();
                self.chunks = rest;
                (!out.is_empty()).then(|| Ok(out.into()))
            }
            Err(payload) => {
                std::mem::forget(payload);
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
