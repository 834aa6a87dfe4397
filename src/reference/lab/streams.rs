//! Faults of streams: not read, not stopped, too slow.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::task::yield_now;
use tokio::time::sleep;
use tonic::{Response, Status, Streaming};

use super::bounds::{EndedBy, Held, millis};
use crate::pb::lab::{Chunk, FloodRequest, StuckReply, TrickleRequest};
use crate::reference::Drain;
use crate::reference::produce::produce;

const DEFAULT_CHUNK: u32 = 1_024;
/// Messages up to this size have a frame each.
const TINY: u32 = 64;
/// tonic's clients refuse messages over 4 MiB unless told otherwise.
const MAX_CHUNK: u32 = (4 << 20) - 1_024;
const DEFAULT_TOTAL: u64 = 256 << 20;
const MAX_TOTAL: u64 = 4 << 30;
const DEFAULT_EVERY: Duration = Duration::from_secs(1);
const MAX_EVERY: Duration = Duration::from_secs(60);

/// Keeps the request stream and never polls it: the client's window fills up.
pub async fn never_read(
    held: Held,
    requests: Streaming<Chunk>,
    drain: &Drain,
) -> Result<Response<StuckReply>, Status> {
    let ended_by = held.over(drain).await;
    drop(requests);
    Ok(held.reply(ended_by, 0))
}

/// Returns what it answers with, and so the headers, after the first message.
pub async fn answer_first_message(
    held: Held,
    mut requests: Streaming<Chunk>,
    drain: &Drain,
) -> Result<impl Stream<Item = Result<Chunk, Status>> + Send + use<>, Status> {
    tokio::select! {
        first = requests.message() => Ok(stream::iter(first?.map(Ok))),
        ended_by = held.over(drain) => end(ended_by).map(|()| stream::iter(None)),
    }
}

/// Awaits its bound: an answer that is owed, and does not come before that.
pub async fn never_answer(held: Held, drain: &Drain) -> Response<StuckReply> {
    let ended_by = held.over(drain).await;
    held.reply(ended_by, 0)
}

/// Sends as fast as flow control allows, whether or not the client reads.
pub fn flood(
    request: FloodRequest,
    drain: Drain,
) -> Result<impl Stream<Item = Result<Chunk, Status>> + Send, Status> {
    let FloodRequest { hold_ms, message_bytes, total_bytes } = request;
    if message_bytes > MAX_CHUNK {
        return Err(Status::invalid_argument("a message has at most 4 MiB less 1 KiB"));
    }
    let size = if message_bytes == 0 { DEFAULT_CHUNK } else { message_bytes };
    let total = if total_bytes == 0 { DEFAULT_TOTAL } else { total_bytes.min(MAX_TOTAL) };
    let data = Bytes::from(vec![0; size as usize]);
    let chunks = produce(move |mut out| async move {
        let held = Held::new(hold_ms);
        let send_all = async {
            let mut sent = 0;
            while sent < total {
                out.send(Chunk { data: data.clone() }).await;
                sent += u64::from(size);
            }
        };
        tokio::select! {
            () = send_all => Ok(()),
            ended_by = held.over(&drain) => end(ended_by),
        }
    });
    Ok(if size <= TINY { frame_each(chunks).left_stream() } else { chunks.right_stream() })
}

/// What is ready at once goes into one frame. These are never ready at once,
/// so each has a frame of its own.
fn frame_each<S: Stream>(chunks: S) -> impl Stream<Item = S::Item> {
    stream::unfold(Box::pin(chunks), |mut chunks| async move {
        yield_now().await;
        chunks.next().await.map(|chunk| (chunk, chunks))
    })
}

/// Sends a small message now and then: slow, but not stuck.
pub fn slow_trickle(
    request: TrickleRequest,
    drain: Drain,
) -> impl Stream<Item = Result<Chunk, Status>> + Send {
    let TrickleRequest { hold_ms, every_ms, message_bytes } = request;
    let message_bytes = if message_bytes == 0 { 4 } else { message_bytes.min(MAX_CHUNK) };
    let data = Bytes::from(vec![0; message_bytes as usize]);
    let every = millis(every_ms, DEFAULT_EVERY, MAX_EVERY);
    produce(move |mut out| async move {
        let held = Held::new(hold_ms);
        let trickle = async {
            loop {
                out.send(Chunk { data: data.clone() }).await;
                sleep(every).await;
            }
        };
        tokio::select! {
            () = trickle => Ok(()),
            ended_by = held.over(&drain) => end(ended_by),
        }
    })
}

/// A stream that was cut off by the drain says so; one that ran out just ends.
fn end(ended_by: EndedBy) -> Result<(), Status> {
    match ended_by {
        EndedBy::Drain => Err(Drain::status()),
        _ => Ok(()),
    }
}
