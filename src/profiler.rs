//! [`Profiler`]: ties the sources to the debug server.

mod awaits;
mod builder;
#[cfg(feature = "grpc")]
mod grpc;
mod names;
#[cfg(feature = "otel")]
mod otel;
mod snapshot;
#[cfg(all(test, tokio_unstable))]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder as RuntimeBuilder, Handle};

use crate::analyze::{self, Trend};
#[cfg(feature = "console")]
use crate::console::ConsoleServer;
use crate::error::{Error, ErrorKind, Result};
use crate::inspect::since::Since;
use crate::inspect::threads::StackReader;
use crate::inspect::{CpuStack, cpu};
#[cfg(feature = "grpc")]
use crate::instrument::grpc::MetadataKeys;
use crate::instrument::runtime::{self, Hooks};
use crate::instrument::runtime_metrics::RuntimeFigures;
use crate::instrument::watchdog::Watchdog;
use crate::model::{CpuProfile, CpuSample, Process, Report, Snapshot, Task, TaskId, Timestamp};
#[cfg(feature = "otel")]
use crate::otel::Otel;
use crate::registry::{Registry, clock};
use crate::serve::{self, LogTarget, Source, Want};

use awaits::Awaits;
pub use builder::Builder;
use names::Names;

/// Watches the tokio runtimes and gRPC streams of this process, and answers
/// for them over HTTP.
///
/// Cheap to clone; all clones are one profiler. When the last one goes, the
/// debug server closes, as [`shutdown`](Self::shutdown) has it, and the watchdog
/// ends; runtimes that carry the hooks go on as before.
#[derive(Clone, Debug)]
pub struct Profiler {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    http: Mutex<Vec<serve::Server>>,
    http_addr: Option<SocketAddr>,
    #[cfg(feature = "console")]
    console: Mutex<Option<ConsoleServer>>,
    #[cfg(feature = "console")]
    console_addr: Option<SocketAddr>,
    #[cfg(feature = "otel")]
    otel: Mutex<Option<Otel>>,
    _watchdog: Watchdog,
    _warming: builder::Warming,
    core: Arc<Core>,
}

/// What snapshots are made from.
#[derive(Debug)]
struct Core {
    registry: Arc<Registry>,
    figures: RuntimeFigures,
    stacks: Arc<StackReader>,
    names: Arc<Names>,
    awaits: Arc<Awaits>,
    since: Mutex<Since>,
    trend: Mutex<Trend>,
    process: Process,
    started: u64,
    panics: Arc<AtomicU64>,
    #[cfg(feature = "grpc")]
    metadata: MetadataKeys,
}

impl Profiler {
    /// Starts to configure one.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Puts the hooks into a runtime that is about to be built.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let profiler = taskprof::Profiler::builder().http("127.0.0.1:6060").start()?;
    /// let runtime = profiler
    ///     .runtime(tokio::runtime::Builder::new_multi_thread())
    ///     .enable_all()
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    ///
    /// Without `--cfg tokio_unstable` tokio has no task hooks: the answers then
    /// say so and hold what the runtime's own counters and, with debug
    /// information, the process's memory tell.
    pub fn runtime(&self, builder: RuntimeBuilder) -> RuntimeBuilder {
        self.runtime_with("main", builder, Hooks::new())
    }

    /// The same for a runtime with a name, and with the application's own
    /// hooks, which tokio would otherwise replace.
    ///
    /// 254 runtimes are told apart at once. A multi-thread runtime makes room
    /// when its threads have ended. A current-thread runtime has none of its
    /// own whose end could be seen, and stays listed as long as the profiler
    /// lives: do not build one after the other through it. Of those beyond the
    /// bound `coverage` tells how many there are.
    pub fn runtime_with(
        &self,
        name: &str,
        mut builder: RuntimeBuilder,
        hooks: Hooks,
    ) -> RuntimeBuilder {
        let registry = &self.shared.core.registry;
        let cell = registry.runtimes.register(name, cfg!(tokio_unstable), None);
        runtime::install(registry, &cell, &mut builder, hooks);
        builder
    }

    /// Watches a runtime that exists already, such as that of `#[tokio::main]`:
    /// its own counters, its streams and, where await chains are read from
    /// memory, its tasks. Polls, busy times and blocked workers are not seen:
    /// for these the hooks must be there when it is built.
    ///
    /// It stays listed as long as the profiler lives, as one of 254: see
    /// [`runtime_with`](Self::runtime_with).
    pub fn watch(&self, name: &str, handle: &Handle) {
        self.shared.core.registry.runtimes.register(name, false, Some(handle.clone()));
    }

