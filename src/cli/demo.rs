//! `taskprof demo`: a server with trouble in it, and where to look.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::args::{DemoArgs, Listen};
use super::style::{faint, say, strong};
use super::{Failure, Outcome, serve, wiring};
use crate::reference::load::{self, Dial, Plan, Stats};

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
    serve::announce(&server, &listen);
    let traffic = Traffic::start(server.grpc, stop.child_token())?;
    guide(&server, &listen);
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
                let plan = Plan {
                    target,
                    streams,
                    connections,
                    hold: load::HOLD,
                    dial: Dial::default(),
                    stop: stop.clone(),
                };
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
fn guide(server: &wiring::Server, listen: &Listen) {
    say("");
    say("A gRPC server under real traffic, some of it stuck on purpose: a worker that");
    say("blocks, two calls in a lock cycle, streams that nobody reads, tasks left behind.");
    say("");
    let line = |what: &str, how: String| say(format_args!("  {what:14}{}", strong(how)));
    // As it was called: after `cargo run` there is no `taskprof` on the PATH.
    let program = std::env::args_os().next().unwrap_or_else(|| "taskprof".into());
    let program = program.to_string_lossy();
    if let Some(http) = server.http {
        for (what, how) in http_lines(&program, from_here(http), listen.token_file.as_deref()) {
            line(what, how);
        }
    }
    if let Some(console) = server.console {
        line("tokio-console", format!("tokio-console http://{console}"));
    }
    let grpc = from_here(server.grpc);
    line("more traffic", format!("{program} load --scenario list --grpc {grpc}"));
    say("");
    say(faint("Ctrl-C ends it."));
}

/// An address to connect to: all addresses are none in particular.
fn from_here(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// Lines that work when they are pasted into a shell, with the token if one is asked for.
fn http_lines(
    program: &str,
    http: SocketAddr,
    token: Option<&Path>,
) -> [(&'static str, String); 5] {
    let curl = match token {
        Some(file) => {
            format!("curl -s -H \"Authorization: Bearer $(cat '{}')\"", file.display())
        }
        None => "curl -s".to_owned(),
    };
    let pprof = match token {
        // `go tool pprof` has no way to send a header.
        Some(file) => format!(
            "{program} dump --format pprof --url http://{http} --token-file '{}' -o tasks.pb.gz",
            file.display()
        ),
        None => format!("go tool pprof -top http://{http}/debug/pprof/goroutine"),
    };
    [
        ("dashboard", format!("http://{http}/")),
        ("what is wrong", format!("{curl} http://{http}/debug/findings")),
        ("every task", format!("{curl} 'http://{http}/debug/pprof/goroutine?debug=2'")),
        ("as JSON", format!("{curl} http://{http}/debug/tasks")),
        ("pprof", pprof),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_can_be_pasted() {
        let all = from_here("0.0.0.0:6060".parse().unwrap());
        assert_eq!(all.to_string(), "127.0.0.1:6060");
        assert_eq!(from_here("[::]:1".parse().unwrap()).to_string(), "[::1]:1");
        assert_eq!(from_here("192.0.2.7:1".parse().unwrap()).to_string(), "192.0.2.7:1");

        let open = http_lines("taskprof", all, None);
        assert!(open.iter().all(|(_, how)| !how.contains("Authorization")), "{open:?}");
        let [(_, page), lines @ ..] = http_lines("taskprof", all, Some(Path::new("my token")));
        assert_eq!(page, "http://127.0.0.1:6060/");
        for (what, how) in lines {
            assert!(how.contains("'my token'"), "{what}: {how}");
        }
    }
}
