//! `taskprof serve`: the reference gRPC server alone.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::args::{Listen, ServeArgs};
use super::style::{faint, say};
use super::{Failure, Outcome, signals, wiring};

/// Runs until a signal or `--seconds`, then drains.
pub fn run(args: &ServeArgs) -> Outcome {
    let stop = stop_token(&args.listen)?;
    let mut server = wiring::start(&args.listen, args.faults)?;
    announce(&server, &args.listen);
    if !args.faults {
        say(faint("faults are refused; `--faults` serves taskprof.lab.v1.Lab as well"));
    }
    server.wait(&stop)?;
    say(faint("shutting down"));
    server.stop()
}

/// The token that ends a server.
pub fn stop_token(listen: &Listen) -> Result<CancellationToken, Failure> {
    signals::stop_token(listen.seconds.map(Duration::from_secs))
}

/// One line for each address that is listened on, for people and for scripts.
pub fn announce(server: &wiring::Server, listen: &Listen) {
    say(format_args!("grpc    listening on {}", server.grpc));
    if let Some(http) = server.http {
        say(format_args!("http    listening on {http}"));
    }
    if let Some(path) = &listen.unix {
        say(format_args!("http    listening on unix:{}", path.display()));
    }
    if let Some(console) = server.console {
        say(format_args!("console listening on {console}"));
    }
}
