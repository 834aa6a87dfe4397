//! Client traffic: real tonic clients against any server, by named scenario.

mod resets;
mod scenario;
mod stats;
mod stuck;
mod traffic;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::error::{Error, ErrorKind, Result};
use crate::instrument::grpc::heartbeat;

pub use scenario::{SCENARIOS, Scenario, find};
pub use stats::{Latencies, Stats};
pub use wire::{Dial, Wire};

/// How long calls may take to end by themselves once they are asked to.
const GRACE: Duration = Duration::from_millis(500);

/// Pause after a failed call, doubled up to the most: a server that is down is
/// not hammered.
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MOST: Duration = Duration::from_secs(2);

/// How long a worker is taken at a time, unless told otherwise: a permanent
/// block would freeze the server that is to be looked at.
pub const HOLD: Duration = Duration::from_secs(3);

/// What to send where.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub target: SocketAddr,
    /// Calls under way at one time.
    pub streams: u32,
    /// Connections that they share; never more than streams.
    pub connections: u32,
    /// How long a worker is taken at a time, where that is the scenario.
    pub hold: Duration,
    /// How connections are made.
    pub dial: Dial,
    /// Ends it.
    pub stop: CancellationToken,
}

/// How a call ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As gRPC means it.
    Complete,
    /// Left by the client, because that is the scenario.
    Abandoned,
}

/// One of the calls that are under way at one time; it makes one after the other.
#[derive(Clone)]
pub struct Caller {
    target: SocketAddr,
    channel: Wire,
    stats: Arc<Stats>,
    stop: CancellationToken,
    hold: Duration,
    /// 0, 1, 2... among its scenario's callers.
    index: u32,
}

type CallResult = std::result::Result<Ending, Status>;

impl Caller {
    /// Pauses; false if it is time to stop.
    async fn pause(&self, pause: Duration) -> bool {
        tokio::select! {
            () = sleep(pause) => true,
            () = self.stop.cancelled() => false,
        }
    }
}

/// Runs a scenario until the plan's `stop`.
///
/// # Errors
/// `Io` if no connection can be made at the start. Calls that fail later are
/// counted and tried again.
pub async fn run(scenario: &'static Scenario, plan: Plan, stats: Arc<Stats>) -> Result<()> {
    let mut channels = Vec::new();
    for _ in 0..plan.connections.clamp(1, plan.streams.max(1)) {
        tokio::select! {
            channel = plan.dial.connect(plan.target) => channels.push(channel?),
            () = plan.stop.cancelled() => return Ok(()),
        }
    }
    let mut heartbeats = JoinSet::new();
    if let Some(every) = plan.dial.heartbeat {
        for channel in &channels {
            heartbeats.spawn(heartbeat::keep(channel.clone(), every));
        }
    }
    let mut callers = JoinSet::new();
    for (index, channel) in (0..plan.streams).zip(channels.iter().cycle()) {
        callers.spawn(call_again_and_again(
            scenario,
            Caller {
                target: plan.target,
                channel: channel.clone(),
                stats: stats.clone(),
                stop: plan.stop.clone(),
                hold: plan.hold,
                index,
            },
        ));
    }
    while let Some(ended) = callers.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            return Err(Error::new(ErrorKind::Internal, "a caller panicked").with_source(error));
        }
    }
    Ok(())
}

async fn call_again_and_again(scenario: &'static Scenario, caller: Caller) {
    let mut backoff = BACKOFF;
    while !caller.stop.is_cancelled() {
        caller.stats.begin();
        let cut = async {
            caller.stop.cancelled().await;
            sleep(GRACE).await;
        };
        let result = tokio::select! {
            result = (scenario.call)(caller.clone()) => result,
            () = cut => Ok(Ending::Abandoned),
        };
        let failed = result.is_err();
        caller.stats.end(result);
        if failed {
            caller.pause(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MOST);
        } else {
            backoff = BACKOFF;
        }
    }
}
