//! Counts what goes through an accepted socket.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::registry::connections::ConnectionCell;

pin_project! {
    /// A socket whose bytes count.
    pub(super) struct Counted<I> {
        #[pin]
        io: I,
        cell: Arc<ConnectionCell>,
    }
}

impl<I> Counted<I> {
    pub(super) fn new(io: I, cell: Arc<ConnectionCell>) -> Self {
        Self { io, cell }
    }
}

impl<I: AsyncRead> AsyncRead for Counted<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buf.filled().len();
        ready!(this.io.poll_read(cx, buf))?;
        let bytes = buf.filled().len() - before;
        if bytes > 0 {
            this.cell.read(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

/// Notes how a write went.
fn note(cell: &ConnectionCell, result: &Poll<io::Result<usize>>) {
    match result {
        Poll::Ready(Ok(bytes)) => cell.written(*bytes),
        Poll::Ready(Err(_)) => {}
        Poll::Pending => cell.write_blocked(),
    }
}

impl<I: AsyncWrite> AsyncWrite for Counted<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let result = this.io.poll_write(cx, buf);
        note(this.cell, &result);
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let result = this.io.poll_write_vectored(cx, bufs);
        note(this.cell, &result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_shutdown(cx)
    }
}
