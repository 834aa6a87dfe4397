//! The application's heartbeat: its service, and who keeps one running.
//!
//! HTTP/2's PING is answered by the transport, a beat by a task: where PINGs
//! come back and beats do not, the process lives and its application is stuck.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use http_body::Body;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::client::GrpcService;
use tonic::{Code, Request, Response, Status, Streaming};

use super::call::Call;
use crate::instrument::scope::Scope;
use crate::pb::heartbeat::heartbeat_client::HeartbeatClient;
use crate::pb::heartbeat::heartbeat_server::{self, HeartbeatServer};
use crate::pb::heartbeat::{BeatRequest, BeatResponse};
use crate::registry::connections::ConnectionCell;

/// What a request may say of the time to the next beat.
const INTERVALS: std::ops::RangeInclusive<u64> = 1..=3_600_000;

/// Between two attempts to start a heartbeat, and after one that broke.
const AGAIN: Duration = Duration::from_secs(1);

/// A beat is not read sooner after the one before, however fast they come: no
/// bucket for messages holds a heartbeat up, so this has to bound its work.
const LEAST: Duration = Duration::from_millis(10);

/// Buckets for messages leave it alone.
pub(super) const PATH: &str = "/taskprof.heartbeat.v1.Heartbeat/Beat";

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The service `taskprof.heartbeat.v1.Heartbeat`.
///
/// It answers in the task of its stream, on the runtime that serves all
/// others: while that one is stuck, beats stay unanswered.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat(());

/// The service, ready to be added to [`Routes`](tonic::service::Routes).
pub fn service() -> HeartbeatServer<Heartbeat> {
    HeartbeatServer::new(Heartbeat(()))
}

#[tonic::async_trait]
impl heartbeat_server::Heartbeat for Heartbeat {
    type BeatStream = Pin<Box<dyn Stream<Item = Result<BeatResponse, Status>> + Send>>;

    async fn beat(
        &self,
        request: Request<Streaming<BeatRequest>>,
    ) -> Result<Response<Self::BeatStream>, Status> {
        let scope = request.extensions().get::<Scope>();
        // Without our accept loop nobody says, and the stream ends with its connection.
        let draining = request.extensions().get::<Draining>().cloned().unwrap_or_default();
        let heard = Noted(scope.and_then(|scope| scope.call().cell().connection_cell()));
        let state = (request.into_inner(), heard, draining, Instant::now());
        let answers = stream::try_unfold(state, |(mut beats, heard, draining, due)| async move {
            let next = async {
                sleep_until(due).await;
                beats.message().await
            };
            let beat = tokio::select! {
                beat = next => beat?,
                () = draining.0.cancelled() => None,
            };
            let Some(beat) = beat else { return Ok(None) };
            let ms = beat.interval_ms.clamp(*INTERVALS.start(), *INTERVALS.end());
            heard.note(|connection| connection.heartbeat.came(Duration::from_millis(ms)));
            let state = (beats, heard, draining, Instant::now() + LEAST);
            Ok(Some((BeatResponse { sequence: beat.sequence }, state)))
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// Keeps a heartbeat running on a channel, one beat each `every`, for as long
/// as it is polled: spawn it, and abort the task when the channel goes.
///
/// One for each connection is enough. A [`GrpcClient`](super::GrpcClient) shows
/// it with its connection; through any other channel only the server does.
/// Where the heartbeat breaks with its connection it is started anew.
///
/// A beat travels in a stream, so while a connection's window is used up beats
/// stay unanswered too: verdicts look at the windows first.
///
/// Returns only if the server does not have the service.
pub async fn keep<T>(channel: T, every: Duration) -> Status
where
    T: GrpcService<tonic::body::Body> + Clone,
    T::Error: Into<Error>,
    T::ResponseBody: Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<Error> + Send,
{
    let mut client = HeartbeatClient::new(channel);
    loop {
        if let Err(status) = beat(&mut client, every).await
            && status.code() == Code::Unimplemented
        {
            return status;
        }
        sleep(AGAIN).await;
    }
}

/// One heartbeat, until its stream ends.
async fn beat<T>(client: &mut HeartbeatClient<T>, every: Duration) -> Result<(), Status>
where
    T: GrpcService<tonic::body::Body>,
    T::Error: Into<Error>,
    T::ResponseBody: Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<Error> + Send,
{
    let follow = Follow::default();
    let (sender, mut beats) = mpsc::channel(1);
    let mut request = Request::new(stream::poll_fn(move |cx| beats.poll_recv(cx)));
    request.extensions_mut().insert(follow.clone());
    let mut answers = client.beat(request).await?.into_inner();
    // Known once the call is on the wire, which it is now.
    let noted = Noted(follow.0.get().and_then(|call| call.cell().connection_cell()));
    let interval_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
    let mut due = interval(every.max(Duration::from_millis(1)));
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut sent, mut answered) = (0, 0);
    loop {
        tokio::select! {
            // One at a time: a beat that is not answered is not asked again.
            _ = due.tick(), if sent == answered => {
                sent += 1;
                noted.note(|connection| connection.heartbeat.asked(every));
                let beat = BeatRequest { sequence: sent, interval_ms };
                if sender.send(beat).await.is_err() {
                    return Ok(());
                }
            }
            answer = answers.message() => match answer? {
                Some(BeatResponse { sequence }) if sequence == sent => {
                    answered = sequence;
                    noted.note(|connection| connection.heartbeat.answered());
                }
                Some(_) => {}
                None => return Ok(()),
            },
        }
    }
}

/// In a heartbeat's request: cancelled once its server takes no more calls. It
/// ends then, and does not hold the drain up.
#[derive(Clone, Debug, Default)]
pub(super) struct Draining(pub(super) CancellationToken);

/// The connection that a heartbeat is noted on; it ends there when dropped.
struct Noted(Option<Arc<ConnectionCell>>);

impl Noted {
    fn note(&self, how: impl FnOnce(&ConnectionCell)) {
        if let Some(connection) = &self.0 {
            how(connection);
        }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.note(|connection| connection.heartbeat.ended());
    }
}

/// In a request's extensions: whoever makes the call of it leaves it here.
#[derive(Clone, Default)]
pub(super) struct Follow(Arc<OnceLock<Arc<Call>>>);

impl Follow {
    /// Leaves the call, the first time.
    pub(super) fn leave(&self, call: &Arc<Call>) {
        let _ = self.0.set(call.clone());
    }
}

impl fmt::Debug for Follow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow").finish_non_exhaustive()
    }
}
