//! The server's thread: accepts, bounds, drains.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::api;
use super::config::{Listen, ServeConfig};
use super::events::Events;
use super::flight::Flight;
use super::gate::{Failures, HEADERS, gate};
use super::guard::Guard;
use super::listen::{self, Bound, Connection, Listener};
use super::source::Source;
use super::stats::{Counted, Stats};
use super::timed::TimedWrites;
use crate::error::{Error, ErrorKind, Result};

/// Threads for calls that block and for large computations.
const POOL: usize = 8;
/// `goroutine?seconds=N` under way at once.
const DELTAS: usize = 2;
/// Bytes of a request's head. hyper answers 431 beyond.
const HEAD_BYTES: usize = 16 * 1024;

/// What every request may use.
pub struct Context {
    pub config: ServeConfig,
    pub source: Arc<dyn Source>,
    pub flight: Arc<Flight>,
    pub guard: Guard,
    pub failures: Failures,
    pub events: Events,
    /// Deltas keep a snapshot of their own for seconds: few at once.
    pub deltas: Semaphore,
    pub stats: Arc<Stats>,
    /// How far the server's end has come.
    pub stop: watch::Receiver<Phase>,
}

/// [`Context`], shared.
pub type Shared = Arc<Context>;

impl Context {
    /// `listen` as it was bound.
    pub fn shared(
        config: ServeConfig,
        listen: &Listen,
        source: Arc<dyn Source>,
        stop: watch::Receiver<Phase>,
    ) -> Shared {
        let stats = Arc::new(Stats::default());
        let flight = Flight::new(Arc::clone(&source), config.limits.dump_wait, Arc::clone(&stats));
        Arc::new(Self {
            guard: Guard::new(listen, &config.hosts),
            failures: Failures::new(config.limits.token_failures),
            events: Events::new(config.limits.event_streams),
            deltas: Semaphore::new(DELTAS),
            flight,
            source,
            stats,
            stop,
            config,
        })
    }
}

/// How far the server's end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It serves.
    Serving,
    /// Event streams end; what asks and is answered goes on.
    Closing,
    /// It stops.
    Stopped,
}

/// Resolves once the server has come to that phase.
pub async fn reached(phase: Phase, stop: &mut watch::Receiver<Phase>) {
    // `Server` is gone, which is a stop too.
    let _ = stop.wait_for(|now| *now >= phase).await;
}

/// Resolves once the server stops.
pub async fn stopped(stop: &mut watch::Receiver<Phase>) {
    reached(Phase::Stopped, stop).await;
}

/// A running debug server. Dropping it shuts it down.
#[derive(Debug)]
pub struct Server {
    listen: Listen,
    stop: watch::Sender<Phase>,
    thread: Mutex<Option<Running>>,
    drain: Duration,
}

#[derive(Debug)]
struct Running {
    handle: thread::JoinHandle<()>,
    done: mpsc::Receiver<()>,
}

/// Binds, then serves on a thread and runtime of its own, so that it answers
/// while every worker of the watched runtime is blocked.
///
/// # Errors
/// `Unsafe` for an address others can reach without a token, before anything is
/// bound; `Bind` if the address is taken; `Io` if no thread can be started.
pub fn start(config: ServeConfig, source: Arc<dyn Source>) -> Result<Server> {
    config.check()?;
    let bound = listen::bind(&config.listen)?;
    let listen = match bound.local_addr() {
        Some(address) => Listen::Tcp(address),
        None => config.listen.clone(),
    };
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(POOL)
        .thread_name("taskprof-pool")
        .build()
        .map_err(|error| Error::io("cannot start the debug server's runtime", error))?;
    let (stop, stopped) = watch::channel(Phase::Serving);
    let (finished, done) = mpsc::channel();
    let drain = config.limits.drain;
    let name = listen.clone();
    let handle = thread::Builder::new()
        .name("taskprof-http".into())
        .spawn(move || {
            // Dropped when the thread ends, however it ends.
            let _finished: mpsc::Sender<()> = finished;
            run(runtime, bound, &name, config, source, stopped);
        })
        .map_err(|error| Error::io("cannot start the debug server's thread", error))?;
    Ok(Server { listen, stop, thread: Mutex::new(Some(Running { handle, done })), drain })
}

