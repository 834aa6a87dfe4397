//! A connection whose client must take bytes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::stats::Stats;

/// Fails a write that has made no progress for `patience`: the client was
/// stopped, or its network is a black hole. Without this it would hold a
/// connection, and perhaps a dump, for as long as TCP retries.
pub struct TimedWrites<C> {
    inner: C,
    patience: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
    stats: Arc<Stats>,
}

impl<C> TimedWrites<C> {
    pub fn new(inner: C, patience: Duration, stats: Arc<Stats>) -> Self {
        Self { inner, patience, stuck: None, stats }
    }

    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        progress: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.stuck = None;
            return progress;
        }
        let patience = self.patience;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(patience)));
        if stuck.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        stuck.as_mut().reset(Instant::now() + patience);
        self.stats.write_timeouts.add(1);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for TimedWrites<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for TimedWrites<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.watch(cx, progress)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.watch(cx, progress)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_cut_and_a_slow_one_is_not() {
        let stats = Arc::new(Stats::default());
        let patience = Duration::from_secs(20);

        let (ours, _theirs) = tokio::io::duplex(64);
        let begun = Instant::now();
        let error = TimedWrites::new(ours, patience, Arc::clone(&stats))
            .write_all(&[0; 65])
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), patience);
        assert_eq!(stats.write_timeouts.get(), 1);

        let (ours, mut theirs) = tokio::io::duplex(64);
        let reader = tokio::spawn(async move {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(19)).await;
                theirs.read_exact(&mut [0; 64]).await.unwrap();
            }
        });
        TimedWrites::new(ours, patience, Arc::clone(&stats)).write_all(&[0; 640]).await.unwrap();
        reader.await.unwrap();
        assert_eq!(stats.write_timeouts.get(), 1);
    }
}