    /// Where the debug server listens, if it does on TCP.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.shared.http_addr
    }

    /// Where `tokio-console` can attach.
    #[cfg(feature = "console")]
    pub fn console_addr(&self) -> Option<SocketAddr> {
        self.shared.console_addr
    }

    /// Takes a snapshot, as the debug server does.
    ///
    /// # Errors
    /// None as yet: what could not be had, such as a copy of memory that the
    /// system refused, is in the snapshot's coverage.
    pub fn snapshot(&self, want: Want) -> Result<Snapshot> {
        self.shared.core.snapshot(want)
    }

    /// What is wrong now.
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot).
    pub fn findings(&self) -> Result<Report> {
        Ok(analyze::analyze(&self.snapshot(Want::ALL)?))
    }

    /// The program is about to end: the event streams of the debug server and
    /// the console begin to close, which takes them less than a second and is
    /// not waited for. What asks and is answered goes on until
    /// [`shutdown`](Self::shutdown), so that a program that will not end can
    /// still be asked why.
    pub fn close_streams(&self) {
        for server in &*locked(&self.shared.http) {
            server.close_events();
        }
        #[cfg(feature = "console")]
        if let Some(console) = &*locked(&self.shared.console) {
            console.begin_shutdown();
        }
    }

    /// Closes the debug server and the console: event streams end, connections
    /// close; and exports the spans that are left. All of it side by side,
    /// within little more than a second, whoever is connected. The watchdog and
    /// the accounting go on until the last clone goes. Later calls do nothing.
    pub fn shutdown(&self) {
        self.shared.end();
    }
}

impl Shared {
    /// Tells all servers to stop before it waits for the first: each may take
    /// most of a second.
    fn end(&self) {
        let http = std::mem::take(&mut *locked(&self.http));
        #[cfg(feature = "console")]
        let console = locked(&self.console).take();
        #[cfg(feature = "otel")]
        let otel = locked(&self.otel).take();
        for server in &http {
            server.begin_shutdown();
        }
        #[cfg(feature = "console")]
        if let Some(console) = &console {
            console.begin_shutdown();
        }
        #[cfg(feature = "otel")]
        if let Some(otel) = &otel {
            otel.begin_shutdown();
        }
        // They wait as they are dropped.
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.end();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tasks of a CPU profile whose place and method are remembered.
const PROFILED_TASKS: usize = 10_000;

impl Source for Core {
    fn process(&self) -> Process {
        self.process_now()
    }

    fn command_line(&self) -> Vec<String> {
        std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect()
    }

    fn snapshot(&self, want: Want) -> Result<Snapshot> {
        Ok(self.take(want))
    }

    fn cpu_profile(
        &self,
        duration: Duration,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<CpuProfile> {
        let started_at = Timestamp::now();
        let began = clock::now();
        let mut tasks: HashMap<TaskId, Option<Task>> = HashMap::new();
        let taken = cpu::cpu_profile(&self.stacks, duration, stop, &mut |id| {
            if tasks.len() < PROFILED_TASKS {
                tasks.entry(id).or_insert_with(|| self.registry.tasks.get(id, clock::now()));
            }
        })?;
        let now = clock::now();
        let untold = |sample: &&CpuStack| sample.task.is_some_and(|id| !tasks.contains_key(&id));
        let untold = taken.samples.iter().filter(untold).map(|sample| sample.count).sum();
        let samples = taken.samples.into_iter().map(|sample| {
            // Beyond the bound a task keeps its number, nothing else.
            let task = sample.task.and_then(|id| tasks.get(&id).cloned().flatten());
            CpuSample {
                stack: sample.stack,
                task: sample.task,
                spawned_at: task.as_ref().and_then(|task| task.spawned_at.clone()),
                method: task.and_then(|task| task.method),
                thread: sample.thread,
                count: sample.count,
            }
        });
        Ok(CpuProfile {
            started_at,
            duration_ns: clock::delta_ns(began, now),
            period_ns: taken.period_ns,
            samples: samples.collect(),
            lost: taken.lost,
            threads_missed: taken.threads_missed,
            untold,
        })
    }

    fn symbol(&self, address: u64) -> Option<String> {
        self.stacks.symbol(address)
    }

    fn log_streams(&self, target: &LogTarget, on: bool) -> Result<usize> {
        match target {
            LogTarget::Stream(id) => self.registry.streams.log_stream(*id, on).map(|()| 1),
            LogTarget::Method(path) => self.registry.streams.log_method(path, on),
        }
    }
}

impl Core {
    fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}

/// An error for an address that cannot be read.
fn bad_address(what: &str, text: &str) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!("{what} address {text:?} is not of the form IP:PORT, such as 127.0.0.1:6060"),
    )
}
