//! `taskprof.lab.v1.Lab`: ways to be stuck, each by its name.
//!
//! One file per family. Each fault is one function with the fault's name, so
//! that a dump that shows it can be judged at a glance.

mod bounds;
mod cancel;
mod channel;
mod locks;
mod memory;
mod streams;
mod thread;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::Drain;
use crate::pb::lab::{
    Chunk, CycleRequest, FloodRequest, HoldRequest, MemoryRequest, StuckReply, StuckRequest,
    TrickleRequest, lab_server,
};
use bounds::Held;

/// How long a method that reads no message lasts, in milliseconds: metadata.
pub const HOLD_MS: &str = "x-taskprof-hold-ms";

/// The service.
#[derive(Debug)]
pub struct Lab {
    drain: Drain,
    mutexes: Arc<locks::Mutexes>,
    memory: Arc<memory::Budget>,
}

impl Lab {
    pub fn new(drain: Drain) -> Self {
        Self { drain, mutexes: Arc::default(), memory: Arc::default() }
    }
}

/// What the metadata says of how long to be stuck.
fn hold_ms<T>(request: &Request<T>) -> Result<u64, Status> {
    let Some(value) = request.metadata().get(HOLD_MS) else { return Ok(0) };
    value
        .to_str()
        .ok()
        .and_then(|ms| ms.parse().ok())
        .ok_or_else(|| Status::invalid_argument(format!("{HOLD_MS} is a number of milliseconds")))
}

type Reply = Result<Response<StuckReply>, Status>;
type Chunks = Pin<Box<dyn Stream<Item = Result<Chunk, Status>> + Send>>;

#[tonic::async_trait]
impl lab_server::Lab for Lab {
    async fn block_thread(&self, request: Request<StuckRequest>) -> Reply {
        let held = Held::new(request.into_inner().hold_ms);
        Ok(thread::block_thread(held, &self.drain))
    }

    async fn busy_loop(&self, request: Request<StuckRequest>) -> Reply {
        let held = Held::new(request.into_inner().hold_ms);
        Ok(thread::busy_loop(held, &self.drain))
    }

    async fn hold_mutex(&self, request: Request<HoldRequest>) -> Reply {
        let HoldRequest { hold_ms, mutex } = request.into_inner();
        let mutex = self.mutexes.named(&mutex)?;
        locks::hold_mutex(Held::new(hold_ms), &mutex, &self.drain).await
    }

    async fn lock_cycle(&self, request: Request<CycleRequest>) -> Reply {
        let CycleRequest { hold_ms, first, second } = request.into_inner();
        if first == second {
            return Err(Status::invalid_argument("a cycle needs two mutexes with two names"));
        }
        let (first, second) = (self.mutexes.named(&first)?, self.mutexes.named(&second)?);
        locks::lock_cycle(Held::new(hold_ms), &first, &second, &self.drain).await
    }

    async fn wait_on_silent_channel(&self, request: Request<StuckRequest>) -> Reply {
        let held = Held::new(request.into_inner().hold_ms);
        channel::wait_on_silent_channel(held, &self.drain).await
    }

    async fn never_read(&self, request: Request<Streaming<Chunk>>) -> Reply {
        let held = Held::new(hold_ms(&request)?);
        streams::never_read(held, request.into_inner(), &self.drain).await
    }

    async fn never_answer(&self, request: Request<StuckRequest>) -> Reply {
        let held = Held::new(request.into_inner().hold_ms);
        Ok(streams::never_answer(held, &self.drain).await)
    }

    async fn long_poll(&self, request: Request<StuckRequest>) -> Reply {
        let held = Held::new(request.into_inner().hold_ms);
        Ok(streams::never_answer(held, &self.drain).await)
    }

    type KeepRequestsStream = Chunks;

    async fn keep_requests(
        &self,
        request: Request<Streaming<Chunk>>,
    ) -> Result<Response<Chunks>, Status> {
        let held = Held::new(hold_ms(&request)?);
        let requests = request.into_inner();
        Ok(Response::new(Box::pin(cancel::keep_requests(held, requests, &self.drain))))
    }

    type AnswerFirstMessageStream = Chunks;

    async fn answer_first_message(
        &self,
        request: Request<Streaming<Chunk>>,
    ) -> Result<Response<Chunks>, Status> {
        let held = Held::new(hold_ms(&request)?);
        let chunks = streams::answer_first_message(held, request.into_inner(), &self.drain).await?;
        Ok(Response::new(Box::pin(chunks)))
    }

    type FloodStream = Chunks;

    async fn flood(&self, request: Request<FloodRequest>) -> Result<Response<Chunks>, Status> {
        Ok(Response::new(Box::pin(streams::flood(request.into_inner(), self.drain.clone())?)))
    }

    type SlowTrickleStream = Chunks;

    async fn slow_trickle(
        &self,
        request: Request<TrickleRequest>,
    ) -> Result<Response<Chunks>, Status> {
        Ok(Response::new(Box::pin(streams::slow_trickle(request.into_inner(), self.drain.clone()))))
    }

    type LeaveTaskBehindStream = Chunks;

    async fn leave_task_behind(
        &self,
        request: Request<StuckRequest>,
    ) -> Result<Response<Chunks>, Status> {
        let held = Held::new(request.into_inner().hold_ms);
        Ok(Response::new(Box::pin(cancel::leave_task_behind(held, &self.drain))))
    }

    async fn ignore_cancellation(&self, request: Request<StuckRequest>) -> Reply {
        let held = Held::new(request.into_inner().hold_ms);
        cancel::ignore_cancellation(held, &self.drain).await
    }

    async fn exhaust_memory(&self, request: Request<MemoryRequest>) -> Reply {
        let MemoryRequest { hold_ms, bytes } = request.into_inner();
        memory::exhaust_memory(Held::new(hold_ms), bytes, &self.memory, &self.drain).await
    }
}
