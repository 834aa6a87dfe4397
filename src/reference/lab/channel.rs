//! Faults with channels.

use tokio::sync::mpsc;
use tonic::{Response, Status};

use super::bounds::{EndedBy, Held};
use crate::pb::lab::StuckReply;
use crate::reference::Drain;

/// Waits for a message that nobody will send: the sender is alive, so the
/// channel does not end either.
pub async fn wait_on_silent_channel(
    held: Held,
    drain: &Drain,
) -> Result<Response<StuckReply>, Status> {
    let (sender, mut receiver) = mpsc::channel::<()>(1);
    let ended_by = tokio::select! {
        _ = receiver.recv() => EndedBy::Released,
        ended_by = held.over(drain) => ended_by,
    };
    drop(sender);
    Ok(held.reply(ended_by, 0))
}
