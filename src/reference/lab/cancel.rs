//! Faults around cancellation: work that goes on though nobody wants it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, Streaming};

use super::bounds::{EndedBy, Held};
use crate::instrument::scope;
use crate::pb::lab::{Chunk, StuckReply};
use crate::reference::Drain;
use crate::reference::produce::produce;

/// Spawns a task that feeds the response stream and, when the client is gone,
/// does not notice: it sends nothing more, it only holds the sender.
pub fn leave_task_behind(
    held: Held,
    drain: &Drain,
) -> impl Stream<Item = Result<Chunk, Status>> + Send + use<> {
    let (sender, mut receiver) = mpsc::channel(1);
    let drain_of_task = drain.clone();
    drain.spawn(async move { left_behind(sender, held, drain_of_task).await });
    produce(move |mut out| async move {
        while let Some(chunk) = receiver.recv().await {
            out.send(chunk).await;
        }
        Ok(())
    })
}

async fn left_behind(sender: mpsc::Sender<Chunk>, held: Held, drain: Drain) {
    // The result says whether anybody still listens. Not looking at it is the fault.
    let _ = sender.send(Chunk { data: Bytes::from_static(b"the only one") }).await;
    held.over(&drain).await;
    drop(sender);
}

/// Gives the requests to a task that neither reads nor drops them: the stream
/// cannot go away while it is held, whatever becomes of the call.
pub fn keep_requests(
    held: Held,
    requests: Streaming<Chunk>,
    drain: &Drain,
) -> impl Stream<Item = Result<Chunk, Status>> + Send + use<> {
    let drain_of_task = drain.clone();
    drain.spawn(async move { keeps_requests(requests, held, drain_of_task).await });
    let drain = drain.clone();
    produce(move |mut out| async move {
        out.send(Chunk { data: Bytes::from_static(b"the only one") }).await;
        held.over(&drain).await;
        Ok(())
    })
}

async fn keeps_requests(requests: Streaming<Chunk>, held: Held, drain: Drain) {
    held.over(&drain).await;
    drop(requests); // held until here, unread
}

/// Works in a task of its own; when the call is cancelled the task learns of
/// it and goes on.
pub async fn ignore_cancellation(
    held: Held,
    drain: &Drain,
) -> Result<Response<StuckReply>, Status> {
    let cancelled = CancellationToken::new();
    let guard = cancelled.clone().drop_guard();
    // Where a profiler serves the stream it has a token. Else what tells is
    // that this future is dropped.
    let cancelled = scope::current().map_or(cancelled, |scope| scope.token());
    let drain_of_task = drain.clone();
    let work = drain.spawn(async move { goes_on_regardless(cancelled, held, drain_of_task).await });
    let ended_by =
        work.await.map_err(|_| Status::internal("the task that ignores cancellation panicked"))?;
    drop(guard);
    Ok(held.reply(ended_by, 0))
}

async fn goes_on_regardless(cancelled: CancellationToken, held: Held, drain: Drain) -> EndedBy {
    let work = async {
        cancelled.cancelled().await;
        tracing::debug!("the call was cancelled; going on all the same");
        loop {
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = work => EndedBy::Released,
        ended_by = held.over(&drain) => ended_by,
    }
}
