//! Watches an HTTP/2 connection from just above its socket.
//!
//! Bytes pass unchanged and unheld: the tap looks at what was read, and at
//! what the kernel took, after the fact. One uncontended lock for each call that
//! moved bytes, and a look at the clock for each PING, whose round trip is told;
//! nothing is allocated for a frame.

#[cfg(any(test, fuzzing))]
pub mod damage;
mod reader;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use reader::FrameReader;

use crate::instrument::task_id;
use crate::model::Side;
use crate::registry::clock;
use crate::registry::connections::ConnectionCell;
use crate::registry::wire::Wire;

pin_project! {
    /// A socket, or a TLS stream, whose frames are read along.
    pub struct Tap<I> {
        #[pin]
        io: I,
        watch: Watching,
    }

    impl<I> PinnedDrop for Tap<I> {
        fn drop(this: Pin<&mut Self>) {
            // Before the socket goes: its number is soon another's.
            let watch = this.project().watch;
            watch.wire.gone();
            watch.cell.close();
        }
    }
}

struct Watching {
    cell: Arc<ConnectionCell>,
    wire: Arc<Wire>,
    incoming: FrameReader,
    outgoing: FrameReader,
    /// The task that drives it is known.
    driven: bool,
}

impl<I> Tap<I> {
    /// Watches `io` for a connection whose cell was made for a tap.
    pub(super) fn new(io: I, cell: Arc<ConnectionCell>, wire: Arc<Wire>) -> Self {
        let (incoming, outgoing) = match cell.side() {
            Side::Server => (FrameReader::client(), FrameReader::server()),
            Side::Client => (FrameReader::server(), FrameReader::client()),
        };
        Self { io, watch: Watching { cell, wire, incoming, outgoing, driven: false } }
    }
}

impl<I> std::fmt::Debug for Tap<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap").field("connection", &self.watch.cell.id()).finish_non_exhaustive()
    }
}

impl Watching {
    fn read(&mut self, bytes: &[u8]) {
        if !self.driven {
            self.driven = true;
            if let Some(task) = task_id::current() {
                self.cell.driven_by(task);
            }
        }
        let now = clock::in_poll();
        self.cell.read(bytes.len(), now);
        self.wire.read_all(false);
        let mut writer = self.wire.writer(now);
        if self.incoming.feed(bytes, &mut |frame| writer.received(frame)).is_err() {
            writer.lost();
        }
        writer.finish();
    }

    /// The kernel took the first so many bytes of these.
    fn wrote<'a>(&mut self, mut taken: usize, buffers: impl Iterator<Item = &'a [u8]>) {
        let now = clock::in_poll();
        self.cell.written(taken, now);
        let mut writer = self.wire.writer(now);
        for buffer in buffers {
            let piece = &buffer[..buffer.len().min(taken)];
            taken -= piece.len();
            if self.outgoing.feed(piece, &mut |frame| writer.sent(frame)).is_err() {
                writer.lost();
            }
            if taken == 0 {
                break;
            }
        }
        writer.finish();
    }
}

impl<I: AsyncRead> AsyncRead for Tap<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buf.filled().len();
        let polled = this.io.poll_read(cx, buf);
        match polled {
            Poll::Ready(Ok(())) => {
                if let Some(bytes) = buf.filled().get(before..).filter(|bytes| !bytes.is_empty()) {
                    this.watch.read(bytes);
                }
            }
            Poll::Pending => this.watch.wire.read_all(true),
            Poll::Ready(Err(_)) => {}
        }
        polled
    }
}

impl<I: AsyncWrite> AsyncWrite for Tap<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let result = this.io.poll_write(cx, buf);
        match result {
            Poll::Ready(Ok(bytes)) => this.watch.wrote(bytes, std::iter::once(buf)),
            Poll::Pending => this.watch.cell.write_blocked(),
            Poll::Ready(Err(_)) => {}
        }
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let result = this.io.poll_write_vectored(cx, bufs);
        match result {
            Poll::Ready(Ok(bytes)) => this.watch.wrote(bytes, bufs.iter().map(|buf| &**buf)),
            Poll::Pending => this.watch.cell.write_blocked(),
            Poll::Ready(Err(_)) => {}
        }
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
