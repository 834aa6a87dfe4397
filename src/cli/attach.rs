//! `taskprof attach`: the debug server for another process.

use std::sync::Arc;
use std::time::Duration;

use super::args::AttachArgs;
use super::style::{faint, say, strong};
use super::{Failure, Outcome, advice, signals, token};
use crate::attach::{Lately, Target};
use crate::error::ErrorKind;
use crate::serve::{self, Listen, ServeConfig, Source as _, Token, Want};

/// How often the process is looked for.
const LOOK: Duration = Duration::from_millis(500);

/// Serves until a signal, `--seconds`, or the end of the process.
pub fn run(args: &AttachArgs) -> Outcome {
    let options = args.debug.options()?;
    let target = Target::process(args.pid, &options, args.copy.limits())?;
    let source = Arc::new(Lately::new(target));
    // What cannot be read at all is said now, not to the first browser.
    let first = source.snapshot(Want::ALL)?;
    let stop = signals::stop_token(args.seconds.map(Duration::from_secs))?;
    let mut config = ServeConfig::new(Listen::Tcp(args.http));
    if let Some(path) = &args.token_file {
        config.token = Some(Token::new(&token::read(path)?)?);
    }
    let server = serve::start(config, source.clone()).map_err(|error| match error.kind() {
        ErrorKind::Unsafe => Failure::usage(format!("{error}; see --token-file")),
        _ => advice::on_bind(error, None),
    })?;
    let address = server.local_addr().unwrap_or(args.http);
    let process = source.process();
    say(format_args!(
        "attached to {} (pid {}): {} tasks, {} with a stack",
        process.name, process.pid, first.coverage.listed, first.coverage.with_stack
    ));
    say(format_args!("  {}", strong(format_args!("http://{address}/"))));
    say(format_args!("  curl http://{address}/debug/pprof/goroutine?debug=2"));
    say(faint("Ctrl-C detaches"));

    let waiting = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start a runtime: {error}")))?;
    let gone = waiting.block_on(async {
        loop {
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(LOOK) => {}
            }
            match source.source().check() {
                Err(error) if error.kind() == ErrorKind::NotFound => return Some(error),
                // A permission that is missing now may come back.
                _ => {}
            }
        }
    });
    server.shutdown()?;
    if let Some(gone) = gone {
        return Err(gone.into());
    }
    say(faint("detached"));
    Ok(())
}
