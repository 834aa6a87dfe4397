//! The `Instrument` service: one method for each thing the client asks.

use std::sync::Arc;

use console_api::instrument::instrument_server::Instrument;
use console_api::instrument::{
    InstrumentRequest, PauseRequest, PauseResponse, ResumeRequest, ResumeResponse, State,
    StateRequest, TaskDetailsRequest, Temporality, Update,
};
use console_api::tasks::TaskDetails;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tonic::{Request, Response, Status};

use super::feed::{Feed, Kind, Watcher};
use super::ledger::{Ledger, PAGE_BYTES};
use super::wire;

type Streamed<T> = Result<Response<BoxStream<'static, Result<T, Status>>>, Status>;

pub(super) struct Service {
    pub feed: Arc<Feed>,
}

#[tonic::async_trait]
impl Instrument for Service {
    type WatchUpdatesStream = BoxStream<'static, Result<Update, Status>>;
    type WatchTaskDetailsStream = BoxStream<'static, Result<TaskDetails, Status>>;
    type WatchStateStream = BoxStream<'static, Result<State, Status>>;

    async fn watch_updates(&self, _: Request<InstrumentRequest>) -> Streamed<Update> {
        let updates = Updates {
            watcher: self.feed.admit(Kind::Updates)?,
            ledger: Ledger::default(),
            sweep: 0,
            between: true,
        };
        Ok(Response::new(stream::unfold(updates, Updates::next).boxed()))
    }

    async fn watch_task_details(
        &self,
        request: Request<TaskDetailsRequest>,
    ) -> Streamed<TaskDetails> {
        let id = request.into_inner().id.map(|id| id.id).filter(|id| *id != 0);
        let id = id.ok_or_else(|| Status::invalid_argument("the request names no task"))?;
        let details = Details { watcher: self.feed.admit(Kind::Details)?, id, number: 0 };
        Ok(Response::new(stream::unfold(Some(details), Details::next).boxed()))
    }

    async fn watch_state(&self, _: Request<StateRequest>) -> Streamed<State> {
        let watcher = self.feed.admit(Kind::State)?;
        let states = stream::unfold((watcher, true), async |(mut watcher, first)| {
            let paused = watcher.pause_change(first).await?;
            let temporality = if paused { Temporality::Paused } else { Temporality::Live };
            Some((Ok(State { temporality: temporality.into() }), (watcher, false)))
        });
        Ok(Response::new(states.boxed()))
    }

    async fn pause(&self, _: Request<PauseRequest>) -> Result<Response<PauseResponse>, Status> {
        self.feed.pause(true);
        Ok(Response::new(PauseResponse {}))
    }

    async fn resume(&self, _: Request<ResumeRequest>) -> Result<Response<ResumeResponse>, Status> {
        self.feed.pause(false);
        Ok(Response::new(ResumeResponse {}))
    }
}

/// The updates of one client. A page is only made when the transport asks for
/// it, so a client that does not read holds one page and its ledger.
struct Updates {
    watcher: Watcher,
    ledger: Ledger,
    /// Number of the snapshot that the last sweep began with.
    sweep: u64,
    between: bool,
}

impl Updates {
    async fn next(mut self) -> Option<(Result<Update, Status>, Self)> {
        let frame = if self.between {
            let frame = self.watcher.after(self.sweep).await?;
            if self.sweep > 0 {
                self.watcher.skipped(frame.number - self.sweep - 1);
            }
            self.sweep = frame.number;
            frame
        } else {
            self.watcher.after(0).await?
        };
        let page = self.ledger.page(&frame.snapshot, PAGE_BYTES);
        self.between = page.last;
        Some((Ok(page.update), self))
    }
}

/// Updates on one task until it is gone.
///
/// How long each poll took, and each wait in a run queue, is not recorded, and
/// a distribution cannot be had from totals: both histograms are left out and
/// the client leaves their places empty.
struct Details {
    watcher: Watcher,
    id: u64,
    number: u64,
}

impl Details {
    async fn next(details: Option<Self>) -> Option<(Result<TaskDetails, Status>, Option<Self>)> {
        let mut details = details?;
        let frame = details.watcher.after(details.number).await?;
        let first = std::mem::replace(&mut details.number, frame.number) == 0;
        if frame.snapshot.tasks.binary_search_by_key(&details.id, |task| task.id.0).is_err() {
            let gone = Status::not_found(format!("there is no task {} alive", details.id));
            return first.then_some((Err(gone), None));
        }
        let update = TaskDetails {
            task_id: Some(details.id.into()),
            now: Some(wire::timestamp(frame.snapshot.taken_at.unix_nanos())),
            poll_times_histogram: None,
            scheduled_times_histogram: None,
        };
        Some((Ok(update), Some(details)))
    }
}