impl Server {
    /// Where it listens, with the port that was taken.
    pub fn listen(&self) -> &Listen {
        &self.listen
    }

    /// The TCP address it listens on; none for a unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self.listen {
            Listen::Tcp(address) => Some(address),
            Listen::Unix(_) => None,
        }
    }

    /// Ends event streams, which would else last as long as their readers
    /// like. All else is answered as before, until
    /// [`shutdown`](Self::shutdown).
    pub fn close_events(&self) {
        let _ = self.stop.send(Phase::Closing);
    }

    /// Begins what [`shutdown`](Self::shutdown) waits for: with several servers
    /// they end side by side.
    pub fn begin_shutdown(&self) {
        let _ = self.stop.send(Phase::Stopped);
    }

    /// Closes event streams, lets answers under way finish for a moment and
    /// stops. Blocks for a second at most; a second call does nothing.
    ///
    /// # Errors
    /// `Timeout` if the thread did not stop in time: it is left behind.
    pub fn shutdown(&self) -> Result<()> {
        let Some(running) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
        else {
            return Ok(());
        };
        self.begin_shutdown();
        match running.done.recv_timeout(self.drain + Duration::from_millis(200)) {
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(Error::new(ErrorKind::Timeout, "the debug server did not stop in time"))
            }
            _ => running.handle.join().map_err(|payload| {
                std::mem::forget(payload);
                Error::new(ErrorKind::Internal, "the debug server's thread panicked")
            }),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.shutdown();
    }
}

fn run(
    runtime: Runtime,
    bound: Bound,
    listen: &Listen,
    config: ServeConfig,
    source: Arc<dyn Source>,
    stop: watch::Receiver<Phase>,
) {
    let shared = Context::shared(config, listen, source, stop);
    runtime.block_on(async {
        // The descriptor is bound and valid: registering it fails only when
        // the process is out of memory or descriptors.
        match bound.into_async() {
            Ok(listener) => serve(listener, shared).await,
            Err(error) => tracing::error!(%error, "the debug server cannot accept"),
        }
    });
    // A source that blocks must not hold the exit up.
    runtime.shutdown_background();
}

async fn serve(listener: Listener, shared: Shared) {
    let router = api::router(&shared).layer(from_fn_with_state(Arc::clone(&shared), gate));
    let room = Arc::new(Semaphore::new(shared.config.limits.connections));
    let mut stop = shared.stop.clone();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok(connection) => match Arc::clone(&room).try_acquire_owned() {
                    Ok(permit) => {
                        let served = converse(connection, router.clone(), Arc::clone(&shared));
                        connections.spawn(async move {
                            served.await;
                            drop(permit);
                        });
                    }
                    Err(_) => turn_away(&connection, &shared.stats),
                },
                // Out of descriptors, most likely: the program needs them more.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(shared.config.limits.drain, drained).await;
}

/// Said before a request is read, and so without passing the gate.
fn turn_away(connection: &Connection, stats: &Stats) {
    stats.connections_refused.add(1);
    let text = "too many connections\n";
    let mut answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n",
        text.len()
    );
    for (name, value) in HEADERS {
        let _ = write!(answer, "{name}: {value}\r\n");
    }
    let _ = write!(answer, "\r\n{text}");
    connection.try_write(answer.as_bytes());
}

async fn converse(connection: Connection, router: Router, shared: Shared) {
    let limits = &shared.config.limits;
    let stats = &shared.stats;
    let _counted = Counted::new(Arc::clone(stats), |stats| &stats.connections);
    let io = TimedWrites::new(connection, limits.write_timeout, Arc::clone(stats));
    let mut stop = shared.stop.clone();
    let mut conversation = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(io), TowerToHyperService::new(router))
    );
    // Errors are the client's: broken off, malformed, too slow.
    tokio::select! {
        _ = conversation.as_mut() => {}
        () = stopped(&mut stop) => {
            conversation.as_mut().graceful_shutdown();
            let _ = conversation.await;
        }
    }
}
