//! Response streams written as plain async code, without a task of their own.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use pin_project_lite::pin_project;
use tokio::sync::mpsc;
use tonic::Status;

/// Where an async block puts the messages of its response stream.
pub struct Outlet<T>(mpsc::Sender<T>);

impl<T> Outlet<T> {
    /// Sends one message; returns once the one before was taken, that is, no
    /// faster than the client reads.
    pub async fn send(&mut self, message: T) {
        // The receiver lives in the same `Produce` that polls this future, so
        // a closed channel cannot be seen from here.
        let _ = self.0.send(message).await;
    }
}

pin_project! {
    /// The stream of what an async block sends; its error ends the stream.
    ///
    /// The block runs inside the stream's own polls. There is no spawned task,
    /// so nothing can be left behind: when the client goes away the response
    /// body is dropped and the block with it, at its current await.
    #[must_use = "streams do nothing unless polled"]
    pub struct Produce<T, F> {
        #[pin]
        block: Option<F>,
        messages: mpsc::Receiver<T>,
        error: Option<Status>,
    }
}

/// Makes a response stream of an async block.
pub fn produce<T, F>(block: impl FnOnce(Outlet<T>) -> F) -> Produce<T, F>
where
    F: Future<Output = Result<(), Status>>,
{
    let (sender, messages) = mpsc::channel(1);
    Produce { block: Some(block(Outlet(sender))), messages, error: None }
}

impl<T, F: Future<Output = Result<(), Status>>> Stream for Produce<T, F> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        if let Some(block) = this.block.as_mut().as_pin_mut()
            && let Poll::Ready(end) = block.poll(cx)
        {
            // Drops the block and with it the sender: the channel ends after
            // what it still holds, and the error comes after that.
            this.block.set(None);
            *this.error = end.err();
        }
        match this.messages.poll_recv(cx) {
            Poll::Ready(Some(message)) => Poll::Ready(Some(Ok(message))),
            // A block that has dropped its outlet may still have its say.
            Poll::Ready(None) if this.block.is_none() => Poll::Ready(this.error.take().map(Err)),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn messages_come_before_the_error() {
        let stream = produce(|mut out: Outlet<u8>| async move {
            for n in 0..3 {
                out.send(n).await;
            }
            Err(Status::aborted("enough"))
        });
        let got: Vec<_> = stream.map(|item| item.map_err(|status| status.code())).collect().await;
        assert_eq!(got, [Ok(0), Ok(1), Ok(2), Err(tonic::Code::Aborted)]);
    }

    #[tokio::test]
    async fn runs_no_further_than_it_is_read() {
        let (seen, mut sent) = mpsc::unbounded_channel();
        let stream = produce(|mut out: Outlet<u8>| async move {
            for n in 0.. {
                out.send(n).await;
                let _ = seen.send(n);
            }
            Ok(())
        });
        tokio::pin!(stream);
        assert_eq!(stream.next().await.unwrap().unwrap(), 0);
        let mut ahead = 0;
        while sent.try_recv().is_ok() {
            ahead += 1;
        }
        assert_eq!(ahead, 1);
    }

    #[tokio::test]
    async fn dropping_it_drops_the_block() {
        let held = std::sync::Arc::new(());
        let inside = held.clone();
        let mut stream = Box::pin(produce(|_out: Outlet<u8>| async move {
            std::future::pending::<()>().await;
            drop(inside);
            Ok(())
        }));
        assert!(futures_util::poll!(stream.next()).is_pending());
        drop(stream);
        assert_eq!(std::sync::Arc::strong_count(&held), 1);
    }
}
