//! One OpenTelemetry span for each gRPC stream, from its begin to its end.
//!
//! Spans are made when streams end, from the records that are kept anyway:
//! while a stream lives nothing is done for its span but to look, once a
//! second, whether its verdict has become an alarm. All of it, the exporters'
//! connections included, runs on a thread and a runtime of its own.
//!
//! ```text
//!   stream ends ─▶ bounded queue ─┐            ┌▶ OTLP over gRPC
//!   snapshot ─▶ verdicts ─▶ notes ┴▶ SpanData ─┴▶ Zipkin, v2 API
//! ```
//!
//! What finds no room, or is refused by a receiver, is counted.

mod export;
mod notes;
mod span;
#[cfg(test)]
mod tests;
// The exporter is deprecated in favour of OTLP, which later Zipkins take; the
// v2 API is what all of them have.
#[allow(deprecated)]
mod zipkin;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use opentelemetry_sdk::trace::SpanData;
use tokio::runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::error::{Error, Result};
use crate::model::{EndedStream, Snapshot, Timestamp};
use export::Exporters;
use notes::Notes;
use span::Maker;

/// How often ended streams are taken, and verdicts looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Spans of a request to a receiver.
const BATCH: usize = 512;

/// Batches made and not yet exported; what ends meanwhile stays in the queue.
const BATCHES: usize = 4;

/// How long the last spans may take to leave at the end.
const LAST: Duration = Duration::from_secs(1);

/// Where spans go, and under which name.
#[derive(Clone, Debug, Default)]
pub struct OtelConfig {
    pub(crate) otlp: Option<String>,
    pub(crate) zipkin: Option<String>,
    pub(crate) service: Option<String>,
}

impl OtelConfig {
    /// Nowhere yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// To an OTLP/gRPC receiver, such as `http://127.0.0.1:4317`.
    #[must_use]
    pub fn otlp(mut self, url: impl Into<String>) -> Self {
        self.otlp = Some(url.into());
        self
    }

    /// To Zipkin's v2 API, such as `http://127.0.0.1:9411/api/v2/spans`; without
    /// a path that one is meant.
    #[must_use]
    pub fn zipkin(mut self, url: impl Into<String>) -> Self {
        self.zipkin = Some(url.into());
        self
    }

    /// `service.name` of the spans. Default: the executable's name.
    #[must_use]
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.service = Some(name.into());
        self
    }
}

/// Where streams come from and what became of their spans goes to. Called from
/// the thread of this room alone.
pub trait Streams: Send + Sync + 'static {
    /// A snapshot of what lives, without tasks.
    ///
    /// # Errors
    /// None can be taken now.
    fn snapshot(&self) -> Result<Snapshot>;

    /// At most so many of the streams that have ended since, oldest first;
    /// their ages count from that instant.
    fn ended(&self, most: usize) -> (Timestamp, Vec<EndedStream>);

    /// A receiver took so many spans, and refused or missed so many.
    fn exported(&self, taken: u64, failed: u64);

    /// A panic was caught.
    fn panicked(&self);
}

/// Exports until it is dropped.
#[derive(Debug)]
pub struct Otel {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// Starts to export.
///
/// # Errors
/// `InvalidInput` for an address that is none, `Io` if no thread can be had.
pub fn start(config: &OtelConfig, process: &str, streams: Arc<dyn Streams>) -> Result<Otel> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("taskprof-otel-pool")
        .build()
        .map_err(|error| Error::io("cannot build the runtime for OpenTelemetry", error))?;
    let service = config.service.clone().unwrap_or_else(|| process.to_owned());
    // Exporters make their channels on the runtime that they are built in.
    let exporters = {
        let _inside = runtime.enter();
        Exporters::new(config, &service)?
    };
    let (stop, stopped) = watch::channel(false);
    let thread = std::thread::Builder::new()
        .name("taskprof-otel".into())
        .spawn(move || {
            runtime.block_on(run(exporters, streams, stopped));
            runtime.shutdown_background();
        })
        .map_err(|error| Error::io("cannot start the thread for OpenTelemetry", error))?;
    Ok(Otel { stop, thread: Some(thread) })
}

impl Otel {
    /// Begins to export the spans that are left, for a second at most, and to
    /// stop: dropping it waits for that.
    pub fn begin_shutdown(&self) {
        let _ = self.stop.send(true);
    }
}

impl Drop for Otel {
    fn drop(&mut self) {
        self.begin_shutdown();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the panic hook.
            let _ = thread.join();
        }
    }
}

async fn run(exporters: Exporters, streams: Arc<dyn Streams>, mut stop: watch::Receiver<bool>) {
    let (send, receive) = mpsc::channel(BATCHES);
    let exporting = tokio::spawn(exporters.run(receive, streams.clone()));
    let maker = Maker::default();
    let mut notes = Notes::default();
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let stopping = tokio::select! {
            _ = ticks.tick() => false,
            // An error means that the handle is gone, which is a stop too.
            _ = stop.wait_for(|stop| *stop) => true,
        };
        let round = AssertUnwindSafe(|| look(&*streams, &mut notes, &maker, &send));
        if let Err(payload) = catch_unwind(round) {
            // Its drop may panic again.
            std::mem::forget(payload);
            streams.panicked();
        }
        if stopping {
            break;
        }
    }
    drop(send);
    // What does not leave in time is lost with the process.
    let _ = timeout(LAST, exporting).await;
}

/// Looks at the verdicts, and makes spans of what has ended as long as there is
/// room for them.
fn look(
    streams: &dyn Streams,
    notes: &mut Notes,
    maker: &Maker,
    send: &mpsc::Sender<Vec<SpanData>>,
) {
    // Without one the next look knows better.
    if let Ok(shot) = streams.snapshot() {
        notes.look(&shot);
    }
    while let Ok(room) = send.try_reserve() {
        let (at, ended) = streams.ended(BATCH);
        if ended.is_empty() {
            break;
        }
        let spans = ended.into_iter().filter_map(|one| {
            let told = notes.take(one.stream.id);
            maker.span(at, one, told)
        });
        room.send(spans.collect());
    }
}
