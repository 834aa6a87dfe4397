//! `taskprof demo`: a server with trouble in it, and where to look.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::args::DemoArgs;
use super::style::{faint, say, strong};
use super::{Failure, Outcome, serve, wiring};
use crate::reference::load::{self, Plan, Stats};

/// With two workers, one that is blocked takes half of the server; with four
/// the rest stays well enough to be compared with.
const MIN_WORKERS: u16 = 4;

/// What runs: scenario, streams, connections. Each has its own connections, as
/// a stuck call can take its connection's other calls with it.
const TRAFFIC: &[(&str, u32, u32)] = &[
    ("mix", 20, 2),
    ("watch", 8, 1),
    ("slow-trickle", 2, 1),
    ("block-thread", 1, 1),
    ("lock-cycle", 2, 1),
    ("hold-mutex", 3, 1),
    ("silent-channel", 2, 1),
    ("unread-stream", 2, 1),
    ("never-read", 1, 1),
    ("leave-task-behind", 1, 1),
    ("ignore-cancellation", 1, 1),
];

/// Runs until a signal or `--seconds`, then ends the traffic and the server.
pub fn run(args: &DemoArgs) -> Outcome {
    let mut listen = args.listen.clone();
    if listen.workers.is_none() {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        listen.workers = Some(u16::try_from(processors).unwrap_or(u16::MAX).max(MIN_WORKERS));
    }
    let stop = serve::stop_token(&listen)?;
    let mut server = wiring::start(&listen, true)?;
    serve::announce(&server);
    let traffic = Traffic::start(server.grpc, stop.child_token())?;
    guide(&server);
    let waited = server.wait(&stop);
    say(faint("shutting down"));
    traffic.stop();
    waited.and(server.stop())
}

/// The client side, on a runtime of its own: as far from the server as the
/// same process allows, with real sockets between them.
struct Traffic {
    runtime: tokio::runtime::Runtime,
    runs: Vec<tokio::task::JoinHandle<crate::error::Result<()>>>,
    stop: CancellationToken,
}

impl Traffic {
    fn start(target: SocketAddr, stop: CancellationToken) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("traffic")
            .enable_all()
            .build()
            .map_err(|error| Failure::failed(format!("cannot start a runtime: {error}")))?;
        let runs = TRAFFIC
            .iter()
            .map(|&(name, streams, connections)| {
                let scenario = load::find(name)
                    .map_err(|_| Failure::failed(format!("the demo lacks scenario {name}")))?;
                let plan = Plan { target, streams, connections, stop: stop.clone() };
                Ok(runtime.spawn(load::run(scenario, plan, Arc::new(Stats::default()))))
            })
            .collect::<Result<_, Failure>>()?;
        Ok(Self { runtime, runs, stop })
    }

    fn stop(self) {
        self.stop.cancel();
        self.runtime.block_on(async {
            for run in self.runs {
                if let Ok(Err(error)) = run.await {
                    super::complain(&error.to_string());
                }
            }
        });
        self.runtime.shutdown_timeout(Duration::from_secs(1));
    }
}

/// What to open and what to type.
fn guide(server: &wiring::Server) {
    say("");
    say("A gRPC server under real traffic, some of it stuck on purpose: a worker that");
    say("blocks, two calls in a lock cycle, streams that nobody reads, tasks left behind.");
    say("");
    let line = |what: &str, how: String| say(format_args!("  {what:14}{}", strong(how)));
    if let Some(http) = server.http {
        line("dashboard", format!("http://{http}/"));
        line("what is wrong", format!("curl -s http://{http}/debug/findings"));
        line("every task", format!("curl -s 'http://{http}/debug/pprof/goroutine?debug=2'"));
        line("as JSON", format!("curl -s http://{http}/debug/tasks"));
        line("pprof", format!("go tool pprof -top http://{http}/debug/pprof/goroutine"));
    }
    if let Some(console) = server.console {
        line("tokio-console", format!("tokio-console http://{console}"));
    }
    line("more traffic", format!("taskprof load --scenario list --grpc {}", server.grpc));
    say("");
    say(faint("Ctrl-C ends it."));
}
